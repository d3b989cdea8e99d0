//! A client that has lost its groups asks until it is back, over a real server (R93).

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::collections::BTreeSet;

use common::{SharedStore, World, has, user};
use conclave_client::{ASKING_LASTS_MS, Client, Event, RecoveryFile, Status, store::ProfileStore};
use conclave_engine::writes::{Room, Write};
use conclave_names::{ClientUri, GroupUri, UserUri};

const HOUR: u64 = 3_600_000;

/// Lets time pass for the asking: everything in it becomes that much older. The client is opened anew.
fn later(world: &World, client: Client, store: &mut SharedStore, ms: u64) -> Client {
    drop(client);
    let row = store.get(Room::ACCOUNT, b"asking").unwrap().unwrap();
    let mut asking: serde_json::Value = serde_json::from_slice(&row).unwrap();
    let older = |value: &mut serde_json::Value| *value = (value.as_u64().unwrap() - ms).into();
    older(&mut asking["since"]);
    older(&mut asking["next"]);
    for list in ["users", "devices"] {
        asking[list].as_object_mut().unwrap().values_mut().for_each(older);
    }
    let value = serde_json::to_vec(&asking).unwrap().into();
    store.apply(&[Write::Put { room: Room::ACCOUNT, key: b"asking".to_vec(), value }]).unwrap();
    Client::over(Box::new(store.clone()), &world.services()).unwrap()
}

fn users(clients: impl IntoIterator<Item = ClientUri>) -> BTreeSet<UserUri> {
    clients.into_iter().map(|client| client.user().clone()).collect()
}

fn is_active(client: &Client, group: &GroupUri) -> bool {
    client.groups().unwrap().iter().any(|of| of.name == *group && of.status == Status::Active)
}

/// Notes that wait in inboxes, all in all.
fn notes(world: &World) -> i64 {
    let count = "SELECT count(*) FROM ds_entries JOIN ds_channels ON ds_channels.id = channel WHERE kind = 7 AND ledger IS NULL";
    world.database().query_row(count, (), |row| row.get(0)).unwrap()
}

/// A group of Bob and four others; Bob's device is lost then.
async fn lost(world: &World) -> (Vec<Client>, RecoveryFile, GroupUri) {
    let mut others = Vec::new();
    for name in ["alice", "carol", "dave", "erin"] {
        others.push(world.person(name).await);
    }
    let mut bob = world.person("bob").await;
    let club = others[0].create_group("The Club").await.unwrap();
    let all = ["bob", "carol", "dave", "erin"].map(user);
    others[0].add(&club, &all).await.unwrap();
    for person in others.iter_mut().skip(1) {
        person.sync().await.unwrap();
    }
    bob.sync().await.unwrap();
    let file = bob.recovery_file().unwrap();
    (others, file, club)
}

async fn restored(world: &World, file: &RecoveryFile) -> (Client, SharedStore) {
    let store = SharedStore::default();
    (Client::restore(Box::new(store.clone()), &world.services(), file).await.unwrap(), store)
}

