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
