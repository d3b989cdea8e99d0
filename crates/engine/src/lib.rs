//! The client's state machine.
//!
//! The engine has no threads, clocks, files or sockets. Each call takes the time as a parameter and returns what its
//! shell has to make durable ([`writes::Write`], one transaction a call) and, of a [`group::Group`], what it has to
//! submit. The rules that keep a client from wedging:
//!
//! - The local MLS state owns the epoch; a server's word about it is a hint.
//! - Every change is an [`intent`], stored before it is sent, and finished only by what the channel shows.
//! - A received handshake is processed on a copy (or on the group, if the store has it as it is), and counts only after
//!   every check; a message that does not decrypt leaves no trace.
//! - Every incoming entry ends as one typed [`outcome::Outcome`].

// The world of the tests names this crate as others do.
#[cfg(test)]
extern crate self as conclave_engine;

pub mod account;
pub mod group;
pub mod intent;
pub mod invitation;
pub mod key_packages;
pub mod knock;
mod mls_client;
pub mod outcome;
mod pieces;
mod record;
pub mod rotation;
pub mod silence;
mod stores;
pub mod writes;

pub use mls_client::{Mls, MlsError};
