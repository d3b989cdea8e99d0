//! The Delivery Service of RFC 9750, section 5: a directory of KeyPackages, and channels that give every entry one place.
//!
//! [`DeliveryService`] is the service without network and without disk: each call gets a transaction on a [`store`],
//! the request exactly as it came, and the time. Calls that only read take a [`store::Read`], others a [`store::Tx`]
//! and answer with [`Done`], which says what to wake once the transaction is durable. A refusal is a
//! `conclave_protocol::Refusal`; its transaction must be undone.
//!
//! A store runs one writing transaction at a time. What needs none of it can be done before, by
//! [`DeliveryService::authenticate`]; calls take its result in place of the request.
//!
//! Sessions live in memory: a restart forgets them, and clients open new ones. A call must not be run twice for one
//! request (the session's counter would be found used); a transaction that was undone is answered with an error.
//!
//! ```
//! use conclave_delivery::{Config, DeliveryService, memory::MemoryStore};
//! use conclave_mls::identity::Identities;
//! use conclave_names::Timestamp;
//!
//! let service = DeliveryService::new("example.com".parse()?, Identities::default(), Config::default())?;
//! let mut store = MemoryStore::new();
//! let now = Timestamp(1_700_000_000_000);
//! store.write(|tx| service.maintain(tx, now))?;
//! let info = store.read(|read| service.get_server_info(read, now))?;
//! assert_eq!(info.domain, "example.com");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod keyed;
pub mod limits;
pub mod memory;
mod retention;
mod service;
mod session;
pub mod store;
mod visible;

pub use retention::Retention;
pub use service::{
    Attached, Authenticated, Batch, BlobPart, Config, DeliveryService, Detached, Done, FollowedGroup, Found, Incoming,
    Request, StreamEnd, Subscription,
};
pub use session::Origin;
