//! A reader's place in a channel, and the hashes that it remembers to check what others claim to have seen.

use std::collections::VecDeque;

use conclave_names::{ChannelId, Hash, Seq, Timestamp, limits};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};

use crate::{EntryKind, chain};

/// A place in a channel and the running hash there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, MlsSize, MlsEncode, MlsDecode)]
pub struct Position {
    /// The newest entry seen.
    pub seq: Seq,
    /// The running hash with it.
    pub hash: Hash,
}

impl Position {
    /// Before the first entry.
    #[must_use]
    pub fn start(channel: &ChannelId) -> Self {
        Self { seq: Seq(0), hash: chain::start(channel) }
    }
}

/// What became of another member's claim to have seen a hash at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// We saw the same.
    Same,
    /// We saw something else there: the DS showed two logs, or the member lies.
    Different,
    /// It lies before what we remember or after what we have seen: no alarm.
    Unverifiable,
}

/// The newest hashes of a channel: a reader's place, and [`limits::HASH_WINDOW`] hashes before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashWindow {
    newest: Position,
    time: Timestamp,
    /// Hashes before the newest, oldest first, of consecutive sequence numbers.
    before: VecDeque<Hash>,
}

impl HashWindow {
    /// Starts at a place, remembering nothing before it.
    #[must_use]
    pub fn new(start: Position, time: Timestamp) -> Self {
        Self { newest: start, time, before: VecDeque::new() }
    }

    /// Starts at a place with the hashes of the entries before it, oldest first.
    #[must_use]
    pub fn with_history(newest: Position, time: Timestamp, before: impl IntoIterator<Item = Hash>) -> Self {
        let mut window = Self { newest, time, before: before.into_iter().collect() };
        window.trim();
        window
    }

    /// The reader's place.
    #[must_use]
    pub fn position(&self) -> Position {
        self.newest
    }

    /// The DS's time of the newest entry.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// The hashes before the newest, oldest first.
    pub fn history(&self) -> impl Iterator<Item = &Hash> {
        self.before.iter()
    }

    /// Moves on by the next entry.
    ///
    /// # Errors
    /// [`LogFault`] if it is not the next one, or its time runs backwards. Nothing changes then.
    pub fn advance(&mut self, seq: Seq, kind: EntryKind, time: Timestamp, entry: &[u8]) -> Result<(), LogFault> {
        self.advance_by(seq, kind, time, &chain::entry_hash(entry))
    }

    /// The same by an entry's hash ([`chain::entry_hash`]).
    ///
    /// # Errors
    /// As [`HashWindow::advance`].
    pub fn advance_by(&mut self, seq: Seq, kind: EntryKind, time: Timestamp, entry: &Hash) -> Result<(), LogFault> {
        self.expect(seq, time)?;
        let hash = chain::next(&self.newest.hash, seq, kind, time, entry);
        self.before.push_back(self.newest.hash);
        self.newest = Position { seq, hash };
        self.time = time;
        self.trim();
        Ok(())
    }

    /// Whether an entry with this number and time can be the next one.
    ///
    /// # Errors
    /// [`LogFault`] if it cannot.
    pub fn expect(&self, seq: Seq, time: Timestamp) -> Result<(), LogFault> {
        let expected = self.newest.seq.next();
        if seq != expected {
            return Err(LogFault::Gap { expected, found: seq });
        }
        if time < self.time {
            return Err(LogFault::TimeBackwards { seq });
        }
        if time.0 > limits::TIME_MAX {
            return Err(LogFault::Time { seq, time });
        }
        Ok(())
    }

    /// Compares another member's claim with what was seen here.
    #[must_use]
    pub fn check(&self, claim: &Position) -> Claim {
        match self.hash_at(claim.seq) {
            None => Claim::Unverifiable,
            Some(hash) if hash == claim.hash => Claim::Same,
            Some(_) => Claim::Different,
        }
    }

    /// The running hash at a place, if it is remembered.
    #[must_use]
    pub fn hash_at(&self, seq: Seq) -> Option<Hash> {
        let behind = usize::try_from(self.newest.seq.0.checked_sub(seq.0)?).ok()?;
        if behind == 0 {
            return Some(self.newest.hash);
        }
        self.before.len().checked_sub(behind).and_then(|index| self.before.get(index)).copied()
    }

    /// The oldest place that is remembered.
    #[must_use]
    pub fn oldest(&self) -> Position {
        match self.before.front() {
            Some(hash) => {
                Position { seq: Seq(self.newest.seq.0.saturating_sub(self.before.len() as u64)), hash: *hash }
            }
            None => self.newest,
        }
    }

    fn trim(&mut self) {
        while self.before.len() > limits::HASH_WINDOW {
            self.before.pop_front();
        }
    }
}

/// The DS gave out a log that cannot be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogFault {
    /// Entries are missing, repeated or out of order.
    #[error("the server sent entry {found} where entry {expected} was due")]
    Gap {
        /// What was due.
        expected: Seq,
        /// What came.
        found: Seq,
    },
    /// A time after the year 9999.
    #[error("the server gave entry {seq} the impossible time {time}")]
    Time {
        /// Where.
        seq: Seq,
        /// Which.
        time: Timestamp,
    },
    /// A time before the entry's before it.
    #[error("the server's time runs backwards at entry {seq}")]
    TimeBackwards {
        /// Where.
        seq: Seq,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(entries: u64) -> HashWindow {
        let mut window = HashWindow::new(Position::start(&ChannelId::new([1; 16])), Timestamp(0));
        for seq in 1..=entries {
            window.advance(Seq(seq), EntryKind::Message, Timestamp(seq), &seq.to_be_bytes()).unwrap();
        }
        window
    }

    #[test]
    fn claims_within_the_window_are_judged_and_others_raise_no_alarm() {
        let reader = window(5000);
        let at = |seq: u64| window(seq).position();
        assert_eq!(reader.check(&at(5000)), Claim::Same);
        assert_eq!(reader.check(&at(4999)), Claim::Same);
        assert_eq!(reader.check(&at(5000 - 4096)), Claim::Same);
        assert_eq!(reader.check(&at(5000 - 4097)), Claim::Unverifiable);
        assert_eq!(reader.check(&at(5001)), Claim::Unverifiable);
        let mut forged = at(4999);
        forged.hash = Hash::new([0; 32]);
        assert_eq!(reader.check(&forged), Claim::Different);
    }

    #[test]
    fn a_gap_a_repeat_or_time_running_backwards_changes_nothing() {
        let mut reader = window(3);
        let before = reader.clone();
        let mut at = |seq, time| reader.advance(Seq(seq), EntryKind::Message, Timestamp(time), b"x");
        assert!(matches!(at(5, 9), Err(LogFault::Gap { .. })));
        assert!(matches!(at(3, 9), Err(LogFault::Gap { .. })));
        assert!(matches!(at(4, 2), Err(LogFault::TimeBackwards { .. })));
        assert_eq!(reader, before);
    }

    #[test]
    fn history_restores_the_window() {
        let reader = window(100);
        let again =
            HashWindow::with_history(reader.position(), reader.time(), reader.history().copied().collect::<Vec<_>>());
        assert_eq!(again, reader);
    }
}
