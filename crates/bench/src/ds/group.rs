//! Groups with made-up members: real channel keys in a real key tree, sealed bodies of random bytes.

use conclave_channel::{
    Body, CommitHeader, Entry, EntryKind, Position,
    access::{ChannelKey, KeyTree},
    verdict::Verdict,
};
use conclave_names::{ChannelId, Epoch, Hash};
use conclave_protocol::{
    SigningKey,
    v1::{KeyPath, OpenSessionRequest, SubmitBundleRequest},
};

use super::{Failure, client::random};

/// A group of which only the channel keys exist.
pub(crate) struct Group {
    pub(crate) channel: ChannelId,
    keys: Vec<SigningKey>,
    tree: KeyTree,
    /// Of the tree.
    root: Hash,
}

impl Group {
    pub(crate) fn new(members: usize) -> Result<Self, Failure> {
        let keys = (0..members).map(|_| Ok(SigningKey::from_bytes(&random()?))).collect::<Result<Vec<_>, Failure>>()?;
        let tree = KeyTree::new(keys.iter().map(public))?;
        let root = tree.root();
        Ok(Self { channel: ChannelId::new(random()?), keys, tree, root })
    }

    /// How many members it has.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn key(&self, member: usize) -> Result<&SigningKey, Failure> {
        self.keys.get(member).ok_or_else(|| "no such member".into())
    }

    /// What a member says to open a session. In epoch 0 the creator, member 0, is alone; from epoch 1 on all are there.
    pub(crate) fn open(&self, member: usize, epoch: u64) -> Result<OpenSessionRequest, Failure> {
        let key = public(self.key(member)?);
        let path = if epoch == 0 { KeyTree::new([key])?.path(&key)? } else { self.tree.path(&key)? };
        let path = KeyPath {
            index: path.index,
            leaves: path.leaves,
            siblings: path.siblings.iter().map(Hash::to_vec).collect(),
        };
        Ok(OpenSessionRequest { channel: self.channel.to_vec(), epoch, path: Some(path) })
    }

    /// Root of the key tree of the creator alone.
    pub(crate) fn first_root(&self) -> Result<Hash, Failure> {
        Ok(KeyTree::new([public(self.key(0)?)])?.root())
    }

    /// A member's commit that ends an epoch, after which all are there, with a GroupInfo of the usual size.
    pub(crate) fn commit(
        &self,
        member: usize,
        epoch: u64,
        base: u64,
        body: Vec<u8>,
    ) -> Result<SubmitBundleRequest, Failure> {
        let header = CommitHeader {
            committer: public(self.key(member)?),
            removed: 0,
            members: self.tree.len(),
            key_root: self.root,
        };
        Ok(SubmitBundleRequest {
            idempotency_key: random::<16>()?.to_vec(),
            entry: Entry::commit(Epoch(epoch), header, Body::Inline(body)).to_bytes()?,
            base_seq: base,
            group_info: random::<1024>()?.to_vec(),
            join_key: random::<32>()?.to_vec(),
            ..Default::default()
        })
    }
}

impl Group {
    /// A member's word that it applied a commit, which ended this epoch.
    pub(crate) fn acknowledge(&self, member: usize, epoch: u64, commit: &Position) -> Result<Vec<u8>, Failure> {
        let key = self.key(member)?;
        let path = self.tree.path(&public(key))?;
        let body = random::<256>()?.to_vec();
        Ok(Verdict::sign(&self.channel, EntryKind::Ack, Epoch(epoch), commit, key, path, body).to_bytes()?)
    }
}

fn public(key: &SigningKey) -> ChannelKey {
    ChannelKey(key.verifying_key().to_bytes())
}

/// An entry with a message whose sealed body this is.
pub(crate) fn message(epoch: u64, body: Vec<u8>) -> Result<Vec<u8>, Failure> {
    Ok(Entry::new(EntryKind::Message, Epoch(epoch), Body::Inline(body)).to_bytes()?)
}
