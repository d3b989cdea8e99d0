//! Pauses between tries of what nobody wished but the group needs, where the DS refuses it for good, it cannot be made, or members
//! dispute it.
//!
//! Such a wish is given up like any other, and what it was for is due as before: without a pause, a client would make one commit after the
//! other, each in vain. So it waits for a minute, and each time twice as long, up to a day; also across restarts. Once one succeeds, the
//! count begins anew. (What others proposed has pauses of its own, in [`super::left_out`]: they end with the epoch.)

use std::collections::BTreeMap;

use conclave_names::Timestamp;
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};

use super::Group;
use crate::intent::Wish;

/// How long what the group needs waits after its first failure, in milliseconds: a minute.
pub const REST_MS: u64 = 60_000;

/// And at most, in milliseconds: a day.
pub const REST_MS_MOST: u64 = 86_400_000;

/// How many dispute pauses a renewal of our keys waits after the second one that members disputed: an hour if nothing else was agreed.
const DISPUTED_PAUSES: u64 = 4;

/// Number in the rows of renewals that members disputed. That one is ordered says nothing yet: it succeeds once it is settled.
const DISPUTED: u8 = 4;

/// Number in the rows of commits that we made because what the server serves for who comes back leads nowhere.
const MENDED: u8 = 5;

/// A row of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
pub(super) struct Rest {
    kind: u8,
    times: u32,
    until: Timestamp,
}

/// What rests.
#[derive(Debug, Default)]
pub(super) struct Rests {
    by_kind: BTreeMap<u8, Rest>,
    /// The time, as far as we were told.
    now: Timestamp,
}

/// What is tried again by itself: its number in the rows.
fn kind(wish: &Wish) -> Option<u8> {
    match wish {
        Wish::Update => Some(1),
        Wish::Heartbeat => Some(2),
        Wish::Succeed => Some(3),
        _ => None,
    }
}

/// After so many failures, of which each makes it twice as long.
fn pause(first: u64, times: u32) -> u64 {
    first.saturating_mul(1 << times.saturating_sub(1).min(16)).min(REST_MS_MOST)
}

impl Rests {
    pub(super) fn of(rows: &[Rest]) -> Self {
        Self { by_kind: rows.iter().map(|rest| (rest.kind, *rest)).collect(), now: Timestamp(0) }
    }

    pub(super) fn to_rows(&self) -> Vec<Rest> {
        self.by_kind.values().copied().collect()
    }

    /// Until when a wish of this kind is not tried.
    pub(super) fn until(&self, wish: &Wish) -> Option<Timestamp> {
        self.by_kind.get(&kind(wish)?).map(|rest| rest.until)
    }

    /// When a wish is tried that is due.
    pub(super) fn after(&self, wish: &Wish, due: Timestamp) -> Timestamp {
        self.until(wish).map_or(due, |until| due.max(until))
    }

    /// The time, as far as we were told.
    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// Takes note of an entry's time.
    pub(super) fn saw(&mut self, time: Timestamp) {
        self.now = self.now.max(time);
    }

    /// When our keys are renewed that are due to be.
    pub(super) fn after_disputes(&self, due: Timestamp) -> Timestamp {
        let due = self.after(&Wish::Update, due);
        self.by_kind.get(&DISPUTED).map_or(due, |rest| due.max(rest.until))
    }
}

impl Group {
    /// Takes note of the time, from which pauses count.
    pub(super) fn note_rests(&mut self, now: Timestamp) {
        self.rests.now = now;
        for rest in self.rests.by_kind.values_mut() {
            // A clock that was ahead for a while keeps nothing back after it.
            if rest.until > now.plus_ms(REST_MS_MOST) {
                rest.until = now;
                self.touched = true;
            }
        }
    }

    /// A wish that nobody wished failed at a time, or when we were last told one.
    pub(super) fn rest(&mut self, wish: &Wish, at: Timestamp) {
        if let Some(kind) = kind(wish) {
            self.rest_kind(kind, at, |times| pause(REST_MS, times));
        }
    }

    /// A commit of ours is void, as members disputed it. If it took a certificate that they do not believe into our leaf, so does the next one:
    /// the group must not be in dispute all the time.
    pub(super) fn rest_disputed(&mut self, at: Timestamp) {
        let first = self.ledger.pause().ms().saturating_mul(DISPUTED_PAUSES);
        // It may have been that nobody was there to acknowledge it.
        self.rest_kind(DISPUTED, at, |times| if times == 1 { REST_MS } else { pause(first, times - 1) });
    }

    /// A commit of ours stands.
    pub(super) fn rested_disputed(&mut self) {
        if self.rests.by_kind.remove(&DISPUTED).is_some() {
            self.touched = true;
        }
    }

    /// Whether we may make a commit now because of what the server serves for who comes back; the next one has to wait.
    pub(super) fn may_mend(&mut self, now: Timestamp) -> bool {
        let may = self.rests.by_kind.get(&MENDED).is_none_or(|rest| rest.until <= now);
        if may {
            self.rest_kind(MENDED, now, |times| pause(REST_MS, times));
        }
        may
    }

    /// Who comes back by what the server serves gets somewhere.
    pub(super) fn served_well(&mut self) {
        if self.rests.by_kind.remove(&MENDED).is_some() {
            self.touched = true;
        }
    }

    fn rest_kind(&mut self, kind: u8, at: Timestamp, pause: impl Fn(u32) -> u64) {
        let now = self.rests.now.max(at);
        let times = self.rests.by_kind.get(&kind).map_or(0, |rest| rest.times).saturating_add(1);
        self.rests.by_kind.insert(kind, Rest { kind, times, until: now.plus_ms(pause(times)) });
        self.touched = true;
    }

    /// Something like it succeeded.
    pub(super) fn rested(&mut self, wish: &Wish) {
        // Any commit of ours is as good as one that renews our keys: what refused that takes commits again.
        let kind = if wish.is_commit() { kind(&Wish::Update) } else { kind(wish) };
        if kind.is_some_and(|kind| self.rests.by_kind.remove(&kind).is_some()) {
            self.touched = true;
        }
    }

    /// Whether a wish of this kind waits.
    pub(super) fn is_resting(&self, wish: &Wish, now: Timestamp) -> bool {
        self.rests.until(wish).is_some_and(|until| until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_day_and_no_further() {
        let minutes = |times| pause(REST_MS, times) / 60_000;
        assert_eq!([1, 2, 3, 11, 12, u32::MAX].map(minutes), [1, 2, 4, 1024, 1440, 1440]);
        let hours = |times| pause(60 * REST_MS, times) / 3_600_000;
        assert_eq!([1, 2, 3, 5, 6, u32::MAX].map(hours), [1, 2, 4, 16, 24, 24]);
    }
}
