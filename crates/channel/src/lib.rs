//! The channel and its laws, shared by client, Delivery Service and simulator.
//!
//! A channel is an append-only log. Its entries ([`Entry`]) have sequence numbers and times given by the DS, and a
//! running hash ([`chain`]) over all of that, by which members notice a DS that drops, reorders or replays
//! (RFC 9750, sections 5.2 and 8.4.2). Who may read a group's channel is decided without a roster: each epoch has
//! the root of a tree over its members' channel keys ([`access`]). Which entry may follow which is [`law`].
//!
//! ```
//! use conclave_channel::{Body, Entry, EntryKind, chain};
//! use conclave_names::{ChannelId, Epoch, Seq, Timestamp};
//!
//! let entry = Entry::new(EntryKind::Message, Epoch(3), Body::Inline(vec![1, 2, 3]));
//! let bytes = entry.to_bytes()?;
//! assert_eq!(Entry::parse(&bytes)?, entry);
//!
//! let start = chain::start(&ChannelId::new([7; 16]));
//! let next = chain::next(&start, Seq(1), entry.kind, Timestamp(1_700_000_000_000), &chain::entry_hash(&bytes));
//! assert_ne!(start, next);
//! # Ok::<(), conclave_channel::EntryError>(())
//! ```

pub mod access;
pub mod chain;
mod entry;
pub mod law;
pub mod receipt;
pub mod size_class;
pub mod verdict;
mod window;

pub use entry::{Body, CommitHeader, Entry, EntryError, EntryKind};
pub use window::{Claim, HashWindow, LogFault, Position};
