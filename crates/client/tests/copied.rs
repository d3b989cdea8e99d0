//! An older copy of a profile is put back, over a real server.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::{SharedStore, World, has, noted, texts, user};
use conclave_client::{Client, Event, Handshakes, Status};
use conclave_names::GroupUri;

/// Alice, what she copied of her profile, and Bob, in a group.
async fn copied(world: &World, handshakes: Handshakes) -> (Client, SharedStore, Client, GroupUri) {
    let store = SharedStore::default();
    let mut alice = world.person_in(Box::new(store.clone()), "alice").await;
    let mut bob = world.person("bob").await;
    let club = alice.create_group_with("The Club", handshakes).await.unwrap();
    alice.add(&club, &[user("bob")]).await.unwrap();
    alice.send(&club, "before").await.unwrap();
    bob.sync().await.unwrap();
    // As the client leaves it when it closes.
    alice.close();
    let copy = store.copy();
    (Client::over(Box::new(store), &world.services()).unwrap(), copy, bob, club)
}

fn open(world: &World, store: &SharedStore) -> Client {
    Client::over(Box::new(store.clone()), &world.services()).unwrap()
}

async fn modes(run: impl AsyncFn(World, Handshakes)) {
    for handshakes in [Handshakes::Private, Handshakes::Visible { external_senders: Vec::new() }] {
        run(World::whole().await, handshakes).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_after_an_older_copy_was_put_back_is_read_by_everybody() {
    Box::pin(modes(async |world, handshakes| {
        let (mut alice, copy, mut bob, club) = Box::pin(copied(&world, handshakes)).await;
        for text in ["one", "two", "three"] {
            alice.send(&club, text).await.unwrap();
        }
        drop(alice);
        let mut alice = open(&world, &copy);
        alice.send(&club, "four").await.unwrap();
        assert_eq!(noted(&alice, &club, "keys_used_elsewhere"), 1);
        let events = bob.sync().await.unwrap();
        assert!(!has(&events, |event| matches!(event, Event::Refused { .. })), "{events:?}");
        assert_eq!(texts(&bob, &club), ["before", "one", "two", "three", "four"]);
        bob.send(&club, "five").await.unwrap();
        alice.sync().await.unwrap();
        assert_eq!(texts(&alice, &club), ["before", "four", "five"]);
        world.stop().await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_while_the_server_is_away_waits_and_takes_no_used_key() {
    let mut world = World::whole().await;
    let (mut alice, copy, mut bob, club) = Box::pin(copied(&world, Handshakes::Private)).await;
    alice.send(&club, "newer").await.unwrap();
    drop(alice);
    let services = world.services();
    let listen = world.stop_delivery().await;
    let mut alice = Client::over(Box::new(copy.clone()), &services).unwrap();
    assert!(alice.send(&club, "older").await.unwrap_err().is_transient());
    // Nothing was encrypted.
    assert_eq!(alice.group(&club).unwrap().next_generation(), 1);
    drop(alice);
    world.start_delivery(listen, |_| {}).await;
    let mut alice = open(&world, &copy);
    alice.sync().await.unwrap();
    bob.sync().await.unwrap();
    assert_eq!(texts(&bob, &club), ["before", "newer", "older"]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_than_the_leaf_comes_back_at_once() {
    Box::pin(modes(async |world, handshakes| {
        let (mut alice, copy, mut bob, club) = Box::pin(copied(&world, handshakes)).await;
        alice.update(&club).await.unwrap();
        alice.send(&club, "newer").await.unwrap();
        drop(alice);
        let mut alice = open(&world, &copy);
        let events = alice.sync().await.unwrap();
        assert!(has(&events, |event| matches!(event, Event::KeysUsedElsewhere { .. })), "{events:?}");
        assert!(has(&events, |event| matches!(event, Event::Rejoined { .. })), "{events:?}");
        assert_eq!(*alice.group(&club).unwrap().status(), Status::Active);
        alice.send(&club, "older").await.unwrap();
        bob.sync().await.unwrap();
        assert_eq!(texts(&bob, &club), ["before", "newer", "older"]);
        bob.send(&club, "welcome back").await.unwrap();
        alice.sync().await.unwrap();
        assert_eq!(texts(&alice, &club), ["before", "older", "welcome back"]);
        world.stop().await;
    }))
    .await;
}
