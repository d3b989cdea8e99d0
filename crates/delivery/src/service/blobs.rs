//! Blobs that entries and epochs name.

use conclave_names::{Hash, Timestamp};
use conclave_protocol::{Code, Refusal};
use sha2::{Digest, Sha256};

use crate::store::{BlobRow, Read, StoreError, Tx};

/// How long a blob stays that nothing names, in milliseconds: a day.
pub(super) const UNNAMED_MS: u64 = 24 * 3600 * 1000;

/// The answer where a blob is wanted that is not there.
pub(super) fn unknown() -> Refusal {
    Refusal::new(Code::BlobUnknown, "there is no such blob, or it is not whole: stage all of it first")
}

/// Notes that something names a blob, which must be whole (and of this size, where one is said).
pub(super) fn pin(tx: &mut dyn Tx, hash: &Hash, size: Option<u64>) -> Result<(), Refusal> {
    let row = tx.blob(hash)?.filter(|row| row.whole).ok_or_else(unknown)?;
    if size.is_some_and(|size| size != row.size) {
        return Err(Refusal::new(Code::BlobInvalid, "the entry's blob has another size than the entry says"));
    }
    Ok(tx.put_blob(&BlobRow { pins: row.pins.saturating_add(1), ..row })?)
}

/// Has a blob stay until a time, whether something names it or not.
pub(super) fn keep(tx: &mut dyn Tx, hash: &Hash, until: Timestamp) -> Result<(), StoreError> {
    let Some(row) = tx.blob(hash)? else { return Ok(()) };
    tx.put_blob(&BlobRow { expires: row.expires.max(until), ..row })
}

/// Notes that something no longer names a blob. It stays for a day, for those who are reading it, or as long as it was
/// promised.
pub(super) fn unpin(tx: &mut dyn Tx, hash: &Hash, now: Timestamp) -> Result<(), StoreError> {
    let Some(row) = tx.blob(hash)? else { return Ok(()) };
    let pins = row.pins.saturating_sub(1);
    tx.put_blob(&BlobRow { pins, expires: row.expires.max(now.plus_ms(UNNAMED_MS)), ..row })
}

/// Reads stored bytes of a blob from `offset` up to `end`, piece by piece.
pub(super) fn pieces(
    read: &mut dyn Read,
    hash: &Hash,
    mut offset: u64,
    end: u64,
    mut each: impl FnMut(&[u8]) -> bool,
) -> Result<(), StoreError> {
    while offset < end {
        let (start, chunk) = read
            .chunk(hash, offset)?
            .ok_or_else(|| StoreError::Corrupt(format!("blob {hash} has a gap at {offset}")))?;
        let index = |at: u64| usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX).min(chunk.len());
        let piece = chunk.get(index(offset)..index(end)).unwrap_or_default();
        if piece.is_empty() {
            return Err(StoreError::Corrupt(format!("blob {hash} has an empty chunk at {offset}")));
        }
        offset = offset.saturating_add(piece.len() as u64);
        if !each(piece) {
            break;
        }
    }
    Ok(())
}

/// SHA-256 of the first `received` stored bytes and of `last`.
pub(super) fn digest(read: &mut dyn Read, hash: &Hash, received: u64, last: &[u8]) -> Result<Hash, StoreError> {
    let mut hasher = Sha256::new();
    pieces(read, hash, 0, received, |piece| {
        hasher.update(piece);
        true
    })?;
    hasher.update(last);
    Ok(Hash::new(hasher.finalize().into()))
}
