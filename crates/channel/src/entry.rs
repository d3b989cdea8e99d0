//! What a channel is made of.

use conclave_names::{Epoch, Hash, limits};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};

use crate::{access::ChannelKey, verdict::Verdict};

/// Version of the encoding that this code writes and reads.
const VERSION: u8 = 1;

/// Longest encoded entry: an inline body and what stands around it (of a verdict, a path in a tree of all members).
pub(crate) const ENTRY_MAX: usize = limits::INLINE_BODY + 1024;

/// Most members, which no tree has more of.
#[allow(clippy::cast_possible_truncation)]
const MEMBERS: u32 = limits::MEMBERS as u32;

/// Why bytes are no entry, or an entry cannot be encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// They do not follow the encoding, or go on after its end.
    #[error("the entry does not decode")]
    Malformed,
    /// The version is not ours.
    #[error("the entry is of version {0}; this program reads version 1: upgrade it")]
    Version(u8),
    /// The kind is unknown, or what stands in the clear does not belong to it.
    #[error("the entry is of a kind that this program does not know, or not of the form of its kind")]
    Kind,
    /// The body is over its bound.
    #[error(
        "the entry's body is too long: up to {} bytes it is inline, and a staged one has the bound of its kind",
        limits::INLINE_BODY
    )]
    TooLarge,
}

impl From<mls_rs_codec::Error> for EntryError {
    fn from(_: mls_rs_codec::Error) -> Self {
        Self::Malformed
    }
}

/// What an entry is for. Epoch and kind are all by which the DS orders (RFC 9750, section 5.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// An application message.
    Message = 1,
    /// A Commit: it ends the entry's epoch.
    Commit = 2,
    /// A Proposal by itself.
    Proposal = 3,
    /// A Welcome; in inboxes only.
    Welcome = 4,
    /// A member's word that it could not apply a commit ([`crate::law`]).
    Nack = 5,
    /// A member's word that it applied a commit.
    Ack = 6,
    /// A client's request to be let back into a group; in inboxes only.
    Knock = 7,
    /// What members need to go on in the successor of a group that was frozen by a ReInit.
    Successor = 8,
}

impl EntryKind {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// From the number on the wire.
    pub const fn from_code(code: u8) -> Result<Self, EntryError> {
        Ok(match code {
            1 => Self::Message,
            2 => Self::Commit,
            3 => Self::Proposal,
            4 => Self::Welcome,
            5 => Self::Nack,
            6 => Self::Ack,
            7 => Self::Knock,
            8 => Self::Successor,
            _ => return Err(EntryError::Kind),
        })
    }

    /// Longest staged body of an entry of this kind, in bytes, in a group of so many members. Readers hold it in memory:
    /// so only what grows with the group may be long. 0: none may be staged.
    #[must_use]
    pub fn body_max(self, members: u32) -> u64 {
        let each = |bytes: u64| u64::from(members).saturating_mul(bytes);
        match self {
            Self::Message => limits::STAGED_BODY,
            // A path secret for each member at worst, and KeyPackages of those it adds.
            Self::Commit => limits::HANDSHAKE.saturating_add(each(128)).min(limits::BLOB),
            // The group's tree.
            Self::Successor => limits::STAGED_BODY.saturating_add(each(limits::KEY_PACKAGE as u64)).min(limits::BLOB),
            Self::Proposal | Self::Welcome | Self::Nack | Self::Ack | Self::Knock => 0,
        }
    }

    /// Whether it is a member's word about a commit.
    #[must_use]
    pub const fn is_verdict(self) -> bool {
        matches!(self, Self::Nack | Self::Ack)
    }
}

/// What an entry carries: sealed bytes, or the name of a blob with them.
#[derive(Clone, PartialEq, Eq)]
pub enum Body {
    /// At most [`limits::INLINE_BODY`] bytes.
    Inline(Vec<u8>),
    /// A staged blob.
    Staged {
        /// SHA-256 of the blob.
        hash: Hash,
        /// Its length in bytes.
        size: u64,
    },
}

impl Body {
    /// Its length in bytes, here or in the blob.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Staged { size, .. } => *size,
        }
    }

    /// Length of the blob in bytes; 0 if there is none.
    #[must_use]
    pub fn staged(&self) -> u64 {
        match self {
            Self::Inline(_) => 0,
            Self::Staged { size, .. } => *size,
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inline(bytes) => write!(f, "Inline({} bytes)", bytes.len()),
            Self::Staged { hash, size } => write!(f, "Staged({hash}, {size} bytes)"),
        }
    }
}

