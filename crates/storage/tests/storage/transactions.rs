//! What is undone, and what others see meanwhile.

use std::{sync::mpsc, time::Duration};

use conclave_authentication::store::StoreError;
use conclave_delivery::store::StoreError as DeliveryError;
use conclave_mls::capabilities::Capabilities;
use conclave_names::Timestamp;
use conclave_storage::{Database, OpenError, Options};

use crate::support::{client, is_registered, key_package, register, user, user_row};

/// What a service answers with.
#[derive(Debug, PartialEq)]
enum Refused {
    Service(u32),
    Store(StoreError),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn databases() -> Vec<(Database, Option<tempfile::TempDir>)> {
    let directory = tempfile::tempdir().unwrap();
    let on_disk = Database::open(directory.path(), Options::default()).unwrap();
    vec![(on_disk, Some(directory)), (Database::in_memory().unwrap(), None)]
}

#[tokio::test]
async fn an_error_leaves_no_trace_and_comes_back_as_it_is() {
    for (database, _directory) in databases() {
        let refused = database
            .authentication()
            .write(|tx| {
                tx.put_user(&user_row("alice"))?;
                assert!(tx.user(&user("alice"))?.is_some());
                Err::<(), _>(Refused::Service(5))
            })
            .await;
        assert_eq!(refused, Err(Refused::Service(5)));
        assert!(!is_registered(&database, "alice").await);
    }
}

#[tokio::test]
async fn a_failing_transaction_keeps_the_others_of_its_batch() {
    for (database, _directory) in databases() {
        // The writer waits in the first one while the others queue up, so that they are one batch.
        let (go, wait) = mpsc::channel::<()>();
        let store = database.authentication();
        let first =
            tokio::spawn(async move { store.write(move |_| wait.recv().map_err(|_| Refused::Service(0))).await });
        let writes: Vec<_> = (0..50_u32)
            .map(|number| {
                let store = database.authentication();
                tokio::spawn(async move {
                    store
                        .write(move |tx| {
                            tx.put_user(&user_row(&format!("u{number}")))?;
                            match number % 3 {
                                0 => Err(Refused::Service(number)),
                                1 => Ok(number),
                                _ => panic!("on purpose"),
                            }
                        })
                        .await
                })
            })
            .collect();
        tokio::task::yield_now().await;
        go.send(()).unwrap();
        first.await.unwrap().unwrap();
        for (number, write) in (0_u32..).zip(writes) {
            let answer = write.await.unwrap();
            let kept = number % 3 == 1;
            match number % 3 {
                0 => assert_eq!(answer, Err(Refused::Service(number))),
                1 => assert_eq!(answer, Ok(number)),
                _ => assert!(matches!(answer, Err(Refused::Store(StoreError::Unavailable(_)))), "{answer:?}"),
            }
            assert_eq!(is_registered(&database, &format!("u{number}")).await, kept, "{number}");
        }
    }
}

#[tokio::test]
async fn a_panic_harms_nobody_else() {
    for (database, _directory) in databases() {
        for _ in 0..20 {
            let answer = database.authentication().read::<(), Refused, _>(|_| panic!("on purpose")).await;
            assert!(matches!(answer, Err(Refused::Store(StoreError::Unavailable(_)))));
        }
        register(&database, "alice").await.unwrap();
        assert!(is_registered(&database, "alice").await);
    }
}

#[tokio::test]
async fn a_transaction_that_reads_cannot_write() {
    for (database, _directory) in databases() {
        let answer = database.authentication().read::<_, StoreError, _>(|tx| tx.put_user(&user_row("alice"))).await;
        assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
        assert!(!is_registered(&database, "alice").await);
        register(&database, "alice").await.unwrap();
        assert!(is_registered(&database, "alice").await, "only the one transaction could not write");
    }
}

#[tokio::test]
async fn an_error_of_the_store_that_is_swallowed_still_undoes_everything() {
    for (database, _directory) in databases() {
        let answer = database
            .authentication()
            .write::<_, StoreError, _>(|tx| {
                tx.put_user(&user_row("alice"))?;
                // A client without its user.
                let orphan = conclave_authentication::store::ClientRow {
                    client: client("bob/laptop"),
                    signature_key: [1; 32],
                    not_after_secs: 1,
                    registered: Timestamp(1),
                };
                assert!(matches!(tx.put_client(&orphan), Err(StoreError::Corrupt(_))));
                assert!(tx.user(&user("alice")).is_err(), "it goes on failing");
                Ok(())
            })
            .await;
        assert!(matches!(answer, Err(StoreError::Corrupt(_))), "{answer:?}");
        assert!(!is_registered(&database, "alice").await);
    }
}

#[tokio::test]
async fn a_transaction_that_reads_sees_one_state() {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(directory.path(), Options::default()).unwrap();
    let (started, has_started) = tokio::sync::oneshot::channel();
    let (go, wait) = mpsc::channel::<()>();
    let store = database.delivery();
    let reading = tokio::spawn(async move {
        store
            .read::<_, DeliveryError, _>(move |tx| {
                let before = tx.next_key_package(&client("alice/laptop"), 1, &Capabilities::default(), Timestamp(0))?;
                started.send(()).unwrap();
                wait.recv().unwrap();
                Ok((before, tx.next_key_package(&client("alice/laptop"), 1, &Capabilities::default(), Timestamp(0))?))
            })
            .await
    });
    has_started.await.unwrap();
    // The writer does not wait for the reader.
    let store = database.delivery();
    store.write::<_, DeliveryError, _>(|tx| tx.put_key_package(&key_package(1))).await.unwrap();
    let read_now = |tx: &mut dyn conclave_delivery::store::Read| {
        tx.next_key_package(&client("alice/laptop"), 1, &Capabilities::default(), Timestamp(0))
    };
    assert_eq!(store.read::<_, DeliveryError, _>(read_now).await.unwrap(), Some(key_package(1)));
    go.send(()).unwrap();
    assert_eq!(reading.await.unwrap().unwrap(), (None, None));
}

#[tokio::test]
async fn a_caller_that_leaves_changes_nothing() {
    let database = Database::in_memory().unwrap();
    let (go, wait) = mpsc::channel::<()>();
    let store = database.authentication();
    let first = tokio::spawn(async move { store.write(move |_| wait.recv().map_err(|_| StoreError::Full)).await });
    let leaving = {
        let database = database.clone();
        tokio::spawn(async move { register(&database, "alice").await })
    };
    tokio::task::yield_now().await;
    leaving.abort();
    assert!(leaving.await.unwrap_err().is_cancelled());
    go.send(()).unwrap();
    first.await.unwrap().unwrap();
    assert!(is_registered(&database, "alice").await, "it was queued, so it ran");
}

#[tokio::test]
async fn the_last_clone_may_end_inside_a_transaction() {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(directory.path(), Options::default()).unwrap();
    let (go, wait) = mpsc::channel::<()>();
    let store = database.authentication();
    let write = tokio::spawn(async move {
        let clone = store.clone();
        let work = move |tx: &mut dyn conclave_authentication::store::Tx| {
            wait.recv().unwrap();
            drop(clone);
            tx.put_user(&user_row("alice"))
        };
        store.write::<_, StoreError, _>(work).await
    });
    tokio::task::yield_now().await;
    write.abort();
    write.await.unwrap_err();
    drop(database);
    go.send(()).unwrap();

    // Nobody is left who could wait for the end, but it comes.
    let mut tries = 0;
    let reopened = loop {
        match Database::open(directory.path(), Options::default()) {
            Err(OpenError::InUse { .. }) if tries < 1000 => tokio::time::sleep(Duration::from_millis(5)).await,
            opened => break opened.unwrap(),
        }
        tries += 1;
    };
    assert!(is_registered(&reopened, "alice").await);
}

#[tokio::test]
async fn a_transaction_that_refuses_after_it_decided_undoes_its_batch_and_no_other() {
    use conclave_delivery::store::{OutboxKind, Tx};
    use conclave_protocol::{Code, Refusal};

    async fn rows(database: &Database) -> Vec<Vec<u8>> {
        let rows = database.delivery().read(|read| read.outbox(100)).await;
        rows.unwrap_or_else(|error: DeliveryError| panic!("{error}")).into_iter().map(|row| row.payload).collect()
    }

    fn refuses() -> Refusal {
        Refusal::new(Code::QuotaExceeded, "as the test wants it")
    }

    for (database, _directory) in databases() {
        let run = |work: fn(&mut dyn Tx) -> Result<(), Refusal>| {
            let store = database.delivery();
            tokio::spawn(async move { store.write(move |tx| work(tx)).await })
        };
        fn push(tx: &mut dyn Tx, payload: &[u8]) -> Result<(), Refusal> {
            Ok(tx.push_outbox(OutboxKind::Welcome, payload)?)
        }
        run(|tx| push(tx, b"before")).await.unwrap().unwrap();
        let (go, wait) = mpsc::channel::<()>();
        let store = database.delivery();
        let first = tokio::spawn(async move { store.write(move |_| wait.recv().map_err(|_| refuses())).await });
        tokio::task::yield_now().await;
        // One batch: what decides and keeps its word, what refuses before and after it wrote without having decided, what
        // wrote before it decided (and so can be undone), and at last what breaks its word.
        let batch = [
            run(|tx| {
                tx.decided()?;
                push(tx, b"kept")
            }),
            run(|_| Err(refuses())),
            run(|tx| {
                push(tx, b"undone")?;
                Err(refuses())
            }),
            run(|tx| {
                push(tx, b"undone, too")?;
                tx.decided()?;
                Err(refuses())
            }),
            run(|tx| {
                tx.decided()?;
                push(tx, b"never")?;
                Err(refuses())
            }),
        ];
        tokio::task::yield_now().await;
        go.send(()).unwrap();
        first.await.unwrap().ok();
        let mut answers = Vec::new();
        for job in batch {
            answers.push(job.await.unwrap());
        }
        assert_eq!(answers[4].as_ref().unwrap_err().code, Code::Unavailable, "{answers:?}");
        // Whether they were one commit or several, what was answered with success is there and nothing else.
        let mut expected = vec![b"before".to_vec()];
        expected.extend(answers[0].is_ok().then(|| b"kept".to_vec()));
        assert_eq!(rows(&database).await, expected, "{answers:?}");
        run(|tx| push(tx, b"after")).await.unwrap().unwrap();
        expected.push(b"after".to_vec());
        assert_eq!(rows(&database).await, expected);
    }
}
