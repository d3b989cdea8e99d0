//! The program `conclave`: every operation of the SDK as a verb, for people and, with `--json`, for programs.
//!
//! [`main`] runs one command line. It is a library so that other programs can offer the same verbs.

mod args;
mod error;
mod names;
mod output;
mod profile;
mod shell;
mod verbs;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

use crate::{args::Args, error::CliError, output::Output, profile::Context};

/// Runs one command line, the program's name included. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 failed for now.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(arguments) {
        Ok(args) => args,
        Err(error) => {
            // Help and version are no errors.
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    log(args.global.verbose);
    let output = Output::new(args.global.json);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output.fail(&CliError::Io("the runtime".into(), error)),
    };
    let mut context = Context::new(args.global);
    match runtime.block_on(verbs::run(args.verb, &mut context, &output)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output.fail(&error),
    }
}

fn log(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_env("CONCLAVE_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    // A program that embeds this one may log already.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}
