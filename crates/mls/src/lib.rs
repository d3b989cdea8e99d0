//! Conclave's profile of MLS (RFC 9420): what the protocol leaves open, decided once for clients, servers and auditors.
//!
//! - [`credential`]: X.509 leaf certificates, the identity key's binding, and the one validator.
//! - [`crypto`]: cipher suites and their provider.
//! - [`components`]: `app_data_dictionary`, the group's profile, channel keys, SafeAAD (draft-ietf-mls-extensions).
//! - [`capabilities`]: what leaves are capable of and groups require, compared.
//! - [`content`] and [`frame`]: what a message says (draft-ietf-mimi-content) and what is said along with it.
//! - [`seal`]: the group seed and what is sealed under it. [`welcome`]: Welcomes taken apart for delivery.
//! - [`proposal`]: a proposal judged by itself, as a server must. [`external_sender`]: proposals of who is no member.
//! - [`rejoin`]: the one kind of external commit that groups admit. [`knock`]: what a client that finds no way back asks a member.
//! - [`address`]: sealed delivery addresses. [`rules`] and [`identity`]: what mls-rs asks of an application.
//!
//! No module does I/O, and none reads a clock.

pub mod address;
pub mod capabilities;
pub mod components;
pub mod content;
pub mod credential;
pub mod crypto;
pub mod external_sender;
pub mod frame;
pub mod gap;
pub mod identity;
pub mod knock;
pub mod proposal;
pub mod rejoin;
pub mod rules;
pub mod seal;
pub mod signing;
pub mod tree_chunks;
mod validated;
pub mod welcome;
