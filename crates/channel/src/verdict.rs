//! A member's word about a commit: that it could not apply it (Nack), or that it did (Ack).
//!
//! It stands in the clear, under the member's pseudonym: its channel key, the key's path to the root of an epoch that the
//! log vouches for ([`crate::law::Ledger`]), and a signature over the channel, the commit and the body. So the DS, the members that can
//! follow the commit, those that cannot, and a third party to whom a member reports it (RFC 9750, section 7) all judge it
//! by the same bytes. Who the member is stands in the body, which is sealed.

use conclave_names::{ChannelId, Epoch, Hash, Seq};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};

use crate::{
    Body, Entry, EntryKind, Position,
    access::{ChannelKey, KeyPath},
    chain,
};

/// What somebody shows who reports a commit (RFC 9750, section 7): the commit's entry, and a member's word about it. Who it
/// was is told by the leaf that has the key; that the DS ordered the commit, by a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence<'a> {
    /// The channel.
    pub channel: ChannelId,
    /// The commit's entry as it was read.
    pub commit: &'a [u8],
    /// The verdict's entry as it was read.
    pub verdict: &'a [u8],
}

/// Why evidence proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvidenceError {
    /// One of the two is no entry, or not of the kind that it should be.
    #[error("what was shown is not a commit and a member's word about it")]
    Entry,
    /// The word is about another commit, in another channel, or was changed.
    #[error("the signature is not over this commit in this channel")]
    Signature,
    /// The key is none of the epoch's.
    #[error("the channel key is not of the epoch that the commit ended")]
    Key,
}

impl Evidence<'_> {
    /// Verifies it against the root of the key tree of the epoch that the commit ended. Gives what was said, and the
    /// channel key that said it.
    ///
    /// # Errors
    /// Any [`EvidenceError`].
    pub fn verify(&self, key_root: &Hash) -> Result<(EntryKind, ChannelKey), EvidenceError> {
        let parse = |bytes| Entry::parse(bytes).map_err(|_| EvidenceError::Entry);
        let (commit, entry) = (parse(self.commit)?, parse(self.verdict)?);
        let (Some(verdict), Body::Inline(body)) = (&entry.verdict, &entry.body) else {
            return Err(EvidenceError::Entry);
        };
        if commit.kind != EntryKind::Commit || commit.epoch != entry.epoch {
            return Err(EvidenceError::Entry);
        }
        if !verdict.is_signed(&self.channel, entry.kind, &chain::entry_hash(self.commit), body) {
            return Err(EvidenceError::Signature);
        }
        verdict.path.verify(&verdict.key, key_root).map_err(|_| EvidenceError::Key)?;
        Ok((entry.kind, verdict.key))
    }
}

/// Domain separation of the signature.
const LABEL: &[u8] = b"conclave/v1/verdict\0";

/// An Ed25519 signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
pub struct Signature(pub [u8; 64]);

/// Whose word, and about which commit.
#[derive(Debug, Clone, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
pub struct Verdict {
    /// Place of the commit.
    pub commit: Seq,
    /// The member's channel key.
    pub key: ChannelKey,
    /// From the key to the root of the epoch that the commit ended (in an Ack, the newest settled one: the same).
    pub path: KeyPath,
    /// By the key, over everything that this is about.
    pub signature: Signature,
}

fn to_be_signed(channel: &ChannelId, kind: EntryKind, commit: &Position, body: &[u8]) -> Vec<u8> {
    let mut bytes = LABEL.to_vec();
    bytes.extend_from_slice(channel.as_bytes());
    bytes.push(kind.code());
    bytes.extend_from_slice(&commit.seq.0.to_be_bytes());
    bytes.extend_from_slice(commit.hash.as_bytes());
    bytes.extend_from_slice(chain::entry_hash(body).as_bytes());
    bytes
}

impl Verdict {
    /// Signs a verdict about a commit: the place of its entry, and the hash of the entry's bytes
    /// ([`chain::entry_hash`]). `epoch` is the one that the commit ended. Kinds that are no verdicts give an entry that
    /// does not encode.
    #[must_use]
    pub fn sign(
        channel: &ChannelId,
        kind: EntryKind,
        epoch: Epoch,
        commit: &Position,
        key: &SigningKey,
        path: KeyPath,
        body: Vec<u8>,
    ) -> Entry {
        let signature = key.sign(&to_be_signed(channel, kind, commit, &body));
        let verdict = Self {
            commit: commit.seq,
            key: ChannelKey(key.verifying_key().to_bytes()),
            path,
            signature: Signature(signature.to_bytes()),
        };
        Entry { kind, epoch, commit: None, verdict: Some(Box::new(verdict)), body: Body::Inline(body) }
    }

    /// Whether the key signed this about the entry with this hash. The path is not looked at.
    #[must_use]
    pub fn is_signed(&self, channel: &ChannelId, kind: EntryKind, commit: &Hash, body: &[u8]) -> bool {
        let about = Position { seq: self.commit, hash: *commit };
        VerifyingKey::from_bytes(&self.key.0).is_ok_and(|key| {
            let signature = ed25519_dalek::Signature::from_bytes(&self.signature.0);
            key.verify_strict(&to_be_signed(channel, kind, &about, body), &signature).is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CommitHeader, access::KeyTree};

    #[test]
    fn a_third_party_verifies_what_a_member_said_of_a_commit_and_nothing_else() {
        let channel = ChannelId::new([1; 16]);
        let signer = SigningKey::from_bytes(&[2; 32]);
        let key = ChannelKey(signer.verifying_key().to_bytes());
        let tree = KeyTree::new([key, ChannelKey([9; 32])]).unwrap();
        let header = CommitHeader { committer: ChannelKey([9; 32]), removed: 0, members: 2, key_root: tree.root() };
        let commit = |text: u8| Entry::commit(Epoch(4), header, Body::Inline(vec![text])).to_bytes().unwrap();
        let (commit, other) = (commit(1), commit(2));
        let about = Position { seq: Seq(7), hash: chain::entry_hash(&commit) };
        let path = tree.path(&key).unwrap();
        let nack = Verdict::sign(&channel, EntryKind::Nack, Epoch(4), &about, &signer, path, vec![3]);
        let nack = nack.to_bytes().unwrap();
        let evidence = Evidence { channel, commit: &commit, verdict: &nack };
        assert_eq!(evidence.verify(&tree.root()), Ok((EntryKind::Nack, key)));
        let refused = |evidence: Evidence<'_>| evidence.verify(&tree.root()).unwrap_err();
        assert_eq!(refused(Evidence { commit: &other, ..evidence }), EvidenceError::Signature);
        assert_eq!(refused(Evidence { channel: ChannelId::new([2; 16]), ..evidence }), EvidenceError::Signature);
        assert_eq!(refused(Evidence { commit: &nack, ..evidence }), EvidenceError::Entry);
        assert_eq!(refused(Evidence { verdict: &commit, ..evidence }), EvidenceError::Entry);
        assert_eq!(evidence.verify(&Hash::new([0; 32])), Err(EvidenceError::Key));
    }
}
