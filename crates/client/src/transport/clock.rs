//! The server's clock, as far as it is known.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use conclave_names::Timestamp;

/// This machine's clock and how far the server's is ahead of it.
#[derive(Debug, Default)]
pub(super) struct ServerClock {
    ahead_ms: AtomicI64,
}

fn local() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// How far the server's clock may be from this machine's without its user being told, in milliseconds: a day. Beyond it, the server's word for the
/// time does not make this client delete anything.
const FAR_MS: u64 = 86_400_000;

/// Differences that are left as they are, in milliseconds: the way of a message takes as long.
const NEAR_MS: u64 = 3_000;

impl ServerClock {
    /// The server's time: requests are dated by it, and what the server decides by time is judged by it.
    pub(super) fn now(&self) -> Timestamp {
        Timestamp(local().saturating_add_signed(self.ahead_ms.load(Ordering::Relaxed)))
    }

    /// The same, but no further ahead of this machine's clock than [`FAR_MS`]: the time by which keys are too old to be kept. One answer of a server that is
    /// wrong, or lies, must not delete what is in use.
    pub(super) fn now_for_deleting(&self) -> Timestamp {
        self.now().min(Timestamp(local().saturating_add(FAR_MS)))
    }

    /// How far the server's clock is ahead of this machine's, in milliseconds, if that is more than people take for the same time.
    pub(super) fn far_ahead(&self) -> Option<i64> {
        Some(self.ahead_ms.load(Ordering::Relaxed)).filter(|ahead| ahead.unsigned_abs() > FAR_MS)
    }

    /// Notes the server's time.
    pub(super) fn correct(&self, server: Timestamp) {
        if self.now().0.abs_diff(server.0) < NEAR_MS {
            return;
        }
        let ahead = i128::from(server.0) - i128::from(local());
        let ahead = i64::try_from(ahead).unwrap_or(i64::MAX);
        tracing::info!(ahead_ms = ahead, "this machine's clock differs from the server's, by which it goes");
        self.ahead_ms.store(ahead, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_server_time_is_borne() {
        let clock = ServerClock::default();
        for server in [0, 1, local() + 1_000_000, u64::MAX] {
            clock.correct(Timestamp(server));
            assert!(clock.now().0.abs_diff(server) < 60_000 || server == u64::MAX, "{server}");
        }
    }

    #[test]
    fn a_clock_that_is_far_ahead_deletes_nothing_and_is_told_of() {
        let clock = ServerClock::default();
        clock.correct(Timestamp(local() + 3_600_000));
        assert_eq!((clock.far_ahead(), clock.now_for_deleting().max(clock.now())), (None, clock.now()));
        // The end of the year 9999.
        clock.correct(Timestamp(253_402_300_799_000));
        assert!(clock.now_for_deleting().0 <= local() + FAR_MS && clock.now() > clock.now_for_deleting());
        assert!(clock.far_ahead().is_some_and(|ahead| ahead > 0));
        // One that is behind deletes later.
        clock.correct(Timestamp(1));
        assert!(clock.now_for_deleting().0 < 60_000);
        assert!(clock.far_ahead().is_some_and(|ahead| ahead < 0));
        clock.correct(Timestamp(local()));
        assert_eq!(clock.far_ahead(), None);
    }

    #[test]
    fn what_a_message_takes_on_its_way_changes_nothing() {
        let clock = ServerClock::default();
        clock.correct(Timestamp(local().saturating_sub(NEAR_MS / 2)));
        assert_eq!(clock.ahead_ms.load(Ordering::Relaxed), 0);
        // A step of this machine's clock is corrected by the server's next word.
        clock.correct(Timestamp(local() + 7_200_000));
        assert!(clock.now().0 >= local() + 7_100_000);
        clock.correct(Timestamp(local()));
        assert!(clock.now().0.abs_diff(local()) < NEAR_MS);
    }
}
