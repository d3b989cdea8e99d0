//! Groups whose handshakes are visible: the server follows them, and orders nothing that MLS or the policy refuses (RFC
//! 9750, sections 5.2.1 and 6.4).
//!
//! A followed group is a function of its handshakes: [`Follower`] begins it, restores it, and judges what comes next.
//! Nothing here reads a store. The service keeps a *checkpoint* (the whole public state) at creation and every
//! [`CHECKPOINT_COMMITS`] commits, and each handshake since; what is in memory ([`Cache`]) is found by the hash over
//! all handshakes that led to it ([`Tip`]), so that a transaction that was undone, or a commit that was annulled, leaves
//! nothing behind that could be taken for the group.
//!
//! The server sees no secrets: it cannot tell whether a path secret opens or a confirmation tag is right. That remains
//! for members to dispute (`conclave_channel::law`).

mod cache;
mod follower;
mod judge;
mod refused;
mod trust;

pub(crate) use cache::Cache;
pub(crate) use follower::{Followed, Follower, Handshake, Source, Tip};
pub(crate) use judge::is_outside;

/// Commits after which the whole state is stored again.
pub(crate) const CHECKPOINT_COMMITS: u32 = 64;

/// Bytes of handshakes after which the whole state is stored again, if it is not larger than that.
pub(crate) const CHECKPOINT_BYTES: usize = 1024 * 1024;
