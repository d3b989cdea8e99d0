//! Entries that a stream brings before those that stand before them, or once more.
//!
//! What is fetched comes in order, and a gap in it is a fault ([`Group::process`]). A stream that was attached anew may overlap with what
//! was fetched meanwhile, or run ahead of it. What is early waits in memory, bounded in number, bytes and time: nothing is lost with
//! it, as the channel has it all. What is repeated is compared with what was processed.

use std::collections::BTreeMap;

use conclave_channel::{Claim, Entry, Position, chain};
use conclave_mls::content::MessageId;
use conclave_names::{Seq, Timestamp};

use super::{Group, Incoming, Known, Processed};
use crate::outcome::{Event, Outcome};

/// Entries that wait at most.
pub const EARLY_ENTRIES: usize = 256;

/// Bytes that wait at most, blobs included: 4 MiB.
pub const EARLY_BYTES: usize = 4 << 20;

/// How long entries wait for those before them, in milliseconds: half a minute. Then they are dropped, and read from the channel.
pub const EARLY_MS: u64 = 30_000;

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Early {
    entries: BTreeMap<Seq, Incoming>,
    bytes: usize,
    since: Option<Timestamp>,
}

fn size(incoming: &Incoming) -> usize {
    incoming.entry.len() + incoming.blob.as_ref().map_or(0, Vec::len)
}

impl Early {
    /// Whether there was room for it, or it is there; for the next one there is always room.
    fn keep(&mut self, incoming: &Incoming, is_next: bool, now: Timestamp) -> bool {
        if self.entries.contains_key(&incoming.seq) {
            return true;
        }
        let bytes = self.bytes.saturating_add(size(incoming));
        if !is_next && (self.entries.len() >= EARLY_ENTRIES || bytes > EARLY_BYTES) {
            return false;
        }
        self.bytes = bytes;
        self.since.get_or_insert(now);
        self.entries.insert(incoming.seq, incoming.clone());
        true
    }

    fn take(&mut self, seq: Seq) -> Option<Incoming> {
        let taken = self.entries.remove(&seq)?;
        self.bytes = self.bytes.saturating_sub(size(&taken));
        if self.entries.is_empty() {
            self.since = None;
        }
        Some(taken)
    }
}

impl Group {
    /// Processes what a stream brought, in whatever order. What is early is [`Outcome::Buffered`], or [`Outcome::Overflow`] if there is
    /// no room for it, what was processed before [`Outcome::Duplicate`]. Whether something waits says [`Group::early_due`]: then
    /// the channel is to be read from our place, and this to be called again, also with nothing.
    pub fn take_in(&mut self, batch: &[Incoming], now: Timestamp, known: impl FnMut(&MessageId) -> Known) -> Processed {
        let mut told = Processed::default();
        for incoming in batch {
            let place = self.window.position().seq;
            if incoming.seq <= place {
                told.outcomes.push((incoming.seq, self.repeated(incoming, &mut told.events)));
                continue;
            }
            // The next one waits for nothing, and may end the others' waiting.
            let is_next = incoming.seq == place.next();
            let kept = self.early.keep(incoming, is_next, now);
            if !is_next {
                told.outcomes.push((incoming.seq, if kept { Outcome::Buffered } else { Outcome::Overflow }));
            }
        }
        self.early.entries.retain(|seq, _| *seq > self.window.position().seq);
        let mut next = self.window.position().seq.next();
        let mut ready = Vec::new();
        while let Some(incoming) = self.early.take(next) {
            told.outcomes.retain(|(seq, _)| *seq != next);
            ready.push(incoming);
            next = next.next();
        }
        self.early.bytes = self.early.entries.values().map(size).sum();
        if self.early.entries.is_empty() {
            self.early.since = None;
        }
        if ready.is_empty() {
            return told;
        }
        let done = self.process_with(&ready, known);
        told.outcomes.extend(done.outcomes);
        told.events.extend(done.events);
        told.fault = done.fault;
        told
    }

    /// When entries that wait are dropped. None: nothing waits.
    #[must_use]
    pub fn early_due(&self) -> Option<Timestamp> {
        Some(self.early.since?.plus_ms(EARLY_MS))
    }

    /// Drops entries that have waited for too long. The channel has them.
    pub(super) fn drop_early(&mut self, now: Timestamp) {
        if self.early_due().is_some_and(|due| due <= now) {
            self.early = Early::default();
        }
    }

    /// An entry at a place that we have passed.
    fn repeated(&mut self, incoming: &Incoming, events: &mut Vec<Event>) -> Outcome {
        let before = incoming.seq.0.checked_sub(1).and_then(|seq| self.window.hash_at(Seq(seq)));
        let (Some(before), Ok(entry)) = (before, Entry::parse(&incoming.entry)) else { return Outcome::Stale };
        let hash = chain::next(&before, incoming.seq, entry.kind, incoming.time, &chain::entry_hash(&incoming.entry));
        match self.window.check(&Position { seq: incoming.seq, hash }) {
            Claim::Same => Outcome::Duplicate,
            Claim::Unverifiable => Outcome::Stale,
            Claim::Different => {
                self.tell(Event::LogRewritten { seq: incoming.seq }, self.window.time(), events);
                Outcome::Stale
            }
        }
    }
}
