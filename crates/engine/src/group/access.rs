//! How this member shows the DS that it is one.

use conclave_channel::access::{ChannelKey, KeyPath, KeyTree};
use conclave_mls::components::{ChannelKeyExtension, roster_keys};
use conclave_names::{ChannelId, Epoch};
use ed25519_dalek::SigningKey;

use super::Group;
use crate::mls_client::{MlsError, MlsGroup};

/// What opens a session on the group's channel.
#[derive(Clone)]
pub struct Access {
    /// The channel.
    pub channel: ChannelId,
    /// The epoch whose key tree the path leads to.
    pub epoch: Epoch,
    /// The key that signs.
    pub key: SigningKey,
    /// From the key to the root.
    pub path: KeyPath,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

pub(crate) fn fault(error: impl std::fmt::Display) -> MlsError {
    MlsError(error.to_string())
}

/// The key tree over a group's present members.
pub(super) fn key_tree(mls: &MlsGroup) -> Result<KeyTree, MlsError> {
    let leaves: Vec<_> = mls.roster().members_iter().map(|member| member.extensions).collect();
    roster_keys(&leaves).map_err(fault)
}

/// The channel key in our own leaf.
pub(super) fn own_channel_key(mls: &MlsGroup) -> Result<ChannelKey, MlsError> {
    let member = mls.member_at_index(mls.current_member_index()).ok_or_else(|| fault("we are no member"))?;
    ChannelKeyExtension::of(&member.extensions).map_err(fault)
}

impl Group {
    /// What opens a session on the group's channel, by our leaf of the present epoch.
    ///
    /// # Errors
    /// [`MlsError`] if we are no member any more.
    pub fn access(&self) -> Result<Access, MlsError> {
        let public = own_channel_key(&self.mls)?;
        let key = self
            .channel_keys
            .iter()
            .find(|key| key.verifying_key().to_bytes() == public.0)
            .ok_or_else(|| fault("the channel key of our leaf is not in the profile"))?;
        let path = key_tree(&self.mls)?.path(&public).map_err(fault)?;
        Ok(Access { channel: self.profile.channel, epoch: self.epoch(), key: key.clone(), path })
    }
}
