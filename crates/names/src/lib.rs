//! The small types that every part of Conclave speaks of.
//!
//! Names are MIMI URIs (draft-ietf-mimi-protocol): a [`UserUri`], a [`ClientUri`] (a device of that user), a
//! [`RoomUri`] and a [`GroupUri`]. Places in a log are [`Epoch`], [`Seq`] and [`Timestamp`]. A log itself is named by
//! a [`ChannelId`]. Every number that a draft or this project assigned stands in [`code_points`], every bound that
//! clients and servers share in [`limits`].
//!
//! ```
//! use conclave_names::{ClientUri, UserUri};
//!
//! let client: ClientUri = "mimi://example.com/d/alice/laptop".parse()?;
//! assert_eq!(client.user().to_string(), "mimi://example.com/u/alice");
//! assert!("mimi://example.com/u/../root".parse::<UserUri>().is_err());
//! # Ok::<(), conclave_names::NameError>(())
//! ```

pub mod code_points;
mod hex_id;
pub mod limits;
mod numbers;
mod uri;

pub use hex_id::{ChannelId, Hash, IdempotencyKey, InvalidHex, SessionId, StreamHandle};
pub use numbers::{Epoch, Seq, Timestamp};
pub use uri::{ClientUri, Domain, GroupUri, NameError, RoomUri, UserUri};
