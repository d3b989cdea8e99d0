//! The program `conclave`.

use std::process::ExitCode;

fn main() -> ExitCode {
    conclave_cli::main(std::env::args_os())
}
