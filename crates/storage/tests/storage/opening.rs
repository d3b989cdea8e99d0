//! Who may open what.

use std::{error::Error, fs, path::Path};

use conclave_authentication::store::StoreError;
use conclave_delivery::store::StoreError as DeliveryError;
use conclave_storage::{Database, OpenError, Options, Services};
use rusqlite::Connection;

use crate::support::{is_registered, register, user};

fn tables(directory: &Path) -> Vec<String> {
    let connection = Connection::open(directory.join("conclave.db")).unwrap();
    let mut statement = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").unwrap();
    statement.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(directory.path(), Options::default()).unwrap();
    register(&database, "alice").await.unwrap();
    database.close().await;
    let file = directory.path().join("conclave.db");
    let known: u32 = {
        let connection = Connection::open(&file).unwrap();
        let known = connection.query_row("PRAGMA user_version", (), |row| row.get(0)).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        known
    };
    let before = fs::read(&file).unwrap();

    let refused = Database::open(directory.path(), Options::default()).unwrap_err();
    assert!(matches!(refused, OpenError::Newer { found: 99, known: named } if named == known), "{refused:?}");
    let text = refused.to_string();
    assert!(text.contains("version 99") && text.contains(&format!("version {known}")) && text.contains("backup"));
    assert!(fs::read(&file).unwrap() == before, "the file was changed");

    // Nor does the refusal keep the directory locked.
    Connection::open(&file).unwrap().pragma_update(None, "user_version", known).unwrap();
    let database = Database::open(directory.path(), Options::default()).unwrap();
    assert!(is_registered(&database, "alice").await);
}

#[test]
fn other_files_are_refused_and_left_as_they_are() {
    let sqlite_of_somebody = |path: &Path| {
        let connection = Connection::open(path).unwrap();
        connection.execute_batch("CREATE TABLE notes (text TEXT)").unwrap();
    };
    let marked_by_somebody = |path: &Path| {
        let connection = Connection::open(path).unwrap();
        connection.execute_batch("PRAGMA application_id = 77; PRAGMA user_version = 1").unwrap();
    };
    let no_database = |path: &Path| fs::write(path, vec![0x55; 20_000]).unwrap();
    let makers: [&dyn Fn(&Path); 3] = [&sqlite_of_somebody, &marked_by_somebody, &no_database];
    for (index, make) in makers.iter().enumerate() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("conclave.db");
        make(&file);
        let before = fs::read(&file).unwrap();
        let refused = Database::open(directory.path(), Options::default()).unwrap_err();
        assert!(matches!(refused, OpenError::Foreign), "{index}: {refused:?}");
        assert!(fs::read(&file).unwrap() == before, "{index}: the file was changed");
    }
}

#[test]
fn a_start_that_was_cut_short_is_begun_again() {
    // Made and switched to WAL, but not migrated.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("conclave.db");
    let connection = Connection::open(&file).unwrap();
    connection.query_row("PRAGMA journal_mode = WAL", (), |_| Ok(())).unwrap();
    drop(connection);
    Database::open(directory.path(), Options::default()).unwrap();
    fs::write(file.with_extension("other"), "").unwrap();
    let empty = tempfile::tempdir().unwrap();
    fs::write(empty.path().join("conclave.db"), "").unwrap();
    Database::open(empty.path(), Options::default()).unwrap();
}

#[tokio::test]
async fn a_second_server_is_refused_until_the_first_has_ended() {
    let directory = tempfile::tempdir().unwrap();
    let first = Database::open(directory.path(), Options::default()).unwrap();
    let refused = Database::open(directory.path(), Options::default()).unwrap_err();
    assert!(matches!(&refused, OpenError::InUse { path } if path == directory.path()), "{refused:?}");
    assert!(refused.to_string().contains("another server"));
    register(&first, "alice").await.unwrap();

    first.close().await;
    let second = Database::open(directory.path(), Options::default()).unwrap();
    assert!(is_registered(&second, "alice").await);
    assert!(matches!(register(&first, "bob").await, Err(StoreError::Unavailable(_))), "it is closed");
    drop(second);
    Database::open(directory.path(), Options::default()).unwrap();
}

#[tokio::test]
async fn each_service_has_its_tables_only() {
    let directory = tempfile::tempdir().unwrap();
    let options = |services| Options { services, ..Options::default() };
    let database = Database::open(directory.path(), options(Services::Authentication)).unwrap();
    register(&database, "alice").await.unwrap();
    let refused = database.delivery().read::<_, DeliveryError, _>(|tx| tx.server_secret()).await;
    assert!(matches!(refused, Err(DeliveryError::Unavailable(_))));
    database.close().await;
    let found = tables(directory.path());
    assert!(found.iter().any(|name| name.starts_with("as_")) && !found.iter().any(|name| name.starts_with("ds_")));

    // The other service joins later.
    let database = Database::open(directory.path(), Options::default()).unwrap();
    database.delivery().write::<_, DeliveryError, _>(|tx| tx.put_server_secret(&[1; 32])).await.unwrap();
    assert!(is_registered(&database, "alice").await);
    database.close().await;

    let alone = tempfile::tempdir().unwrap();
    let database = Database::open(alone.path(), options(Services::Delivery)).unwrap();
    database.delivery().write::<_, DeliveryError, _>(|tx| tx.put_server_secret(&[1; 32])).await.unwrap();
    let refused = database.authentication().read::<_, StoreError, _>(|tx| tx.user(&user("alice"))).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))));
    database.close().await;
    assert!(!tables(alone.path()).iter().any(|name| name.starts_with("as_")));
}

#[test]
fn a_path_that_cannot_be_a_directory_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("below")] {
        let refused = Database::open(&path, Options::default()).unwrap_err();
        assert!(matches!(refused, OpenError::Directory { .. }), "{refused:?}");
        assert!(refused.to_string().contains(&*path.to_string_lossy()));
        assert!(refused.source().is_some());
    }
}

#[cfg(unix)]
#[tokio::test]
async fn what_it_makes_only_its_owner_may_read() {
    use std::os::unix::fs::PermissionsExt;

    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("a/b");
    let database = Database::open(&directory, Options::default()).unwrap();
    register(&database, "alice").await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    let mut files = 0;
    for file in fs::read_dir(&directory).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        files += 1;
    }
    assert_eq!(files, 4, "database, WAL, its index, lock");
}
