//! `ds-append`: durable messages from many senders in as many groups, beside the same appends straight into SQLite.

mod sqlite;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    ds::{Common, Connection, Failure, Figures, Group, Process, Session, message, number, quantile, random},
    report::Report,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Senders, each with a connection and a group of its own
    #[arg(long, default_value_t = 64)]
    senders: usize,
    /// Messages that each sender has on the way at a time
    #[arg(long, default_value_t = 4)]
    in_flight: usize,
    /// Bytes of a message's sealed body
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Seconds of measurement, after a fifth of that to warm up
    #[arg(long, default_value_t = 15.0)]
    seconds: f64,
}

/// What the load saw.
struct Seen {
    messages: usize,
    elapsed: Duration,
    /// Sorted.
    latencies: Vec<Duration>,
    /// Messages of one durable commit, on average.
    batch: f64,
    /// The server's share of the cores' time, for each message.
    cpu: Duration,
}

pub(crate) fn run(options: &Options, report: &mut Report) -> Result<(), Failure> {
    let (senders, seconds) =
        if options.common.quick { (options.senders.min(4), 0.5) } else { (options.senders, options.seconds) };
    let mut figures = Figures::new(report, "ds-append");
    let mut server = Process::start(&options.common)?;
    let seen = Common::block_on(load(&server, options, senders, seconds))?;
    server.stop()?;
    let rate = number(seen.messages) / seen.elapsed.as_secs_f64();
    figures.add("messages", senders, rate, "per second");
    figures.add("p50", senders, quantile(&seen.latencies, 500), "ms");
    figures.add("p99", senders, quantile(&seen.latencies, 990), "ms");
    figures.add("batch", senders, seen.batch, "messages per commit");
    figures.add("server-cpu", senders, seen.cpu.as_secs_f64() * 1e6, "us per message");

    let straight = sqlite::appends(server.directory(), senders, options.size, seen.batch, seconds)?;
    figures.add("sqlite", senders, straight, "per second");
    figures.add("ratio", senders, rate / straight, "ratio");
    Ok(())
}

async fn load(server: &Process, options: &Options, senders: usize, seconds: f64) -> Result<Seen, Failure> {
    let mut sessions = Vec::new();
    for _ in 0..senders {
        let connection = Connection::open(server).await?;
        let group = Group::new(2)?;
        connection.create(&group).await?;
        sessions.push(Arc::new(connection.session(&group, 1).await?));
    }
    let begin = Instant::now() + Duration::from_secs_f64(seconds / 5.0);
    let end = begin + Duration::from_secs_f64(seconds);
    let tasks: Vec<_> = sessions
        .iter()
        .flat_map(|session| std::iter::repeat_n(session, options.in_flight.clamp(1, 32)))
        .map(|session| tokio::spawn(send(Arc::clone(session), options.size, begin, end)))
        .collect();
    tokio::time::sleep_until(begin.into()).await;
    let before = counts(server)?;
    tokio::time::sleep_until(end.into()).await;
    let after = counts(server)?;
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    latencies.sort_unstable();
    let elapsed = end - begin;
    let messages = latencies.len();
    let batch = (after.0 - before.0) / (after.1 - before.1).max(1.0);
    Ok(Seen {
        messages,
        elapsed,
        latencies,
        batch,
        cpu: after.2.saturating_sub(before.2).div_f64(number(messages).max(1.0)),
    })
}

/// Sends one message after the other until the end; gives the times of those that were acknowledged in between.
async fn send(session: Arc<Session>, size: usize, begin: Instant, end: Instant) -> Result<Vec<Duration>, Failure> {
    let mut times = Vec::new();
    // Random bytes, as sealed ones are; fresh ones for each message would cost more than the sending.
    let mut body: Vec<u8> = random::<64>()?.repeat(size.div_ceil(64));
    body.truncate(size);
    loop {
        let start = Instant::now();
        if start >= end {
            return Ok(times);
        }
        session.submit(message(1, body.clone())?).await?;
        let done = Instant::now();
        if done >= begin && done < end {
            times.push(done - start);
        }
    }
}

/// Transactions, durable commits, time of the cores.
fn counts(server: &Process) -> Result<(f64, f64, Duration), Failure> {
    let count = |name| server.counter(name);
    Ok((count("conclave_store_transactions_total")?, count("conclave_store_commits_total")?, server.cpu()?))
}
