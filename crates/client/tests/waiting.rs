//! Invitations that cannot be taken up when they come, and a server that falls silent.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::time::Duration;

use common::{SharedStore, World, has, noted, texts, user};
use conclave_client::{Client, ClientEvent, Event, Status, store::ProfileStore as _};
use conclave_engine::writes::{Room, Write};
use zeroize::Zeroizing;

fn waiting(store: &SharedStore) -> usize {
    store.scan(Room::WAITING, b"").unwrap().len()
}

fn waits(events: &[ClientEvent]) -> bool {
    has(events, |event| matches!(event, Event::InvitationWaits { reason } if reason.contains("tree")))
}

fn joined(events: &[ClientEvent]) -> usize {
    events.iter().filter(|happened| matches!(happened.event, Event::Joined { .. })).count()
}

/// The server has lost, or withholds, every blob that it has now.
fn hide_blobs(world: &World) {
    world.database().execute_batch("CREATE TABLE hidden AS SELECT * FROM ds_blobs; DELETE FROM ds_blobs;").unwrap();
}

fn show_blobs(world: &World) {
    let show = "INSERT OR IGNORE INTO ds_blobs SELECT * FROM hidden; DROP TABLE hidden;";
    world.database().execute_batch(show).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_whose_tree_is_withheld_is_told_of_and_taken_up_later() {
    let world = World::whole().await;
    let store = SharedStore::default();
    let mut alice = world.person("alice").await;
    let mut bob = world.person_in(Box::new(store.clone()), "bob").await;
    let club = alice.create_group("The Club").await.unwrap();
    alice.add(&club, &[user("bob")]).await.unwrap();
    hide_blobs(&world);
    let open = alice.create_group("The Pub").await.unwrap();
    alice.add(&open, &[user("bob")]).await.unwrap();
    let events = bob.sync().await.unwrap();
    assert!(waits(&events), "{events:?}");
    assert_eq!((joined(&events), waiting(&store)), (1, 1), "what came behind it does not wait: {events:?}");
    assert_eq!(*bob.group(&open).unwrap().status(), Status::Active);
    assert_eq!(noted(&bob, &club, "invitation_waits"), 1, "its history begins with it");
    drop(bob);
    // It is told once, also after a restart; and is still there.
    let mut bob = Client::over(Box::new(store.clone()), &world.services()).unwrap();
    let events = bob.sync().await.unwrap();
    assert!(!waits(&events), "{events:?}");
    assert_eq!(waiting(&store), 1);
    show_blobs(&world);
    let events = bob.sync().await.unwrap();
    assert_eq!((joined(&events), waiting(&store)), (1, 0), "{events:?}");
    bob.send(&club, "here I am").await.unwrap();
    alice.sync().await.unwrap();
    assert_eq!(texts(&alice, &club), ["here I am"]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_week_it_is_dropped_and_that_is_told() {
    let world = World::whole().await;
    let mut store = SharedStore::default();
    let mut alice = world.person("alice").await;
    let mut bob = world.person_in(Box::new(store.clone()), "bob").await;
    let club = alice.create_group("The Club").await.unwrap();
    alice.add(&club, &[user("bob")]).await.unwrap();
    hide_blobs(&world);
    bob.sync().await.unwrap();
    // It came a week ago.
    let (key, value) = store.scan(Room::WAITING, b"").unwrap().remove(0);
    let since = u64::from_be_bytes(*value.first_chunk::<8>().unwrap()) - 7 * 86_400_000;
    let value = Zeroizing::new([since.to_be_bytes().as_slice(), &value[8..]].concat());
    store.apply(&[Write::Put { room: Room::WAITING, key, value }]).unwrap();
    let events = bob.sync().await.unwrap();
    let dropped = |event: &Event| matches!(event, Event::InvitationDropped { reason } if reason.contains("week"));
    assert!(
        events.iter().any(|happened| happened.group.as_ref() == Some(&club) && dropped(&happened.event)),
        "{events:?}"
    );
    assert_eq!(noted(&bob, &club, "invitation_dropped"), 1);
    assert_eq!(waiting(&store), 0);
    show_blobs(&world);
    assert!(bob.sync().await.unwrap().is_empty(), "it is gone");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_server_fails_invitations_wait_and_everything_else_goes_on() {
    let world = World::whole().await;
    let store = SharedStore::default();
    let mut alice = world.person("alice").await;
    let mut bob = world.person_in(Box::new(store.clone()), "bob").await;
    let old = alice.create_group("An old one").await.unwrap();
    alice.add(&old, &[user("bob")]).await.unwrap();
    bob.sync().await.unwrap();
    for title in ["The Club", "The Pub"] {
        let group = alice.create_group(title).await.unwrap();
        alice.add(&group, &[user("bob")]).await.unwrap();
    }
    alice.send(&old, "hello").await.unwrap();
    // Nothing can be read of it; that is no word about what is there.
    world.database().execute_batch("ALTER TABLE ds_blobs RENAME TO hidden").unwrap();
    bob.set_deadline(Duration::from_millis(300));
    let events = bob.sync().await.unwrap();
    assert_eq!((joined(&events), waiting(&store)), (0, 2), "{events:?}");
    assert!(!has(&events, |event| matches!(event, Event::InvitationDropped { .. })), "{events:?}");
    assert_eq!(texts(&bob, &old), ["hello"]);
    world.database().execute_batch("ALTER TABLE hidden RENAME TO ds_blobs").unwrap();
    let events = bob.sync().await.unwrap();
    assert_eq!((joined(&events), waiting(&store)), (2, 0), "{events:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_is_told_of_once_and_heard_again() {
    let mut world = World::whole().await;
    let (mut alice, mut bob, club) = world.pair().await;
    alice.send(&club, "hello").await.unwrap();
    bob.set_silence(Duration::from_millis(500));
    bob.set_deadline(Duration::from_millis(300));
    let mut listener = bob.listen();
    let said = |event: &Event, wanted: &str| matches!(event, Event::Message { text: Some(text), .. } if text == wanted);
    while !has(&listener.next().await.unwrap(), |event| said(event, "hello")) {}
    let running = world.delivery.take().unwrap();
    let listen = running.addr();
    running.shutdown().await;
    let events = listener.next().await.unwrap();
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(
        events[0].group.as_ref() == Some(&club) && matches!(events[0].event, Event::ServerSilent { .. }),
        "{events:?}"
    );

    let directory = world.directories[0].path();
    let config = conclave_server::Config { listen, ..conclave_server::Config::for_tests(directory, common::domain()) };
    world.delivery = Some(conclave_server::Server::start(config).await.unwrap());
    alice.send(&club, "are you there?").await.unwrap();
    let mut heard = Vec::new();
    while !has(&heard, |event| said(event, "are you there?")) {
        heard.extend(listener.next().await.unwrap());
    }
    assert!(!has(&heard, |event| matches!(event, Event::ServerSilent { .. })), "it is told once: {heard:?}");
    drop(listener);
    assert_eq!(noted(&bob, &club, "server_silent"), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_that_does_not_open_is_told_of_and_the_remedy_helps() {
    let world = World::whole().await;
    let store = SharedStore::default();
    let mut alice = world.person("alice").await;
    let bob = world.person_in(Box::new(store.clone()), "bob").await;
    drop(bob);
    let club = alice.create_group("The Club").await.unwrap();
    alice.add(&club, &[user("bob")]).await.unwrap();
    // As from a backup that is older than his keying material.
    let mut damaged = store.clone();
    let package = |row: &(Vec<u8>, Zeroizing<Vec<u8>>)| row.0.starts_with(b"package/");
    let rows = store.scan(Room::KEY_PACKAGE, b"").unwrap();
    let gone = rows.into_iter().filter(package).map(|(key, _)| Write::Delete { room: Room::KEY_PACKAGE, key });
    damaged.apply(&gone.collect::<Vec<_>>()).unwrap();
    let mut bob = Client::over(Box::new(store.clone()), &world.services()).unwrap();
    let events = bob.sync().await.unwrap();
    let told = |event: &Event| matches!(event, Event::InvitationDropped { reason } if reason.contains("added again"));
    assert_eq!(events.iter().filter(|happened| happened.group.is_none() && told(&happened.event)).count(), 1);
    assert_eq!((joined(&events), waiting(&store)), (0, 0), "{events:?}");
    assert!(bob.sync().await.unwrap().is_empty(), "it is told once");
    alice.remove(&club, &[user("bob")]).await.unwrap();
    alice.add(&club, &[user("bob")]).await.unwrap();
    assert_eq!(joined(&bob.sync().await.unwrap()), 1);
    world.stop().await;
}

/// That a key was used is noted at once; the state from which it could be derived again is overwritten after five seconds.
#[tokio::test(flavor = "multi_thread")]
async fn used_keys_are_overwritten_in_time_while_the_server_is_away_too() {
    let mut world = World::whole().await;
    let store = SharedStore::default();
    let (mut alice, mut bob) = (world.person("alice").await, world.person_in(Box::new(store.clone()), "bob").await);
    let club = alice.create_group("The Club").await.unwrap();
    alice.add(&club, &[user("bob")]).await.unwrap();
    bob.sync().await.unwrap();
    alice.send(&club, "hello").await.unwrap();
    let noted = || store.scan(Room::USED, b"").unwrap().len();
    bob.set_silence(Duration::from_millis(5_500));
    bob.set_deadline(Duration::from_millis(300));
    let mut listener = bob.listen();
    let hello = |event: &Event| matches!(event, Event::Message { text: Some(text), .. } if text == "hello");
    while !has(&listener.next().await.unwrap(), hello) {}
    assert_eq!(noted(), 1);
    let listen = world.stop_delivery().await;
    // Which the listener spends without a server.
    while !has(&listener.next().await.unwrap(), |event| matches!(event, Event::ServerSilent { .. })) {}
    assert_eq!(noted(), 0);
    drop(listener);

    world.start_delivery(listen, |_| {}).await;
    bob.set_deadline(Duration::from_secs(30));
    bob.send(&club, "hello back").await.unwrap();
    world.stop().await;
    // Who has nothing to call for, and no listener, is told when.
    let again = bob.tend().unwrap().unwrap();
    assert!(again <= Duration::from_secs(5) && noted() == 1, "{again:?}");
    tokio::time::sleep(again).await;
    assert_eq!((bob.tend().unwrap(), noted()), (None, 0));
}
