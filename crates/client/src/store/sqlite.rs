//! The store in one file, encrypted as a whole by SQLCipher (AES-256-CBC and HMAC-SHA-256 a page).

use std::{fmt, fs::File, sync::Arc, time::Duration};

use conclave_engine::writes::{Room, StoredMessage, Write};
use rusqlite::{CachedStatement, Connection, OpenFlags, OptionalExtension, Params, Row as SqlRow, Statement, params};
use zeroize::Zeroizing;

use super::{ProfileStore, Row, StoreError, deep, schema};
use crate::profile::{Profile, StoreKey};

/// Statements that stay prepared.
const STATEMENTS: usize = 24;

/// A profile's store. While it lives, the profile stays locked.
pub struct Store {
    connection: Connection,
    /// Whether the write-ahead log may hold what was deleted since.
    untidy: bool,
    _lock: Arc<File>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store(..)")
    }
}

impl Store {
    /// Opens a profile's store, and makes it if there is none yet. A profile has one open store at a time.
    ///
    /// # Errors
    /// [`StoreError::WrongKey`], [`StoreError::Busy`] if it is open already, [`StoreError::Newer`],
    /// [`StoreError::Corrupt`], [`StoreError::Io`].
    pub fn open(profile: &Profile, key: &StoreKey) -> Result<Self, StoreError> {
        if !profile.admits(key) {
            return Err(StoreError::WrongKey);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_EXRESCODE;
        let mut connection = Connection::open_with_flags(profile.database(), flags)?;
        connection.busy_timeout(Duration::from_secs(2))?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        schema::prepare(&mut connection, key)?;
        Ok(Self { connection, untidy: true, _lock: profile.lock() })
    }

    fn query(&self, sql: &str, params: impl Params) -> Result<Vec<StoredMessage>, StoreError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(params, message)?;
        rows.map(|row| row.map_err(StoreError::from)).collect()
    }

    /// Bounds the size of the file, as a full disk would.
    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages: u32) {
        self.connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).unwrap();
    }

    #[cfg(test)]
    pub(super) fn pragma(&self, name: &str) -> String {
        let text = |row: &SqlRow<'_>| row.get::<_, rusqlite::types::Value>(0).map(|value| format!("{value:?}"));
        self.connection.query_row(&format!("PRAGMA {name}"), [], text).unwrap()
    }

    #[cfg(test)]
    pub(super) fn set_format(&self, format: u32) {
        self.connection.execute_batch(&format!("PRAGMA user_version = {format}")).unwrap();
    }
}

/// SQLite's integers have a sign; what was written has none.
fn unsigned(row: &SqlRow<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

fn message(row: &SqlRow<'_>) -> rusqlite::Result<StoredMessage> {
    Ok(StoredMessage {
        group: row.get(0)?,
        seq: unsigned(row, 1)?,
        id: row.get(2)?,
        sender: row.get(3)?,
        time_ms: unsigned(row, 4)?,
        kind: row.get(5)?,
        body: row.get(6)?,
        epoch: unsigned(row, 7)?,
    })
}

/// The value in a column of a row.
fn value(room: Room, key: &[u8], row: &SqlRow<'_>, column: usize) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let stored = row.get_ref(column)?.as_blob().map_err(|error| StoreError::Corrupt(error.to_string()))?;
    let value = deep::value(room, key, stored).ok_or_else(|| StoreError::Corrupt("a row is cut off".to_owned()))?;
    Ok(Zeroizing::new(value.to_vec()))
}

fn signed(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| StoreError::OutOfRange)
}

/// Where no number can be greater, any greater one means the same.
fn clamped(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The first key after all that start with `prefix`, if there is one.
fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

/// The statements for rows: in the table of the rooms that are listed, and in that of all others. One that may stop halfway, or that
/// reads the table that it writes, would copy what it changes first: none of these does.
struct OfRows {
    put: &'static str,
    delete: &'static str,
    get: &'static str,
    scan: &'static str,
}

macro_rules! of_rows {
    ($table:literal) => {
        OfRows {
            put: concat!(
                "INSERT INTO ",
                $table,
                " (room, key, value) VALUES (?1, ?2, ?3) ON CONFLICT (room, key) DO UPDATE SET value = excluded.value"
            ),
            delete: concat!("DELETE FROM ", $table, " WHERE room = ?1 AND key = ?2"),
            get: concat!("SELECT value FROM ", $table, " WHERE room = ?1 AND key = ?2"),
            // A prefix of nothing but 0xFF bytes has no end.
            scan: concat!(
                "SELECT key, value FROM ",
                $table,
                " WHERE room = ?1 AND key >= ?2 AND (?3 IS NULL OR key < ?3) ORDER BY key"
            ),
        }
    };
}

const ROWS: OfRows = of_rows!("rows");
const LISTED: OfRows = of_rows!("listed");

const fn of(room: Room) -> &'static OfRows {
    if room.is_listed() { &LISTED } else { &ROWS }
}

