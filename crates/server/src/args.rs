//! The command line of `conclaved`.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{
    IssuerSource, RegistrationPolicy, Running, Server, Tls,
    config::{Config, EXAMPLE, Overrides},
    create_invite, create_ticket, init_logging, issuers,
    telemetry::filter,
    tls,
};

/// The Conclave server: Authentication Service and Delivery Service for secure group messaging (RFC 9750).
///
/// Settings come from the configuration file, then the environment, then flags; the later ones win.
#[derive(Debug, Parser)]
#[command(name = "conclaved", version)]
pub struct Args {
    /// Configuration file (TOML); `conclaved init` writes an example
    #[arg(long, short, env = "CONCLAVE_CONFIG", value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(flatten)]
    over: Overrides,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (what happens without a subcommand, too)
    Run,
    /// Write an example configuration, every setting explained, to a file or to standard output
    Init {
        /// Where to write it; an existing file is not overwritten
        file: Option<PathBuf>,
    },
    /// Check the configuration and say what it amounts to
    Check,
    /// Invite tokens, for servers with registration = "invite"
    #[command(subcommand)]
    Invite(Invite),
    /// Tickets, whose holders are served beyond the rates of their network address
    #[command(subcommand)]
    Ticket(Ticket),
}

#[derive(Debug, Subcommand)]
enum Ticket {
    /// Make a ticket. Works while the server runs or not, but it must have run before
    Create {
        /// For how many calls beyond the rates of limits.address
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
        calls: u32,
        /// For how many days
        #[arg(long, default_value_t = 14, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..))]
        expires: u16,
    },
}

#[derive(Debug, Subcommand)]
enum Invite {
    /// Make a token. Works while the server runs or not
    Create {
        /// How many users may register with it
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        uses: u32,
        /// For how many days
        #[arg(long, default_value_t = 14, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..))]
        expires: u16,
    },
}

/// Runs `conclaved` with these arguments.
pub async fn run(args: Args) -> ExitCode {
    match execute(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("conclaved: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn execute(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    if let Some(Command::Init { file }) = &args.command {
        match file {
            None => print!("{EXAMPLE}"),
            Some(path) => {
                use std::io::Write as _;
                let created = std::fs::OpenOptions::new().create_new(true).write(true).open(path);
                let written = created.and_then(|mut file| file.write_all(EXAMPLE.as_bytes()));
                written.map_err(|error| format!("{}: {error}", path.display()))?;
                println!("wrote {}; start the server with: conclaved --config {}", path.display(), path.display());
            }
        }
        return Ok(());
    }
    let config = Config::load(args.config.as_deref(), args.over)?;
    match args.command {
        Some(Command::Check) => {
            examine(&config).await?;
            println!("{config:#?}");
            Ok(())
        }
        Some(Command::Invite(Invite::Create { uses, expires })) => {
            let token = create_invite(&config.data_dir, uses, expires)?;
            if config.registration == RegistrationPolicy::Open {
                eprintln!(
                    "conclaved: note: here registration is open; nobody needs this until registration = \"invite\""
                );
            }
            if !config.data_dir.join("conclave.db").exists() {
                let path = config.data_dir.display();
                eprintln!("conclaved: note: no server has used {path} yet; the token is good for the one that will");
            }
            println!("{}", &*token);
            Ok(())
        }
        Some(Command::Ticket(Ticket::Create { calls, expires })) => {
            println!("{}", &*create_ticket(&config.data_dir, calls, expires)?);
            Ok(())
        }
        Some(Command::Init { .. }) => Ok(()),
        Some(Command::Run) | None => serve(config).await,
    }
}

/// Looks at what the configuration names, as far as nothing need be made or asked for that.
async fn examine(config: &Config) -> Result<(), Box<dyn std::error::Error>> {
    filter(config)?;
    if matches!(config.tls, Tls::Files { .. }) {
        tls::prepare(&config.tls, &config.data_dir, &config.domain)?;
    }
    if let Some(source @ IssuerSource::File(_)) = &config.issuers {
        issuers::learn(source, &config.domain).await?;
    }
    Ok(())
}

async fn serve(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    use tokio::signal::unix::{SignalKind, signal};

    init_logging(&config)?;
    // Before the start, so that a signal during it is not lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let data_dir = config.data_dir.clone();
    let scheme = if config.tls == Tls::Plaintext { "http, NOT encrypted" } else { "https" };
    let mut running: Running = Server::start(config).await?;
    let pin = running.ca_pem().map(|_| format!("conclaved: clients pin {}\n", data_dir.join("tls/ca.pem").display()));
    let said = format!("conclaved: {} on {} ({scheme})\n{}", running.domain(), running.addr(), pin.unwrap_or_default());
    // Nobody need read this: a closed pipe does not end a server.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), said.as_bytes());
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = running.wait() => {
            running.shutdown().await;
            return Err("the server ended by a fault; its log says why".into());
        }
    }
    running.shutdown().await;
    Ok(())
}
