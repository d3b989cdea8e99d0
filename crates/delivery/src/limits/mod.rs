//! How much somebody may ask for: token buckets, and what the service limits by itself.
//!
//! RFC 9750, section 8.1.3, asks that nobody but the Delivery Service can deny service cheaply. Whoever calls is held
//! to a [`Rate`]: by network address, which the caller of this crate sees and judges ([`Buckets`] and [`refusal`] are
//! public for that), and here by what a request proves: the user of a certified client, the key of a session
//! ([`Limits`]). KeyPackages of one client are limited on both ends, so that no claimant, and not all of them together,
//! drain its pool: beyond the limit its last resort is served.
//!
//! A ticket ([`Tickets`]) lets its holder past a rate for a number of calls, bound to nothing but that number: the
//! operator hands it to whom he wants to be served from a crowded address, and learns no name by it.
//!
//! Own code, because what exists (`governor`) reads a clock of its own and keeps as many buckets as it is shown keys.

mod buckets;
mod known;
mod rate;
mod ticket;

use conclave_protocol::{Code, Refusal};

pub use buckets::{Buckets, Wait};
pub use known::Limits;
pub use rate::{InvalidRate, Rate};
pub use ticket::{TicketError, TicketKey, Tickets};

pub(crate) use known::Limiter;

/// The answer to who is over a limit: which one, how large it is, and when to come back (metadata `retry_after_ms`).
#[must_use]
pub fn refusal(what: &str, rate: Rate, wait: Wait) -> Refusal {
    let Wait(ms) = wait;
    let message = format!(
        "more {what} than are served ({rate}): wait {} s and send it again, or ask the operator for a higher limit",
        ms.div_ceil(1000)
    );
    Refusal::new(Code::RateLimited, message).with("retry_after_ms", ms)
}
