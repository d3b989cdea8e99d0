//! KeyPackages under contention.

use std::{collections::BTreeSet, sync::Arc};

use conclave_names::ChannelId;
use conclave_protocol::{method, v1};
use tokio::task::JoinSet;

use super::{client::*, people::*};

const POOL: usize = 50;

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_claimants_of_one_pool_never_get_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let client = Client::of(&running).await;
    let alice = Certified::new(&client, "alice/laptop", 1, "").await.unwrap();
    let inbox = ChannelId::new([9; 16]);
    let mut key_packages = Vec::new();
    for _ in 0..POOL {
        key_packages.push(alice.key_package(&client, inbox, [1; 32]).await);
    }
    let last_resort = alice.last_resort(&client, inbox, [1; 32]).await;
    let message = v1::UploadRequest { key_packages: key_packages.clone(), last_resort: last_resort.clone() };
    client.directory().upload(alice.sign(method::UPLOAD, &message)).await.unwrap();

    // 64 claims at once, each sent twice at once: a retry is no claim of its own.
    let claimants = [("bob/phone", 2), ("carol/phone", 3), ("dave/phone", 4), ("eve/phone", 5)];
    let mut people = Vec::new();
    for (name, n) in claimants {
        people.push(Arc::new(Certified::new(&client, name, n, "").await.unwrap()));
    }
    let mut claims = JoinSet::new();
    for n in 0..64_u8 {
        let (client, who) = (client.clone(), Arc::clone(&people[usize::from(n) % people.len()]));
        let message = v1::ClaimRequest {
            target: "mimi://example.com/u/alice".into(),
            cipher_suites: vec![1],
            idempotency_key: vec![n; 16],
            required: Some(v1::Capabilities { extension_types: vec![0xF0C1], ..Default::default() }),
        };
        claims.spawn(async move {
            let claim =
                async || client.directory().claim(who.sign(method::CLAIM, &message)).await.unwrap().into_inner();
            let (one, other) = tokio::join!(claim(), claim());
            assert_eq!(one, other, "the same claim twice");
            one
        });
    }
    let replies = claims.join_all().await;
    let mut served = BTreeSet::new();
    let mut last_resorts = 0;
    for reply in replies {
        assert_eq!((reply.key_packages.len(), reply.without.len()), (1, 0));
        let package = &reply.key_packages[0];
        if package.last_resort {
            last_resorts += 1;
            assert_eq!(package.key_package, last_resort);
        } else {
            assert!(served.insert(package.key_package.clone()), "one was served twice");
        }
    }
    assert_eq!(served, key_packages.into_iter().collect::<BTreeSet<_>>());
    assert_eq!(last_resorts, 64 - POOL, "the last resort only when the pool is empty");
    assert_eq!(available(&client, &alice).await, 0);
    running.shutdown().await;
}
