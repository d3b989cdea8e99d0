//! Going on without somebody, by a program that dies in between: nobody is left behind who was to be had.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use common::{SharedStore, World, dying, user};
use conclave_client::{Client, Status};
use conclave_server::set_ahead_for_tests;

const OTHER: u16 = 3;

const DAY: u64 = 86_400_000;

/// Alice goes on without Carol, and dies after so many transactions. Says whether she lived.
async fn dies_after(count: usize) -> bool {
    set_ahead_for_tests(0);
    let world = World::whole().await;
    let (store, left) = (SharedStore::default(), Arc::new(AtomicUsize::new(usize::MAX)));
    let (mut alice, mut bob) = (world.person_in(dying(&store, &left), "alice").await, world.person("bob").await);
    let mut carol = world.person("carol").await;
    let club = alice.create_group("The Club").await.unwrap();
    alice.add(&club, &[user("bob"), user("carol")]).await.unwrap();
    for person in [&mut bob, &mut carol] {
        person.sync().await.unwrap();
    }
    carol.reinit(&club, OTHER, false).await.unwrap();
    drop(carol);
    let withdrawn = "DELETE FROM ds_key_packages WHERE client LIKE '%/carol/%'";
    assert!(world.database().execute(withdrawn, ()).unwrap() > 0);
    alice.sync().await.unwrap();
    set_ahead_for_tests(8 * DAY);
    alice.sync().await.unwrap();

    left.store(count, Ordering::Relaxed);
    let lived = alice.go_on_without(&club).await.is_ok();
    drop(alice);
    let mut alice = Client::over(Box::new(store), &world.services()).unwrap();
    alice.sync().await.unwrap();
    if alice.current(&club).unwrap() == club {
        alice.go_on_without(&club).await.unwrap();
    }
    for _ in 0..2 {
        bob.sync().await.unwrap();
        alice.sync().await.unwrap();
    }
    let next = alice.current(&club).unwrap();
    assert_ne!(next, club, "after {count}");
    assert_eq!(bob.current(&club).unwrap(), next, "after {count}");
    for person in [&mut alice, &mut bob] {
        assert_eq!(*person.group(&next).unwrap().status(), Status::Active, "after {count}");
        assert_eq!(person.group(&next).unwrap().members().unwrap().len(), 2, "after {count}");
    }
    bob.send(&next, "here").await.unwrap();
    alice.sync().await.unwrap();
    world.stop().await;
    lived
}

#[tokio::test(flavor = "multi_thread")]
async fn wherever_it_dies_all_who_were_to_be_had_go_on_in_one_group() {
    let mut count = 0;
    while !Box::pin(dies_after(count)).await {
        count += 1;
        assert!(count < 60, "it never ends");
    }
    assert!(count > 4, "{count}");
}