// A message's kind is 1 (`KIND_MESSAGE`): SQLite takes the index for the literal only.
const ADD_GROUP: &str = "INSERT INTO groups (name) VALUES (?1) ON CONFLICT DO NOTHING";
const PUT_MESSAGE: &str = "
    INSERT INTO messages (grp, seq, id, sender, time_ms, kind, body, epoch)
    VALUES ((SELECT number FROM groups WHERE name = ?1), ?2, ?3, ?4, ?5, ?6, ?7, ?8)
    ON CONFLICT (grp, seq, id) DO UPDATE SET
        sender = excluded.sender, time_ms = excluded.time_ms, kind = excluded.kind, body = excluded.body, epoch = excluded.epoch
    ON CONFLICT DO NOTHING";
const PAGE: &str = "
    SELECT ?1, seq, id, sender, time_ms, kind, body, epoch FROM messages
    WHERE grp = (SELECT number FROM groups WHERE name = ?1) AND seq > ?2 AND seq <= coalesce(
        (SELECT seq FROM messages WHERE grp = (SELECT number FROM groups WHERE name = ?1) AND seq > ?2
         ORDER BY seq LIMIT 1 OFFSET ?3),
        9223372036854775807)
    ORDER BY seq, id";
const LAST: &str = "
    SELECT ?1, seq, id, sender, time_ms, kind, body, epoch FROM messages
    WHERE grp = (SELECT number FROM groups WHERE name = ?1) ORDER BY seq DESC, id DESC LIMIT ?2";
const PLACE: &str = "
    SELECT seq, epoch FROM messages WHERE grp = (SELECT number FROM groups WHERE name = ?1) AND id = ?2 AND kind = 1";
const COUNT: &str = "SELECT count(*) FROM messages WHERE grp = (SELECT number FROM groups WHERE name = ?1)";

fn put_message(statement: &mut Statement<'_>, m: &StoredMessage) -> Result<(), StoreError> {
    statement.execute(params![
        m.group,
        signed(m.seq)?,
        m.id,
        m.sender,
        signed(m.time_ms)?,
        m.kind,
        m.body,
        signed(m.epoch)?
    ])?;
    Ok(())
}

fn write_all(connection: &Connection, writes: &[Write]) -> Result<(), StoreError> {
    // Looking a statement up takes a noticeable part of what a message does, and they come by the thousand.
    let mut messages: Option<(&str, CachedStatement<'_>)> = None;
    for write in writes {
        match write {
            Write::Put { room, key, value } => {
                let stored = deep::stored(*room, key, value);
                connection.prepare_cached(of(*room).put)?.execute(params![room.code(), key, stored.as_slice()])?;
            }
            Write::Delete { room, key } => {
                connection.prepare_cached(of(*room).delete)?.execute(params![room.code(), key])?;
            }
            Write::Message(message) => match &mut messages {
                Some((group, statement)) if *group == message.group => put_message(statement, message)?,
                other => {
                    connection.prepare_cached(ADD_GROUP)?.execute([&message.group])?;
                    let (_, statement) = other.insert((&message.group, connection.prepare_cached(PUT_MESSAGE)?));
                    put_message(statement, message)?;
                }
            },
        }
    }
    Ok(())
}

impl ProfileStore for Store {
    fn apply(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        if writes.is_empty() {
            return Ok(());
        }
        self.untidy = true;
        // Dropped before its end, a transaction is rolled back.
        let transaction = self.connection.transaction()?;
        write_all(&transaction, writes)?;
        transaction.commit().map_err(StoreError::from)
    }

    fn tidy(&mut self) -> Result<(), StoreError> {
        if std::mem::take(&mut self.untidy) {
            // Gives three numbers; whether it was busy is none of our concern: nobody else has the file.
            self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        }
        Ok(())
    }

    fn get(&self, room: Room, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let mut statement = self.connection.prepare_cached(of(room).get)?;
        let mut rows = statement.query(params![room.code(), key])?;
        rows.next()?.map(|row| value(room, key, row, 0)).transpose()
    }

    fn scan(&self, room: Room, prefix: &[u8]) -> Result<Vec<Row>, StoreError> {
        let mut statement = self.connection.prepare_cached(of(room).scan)?;
        let mut rows = statement.query(params![room.code(), prefix, end_of(prefix)])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let key: Vec<u8> = row.get(0)?;
            let value = value(room, &key, row, 1)?;
            found.push((key, value));
        }
        Ok(found)
    }

    fn messages(&self, group: &str, after_seq: u64, limit: usize) -> Result<Vec<StoredMessage>, StoreError> {
        let Some(last) = limit.checked_sub(1) else { return Ok(Vec::new()) };
        self.query(PAGE, params![group, clamped(after_seq), clamped(last as u64)])
    }

    fn last_messages(&self, group: &str, limit: usize) -> Result<Vec<StoredMessage>, StoreError> {
        let mut messages = self.query(LAST, params![group, clamped(limit as u64)])?;
        messages.reverse();
        Ok(messages)
    }

    fn message_place(&self, group: &str, id: &[u8; 32]) -> Result<Option<(u64, u64)>, StoreError> {
        let mut statement = self.connection.prepare_cached(PLACE)?;
        let place = statement.query_row(params![group, id], |row| Ok((unsigned(row, 0)?, unsigned(row, 1)?)));
        Ok(place.optional()?)
    }

    fn message_count(&self, group: &str) -> Result<u64, StoreError> {
        let mut statement = self.connection.prepare_cached(COUNT)?;
        Ok(statement.query_row([group], |row| unsigned(row, 0))?)
    }
}
