//! How long channels keep what was ordered: decided from places, times and sizes alone.

use conclave_channel::law::Ledger;
use conclave_names::{Seq, Timestamp, limits};

/// How long a channel keeps its entries, by time and by size. Whichever bound is reached first counts.
///
/// Numbers, running hash, the current epoch's GroupInfo and tree, and the key roots that are still needed stay in any
/// case. So do a commit that is not settled and what follows it: members may still dispute it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Entries of this age, in milliseconds, go; none: age does not matter.
    pub age_ms: Option<u64>,
    /// While a channel has more bytes of entries (and of the blobs that they name), its oldest go; none: size does not
    /// matter.
    pub bytes: Option<u64>,
}

impl Retention {
    /// What counts for inboxes: a Welcome that nobody took up within [`limits::INVITATION_MS`] leads nowhere any more.
    pub const INBOX: Self = Self { age_ms: Some(limits::INVITATION_MS), bytes: None };

    /// Keeps everything.
    pub const FOREVER: Self = Self { age_ms: None, bytes: None };

    /// Whether a channel's oldest entry goes, if it is of this time and the channel has so many bytes.
    #[must_use]
    pub fn ends(&self, time: Timestamp, bytes: u64, now: Timestamp) -> bool {
        self.age_ms.is_some_and(|age| time.plus_ms(age) <= now) || self.bytes.is_some_and(|most| bytes > most)
    }
}

impl Default for Retention {
    /// Of a group's channel: 90 days, the longest life of a KeyPackage, and 1 GiB.
    fn default() -> Self {
        Self { age_ms: Some(90 * 24 * 3600 * 1000), bytes: Some(1 << 30) }
    }
}

/// The entry from which on everything stays because its commits are not settled.
pub(crate) fn unsettled(ledger: &Ledger, now: Timestamp) -> Option<Seq> {
    let later = ledger.at(now);
    // What time will have annulled is still in the rows until the next entry comes.
    let disputed = ledger.open().iter().any(|open| open.disputed().is_some());
    let counts = if disputed { ledger } else { &later };
    counts.open().first().map(|open| open.seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600 * 1000;

    #[test]
    fn age_and_size_end_an_entry_at_their_bounds_and_each_alone() {
        let both = Retention { age_ms: Some(DAY), bytes: Some(100) };
        let at =
            |retention: &Retention, age, bytes| retention.ends(Timestamp(5 * DAY - age), bytes, Timestamp(5 * DAY));
        assert!(!at(&both, DAY - 1, 100));
        assert!(at(&both, DAY, 0));
        assert!(at(&both, 0, 101));
        assert!(!at(&Retention { age_ms: None, ..both }, 5 * DAY, 100));
        assert!(!at(&Retention { bytes: None, ..both }, 0, u64::MAX));
        assert!(!at(&Retention::FOREVER, 5 * DAY, u64::MAX));
        assert!(!at(&Retention { age_ms: Some(u64::MAX), bytes: None }, 5 * DAY, 1), "no overflow");
    }
}
