//! The service through its public calls, on a store in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod access;
mod authenticated;
mod blobs;
mod bundles;
mod capabilities;
mod channels;
mod directory;
mod inboxes;
mod join_key;
mod key_packages;
mod knocks;
mod limits;
mod random;
mod retention;
mod verdicts;
mod world;
