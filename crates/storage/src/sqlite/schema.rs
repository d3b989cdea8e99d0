//! The tables, by numbered migrations.
//!
//! Each service has its own series and its own prefix, so that a file holds the tables of the services that it was
//! opened for and no others. `conclave_schema` says how far each series has come. `user_version` is the version of
//! the whole layout: what a program that is older than the file looks at first.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::{open::OpenError, options::Services};

/// Marks a file as Conclave's: "cnCL".
pub(super) const APPLICATION_ID: i64 = 0x636e_434c;

/// The version of the layout that this program writes. It grows by one with each migration of either series.
pub(super) const VERSION: u32 = 5;

struct Series {
    name: &'static str,
    wanted: fn(Services) -> bool,
    /// Migration n is the (n − 1)th. They are never edited once released, only added to.
    migrations: &'static [&'static str],
}

const SERIES: [Series; 2] = [
    Series {
        name: "authentication",
        wanted: |services| services != Services::Delivery,
        migrations: &[
            include_str!("migrations/as_0001_tables.sql"),
            include_str!("migrations/as_0002_former_keys.sql"),
        ],
    },
    Series {
        name: "delivery",
        wanted: |services| services != Services::Authentication,
        migrations: &[
            include_str!("migrations/ds_0001_tables.sql"),
            include_str!("migrations/ds_0002_retention.sql"),
            include_str!("migrations/ds_0003_idempotency.sql"),
            include_str!("migrations/ds_0004_followed_groups.sql"),
            include_str!("migrations/ds_0005_clock.sql"),
        ],
    },
];

/// Finds out, without changing anything, whether this is a file for this program.
pub(super) fn examine(connection: &Connection) -> Result<(), OpenError> {
    let application_id: i64 = connection.query_row("PRAGMA application_id", (), |row| row.get(0))?;
    if application_id == APPLICATION_ID {
        let found: u32 = connection.query_row("PRAGMA user_version", (), |row| row.get(0))?;
        if found > VERSION {
            return Err(OpenError::Newer { found, known: VERSION });
        }
        return Ok(());
    }
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
    if application_id == 0 && tables == 0 { Ok(()) } else { Err(OpenError::Foreign) }
}

/// Brings the wanted series up to date, all in one transaction.
pub(super) fn migrate(connection: &mut Connection, services: Services) -> Result<(), OpenError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS conclave_schema (
            series TEXT NOT NULL PRIMARY KEY,
            version INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID;",
    )?;
    for series in SERIES.iter().filter(|series| (series.wanted)(services)) {
        let found: u32 = transaction
            .query_row("SELECT version FROM conclave_schema WHERE series = ?1", [series.name], |row| row.get(0))
            .optional()?
            .unwrap_or(0);
        for (number, migration) in (1_u32..).zip(series.migrations).filter(|(number, _)| *number > found) {
            tracing::info!(series = series.name, number, "migrating the database");
            transaction.execute_batch(migration)?;
            transaction.execute(
                "INSERT INTO conclave_schema (series, version) VALUES (?1, ?2)
                 ON CONFLICT (series) DO UPDATE SET version = excluded.version",
                (series.name, number),
            )?;
        }
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests;