/// An entry as it is submitted, stored and read: kind and epoch in the clear, the rest sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is for.
    pub kind: EntryKind,
    /// The epoch it belongs to; a commit's is the one that it ends, a verdict's that of the commit that it is about. 0
    /// in inboxes.
    pub epoch: Epoch,
    /// What everybody must know of a commit; absent in other kinds.
    pub commit: Option<CommitHeader>,
    /// Whose word about which commit it is; absent in kinds that are no verdicts.
    pub verdict: Option<Box<Verdict>>,
    /// What it carries.
    pub body: Body,
}

/// What stands in the clear of a commit. Members compare it with what the sealed commit says and does, so that a
/// committer cannot tell the DS one thing and the group another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
pub struct CommitHeader {
    /// The committer's channel key in the epoch that ends: the one by which it submits.
    pub committer: ChannelKey,
    /// How many members it removes. They read up to it and no further.
    pub removed: u32,
    /// How many members the epoch has that begins.
    pub members: u32,
    /// Root of the key tree of that epoch ([`crate::access::KeyTree`]).
    pub key_root: Hash,
}

/// The encoding (RFC 9420, section 2.1):
/// `struct { uint8 version; uint8 kind; uint64 epoch; select (kind) { case commit: opaque committer[32]; uint32 removed;
/// uint32 members; opaque key_root[32]; case nack, ack: Verdict; }; uint8 body_type; select (body_type) {
/// case 1: opaque inline<V>; case 2: opaque hash[32]; uint64 size; }; } Entry`.
#[derive(MlsSize, MlsEncode, MlsDecode)]
struct Header {
    version: u8,
    kind: u8,
    epoch: Epoch,
}

impl Entry {
    /// A message, proposal or Welcome.
    #[must_use]
    pub fn new(kind: EntryKind, epoch: Epoch, body: Body) -> Self {
        Self { kind, epoch, commit: None, verdict: None, body }
    }

    /// A commit that ends `epoch`.
    #[must_use]
    pub fn commit(epoch: Epoch, header: CommitHeader, body: Body) -> Self {
        Self { kind: EntryKind::Commit, epoch, commit: Some(header), verdict: None, body }
    }

    /// Whether it is a commit that removes members.
    #[must_use]
    pub fn removes(&self) -> bool {
        self.commit.is_some_and(|commit| commit.removed > 0)
    }

    /// Encodes it.
    ///
    /// # Errors
    /// [`EntryError::TooLarge`] for an inline body over its bound, [`EntryError::Kind`] for a commit or verdict without
    /// its header or another kind with one.
    pub fn to_bytes(&self) -> Result<Vec<u8>, EntryError> {
        self.check()?;
        let header = Header { version: VERSION, kind: self.kind.code(), epoch: self.epoch };
        let mut bytes = header.mls_encode_to_vec()?;
        if let Some(commit) = &self.commit {
            commit.mls_encode(&mut bytes)?;
        }
        if let Some(verdict) = &self.verdict {
            verdict.mls_encode(&mut bytes)?;
        }
        match &self.body {
            Body::Inline(body) => {
                bytes.push(1);
                mls_rs_codec::byte_vec::mls_encode(body, &mut bytes)?;
            }
            Body::Staged { hash, size } => {
                bytes.push(2);
                hash.mls_encode(&mut bytes)?;
                size.mls_encode(&mut bytes)?;
            }
        }
        Ok(bytes)
    }

