//! When the server was last heard of (RFC 9750, sections 5.2 and 8.4.2): that nothing comes may mean that nothing was said, or that
//! nothing gets through. A stream brings heartbeats also where nothing is said; so silence is told of.

use conclave_names::Timestamp;

/// After how long without a word of the server it is told of, in milliseconds: 5 minutes.
pub const SERVER_SILENT_MS: u64 = 300_000;

/// What a shell that listens knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contact {
    heard: Timestamp,
    told: bool,
    patience_ms: u64,
}

impl Contact {
    /// Begins to listen.
    #[must_use]
    pub const fn new(now: Timestamp) -> Self {
        Self { heard: now, told: false, patience_ms: SERVER_SILENT_MS }
    }

    /// The same with another patience than [`SERVER_SILENT_MS`], in milliseconds.
    #[must_use]
    pub const fn with_patience(now: Timestamp, patience_ms: u64) -> Self {
        Self { heard: now, told: false, patience_ms }
    }

    /// The server said something: an entry, a heartbeat, an answer.
    pub fn heard(&mut self, now: Timestamp) {
        // A clock that was set back must not make a long silence of none.
        *self = Self::with_patience(now, self.patience_ms);
    }

    /// Since when the server has been silent, if that is to be told now: once, until it is heard of again.
    pub fn silent(&mut self, now: Timestamp) -> Option<Timestamp> {
        if self.heard > now {
            self.heard = now;
        }
        if self.told || self.heard.plus_ms(self.patience_ms) > now {
            return None;
        }
        self.told = true;
        Some(self.heard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_told_once_and_again_after_the_next_word() {
        let start = Timestamp(1_000_000);
        let mut contact = Contact::new(start);
        assert_eq!(contact.silent(start.plus_ms(SERVER_SILENT_MS - 1)), None);
        assert_eq!(contact.silent(start.plus_ms(SERVER_SILENT_MS)), Some(start));
        assert_eq!(contact.silent(start.plus_ms(9 * SERVER_SILENT_MS)), None, "it is told once");
        let back = start.plus_ms(10 * SERVER_SILENT_MS);
        contact.heard(back);
        assert_eq!(contact.silent(back.plus_ms(SERVER_SILENT_MS)), Some(back));
        // Set back by a day: no silence yet, and none of a day to come.
        contact.heard(back.plus_ms(86_400_000));
        assert_eq!(contact.silent(back), None);
        let mut hasty = Contact::with_patience(start, 5);
        assert_eq!((hasty.silent(start.plus_ms(4)), hasty.silent(start.plus_ms(5))), (None, Some(start)));
        hasty.heard(back);
        assert_eq!(hasty.silent(back.plus_ms(5)), Some(back), "its patience stays");
        assert_eq!(contact.silent(back.plus_ms(SERVER_SILENT_MS)), Some(back));
    }
}
