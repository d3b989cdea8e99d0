//! Blobs that entries and epochs name.

use conclave_names::{Hash, Timestamp, limits};
use conclave_protocol::{Code, Refusal};
use sha2::{
    Digest, Sha256,
    digest::common::hazmat::{SerializableState, SerializedState},
};

use super::request::too_large;
use crate::store::{BlobRow, KeyedHash, Read, StoreError, Tx};

/// How long a blob stays that nothing names, in milliseconds: a day.
pub(super) const UNNAMED_MS: u64 = 24 * 3600 * 1000;

/// Longest blob that stays for those who were invited, in bytes: it has 130 for each of 64 open commits, and their Nacks.
const PROMISED_BYTES: u64 = 256 * 1024;

/// The answer where a blob is wanted that is not there.
pub(super) fn unknown() -> Refusal {
    Refusal::new(Code::BlobUnknown, "there is no such blob, or it is not whole: stage all of it first")
}

/// Notes that something names a blob, which must be whole (and of this size, where one is said).
pub(super) fn pin(tx: &mut dyn Tx, hash: &Hash, size: Option<u64>) -> Result<(), Refusal> {
    let row = tx.blob(hash)?.ok_or_else(unknown)?;
    if size.is_some_and(|size| size != row.size) {
        return Err(Refusal::new(Code::BlobInvalid, "the entry's blob has another size than the entry says"));
    }
    // What is named counts for the channel's retention, no longer for what it has staged.
    Ok(tx.put_blob(&BlobRow { pins: row.pins.saturating_add(1), scope: None, ..row })?)
}

/// Notes that an entry names a blob. One that is named already is refused: each entry's body is sealed anew, so it is nobody's
/// but who would have its bytes count, and be read, again and again.
pub(super) fn name(tx: &mut dyn Tx, hash: &Hash, size: u64) -> Result<(), Refusal> {
    if tx.blob(hash)?.is_some_and(|row| row.pins > 0) {
        return Err(Refusal::new(
            Code::BlobInvalid,
            "another entry or a tree has this blob already: seal the body anew",
        ));
    }
    pin(tx, hash, Some(size))
}

/// Has a blob stay until a time, whether something names it or not.
pub(super) fn keep(tx: &mut dyn Tx, hash: &Hash, until: Timestamp) -> Result<(), StoreError> {
    let Some(row) = tx.blob(hash)? else { return Ok(()) };
    tx.put_blob(&BlobRow { expires: row.expires.max(until), ..row })
}

/// Has a blob that is whole stay for those who were invited, and nothing else.
pub(super) fn promise(tx: &mut dyn Tx, hash: &Hash, now: Timestamp) -> Result<(), Refusal> {
    let row = tx.blob(hash)?.ok_or_else(unknown)?;
    if row.size > PROMISED_BYTES {
        return Err(too_large(
            "the size of the blob for joiners",
            usize::try_from(PROMISED_BYTES).unwrap_or(usize::MAX),
        ));
    }
    let expires = row.expires.max(now.plus_ms(limits::INVITATION_MS));
    // It counts no longer for what the channel has staged.
    Ok(tx.put_blob(&BlobRow { scope: None, expires, ..row })?)
}

/// Notes that something no longer names a blob. It stays for a day, for those who are reading it, or as long as it was
/// promised.
pub(super) fn unpin(tx: &mut dyn Tx, hash: &Hash, now: Timestamp) -> Result<(), StoreError> {
    let Some(row) = tx.blob(hash)? else { return Ok(()) };
    let pins = row.pins.saturating_sub(1);
    tx.put_blob(&BlobRow { pins, expires: row.expires.max(now.plus_ms(UNNAMED_MS)), ..row })
}

/// Reads stored bytes from `offset` up to `end`, piece by piece.
pub(super) fn pieces(
    read: &mut dyn Read,
    chunks: &KeyedHash,
    mut offset: u64,
    end: u64,
    mut each: impl FnMut(&[u8]) -> bool,
) -> Result<(), StoreError> {
    while offset < end {
        let (start, chunk) = read
            .chunk(chunks, offset)?
            .ok_or_else(|| StoreError::Corrupt(format!("the chunks of a blob have a gap at {offset}")))?;
        let index = |at: u64| usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX).min(chunk.len());
        let piece = chunk.get(index(offset)..index(end)).unwrap_or_default();
        if piece.is_empty() {
            return Err(StoreError::Corrupt(format!("a blob has an empty chunk at {offset}")));
        }
        offset = offset.saturating_add(piece.len() as u64);
        if !each(piece) {
            break;
        }
    }
    Ok(())
}

/// SHA-256 as it stands between two parts of a blob.
pub(super) struct Running(Sha256);

impl Running {
    /// Over nothing yet.
    pub(super) fn new() -> Self {
        Self(Sha256::new())
    }

    /// As it was stored; none if another version of the program stored it in a form that this one does not know.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let state = SerializedState::<Sha256>::try_from(bytes).ok()?;
        Sha256::deserialize(&state).ok().map(Self)
    }

    /// For the store.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.0.serialize().to_vec()
    }

    /// Goes on.
    pub(super) fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// The hash.
    pub(super) fn finish(self) -> Hash {
        Hash::new(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_goes_on_where_it_was_stored() {
        let mut running = Running::new();
        for part in [b"ab".as_slice(), &[7; 100], b"", b"c"] {
            running.update(part);
            running = Running::parse(&running.to_bytes()).unwrap();
        }
        let whole = [b"ab".as_slice(), &[7; 100], b"c"].concat();
        assert_eq!(running.finish(), Hash::new(Sha256::digest(whole).into()));
        assert!(Running::parse(&[1; 7]).is_none() && Running::parse(&[]).is_none());
    }
}
