//! Tables and settings of the store's file.

use rusqlite::Connection;

use super::StoreError;
use crate::profile::StoreKey;

/// The format that this code writes, and the newest that it reads (`user_version`).
pub(super) const FORMAT: u32 = 1;

/// A row's room is where it belongs; those that are read together lie together in `listed`. Messages name their group by number:
/// its name, of some sixty bytes, would stand three times in the file for each. The index by name has messages only, each once.
const TABLES: &str = "
    CREATE TABLE rows (
        room INTEGER NOT NULL,
        key BLOB NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (room, key)
    ) STRICT;
    CREATE TABLE listed (
        room INTEGER NOT NULL,
        key BLOB NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (room, key)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE groups (
        number INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE
    ) STRICT;
    CREATE TABLE messages (
        grp INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        id BLOB NOT NULL,
        sender TEXT NOT NULL,
        time_ms INTEGER NOT NULL,
        kind INTEGER NOT NULL,
        body BLOB NOT NULL,
        epoch INTEGER NOT NULL,
        PRIMARY KEY (grp, seq, id)
    ) STRICT;
    CREATE UNIQUE INDEX messages_by_id ON messages (grp, id) WHERE kind = 1;
    PRAGMA user_version = 1;
";

/// How the file is encrypted: AES-256-CBC, which is SQLCipher's only cipher, and HMAC-SHA-256, for which processors have
/// instructions, so that a page costs half of what it does with SQLCipher's own choice, HMAC-SHA-512.
const ENCRYPTION: &str = "PRAGMA cipher_hmac_algorithm = HMAC_SHA256;";

/// The file is held exclusively, so that the index of the write-ahead log needs no shared memory: to be said before the file is first read.
const HELD: &str = "PRAGMA locking_mode = EXCLUSIVE;";

/// Every acknowledged transaction is on the disk; deleted data is overwritten; temporary data stays in memory. The transaction of a page of entries
/// fits into the cache (in KiB), so that no page of the file is encrypted twice for it. The write-ahead log is merged into the file
/// when it has so many pages (32 MiB), and by `tidy`: pages of indexes are changed by each batch, and merged once.
const SETTINGS: &str = "
    PRAGMA temp_store = MEMORY;
    PRAGMA secure_delete = ON;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA cache_size = -8192;
    PRAGMA wal_autocheckpoint = 8192;
";

/// Gives a fresh connection its key and settings, and makes the tables of a new file.
pub(super) fn prepare(connection: &mut Connection, key: &StoreKey) -> Result<(), StoreError> {
    // SQLCipher reports failures to its caller; its own log would go to the terminal. What it frees, it
    // wipes first.
    connection.execute_batch("PRAGMA cipher_log_level = NONE; PRAGMA cipher_memory_security = ON;")?;
    connection.execute_batch(&key.pragma())?;
    connection.execute_batch(ENCRYPTION)?;
    connection.execute_batch(HELD)?;
    let found: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > FORMAT {
        return Err(StoreError::Newer { found, known: FORMAT });
    }
    connection.execute_batch(SETTINGS)?;
    if found == 0 {
        let transaction = connection.transaction()?;
        transaction.execute_batch(TABLES)?;
        transaction.commit()?;
    }
    Ok(())
}
