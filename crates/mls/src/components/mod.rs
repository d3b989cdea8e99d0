//! Application data in MLS structures (draft-ietf-mls-extensions).

mod channel_key;
mod dictionary;
mod epoch_tag;
mod group_profile;
mod safe_aad;

pub use channel_key::{ChannelKeyExtension, RosterKeysError, roster_keys};
pub use dictionary::{AppDataDictionary, ComponentsList, DictionaryError};
pub use epoch_tag::EpochTag;
pub use group_profile::{GroupProfile, HandshakeMode, ProfileError};
pub use safe_aad::{CommitAad, HandshakeAad, SafeAad, SafeAadError};
