//! The leaf extension with a member's channel key.

use conclave_channel::access::{ChannelKey, KeyTree, KeyTreeError};
use conclave_names::code_points;
use mls_rs::{
    ExtensionList,
    extension::{ExtensionType, MlsCodecExtension},
};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};

/// The extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
pub struct ChannelKeyExtension(pub ChannelKey);

impl MlsCodecExtension for ChannelKeyExtension {
    fn extension_type() -> ExtensionType {
        ExtensionType::new(code_points::EXTENSION_CHANNEL_KEY)
    }
}

/// Why a set of leaves has no key tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RosterKeysError {
    /// A leaf has no channel key, or one that does not decode.
    #[error("a leaf has no valid channel key")]
    Missing,
    /// The keys make no tree.
    #[error(transparent)]
    Tree(#[from] KeyTreeError),
}

impl ChannelKeyExtension {
    /// Reads it from a leaf's extensions.
    pub fn of(extensions: &ExtensionList) -> Result<ChannelKey, RosterKeysError> {
        match extensions.get_as::<Self>() {
            Ok(Some(Self(key))) => Ok(key),
            _ => Err(RosterKeysError::Missing),
        }
    }
}

/// The key tree over leaves with these extensions.
pub fn roster_keys<'a>(leaves: impl IntoIterator<Item = &'a ExtensionList>) -> Result<KeyTree, RosterKeysError> {
    let keys = leaves.into_iter().map(ChannelKeyExtension::of).collect::<Result<Vec<_>, _>>()?;
    Ok(KeyTree::new(keys)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(key: u8) -> ExtensionList {
        let mut list = ExtensionList::new();
        list.set_from(ChannelKeyExtension(ChannelKey([key; 32]))).unwrap();
        list
    }

    #[test]
    fn a_leaf_without_a_key_or_with_anothers_makes_no_tree() {
        assert!(roster_keys([&leaf(1), &leaf(2)]).is_ok());
        assert_eq!(roster_keys([&leaf(1), &ExtensionList::new()]), Err(RosterKeysError::Missing));
        assert_eq!(roster_keys([&leaf(1), &leaf(1)]), Err(KeyTreeError::Duplicate.into()));
        let mut short = ExtensionList::new();
        short.set(mls_rs::Extension::new(ExtensionType::new(code_points::EXTENSION_CHANNEL_KEY), vec![1; 31]));
        assert_eq!(roster_keys([&short]), Err(RosterKeysError::Missing));
    }
}
