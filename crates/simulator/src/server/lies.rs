//! Lies that the server stays with.

use conclave_channel::{Body, Entry, EntryKind};
use conclave_delivery::store::Tx;
use conclave_names::{ChannelId, Epoch, Seq};
use conclave_protocol::{Refusal, v1};

use super::{Fork, Log, Server, broken};
use crate::hostile::Lie;

/// A log that is made up for one client from a place on.
pub(super) struct View {
    /// The place, in the true log and in this one.
    base: Seq,
    /// The last entry of the true log that was looked at.
    seen: Seq,
    shown: Vec<v1::LoggedEntry>,
    /// What becomes of the next entry.
    next: Vec<Lie>,
}

impl View {
    fn new(base: Seq) -> Self {
        Self { base, seen: base, shown: Vec::new(), next: Vec::new() }
    }

    pub(super) fn next_true(&self) -> Seq {
        self.seen
    }

    fn show(&mut self, mut entry: v1::LoggedEntry) {
        entry.seq = self.base.0 + self.shown.len() as u64 + 1;
        self.shown.push(entry);
    }

    /// Takes the next entry of the true log.
    pub(super) fn take(&mut self, mut entry: v1::LoggedEntry) {
        self.seen = Seq(entry.seq);
        match self.next.pop() {
            Some(Lie::Omit) => return,
            Some(Lie::Flip) => {
                if let Some(last) = entry.entry.last_mut() {
                    *last ^= 1;
                }
            }
            Some(Lie::Shift) => entry.time_ms += 1,
            Some(Lie::Repeat) => {
                let copy = entry.clone();
                self.show(copy);
            }
            _ => {}
        }
        self.show(entry);
    }

    pub(super) fn page(&self, after: Seq, limit: u32) -> Vec<v1::LoggedEntry> {
        self.shown.iter().filter(|entry| entry.seq > after.0).take(limit as usize).cloned().collect()
    }
}

impl Server {
    /// Begins to lie to a client that stands at a place of a group's channel.
    pub(crate) fn lie(&mut self, client: usize, channel: ChannelId, place: Seq, lie: Lie) -> Result<(), Refusal> {
        if lie != Lie::Fork {
            let view = self.views.entry((client, channel)).or_insert_with(|| View::new(place));
            view.next.push(lie);
            return Ok(());
        }
        if let Some(fork) = self.forks.get_mut(&channel) {
            fork.of.insert(client);
            return Ok(());
        }
        let log = Log::start(self.log.store.clone(), &self.domain, &self.authority, self.now)?;
        self.forks.insert(channel, Fork { log, of: [client].into() });
        Ok(())
    }

    /// A client came to a group anew: it has no place in a log that was made up for it.
    pub(crate) fn forget_view(&mut self, client: usize, channel: &ChannelId) {
        self.views.remove(&(client, *channel));
    }

    /// There is one log of each channel again.
    pub(crate) fn end_forks(&mut self) {
        self.forks.clear();
    }

    /// Keeps what an inbox was given.
    pub(crate) fn keep_welcome(&mut self, inbox: ChannelId, entry: &[u8]) {
        let kept = self.welcomes.entry(inbox).or_default();
        if !kept.iter().any(|old| old == entry) {
            kept.push(entry.to_vec());
        }
    }

    /// Delivers the Welcomes of an inbox once more, or changed. Says how many.
    pub(crate) fn post_again(&mut self, inbox: ChannelId, change: bool) -> Result<usize, Refusal> {
        let mut posts = self.welcomes.get(&inbox).cloned().unwrap_or_default();
        if change {
            for post in &mut posts {
                let at = post.len() / 2;
                post.get_mut(at).into_iter().for_each(|byte| *byte ^= 1);
            }
            let garbage = Entry::new(EntryKind::Welcome, Epoch(0), Body::Inline(vec![0x55; 300]));
            posts.push(garbage.to_bytes().map_err(broken)?);
        }
        let now = self.now;
        self.log.store.write(|tx| {
            for bytes in &posts {
                append(tx, inbox, bytes, now)?;
            }
            Ok(posts.len())
        })
    }
}

fn append(tx: &mut dyn Tx, inbox: ChannelId, bytes: &[u8], now: conclave_names::Timestamp) -> Result<(), Refusal> {
    let row = tx.channel(&inbox)?.ok_or_else(|| broken("no inbox"))?;
    let seq = row.head.next();
    let entry = conclave_delivery::store::EntryRow {
        channel: inbox,
        seq,
        kind: EntryKind::Welcome,
        epoch: Epoch(0),
        removes: false,
        time: row.head_time.max(now),
        bytes: bytes.to_vec(),
    };
    tx.append_entry(&entry)?;
    tx.put_channel(&conclave_delivery::store::ChannelRow { head: seq, ..row })?;
    Ok(())
}
