//! The directory: KeyPackages, the clients that have some, and what was claimed.

use conclave_delivery::store::{KeyPackageCount, KeyPackageRow, KeyedHash};
use conclave_mls::capabilities::Capabilities;
use conclave_names::{ClientUri, Hash, Timestamp, UserUri};
use rusqlite::Row;

use super::super::{
    failure::Failure,
    transaction::{Transaction, client_at, decoded, hash, name, number, stored, time},
};

fn capabilities(row: &Row<'_>, column: usize) -> rusqlite::Result<Capabilities> {
    decoded(row, column, Capabilities::parse)
}

/// Columns: reference, client, cipher_suite, bytes, last_resort, used, expires, capabilities.
fn key_package_row(row: &Row<'_>) -> rusqlite::Result<KeyPackageRow> {
    Ok(KeyPackageRow {
        reference: hash(row, 0)?,
        client: name(row, 1)?,
        cipher_suite: row.get(2)?,
        bytes: row.get(3)?,
        last_resort: row.get(4)?,
        used: row.get(5)?,
        expires: time(row, 6)?,
        capabilities: capabilities(row, 7)?,
    })
}

pub(super) fn key_package(tx: &mut Transaction<'_>, reference: &Hash) -> Result<Option<KeyPackageRow>, Failure> {
    let sql = "SELECT reference, client, cipher_suite, bytes, last_resort, used, expires, capabilities
               FROM ds_key_packages
               WHERE reference = ?1";
    tx.first(sql, [reference.as_bytes()], key_package_row)
}

pub(super) fn next_key_package(
    tx: &mut Transaction<'_>,
    client: &ClientUri,
    cipher_suite: u16,
    required: &Capabilities,
    now: Timestamp,
) -> Result<Option<KeyPackageRow>, Failure> {
    // Answered by the index, which ends in the order of storing; nearly always by its first row.
    let sql = "SELECT id, capabilities FROM ds_key_packages
               WHERE client = ?1 AND cipher_suite = ?2 AND last_resort = 0 AND expires > ?3 ORDER BY id";
    let mut found = None;
    tx.all_while(
        sql,
        (client.to_string(), cipher_suite, stored(now.0)),
        |row| Ok((row.get::<_, i64>(0)?, capabilities(row, 1)?)),
        |(id, capabilities)| {
            found = capabilities.meets(required).then_some(*id);
            found.is_none()
        },
    )?;
    let Some(id) = found else { return Ok(None) };
    let sql = "SELECT reference, client, cipher_suite, bytes, last_resort, used, expires, capabilities
               FROM ds_key_packages WHERE id = ?1";
    tx.first(sql, [id], key_package_row)
}

pub(super) fn key_package_capabilities(
    tx: &mut Transaction<'_>,
    client: &ClientUri,
    cipher_suite: u16,
    now: Timestamp,
) -> Result<Vec<Capabilities>, Failure> {
    let sql = "SELECT DISTINCT capabilities FROM ds_key_packages
               WHERE client = ?1 AND cipher_suite = ?2 AND expires > ?3";
    let mut found = tx.all(sql, (client.to_string(), cipher_suite, stored(now.0)), |row| capabilities(row, 0))?;
    found.sort_unstable();
    Ok(found)
}

pub(super) fn last_resort(
    tx: &mut Transaction<'_>,
    client: &ClientUri,
    cipher_suite: u16,
) -> Result<Option<KeyPackageRow>, Failure> {
    let sql = "SELECT reference, client, cipher_suite, bytes, last_resort, used, expires, capabilities
               FROM ds_key_packages
               WHERE client = ?1 AND cipher_suite = ?2 AND last_resort = 1 LIMIT 1";
    tx.first(sql, (client.to_string(), cipher_suite), key_package_row)
}

