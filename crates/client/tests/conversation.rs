//! The life of a group over real servers (RFC 9750, sections 3.1 to 3.5).

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod common;

use common::{World, has, noted, texts, user};
use conclave_client::{Client, ClientError, Event, Listener, Status};
use conclave_names::GroupUri;

fn authenticator(client: &mut Client, group: &GroupUri) -> (u64, Vec<u8>) {
    let group = client.group(group).unwrap();
    (group.epoch().0, group.epoch_authenticator().unwrap())
}

async fn people_join_talk_update_and_go(world: World) {
    let mut alice = world.person("alice").await;
    let mut bob = world.person("bob").await;
    let mut charlie = world.person("charlie").await;
    let club = alice.create_group("The Club").await.unwrap();
    let added = alice.add(&club, &[user("bob")]).await.unwrap();
    assert_eq!(added.clients.len(), 1);
    alice.send(&club, "hello Bob").await.unwrap();
    bob.sync().await.unwrap();
    assert_eq!(texts(&bob, &club), ["hello Bob"]);
    bob.send(&club, "hello Alice").await.unwrap();
    bob.add(&club, &[user("charlie")]).await.unwrap();
    charlie.sync().await.unwrap();
    alice.sync().await.unwrap();
    assert_eq!(authenticator(&mut alice, &club), authenticator(&mut bob, &club));
    assert_eq!(authenticator(&mut alice, &club), authenticator(&mut charlie, &club));
    assert!(texts(&charlie, &club).is_empty(), "what was said before joining is not for a joiner");
    charlie.send(&club, "hi all").await.unwrap();

    bob.sync().await.unwrap();
    bob.update(&club).await.unwrap();
    alice.sync().await.unwrap();
    charlie.sync().await.unwrap();
    alice.remove(&club, &[user("charlie")]).await.unwrap();
    alice.send(&club, "Charlie cannot read this").await.unwrap();
    let events = charlie.sync().await.unwrap();
    assert!(events.iter().any(|event| matches!(event.event, Event::RemovedFromGroup { .. })), "{events:?}");
    assert_eq!(*charlie.group(&club).unwrap().status(), Status::Removed);
    assert!(!texts(&charlie, &club).iter().any(|text| text.contains("cannot read")));
    assert!(matches!(charlie.send(&club, "still here?").await, Err(ClientError::Wish(_))));

    bob.sync().await.unwrap();
    bob.leave(&club).await.unwrap();
    alice.sync().await.unwrap();
    bob.sync().await.unwrap();
    assert_eq!(*bob.group(&club).unwrap().status(), Status::Removed);
    assert_eq!(alice.group(&club).unwrap().members().unwrap().len(), 1);
    assert_eq!(texts(&alice, &club), ["hello Bob", "hello Alice", "hi all", "Charlie cannot read this"]);

    // One who left comes back with what he had.
    alice.add(&club, &[user("bob")]).await.unwrap();
    bob.sync().await.unwrap();
    alice.send(&club, "welcome back").await.unwrap();
    bob.sync().await.unwrap();
    assert_eq!(texts(&bob, &club).last().unwrap(), "welcome back");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server() {
    Box::pin(people_join_talk_update_and_go(World::whole().await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn authentication_and_delivery_apart() {
    Box::pin(people_join_talk_update_and_go(World::split().await)).await;
}

/// Waits until the listener brings what is looked for.
async fn until(listener: &mut Listener<'_>, found: impl Fn(&Event) -> bool) -> Vec<Event> {
    let mut seen = Vec::new();
    loop {
        seen.extend(listener.next().await.unwrap().into_iter().map(|happened| happened.event));
        if seen.iter().any(&found) {
            return seen;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_joins_hears_commits_and_sees_its_removal() {
    let world = World::whole().await;
    let mut alice = world.person("alice").await;
    let mut bob = world.person("bob").await;
    let mut charlie = world.person("charlie").await;
    let club = alice.create_group("The Club").await.unwrap();
    alice.add(&club, &[user("charlie")]).await.unwrap();
    charlie.sync().await.unwrap();

    let mut listener = bob.listen();
    // Bob listens already when he is added: the invitation comes through the stream, and so does the group. Calls that
    // are dropped half-way, wherever that is, lose nothing.
    for millis in 0..12 {
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(millis), listener.next()).await;
        assert!(waiting.is_err(), "nothing has happened yet");
    }
    alice.add(&club, &[user("bob")]).await.unwrap();
    until(&mut listener, |event| matches!(event, Event::Joined { .. })).await;
    alice.send(&club, "live").await.unwrap();
    until(&mut listener, |event| matches!(event, Event::Message { text: Some(text), .. } if text == "live")).await;

    // Charlie asks to leave while Alice sleeps: Bob commits it, and goes on hearing in the new epoch.
    charlie.sync().await.unwrap();
    charlie.leave(&club).await.unwrap();
    until(&mut listener, |event| matches!(event, Event::Removed { .. })).await;
    alice.sync().await.unwrap();
    alice.send(&club, "without Charlie").await.unwrap();
    until(
        &mut listener,
        |event| matches!(event, Event::Message { text: Some(text), .. } if text.starts_with("without")),
    )
    .await;

    alice.remove(&club, &[user("bob")]).await.unwrap();
    until(&mut listener, |event| matches!(event, Event::RemovedFromGroup { .. })).await;
    drop(listener);
    assert_eq!(*bob.group(&club).unwrap().status(), Status::Removed);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_removed_and_added_again_unawares_comes_back() {
    let world = World::whole().await;
    let mut alice = world.person("alice").await;
    let mut bob = world.person("bob").await;
    let club = alice.create_group("The Club").await.unwrap();
    alice.add(&club, &[user("bob")]).await.unwrap();
    bob.sync().await.unwrap();
    alice.remove(&club, &[user("bob")]).await.unwrap();
    alice.add(&club, &[user("bob")]).await.unwrap();
    alice.send(&club, "there you are").await.unwrap();
    bob.sync().await.unwrap();
    assert_eq!(texts(&bob, &club), ["there you are"]);
    assert_eq!(authenticator(&mut alice, &club), authenticator(&mut bob, &club));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_key_that_changed_is_told_and_noted() {
    let world = World::whole().await;
    let (mut alice, mut carol) = (world.person("alice").await, world.person("carol").await);
    let _bob = world.person("bob").await;
    let club = alice.create_group("The Club").await.unwrap();
    alice.add(&club, &[user("carol")]).await.unwrap();
    carol.sync().await.unwrap();
    // Alice has known another Bob.
    alice.accept_identity(&user("bob"), &[9; 32], true).unwrap();
    carol.add(&club, &[user("bob")]).await.unwrap();
    let events = alice.sync().await.unwrap();
    assert!(
        has(&events, |event| matches!(event, Event::IdentityChanged { user: of } if *of == user("bob"))),
        "{events:?}"
    );
    assert_eq!(noted(&alice, &club, "identity_changed"), 1);
    world.stop().await;
}
