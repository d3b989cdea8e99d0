//! Blobs, what is staged of them, and their chunks.

use conclave_delivery::store::{BlobRow, KeyedHash, PRUNED_CHUNKS, StagedRow, StagedTotal};
use conclave_names::{Hash, Timestamp};
use rusqlite::Row;

use super::super::{
    failure::Failure,
    transaction::{Transaction, hash, number, stored, time},
};

pub(super) fn blob(tx: &mut Transaction<'_>, hash: &Hash) -> Result<Option<BlobRow>, Failure> {
    let sql = "SELECT chunks, size, pins, expires, scope FROM ds_blobs WHERE hash = ?1";
    tx.first(sql, [hash.as_bytes()], |row| {
        Ok(BlobRow {
            hash: *hash,
            chunks: row.get(0)?,
            size: number(row, 1)?,
            pins: number(row, 2)?,
            expires: time(row, 3)?,
            scope: row.get(4)?,
        })
    })
}

pub(super) fn put_blob(tx: &mut Transaction<'_>, row: &BlobRow) -> Result<(), Failure> {
    tx.execute(
        "INSERT INTO ds_blobs (hash, chunks, size, pins, expires, scope) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (hash) DO UPDATE SET
            chunks = excluded.chunks,
            size = excluded.size,
            pins = excluded.pins,
            expires = excluded.expires,
            scope = excluded.scope",
        (row.hash.as_bytes(), row.chunks, stored(row.size), stored(row.pins), stored(row.expires.0), row.scope),
    )?;
    Ok(())
}

/// Columns: stager, hash, chunks, scope, size, received, digest, expires.
fn staged_row(row: &Row<'_>) -> rusqlite::Result<StagedRow> {
    Ok(StagedRow {
        stager: row.get(0)?,
        hash: hash(row, 1)?,
        chunks: row.get(2)?,
        scope: row.get(3)?,
        size: number(row, 4)?,
        received: number(row, 5)?,
        digest: row.get(6)?,
        expires: time(row, 7)?,
    })
}

pub(super) fn staged(tx: &mut Transaction<'_>, stager: &KeyedHash, hash: &Hash) -> Result<Option<StagedRow>, Failure> {
    let sql = "SELECT stager, hash, chunks, scope, size, received, digest, expires FROM ds_staged
               WHERE stager = ?1 AND hash = ?2";
    tx.first(sql, (stager, hash.as_bytes()), staged_row)
}

pub(super) fn put_staged(tx: &mut Transaction<'_>, row: &StagedRow) -> Result<(), Failure> {
    tx.execute(
        "INSERT INTO ds_staged (stager, hash, chunks, scope, size, received, digest, expires)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (stager, hash) DO UPDATE SET
            chunks = excluded.chunks,
            scope = excluded.scope,
            size = excluded.size,
            received = excluded.received,
            digest = excluded.digest,
            expires = excluded.expires",
        (
            row.stager,
            row.hash.as_bytes(),
            row.chunks,
            row.scope,
            stored(row.size),
            stored(row.received),
            &row.digest,
            stored(row.expires.0),
        ),
    )?;
    Ok(())
}

pub(super) fn delete_staged(tx: &mut Transaction<'_>, stager: &KeyedHash, hash: &Hash) -> Result<(), Failure> {
    tx.execute("DELETE FROM ds_staged WHERE stager = ?1 AND hash = ?2", (stager, hash.as_bytes()))?;
    Ok(())
}

pub(super) fn staged_total(tx: &mut Transaction<'_>, scope: &KeyedHash) -> Result<StagedTotal, Failure> {
    let sql = "SELECT count(*), coalesce(sum(size), 0) FROM
                  (SELECT size FROM ds_staged WHERE scope = ?1
                   UNION ALL SELECT size FROM ds_blobs WHERE scope = ?1)";
    let found = tx.first(sql, [scope], |row| Ok(StagedTotal { blobs: number(row, 0)?, bytes: number(row, 1)? }))?;
    Ok(found.unwrap_or_default())
}

pub(super) fn chunk(
    tx: &mut Transaction<'_>,
    chunks: &KeyedHash,
    offset: u64,
) -> Result<Option<(u64, Vec<u8>)>, Failure> {
    let sql = "SELECT start, data FROM ds_chunks WHERE name = ?1 AND start <= ?2 ORDER BY start DESC LIMIT 1";
    let found = tx.first(sql, (chunks, stored(offset)), |row| Ok((number(row, 0)?, row.get::<_, Vec<u8>>(1)?)))?;
    Ok(found.filter(|(start, data)| start.saturating_add(data.len() as u64) > offset))
}

pub(super) fn append_chunk(
    tx: &mut Transaction<'_>,
    chunks: &KeyedHash,
    offset: u64,
    data: &[u8],
) -> Result<(), Failure> {
    let sql = "INSERT INTO ds_chunks (name, start, data) VALUES (?1, ?2, ?3)";
    tx.execute(sql, (chunks, stored(offset), data))?;
    Ok(())
}

pub(super) fn discard_chunks(tx: &mut Transaction<'_>, chunks: &KeyedHash) -> Result<(), Failure> {
    tx.execute("INSERT INTO ds_discarded (chunks) VALUES (?1) ON CONFLICT DO NOTHING", [chunks])?;
    Ok(())
}

/// Deletes blobs that nothing names and staged ones that expire at or before `now`; their chunks are discarded. Tells
/// whether there may be more.
pub(super) fn prune(tx: &mut Transaction<'_>, now: Timestamp, limit: u32) -> Result<bool, Failure> {
    let now = stored(now.0);
    let sql = "SELECT hash, chunks FROM ds_blobs WHERE pins = 0 AND expires <= ?1 ORDER BY expires, hash LIMIT ?2";
    let blobs = tx.all(sql, (now, limit), |row| Ok((row.get::<_, [u8; 32]>(0)?, row.get(1)?)))?;
    for (hash, chunks) in &blobs {
        discard_chunks(tx, chunks)?;
        tx.execute("DELETE FROM ds_blobs WHERE hash = ?1", [hash])?;
    }
    let sql = "SELECT stager, hash, chunks, scope, size, received, digest, expires FROM ds_staged
               WHERE expires <= ?1 ORDER BY expires, stager, hash LIMIT ?2";
    let staged = tx.all(sql, (now, limit), staged_row)?;
    for row in &staged {
        discard_chunks(tx, &row.chunks)?;
        delete_staged(tx, &row.stager, &row.hash)?;
    }
    let full = |count: usize| count as u64 >= u64::from(limit);
    Ok(full(blobs.len()) || full(staged.len()))
}

/// Deletes some of the discarded chunks. Tells whether more are left.
pub(super) fn sweep(tx: &mut Transaction<'_>) -> Result<bool, Failure> {
    let least = "SELECT chunks FROM ds_discarded ORDER BY chunks LIMIT 1";
    let Some(name) = tx.first(least, (), |row| row.get::<_, KeyedHash>(0))? else { return Ok(false) };
    let deleted = tx.delete_sealed(
        "DELETE FROM ds_chunks WHERE id IN
            (SELECT id FROM ds_chunks WHERE name = ?1 ORDER BY start LIMIT ?2)",
        (name, PRUNED_CHUNKS),
    )?;
    if (deleted as u64) < u64::from(PRUNED_CHUNKS) {
        tx.execute("DELETE FROM ds_discarded WHERE chunks = ?1", [name])?;
    }
    Ok(tx.first(least, (), |_| Ok(()))?.is_some())
}
