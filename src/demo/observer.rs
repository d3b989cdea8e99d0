//! The server's disk, as a thief or a curious operator reads it.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::{Deviation, Played, says};

pub(crate) struct Observer {
    database: Connection,
    bytes: Vec<u8>,
}

fn failed(error: impl std::fmt::Display) -> Deviation {
    Deviation::new(format!("the server's database cannot be read: {error}"))
}

impl Observer {
    pub(crate) fn open(data: &Path) -> Played<Self> {
        let path = data.join("conclave.db");
        let database = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failed)?;
        Ok(Self { database, bytes: std::fs::read(path).map_err(failed)? })
    }

    fn number(&self, sql: &str) -> Played<i64> {
        self.database.query_row(sql, [], |row| row.get(0)).map_err(failed)
    }

    /// Says what is there, and that none of the secrets is.
    pub(crate) fn report(&self, secrets: &[&str]) -> Played<()> {
        let clients = self.number("SELECT count(*) FROM as_clients")?;
        let packages = self.number("SELECT count(*) FROM ds_key_packages")?;
        says("server", &format!("{clients} accounts with their public keys, and {packages} KeyPackages that are left"));
        let mut statement = self
            .database
            .prepare(
                "SELECT e.kind, count(*), min(length(e.bytes)), max(length(e.bytes)) FROM ds_entries e \
                 JOIN ds_channels c ON c.id = e.channel WHERE c.ledger IS NOT NULL GROUP BY e.kind ORDER BY e.kind",
            )
            .map_err(failed)?;
        let rows =
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).map_err(failed)?;
        for row in rows {
            let (kind, count, least, most): (i64, i64, i64, i64) = row.map_err(failed)?;
            let what = match kind {
                1 => "messages",
                2 => "commits",
                3 => "proposals",
                _ => "entries",
            };
            says(
                "server",
                &format!("one channel with {count} {what}, sealed, of {least} to {most} bytes, with time and epoch"),
            );
        }
        let epochs = self.number("SELECT count(*) FROM ds_epochs")?;
        says("server", &format!("{epochs} epochs with 32 bytes each that decide who may read; no list of members"));
        for secret in secrets {
            let found = self.bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            if found {
                return Err(Deviation::new(format!("the server's disk holds \"{secret}\"")));
            }
        }
        says(
            "server",
            &format!(
                "its disk was searched for the group's title and all messages: none of {} is there",
                secrets.len()
            ),
        );
        Ok(())
    }
}
