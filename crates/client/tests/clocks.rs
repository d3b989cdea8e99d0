//! Clocks that are wrong: what a server says of the time deletes nothing that is in use, and steps of this machine's clock pass.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::time::Duration;

use common::{SharedStore, World, has, texts, user};
use conclave_client::{ClientEvent, Event, store::ProfileStore as _};
use conclave_engine::writes::Room;
use conclave_server::set_ahead_for_tests;

const DAY: u64 = 86_400_000;

fn told(events: &[ClientEvent]) -> usize {
    events.iter().filter(|happened| matches!(happened.event, Event::ClocksDiffer { .. })).count()
}

fn packages(store: &SharedStore) -> usize {
    store.scan(Room::KEY_PACKAGE, b"package/").unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_in_the_year_9999_deletes_no_keys() {
    set_ahead_for_tests(0);
    let world = World::whole().await;
    let store = SharedStore::default();
    let mut bob = world.person_in(Box::new(store.clone()), "bob").await;
    bob.set_deadline(Duration::from_millis(500));
    // With the key before, of which KeyPackages are kept.
    bob.rotate_keys().await.unwrap();
    let (before, former) = (packages(&store), bob.former_signature_keys());
    assert!(before > 20 && former == 1);

    set_ahead_for_tests(7973 * 365 * DAY);
    // Whatever comes of it: for that server the certificate has ended long ago.
    let mut events = Vec::new();
    for _ in 0..3 {
        events.extend(bob.sync().await.unwrap_or_default());
        let _ = bob.refill_key_packages().await;
        let _ = bob.renew_credential().await;
    }
    events.extend(bob.take_untold());
    assert_eq!(told(&events), 1, "{events:?}");
    assert!(packages(&store) >= before, "the private parts are there");
    assert_eq!(bob.former_signature_keys(), former);

    // The same process goes on when the server's clock is right again.
    set_ahead_for_tests(0);
    bob.renew_credential().await.unwrap();
    let events = bob.sync().await.unwrap();
    assert_eq!(told(&events), 0, "{events:?}");
    let mut alice = world.person("alice").await;
    let club = alice.create_group("The Club").await.unwrap();
    alice.add(&club, &[user("bob")]).await.unwrap();
    alice.send(&club, "hello").await.unwrap();
    bob.sync().await.unwrap();
    assert_eq!(texts(&bob, &club), ["hello"]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_were_used_go_while_the_server_is_away() {
    let mut world = World::whole().await;
    let (mut alice, store) = (world.person("alice").await, SharedStore::default());
    let mut bob = world.person_in(Box::new(store.clone()), "bob").await;
    let club = alice.create_group("The Club").await.unwrap();
    alice.add(&club, &[user("bob")]).await.unwrap();
    bob.sync().await.unwrap();
    bob.set_deadline(Duration::from_millis(100));
    alice.send(&club, "hello").await.unwrap();
    // What was used is noted until the state is written.
    let lacks = || !store.scan(Room::USED, b"").unwrap().is_empty();
    let listening = async {
        let mut listener = bob.listen();
        while !has(&listener.next().await.unwrap(), |event| matches!(event, Event::Message { .. })) {}
    };
    tokio::time::timeout(Duration::from_secs(30), listening).await.unwrap();
    assert!(lacks());
    let listen = world.stop_delivery().await;
    let gone = async {
        let mut listener = bob.listen();
        while lacks() {
            let _ = tokio::time::timeout(Duration::from_millis(100), listener.next()).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.unwrap();
    world.start_delivery(listen, |_| {}).await;
    // So does a sync that fails.
    bob.set_deadline(Duration::from_secs(10));
    bob.sync().await.unwrap();
    bob.send(&club, "here").await.unwrap();
    assert!(lacks());
    bob.set_deadline(Duration::from_millis(100));
    world.stop_delivery().await;
    let gone = async {
        while lacks() {
            assert!(bob.sync().await.is_err());
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.unwrap();
}
