//! The server, in a process of its own.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use conclave_names::Domain;
use conclave_server::{Config, Server, Tls};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::{Common, Failure};

/// The domain that the server speaks for.
pub(crate) fn domain() -> Result<Domain, Failure> {
    Ok("example.com".parse()?)
}

/// Arguments of the program when it is the server.
#[derive(Debug, clap::Args)]
pub(crate) struct Serve {
    #[arg(long)]
    data_dir: PathBuf,
    #[arg(long)]
    plaintext: bool,
}

/// What the server says once it listens.
#[derive(Serialize, Deserialize)]
struct Ready {
    addr: SocketAddr,
    metrics: Option<SocketAddr>,
    ca_pem: Option<String>,
}

/// Serves until standard input ends: with the benchmark that started it, however that ends.
pub(crate) fn serve(options: &Serve) -> Result<(), Failure> {
    // As `conclaved` does.
    tokio::runtime::Runtime::new()?.block_on(async {
        let mut config = Config::for_tests(&options.data_dir, domain()?);
        config.metrics = Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0));
        if options.plaintext {
            config.tls = Tls::Plaintext;
        }
        "warn".clone_into(&mut config.log);
        conclave_server::init_logging(&config)?;
        let running = Server::start(config).await?;
        let ready = Ready {
            addr: running.addr(),
            metrics: running.metrics_addr(),
            ca_pem: running.ca_pem().map(str::to_owned),
        };
        println!("{}", serde_json::to_string(&ready)?);
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
        running.shutdown().await;
        Ok(())
    })
}

/// A running server.
pub(crate) struct Process {
    child: Child,
    /// Closed to have it end.
    stdin: Option<ChildStdin>,
    ready: Ready,
    directory: TempDir,
}

impl Process {
    /// Starts one on an empty directory.
    pub(crate) fn start(common: &Common) -> Result<Self, Failure> {
        let directory = match &common.directory {
            Some(parent) => TempDir::new_in(parent)?,
            None => TempDir::new()?,
        };
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve").arg("--data-dir").arg(directory.path().join("server"));
        if common.plaintext {
            command.arg("--plaintext");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take();
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let ready = serde_json::from_str(&line).map_err(|_| "the server did not start: see above")?;
        Ok(Self { child, stdin, ready, directory })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.ready.addr
    }

    pub(crate) fn ca_pem(&self) -> Option<&str> {
        self.ready.ca_pem.as_deref()
    }

    /// Where its database lies.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Its resident memory, in bytes.
    pub(crate) fn resident(&self) -> Result<u64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS in /proc")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }

    /// The time that the cores have spent on it, in its own code and in the system's.
    pub(crate) fn cpu(&self) -> Result<Duration, Failure> {
        /// Ticks of a second in /proc: the kernel's USER_HZ, which is the same everywhere.
        const TICKS: u64 = 100;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // After the name, which may hold spaces, utime and stime are the 12th and 13th.
        let rest = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
        let ticks: u64 = rest.split_whitespace().skip(11).take(2).filter_map(|text| text.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(ticks * 1000 / TICKS))
    }

    /// The sum of a counter over all its labels.
    pub(crate) fn counter(&self, name: &str) -> Result<f64, Failure> {
        let addr = self.ready.metrics.ok_or("the server offers no metrics")?;
        let mut stream = TcpStream::connect(addr)?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let value = |line: &str| {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '{']))?;
            rest.rsplit(' ').next()?.parse::<f64>().ok()
        };
        Ok(text.lines().filter_map(value).sum())
    }

    /// Stops it in good order and gives its directory.
    pub(crate) fn stop(&mut self) -> Result<(), Failure> {
        drop(self.stdin.take());
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the server ended with {status}").into()) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.stdin.take().is_some() {
            let _ = self.child.wait();
        }
    }
}

/// How many processes wanted a core in the last minute, on average.
pub(crate) fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|load| load.parse().ok()).unwrap_or(0.0)
}
