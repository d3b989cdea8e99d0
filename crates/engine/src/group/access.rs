//! How this member shows the DS that it is one.

use std::sync::Arc;

use conclave_channel::access::{ChannelKey, KeyPath, KeyTree};
use conclave_mls::components::ChannelKeyExtension;
use conclave_names::{ChannelId, ClientUri, Epoch};
use ed25519_dalek::SigningKey;
use mls_rs::{ExtensionList, group::ExportedTree, identity::SigningIdentity};

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
pub(super) fn each_member(
    tree: &ExportedTree<'_>,
    mut each: impl FnMut(u32, &SigningIdentity, &ExtensionList) -> bool,
) {
    for index in 0..tree.total_leaf_count() {
        let leaf = index.try_into().ok().and_then(|leaf| tree.get_leaf(leaf).ok()).flatten();
        if leaf.is_some_and(|leaf| !each(index, &leaf.signing_identity, &leaf.extensions)) {
            return;
        }
    }
}

/// The channel keys of an epoch.
pub(super) struct Keys {
    pub(super) tree: KeyTree,
    /// By leaf; none at blank ones.
    by_leaf: Vec<Option<ChannelKey>>,
}

/// The channel keys in a tree, by leaf.
fn keys_by_leaf(mls: &MlsGroup) -> Result<Vec<Option<ChannelKey>>, MlsError> {
    let tree = mls.export_tree();
    let mut keys = vec![None; tree.total_leaf_count() as usize];
    let mut missing = Ok(());
    each_member(&tree, |index, _, extensions| {
        missing = ChannelKeyExtension::of(extensions).map(|key| {
            keys.get_mut(index as usize).into_iter().for_each(|place| *place = Some(key));
        });
        missing.is_ok()
    });
    missing.map_err(fault)?;
    Ok(keys)
}

impl Keys {
    pub(super) fn of(mls: &MlsGroup) -> Result<Self, MlsError> {
        let by_leaf = keys_by_leaf(mls)?;
        Ok(Self { tree: KeyTree::new(by_leaf.iter().flatten().copied()).map_err(fault)?, by_leaf })
    }

    /// Those of the group after a commit. Every leaf is looked at; hashes are made of what changed only.
    pub(super) fn after(&self, next: &MlsGroup) -> Result<Self, MlsError> {
        let by_leaf = keys_by_leaf(next)?;
        let (mut removed, mut added) = (Vec::new(), Vec::new());
        for index in 0..by_leaf.len().max(self.by_leaf.len()) {
            let (before, now) = (self.by_leaf.get(index).copied().flatten(), by_leaf.get(index).copied().flatten());
            if before != now {
                removed.extend(before);
                added.extend(now);
            }
        }
        Ok(Self { tree: self.tree.changed(&removed, &added).map_err(fault)?, by_leaf })
    }

    /// The leaf with a key.
    fn leaf_with(&self, key: &ChannelKey) -> Option<u32> {
        let index = self.by_leaf.iter().position(|of| of.as_ref() == Some(key))?;
        index.try_into().ok()
    }

    /// The key in a leaf.
    pub(super) fn at(&self, index: u32) -> Option<ChannelKey> {
        self.by_leaf.get(index as usize).copied().flatten()
    }
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
        let key = self.secret_of(&public)?;
        let path = self.keys()?.tree.path(&public).map_err(fault)?;
        Ok(Access { channel: self.profile.channel, epoch: self.epoch(), key: key.clone(), path })
    }

    /// The key tree of the present epoch or one whose state was kept, and our channel key in it.
    pub(super) fn keys_of(&self, epoch: Epoch) -> Result<(Arc<Keys>, ChannelKey), MlsError> {
        if self.epoch() == epoch {
            return Ok((Arc::clone(self.keys()?), own_channel_key(&self.mls)?));
        }
        let parent = self.parents.iter().find(|parent| parent.at == epoch && !parent.astray);
        let parent = parent.ok_or_else(|| fault("the epoch's state was not kept"))?;
        let (_, mls) = self.open_apart(parent)?;
        Ok((Arc::new(Keys::of(&mls)?), own_channel_key(&mls)?))
    }

    /// The private part of a channel key of ours.
    pub(super) fn secret_of(&self, key: &ChannelKey) -> Result<&SigningKey, MlsError> {
        let found = self.channel_keys.iter().find(|own| own.verifying_key().to_bytes() == key.0);
        found.ok_or_else(|| fault("the channel key of our leaf is not in the profile"))
    }

    /// What opens a session by our leaf of the newest epoch before another whose state is kept: for when the present epoch was
    /// annulled, which we have yet to read. It may be back to any of them, and a key reads up to the next removal only: so the
    /// newest that the DS takes is the one to read with. None if there is no earlier one.
    ///
    /// # Errors
    /// [`MlsError`] if we were no member then.
    pub fn access_before(&self, epoch: Epoch) -> Result<Option<Access>, MlsError> {
        // Who could not follow into an epoch has no key of it, but of the one in which it was left, if it came back since.
        let own = self.parents.iter().filter(|parent| !parent.astray && parent.at >= parent.joined);
        let mut own: Vec<_> = own.map(|parent| parent.at).filter(|at| *at < epoch).collect();
        own.sort_unstable();
        for epoch in own.into_iter().rev() {
            let (keys, public) = self.keys_of(epoch)?;
            // Who came past entries that are gone has forgotten keys before.
            let Ok(key) = self.secret_of(&public) else { continue };
            let path = keys.tree.path(&public).map_err(fault)?;
            return Ok(Some(Access { channel: self.profile.channel, epoch, key: key.clone(), path }));
        }
        Ok(None)
    }

    /// What opens sessions by our leaf in all epochs whose state is kept, the oldest first and the present one last. Each reads from where the
    /// committer of its epoch stood to the next removal: what [`Group::audit`] is given is best read by the oldest that does.
    ///
    /// # Errors
    /// [`MlsError`] if we were no member then.
    pub fn accesses(&self) -> Result<Vec<Access>, MlsError> {
        let mut accesses = vec![self.access()?];
        while let Some(earlier) = self.access_before(accesses.last().map_or(Epoch(0), |access| access.epoch))? {
            accesses.push(earlier);
        }
        accesses.reverse();
        Ok(accesses)
    }

    /// The channel keys of the present epoch.
    pub(super) fn keys(&self) -> Result<&Arc<Keys>, MlsError> {
        if let Some(known) = self.keys.get() {
            return Ok(known);
        }
        let keys = Arc::new(Keys::of(&self.mls)?);
        Ok(self.keys.get_or_init(|| keys))
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

    /// The leaf with a channel key.
    pub(super) fn leaf_with(&self, key: &ChannelKey) -> Option<u32> {
        self.keys().ok()?.leaf_with(key)
    }

    /// The member with a channel key.
    pub(super) fn member_with(&self, key: &ChannelKey) -> Option<ClientUri> {
        self.client_at(self.leaf_with(key)?).ok()
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
