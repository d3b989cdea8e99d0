//! `ds-large`: what large groups cost: our engine with its encrypted store on disk and a real server, beside bare
//! mls-rs in memory with the same members' KeyPackages, certificates and validator, and the tree out of band.

mod bare;
mod ours;
mod people;

use std::time::{Duration, Instant};

use crate::{
    ds::{Common, Failure, Figures, Process, number},
    report::Report,
};

/// What is measured.
const OPERATIONS: [&str; 5] = ["add-all", "add-one", "join", "commit", "process"];

/// What is measured of ours only: the state after a commit, which is written up to five seconds later, when nobody waits. Bare
/// mls-rs writes it with the commit, to memory.
const LATER: &str = "state-write";

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Sizes of the group
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000])]
    members: Vec<usize>,
    /// Repetitions of each operation but the first; the median counts
    #[arg(long, default_value_t = 5)]
    repetitions: usize,
}

/// Durations of the operations, in the order of [`OPERATIONS`].
#[derive(Default)]
struct Times([Vec<Duration>; OPERATIONS.len() + 1]);

impl Times {
    fn note(&mut self, operation: &str, start: Instant) {
        let index = OPERATIONS.iter().chain([&LATER]).position(|name| *name == operation);
        if let Some(times) = index.and_then(|index| self.0.get_mut(index)) {
            times.push(start.elapsed());
        }
    }

    /// Median in milliseconds.
    fn median(&self, index: usize) -> f64 {
        let mut times: Vec<_> = self.0.get(index).into_iter().flatten().collect();
        times.sort_unstable();
        times.get(times.len() / 2).map_or(0.0, |median| median.as_secs_f64() * 1000.0)
    }
}

pub(crate) fn run(options: &Options, report: &mut Report) -> Result<(), Failure> {
    let quick = options.common.quick;
    let repetitions = if quick { 2 } else { options.repetitions.max(1) };
    let mut figures = Figures::new(report, "ds-large");
    for &members in &options.members {
        // Bob joins last, and there is always Alice.
        let members = if quick { members.min(60) } else { members }.max(3);
        let mut server = Process::start(&options.common)?;
        let (mut ours, mut bare) = (Times::default(), Times::default());
        let (people, sizes) = Common::block_on(async {
            let people = people::People::new(&server, members).await?;
            let sizes = Box::pin(ours::measure(&server, &people, repetitions, &mut ours)).await?;
            Ok((people, sizes))
        })?;
        server.stop()?;
        bare::measure(&people, repetitions, &mut bare)?;
        for (index, operation) in OPERATIONS.into_iter().enumerate() {
            let (ours, bare) = (ours.median(index), bare.median(index));
            figures.add(operation, members, ours, "ms");
            figures.add(format!("{operation}-bare"), members, bare, "ms");
            figures.add(format!("{operation}-ratio"), members, if bare > 0.0 { ours / bare } else { 0.0 }, "ratio");
        }
        figures.add(LATER, members, ours.median(OPERATIONS.len()), "ms");
        for (metric, bytes) in sizes {
            figures.add(metric, members, number(bytes), "bytes");
        }
        figures.add("machine-load-after", members, crate::ds::load(), "processes");
    }
    Ok(())
}
