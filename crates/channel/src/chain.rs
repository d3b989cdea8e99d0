//! The running hash of a channel.
//!
//! h₀ = SHA-256("conclave/v1/chain/start" 0x00 ‖ channel id), and
//! hᵢ = SHA-256("conclave/v1/chain/next" 0x00 ‖ hᵢ₋₁ ‖ u64(seq) ‖ u8(kind) ‖ u64(time) ‖ SHA-256(entry)), integers
//! big-endian, the entry's bytes as they were submitted. Two readers with the same hash at the same place were shown
//! the same entries, in the same order, with the same times.

use conclave_names::{ChannelId, Hash, Seq, Timestamp};
use sha2::{Digest, Sha256};

use crate::EntryKind;

/// The hash before the first entry.
#[must_use]
pub fn start(channel: &ChannelId) -> Hash {
    hash(&[b"conclave/v1/chain/start\0", channel.as_bytes()])
}

/// The hash of an entry's bytes.
#[must_use]
pub fn entry_hash(entry: &[u8]) -> Hash {
    hash(&[entry])
}

/// The hash with one more entry.
#[must_use]
pub fn next(previous: &Hash, seq: Seq, kind: EntryKind, time: Timestamp, entry: &Hash) -> Hash {
    hash(&[
        b"conclave/v1/chain/next\0",
        previous.as_bytes(),
        &seq.0.to_be_bytes(),
        &[kind.code()],
        &time.0.to_be_bytes(),
        entry.as_bytes(),
    ])
}

pub(crate) fn hash(parts: &[&[u8]]) -> Hash {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    Hash::new(hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of docs/protocol.md.
    #[test]
    fn vectors() {
        let channel = ChannelId::new([0x11; 16]);
        let h0 = start(&channel);
        let entry = entry_hash(b"entry one");
        let h1 = next(&h0, Seq(1), EntryKind::Message, Timestamp(1_700_000_000_000), &entry);
        let h2 = next(&h1, Seq(2), EntryKind::Commit, Timestamp(1_700_000_000_001), &entry_hash(b"entry two"));
        assert_eq!(h0.to_string(), VECTORS[0]);
        assert_eq!(h1.to_string(), VECTORS[1]);
        assert_eq!(h2.to_string(), VECTORS[2]);
    }

    /// Computed apart from this code, with Python's hashlib (docs/protocol.md has the lines).
    const VECTORS: [&str; 3] = [
        "9310a730f8740d56ec096a4c85ae1747ae9b440a86a297e05215a596552baf22",
        "f5693865778825b5646767597ebca1cc04607ddc0b09e28aad26da8511a6c592",
        "f82a23f77817100e4f5f0082ec23b924c5c9cf5e0bfbfbf9d0c9de305a4d4db7",
    ];

    #[test]
    fn everything_counts() {
        let h0 = start(&ChannelId::new([1; 16]));
        let entry = entry_hash(b"x");
        let base = next(&h0, Seq(1), EntryKind::Message, Timestamp(5), &entry);
        assert_ne!(base, next(&h0, Seq(2), EntryKind::Message, Timestamp(5), &entry));
        assert_ne!(base, next(&h0, Seq(1), EntryKind::Proposal, Timestamp(5), &entry));
        assert_ne!(base, next(&h0, Seq(1), EntryKind::Message, Timestamp(6), &entry));
        assert_ne!(base, next(&h0, Seq(1), EntryKind::Message, Timestamp(5), &entry_hash(b"y")));
        assert_ne!(base, next(&start(&ChannelId::new([2; 16])), Seq(1), EntryKind::Message, Timestamp(5), &entry));
    }
}
