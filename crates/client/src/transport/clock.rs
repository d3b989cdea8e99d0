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

impl ServerClock {
    pub(super) fn now(&self) -> Timestamp {
        Timestamp(local().saturating_add_signed(self.ahead_ms.load(Ordering::Relaxed)))
    }

    /// Notes the server's time. Requests to it are dated by it; nothing else is.
    pub(super) fn correct(&self, server: Timestamp) {
        let ahead = i128::from(server.0) - i128::from(local());
        let ahead = i64::try_from(ahead).unwrap_or(i64::MAX);
        tracing::info!(
            ahead_ms = ahead,
            "this machine's clock differs from the server's: requests are dated by the latter"
        );
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
}
