//! The one place where the server reads a clock.

use std::time::{SystemTime, UNIX_EPOCH};

use conclave_names::Timestamp;

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
