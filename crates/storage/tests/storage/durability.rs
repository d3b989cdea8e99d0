//! What was answered is there.

use std::fs;

use conclave_authentication::store::StoreError;
use conclave_storage::{Database, Options};

use crate::support::{copy, is_registered, register};

#[tokio::test]
async fn a_database_that_is_dropped_keeps_what_it_answered() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["alice", "bob"] {
        let database = Database::open(directory.path(), Options::default()).unwrap();
        register(&database, name).await.unwrap();
        drop(database);
    }
    let database = Database::open(directory.path(), Options::default()).unwrap();
    assert!(is_registered(&database, "alice").await && is_registered(&database, "bob").await);
}

#[tokio::test]
async fn what_was_answered_survives_a_crash_at_any_moment() {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(directory.path(), Options::default()).unwrap();
    for number in 0..20 {
        register(&database, &format!("u{number}")).await.unwrap();
        let after_crash = tempfile::tempdir().unwrap();
        copy(directory.path(), after_crash.path());
        let recovered = Database::open(after_crash.path(), Options::default()).unwrap();
        for earlier in 0..=number {
            assert!(is_registered(&recovered, &format!("u{earlier}")).await, "{earlier} of {number}");
        }
    }
}

#[tokio::test]
async fn a_wal_with_a_torn_end_loses_nothing_that_was_answered() {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(directory.path(), Options::default()).unwrap();
    register(&database, "alice").await.unwrap();
    let after_crash = tempfile::tempdir().unwrap();
    copy(directory.path(), after_crash.path());
    // The next commit was under way: part of it is in the file.
    let wal = after_crash.path().join("conclave.db-wal");
    let mut bytes = fs::read(&wal).unwrap();
    let torn = bytes[bytes.len() - 5000..].to_vec();
    bytes.extend(torn);
    fs::write(&wal, bytes).unwrap();
    let recovered = Database::open(after_crash.path(), Options::default()).unwrap();
    assert!(is_registered(&recovered, "alice").await);
}

#[tokio::test]
async fn closing_answers_what_is_queued_and_refuses_what_comes_later() {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(directory.path(), Options::default()).unwrap();
    let writes: Vec<_> = (0..200)
        .map(|number| {
            let database = database.clone();
            tokio::spawn(async move { register(&database, &format!("u{number}")).await })
        })
        .collect();
    tokio::task::yield_now().await;
    database.close().await;
    database.close().await;
    assert!(matches!(register(&database, "late").await, Err(StoreError::Unavailable(_))));
    assert_eq!(fs::metadata(directory.path().join("conclave.db-wal")).map_or(0, |file| file.len()), 0);

    let reopened = Database::open(directory.path(), Options::default()).unwrap();
    for (number, write) in writes.into_iter().enumerate() {
        let answered = write.await.unwrap();
        assert_eq!(is_registered(&reopened, &format!("u{number}")).await, answered.is_ok(), "{number}: {answered:?}");
    }
    assert!(!is_registered(&reopened, "late").await);
}
