//! The service: one file a call.

mod access;
mod authenticated;
mod blobs;
mod claim;
mod count;
mod create_channel;
mod create_inbox;
mod fetch;
mod follow;
mod get_server_info;
mod idempotency;
mod key_package;
mod knock;
mod maintain;
mod open_session;
mod outbox;
mod purge;
mod read_blob;
mod read_group_info;
mod read_tree;
mod receipt;
mod request;
mod retain;
mod stage_blob;
mod standing;
mod stream;
mod submit;
mod submit_bundle;
mod submit_external_proposal;
mod tree;
mod trim;
mod upload;
mod welcome;

use std::{
    fmt,
    sync::{Mutex, OnceLock},
};

use conclave_mls::{crypto, identity::Identities};
use conclave_names::{ChannelId, Domain};
use conclave_protocol::{Code, Refusal, SigningKey};

pub use authenticated::{Authenticated, Found, Incoming, Request};
pub use follow::FollowedGroup;
pub use read_blob::BlobPart;
pub use stream::{Attached, Batch, Detached, StreamEnd, Subscription};

use crate::{
    limits::{Limiter, Limits},
    retention::Retention,
    session::{Bounds, Sessions},
    visible::{Cache, Follower},
};

/// What an operator may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Sessions that are remembered. Beyond, the place that has most of them loses its least recently used.
    pub max_sessions: usize,
    /// Sessions that are remembered of one place ([`Origin`](crate::Origin)); beyond, its own least recently used is
    /// forgotten.
    pub max_sessions_per_origin: usize,
    /// Sessions that are remembered of one key; beyond, its own least recently used is forgotten.
    pub max_sessions_per_key: usize,
    /// Silence after which a session is forgotten, in milliseconds.
    pub session_idle_ms: u64,
    /// How much each may ask for.
    pub limits: Limits,
    /// How long groups' channels keep their entries.
    pub retention: Retention,
    /// Bytes of groups with visible handshakes that are kept in memory, as they are estimated; others are restored from
    /// the store when they are wanted.
    pub followed_bytes: usize,
}

impl Default for Config {
    /// 100,000 sessions (about 500 bytes each), 20,000 of one place and 8 of one key, 10 minutes, the default limits
    /// and retention, 256 MiB of followed groups.
    fn default() -> Self {
        Self {
            max_sessions: 100_000,
            max_sessions_per_origin: 20_000,
            max_sessions_per_key: 8,
            session_idle_ms: 10 * 60 * 1000,
            limits: Limits::default(),
            retention: Retention::default(),
            followed_bytes: 256 * 1024 * 1024,
        }
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
    /// The channel of an accepted submission: give the answer to [`DeliveryService::sign_receipt`].
    pub accepted: Option<ChannelId>,
}

impl<R> Done<R> {
    /// An answer that leads to nothing more.
    fn quiet(reply: R) -> Self {
        Self { reply, wake: Vec::new(), outbox: false, accepted: None }
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
    limiter: Limiter,
    follower: Follower,
    /// Groups with visible handshakes, in memory.
    visible: Cache,
    /// Signs receipts; made of the server's secret at the first maintenance.
    receipts: OnceLock<SigningKey>,
    /// How far maintenance has come with the channels.
    sweep: Mutex<Option<ChannelId>>,
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
        let sessions = Sessions::new(Bounds {
            all: config.max_sessions,
            per_origin: config.max_sessions_per_origin,
            per_key: config.max_sessions_per_key,
            idle_ms: config.session_idle_ms,
        });
        let limiter = Limiter::new(&config.limits);
        let (follower, visible) = (Follower::new(identities.clone()), Cache::new(config.followed_bytes));
        Ok(Self {
            domain,
            identities,
            suite,
            config,
            sessions,
            limiter,
            follower,
            visible,
            receipts: OnceLock::new(),
            sweep: Mutex::default(),
        })
    }

    /// The domain that it serves.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Bytes of the groups with visible handshakes that are in memory, as they are estimated, for metrics.
    #[must_use]
    pub fn followed_bytes(&self) -> usize {
        self.visible.bytes()
    }

    /// How many sessions are open, for metrics.
    #[must_use]
    pub fn open_sessions(&self) -> usize {
        self.sessions.len()
    }

    /// How many buckets of limits are in use, for metrics.
    #[must_use]
    pub fn limit_buckets(&self) -> usize {
        self.limiter.len()
    }
}
