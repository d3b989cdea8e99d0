//! A member who was away for longer than the server keeps entries.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::{World, chatter, texts, user};
use conclave_client::{ClientError, Event, Status};
use conclave_names::Seq;

fn gone(events: &[conclave_client::ClientEvent]) -> Vec<(Seq, Option<Seq>)> {
    let place = |event: &Event| match event {
        Event::PositionGone { after, oldest, .. } => Some((*after, *oldest)),
        _ => None,
    };
    events.iter().filter_map(|happened| place(&happened.event)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_too_late_is_told_so_and_comes_back_when_added_again() {
    let mut world = World::whole().await;
    let mut alice = world.person("alice").await;
    let mut bob = world.person("bob").await;
    let club = alice.create_group("The Club").await.unwrap();
    alice.add(&club, &[user("bob")]).await.unwrap();
    bob.sync().await.unwrap();
    let mut sent = Vec::new();
    for n in 0..20 {
        sent.push(format!("message {n}"));
        alice.send(&club, &sent[n]).await.unwrap();
    }
    // Maintenance runs at start. What Alice's last messages need fits, the rest does not.
    world.forget_the_past().await;

    let events = bob.sync().await.unwrap();
    let told = gone(&events);
    assert_eq!(told.len(), 1, "{events:?}");
    let (after, oldest) = told[0];
    assert_eq!(after, Seq(1));
    assert!(oldest.unwrap() > Seq(2) && oldest.unwrap() <= Seq(21), "{oldest:?}");
    assert!(!events.iter().any(|happened| matches!(happened.event, Event::LogsDiffer { .. })), "no false alarm");
    let Status::Stuck { reason } = bob.group(&club).unwrap().status().clone() else { panic!("not stuck") };
    assert!(reason.contains("no longer keeps") && reason.contains("comes back by itself"), "{reason}");
    assert!(gone(&bob.sync().await.unwrap()).is_empty(), "it is told once");
    let waits = bob.send(&club, "hello?").await;
    assert!(matches!(waits, Err(ClientError::Unconfirmed)), "{waits:?}");
    let listened = tokio::time::timeout(std::time::Duration::from_millis(300), bob.listen().next()).await;
    assert!(listened.is_err(), "a listener waits like for any other group: {listened:?}");

    // Alice, who was there all the time, goes on; and the remedy helps.
    alice.send(&club, "where is Bob?").await.unwrap();
    alice.remove(&club, &[user("bob")]).await.unwrap();
    alice.add(&club, &[user("bob")]).await.unwrap();
    alice.send(&club, "there you are").await.unwrap();
    bob.sync().await.unwrap();
    assert_eq!(*bob.group(&club).unwrap().status(), Status::Active);
    assert_eq!(texts(&bob, &club), ["there you are", "hello?"], "what waited was sent");
    bob.send(&club, "here I am").await.unwrap();
    alice.sync().await.unwrap();
    let said = texts(&alice, &club);
    assert_eq!(said.split_at(said.len() - 2).1, ["hello?", "here I am"]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_was_cut_off_for_too_long_is_told() {
    let mut world = World::whole().await;
    let mut alice = world.person("alice").await;
    let mut bob = world.person("bob").await;
    let club = alice.create_group("The Club").await.unwrap();
    alice.add(&club, &[user("bob")]).await.unwrap();
    bob.sync().await.unwrap();
    chatter(&mut alice, &club).await;
    world.forget_the_past().await;
    let mut listener = bob.listen();
    let events = listener.next().await.unwrap();
    assert_eq!(gone(&events).len(), 1, "{events:?}");
    // Other groups of his are carried all the same.
    let other = alice.create_group("Another").await.unwrap();
    alice.add(&other, &[user("bob")]).await.unwrap();
    alice.send(&other, "psst").await.unwrap();
    loop {
        let events = listener.next().await.unwrap();
        if events
            .iter()
            .any(|happened| matches!(&happened.event, Event::Message { text: Some(text), .. } if text == "psst"))
        {
            break;
        }
    }
    world.stop().await;
}
