//! The Conclave SDK: a client with its account, groups and messages, end-to-end encrypted, durable at every step.
//!
//! ```no_run
//! use conclave_client::{Client, Registration, Services, store::MemoryStore, transport::Endpoint};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let delivery = Endpoint::new("https://example.com:7443", "example.com".parse()?);
//! let services = Services { delivery, authentication: None };
//! let registration = Registration { user: "alice".into(), device: "laptop".into(), invite: None };
//! let mut alice = Client::register(Box::new(MemoryStore::new()), &services, registration).await?;
//!
//! let club = alice.create_group("The Club").await?;
//! alice.add(&club, &["mimi://example.com/u/bob".parse()?]).await?;
//! alice.send(&club, "hello Bob").await?;
//! for event in alice.sync().await? {
//!     println!("{event:?}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A [`Client`] is one device of one user. It lives in a [`profile`] (a directory with an encrypted [`store`]) or in
//! memory, and speaks with the services through [`transport`]. The state machine is `conclave-engine`'s; this crate is
//! the shell around it.

mod client;
pub mod profile;
pub mod store;
pub mod transport;

pub use client::{
    ASKING_LASTS_MS, Added, Approval, Asked, Asking, Client, ClientError, ClientEvent, GoneOn, HistoryCursor,
    HistoryEntry, HistoryItem, HistoryPage, Leaving, LinkCode, LinkCodeError, LinkRequest, Listener, Listing,
    LostGroup, Membership, MembershipChange, OpenError, PendingLink, PendingRotation, Pinned, RECOVERY_FILE_MAX,
    RecoveryError, RecoveryFile, RecoveryState, RegisterError, Registration, Rotated, Services, SuiteStock, Unable,
    Unasked, UserRecord,
};
pub use conclave_channel::law::DisputePause;
pub use conclave_engine::{
    group::{FillError, GapAsked, GapFill, GapGiven, GroupSummary, Handshakes, Member, Status},
    outcome::{Event, ProposedChange},
};
pub use conclave_mls::external_sender::Request as ExternalRequest;
