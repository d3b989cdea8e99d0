//! A group that was frozen for a member who never comes back, over a real server.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::{SharedStore, World, has, noted, texts, user};
use conclave_client::{Client, ClientError, ClientEvent, Event, HistoryEntry, HistoryItem, Status};
use conclave_names::{GroupUri, Seq};
use conclave_server::set_ahead_for_tests;

const OTHER: u16 = 3;

const DAY: u64 = 86_400_000;

fn withdraw(world: &World, name: &str) {
    let delete = "DELETE FROM ds_key_packages WHERE client LIKE ?1";
    assert!(world.database().execute(delete, [format!("%/{name}/%")]).unwrap() > 0);
}

fn waits(events: &[ClientEvent]) -> Option<String> {
    events.iter().find_map(|happened| match &happened.event {
        Event::SuccessorWaits { reason } => Some(reason.clone()),
        _ => None,
    })
}

struct Cast {
    world: World,
    alice: Client,
    dave: Client,
    bob: SharedStore,
    carol: SharedStore,
    club: GroupUri,
}

/// Bob has the group frozen and dies, and so does Carol, who left no keying material.
async fn cast() -> Cast {
    set_ahead_for_tests(0);
    let world = World::whole().await;
    let (bob_has, carol_has) = (SharedStore::default(), SharedStore::default());
    let (mut alice, mut dave) = (world.person("alice").await, world.person("dave").await);
    let mut bob = world.person_in(Box::new(bob_has.clone()), "bob").await;
    let mut carol = world.person_in(Box::new(carol_has.clone()), "carol").await;
    let club = alice.create_group("The Club").await.unwrap();
    alice.add(&club, &[user("bob"), user("carol"), user("dave")]).await.unwrap();
    for person in [&mut bob, &mut carol, &mut dave] {
        person.sync().await.unwrap();
    }
    alice.send(&club, "before").await.unwrap();
    for person in [&mut bob, &mut carol, &mut dave] {
        person.sync().await.unwrap();
    }
    bob.reinit(&club, OTHER, false).await.unwrap();
    drop((bob, carol));
    withdraw(&world, "carol");
    Cast { world, alice, dave, bob: bob_has, carol: carol_has, club }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_week_the_others_go_on_and_nobody_is_lost() {
    let Cast { world, mut alice, mut dave, bob, carol, club } = Box::pin(cast()).await;
    let reason = waits(&alice.sync().await.unwrap()).unwrap();
    assert!(
        reason.contains("carol/laptop") && !reason.contains("bob/") && !reason.contains("or be removed"),
        "{reason}"
    );
    assert!(reason.contains("nobody can be removed from a frozen group"), "{reason}");
    match alice.go_on_without(&club).await {
        Err(ClientError::Dropped(reason)) => assert!(reason.contains("for a week"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let refused = alice.send(&club, "said while it was frozen").await.unwrap_err();
    assert!(matches!(refused, ClientError::Frozen) && refused.is_transient(), "{refused}");
    let history = alice.history(&club, Seq(0), 1000).unwrap();
    let told = |item: &HistoryItem| match &item.entry {
        HistoryEntry::Change { change } => change.to_string().contains("waits for that (1)"),
        _ => false,
    };
    assert_eq!(history.iter().filter(|item| told(item)).count(), 1, "{history:?}");
    // Carol has something to say, too.
    let mut carol = Client::over(Box::new(carol), &world.services()).unwrap();
    carol.group(&club).unwrap().wish_text("from afar").unwrap();

    set_ahead_for_tests(8 * DAY);
    let reason = waits(&alice.sync().await.unwrap()).unwrap();
    assert!(reason.contains("conclave group go-on"), "{reason}");
    let gone_on = alice.go_on_without(&club).await.unwrap();
    assert!(gone_on.without.len() == 1 && gone_on.without[0].contains("carol/laptop"), "{gone_on:?}");
    let next = gone_on.group;
    assert_ne!(next, club);
    assert_eq!(alice.current(&club).unwrap(), next);
    assert_eq!(alice.go_on_without(&club).await.unwrap_err().to_string().matches("not frozen").count(), 1);

    let events = dave.sync().await.unwrap();
    let told = |event: &Event| matches!(event, Event::WentOnWithout { absent, .. } if absent.len() == 1);
    assert!(has(&events, told), "{events:?}");
    assert_eq!(dave.current(&club).unwrap(), next);
    assert_eq!(texts(&dave, &next), ["before", "said while it was frozen"], "the history goes over");
    dave.send(&club, "here I am").await.unwrap();
    alice.sync().await.unwrap();
    assert_eq!(texts(&alice, &next).last().unwrap(), "here I am");
    let group = alice.group(&next).unwrap();
    assert_eq!((group.members().unwrap().len(), group.cipher_suite()), (3, OTHER));

    // Bob was not dead after all.
    let mut bob = Client::over(Box::new(bob), &world.services()).unwrap();
    bob.sync().await.unwrap();
    assert_eq!(bob.current(&club).unwrap(), next);
    bob.send(&next, "me too").await.unwrap();
    // Nor is Carol. She reads what was decided, and is added.
    let events = carol.sync().await.unwrap();
    assert!(has(&events, told), "{events:?}");
    let groups = carol.groups().unwrap();
    assert!(groups.iter().any(|group| group.name == club && group.status == Status::Removed), "{groups:?}");
    assert_eq!(noted(&carol, &club, "went_on_without"), 1);
    assert_eq!(noted(&carol, &club, "intent_failed"), 1);
    alice.sync().await.unwrap();
    alice.add(&next, &[user("carol")]).await.unwrap();
    for person in [&mut carol, &mut dave, &mut bob] {
        person.sync().await.unwrap();
    }
    carol.send(&next, "back").await.unwrap();
    let authenticator = carol.group(&next).unwrap().epoch_authenticator().unwrap();
    for person in [&mut alice, &mut dave, &mut bob] {
        person.sync().await.unwrap();
        assert_eq!(texts(person, &next).last().unwrap(), "back");
        assert_eq!(person.group(&next).unwrap().epoch_authenticator().unwrap(), authenticator);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_two_decide_at_once_the_log_says_which_group_it_is() {
    let Cast { world, mut alice, mut dave, bob, club, .. } = Box::pin(cast()).await;
    alice.sync().await.unwrap();
    dave.sync().await.unwrap();
    set_ahead_for_tests(8 * DAY);
    let (first, second) = tokio::join!(alice.go_on_without(&club), dave.go_on_without(&club));
    assert!(first.is_ok() || second.is_ok(), "{first:?} {second:?}");
    let mut bob = Client::over(Box::new(bob), &world.services()).unwrap();
    for _ in 0..3 {
        for person in [&mut alice, &mut dave, &mut bob] {
            person.sync().await.unwrap();
        }
    }
    let next = alice.current(&club).unwrap();
    assert_ne!(next, club);
    for person in [&mut dave, &mut bob] {
        assert_eq!(person.current(&club).unwrap(), next);
    }
    bob.send(&club, "which is it?").await.unwrap();
    for person in [&mut alice, &mut dave] {
        person.sync().await.unwrap();
        assert_eq!(texts(person, &next).last().unwrap(), "which is it?");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_as_announced_if_all_are_there_after_all() {
    let Cast { world, mut alice, mut dave, carol, club, .. } = Box::pin(cast()).await;
    alice.sync().await.unwrap();
    set_ahead_for_tests(8 * DAY);
    // Carol has come back meanwhile.
    let mut carol = Client::over(Box::new(carol), &world.services()).unwrap();
    carol.sync().await.unwrap();
    let gone_on = alice.go_on_without(&club).await.unwrap();
    assert!(gone_on.without.is_empty() && gone_on.group != club, "{gone_on:?}");
    for person in [&mut dave, &mut carol] {
        person.sync().await.unwrap();
        assert_eq!(person.current(&club).unwrap(), gone_on.group);
    }
    assert_eq!(alice.group(&gone_on.group).unwrap().members().unwrap().len(), 4);
    world.stop().await;
}
