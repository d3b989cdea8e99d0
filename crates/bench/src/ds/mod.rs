//! What the benchmarks of the Delivery Service share: a server in a process of its own, and a client at the level of the
//! protocol, without the SDK, so that the load costs little beside what it measures.

mod client;
mod group;
mod server;

use std::{error::Error, future::Future, path::PathBuf, time::Duration};

pub(crate) use client::{Connection, Session, now, random};
pub(crate) use group::{Group, message};
pub(crate) use server::{Process, Serve, domain, load, serve};

use crate::report::{Figure, Report};

/// Anything that ends a benchmark early.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// What every benchmark of the Delivery Service takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Common {
    /// A smoke test: small and short
    #[arg(long)]
    pub(crate) quick: bool,
    /// Without TLS; as deployed it is TLS 1.3
    #[arg(long)]
    pub(crate) plaintext: bool,
    /// Directory for the server's data, on the disk that is to be measured [default: the system's for temporary files]
    #[arg(long, value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
}

impl Common {
    /// Runs a benchmark on the machine's cores.
    pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::runtime::Runtime::new()?.block_on(work)
    }
}

/// Adds the figures of one benchmark.
pub(crate) struct Figures<'r> {
    report: &'r mut Report,
    bench: &'static str,
}

impl<'r> Figures<'r> {
    /// Begins with the load of the machine, by which the figures are to be judged.
    pub(crate) fn new(report: &'r mut Report, bench: &'static str) -> Self {
        let mut figures = Self { report, bench };
        figures.add("machine-load", 0, load(), "processes");
        figures
    }

    pub(crate) fn add(&mut self, metric: impl Into<String>, members: usize, value: f64, unit: &'static str) {
        self.report.add(Figure { bench: self.bench, metric: metric.into(), members, value, unit });
    }
}

/// A quantile of sorted durations, in milliseconds.
pub(crate) fn quantile(sorted: &[Duration], per_mille: usize) -> f64 {
    let index = (sorted.len() * per_mille / 1000).min(sorted.len().saturating_sub(1));
    sorted.get(index).map_or(0.0, |value| value.as_secs_f64() * 1000.0)
}

/// A count as a number to reckon with.
pub(crate) fn number(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}
