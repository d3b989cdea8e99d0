//! `ds-idle`: memory of the server for each idle listening stream.

use std::time::Duration;

use conclave_protocol::v1::StreamEvent;
use tonic::Streaming;

use crate::{
    ds::{Common, Connection, Failure, Figures, Group, Process, number},
    report::Report,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Streams, each of a client with a session and a channel attached
    #[arg(long, default_value_t = 10_000)]
    streams: usize,
    /// Streams of one connection, as of a gateway that serves so many clients
    #[arg(long, default_value_t = 100)]
    per_connection: usize,
    /// Seconds of idleness before memory is measured: more than one heartbeat takes (20)
    #[arg(long, default_value_t = 45)]
    idle: u64,
}

/// Members of one group.
const GROUP: usize = 100;

pub(crate) fn run(options: &Options, report: &mut Report) -> Result<(), Failure> {
    let (streams, idle) =
        if options.common.quick { (options.streams.min(200), 0) } else { (options.streams, options.idle) };
    let mut figures = Figures::new(report, "ds-idle");
    let mut server = Process::start(&options.common)?;
    let (before, after) = Common::block_on(measure(&server, options.per_connection.max(1), streams, idle))?;
    server.stop()?;
    figures.add("server-before", streams, before / 1024.0, "KiB");
    figures.add("server-after", streams, after / 1024.0, "KiB");
    figures.add("memory", streams, (after - before) / 1024.0 / number(streams), "KiB per stream");
    Ok(())
}

async fn measure(server: &Process, per_connection: usize, streams: usize, idle: u64) -> Result<(f64, f64), Failure> {
    // What the first calls bring into memory is no stream's.
    let setup = Connection::open(server).await?;
    let warm = Group::new(2)?;
    setup.create(&warm).await?;
    let (handle, _first) = setup.stream().await?;
    setup.session(&warm, 1).await?.attach(&handle, 0).await?;
    let before = resident(server)?;

    let mut open: Vec<Streaming<StreamEvent>> = Vec::new();
    let mut connection = setup.clone();
    let mut group = warm;
    for stream in 0..streams {
        if stream % GROUP == 0 {
            group = Group::new(GROUP)?;
            setup.create(&group).await?;
        }
        if stream % per_connection == 0 {
            connection = Connection::open(server).await?;
        }
        let (handle, events) = connection.stream().await?;
        let session = connection.session(&group, stream % GROUP).await?;
        // Past the commit that made the group: nothing to send.
        session.attach(&handle, 1).await?;
        open.push(events);
    }
    // Heartbeats are taken, as a listening client does.
    let takers: Vec<_> = open
        .into_iter()
        .map(|mut events| tokio::spawn(async move { while let Ok(Some(_)) = events.message().await {} }))
        .collect();
    tokio::time::sleep(Duration::from_secs(idle)).await;
    let after = resident(server)?;
    if takers.iter().any(tokio::task::JoinHandle::is_finished) {
        return Err("a stream ended while it was idle".into());
    }
    takers.iter().for_each(tokio::task::JoinHandle::abort);
    Ok((before, after))
}

fn resident(server: &Process) -> Result<f64, Failure> {
    Ok(u32::try_from(server.resident()? / 1024).map_or(f64::INFINITY, f64::from) * 1024.0)
}
