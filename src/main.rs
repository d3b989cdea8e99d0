//! Conclave in one program: `demo`, `server` (what `conclaved` is) and `client` (what `conclave` is).

mod demo;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser as _;

const USAGE: &str = "\
Conclave: secure group messaging, end to end encrypted, as RFC 9750 describes it.

usage: cargo run --release -- <what> [arguments]

  demo     a server and three people in separate processes, narrated step by step
  server   the server, as the program `conclaved`; `server --help` tells more
  client   the client, as the program `conclave`; `client --help` tells more
";

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let what = if arguments.len() > 1 { arguments.remove(1) } else { OsString::new() };
    match what.to_str() {
        Some("demo") if arguments.len() == 1 => demo::main(),
        Some("server") => server(arguments),
        Some("client") => conclave_cli::main(arguments),
        Some("--help" | "-h" | "help") => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        _ => {
            eprint!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn server(arguments: Vec<OsString>) -> ExitCode {
    let args = conclave_server::args::Args::parse_from(arguments);
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(conclave_server::args::run(args)),
        Err(error) => {
            eprintln!("conclaved: no runtime: {error}");
            ExitCode::FAILURE
        }
    }
}
