//! Members that a group has lost for good, as they would think: others let them in again, over a real server.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::time::Duration;

use common::{World, chatter, texts, user};
use conclave_client::{Client, ClientEvent, Event, Handshakes, Membership, Status};
use conclave_names::GroupUri;

fn knocked(events: &[ClientEvent]) -> usize {
    let asked = |event: &Event| if let Event::Knocked { members, .. } = event { members.len() } else { 0 };
    events.iter().map(|happened| asked(&happened.event)).sum()
}

/// Bob is away until what he would read next is gone, and Erin is removed meanwhile, so that what the server keeps does not open
/// for him.
async fn locked_out(handshakes: Handshakes, suite: u16) -> (World, Client, Client, Client, GroupUri) {
    let mut world = World::whole().await;
    let mut alice = world.person("alice").await;
    let (mut bob, mut carol, mut erin) =
        (world.person("bob").await, world.person("carol").await, world.person("erin").await);
    let club = alice.create_group_in("The Club", handshakes, suite).await.unwrap();
    alice.add(&club, &[user("bob"), user("carol"), user("erin")]).await.unwrap();
    for person in [&mut bob, &mut carol, &mut erin] {
        person.sync().await.unwrap();
    }
    chatter(&mut alice, &club).await;
    alice.remove(&club, &[user("erin")]).await.unwrap();
    carol.sync().await.unwrap();
    world.forget_the_past().await;
    (world, alice, bob, carol, club)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_away_for_too_long_is_let_in_again() {
    Box::pin(let_in_again(Handshakes::Private, 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_in_another_cipher_suite() {
    Box::pin(let_in_again(Handshakes::Private, 3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_where_the_server_reads_the_handshakes() {
    Box::pin(let_in_again(Handshakes::Visible { external_senders: Vec::new() }, 1)).await;
}

async fn let_in_again(handshakes: Handshakes, suite: u16) {
    let (world, mut alice, mut bob, mut carol, club) = Box::pin(locked_out(handshakes, suite)).await;
    let events = bob.sync().await.unwrap();
    assert!(events.iter().any(|happened| matches!(happened.event, Event::RejoinBlocked { .. })), "{events:?}");
    // Erin was a member as far as he knows; whoever is asked first, one of them can help.
    assert_eq!(knocked(&events), 3, "{events:?}");
    assert_eq!(knocked(&bob.sync().await.unwrap()), 0, "not before an hour has passed");
    assert!(matches!(bob.group(&club).unwrap().status(), Status::Stuck { .. }));

    let events = alice.sync().await.unwrap();
    let readmitted = |event: &Event| matches!(event, Event::Readmitted { members, .. } if members[0] == *bob.client());
    assert!(events.iter().any(|happened| readmitted(&happened.event)), "{events:?}");
    let events = carol.sync().await.unwrap();
    let times = events.iter().filter(|happened| readmitted(&happened.event)).count();
    assert_eq!(times, 1, "Carol was asked, too, and finds it done");

    let events = bob.sync().await.unwrap();
    assert!(events.iter().any(|happened| matches!(happened.event, Event::Missed { .. })), "{events:?}");
    assert_eq!(*bob.group(&club).unwrap().status(), Status::Active);
    bob.send(&club, "here I am").await.unwrap();
    for person in [&mut alice, &mut carol] {
        person.sync().await.unwrap();
        assert_eq!(texts(person, &club).last().unwrap(), "here I am");
    }
    alice.send(&club, "there you are").await.unwrap();
    bob.sync().await.unwrap();
    assert_eq!(texts(&bob, &club).last().unwrap(), "there you are");
    let authenticator = alice.group(&club).unwrap().epoch_authenticator().unwrap();
    assert_eq!(bob.group(&club).unwrap().epoch_authenticator().unwrap(), authenticator);
    assert_eq!(alice.group(&club).unwrap().members().unwrap().len(), 3);
    let log = carol.membership_log(&club).unwrap();
    let last = log.last().unwrap();
    assert_eq!((last.change, &last.members), (Membership::Readmitted, &vec![bob.client().clone()]), "{log:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_server_cannot_give_out_what_a_way_back_needs_a_member_helps() {
    let mut world = World::whole().await;
    let (mut alice, mut bob, club) = world.pair().await;
    chatter(&mut alice, &club).await;
    alice.update(&club).await.unwrap();
    world.forget_the_past().await;
    // A disk that has gone bad: of the tree the server answers that it failed.
    let tree = "SELECT chunks FROM ds_blobs WHERE hash IN (SELECT chunk FROM ds_tree_chunks)";
    let gone = world.database().execute(&format!("DELETE FROM ds_chunks WHERE name IN ({tree})"), ()).unwrap();
    assert!(gone > 0);
    bob.set_deadline(Duration::from_millis(300));
    let events = bob.sync().await.unwrap();
    let blocked = |event: &Event| matches!(event, Event::RejoinBlocked { reason, .. } if reason.contains("failed"));
    assert!(events.iter().any(|happened| blocked(&happened.event)), "{events:?}");
    assert_eq!(knocked(&events), 1, "{events:?}");
    alice.sync().await.unwrap();
    bob.sync().await.unwrap();
    assert_eq!(*bob.group(&club).unwrap().status(), Status::Active);
    bob.send(&club, "here I am").await.unwrap();
    alice.sync().await.unwrap();
    assert_eq!(texts(&alice, &club).last().unwrap(), "here I am");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_ask_and_answer_by_themselves() {
    let (world, mut alice, mut bob, _carol, club) = Box::pin(locked_out(Handshakes::Private, 1)).await;
    let answering = async {
        let mut listener = alice.listen();
        loop {
            let events = listener.next().await.unwrap();
            if events.iter().any(|happened| matches!(happened.event, Event::Readmitted { .. })) {
                return;
            }
        }
    };
    let asking = async {
        let mut listener = bob.listen();
        loop {
            let events = listener.next().await.unwrap();
            if events.iter().any(|happened| matches!(happened.event, Event::Joined { .. })) {
                return;
            }
        }
    };
    tokio::join!(answering, asking);
    bob.send(&club, "here I am").await.unwrap();
    alice.sync().await.unwrap();
    assert_eq!(texts(&alice, &club).last().unwrap(), "here I am");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_removed_is_told_and_not_let_in() {
    let (world, mut alice, mut bob, mut carol, club) = Box::pin(locked_out(Handshakes::Private, 1)).await;
    bob.sync().await.unwrap();
    // Before any of those whom he asked comes online, he is removed for good.
    alice.remove(&club, &[user("bob")]).await.unwrap();
    carol.sync().await.unwrap();
    alice.sync().await.unwrap();
    bob.sync().await.unwrap();
    assert!(matches!(bob.group(&club).unwrap().status(), Status::Stuck { .. }));
    assert!(bob.rejoin(&club).await.is_err());
    assert_eq!(alice.group(&club).unwrap().members().unwrap().len(), 2);
    world.stop().await;
}

/// He names a group that is no more, and members know what has become of it.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_locked_out_when_the_group_was_made_anew_is_let_into_what_it_has_become() {
    let (world, mut alice, mut bob, mut carol, club) = Box::pin(locked_out(Handshakes::Private, 1)).await;
    alice.reinit(&club, 3, true).await.unwrap();
    assert!(alice.group(&club).unwrap().is_frozen());
    // His first knock finds the group frozen, and waits.
    let events = bob.sync().await.unwrap();
    assert_eq!(knocked(&events), 3, "{events:?}");
    assert!(bob.send(&club, "said while he was locked out").await.is_err());
    let events = alice.sync().await.unwrap();
    assert!(alice.group(&club).unwrap().is_frozen(), "{events:?}");
    // Carol acknowledges it when it is her turn, and somebody goes on.
    while carol.current(&club).unwrap() == club || alice.current(&club).unwrap() == club {
        carol.sync().await.unwrap();
        alice.sync().await.unwrap();
    }
    let anew = alice.current(&club).unwrap();
    assert_eq!(carol.current(&club).unwrap(), anew);

    // Whoever let him in could have made any group of that room. So what he said waits, and the old group is asked on.
    let events = bob.sync().await.unwrap();
    assert!(events.iter().any(|happened| matches!(happened.event, Event::Joined { .. })), "{events:?}");
    assert_eq!(bob.current(&club).unwrap(), club);
    assert!(bob.group(&club).unwrap().wants_rejoin() && *bob.group(&anew).unwrap().status() == Status::Active);
    bob.sync().await.unwrap();
    for person in [&mut alice, &mut carol] {
        person.sync().await.unwrap();
        assert!(!texts(person, &anew).contains(&"said while he was locked out".to_owned()));
    }
    // The other shows that she is there, too.
    for person in [&mut alice, &mut carol] {
        person.send(&anew, "so am I").await.unwrap();
    }
    let events = bob.sync().await.unwrap();
    let succeeded = |happened: &ClientEvent| happened.event == Event::Succeeded { group: anew.clone() };
    assert_eq!(events.iter().filter(|happened| succeeded(happened)).count(), 1, "{events:?}");
    assert_eq!(bob.current(&club).unwrap(), anew);
    assert_eq!(*bob.group(&anew).unwrap().status(), Status::Active);
    bob.sync().await.unwrap();
    for person in [&mut alice, &mut carol] {
        person.sync().await.unwrap();
        assert_eq!(texts(person, &anew).last().unwrap(), "said while he was locked out");
    }
    alice.send(&club, "there you are").await.unwrap();
    bob.sync().await.unwrap();
    assert_eq!(texts(&bob, &anew).last().unwrap(), "there you are");
    for person in [&mut alice, &mut carol] {
        person.sync().await.unwrap();
    }
    let authenticator = alice.group(&anew).unwrap().epoch_authenticator().unwrap();
    assert_eq!(bob.group(&anew).unwrap().epoch_authenticator().unwrap(), authenticator);
    let group = alice.group(&anew).unwrap();
    assert_eq!((group.members().unwrap().len(), group.cipher_suite()), (3, 3));
    world.stop().await;
}
