//! From an earlier version's rows to this one's.

use super::*;

/// A database as the first version made it, with some rows.
fn first_version() -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    for series in &SERIES {
        connection.execute_batch(series.migrations[0]).unwrap();
    }
    connection
        .execute_batch(
            "CREATE TABLE conclave_schema (series TEXT NOT NULL PRIMARY KEY, version INTEGER NOT NULL)
                STRICT, WITHOUT ROWID;
             INSERT INTO conclave_schema VALUES ('authentication', 1), ('delivery', 1);
             INSERT INTO ds_channels (id, head, head_hash, head_time, owner, drop_key_secret)
                VALUES (x'01', 2, x'AA', 5, x'0B', x'0C'), (x'02', 0, x'AA', 5, x'0B', x'0C');
             INSERT INTO ds_entries (channel, seq, kind, epoch, removes, time, bytes)
                VALUES (x'01', 1, 4, 0, 0, 5, x'010203'), (x'01', 2, 4, 0, 0, 5, x'0102');
             INSERT INTO ds_blobs (hash, size, received, whole, pins, expires)
                VALUES (x'B1', 3, 3, 1, 1, 9), (x'B2', 9, 2, 0, 0, 9);
             INSERT INTO ds_chunks (hash, start, data) VALUES (x'B1', 0, x'010203'), (x'B2', 0, x'0102');
             INSERT INTO ds_key_packages (reference, client, cipher_suite, last_resort, used, expires, bytes)
                VALUES (x'01', 'c', 1, 0, 0, 9, x'01');",
        )
        .unwrap();
    connection.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
    connection.pragma_update(None, "user_version", 1).unwrap();
    connection
}

#[test]
fn rows_of_the_first_version_are_carried_over() {
    let mut connection = first_version();
    examine(&connection).unwrap();
    migrate(&mut connection, Services::Both).unwrap();
    let number = |sql: &str| connection.query_row(sql, (), |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(number("PRAGMA user_version"), i64::from(VERSION));
    assert_eq!(number("SELECT bytes FROM ds_channels WHERE id = x'01'"), 5);
    assert_eq!(number("SELECT bytes FROM ds_channels WHERE id = x'02'"), 0);
    let whole = "SELECT count(*) FROM ds_blobs JOIN ds_chunks ON ds_chunks.name = ds_blobs.chunks WHERE pins = 1";
    assert_eq!(number(whole), 1);
    assert_eq!(number("SELECT count(*) FROM ds_chunks"), 1, "what was half staged is gone");
    assert_eq!(number("SELECT count(*) FROM ds_blobs"), 1);
    assert_eq!(number("SELECT count(*) FROM ds_key_packages"), 0);
    // Nothing is left to do.
    migrate(&mut connection, Services::Both).unwrap();
}
