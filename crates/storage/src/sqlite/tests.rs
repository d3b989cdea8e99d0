//! What only happens when SQLite itself fails, provoked on the connection.

use std::sync::mpsc;

use super::*;
use job::{Ended, Kind};

/// Runs raw SQL as a transaction of its own.
async fn sql(database: &Database, sql: &'static str) -> Result<usize, Failure> {
    database.run(move |tx| tx.execute(sql, ()), |failure| failure, Kind::Writes).await
}

async fn count(database: &Database) -> u64 {
    database.run(|tx| tx.number("SELECT count(*) FROM child", ()), |failure| failure, Kind::Reads).await.unwrap()
}

/// A table in which a row without its parent is found at the commit only.
async fn with_late_check(database: &Database) {
    sql(database, "CREATE TABLE parent (id INTEGER PRIMARY KEY) STRICT").await.unwrap();
    let child = "CREATE TABLE child (id INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED) STRICT";
    sql(database, child).await.unwrap();
    sql(database, "INSERT INTO parent (id) VALUES (1)").await.unwrap();
}

#[tokio::test]
async fn when_the_commit_fails_everybody_in_it_is_told_and_nothing_is_changed() {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(directory.path(), Options::default()).unwrap();
    with_late_check(&database).await;
    let (go, wait) = mpsc::channel::<()>();
    let (begin, begun) = oneshot::channel();
    let holder = database.clone();
    let first = tokio::spawn(async move {
        let hold = move |_: &mut Transaction<'_>| {
            begin.send(()).map_err(|()| Failure::closed())?;
            wait.recv().map_err(|_| Failure::closed())
        };
        holder.run(hold, |failure| failure, Kind::Writes).await
    });
    // It is a commit of its own: nothing else waited when it began. The three behind it are one batch.
    begun.await.unwrap();
    let spawn = |text| {
        let database = database.clone();
        tokio::spawn(async move { sql(&database, text).await })
    };
    let batch = [
        spawn("INSERT INTO child (id) VALUES (1)"),
        spawn("INSERT INTO child (id) VALUES (2)"),
        spawn("INSERT INTO child (id) VALUES (1)"),
    ];
    tokio::task::yield_now().await;
    go.send(()).unwrap();
    first.await.unwrap().unwrap();
    for job in batch {
        let answer = job.await.unwrap();
        assert!(matches!(answer, Err(Failure::Corrupt(_))), "{answer:?}");
    }
    assert_eq!(count(&database).await, 0);
    sql(&database, "INSERT INTO child (id) VALUES (1)").await.unwrap();
    assert_eq!(count(&database).await, 1);
}

#[tokio::test]
async fn when_sqlite_ends_the_transaction_by_itself_nothing_runs_outside_of_one() {
    let database = Database::in_memory().unwrap();
    with_late_check(&database).await;
    let answer = database
        .run(
            |tx| {
                tx.execute("INSERT INTO child (id) VALUES (1)", ())?;
                assert!(tx.execute("INSERT OR ROLLBACK INTO parent (id) VALUES (1)", ()).is_err());
                // SQLite is in no transaction now: this would be durable at once.
                assert!(tx.execute("INSERT INTO child (id) VALUES (1)", ()).is_err());
                Ok::<_, Failure>(())
            },
            |failure| failure,
            Kind::Writes,
        )
        .await;
    assert!(matches!(answer, Err(Failure::Corrupt(_))), "{answer:?}");
    assert_eq!(count(&database).await, 0);
    sql(&database, "INSERT INTO child (id) VALUES (1)").await.unwrap();
    assert_eq!(count(&database).await, 1);
}

#[tokio::test]
async fn what_does_not_decode_is_told_as_such() {
    let database = Database::in_memory().unwrap();
    let broken = [
        "INSERT INTO as_users (user, identity_key, registered) VALUES ('mimi://example.com/u/a', x'00', 1)",
        "INSERT INTO as_users (user, identity_key, registered) VALUES ('mimi://example.com/u/b', zeroblob(32), -1)",
    ];
    for text in broken {
        sql(&database, text).await.unwrap();
    }
    for name in ["a", "b"] {
        let user = format!("mimi://example.com/u/{name}").parse().unwrap();
        let answer = database
            .authentication()
            .read::<_, authentication_store::StoreError, _>(move |tx| tx.user(&user))
            .await
            .unwrap_err();
        assert!(matches!(answer, authentication_store::StoreError::Corrupt(_)), "{answer:?}");
    }
}

