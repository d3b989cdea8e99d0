//! Going on without somebody, by a program that dies in between: nobody is left behind who was to be had.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use common::{SharedStore, World, user};
use conclave_client::{
    Client, Status,
    store::{ProfileStore, Row, StoreError},
};
use conclave_engine::writes::{Room, StoredMessage, Write};
use conclave_server::set_ahead_for_tests;
use zeroize::Zeroizing;

const OTHER: u16 = 3;

const DAY: u64 = 86_400_000;

/// A store that takes so many more transactions, and then none: what was durable when the program died.
struct Dying {
    store: SharedStore,
    left: Arc<AtomicUsize>,
}

impl ProfileStore for Dying {
    fn apply(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        taken.map_err(|_| StoreError::Full).and_then(|_| self.store.apply(writes))
    }

    fn get(&self, room: Room, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        self.store.get(room, key)
    }

    fn scan(&self, room: Room, prefix: &[u8]) -> Result<Vec<Row>, StoreError> {
        self.store.scan(room, prefix)
    }

    fn messages(&self, group: &str, after_seq: u64, limit: usize) -> Result<Vec<StoredMessage>, StoreError> {
        self.store.messages(group, after_seq, limit)
    }

    fn last_messages(&self, group: &str, limit: usize) -> Result<Vec<StoredMessage>, StoreError> {
        self.store.last_messages(group, limit)
    }

    fn message_place(&self, group: &str, id: &[u8; 32]) -> Result<Option<(u64, u64)>, StoreError> {
        self.store.message_place(group, id)
    }

    fn message_count(&self, group: &str) -> Result<u64, StoreError> {
        self.store.message_count(group)
    }
}

/// Alice goes on without Carol, and dies after so many transactions. Says whether she lived.
async fn dies_after(count: usize) -> bool {
    set_ahead_for_tests(0);
    let world = World::whole().await;
    let (store, left) = (SharedStore::default(), Arc::new(AtomicUsize::new(usize::MAX)));
    let dying = Dying { store: store.clone(), left: Arc::clone(&left) };
    let (mut alice, mut bob) = (world.person_in(Box::new(dying), "alice").await, world.person("bob").await);
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
