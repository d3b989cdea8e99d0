//! Pauses between tries of what nobody wished but the group needs, where the DS refuses it for good or it cannot be made.
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

fn pause(times: u32) -> u64 {
    REST_MS.saturating_mul(1 << times.saturating_sub(1).min(16)).min(REST_MS_MOST)
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
        let Some(kind) = kind(wish) else { return };
        let now = if self.rests.now == Timestamp(0) { at } else { self.rests.now };
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
        let minutes = |times| pause(times) / 60_000;
        assert_eq!([1, 2, 3, 11, 12, u32::MAX].map(minutes), [1, 2, 4, 1024, 1440, 1440]);
    }
}
