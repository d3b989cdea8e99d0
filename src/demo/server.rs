//! The server's process.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{Deviation, Played};

pub(crate) struct ServerProcess {
    child: Child,
    address: String,
    data: PathBuf,
}

/// This program, run again as something else.
pub(crate) fn again(what: &str) -> Played<Command> {
    let program = std::env::current_exe().map_err(|error| Deviation::new(format!("this program: {error}")))?;
    let mut command = Command::new(program);
    command.arg(what);
    // What the user has configured for own use must not reach into the demonstration.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CONCLAVE_")) {
        command.env_remove(name);
    }
    Ok(command)
}

impl ServerProcess {
    pub(crate) fn start(data: &Path) -> Played<Self> {
        let failed = |why: String| Deviation::new(format!("the server does not start: {why}"));
        let mut child = again("server")?
            .args(["--listen", "127.0.0.1:0", "--log", "warn", "--data-dir"])
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let stdout = child.stdout.take().ok_or_else(|| failed("no output".into()))?;
        let mut lines = BufReader::new(stdout).lines();
        // "conclaved: localhost on 127.0.0.1:7443 (https)"
        let address = lines
            .find_map(|line| {
                let line = line.ok()?;
                let (_, rest) = line.split_once(" on ")?;
                rest.split_whitespace().next().map(str::to_owned)
            })
            .ok_or_else(|| failed("it ended; see above".into()))?;
        // What it prints later goes nowhere, but must be read.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { child, address, data: data.to_owned() })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.data.join("tls/ca.pem")
    }

    /// Stops it in good order; gives its data directory.
    pub(crate) fn stop(mut self) -> Played<PathBuf> {
        let failed = |why: String| Deviation::new(format!("the server does not stop in good order: {why}"));
        let told = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status();
        told.map_err(|error| failed(error.to_string()))?;
        let status = self.child.wait().map_err(|error| failed(error.to_string()))?;
        if status.success() { Ok(self.data.clone()) } else { Err(failed(status.to_string())) }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // If the demonstration ends early. A process that has ended already is no error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
