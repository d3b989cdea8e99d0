//! One-time things are given once, whoever asks at the same time.

use std::collections::BTreeSet;

use conclave_delivery::store::StoreError;
use conclave_mls::capabilities::Capabilities;
use conclave_names::Timestamp;
use conclave_storage::{Database, Options};

use crate::support::{client, key_package};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_claimants_never_get_the_same_key_package() {
    const PACKAGES: u16 = 100;
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(directory.path(), Options::default()).unwrap();
    database
        .delivery()
        .write::<_, StoreError, _>(|tx| (0..PACKAGES).try_for_each(|number| tx.put_key_package(&key_package(number))))
        .await
        .unwrap();
    let claimants: Vec<_> = (0..64)
        .map(|_| {
            let store = database.delivery();
            tokio::spawn(async move {
                let mut got = Vec::new();
                for _ in 0..2 {
                    let claim = store.write::<_, StoreError, _>(|tx| {
                        let found =
                            tx.next_key_package(&client("alice/laptop"), 1, &Capabilities::default(), Timestamp(0))?;
                        if let Some(row) = &found {
                            tx.delete_key_package(&row.reference)?;
                            tx.put_claimed(row.reference.as_bytes(), row.expires)?;
                        }
                        Ok(found)
                    });
                    got.extend(claim.await.unwrap());
                }
                got
            })
        })
        .collect();
    let mut all = Vec::new();
    for claimant in claimants {
        all.extend(claimant.await.unwrap());
    }
    assert_eq!(all.len(), usize::from(PACKAGES), "128 claims of 100");
    assert_eq!(all.iter().map(|row| row.reference).collect::<BTreeSet<_>>().len(), all.len(), "one was given twice");
    for row in all {
        let claimed =
            database.delivery().read::<_, StoreError, _>(move |tx| tx.claimed(row.reference.as_bytes())).await;
        assert!(claimed.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_nonce_is_new_once() {
    let database = Database::in_memory().unwrap();
    let noting: Vec<_> = (0..64)
        .map(|_| {
            let store = database.delivery();
            tokio::spawn(async move {
                store.write::<_, StoreError, _>(|tx| tx.note_nonce(&[3; 32], Timestamp(9))).await.unwrap()
            })
        })
        .collect();
    let mut new = 0;
    for noted in noting {
        new += u32::from(noted.await.unwrap());
    }
    assert_eq!(new, 1);
}
