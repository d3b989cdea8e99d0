//! The one place where the server reads a clock.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use conclave_names::Timestamp;

/// How far the servers of this process are ahead of the machine's clock, in milliseconds: 0 but in tests of what takes days.
static AHEAD_MS: AtomicU64 = AtomicU64::new(0);

/// Sets the clock of all servers in this process ahead of the machine's, in milliseconds: for tests of what takes days.
pub fn set_ahead_for_tests(ms: u64) {
    AHEAD_MS.store(ms, Ordering::Relaxed);
}

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    Timestamp(now.saturating_add(AHEAD_MS.load(Ordering::Relaxed)))
}
