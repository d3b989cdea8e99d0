//! What is sealed for members that come back.

use conclave_channel::{Position, law::Ledger};
use conclave_mls::seal::{SealError, Seed};
use conclave_names::{Epoch, Hash};
use ed25519_dalek::SigningKey;
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};
use zeroize::{Zeroize, Zeroizing};

use super::access::fault;
use crate::mls_client::MlsError;

/// The plaintext of a sealed GroupInfo.
#[derive(MlsSize, MlsEncode, MlsDecode)]
pub(super) struct SealedGroupInfo {
    version: u8,
    /// Secret half of the epoch's join key.
    join_key: [u8; 32],
    /// Since when the tree key is in force, and the key.
    pub(super) tree_key_epoch: Epoch,
    tree_key: [u8; 32],
    /// Name of the tree.
    pub(super) tree: Hash,
    /// Where the committer stood, just before its commit.
    pub(super) position: Position,
    /// Which commits stood there.
    pub(super) ledger: Ledger,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    pub(super) group_info: Vec<u8>,
}

impl Drop for SealedGroupInfo {
    fn drop(&mut self) {
        self.join_key.zeroize();
        self.tree_key.zeroize();
    }
}

impl SealedGroupInfo {
    pub(super) fn new(
        join_key: &SigningKey,
        (tree_key_epoch, tree_key): (Epoch, &Seed),
        tree: Hash,
        (position, ledger): (Position, Ledger),
        group_info: Vec<u8>,
    ) -> Self {
        let (join_key, tree_key) = (join_key.to_bytes(), *tree_key.expose());
        Self { version: 1, join_key, tree_key_epoch, tree_key, tree, position, ledger, group_info }
    }

    pub(super) fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, MlsError> {
        Ok(Zeroizing::new(self.mls_encode_to_vec().map_err(fault)?))
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, MlsError> {
        let mut rest = bytes;
        let info = Self::mls_decode(&mut rest).map_err(fault)?;
        if !rest.is_empty() || info.version != 1 {
            return Err(fault("it is of another version, or something follows it"));
        }
        Ok(info)
    }

    pub(super) fn join_key(&self) -> &[u8; 32] {
        &self.join_key
    }

    pub(super) fn tree_key(&self) -> Result<Seed, SealError> {
        Seed::from_slice(&self.tree_key)
    }
}
