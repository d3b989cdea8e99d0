//! The service: one file a call.

mod access;
mod authenticated;
mod blobs;
mod claim;
mod count;
mod create_channel;
mod create_inbox;
mod fetch;
mod get_server_info;
mod idempotency;
mod key_package;
mod maintain;
mod open_session;
mod outbox;
mod purge;
mod read_blob;
mod read_group_info;
mod request;
mod stage_blob;
mod stream;
mod submit;
mod submit_bundle;
mod trim;
mod upload;
mod welcome;

use std::fmt;

use conclave_mls::{crypto, identity::Identities};
use conclave_names::{ChannelId, Domain};
use conclave_protocol::{Code, Refusal};

pub use authenticated::{Authenticated, Found, Incoming, Request};
pub use read_blob::BlobPart;
pub use stream::{Attached, Batch, Detached, StreamEnd, Subscription};

use crate::session::Sessions;

/// What an operator may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Sessions that are remembered; beyond, the least recently used is forgotten.
    pub max_sessions: usize,
    /// Silence after which a session is forgotten, in milliseconds.
    pub session_idle_ms: u64,
}

impl Default for Config {
    /// 100,000 sessions (about 300 bytes each), 10 minutes.
    fn default() -> Self {
        Self { max_sessions: 100_000, session_idle_ms: 10 * 60 * 1000 }
    }
}

/// The answer of a call that writes, and what it leads to. Nothing of it may happen before the transaction is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done<R> {
    /// For the caller.
    pub reply: R,
    /// Channels with new entries: streams that carry them have something to send.
    pub wake: Vec<ChannelId>,
    /// Whether the outbox has rows: call [`DeliveryService::deliver_outbox`].
    pub outbox: bool,
}

impl<R> Done<R> {
    /// An answer that leads to nothing more.
    fn quiet(reply: R) -> Self {
        Self { reply, wake: Vec::new(), outbox: false }
    }
}

/// The Delivery Service of one domain.
///
/// It keeps sessions in memory and everything else in the store that its calls are given.
pub struct DeliveryService {
    domain: Domain,
    identities: Identities,
    suite: crypto::SuiteProvider,
    config: Config,
    sessions: Sessions,
}

impl fmt::Debug for DeliveryService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeliveryService")
            .field("domain", &self.domain)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl DeliveryService {
    /// The service of `domain`, which believes clients whom the issuers in `identities` certified (the issuers may be
    /// replaced while it runs).
    ///
    /// # Errors
    /// [`Code::Internal`] if the cryptographic library lacks the suite of delivery addresses.
    pub fn new(domain: Domain, identities: Identities, config: Config) -> Result<Self, Refusal> {
        let suite =
            crypto::suite(crypto::DEFAULT_SUITE).map_err(|error| Refusal::new(Code::Internal, error.to_string()))?;
        let sessions = Sessions::new(config.max_sessions, config.session_idle_ms);
        Ok(Self { domain, identities, suite, config, sessions })
    }

    /// The domain that it serves.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// How many sessions are open, for metrics.
    #[must_use]
    pub fn open_sessions(&self) -> usize {
        self.sessions.len()
    }
}