pub(super) fn key_package_counts(
    tx: &mut Transaction<'_>,
    client: &ClientUri,
    now: Timestamp,
) -> Result<Vec<KeyPackageCount>, Failure> {
    let sql = "SELECT cipher_suite, sum(last_resort = 0), max(last_resort), max(last_resort AND used)
               FROM ds_key_packages WHERE client = ?1 AND expires > ?2 GROUP BY cipher_suite ORDER BY cipher_suite";
    tx.all(sql, (client.to_string(), stored(now.0)), |row| {
        Ok(KeyPackageCount {
            cipher_suite: row.get(0)?,
            available: number(row, 1)?,
            last_resort: row.get(2)?,
            last_resort_used: row.get(3)?,
        })
    })
}

pub(super) fn put_key_package(tx: &mut Transaction<'_>, row: &KeyPackageRow) -> Result<(), Failure> {
    tx.execute(
        "INSERT INTO ds_key_packages
            (reference, client, cipher_suite, bytes, last_resort, used, expires, capabilities)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (reference) DO UPDATE SET
            client = excluded.client,
            cipher_suite = excluded.cipher_suite,
            bytes = excluded.bytes,
            last_resort = excluded.last_resort,
            used = excluded.used,
            expires = excluded.expires,
            capabilities = excluded.capabilities",
        (
            row.reference.as_bytes(),
            row.client.to_string(),
            row.cipher_suite,
            &row.bytes,
            row.last_resort,
            row.used,
            stored(row.expires.0),
            row.capabilities.to_bytes().map_err(|error| Failure::Corrupt(error.to_string()))?,
        ),
    )?;
    Ok(())
}

pub(super) fn delete_key_package(tx: &mut Transaction<'_>, reference: &Hash) -> Result<(), Failure> {
    tx.execute("DELETE FROM ds_key_packages WHERE reference = ?1", [reference.as_bytes()])?;
    Ok(())
}

pub(super) fn delete_key_packages(tx: &mut Transaction<'_>, client: &ClientUri) -> Result<u64, Failure> {
    let deleted = tx.execute("DELETE FROM ds_key_packages WHERE client = ?1", [client.to_string()])?;
    let sql = "DELETE FROM ds_directory WHERE user = ?1 AND device = ?2";
    tx.execute(sql, (client.user().to_string(), client.device()))?;
    Ok(deleted as u64)
}

pub(super) fn directory_clients(
    tx: &mut Transaction<'_>,
    user: &UserUri,
    now: Timestamp,
) -> Result<Vec<ClientUri>, Failure> {
    let sql = "SELECT user, device FROM ds_directory WHERE user = ?1 AND expires > ?2 ORDER BY device";
    tx.all(sql, (user.to_string(), stored(now.0)), |row| client_at(row, 0, 1))
}

pub(super) fn put_directory_client(
    tx: &mut Transaction<'_>,
    client: &ClientUri,
    expires: Timestamp,
) -> Result<(), Failure> {
    tx.execute(
        "INSERT INTO ds_directory (user, device, expires) VALUES (?1, ?2, ?3)
         ON CONFLICT (user, device) DO UPDATE SET expires = excluded.expires",
        (client.user().to_string(), client.device(), stored(expires.0)),
    )?;
    Ok(())
}

pub(super) fn claimed(tx: &mut Transaction<'_>, reference: &KeyedHash) -> Result<bool, Failure> {
    let sql = "SELECT 1 FROM ds_claimed WHERE reference = ?1";
    Ok(tx.first(sql, [reference], |_| Ok(()))?.is_some())
}

pub(super) fn put_claimed(tx: &mut Transaction<'_>, reference: &KeyedHash, expires: Timestamp) -> Result<(), Failure> {
    tx.execute(
        "INSERT INTO ds_claimed (reference, expires) VALUES (?1, ?2)
         ON CONFLICT (reference) DO UPDATE SET expires = excluded.expires",
        (reference, stored(expires.0)),
    )?;
    Ok(())
}
