//! Staged blobs and their chunks.

use conclave_delivery::store::BlobRow;
use conclave_names::{Hash, Timestamp};

use super::super::{
    failure::Failure,
    transaction::{Transaction, number, stored, time},
};

pub(super) fn blob(tx: &mut Transaction<'_>, hash: &Hash) -> Result<Option<BlobRow>, Failure> {
    let sql = "SELECT size, received, whole, pins, expires FROM ds_blobs WHERE hash = ?1";
    tx.first(sql, [hash.as_bytes()], |row| {
        Ok(BlobRow {
            hash: *hash,
            size: number(row, 0)?,
            received: number(row, 1)?,
            whole: row.get(2)?,
            pins: number(row, 3)?,
            expires: time(row, 4)?,
        })
    })
}

pub(super) fn put_blob(tx: &mut Transaction<'_>, row: &BlobRow) -> Result<(), Failure> {
    tx.execute(
        "INSERT INTO ds_blobs (hash, size, received, whole, pins, expires) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (hash) DO UPDATE SET
            size = excluded.size,
            received = excluded.received,
            whole = excluded.whole,
            pins = excluded.pins,
            expires = excluded.expires",
        (
            row.hash.as_bytes(),
            stored(row.size),
            stored(row.received),
            row.whole,
            stored(row.pins),
            stored(row.expires.0),
        ),
    )?;
    Ok(())
}

pub(super) fn chunk(tx: &mut Transaction<'_>, hash: &Hash, offset: u64) -> Result<Option<(u64, Vec<u8>)>, Failure> {
    let sql = "SELECT start, data FROM ds_chunks WHERE hash = ?1 AND start <= ?2 ORDER BY start DESC LIMIT 1";
    let found =
        tx.first(sql, (hash.as_bytes(), stored(offset)), |row| Ok((number(row, 0)?, row.get::<_, Vec<u8>>(1)?)))?;
    Ok(found.filter(|(start, data)| start.saturating_add(data.len() as u64) > offset))
}

pub(super) fn append_chunk(tx: &mut Transaction<'_>, hash: &Hash, offset: u64, data: &[u8]) -> Result<(), Failure> {
    let sql = "INSERT INTO ds_chunks (hash, start, data) VALUES (?1, ?2, ?3)";
    tx.execute(sql, (hash.as_bytes(), stored(offset), data))?;
    Ok(())
}

pub(super) fn delete_blob(tx: &mut Transaction<'_>, hash: &Hash) -> Result<(), Failure> {
    tx.delete_sealed("DELETE FROM ds_chunks WHERE hash = ?1", [hash.as_bytes()])?;
    tx.execute("DELETE FROM ds_blobs WHERE hash = ?1", [hash.as_bytes()])?;
    Ok(())
}

/// Deletes blobs that nothing names and that expire at or before `now`.
pub(super) fn prune(tx: &mut Transaction<'_>, now: Timestamp) -> Result<(), Failure> {
    tx.delete_sealed(
        "DELETE FROM ds_chunks WHERE hash IN (SELECT hash FROM ds_blobs WHERE pins = 0 AND expires <= ?1)",
        [stored(now.0)],
    )?;
    tx.execute("DELETE FROM ds_blobs WHERE pins = 0 AND expires <= ?1", [stored(now.0)])?;
    Ok(())
}
