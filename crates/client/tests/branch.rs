//! A server that was split in two, with a group that went on in both: who followed the wrong one comes back, over real servers.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::{SharedStore, World, has, texts, user};
use conclave_client::{Client, Event, Handshakes, Status};

async fn heals(handshakes: Handshakes) {
    let private = matches!(handshakes, Handshakes::Private);
    let mut world = World::whole().await;
    let store = SharedStore::default();
    let (mut alice, mut carol) = (world.person("alice").await, world.person("carol").await);
    let mut bob = world.person_in(Box::new(store.clone()), "bob").await;
    let club = alice.create_group_with("The Club", handshakes).await.unwrap();
    alice.add(&club, &[user("bob"), user("carol")]).await.unwrap();
    for person in [&mut bob, &mut carol, &mut alice] {
        person.sync().await.unwrap();
        person.send(&club, "before").await.unwrap();
    }
    bob.sync().await.unwrap();
    drop(bob);

    // Bob is led to the copy, and changes the group there; the others go on where they were.
    let elsewhere = world.fork().await;
    let mut bob = Client::over(Box::new(store.clone()), &elsewhere.services()).unwrap();
    bob.update(&club).await.unwrap();
    bob.send(&club, "is anybody there?").await.unwrap();
    let (epoch, wrong) = (bob.group(&club).unwrap().epoch(), bob.group(&club).unwrap().epoch_authenticator().unwrap());
    drop(bob);
    elsewhere.stop().await;
    alice.update(&club).await.unwrap();
    for n in 0..3 {
        alice.send(&club, &format!("message {n}")).await.unwrap();
    }
    carol.sync().await.unwrap();
    assert_eq!(alice.group(&club).unwrap().epoch(), epoch, "the same number");
    assert_ne!(alice.group(&club).unwrap().epoch_authenticator().unwrap(), wrong, "another epoch");

    // Reading once more shows it. Where the server reads the handshakes, what it serves does not tell from where to read on: a member
    // is asked. Else the way back is taken at once.
    let mut bob = Client::over(Box::new(store.clone()), &world.services()).unwrap();
    let mut events = bob.sync().await.unwrap();
    assert_eq!(has(&events, |event| matches!(event, Event::Knocked { .. })), !private, "{events:?}");
    if !private {
        let answered = alice.sync().await.unwrap();
        assert!(has(&answered, |event| matches!(event, Event::Readmitted { .. })), "{answered:?}");
        events.extend(bob.sync().await.unwrap());
    }
    assert!(has(&events, |event| matches!(event, Event::Forked { .. })), "{events:?}");
    assert!(has(&events, |event| matches!(event, Event::LogRewritten { .. })), "{events:?}");
    assert!(has(&events, |event| matches!(event, Event::Missed { .. })), "{events:?}");
    assert_eq!(*bob.group(&club).unwrap().status(), Status::Active);
    bob.send(&club, "here I am").await.unwrap();
    for person in [&mut alice, &mut carol] {
        let events = person.sync().await.unwrap();
        assert_eq!(has(&events, |event| matches!(event, Event::Rejoined { .. })), private, "{events:?}");
        assert!(!has(&events, |event| matches!(event, Event::Stuck { .. })), "{events:?}");
        assert_eq!(texts(person, &club).last().unwrap(), "here I am");
    }
    alice.send(&club, "there you are").await.unwrap();
    // Also after he was closed and opened again.
    drop(bob);
    let mut bob = Client::over(Box::new(store), &world.services()).unwrap();
    bob.sync().await.unwrap();
    assert_eq!(texts(&bob, &club).last().unwrap(), "there you are");
    let authenticator = alice.group(&club).unwrap().epoch_authenticator().unwrap();
    assert_eq!(bob.group(&club).unwrap().epoch_authenticator().unwrap(), authenticator);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_followed_a_copy_of_the_server_comes_back() {
    Box::pin(heals(Handshakes::Private)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_server_reads_the_handshakes_a_member_lets_it_in() {
    Box::pin(heals(Handshakes::Visible { external_senders: Vec::new() })).await;
}