#[tokio::test(flavor = "multi_thread")]
async fn if_the_first_who_are_asked_never_answer_others_are_asked_later() {
    let world = World::whole().await;
    let (mut others, file, club) = lost(&world).await;
    let (mut bob, mut store) = restored(&world, &file).await;
    let first = users(bob.ask_for_groups(&[]).await.unwrap().devices);
    assert_eq!(first.len(), 3);
    let left = notes(&world);
    bob.sync().await.unwrap();
    assert_eq!(notes(&world), left, "nobody is asked before an hour has passed");

    let mut bob = later(&world, bob, &mut store, HOUR - 60_000);
    bob.sync().await.unwrap();
    assert_eq!((notes(&world), bob.asking().unwrap().rounds), (left, 1));
    let mut bob = later(&world, bob, &mut store, 120_000);
    bob.sync().await.unwrap();
    let asking = bob.asking().unwrap();
    assert_eq!((asking.rounds, asking.devices.len()), (2, 4), "{asking:?}");
    let second = users(asking.last_round().devices);
    assert_eq!((second.len(), second.difference(&first).count()), (3, 1), "who was not asked yet comes first");
    assert_eq!(asking.next.unwrap().0 - asking.users.values().max().unwrap().0, 2 * HOUR);

    // Of all of them only the one who was asked later is ever online again.
    let late = others.iter_mut().find(|person| !first.contains(person.user())).unwrap();
    let events = late.sync().await.unwrap();
    assert!(has(&events, |event| matches!(event, Event::Readmitted { .. })), "{events:?}");
    bob.sync().await.unwrap();
    assert!(is_active(&bob, &club));
    assert_eq!(bob.asking(), None, "he is back");
    assert!(store.get(Room::ACCOUNT, b"asking").unwrap().is_none());
    bob.send(&club, "here I am").await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_ends_before_it_has_asked_asks_with_its_first_sync() {
    let world = World::whole().await;
    let (mut others, file, club) = lost(&world).await;
    let (bob, store) = restored(&world, &file).await;
    drop(bob);
    let mut bob = Client::over(Box::new(store), &world.services()).unwrap();
    assert_eq!(bob.asking().unwrap().rounds, 0);
    bob.sync().await.unwrap();
    let asked = users(bob.asking().unwrap().last_round().devices);
    assert_eq!((asked.len(), bob.asking().unwrap().rounds), (3, 1));
    others.iter_mut().find(|person| asked.contains(person.user())).unwrap().sync().await.unwrap();
    bob.sync().await.unwrap();
    assert!(is_active(&bob, &club) && bob.asking().is_none());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gives_up_asks_nobody_any_more() {
    let world = World::whole().await;
    let (_others, file, _) = lost(&world).await;
    let (mut bob, store) = restored(&world, &file).await;
    bob.ask_for_groups(&[user("nobody")]).await.unwrap();
    assert!(bob.asking().unwrap().named.contains(&user("nobody")));
    assert!(bob.asking().unwrap().unable.iter().any(|unable| unable.who == user("nobody").to_string()));
    let left = notes(&world);
    assert!(left > 0);
    bob.forget_lost_groups().unwrap();
    assert_eq!(bob.asking(), None);
    drop(bob);
    let mut bob = Client::over(Box::new(store), &world.services()).unwrap();
    bob.sync().await.unwrap();
    assert_eq!((bob.asking(), notes(&world), bob.lost_groups().unwrap().len()), (None, left, 0));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_bothered_for_ever() {
    let world = World::whole().await;
    let (_others, file, _) = lost(&world).await;
    let (mut bob, mut store) = restored(&world, &file).await;
    bob.ask_for_groups(&[]).await.unwrap();
    let mut bob = later(&world, bob, &mut store, ASKING_LASTS_MS);
    bob.sync().await.unwrap();
    let asking = bob.asking().unwrap();
    assert_eq!((asking.rounds, asking.next), (2, None), "this was the last time");
    let left = notes(&world);
    bob.sync().await.unwrap();
    assert_eq!((notes(&world), bob.lost_groups().unwrap().len()), (left, 1), "but it is still said what is lost");
    // Unless the user wants it.
    bob.ask_for_groups(&[]).await.unwrap();
    assert!(notes(&world) > left && bob.asking().unwrap().next.is_some());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_named_is_asked_until_there_is_a_group_with_them() {
    let world = World::whole().await;
    let (mut alice, mut bob) = (world.person("alice").await, world.person("bob").await);
    // Made after the file was saved, so that it does not name it.
    let file = bob.recovery_file().unwrap();
    let club = alice.create_group("The Club").await.unwrap();
    alice.add(&club, &[user("bob")]).await.unwrap();
    bob.sync().await.unwrap();
    drop(bob);
    let (mut bob, mut store) = restored(&world, &file).await;
    bob.ask_for_groups(&[user("alice")]).await.unwrap();
    bob.sync().await.unwrap();
    let mut bob = later(&world, bob, &mut store, HOUR);
    bob.sync().await.unwrap();
    assert_eq!(bob.asking().unwrap().rounds, 2);
    alice.sync().await.unwrap();
    bob.sync().await.unwrap();
    assert!(is_active(&bob, &club) && bob.asking().is_none());
    // With nobody named, no group known and no other device there is nothing to ask for.
    let (mut bob, _) = restored(&world, &file).await;
    bob.sync().await.unwrap();
    assert_eq!(bob.asking(), None);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_asks_again_and_goes_on_when_it_is_let_in() {
    let world = World::whole().await;
    let (mut others, file, club) = lost(&world).await;
    let (mut bob, mut store) = restored(&world, &file).await;
    let first = users(bob.ask_for_groups(&[]).await.unwrap().devices);
    // Due in a moment, while it listens.
    let mut bob = later(&world, bob, &mut store, HOUR - 1500);
    let mut listener = bob.listen();
    let answered = async {
        // Nobody else is online: one who was asked by the listener only.
        let late = others.iter_mut().find(|person| !first.contains(person.user())).unwrap();
        while !has(&late.sync().await.unwrap(), |event| matches!(event, Event::Readmitted { .. })) {}
    };
    let listened =
        async { while !has(&listener.next().await.unwrap(), |event| matches!(event, Event::Joined { .. })) {} };
    tokio::join!(answered, listened);
    drop(listener);
    assert!(is_active(&bob, &club));
    bob.sync().await.unwrap();
    assert_eq!(bob.asking(), None);
    world.stop().await;
}
