//! Entries of channels, and the submissions that are remembered.

use conclave_channel::EntryKind;
use conclave_delivery::store::{EntryRow, IdempotencyRow, KeyedHash, RangeLimit};
use conclave_names::{ChannelId, Epoch, IdempotencyKey, Seq, Timestamp};
use rusqlite::{Row, types::Type};

use super::super::{
    failure::Failure,
    transaction::{Transaction, number, stored, time},
};

pub(super) fn entries(
    tx: &mut Transaction<'_>,
    channel: &ChannelId,
    after: Seq,
    until: Option<Seq>,
    limit: RangeLimit,
) -> Result<Vec<EntryRow>, Failure> {
    let sql = "SELECT seq, kind, epoch, removes, time, bytes FROM ds_entries
               WHERE channel = ?1 AND seq > ?2 AND seq <= ?3 ORDER BY seq LIMIT ?4";
    let until = until.map_or(i64::MAX, |until| stored(until.0));
    let (mut first, mut bytes) = (true, 0_usize);
    tx.all_while(
        sql,
        (channel.as_bytes(), stored(after.0), until, limit.entries),
        |row| {
            Ok(EntryRow {
                channel: *channel,
                seq: Seq(number(row, 0)?),
                kind: kind(row, 1)?,
                epoch: Epoch(number(row, 2)?),
                removes: row.get(3)?,
                time: time(row, 4)?,
                bytes: row.get(5)?,
            })
        },
        |entry| {
            bytes = bytes.saturating_add(entry.bytes.len());
            std::mem::take(&mut first) || bytes <= limit.bytes
        },
    )
}

pub(super) fn kind(row: &Row<'_>, column: usize) -> rusqlite::Result<EntryKind> {
    let code: u8 = row.get(column)?;
    EntryKind::from_code(code)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Integer, Box::new(error)))
}

pub(super) fn oldest(tx: &mut Transaction<'_>, channel: &ChannelId) -> Result<Option<(Seq, Timestamp)>, Failure> {
    let sql = "SELECT seq, time FROM ds_entries WHERE channel = ?1 ORDER BY seq LIMIT 1";
    tx.first(sql, [channel.as_bytes()], |row| Ok((Seq(number(row, 0)?), time(row, 1)?)))
}

pub(super) fn first_removal(
    tx: &mut Transaction<'_>,
    channel: &ChannelId,
    from: Epoch,
) -> Result<Option<Seq>, Failure> {
    // In the index `ds_entries_removing`: nothing to walk over for a key of the current epoch.
    let sql = "SELECT seq FROM ds_entries WHERE channel = ?1 AND removes = 1 AND epoch >= ?2 ORDER BY +seq LIMIT 1";
    tx.first(sql, (channel.as_bytes(), stored(from.0)), |row| number(row, 0).map(Seq))
}

pub(super) fn append_entry(tx: &mut Transaction<'_>, row: &EntryRow) -> Result<(), Failure> {
    tx.execute(
        "INSERT INTO ds_entries (channel, seq, kind, epoch, removes, time, bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        (
            row.channel.as_bytes(),
            stored(row.seq.0),
            row.kind.code(),
            stored(row.epoch.0),
            row.removes,
            stored(row.time.0),
            &row.bytes,
        ),
    )?;
    Ok(())
}

pub(super) fn clear_removes(tx: &mut Transaction<'_>, channel: &ChannelId, seq: Seq) -> Result<(), Failure> {
    tx.execute(
        "UPDATE ds_entries SET removes = 0 WHERE channel = ?1 AND seq = ?2",
        (channel.as_bytes(), stored(seq.0)),
    )?;
    Ok(())
}

pub(super) fn delete_entries(tx: &mut Transaction<'_>, channel: &ChannelId, up_to: Seq) -> Result<u64, Failure> {
    let which = (channel.as_bytes(), stored(up_to.0));
    let sum = "SELECT coalesce(sum(length(bytes)), 0) FROM ds_entries WHERE channel = ?1 AND seq <= ?2";
    let bytes = tx.number(sum, which)?;
    tx.execute("DELETE FROM ds_entries WHERE channel = ?1 AND seq <= ?2", which)?;
    Ok(bytes)
}

pub(super) fn idempotency(
    tx: &mut Transaction<'_>,
    scope: &KeyedHash,
    key: &IdempotencyKey,
) -> Result<Option<IdempotencyRow>, Failure> {
    let sql = "SELECT request, reply, expires FROM ds_idempotency
               WHERE substr(scope, 1, 4) = substr(?1, 1, 4) AND key = ?2 AND scope = ?1";
    tx.first(sql, (scope, key.as_bytes()), |row| {
        Ok(IdempotencyRow {
            scope: *scope,
            key: *key,
            request: row.get(0)?,
            reply: row.get(1)?,
            expires: time(row, 2)?,
        })
    })
}

pub(super) fn put_idempotency(tx: &mut Transaction<'_>, row: &IdempotencyRow) -> Result<(), Failure> {
    let (scope, key, expires) = (row.scope, row.key.as_bytes(), stored(row.expires.0));
    // Nearly never there: only where an expired one was not pruned yet.
    let known = "SELECT id FROM ds_idempotency
                 WHERE substr(scope, 1, 4) = substr(?1, 1, 4) AND key = ?2 AND scope = ?1";
    if let Some(id) = tx.first(known, (scope, key), |row| row.get::<_, i64>(0))? {
        let sql = "UPDATE ds_idempotency SET request = ?2, reply = ?3, expires = ?4 WHERE id = ?1";
        tx.execute(sql, (id, row.request, &row.reply, expires))?;
        return Ok(());
    }
    let sql = "INSERT INTO ds_idempotency (scope, key, request, reply, expires) VALUES (?1, ?2, ?3, ?4, ?5)";
    tx.execute(sql, (scope, key, row.request, &row.reply, expires))?;
    Ok(())
}
