//! What a service's closure works on: one connection inside one savepoint.

use conclave_names::{ClientUri, Hash, Timestamp, UserUri};
use rusqlite::{Connection, OptionalExtension, Params, Row, types::Type};

use super::failure::Failure;

/// One transaction of a service. The services' `Tx` traits are implemented on it, each in a file of its own.
///
/// After the first failure of the store every later call fails likewise: a closure that swallows the error can
/// neither commit half of its writes nor, where SQLite has ended the whole transaction by itself (it does when the
/// disk is full), write outside of any.
pub(super) struct Transaction<'c> {
    connection: &'c Connection,
    failed: Option<Failure>,
    /// A statement ran that may have written.
    wrote: bool,
    /// Its service says that it refuses no more.
    decided: bool,
    /// A savepoint is open, before the first write.
    savepoint: bool,
}

/// How what a transaction wrote is undone without the others of its commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Undo {
    /// It wrote nothing.
    Nothing,
    /// By its savepoint.
    Savepoint,
    /// Not at all.
    All,
}

impl<'c> Transaction<'c> {
    pub(super) fn new(connection: &'c Connection) -> Self {
        Self { connection, failed: None, wrote: false, decided: false, savepoint: false }
    }

    /// The first failure of the store in this transaction.
    pub(super) fn into_failure(self) -> Option<Failure> {
        self.failed
    }

    /// Its service refuses no more.
    pub(super) fn decide(&mut self) {
        self.decided = true;
    }

    /// How it is undone by itself.
    pub(super) fn undo(&self) -> Undo {
        match (self.wrote, self.savepoint) {
            (false, _) => Undo::Nothing,
            (true, true) => Undo::Savepoint,
            (true, false) => Undo::All,
        }
    }

    /// Makes ready for the first write: opens the savepoint, for which SQLite copies each page that is changed, unless
    /// nothing can be refused any more.
    fn begin_to_write(&mut self) -> Result<(), Failure> {
        if self.wrote {
            return Ok(());
        }
        if !self.decided {
            self.run(|connection| connection.prepare_cached("SAVEPOINT job")?.execute(()))?;
            self.savepoint = true;
        }
        self.wrote = true;
        Ok(())
    }

    fn run<T>(&mut self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Failure> {
        if let Some(failure) = &self.failed {
            return Err(failure.clone());
        }
        work(self.connection).map_err(|error| {
            let failure = Failure::from(error);
            tracing::error!(?failure, "a statement failed; its transaction is undone");
            self.failed = Some(failure.clone());
            failure
        })
    }

    /// Runs a statement without a result; answers how many rows it changed.
    pub(super) fn execute(&mut self, sql: &str, params: impl Params) -> Result<usize, Failure> {
        self.begin_to_write()?;
        self.run(|connection| connection.prepare_cached(sql)?.execute(params))
    }

    /// Deletes much of what its senders have sealed. Its pages are not overwritten with zeros, unlike others: that
    /// would write as many bytes as are deleted.
    pub(super) fn delete_sealed(&mut self, sql: &str, params: impl Params) -> Result<usize, Failure> {
        self.begin_to_write()?;
        self.run(|connection| {
            // Never through the statement cache: SQLite carries this pragma out when it compiles it.
            connection.query_row("PRAGMA secure_delete = FAST", (), |_| Ok(()))?;
            let deleted = connection.prepare_cached(sql)?.execute(params);
            connection.query_row("PRAGMA secure_delete = ON", (), |_| Ok(()))?;
            deleted
        })
    }

    /// The first row, if there is one.
    pub(super) fn first<T>(
        &mut self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, Failure> {
        self.run(|connection| connection.prepare_cached(sql)?.query_row(params, read).optional())
    }

    /// All rows.
    pub(super) fn all<T>(
        &mut self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, Failure> {
        self.run(|connection| connection.prepare_cached(sql)?.query_map(params, read)?.collect())
    }

    /// The rows for as long as `keep` says so; the first that it refuses is read but not returned.
    pub(super) fn all_while<T>(
        &mut self,
        sql: &str,
        params: impl Params,
        mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
        mut keep: impl FnMut(&T) -> bool,
    ) -> Result<Vec<T>, Failure> {
        self.run(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query(params)?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let value = read(row)?;
                if !keep(&value) {
                    break;
                }
                found.push(value);
            }
            Ok(found)
        })
    }

    /// The single number that a `SELECT count(*)` or the like answers.
    pub(super) fn number(&mut self, sql: &str, params: impl Params) -> Result<u64, Failure> {
        self.run(|connection| connection.prepare_cached(sql)?.query_row(params, |row| number(row, 0)))
    }
}

/// A counter or a time as SQLite keeps it: signed, 64 bits. What is over 2^63 − 1 becomes that, which stands for
/// "never" and reads as [`u64::MAX`]; no counter comes near it, and comparisons stay right.
pub(super) fn stored(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The reverse of [`stored`].
pub(super) fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    if value == i64::MAX {
        return Ok(u64::MAX);
    }
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}

/// A time.
pub(super) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    number(row, column).map(Timestamp)
}

/// A column that `decode` makes a value of. The error names the column and not its content.
pub(super) fn decoded<T>(row: &Row<'_>, column: usize, decode: impl FnOnce(&[u8]) -> Option<T>) -> rusqlite::Result<T> {
    let bytes = row.get_ref(column)?.as_bytes()?;
    decode(bytes).ok_or_else(|| {
        let cause = "the value does not decode";
        rusqlite::Error::FromSqlConversionFailure(column, Type::Blob, cause.into())
    })
}

/// A column with the text of a name.
pub(super) fn name<T: std::str::FromStr>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    decoded(row, column, |text| std::str::from_utf8(text).ok()?.parse().ok())
}

/// A client's name from the columns of its user and its device.
pub(super) fn client_at(row: &Row<'_>, user: usize, device: usize) -> rusqlite::Result<ClientUri> {
    let user: UserUri = name(row, user)?;
    decoded(row, device, |text| user.client(std::str::from_utf8(text).ok()?).ok())
}

/// A hash.
pub(super) fn hash(row: &Row<'_>, column: usize) -> rusqlite::Result<Hash> {
    row.get(column).map(Hash::new)
}

/// A hash that may be missing.
pub(super) fn optional_hash(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Hash>> {
    Ok(row.get::<_, Option<[u8; 32]>>(column)?.map(Hash::new))
}
