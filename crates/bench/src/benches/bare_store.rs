//! Bare mls-rs with a SQLite store: the statements of its own store (`mls-rs-provider-sqlite` 0.23: the whole snapshot, and epochs,
//! in one transaction) on the encrypted SQLite of ours with our settings. That crate itself cannot be linked beside ours: it wants
//! another version of SQLite's bindings, of which a program has one.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use mls_rs::GroupStateStorage;
use mls_rs_core::{
    error::IntoAnyError,
    group::{EpochRecord, GroupState},
};
use rusqlite::{Connection, OptionalExtension as _, params};
use zeroize::Zeroizing;

/// Earlier epochs that are kept, as in the original.
const EPOCHS: u64 = 3;

const SETTINGS: &str = "
    PRAGMA key = \"x'2DD29CA851E7B56E4697B0E1F08507293D761A05CE4D1B628663F411A8086D99'\";
    PRAGMA cipher_hmac_algorithm = HMAC_SHA256;
    PRAGMA cipher_log_level = NONE;
    PRAGMA cipher_memory_security = ON;
    PRAGMA temp_store = MEMORY;
    PRAGMA locking_mode = EXCLUSIVE;
    PRAGMA secure_delete = ON;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA cache_size = -8192;
    PRAGMA wal_autocheckpoint = 8192;
    CREATE TABLE mls_group (group_id BLOB PRIMARY KEY, snapshot BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE epoch (
        group_id BLOB, epoch_id INTEGER, epoch_data BLOB NOT NULL,
        FOREIGN KEY (group_id) REFERENCES mls_group (group_id) ON DELETE CASCADE,
        PRIMARY KEY (group_id, epoch_id)
    ) WITHOUT ROWID;
";

#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct StoreFailure(#[from] rusqlite::Error);

impl IntoAnyError for StoreFailure {
    fn into_dyn_error(self) -> Result<Box<dyn std::error::Error + Send + Sync>, Self> {
        Ok(Box::new(self))
    }
}

/// States of groups in a file.
#[derive(Clone)]
pub(crate) struct SqliteStates(Arc<Mutex<Connection>>);

/// Numbers of epochs stay far below.
fn signed(epoch: u64) -> i64 {
    i64::try_from(epoch).unwrap_or(i64::MAX)
}

impl SqliteStates {
    pub(crate) fn open(path: &Path) -> Result<Self, StoreFailure> {
        let connection = Connection::open(path)?;
        connection.execute_batch(SETTINGS)?;
        Ok(Self(Arc::new(Mutex::new(connection))))
    }

    fn run<T>(&self, work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T, StoreFailure> {
        Ok(work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))?)
    }
}

impl GroupStateStorage for SqliteStates {
    type Error = StoreFailure;

    fn state(&self, group_id: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, StoreFailure> {
        let sql = "SELECT snapshot FROM mls_group WHERE group_id = ?";
        self.run(|connection| connection.query_row(sql, [group_id], |row| row.get(0).map(Zeroizing::new)).optional())
    }

    fn epoch(&self, group_id: &[u8], epoch: u64) -> Result<Option<Zeroizing<Vec<u8>>>, StoreFailure> {
        let sql = "SELECT epoch_data FROM epoch WHERE group_id = ? AND epoch_id = ?";
        self.run(|connection| {
            connection.query_row(sql, params![group_id, signed(epoch)], |row| row.get(0).map(Zeroizing::new)).optional()
        })
    }

    fn write(
        &mut self,
        state: GroupState,
        inserts: Vec<EpochRecord>,
        updates: Vec<EpochRecord>,
    ) -> Result<(), StoreFailure> {
        self.run(|connection| {
            let transaction = connection.transaction()?;
            transaction.execute(
                "INSERT INTO mls_group (group_id, snapshot) VALUES (?, ?)
                 ON CONFLICT (group_id) DO UPDATE SET snapshot = excluded.snapshot",
                params![state.id, state.data.as_slice()],
            )?;
            for epoch in &inserts {
                transaction.execute(
                    "INSERT INTO epoch (group_id, epoch_id, epoch_data) VALUES (?, ?, ?)",
                    params![state.id, signed(epoch.id), epoch.data.as_slice()],
                )?;
            }
            for epoch in &updates {
                transaction.execute(
                    "UPDATE epoch SET epoch_data = ? WHERE group_id = ? AND epoch_id = ?",
                    params![epoch.data.as_slice(), state.id, signed(epoch.id)],
                )?;
            }
            if let Some(under) = inserts.last().and_then(|epoch| epoch.id.checked_sub(EPOCHS)) {
                transaction.execute(
                    "DELETE FROM epoch WHERE group_id = ? AND epoch_id <= ?",
                    params![state.id, signed(under)],
                )?;
            }
            transaction.commit()
        })
    }

    fn max_epoch_id(&self, group_id: &[u8]) -> Result<Option<u64>, StoreFailure> {
        let sql = "SELECT max(epoch_id) FROM epoch WHERE group_id = ?";
        let max = self.run(|connection| connection.query_row(sql, [group_id], |row| row.get::<_, Option<i64>>(0)))?;
        Ok(max.and_then(|max| u64::try_from(max).ok()))
    }
}
