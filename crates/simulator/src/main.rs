//! `conclave-simulate`: many seeds, or one again.

use std::process::ExitCode;

use clap::Parser;
use conclave_simulator::{Plan, simulate};

/// Simulates clients and a Delivery Service with faults; a failing seed is named with the command that repeats it.
#[derive(Debug, Parser)]
#[command(name = "conclave-simulate", version)]
struct Args {
    /// First seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many seeds
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Steps of each program
    #[arg(long, default_value_t = 60)]
    steps: u32,
    /// Clients
    #[arg(long, default_value_t = 5)]
    clients: usize,
}

fn main() -> ExitCode {
    let args = Args::parse();
    for seed in args.seed..args.seed.saturating_add(args.count) {
        let plan = Plan { seed, steps: args.steps, clients: args.clients, ..Plan::default() };
        match simulate(&plan) {
            Ok(outcome) => println!("seed {seed}: {outcome:?}"),
            Err(violation) => {
                eprintln!("seed {seed}: {violation}");
                eprintln!(
                    "again: cargo run -p conclave-simulator -- --seed {seed} --steps {} --clients {}",
                    args.steps, args.clients
                );
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
