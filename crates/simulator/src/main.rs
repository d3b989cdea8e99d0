//! `conclave-simulate`: many seeds, or one again.

use std::{
    io::{IsTerminal as _, Write as _},
    ops::Range,
    process::ExitCode,
    time::Instant,
};

use clap::Parser;
use conclave_simulator::{Plan, Sabotage, simulate};

/// Simulates clients and a Delivery Service with faults. A failing seed is named with the command that repeats it.
#[derive(Debug, Parser)]
#[command(name = "conclave-simulate", version)]
struct Args {
    /// Seeds, the end excluded
    #[arg(long, value_name = "FROM..TO", default_value = "0..100", value_parser = range)]
    seeds: Range<u64>,
    /// One seed only
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Steps of each program
    #[arg(long, default_value_t = 100)]
    steps: u32,
    /// How likely the network fails, and a client dies, in a step; in percent
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(..=100))]
    faults: u64,
    /// Plants a fault into the clients, to see that it is caught
    #[arg(long, default_value_t = Sabotage::None)]
    sabotage: Sabotage,
    /// Go on after a failing seed
    #[arg(long)]
    keep_going: bool,
    /// Print what happens, step by step
    #[arg(long)]
    verbose: bool,
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("write it as 0..500")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("`{text}`: {error}"));
    let (from, to) = (number(from)?, number(to)?);
    if from < to { Ok(from..to) } else { Err("the range is empty".into()) }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let seeds = args.seed.map_or(args.seeds.clone(), |seed| seed..seed.saturating_add(1));
    let total = seeds.end - seeds.start;
    let (started, progress) = (Instant::now(), std::io::stderr().is_terminal());
    let (mut failed, mut epochs, mut sent, mut read, mut wishes, mut broken) = (0_u64, 0, 0, 0, 0, 0);
    for (done, seed) in (1..).zip(seeds) {
        let plan = Plan { seed, steps: args.steps, fault_percent: args.faults, sabotage: args.sabotage };
        let trace = match simulate(&plan) {
            Ok(report) => {
                epochs += report.epochs;
                sent += report.sent;
                read += report.read;
                wishes += report.wishes_failed;
                broken += report.broken;
                report.trace
            }
            Err(violation) => {
                failed += 1;
                eprintln!("\r{violation}");
                violation.trace
            }
        };
        if args.verbose {
            println!("{}", trace.join("\n"));
        }
        if progress {
            eprint!("\r{done} of {total} seeds, {failed} failed ");
            let _ = std::io::stderr().flush();
        }
        if failed > 0 && !args.keep_going {
            return ExitCode::FAILURE;
        }
    }
    if progress {
        eprintln!();
    }
    println!(
        "{total} seeds, {failed} failed, in {:.1} s: {epochs} epochs, {sent} messages sent and {read} read, \
         {wishes} wishes given up with a reason, {broken} commits that nobody could apply",
        started.elapsed().as_secs_f64()
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
