//! `conclave-bench NAME --json`: one JSON object a line. docs/benchmarks.md tells how to repeat each figure.

mod benches;
mod ds;
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
    /// A durable message of 1 KiB in small and large groups, beside bare mls-rs with its SQLite store
    ClientSend(benches::client_send::Options),
    /// 10,000 messages that waited, read and stored, beside bare mls-rs that only decrypts
    ClientCatchup(benches::client_catchup::Options),
    /// A profile with 500 groups and one of 10,000 members
    ClientOpen(benches::client_open::Options),
    /// Durable messages from 64 senders in 64 groups, beside the same appends straight into SQLite
    DsAppend(benches::ds_append::Options),
    /// One group, 1,000 listening streams
    DsFanout(benches::ds_fanout::Options),
    /// One message in a group of 2 and of 10,000, with nobody listening
    DsGroupSize(benches::ds_group_size::Options),
    /// All members commit on the same epoch, again and again
    DsCommitStorm(benches::ds_commit_storm::Options),
    /// Memory of an idle listening stream
    DsIdle(benches::ds_idle::Options),
    /// Large groups with real certificates: add all, join, commit, process, beside bare mls-rs in memory
    DsLarge(benches::ds_large::Options),
    /// Name the benchmarks
    List,
    /// What the benchmarks of the Delivery Service start: a server
    #[command(hide = true)]
    Serve(ds::Serve),
}

fn told<E: std::fmt::Display>(result: Result<(), E>) -> Result<(), String> {
    result.map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut report = Report::new(args.json);
    let done = match args.bench {
        Bench::ClientOps(options) => told(benches::client_ops::run(&options, &mut report)),
        Bench::ClientSend(options) => told(benches::client_send::run(&options, &mut report)),
        Bench::ClientCatchup(options) => told(benches::client_catchup::run(&options, &mut report)),
        Bench::ClientOpen(options) => told(benches::client_open::run(&options, &mut report)),
        Bench::DsAppend(options) => told(benches::ds_append::run(&options, &mut report)),
        Bench::DsFanout(options) => told(benches::ds_fanout::run(&options, &mut report)),
        Bench::DsGroupSize(options) => told(benches::ds_group_size::run(&options, &mut report)),
        Bench::DsCommitStorm(options) => told(benches::ds_commit_storm::run(&options, &mut report)),
        Bench::DsIdle(options) => told(benches::ds_idle::run(&options, &mut report)),
        Bench::DsLarge(options) => told(benches::ds_large::run(&options, &mut report)),
        Bench::Serve(options) => {
            return told(ds::serve(&options)).map_or_else(fail, |()| ExitCode::SUCCESS);
        }
        Bench::List => {
            println!(
                "client-ops\nclient-send\nclient-catchup\nclient-open\nds-append\nds-fanout\nds-group-size\nds-commit-storm\nds-idle\nds-large"
            );
            return ExitCode::SUCCESS;
        }
    };
    match done {
        Ok(()) => {
            report.finish();
            ExitCode::SUCCESS
        }
        Err(error) => fail(error),
    }
}

fn fail(error: String) -> ExitCode {
    eprintln!("conclave-bench: {error}");
    ExitCode::FAILURE
}
