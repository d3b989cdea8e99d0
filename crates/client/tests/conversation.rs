//! The life of a group over real servers (RFC 9750, sections 3.1 to 3.5).

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod common;

use common::{World, user};
use conclave_client::{Client, ClientError, Event, HistoryEntry, Status};
use conclave_names::{GroupUri, Seq};

fn texts(client: &Client, group: &GroupUri) -> Vec<String> {
    client
        .history(group, Seq(0), 1000)
        .unwrap()
        .into_iter()
        .filter_map(|item| match item.entry {
            HistoryEntry::Message { text, .. } => text,
            _ => None,
        })
        .collect()
}

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
    people_join_talk_update_and_go(World::whole().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn authentication_and_delivery_apart() {
    people_join_talk_update_and_go(World::split().await).await;
}
