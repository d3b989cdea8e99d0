//! `client-catchup`: reading what was said while a client was away, with everything stored, beside bare mls-rs that only decrypts.

use std::{error::Error, time::Instant};

use conclave_client::store::ProfileStore as _;
use conclave_engine::group::{Incoming, Known};
use conclave_names::{Epoch, Seq, limits};
use mls_rs::{ExtensionList, MlsMessage};

use super::{
    bare_client::InMemory,
    client_ops::{
        bare::{self, time},
        ours,
        world::World,
    },
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

/// Messages of a member of bare mls-rs in an epoch.
const BARE_PAGE: usize = 1000;

pub(crate) fn run(options: &Options, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let messages = if options.quick { 40 } else { options.messages.max(1) };
    let world = World::new(options.members.max(2))?;
    let text = "x".repeat(options.size);
    let mut figures = Figures::new(report, "client-catchup");
    let (mut alice, mut bob) = ours::pair(&world)?;
    let pages = pages(said(&mut alice, &text, messages)?);
    let mut bare = Bare::new(&world)?;
    let (mut read, mut store) = (0.0, 0.0);
    let (mut left, mut seconds) = (messages, 0.0);
    // By turns, so that both meet the same if the machine has other work as well.
    for (index, page) in pages.iter().enumerate() {
        let (reading, storing) = catch_up(&mut bob, page, index + 1 == pages.len())?;
        read += reading;
        store += storing;
        let count = if index + 1 == pages.len() { left } else { left.min(messages / pages.len()) };
        seconds += bare.decrypt(&text, count)?;
        left -= count;
    }
    let start = Instant::now();
    bob.store.tidy()?;
    let tidy = start.elapsed().as_secs_f64();
    let name = bob.group()?.name().to_string();
    let stored = bob.store.message_count(&name)?;
    if stored < messages as u64 {
        return Err(format!("{stored} of {messages} messages are in the history").into());
    }
    let ours = number(messages) / (read + store);
    let bare = number(messages) / seconds.max(f64::MIN_POSITIVE);
    figures.add("messages", world.members, ours, "1/s");
    figures.add("read", world.members, read * 1e6 / number(messages), "us/message");
    figures.add("store", world.members, store * 1e6 / number(messages), "us/message");
    figures.add("tidy", world.members, tidy * 1e6 / number(messages), "us/message");
    figures.add("messages-bare", world.members, bare, "1/s");
    figures.add("messages-ratio", world.members, ours / bare.max(f64::MIN_POSITIVE), "ratio");
    Ok(())
}

/// So many messages, as the channel has them. A commit comes between if so much was said that it is time for a new epoch.
fn said(alice: &mut ours::Client, text: &str, messages: usize) -> ours::Result<Vec<Incoming>> {
    let mut channel = Vec::new();
    for _ in 0..messages {
        alice.group()?.wish_text(text)?;
        while alice.group()?.intents().next().is_some() {
            let sent = alice.submit()?;
            alice.read(&sent.incoming)?;
            channel.push(sent.incoming);
        }
    }
    Ok(channel)
}

/// As the server gives them out.
fn pages(channel: Vec<Incoming>) -> Vec<Vec<Incoming>> {
    let (mut pages, mut page): (Vec<_>, Vec<Incoming>) = (Vec::new(), Vec::new());
    let mut bytes = 0;
    for incoming in channel {
        if page.len() >= limits::FETCH_ENTRIES as usize || bytes + incoming.entry.len() > limits::FETCH_BYTES {
            pages.push(std::mem::take(&mut page));
            bytes = 0;
        }
        bytes += incoming.entry.len();
        page.push(incoming);
    }
    pages.push(page);
    pages
}

/// Seconds to read a page, as the client does it, and to store it so that the history has it.
fn catch_up(bob: &mut ours::Client, page: &[Incoming], last: bool) -> ours::Result<(f64, f64)> {
    let start = Instant::now();
    let group = bob.group.as_mut().ok_or("no group")?;
    let (name, mut failed) = (group.name().to_string(), None);
    let done = group.process_with(page, |id| match bob.store.message_place(&name, id.as_bytes()) {
        Ok(Some((seq, epoch))) => Known::At { seq: Seq(seq), epoch: Epoch(epoch) },
        Ok(None) => Known::No,
        Err(error) => {
            failed = Some(error);
            Known::No
        }
    });
    done.fault.map_or(Ok(()), Err)?;
    failed.map_or(Ok(()), Err)?;
    let read = start.elapsed().as_secs_f64();
    let start = Instant::now();
    if last {
        group.write_state_next();
    }
    bob.save()?;
    Ok((read, start.elapsed().as_secs_f64()))
}

/// Two members of a group of bare mls-rs.
struct Bare {
    alice: MlsGroup,
    bob: MlsGroup,
}

type MlsGroup = mls_rs::Group<InMemory>;

impl Bare {
    fn new(world: &World) -> ours::Result<Self> {
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
        let (bob, _) = bob.join_group(output.ratchet_tree().cloned(), welcome, None)?;
        Ok(Self { alice: group, bob })
    }

    /// Seconds to decrypt so many messages; a commit after each thousand is not counted.
    fn decrypt(&mut self, text: &str, messages: usize) -> ours::Result<f64> {
        let (mut left, mut seconds) = (messages, 0.0);
        while left > 0 {
            let now = left.min(BARE_PAGE);
            let sent: Vec<Vec<u8>> = (0..now)
                .map(|_| self.alice.encrypt_application_message(text.as_bytes(), Vec::new())?.to_bytes())
                .collect::<Result<_, _>>()?;
            let start = Instant::now();
            for bytes in &sent {
                self.bob.process_incoming_message_with_time(MlsMessage::from_bytes(bytes)?, time())?;
            }
            seconds += start.elapsed().as_secs_f64();
            let commit = self.alice.commit_builder().commit_time(time()).build()?.commit_message;
            self.alice.apply_pending_commit()?;
            self.bob.process_incoming_message_with_time(commit, time())?;
            left -= now;
        }
        Ok(seconds)
    }
}
