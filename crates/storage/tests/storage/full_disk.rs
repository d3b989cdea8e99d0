//! A store without room.

use conclave_protocol::{Code, Retry};
use conclave_storage::{Database, Options};

use crate::support::{fill, is_registered, register};

#[tokio::test]
async fn a_full_store_refuses_reads_on_and_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { max_bytes: Some(1024 * 1024), ..Options::default() };
    let database = Database::open(directory.path(), options).unwrap();
    register(&database, "alice").await.unwrap();
    let mut written = 0;
    let refusal = loop {
        match fill(&database, 60_000).await {
            Ok(()) => written += 1,
            Err(refusal) => break refusal,
        }
        assert!(written < 100, "the limit does not limit");
    };
    assert_eq!(refusal.code, Code::StorageFull);
    assert_eq!(refusal.retry(), Retry::Later);
    assert!(written > 5);

    // Nothing of the refused write is there, and all of what was answered.
    let count = || async {
        let rows = database.delivery().read::<_, conclave_delivery::store::StoreError, _>(|tx| tx.outbox(1000)).await;
        rows.unwrap().len()
    };
    assert_eq!(count().await, written);
    assert!(is_registered(&database, "alice").await);
    assert_eq!(fill(&database, 60_000).await.unwrap_err().code, Code::StorageFull, "it is still full");

    database.set_max_bytes(Some(4 * 1024 * 1024)).await.unwrap();
    fill(&database, 60_000).await.unwrap();
    register(&database, "bob").await.unwrap();
    assert_eq!(count().await, written + 1);
    assert!(is_registered(&database, "bob").await);

    // The lower limit again: what is there stays.
    database.set_max_bytes(Some(8192)).await.unwrap();
    assert_eq!(count().await, written + 1);
    assert_eq!(fill(&database, 200_000).await.unwrap_err().code, Code::StorageFull);
    database.set_max_bytes(None).await.unwrap();
    fill(&database, 6_000_000).await.unwrap();
}

#[tokio::test]
async fn when_it_fills_up_in_a_batch_every_answer_is_true() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { max_bytes: Some(1024 * 1024), ..Options::default() };
    let database = Database::open(directory.path(), options).unwrap();
    let writes: Vec<_> = (0..200)
        .map(|number| {
            let database = database.clone();
            tokio::spawn(async move {
                let large = fill(&database, 20_000).await;
                (number, large, register(&database, &format!("u{number}")).await)
            })
        })
        .collect();
    let (mut large_kept, mut full) = (0, 0);
    for write in writes {
        let (number, large, small) = write.await.unwrap();
        match large {
            Ok(()) => large_kept += 1,
            Err(refusal) => {
                assert_eq!(refusal.code, Code::StorageFull);
                full += 1;
            }
        }
        assert_eq!(is_registered(&database, &format!("u{number}")).await, small.is_ok());
    }
    assert!(large_kept > 0 && full > 0, "{large_kept} kept, {full} refused");
    let rows = database.delivery().read::<_, conclave_delivery::store::StoreError, _>(|tx| tx.outbox(1000)).await;
    assert_eq!(rows.unwrap().len(), large_kept);
}
