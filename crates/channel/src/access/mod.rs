//! Who may read a group's channel, decided without a roster.
//!
//! Each leaf carries a *channel key*, an Ed25519 key of this group only. A commit registers with the DS the root of
//! a hash tree over the channel keys of the epoch that it starts ([`KeyTree`]), and repeats the root in its
//! authenticated data, so that members check it. Who opens a session shows a key, its path to the root, and a
//! signature: the DS learns that somebody is a member, under a pseudonym, and stores 32 bytes an epoch.

mod key_tree;
mod range;

pub use key_tree::{ChannelKey, KeyPath, KeyTree, KeyTreeError};
pub use range::ReadRange;