#[tokio::test]
async fn a_locked_database_is_unavailable_and_then_available() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::default();
    let opened = open::open(directory.path(), &options).unwrap();
    opened.writer.busy_timeout(std::time::Duration::from_millis(20)).unwrap();
    let database = Database::start(opened.writer, opened.readers, Some(opened.lock), &options).unwrap();
    let other = Connection::open(directory.path().join("conclave.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let insert = "INSERT INTO ds_claimed (reference, expires) VALUES (x'00', 1)";
    assert!(matches!(sql(&database, insert).await, Err(Failure::Unavailable(_))));
    other.execute_batch("ROLLBACK").unwrap();
    sql(&database, insert).await.unwrap();
}

#[test]
fn settings_are_those_that_durability_rests_on() {
    let directory = tempfile::tempdir().unwrap();
    let opened = open::open(directory.path(), &Options::default()).unwrap();
    let pragma = |connection: &Connection, name: &str| -> String {
        let value = connection.query_row(&format!("PRAGMA {name}"), (), |row| row.get::<_, rusqlite::types::Value>(0));
        match value.unwrap() {
            rusqlite::types::Value::Integer(number) => number.to_string(),
            rusqlite::types::Value::Text(text) => text,
            other => panic!("{other:?}"),
        }
    };
    let writer = &opened.writer;
    for (name, expected) in [
        ("journal_mode", "wal"),
        ("synchronous", "2"),
        ("foreign_keys", "1"),
        ("page_size", "8192"),
        ("secure_delete", "1"),
    ] {
        assert_eq!(pragma(writer, name), expected, "{name}");
    }
    assert_eq!(pragma(&opened.readers[0], "journal_mode"), "wal");
    assert!(opened.readers[0].execute("DELETE FROM ds_claimed", ()).is_err());
}

#[test]
fn each_query_of_the_hot_paths_has_its_index() {
    let connection = open::in_memory(&Options::default()).unwrap();
    for (sql, index) in [
        (
            "SELECT seq FROM ds_entries WHERE channel = 1 AND removes = 1 AND epoch >= 1 ORDER BY +seq LIMIT 1",
            "ds_entries_removing",
        ),
        (
            "SELECT seq FROM ds_entries WHERE channel = 1 AND seq > 1 AND seq <= 5 ORDER BY seq LIMIT 1",
            "ds_entries_by_place",
        ),
        (
            "SELECT bytes FROM ds_key_packages WHERE client = 'a' AND cipher_suite = 1 AND last_resort = 0 AND expires > 1 ORDER BY id LIMIT 1",
            "ds_key_packages_by_client",
        ),
        ("DELETE FROM ds_blobs WHERE pins = 0 AND expires <= 1", "ds_blobs_by_expiry"),
        ("DELETE FROM ds_key_packages WHERE expires <= 1", "ds_key_packages_by_expiry"),
        ("SELECT count(*) FROM as_links WHERE user = 'a' AND expires > 1", "as_links_by_user"),
    ] {
        let plan: Vec<String> = connection
            .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
            .unwrap()
            .query_map((), |row| row.get(3))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert!(plan.iter().any(|step| step.contains(index)), "{sql}: {plan:?}");
        let sorts = plan.iter().any(|step| step.contains("TEMP B-TREE"));
        assert!(!sorts || index == "ds_entries_removing", "{sql}: {plan:?}");
    }
}

#[test]
fn a_job_runs_once() {
    let connection = open::in_memory(&Options::default()).unwrap();
    let (mut task, _answer) =
        Task::new(|_: &mut Transaction<'_>| Ok::<_, Failure>(()), |failure| failure, Kind::Writes);
    assert!(matches!(job::run(&mut task, &connection), (Ended::Kept, transaction::Undo::Nothing)));
    assert!(matches!(job::run(&mut task, &connection), (Ended::Refused, transaction::Undo::Nothing)));
}
