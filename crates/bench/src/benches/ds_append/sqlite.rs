//! The baseline: the rows of an append, written by one thread into tables of the same schema with the same settings,
//! as many in one durable commit as the server had.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use conclave_channel::{Body, Entry, EntryKind, chain, law::Ledger};
use conclave_names::{ChannelId, Epoch, Hash, Seq, Timestamp};
use conclave_storage::{Database, Options};
use rusqlite::Connection;

use crate::ds::{Failure, now, number, random};

/// A day, in milliseconds: for so long a submission is remembered.
const REMEMBERED: u64 = 24 * 3600 * 1000;

/// Messages a second.
pub(super) fn appends(beside: &Path, channels: usize, size: usize, batch: f64, seconds: f64) -> Result<f64, Failure> {
    let directory = tempfile::TempDir::new_in(beside)?;
    // The store makes file and tables.
    let database = Database::open(directory.path(), Options::default())?;
    tokio::runtime::Runtime::new()?.block_on(database.close());
    drop(database);
    let connection = Connection::open(directory.path().join("conclave.db"))?;
    settings(&connection)?;

    let ledger = Ledger::new(Epoch(1), Hash::new(random()?), 2).to_bytes()?;
    let mut channels = (0..channels)
        .map(|_| {
            let id = ChannelId::new(random()?);
            connection.execute(
                "INSERT INTO ds_channels (id, head, head_hash, head_time, ledger) VALUES (?1, 0, ?2, 0, ?3)",
                (id.as_bytes(), chain::start(&id).as_bytes(), &ledger),
            )?;
            Ok((id, Seq(0), chain::start(&id), random::<32>()?))
        })
        .collect::<Result<Vec<_>, Failure>>()?;
    let entry = Entry::new(EntryKind::Message, Epoch(1), Body::Inline(random::<64>()?.repeat(size.div_ceil(64))));
    let bytes = entry.to_bytes()?;

    let begin = Instant::now() + Duration::from_secs_f64(seconds / 5.0);
    let end = begin + Duration::from_secs_f64(seconds);
    let (mut done, mut counted, mut owed) = (0_usize, 0_usize, 0.0);
    loop {
        let start = Instant::now();
        if start >= end {
            return Ok(number(counted) / seconds);
        }
        // The mean batch is no whole number: some commits have one more.
        owed += batch.max(1.0);
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute(())?;
        while owed >= 1.0 {
            owed -= 1.0;
            let index = done % channels.len().max(1);
            let (id, head, hash, submitter) = channels.get_mut(index).ok_or("there is no channel")?;
            *head = head.next();
            let time = now();
            *hash = chain::next(hash, *head, EntryKind::Message, time, &chain::entry_hash(&bytes));
            append(
                &connection,
                &Row { channel: id, seq: *head, hash, time, bytes: &bytes, ledger: &ledger, submitter },
            )?;
            done += 1;
            if start >= begin {
                counted += 1;
            }
        }
        connection.prepare_cached("COMMIT")?.execute(())?;
    }
}

/// What one message makes rows of.
struct Row<'a> {
    channel: &'a ChannelId,
    seq: Seq,
    hash: &'a Hash,
    time: Timestamp,
    bytes: &'a [u8],
    ledger: &'a [u8],
    submitter: &'a [u8; 32],
}

/// The rows of one message.
fn append(connection: &Connection, row: &Row<'_>) -> Result<(), Failure> {
    let (channel, hash) = (row.channel.as_bytes(), row.hash.as_bytes());
    let (seq, time) = (i64::try_from(row.seq.0)?, i64::try_from(row.time.0)?);
    connection
        .prepare_cached(
            "INSERT INTO ds_entries (channel, seq, kind, epoch, removes, time, bytes) VALUES (?1, ?2, 1, 1, 0, ?3, ?4)",
        )?
        .execute((channel, seq, time, row.bytes))?;
    connection
        .prepare_cached("UPDATE ds_channels SET head = ?2, head_hash = ?3, head_time = ?4, ledger = ?5 WHERE id = ?1")?
        .execute((channel, seq, hash, time, row.ledger))?;
    // An encoded answer has about this length.
    connection
        .prepare_cached("INSERT INTO ds_idempotency (scope, key, request, reply, expires) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute((row.submitter, random::<16>()?, hash, [0_u8; 46], time + i64::try_from(REMEMBERED)?))?;
    Ok(())
}

/// Those of the store's writer.
fn settings(connection: &Connection) -> Result<(), Failure> {
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", (), |row| row.get(0))?;
    if mode != "wal" {
        return Err("the baseline's database has no write-ahead log".into());
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.query_row("PRAGMA journal_size_limit = 67108864", (), |_| Ok(()))?;
    connection.query_row("PRAGMA secure_delete = ON", (), |_| Ok(()))?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "cache_size", -32 * 1024)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(16);
    Ok(())
}
