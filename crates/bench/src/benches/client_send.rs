//! `client-send`: a message of 1 KiB, encrypted and durable, in groups of several sizes, beside bare mls-rs with its SQLite store.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use mls_rs::{ExtensionList, MlsMessage};

use super::{
    bare_client,
    bare_store::SqliteStates,
    client_ops::{bare::time, ours, world::World},
};
use crate::{
    ds::{Figures, quantile},
    report::Report,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Sizes of the group; growth is from the first to the last
    #[arg(long, value_delimiter = ',', default_values_t = [10, 10_000])]
    members: Vec<usize>,
    /// Messages
    #[arg(long, default_value_t = 500)]
    messages: usize,
    /// Bytes of a message
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// A smoke test
    #[arg(long)]
    quick: bool,
}

/// Sorted, without the first, which warms up.
fn sorted(mut times: Vec<Duration>) -> Vec<Duration> {
    let mut times = times.split_off(1.min(times.len()));
    times.sort_unstable();
    times
}

pub(crate) fn run(options: &Options, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let messages = if options.quick { 5 } else { options.messages.max(2) };
    let mut figures = Figures::new(report, "client-send");
    let mut medians = Vec::new();
    for &members in &options.members {
        let members = if options.quick { members.min(20) } else { members }.max(2);
        let world = World::new(members)?;
        let text = "x".repeat(options.size);
        let (send, state) = ours(&world, &text, messages)?;
        let bare = bare(&world, &text, messages)?;
        let median = quantile(&send, 500);
        figures.add("send", members, median, "ms");
        figures.add("send-p99", members, quantile(&send, 990), "ms");
        // At most once in five seconds, however many are sent.
        figures.add("state-write", members, quantile(&state, 500), "ms");
        figures.add("send-bare", members, quantile(&bare, 500), "ms");
        figures.add("send-ratio", members, median / quantile(&bare, 500).max(f64::MIN_POSITIVE), "ratio");
        medians.push((members, median));
    }
    if let (Some((_, small)), Some((members, large))) = (medians.first(), medians.last()) {
        figures.add("send-growth", *members, large / small.max(f64::MIN_POSITIVE), "ratio");
    }
    Ok(())
}

/// Times of messages, and of writing the MLS state.
fn ours(world: &World, text: &str, messages: usize) -> ours::Result<(Vec<Duration>, Vec<Duration>)> {
    let (mut alice, _bob) = ours::pair(world)?;
    let (mut send, mut state) = (Vec::new(), Vec::new());
    for message in 0..messages {
        let start = Instant::now();
        alice.group()?.wish_text(text)?;
        let sent = alice.submit()?;
        send.push(start.elapsed());
        alice.read(&sent.incoming)?;
        if message % 50 == 0 {
            let start = Instant::now();
            alice.group()?.write_state_next();
            alice.save()?;
            state.push(start.elapsed());
        }
    }
    Ok((sorted(send), sorted(state)))
}

fn bare(world: &World, text: &str, messages: usize) -> ours::Result<Vec<Duration>> {
    let directory = tempfile::tempdir()?;
    let states = SqliteStates::open(&directory.path().join("bare.db"))?;
    let alice = bare_client::client(&world.account("alice")?, states, false);
    let mut group = alice.create_group(ExtensionList::new(), ExtensionList::new(), Some(time()))?;
    let mut builder = group.commit_builder().commit_time(time());
    for package in world.leaves()? {
        builder = builder.add_member(MlsMessage::from_bytes(&package)?)?;
    }
    builder.build()?;
    group.apply_pending_commit()?;
    group.write_to_storage()?;
    let mut times = Vec::new();
    for _ in 0..messages {
        let start = Instant::now();
        group.encrypt_application_message(text.as_bytes(), Vec::new())?;
        group.write_to_storage()?;
        times.push(start.elapsed());
    }
    Ok(sorted(times))
}