    /// Decodes it; nothing may follow.
    ///
    /// # Errors
    /// Any [`EntryError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, EntryError> {
        if bytes.len() > ENTRY_MAX {
            return Err(EntryError::TooLarge);
        }
        // The version decides how the rest is read, so it is looked at first.
        match bytes.first() {
            Some(&VERSION) => {}
            Some(&other) => return Err(EntryError::Version(other)),
            None => return Err(EntryError::Malformed),
        }
        let mut rest = bytes;
        let header = Header::mls_decode(&mut rest)?;
        let kind = EntryKind::from_code(header.kind)?;
        let (mut commit, mut verdict) = (None, None);
        if kind == EntryKind::Commit {
            commit = Some(CommitHeader::mls_decode(&mut rest)?);
        } else if kind.is_verdict() {
            verdict = Some(Box::new(Verdict::mls_decode(&mut rest)?));
        }
        let body = match u8::mls_decode(&mut rest)? {
            1 => Body::Inline(mls_rs_codec::byte_vec::mls_decode(&mut rest)?),
            2 => Body::Staged { hash: Hash::mls_decode(&mut rest)?, size: u64::mls_decode(&mut rest)? },
            _ => return Err(EntryError::Malformed),
        };
        if !rest.is_empty() {
            return Err(EntryError::Malformed);
        }
        let entry = Self { kind, epoch: header.epoch, commit, verdict, body };
        entry.check()?;
        Ok(entry)
    }

    fn check(&self) -> Result<(), EntryError> {
        match &self.body {
            Body::Inline(body) if body.len() > limits::INLINE_BODY => return Err(EntryError::TooLarge),
            Body::Staged { size, .. } if *size > self.kind.body_max(MEMBERS) => {
                return Err(if self.kind.body_max(MEMBERS) == 0 { EntryError::Kind } else { EntryError::TooLarge });
            }
            _ => {}
        }
        if self.commit.is_some() != (self.kind == EntryKind::Commit) || self.verdict.is_some() != self.kind.is_verdict()
        {
            return Err(EntryError::Kind);
        }
        let staged = matches!(self.body, Body::Staged { .. });
        match &self.verdict {
            // What is signed must stand here; and no tree has a longer path.
            Some(verdict) if staged || verdict.path.siblings.len() as u64 > u64::from(limits::MEMBERS.ilog2()) => {
                return Err(EntryError::Kind);
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use conclave_names::Seq;
    use proptest::prelude::*;

    use super::*;
    use crate::{access::KeyPath, verdict::Signature};

    fn any_entry() -> impl Strategy<Value = Entry> {
        let body = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..2000).prop_map(Body::Inline),
            (any::<[u8; 32]>(), 0..=limits::STAGED_BODY)
                .prop_map(|(hash, size)| Body::Staged { hash: Hash::new(hash), size }),
        ];
        (1..=6u8, any::<u64>(), any::<u32>(), body).prop_map(|(kind, epoch, removed, body)| {
            let kind = EntryKind::from_code(kind).unwrap();
            let hash = Hash::new([epoch.to_be_bytes()[7]; 32]);
            let committer = ChannelKey([3; 32]);
            let header = CommitHeader { committer, removed, members: removed / 2, key_root: hash };
            let path = KeyPath { index: 1, leaves: epoch, siblings: vec![hash; (removed % 21) as usize] };
            let verdict = Verdict { commit: Seq(epoch), key: committer, path, signature: Signature([7; 64]) };
            let body = match body {
                Body::Staged { .. } if kind.body_max(2) == 0 => Body::Inline(vec![]),
                body => body,
            };
            Entry {
                kind,
                epoch: Epoch(epoch),
                commit: (kind == EntryKind::Commit).then_some(header),
                verdict: kind.is_verdict().then(|| Box::new(verdict)),
                body,
            }
        })
    }

    proptest! {
        #[test]
        fn entries_round_trip(entry in any_entry()) {
            prop_assert_eq!(Entry::parse(&entry.to_bytes().unwrap()).unwrap(), entry);
        }

        #[test]
        fn what_parses_has_one_encoding(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(entry) = Entry::parse(&bytes) {
                prop_assert_eq!(entry.to_bytes().unwrap(), bytes);
            }
        }

        #[test]
        fn a_cut_or_longer_entry_is_refused(entry in any_entry(), cut in any::<prop::sample::Index>()) {
            let mut bytes = entry.to_bytes().unwrap();
            prop_assert!(Entry::parse(&bytes[..cut.index(bytes.len())]).is_err());
            bytes.push(0);
            prop_assert!(Entry::parse(&bytes).is_err());
        }
    }

    #[test]
    fn each_fault_is_named() {
        let good = Entry::new(EntryKind::Message, Epoch(1), Body::Inline(vec![1])).to_bytes().unwrap();
        let with = |index: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[index] = value;
            Entry::parse(&bytes).unwrap_err()
        };
        assert_eq!(with(0, 2), EntryError::Version(2));
        assert_eq!(with(1, 9), EntryError::Kind);
        assert_eq!(with(1, 0), EntryError::Kind);
        assert_eq!(with(10, 3), EntryError::Malformed);
        assert_eq!(Entry::parse(&vec![1; ENTRY_MAX + 1]).unwrap_err(), EntryError::TooLarge);
        let bare = Entry::new(EntryKind::Commit, Epoch(1), Body::Inline(vec![1]));
        assert_eq!(bare.to_bytes().unwrap_err(), EntryError::Kind, "a commit names its key root");
        let long = Entry::new(EntryKind::Message, Epoch(1), Body::Inline(vec![0; limits::INLINE_BODY + 1]));
        assert_eq!(long.to_bytes().unwrap_err(), EntryError::TooLarge);
    }
}
