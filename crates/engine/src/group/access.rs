//! How this member shows the DS that it is one.

use std::sync::Arc;

use conclave_channel::access::{ChannelKey, KeyPath, KeyTree};
use conclave_mls::components::ChannelKeyExtension;
use conclave_names::{ChannelId, Epoch};
use ed25519_dalek::SigningKey;
use mls_rs::{
    ExtensionList,
    group::{ExportedTree, Sender, proposal::Proposal},
    identity::SigningIdentity,
    mls_rules::ProposalInfo,
};

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

/// Goes through the members of a tree, by leaf, while it is told to go on. mls-rs's roster copies each member.
pub(super) fn each_member(tree: &ExportedTree<'_>, mut each: impl FnMut(u32, &SigningIdentity, &ExtensionList) -> bool) {
    for index in 0..tree.total_leaf_count() {
        let leaf = index.try_into().ok().and_then(|leaf| tree.get_leaf(leaf).ok()).flatten();
        if leaf.is_some_and(|leaf| !each(index, &leaf.signing_identity, &leaf.extensions)) {
            return;
        }
    }
}

/// The key tree over a group's present members.
pub(super) fn key_tree(mls: &MlsGroup) -> Result<KeyTree, MlsError> {
    let mut keys = Vec::new();
    let mut missing = Ok(());
    each_member(&mls.export_tree(), |_, _, extensions| {
        missing = ChannelKeyExtension::of(extensions).map(|key| keys.push(key));
        missing.is_ok()
    });
    missing.map_err(fault)?;
    KeyTree::new(keys).map_err(fault)
}

/// The channel key in a leaf.
pub(super) fn channel_key_at(mls: &MlsGroup, index: u32) -> Result<ChannelKey, MlsError> {
    let tree = mls.export_tree();
    let leaf = tree.get_leaf(index.try_into()?)?.ok_or_else(|| fault("no such leaf"))?;
    ChannelKeyExtension::of(&leaf.extensions).map_err(fault)
}

/// The channel key in our own leaf.
pub(super) fn own_channel_key(mls: &MlsGroup) -> Result<ChannelKey, MlsError> {
    channel_key_at(mls, mls.current_member_index())
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
        let path = self.key_tree()?.path(&public).map_err(fault)?;
        Ok(Access { channel: self.profile.channel, epoch: self.epoch(), key: key.clone(), path })
    }

    /// The key tree of the present epoch.
    pub(super) fn key_tree(&self) -> Result<&Arc<KeyTree>, MlsError> {
        if let Some(known) = self.keys.get() {
            return Ok(known);
        }
        let tree = Arc::new(key_tree(&self.mls)?);
        Ok(self.keys.get_or_init(|| tree))
    }

    /// The key tree of the epoch that a commit leads to, made of the present one by what the commit changes.
    pub(super) fn key_tree_after(
        &self,
        next: &MlsGroup,
        committer: u32,
        applied: &[ProposalInfo<Proposal>],
    ) -> Result<KeyTree, MlsError> {
        let mut removed = vec![channel_key_at(&self.mls, committer)?];
        let mut added = vec![channel_key_at(next, committer)?];
        for info in applied {
            match (&info.proposal, info.sender()) {
                (Proposal::Add(add), _) => {
                    added.push(ChannelKeyExtension::of(&add.leaf_node_extensions()).map_err(fault)?);
                }
                (Proposal::Remove(remove), _) => removed.push(channel_key_at(&self.mls, remove.to_remove())?),
                (Proposal::Update(_), Sender::Member(index)) => {
                    removed.push(channel_key_at(&self.mls, *index)?);
                    added.push(channel_key_at(next, *index)?);
                }
                _ => {}
            }
        }
        self.key_tree()?.changed(&removed, &added).map_err(fault)
    }

    /// How many members stand before us, up to so many.
    pub(super) fn rank(&self, most: u64) -> u64 {
        let own = self.mls.current_member_index();
        let mut before = 0;
        each_member(&self.mls.export_tree(), |index, _, _| {
            let counts = index < own && before < most;
            before += u64::from(counts);
            counts
        });
        before
    }

    /// How many members there are.
    pub(super) fn member_count(&self) -> u32 {
        let mut count = 0;
        each_member(&self.mls.export_tree(), |_, _, _| {
            count += 1;
            true
        });
        count
    }
}
