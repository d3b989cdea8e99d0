//! What a stream brings: entries in whatever order, once more or before their turn, as the client's shell takes them.

use std::collections::BTreeSet;

use conclave_channel::{Entry, EntryKind};
use conclave_engine::group::{Group, Incoming, Status};
use conclave_names::Seq;
use conclave_protocol::v1::LoggedEntry;

use super::{Actor, Surroundings, read::Source};
use crate::{
    hostile::Tamper,
    ledger::Deed,
    network::Stop,
    program::{Delivery, Order},
};

/// Pages of which a stream brings a part.
const PAGES: usize = 3;

/// Entries that are remembered, to be brought once more.
pub(super) const REMEMBERED: usize = 24;

impl Actor {
    /// A stream that was attached anew brings a part of a group's channel around our place.
    pub(crate) fn stream(&mut self, around: &mut Surroundings, slot: usize, delivery: Delivery) -> Result<(), Stop> {
        let attached = self.group(slot).filter(|group| *group.status() != Status::Removed);
        let Some(place) = attached.map(|group| group.position().seq) else { return Ok(()) };
        let fresh = match self.ahead(around, slot, place) {
            // It cannot be attached; the channel is read instead, to learn why.
            Err(Stop::Refused(_)) => return self.read_group(around, slot),
            fresh => fresh?,
        };
        let mut wire = self.behind(slot, place, usize::from(delivery.back));
        self.rewrite(around, slot, &mut wire);
        wire.extend(fresh.into_iter().skip(usize::from(delivery.skip)));
        match delivery.order {
            Order::Straight => {}
            Order::Backwards => wire.reverse(),
            Order::Twice => wire = wire.into_iter().flat_map(|entry| [entry.clone(), entry]).collect(),
        }
        self.take_live(around, slot, wire)?;
        let now = self.now(&around.server);
        let Some(group) = self.group(slot) else { return Ok(()) };
        let due = group.due(now).is_some_and(|due| due <= now);
        if due || group.is_frozen() || group.intents().next().is_some() {
            self.drive(around, slot)?;
        }
        if self.group(slot).is_some_and(Group::wants_rejoin) { self.come_back(around, slot) } else { Ok(()) }
    }

    /// Takes what a stream brought; then reads what is missing before it.
    fn take_live(&mut self, around: &mut Surroundings, slot: usize, wire: Vec<LoggedEntry>) -> Result<(), Stop> {
        let batch = self.with_blobs(around, slot, wire)?;
        let last = batch.last().map(|last| last.seq);
        self.process_batch(around, slot, &batch, Source::Stream)?;
        let behind = self.group(slot).is_some_and(|group| last.is_some_and(|last| last > group.position().seq));
        if behind {
            self.read_group(around, slot)?;
            self.process_batch(around, slot, &[], Source::Stream)?;
        }
        self.audit(around, slot)
    }

    /// The entries after our place, up to where it is not clear any more which commit begins an epoch.
    fn ahead(&mut self, around: &mut Surroundings, slot: usize, place: Seq) -> Result<Vec<LoggedEntry>, Stop> {
        let mut fresh: Vec<LoggedEntry> = Vec::new();
        for _ in 0..PAGES {
            let after = fresh.last().map_or(place, |last| Seq(last.seq));
            let page = self.page_after(around, slot, after)?;
            if page.is_empty() {
                break;
            }
            fresh.extend(page);
        }
        let mut epochs = BTreeSet::new();
        let again = |logged: &LoggedEntry| {
            let commit = Entry::parse(&logged.entry).ok().filter(|entry| entry.kind == EntryKind::Commit);
            commit.is_some_and(|commit| !epochs.insert(commit.epoch))
        };
        let end = fresh.iter().position(again).unwrap_or(fresh.len());
        fresh.truncate(end);
        Ok(fresh)
    }

    /// The last entries up to our place, as we have read them.
    fn behind(&self, slot: usize, place: Seq, count: usize) -> Vec<LoggedEntry> {
        let Some(lately) = self.lately.get(&slot) else { return Vec::new() };
        let mut behind: Vec<_> = lately.range(..=place).rev().take(count).map(|(_, read)| logged(read)).collect();
        behind.reverse();
        behind
    }

    /// The server may bring another entry than it brought before, at a place that we know.
    fn rewrite(&self, around: &mut Surroundings, slot: usize, wire: &mut [LoggedEntry]) {
        // Who is shown another log may have a place that it cannot judge.
        let lately = self.lately.get(&slot).filter(|_| !around.ledger.is_victim(self.index, slot));
        let Some(lately) = lately else { return };
        // What came before it was read, too: the place is one that we can judge.
        let known = |logged: &&mut LoggedEntry| logged.seq > 0 && lately.contains_key(&Seq(logged.seq - 1));
        let Some(old) = wire.iter_mut().find(known) else { return };
        if around.weather.tamper(|tamper| tamper == Tamper::Rewritten).is_some() {
            old.time_ms += 1;
            around.ledger.misdeed(Deed::Tampered(Tamper::Rewritten), slot, self.index, Some(Seq(old.seq)));
        }
    }

    /// Remembers what was read.
    pub(super) fn remember(&mut self, slot: usize, read: &[Incoming]) {
        let lately = self.lately.entry(slot).or_default();
        lately.extend(read.iter().map(|incoming| (incoming.seq, incoming.clone())));
        while lately.len() > REMEMBERED {
            lately.pop_first();
        }
    }
}

fn logged(read: &Incoming) -> LoggedEntry {
    LoggedEntry { seq: read.seq.0, time_ms: read.time.0, entry: read.entry.clone() }
}
