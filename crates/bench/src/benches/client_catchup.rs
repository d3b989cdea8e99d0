//! `client-catchup`: reading what was said while a client was away, with everything stored, beside bare mls-rs that only decrypts.

use std::{error::Error, time::Instant};

use conclave_engine::group::Incoming;
use conclave_names::limits;
use mls_rs::{ExtensionList, MlsMessage};

use super::client_ops::{
    bare::{self, time},
    ours,
    world::World,
};
use crate::{
    ds::{Figures, number},
    report::Report,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Size of the group
    #[arg(long, default_value_t = 10)]
    members: usize,
    /// Messages that wait
    #[arg(long, default_value_t = 10_000)]
    messages: usize,
    /// Bytes of a message
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// A smoke test
    #[arg(long)]
    quick: bool,
}

pub(crate) fn run(options: &Options, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let messages = if options.quick { 40 } else { options.messages.max(1) };
    let world = World::new(options.members.max(2))?;
    let text = "x".repeat(options.size);
    let mut figures = Figures::new(report, "client-catchup");
    let (read, store) = ours(&world, &text, messages)?;
    let ours = number(messages) / (read + store);
    let bare = number(messages) / bare(&world, &text, messages)?;
    figures.add("messages", world.members, ours, "1/s");
    figures.add("read", world.members, read * 1e6 / number(messages), "us/message");
    figures.add("store", world.members, store * 1e6 / number(messages), "us/message");
    figures.add("messages-bare", world.members, bare, "1/s");
    figures.add("messages-ratio", world.members, ours / bare.max(f64::MIN_POSITIVE), "ratio");
    Ok(())
}

/// Seconds to read all messages, in pages as the server gives them out, and to store them so that the history has them.
fn ours(world: &World, text: &str, messages: usize) -> ours::Result<(f64, f64)> {
    let [mut alice, mut bob] = ours::pair(world)?;
    let mut channel: Vec<Incoming> = Vec::new();
    let mut said = 0;
    while said < messages {
        alice.group()?.wish_text(text)?;
        said += 1;
        // A commit comes between if she said so much that it is time for a new epoch.
        while alice.group()?.intents().next().is_some() {
            let sent = alice.submit()?;
            alice.read(&sent.incoming)?;
            channel.push(sent.incoming);
        }
    }
    let mut pages = Vec::new();
    let mut page: Vec<Incoming> = Vec::new();
    for incoming in channel {
        let bytes: usize = page.iter().map(|earlier| earlier.entry.len()).sum();
        if page.len() >= limits::FETCH_ENTRIES as usize || bytes + incoming.entry.len() > limits::FETCH_BYTES {
            pages.push(std::mem::take(&mut page));
        }
        page.push(incoming);
    }
    pages.push(page);
    let (mut read, mut store) = (0.0, 0.0);
    for (index, page) in pages.iter().enumerate() {
        let start = Instant::now();
        bob.process(page)?;
        read += start.elapsed().as_secs_f64();
        let start = Instant::now();
        if index + 1 == pages.len() {
            bob.group()?.write_state_next();
        }
        bob.save()?;
        store += start.elapsed().as_secs_f64();
    }
    let name = bob.group()?.name().to_string();
    let stored = conclave_client::store::ProfileStore::message_count(&bob.store, &name)?;
    if stored < messages as u64 {
        return Err(format!("{stored} of {messages} messages are in the history").into());
    }
    Ok((read, store))
}

/// Seconds to decrypt as many; a commit after each thousand is not counted.
fn bare(world: &World, text: &str, messages: usize) -> ours::Result<f64> {
    let (alice, bob) = (bare::client(&world.account("alice")?), bare::client(&world.account("bob")?));
    let none = ExtensionList::new;
    let mut group = alice.create_group(none(), none(), Some(time()))?;
    let package = bob.generate_key_package_message(none(), none(), Some(time()))?;
    let mut builder = group.commit_builder().commit_time(time()).add_member(package)?;
    for package in world.leaves()? {
        builder = builder.add_member(MlsMessage::from_bytes(&package)?)?;
    }
    let output = builder.build()?;
    group.apply_pending_commit()?;
    let welcome = output.welcome_messages().first().ok_or("no Welcome")?;
    let (mut bobs, _) = bob.join_group(output.ratchet_tree().cloned(), welcome, None)?;
    let (mut left, mut seconds) = (messages, 0.0);
    while left > 0 {
        let now = left.min(1000);
        let sent: Vec<Vec<u8>> = (0..now)
            .map(|_| group.encrypt_application_message(text.as_bytes(), Vec::new())?.to_bytes())
            .collect::<Result<_, _>>()?;
        let start = Instant::now();
        for bytes in &sent {
            bobs.process_incoming_message_with_time(MlsMessage::from_bytes(bytes)?, time())?;
        }
        seconds += start.elapsed().as_secs_f64();
        let commit = group.commit_builder().commit_time(time()).build()?.commit_message;
        group.apply_pending_commit()?;
        bobs.process_incoming_message_with_time(commit, time())?;
        left -= now;
    }
    Ok(seconds)
}
