//! Directory, lock, file and connection settings.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig};

use super::{options::Options, schema, writer};

/// Name of the database in its directory.
const FILE: &str = "conclave.db";

/// Name of the lock in the directory.
const LOCK: &str = "conclaved.lock";

/// How long a connection waits for a program that is not Conclave (a backup, the SQLite shell) to let go of a lock.
const BUSY: Duration = Duration::from_secs(5);

/// Why a database was not opened. Nothing was changed, except that a directory may have been made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The data directory or a file in it cannot be made or opened.
    #[error("the data directory `{}` cannot be used: {source}; check the path and its permissions", path.display())]
    Directory {
        /// The directory, or the file in it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another server has the directory open.
    #[error(
        "the data directory `{}` is in use by another server: stop that one first, or give this one another directory",
        path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A newer program wrote the data.
    #[error(
        "the data is of version {found}; this program knows version {known} and older: start the newer program again, \
         or restore a backup from before the upgrade"
    )]
    Newer {
        /// The version of the data.
        found: u32,
        /// The newest version that this program knows.
        known: u32,
    },
    /// The file is not Conclave's.
    #[error("`conclave.db` is not a database of Conclave: give another data directory, or move the file away")]
    Foreign,
    /// The file system does not support what SQLite's write-ahead log needs.
    #[error("the data directory's file system cannot hold a write-ahead log: use a local disk, no network file system")]
    NoWal,
    /// A thread could not be started.
    #[error("a thread of the store could not be started: {0}")]
    Thread(io::Error),
    /// SQLite cannot open or prepare the file.
    #[error("the database cannot be opened: {0}")]
    Sqlite(#[source] rusqlite::Error),
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) { Self::Foreign } else { Self::Sqlite(error) }
    }
}

/// A file on the disk, locked, with its tables in place.
pub(super) struct Opened {
    pub(super) writer: Connection,
    pub(super) readers: Vec<Connection>,
    /// Held for as long as anything may write.
    pub(super) lock: File,
}

/// Opens the database in a directory, or makes both.
pub(super) fn open(directory: &Path, options: &Options) -> Result<Opened, OpenError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Directory { path, source }
    };
    make_directory(directory).map_err(at(directory))?;
    let lock_path = directory.join(LOCK);
    let lock = private_file(&lock_path).map_err(at(&lock_path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { path: directory.to_owned() }),
        Err(TryLockError::Error(source)) => return Err(OpenError::Directory { path: lock_path, source }),
    }
    let path = directory.join(FILE);
    // Made here and not by SQLite, for the permissions; the WAL gets those of the file.
    private_file(&path).map_err(at(&path))?;

    let flags = OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(&path, flags | OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(BUSY)?;
    schema::examine(&connection)?;
    prepare(&connection, true)?;
    schema::migrate(&mut connection, options.services)?;
    writer::limit(&connection, options.max_bytes)?;
    // The names of new files are as durable as what is in them.
    sync_directory(directory).map_err(at(directory))?;

    let readers = (0..options.readers.get())
        .map(|_| {
            let reader = Connection::open_with_flags(&path, flags | OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            reader.busy_timeout(BUSY)?;
            settings(&reader, 2)?;
            Ok(reader)
        })
        .collect::<Result<_, OpenError>>()?;
    Ok(Opened { writer: connection, readers, lock })
}

/// A database that lives as long as its connection.
pub(super) fn in_memory(options: &Options) -> Result<Connection, OpenError> {
    let mut connection = Connection::open_in_memory()?;
    prepare(&connection, false)?;
    schema::migrate(&mut connection, options.services)?;
    Ok(connection)
}

/// The settings that belong to the file, and the writer's own.
fn prepare(connection: &Connection, on_disk: bool) -> Result<(), OpenError> {
    // 8 KiB: most entries are padded to 4 KiB or less, and a row of a table without rowids stays on its page up to
    // about a quarter of it. Counts for a new file only.
    connection.pragma_update(None, "page_size", 8192)?;
    if on_disk {
        let mode: String = connection.query_row("PRAGMA journal_mode = WAL", (), |row| row.get(0))?;
        if mode != "wal" {
            return Err(OpenError::NoWal);
        }
        // A commit returns when the disk has it; NORMAL could lose the last commits with the power.
        connection.pragma_update(None, "synchronous", "FULL")?;
        // macOS flushes to the disk itself only when asked so; no effect elsewhere.
        connection.pragma_update(None, "fullfsync", true)?;
        connection.pragma_update(None, "checkpoint_fullfsync", true)?;
        // After a burst the WAL file is cut back to this.
        connection.query_row("PRAGMA journal_size_limit = 67108864", (), |_| Ok(()))?;
    }
    // Deleted rows are overwritten with zeros: a KeyPackage that was claimed is not to be found on the disk.
    connection.query_row("PRAGMA secure_delete = ON", (), |_| Ok(()))?;
    connection.pragma_update(None, "foreign_keys", true)?;
    settings(connection, 32)
}

/// The settings of every connection.
fn settings(connection: &Connection, cache_mib: i64) -> Result<(), OpenError> {
    // Negative: in KiB. The writer's holds the inner pages of all trees; readers lean on the system's page cache.
    connection.pragma_update(None, "cache_size", -cache_mib * 1024)?;
    // Sorting leaves nothing in temporary files.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    // Every statement of both services fits.
    connection.set_prepared_statement_cache_capacity(128);
    Ok(())
}

fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        warn_if_open_to_others(path);
        return Ok(());
    }
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)?;
    match path.parent() {
        Some(parent) if parent.is_dir() => sync_directory(parent),
        _ => Ok(()),
    }
}

/// Opens a file that only its owner may read, or makes it.
fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(unix)]
fn warn_if_open_to_others(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if let Ok(metadata) = fs::metadata(path)
        && metadata.permissions().mode() & 0o077 != 0
    {
        tracing::warn!(
            directory = %path.display(),
            "other users of this machine can look into the data directory, which holds secret keys: chmod 700 it"
        );
    }
}

#[cfg(not(unix))]
fn warn_if_open_to_others(_: &Path) {}

#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Elsewhere directories cannot be flushed, and need not be.
#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}
