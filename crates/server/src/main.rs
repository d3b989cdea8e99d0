//! The program `conclaved`.

use std::process::ExitCode;

use clap::Parser as _;

#[tokio::main]
async fn main() -> ExitCode {
    conclave_server::args::run(conclave_server::args::Args::parse()).await
}
