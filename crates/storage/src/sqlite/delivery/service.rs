//! What the service keeps for itself: address keys, drop tokens, the outbox, nonces, its secret.

use conclave_delivery::store::{AddressKeyRow, KeyedHash, OutboxKind, OutboxRow};
use conclave_names::Timestamp;
use rusqlite::{Row, types::Type};

use super::{
    super::{
        failure::Failure,
        transaction::{Transaction, number, stored, time},
    },
    blobs,
};

#[allow(clippy::unnecessary_wraps)]
pub(super) fn decided(tx: &mut Transaction<'_>) -> Result<(), Failure> {
    tx.decide();
    Ok(())
}

/// Columns: id, key_secret, public, created, rotates, expires.
fn address_key_row(row: &Row<'_>) -> rusqlite::Result<AddressKeyRow> {
    Ok(AddressKeyRow {
        id: row.get(0)?,
        secret: row.get(1)?,
        public: row.get(2)?,
        created: time(row, 3)?,
        rotates: time(row, 4)?,
        expires: time(row, 5)?,
    })
}

pub(super) fn address_key(tx: &mut Transaction<'_>, id: &[u8]) -> Result<Option<AddressKeyRow>, Failure> {
    let sql = "SELECT id, key_secret, public, created, rotates, expires FROM ds_address_keys WHERE id = ?1";
    tx.first(sql, [id], address_key_row)
}

pub(super) fn newest_address_key(tx: &mut Transaction<'_>) -> Result<Option<AddressKeyRow>, Failure> {
    let sql = "SELECT id, key_secret, public, created, rotates, expires FROM ds_address_keys
               ORDER BY created DESC, id DESC LIMIT 1";
    tx.first(sql, (), address_key_row)
}

pub(super) fn put_address_key(tx: &mut Transaction<'_>, row: &AddressKeyRow) -> Result<(), Failure> {
    tx.execute(
        "INSERT INTO ds_address_keys (id, key_secret, public, created, rotates, expires)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (id) DO UPDATE SET
            key_secret = excluded.key_secret,
            public = excluded.public,
            created = excluded.created,
            rotates = excluded.rotates,
            expires = excluded.expires",
        (row.id, &row.secret, &row.public, stored(row.created.0), stored(row.rotates.0), stored(row.expires.0)),
    )?;
    Ok(())
}

pub(super) fn drop_uses(tx: &mut Transaction<'_>, nonce: &KeyedHash) -> Result<u32, Failure> {
    let sql = "SELECT uses FROM ds_drops WHERE nonce = ?1";
    Ok(tx.first(sql, [nonce], |row| row.get(0))?.unwrap_or(0))
}

pub(super) fn put_drop_uses(
    tx: &mut Transaction<'_>,
    nonce: &KeyedHash,
    uses: u32,
    expires: Timestamp,
) -> Result<(), Failure> {
    tx.execute(
        "INSERT INTO ds_drops (nonce, uses, expires) VALUES (?1, ?2, ?3)
         ON CONFLICT (nonce) DO UPDATE SET uses = excluded.uses, expires = excluded.expires",
        (nonce, uses, stored(expires.0)),
    )?;
    Ok(())
}

pub(super) fn outbox(tx: &mut Transaction<'_>, limit: u32) -> Result<Vec<OutboxRow>, Failure> {
    tx.all("SELECT id, kind, payload FROM ds_outbox ORDER BY id LIMIT ?1", [limit], |row| {
        let kind = OutboxKind::from_code(row.get(1)?)
            .map_err(|error| rusqlite::Error::FromSqlConversionFailure(1, Type::Integer, Box::new(error)))?;
        Ok(OutboxRow { id: number(row, 0)?, kind, payload: row.get(2)? })
    })
}

pub(super) fn push_outbox(tx: &mut Transaction<'_>, kind: OutboxKind, payload: &[u8]) -> Result<(), Failure> {
    tx.execute("INSERT INTO ds_outbox (kind, payload) VALUES (?1, ?2)", (kind.code(), payload))?;
    Ok(())
}

pub(super) fn delete_outbox(tx: &mut Transaction<'_>, id: u64) -> Result<(), Failure> {
    tx.execute("DELETE FROM ds_outbox WHERE id = ?1", [stored(id)])?;
    Ok(())
}

pub(super) fn note_nonce(tx: &mut Transaction<'_>, nonce: &KeyedHash, expires: Timestamp) -> Result<bool, Failure> {
    let sql = "INSERT INTO ds_nonces (nonce, expires) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    Ok(tx.execute(sql, (nonce, stored(expires.0)))? == 1)
}

pub(super) fn server_secret(tx: &mut Transaction<'_>) -> Result<Option<[u8; 32]>, Failure> {
    tx.first("SELECT server_secret FROM ds_server", (), |row| row.get(0))
}

pub(super) fn put_server_secret(tx: &mut Transaction<'_>, secret: &[u8; 32]) -> Result<(), Failure> {
    tx.execute(
        "INSERT INTO ds_server (id, server_secret) VALUES (1, ?1)
         ON CONFLICT (id) DO UPDATE SET server_secret = excluded.server_secret",
        [secret],
    )?;
    Ok(())
}

/// Tables whose rows expire, with the columns of their names. Blobs are in a file of their own.
const EXPIRING: [(&str, &str); 7] = [
    ("ds_idempotency", "scope, key"),
    ("ds_key_packages", "reference"),
    ("ds_directory", "user, device"),
    ("ds_claimed", "reference"),
    ("ds_address_keys", "id"),
    ("ds_drops", "nonce"),
    ("ds_nonces", "nonce"),
];

/// Deletes what has expired, in the tables of all files here. Tells whether there may be more.
pub(super) fn prune(tx: &mut Transaction<'_>, now: Timestamp, limit: u32) -> Result<bool, Failure> {
    let mut more = blobs::prune(tx, now, limit)?;
    for (table, name) in EXPIRING {
        let sql = format!(
            "DELETE FROM {table} WHERE ({name}) IN
                (SELECT {name} FROM {table} WHERE expires <= ?1 ORDER BY expires, {name} LIMIT ?2)"
        );
        let deleted = tx.execute(&sql, (stored(now.0), limit))?;
        more |= deleted as u64 >= u64::from(limit);
    }
    Ok(blobs::sweep(tx)? || more)
}
