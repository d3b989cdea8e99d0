//! Entries that a stream brings before those that stand before them, or once more.
//!
//! What is fetched comes in order, and a gap in it is a fault ([`Group::process`]). A stream that was attached anew may overlap with what
//! was fetched meanwhile, or run ahead of it. What is early waits in memory, bounded in number, bytes and time, in one group and in all of a
//! client's: nothing is lost with it, as the channel has it all. What is repeated is compared with what was processed.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use conclave_channel::{Claim, Entry, Position, chain};
use conclave_mls::content::MessageId;
use conclave_names::{Seq, Timestamp};

use super::{Group, Incoming, Known, Processed};
use crate::outcome::{Event, Outcome};

/// Entries of one group that wait at most.
pub const EARLY_ENTRIES: usize = 256;

/// Bytes of one group that wait at most, blobs included: 4 MiB.
pub const EARLY_BYTES: usize = 4 << 20;

/// Entries of all groups of a client that wait at most.
pub const EARLY_ENTRIES_OF_CLIENT: usize = 1024;

/// Bytes of all groups of a client that wait at most, blobs included: 16 MiB.
pub const EARLY_BYTES_OF_CLIENT: usize = 16 << 20;

/// How long entries wait for those before them, in milliseconds: half a minute. Then they are dropped, and read from the channel.
pub const EARLY_MS: u64 = 30_000;

/// The room that a client's groups share. Clones are of the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct EarlyRoom(Arc<Taken>);

#[derive(Debug, Default)]
struct Taken {
    entries: AtomicUsize,
    bytes: AtomicUsize,
}

impl EarlyRoom {
    fn has_room_for(&self, bytes: usize) -> bool {
        let taken = self.0.bytes.load(Ordering::Relaxed).saturating_add(bytes);
        self.0.entries.load(Ordering::Relaxed) < EARLY_ENTRIES_OF_CLIENT && taken <= EARLY_BYTES_OF_CLIENT
    }

    fn take(&self, bytes: usize) {
        self.0.entries.fetch_add(1, Ordering::Relaxed);
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn give_back(&self, bytes: usize) {
        self.0.entries.fetch_sub(1, Ordering::Relaxed);
        self.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What waits in a group.
#[derive(Debug)]
pub(super) struct Early {
    entries: BTreeMap<Seq, Incoming>,
    bytes: usize,
    since: Option<Timestamp>,
    room: EarlyRoom,
}

fn size(incoming: &Incoming) -> usize {
    incoming.entry.len() + incoming.blob.as_ref().map_or(0, Vec::len)
}

impl Early {
    pub(super) fn new(room: EarlyRoom) -> Self {
        Self { entries: BTreeMap::new(), bytes: 0, since: None, room }
    }

    /// Whether there was room for it, or it is there; for the next one there is always room.
    fn keep(&mut self, incoming: &Incoming, is_next: bool, now: Timestamp) -> bool {
        if self.entries.contains_key(&incoming.seq) {
            return true;
        }
        let bytes = self.bytes.saturating_add(size(incoming));
        let fits = self.entries.len() < EARLY_ENTRIES && bytes <= EARLY_BYTES;
        let kept = is_next || (fits && self.room.has_room_for(size(incoming)));
        if !kept {
            return false;
        }
        self.room.take(size(incoming));
        self.bytes = bytes;
        self.since.get_or_insert(now);
        self.entries.insert(incoming.seq, incoming.clone());
        true
    }

    fn take(&mut self, seq: Seq) -> Option<Incoming> {
        let taken = self.entries.remove(&seq)?;
        self.room.give_back(size(&taken));
        self.bytes = self.bytes.saturating_sub(size(&taken));
        if self.entries.is_empty() {
            self.since = None;
        }
        Some(taken)
    }

    /// Lets go of what is not after a place.
    fn forget_until(&mut self, place: Seq) {
        while let Some(first) = self.entries.keys().next().copied().filter(|first| *first <= place) {
            self.take(first);
        }
    }

    fn clear(&mut self) {
        self.forget_until(Seq(u64::MAX));
    }
}

impl Drop for Early {
    fn drop(&mut self) {
        self.clear();
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
        self.early.forget_until(self.window.position().seq);
        let mut next = self.window.position().seq.next();
        let mut ready = Vec::new();
        while let Some(incoming) = self.early.take(next) {
            told.outcomes.retain(|(seq, _)| *seq != next);
            ready.push(incoming);
            next = next.next();
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

    /// How many entries wait, and their bytes, blobs included.
    #[must_use]
    pub fn early_held(&self) -> (usize, usize) {
        (self.early.entries.len(), self.early.bytes)
    }

    /// When entries that wait are dropped. None: nothing waits.
    #[must_use]
    pub fn early_due(&self) -> Option<Timestamp> {
        Some(self.early.since?.plus_ms(EARLY_MS))
    }

    /// Drops entries that have waited for too long. The channel has them.
    pub(super) fn drop_early(&mut self, now: Timestamp) {
        if self.early_due().is_some_and(|due| due <= now) {
            self.early.clear();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn of(seq: u64, bytes: usize) -> Incoming {
        Incoming { seq: Seq(seq), time: Timestamp(0), entry: vec![0; 9], blob: Some(vec![0; bytes - 9]) }
    }

    #[test]
    fn the_room_that_groups_share_is_given_back_whatever_becomes_of_what_waits() {
        let room = EarlyRoom::default();
        let taken = || (room.0.entries.load(Ordering::Relaxed), room.0.bytes.load(Ordering::Relaxed));
        let mut groups: Vec<_> = (0..5).map(|_| Early::new(room.clone())).collect();
        // Three MiB each: the sixth does not fit.
        let kept: Vec<_> =
            (0..6).map(|n| groups[n % 5].keep(&of(n as u64, 3 << 20), false, Timestamp(n as u64))).collect();
        assert_eq!(kept, [true, true, true, true, true, false]);
        assert_eq!(taken(), (5, 15 << 20));
        assert!(groups[0].keep(&of(0, 3 << 20), false, Timestamp(9)), "it is there");
        assert_eq!(taken(), (5, 15 << 20));
        // It waits for nothing.
        assert!(groups[1].keep(&of(7, 2 << 20), true, Timestamp(9)));
        assert_eq!(groups[1].take(Seq(7)).map(|taken| taken.seq), Some(Seq(7)));
        assert_eq!((taken(), groups[1].take(Seq(7)).is_none()), ((5, 15 << 20), true));
        groups[0].forget_until(Seq(0));
        assert_eq!((groups[0].since, taken()), (None, (4, 12 << 20)));
        groups[1].clear();
        assert_eq!((groups[1].bytes, taken()), (0, (3, 9 << 20)));
        drop(groups);
        assert_eq!(taken(), (0, 0));

        let mut groups: Vec<_> = (0..5).map(|_| Early::new(room.clone())).collect();
        for group in &mut groups {
            for seq in 0..=EARLY_ENTRIES as u64 {
                group.keep(&of(seq, 9), false, Timestamp(0));
            }
        }
        let held: Vec<_> = groups.iter().map(|group| group.entries.len()).collect();
        assert_eq!(held, [EARLY_ENTRIES, EARLY_ENTRIES, EARLY_ENTRIES, EARLY_ENTRIES, 0]);
        assert_eq!(held.iter().sum::<usize>(), EARLY_ENTRIES_OF_CLIENT);
    }
}
