//! `client-ops`: what a client does with a group, ours with its encrypted store on disk, beside bare mls-rs in memory
//! with the same credentials, cipher suite and tree out of band.

pub(crate) mod bare;
pub(crate) mod ours;
pub(crate) mod world;

use std::{
    error::Error,
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::report::{Figure, Report};

/// What is measured.
pub(crate) const OPERATIONS: [&str; 7] = ["create", "add", "join", "commit", "process", "send", "receive"];

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Sizes of the group
    #[arg(long, value_delimiter = ',', default_values_t = [2, 10, 100, 1000])]
    members: Vec<usize>,
    /// Repetitions of each operation; the median counts
    #[arg(long, default_value_t = 21)]
    repetitions: usize,
    /// Three repetitions
    #[arg(long)]
    quick: bool,
}

/// Durations of the operations, in the order of [`OPERATIONS`].
#[derive(Default)]
pub(crate) struct Times([Vec<Duration>; OPERATIONS.len()]);

impl Times {
    /// Runs an operation and takes its time.
    pub(crate) fn take<T>(&mut self, operation: &str, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        let elapsed = start.elapsed();
        let index = OPERATIONS.iter().position(|name| *name == operation);
        if let Some(times) = index.and_then(|index| self.0.get_mut(index)) {
            times.push(elapsed);
        }
        result
    }

    /// Median in milliseconds, without the first (which warms up).
    fn median(&self, index: usize) -> f64 {
        let mut times: Vec<_> = self.0.get(index).into_iter().flatten().skip(1).collect();
        times.sort_unstable();
        times.get(times.len() / 2).map_or(0.0, |median| median.as_secs_f64() * 1000.0)
    }
}

pub(crate) fn run(options: &Options, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let repetitions = if options.quick { 3 } else { options.repetitions }.max(1) + 1;
    for &members in &options.members {
        if members < 2 {
            return Err("a group to measure has at least two members".into());
        }
        let progress = progress(members, repetitions);
        let world = world::World::new(members)?;
        let mut ours = Times::default();
        let sizes = ours::measure(&world, repetitions, &mut ours, &progress)?;
        let mut bare = Times::default();
        bare::measure(&world, repetitions, &mut bare, &progress)?;
        progress.finish_and_clear();
        for (index, operation) in OPERATIONS.into_iter().enumerate() {
            let (ours, bare) = (ours.median(index), bare.median(index));
            let figure = |metric: String, value, unit| Figure { bench: "client-ops", metric, members, value, unit };
            report.add(figure(operation.to_owned(), ours, "ms"));
            report.add(figure(format!("{operation}-bare"), bare, "ms"));
            report.add(figure(format!("{operation}-ratio"), if bare > 0.0 { ours / bare } else { 0.0 }, "ratio"));
        }
        for (metric, bytes) in sizes {
            let bytes = u32::try_from(bytes).map_or(f64::INFINITY, f64::from);
            report.add(Figure { bench: "client-ops", metric: metric.to_owned(), members, value: bytes, unit: "bytes" });
        }
    }
    Ok(())
}

fn progress(members: usize, repetitions: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(2 * repetitions as u64);
    let style = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(format!("client-ops, {members} members"));
    bar
}
