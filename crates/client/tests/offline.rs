//! What is said and changed while the server is away.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::{fmt::Debug, time::Duration};

use common::{SharedStore, World, has, noted, texts, user};
use conclave_client::{Client, ClientError, Event};
use conclave_names::GroupUri;

fn stored<T: Debug>(answer: Result<T, ClientError>) {
    let error = answer.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
}

fn place(client: &mut Client, group: &GroupUri) -> (u64, usize, usize) {
    let group = client.group(group).unwrap();
    (group.epoch().0, group.members().unwrap().len(), group.intents().count())
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_was_wished_offline_is_stored_and_arrives_once() {
    let mut world = World::whole().await;
    let store = SharedStore::default();
    let mut alice = world.person_in(Box::new(store.clone()), "alice").await;
    let (mut bob, carol) = (world.person("bob").await, world.person("carol").await);
    let club = alice.create_group("The Club").await.unwrap();
    alice.add(&club, &[user("bob"), user("carol")]).await.unwrap();
    bob.sync().await.unwrap();
    drop(carol);

    let listen = world.stop_delivery().await;
    alice.set_deadline(Duration::from_millis(200));
    stored(alice.send(&club, "one").await);
    stored(alice.send(&club, "two").await);
    stored(alice.update(&club).await);
    stored(alice.heartbeat(&club).await);
    stored(alice.remove(&club, &[user("carol")]).await);
    stored(alice.send_to_all(&club, "three").await);
    // What cannot be carried out later is not said to be stored.
    let error = alice.remove(&club, &[user("nobody")]).await.unwrap_err();
    assert!(!error.is_transient() && error.to_string().contains("not a member"), "{error}");
    assert_eq!(place(&mut alice, &club), (1, 3, 6));
    // The device is switched off.
    drop(alice);

    world.start_delivery(listen, |_| {}).await;
    let mut alice = Client::over(Box::new(store.clone()), &world.services()).unwrap();
    assert_eq!(place(&mut alice, &club).2, 6);
    alice.sync().await.unwrap();
    bob.sync().await.unwrap();
    assert_eq!(texts(&bob, &club), ["one", "two", "three"]);
    assert_eq!(texts(&alice, &club), ["one", "two", "three"]);
    let (epoch, members, pending) = place(&mut alice, &club);
    assert_eq!((epoch, members, pending), (3, 2, 0), "an update and a removal, once each");
    assert_eq!(place(&mut bob, &club).0, epoch);
    alice.sync().await.unwrap();
    bob.sync().await.unwrap();
    assert_eq!(place(&mut bob, &club).0, epoch);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_offline_twice_asks_once() {
    let mut world = World::whole().await;
    let (mut alice, mut bob, club) = world.pair().await;
    let listen = world.stop_delivery().await;
    bob.set_deadline(Duration::from_millis(200));
    stored(bob.leave(&club).await);
    stored(bob.leave(&club).await);
    assert_eq!(place(&mut bob, &club).2, 1);
    world.start_delivery(listen, |_| {}).await;
    bob.set_deadline(Duration::from_secs(30));
    bob.sync().await.unwrap();
    let events = alice.sync().await.unwrap();
    let asked = events.iter().filter(|happened| matches!(happened.event, Event::LeaveRequested { .. })).count();
    assert_eq!(asked, 1, "{events:?}");
    assert!(has(&events, |event| matches!(event, Event::Removed { .. })), "{events:?}");
    bob.sync().await.unwrap();
    let error = bob.send(&club, "still here?").await.unwrap_err();
    assert!(matches!(error, ClientError::Wish(_)), "{error:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_offline_is_for_those_who_were_members_then() {
    let mut world = World::whole().await;
    let (mut alice, mut bob, club) = world.pair().await;
    let mut carol = world.person("carol").await;
    let listen = world.stop_delivery().await;
    alice.set_deadline(Duration::from_millis(200));
    stored(alice.send(&club, "Carol must not know").await);
    stored(alice.send_to_all(&club, "hello whoever is there").await);
    world.start_delivery(listen, |_| {}).await;
    bob.add(&club, &[user("carol")]).await.unwrap();
    // Alice has not read of Carol when she writes this, either.
    alice.set_deadline(Duration::from_secs(30));
    let error = alice.send(&club, "nor this").await.unwrap_err();
    assert!(matches!(&error, ClientError::Dropped(reason) if reason.contains("members joined")), "{error:?}");
    assert_eq!(noted(&alice, &club, "intent_failed"), 1);
    alice.send(&club, "welcome Carol").await.unwrap();
    carol.sync().await.unwrap();
    assert_eq!(texts(&carol, &club), ["hello whoever is there", "welcome Carol"]);
    bob.sync().await.unwrap();
    // The first was encrypted for the members of its time, and came in time.
    assert_eq!(texts(&bob, &club), ["Carol must not know", "hello whoever is there", "welcome Carol"]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_to_a_group_that_one_was_removed_from_meanwhile_says_so() {
    let mut world = World::whole().await;
    let (mut alice, mut bob, club) = world.pair().await;
    let listen = world.stop_delivery().await;
    bob.set_deadline(Duration::from_millis(200));
    stored(bob.send(&club, "one").await);
    world.start_delivery(listen, |_| {}).await;
    bob.set_deadline(Duration::from_secs(30));
    alice.remove(&club, &[user("bob")]).await.unwrap();
    let error = bob.send(&club, "two").await.unwrap_err();
    assert!(matches!(error, ClientError::Wish(_)), "{error:?}");
    assert_eq!(noted(&bob, &club, "intent_failed"), 2);
    alice.sync().await.unwrap();
    assert!(texts(&alice, &club).is_empty());
    world.stop().await;
}
