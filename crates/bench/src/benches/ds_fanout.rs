//! `ds-fanout`: one group, many listening streams.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use conclave_channel::{Body, Entry};
use conclave_protocol::v1::{StreamEvent, stream_event::Event};
use tokio::sync::Semaphore;
use tonic::Streaming;

use crate::{
    ds::{Common, Connection, Failure, Figures, Group, Process, Session, message, number, quantile},
    report::Report,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Listening streams, each attached with a key of its own
    #[arg(long, default_value_t = 1000)]
    listeners: usize,
    /// Streams of one connection
    #[arg(long, default_value_t = 100)]
    per_connection: usize,
    /// Messages that not every listener has yet: the sender waits at so many
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16])]
    window: Vec<usize>,
    /// Bytes of a message's sealed body
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Seconds of sending, for each window
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
}

/// What listeners and sender share.
struct Run {
    origin: Instant,
    listeners: usize,
    /// How many listeners have the message of this number yet.
    missing: Vec<AtomicUsize>,
    /// One permit for each message that may be on its way.
    window: Semaphore,
}

/// What one listener has seen.
#[derive(Default)]
struct Seen {
    entries: usize,
    events: usize,
    latencies: Vec<Duration>,
}

/// Most messages of one run: their counters are made beforehand.
const MESSAGES: usize = 1 << 18;

pub(crate) fn run(options: &Options, report: &mut Report) -> Result<(), Failure> {
    let (listeners, seconds) =
        if options.common.quick { (options.listeners.min(20), 0.5) } else { (options.listeners, options.seconds) };
    let mut figures = Figures::new(report, "ds-fanout");
    for &window in &options.window {
        let mut server = Process::start(&options.common)?;
        let work = measure(&server, options, listeners, window.clamp(1, 32), seconds);
        let (elapsed, mut seen, cpu) = Common::block_on(work)?;
        server.stop()?;
        seen.latencies.sort_unstable();
        let mut add =
            |metric: &str, value, unit| figures.add(format!("{metric}-window-{window}"), listeners, value, unit);
        add("deliveries", number(seen.entries) / elapsed.as_secs_f64(), "per second");
        add("entries-per-event", number(seen.entries) / number(seen.events).max(1.0), "entries");
        add("p50", quantile(&seen.latencies, 500), "ms");
        add("p99", quantile(&seen.latencies, 990), "ms");
        add("server-cpu", cpu.as_secs_f64() * 1e6 / number(seen.entries).max(1.0), "us per delivery");
    }
    Ok(())
}

async fn measure(
    server: &Process,
    options: &Options,
    listeners: usize,
    window: usize,
    seconds: f64,
) -> Result<(Duration, Seen, Duration), Failure> {
    let group = Group::new(listeners + 1)?;
    let sender = Connection::open(server).await?;
    sender.create(&group).await?;
    let session = Arc::new(sender.session(&group, listeners).await?);
    let head = session.fetch(0).await?.head;

    let run = Arc::new(Run {
        origin: Instant::now(),
        listeners,
        missing: (0..MESSAGES).map(|_| AtomicUsize::new(listeners)).collect(),
        window: Semaphore::new(window),
    });
    let mut tasks = Vec::new();
    let mut connection = sender;
    for listener in 0..listeners {
        if listener % options.per_connection.max(1) == 0 {
            connection = Connection::open(server).await?;
        }
        let (handle, events) = connection.stream().await?;
        connection.session(&group, listener).await?.attach(&handle, head).await?;
        tasks.push(tokio::spawn(listen(Arc::clone(&run), events, head)));
    }

    let before = server.cpu()?;
    let begin = Instant::now();
    let end = begin + Duration::from_secs_f64(seconds);
    let mut sent = 0;
    let mut submitting = tokio::task::JoinSet::new();
    while sent < MESSAGES && Instant::now() < end {
        run.window.acquire().await?.forget();
        submitting.spawn(submit(Arc::clone(&session), Arc::clone(&run), options.size));
        sent += 1;
        while let Some(done) = submitting.try_join_next() {
            done??;
        }
    }
    while let Some(done) = submitting.join_next().await {
        done??;
    }
    // Until every listener has everything: then every permit is back.
    drop(run.window.acquire_many(u32::try_from(window)?).await?);
    let elapsed = begin.elapsed();
    let cpu = server.cpu()?.saturating_sub(before);
    // The last message of each stream; listeners end at it.
    session.submit(message(1, END.to_vec())?).await?;
    let mut all = Seen::default();
    for task in tasks {
        let seen = task.await??;
        if seen.entries != sent {
            return Err(format!("a listener got {} of {sent} messages", seen.entries).into());
        }
        all.entries += seen.entries;
        all.events += seen.events;
        all.latencies.extend(seen.latencies);
    }
    Ok((elapsed, all, cpu))
}

/// Has listeners end.
const END: &[u8] = b"the end";

async fn submit(session: Arc<Session>, run: Arc<Run>, size: usize) -> Result<(), Failure> {
    let mut body = u64::try_from(run.origin.elapsed().as_nanos())?.to_be_bytes().to_vec();
    body.resize(size.max(8), 0x5A);
    session.submit(message(1, body)?).await?;
    Ok(())
}

async fn listen(run: Arc<Run>, mut events: Streaming<StreamEvent>, after: u64) -> Result<Seen, Failure> {
    let mut seen = Seen::default();
    let mut last = after;
    while let Some(event) = events.message().await? {
        let Some(Event::Entries(batch)) = event.event else { continue };
        let now = run.origin.elapsed();
        seen.events += 1;
        for entry in batch.entries {
            if entry.seq != last + 1 {
                return Err(format!("entry {} came after {last}", entry.seq).into());
            }
            last = entry.seq;
            let Body::Inline(body) = Entry::parse(&entry.entry)?.body else { return Err("a staged body".into()) };
            if body == END {
                return Ok(seen);
            }
            let sent = body.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)).ok_or("a short body")?;
            seen.latencies.push(now.saturating_sub(Duration::from_nanos(sent)));
            let number = usize::try_from(last - after)?;
            seen.entries += 1;
            let missing = run.missing.get(number).ok_or("more messages than were sent")?;
            if missing.fetch_sub(1, Ordering::Relaxed) == 1 {
                run.window.add_permits(1);
            }
        }
    }
    Err(format!("a stream of {} ended", run.listeners).into())
}
