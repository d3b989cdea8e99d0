//! `conclave-simulate`: many seeds, or one again.

use std::{
    io::{IsTerminal as _, Write as _},
    num::NonZero,
    ops::Range,
    process::ExitCode,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Instant,
};

use clap::Parser;
use conclave_simulator::{Cut, Hostile, Numbers, Plan, Sabotage, Sums, Trouble, Violation, shrink, simulate};

/// Simulates clients and a Delivery Service with faults. A failing seed is cut to what is needed for it, and named with
/// the command that repeats it.
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
    /// Who breaks the rules: nobody, server, members, both; by default it depends on the seed
    #[arg(long)]
    hostile: Option<Hostile>,
    /// Plants a fault into the clients, to see that it is caught
    #[arg(long, default_value_t = Sabotage::None)]
    sabotage: Sabotage,
    /// Only these steps of the program, as 0-3,7
    #[arg(long, requires = "seed")]
    keep: Option<Numbers>,
    /// Steps in which nothing goes wrong
    #[arg(long, requires = "seed", default_value = "")]
    calm: Numbers,
    /// What goes wrong in no step
    #[arg(long, value_delimiter = ',')]
    without: Vec<Trouble>,
    /// Go on after a failing seed
    #[arg(long)]
    keep_going: bool,
    /// Programs that are tried to cut a failing one; 0 leaves it whole
    #[arg(long, default_value_t = 300, value_name = "TRIES")]
    shrink: u32,
    /// Seeds at a time; by default as many as there are cores
    #[arg(long)]
    jobs: Option<NonZero<usize>>,
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

impl Args {
    fn plan(&self, seed: u64) -> Plan {
        Plan {
            seed,
            steps: self.steps,
            fault_percent: self.faults,
            hostile: self.hostile.unwrap_or(Hostile::of(seed)),
            sabotage: self.sabotage,
            cut: Cut {
                keep: self.keep.clone(),
                calm: self.calm.clone(),
                without: self.without.iter().copied().collect(),
            },
        }
    }

    /// One seed. Prints what there is to see.
    fn run(&self, seed: u64, sums: &mut Sums) {
        let trace = match simulate(&self.plan(seed)) {
            Ok(report) => {
                *sums += report.sums;
                report.trace
            }
            Err(violation) => {
                sums.failed += 1;
                let violation = self.cut(violation);
                eprintln!("\r{violation}");
                violation.trace
            }
        };
        if self.verbose {
            println!("{}", trace.join("\n"));
        }
    }

    fn cut(&self, violation: Box<Violation>) -> Box<Violation> {
        if self.shrink == 0 || self.keep.is_some() {
            return violation;
        }
        eprintln!("\r{violation}\ncutting it to what is needed");
        shrink(violation, self.shrink)
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let seeds = args.seed.map_or(args.seeds.clone(), |seed| seed..seed.saturating_add(1));
    let total = seeds.end - seeds.start;
    let (started, progress) = (Instant::now(), std::io::stderr().is_terminal());
    let jobs = args.jobs.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZero::get);
    let (next, done, stop) = (AtomicU64::new(seeds.start), AtomicU64::new(0), AtomicBool::new(false));
    let work = || {
        let mut sums = Sums::default();
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            args.run(seed, &mut sums);
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            if progress {
                eprint!("\r{done} of {total} seeds ");
                let _ = std::io::stderr().flush();
            }
            if sums.failed > 0 && !args.keep_going {
                stop.store(true, Ordering::Relaxed);
            }
        }
        sums
    };
    let mut sums = Sums::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            match thread.join() {
                Ok(part) => sums += part,
                Err(_) => sums.failed += 1,
            }
        }
    });
    if progress {
        eprintln!();
    }
    println!(
        "{} seeds, {} failed, in {:.1} s: {} epochs, {} groups checked ({} by their members' word, {} members excused) and {} lost, {} deaths ({} late), {} messages sent and {} read, {} keys watched and {} of commits, {} wishes given up \
         with a reason, {} commits annulled, {} rejoined, {} knocks, {} let in again, {} back from another branch, {} in successors, {} misdeeds, \
         {} alarms",
        done.load(Ordering::Relaxed),
        sums.failed,
        started.elapsed().as_secs_f64(),
        sums.epochs,
        sums.groups,
        sums.by_word,
        sums.excused,
        sums.lost,
        sums.deaths,
        sums.late_deaths,
        sums.sent,
        sums.read,
        sums.witnessed,
        sums.handshakes,
        sums.wishes,
        sums.void,
        sums.rejoined,
        sums.knocks,
        sums.readmitted,
        sums.healed,
        sums.succeeded,
        sums.misdeeds,
        sums.alarms,
    );
    if sums.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
