//! `conclave-bench NAME --json`: one JSON object a line. docs/benchmarks.md tells how to repeat each figure.

mod benches;
mod report;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::report::Report;

/// Benchmarks of Conclave, each beside a baseline in the same run.
#[derive(Debug, Parser)]
#[command(name = "conclave-bench", version)]
struct Args {
    /// One JSON object a line, instead of a table
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Create, add, join, commit, process, send, receive: the engine with its store, beside bare mls-rs in memory
    ClientOps(benches::client_ops::Options),
    /// Name the benchmarks
    List,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut report = Report::new(args.json);
    let done = match args.bench {
        Bench::ClientOps(options) => benches::client_ops::run(&options, &mut report),
        Bench::List => {
            println!("client-ops");
            return ExitCode::SUCCESS;
        }
    };
    match done {
        Ok(()) => {
            report.finish();
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("conclave-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
