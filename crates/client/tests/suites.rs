//! Groups of every cipher suite, and groups that change theirs, over a real server (RFC 9420, section 11.2).

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::{future::Future as _, task::Poll, time::Duration};

use common::{SharedStore, World, has, texts, user};
use conclave_client::{Client, ClientError, ClientEvent, Event, Handshakes, Status, store::ProfileStore};
use conclave_engine::{
    key_packages::SIDE_POOL,
    writes::{Room, Write},
};
use conclave_names::GroupUri;

/// The one that is not the default.
const OTHER: u16 = 3;

/// One-time KeyPackages of the other suite that the directory has of a user, and whether there is a last resort.
fn left(world: &World, name: &str) -> (u64, bool) {
    let count = "SELECT count(*) FILTER (WHERE NOT last_resort), count(*) FILTER (WHERE last_resort) FROM ds_key_packages \
                 WHERE cipher_suite = ?1 AND client LIKE ?2";
    let read =
        |row: &rusqlite::Row<'_>| Ok((u64::try_from(row.get::<_, i64>(0)?).unwrap(), row.get::<_, i64>(1)? == 1));
    world.database().query_row(count, (OTHER, format!("%/{name}/%")), read).unwrap()
}

/// As if a user's client had never offered the other suite.
fn withdraw(world: &World, name: &str) {
    let delete = "DELETE FROM ds_key_packages WHERE cipher_suite = ?1 AND client LIKE ?2";
    assert!(world.database().execute(delete, (OTHER, format!("%/{name}/%"))).unwrap() > 0);
}

async fn club(people: &mut [&mut Client]) -> GroupUri {
    let (first, others) = people.split_first_mut().unwrap();
    let club = first.create_group("The Club").await.unwrap();
    let users: Vec<_> = others.iter().map(|client| client.user().clone()).collect();
    first.add(&club, &users).await.unwrap();
    for other in others.iter_mut() {
        other.sync().await.unwrap();
    }
    first.sync().await.unwrap();
    club
}

/// All are in one epoch of the group, talk, and read the same, each once.
async fn talk(people: &mut [&mut Client], group: &GroupUri) {
    for index in 0..people.len() {
        people[index].send(group, &format!("{index} speaks")).await.unwrap();
        for person in people.iter_mut() {
            person.sync().await.unwrap();
        }
    }
    let count = people.len();
    let said: Vec<_> = (0..count).map(|index| format!("{index} speaks")).collect();
    let authenticator = people[0].group(group).unwrap().epoch_authenticator().unwrap();
    for person in people.iter_mut() {
        let read = texts(person, group);
        assert_eq!(read[read.len() - count..], said);
        let of = person.group(group).unwrap();
        assert_eq!((of.cipher_suite(), of.status()), (OTHER, &Status::Active));
        assert_eq!(of.epoch_authenticator().unwrap(), authenticator);
        assert_eq!(of.members().unwrap().len(), count);
    }
}

/// Everybody is online until all are in the successor. Those who stand behind others give them some seconds to confirm commits.
async fn gone_on(people: &mut [&mut Client], group: &GroupUri) -> GroupUri {
    while people.iter().any(|person| person.current(group).unwrap() == *group) {
        for person in people.iter_mut() {
            person.sync().await.unwrap();
        }
    }
    people[0].current(group).unwrap()
}

fn waits(events: &[ClientEvent]) -> Option<String> {
    events.iter().find_map(|happened| match &happened.event {
        Event::SuccessorWaits { reason } => Some(reason.clone()),
        _ => None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_changes_its_suite_while_a_member_is_away() {
    let world = World::whole().await;
    let store = SharedStore::default();
    let mut alice = world.person("alice").await;
    let (mut bob, mut carol) = (world.person_in(Box::new(store.clone()), "bob").await, world.person("carol").await);
    let club = club(&mut [&mut alice, &mut bob, &mut carol]).await;
    alice.send(&club, "before").await.unwrap();

    // From here on Carol is away.
    assert_eq!(bob.reinit(&club, OTHER, false).await.unwrap(), club, "it goes on when another member was online");
    let waiting = bob.send(&club, "meanwhile").await.unwrap_err();
    assert!(waiting.is_transient(), "{waiting}");
    assert_eq!(left(&world, "carol"), (SIDE_POOL - 1, true));
    let kept = |store: &SharedStore| store.scan(Room::ACCOUNT, b"successor/").unwrap().len();
    assert_eq!(kept(&store), 2, "what was claimed is not wasted");
    // Alice stands first: she confirms the commit, and makes the successor.
    let events = alice.sync().await.unwrap();
    assert!(has(&events, |event| matches!(event, Event::Frozen { .. })), "{events:?}");
    let next = alice.current(&club).unwrap();
    assert_ne!(next, club);
    assert_eq!(left(&world, "carol"), (SIDE_POOL - 2, true));
    bob.sync().await.unwrap();
    assert_eq!(kept(&store), 0, "what was claimed for it is kept no longer");
    alice.sync().await.unwrap();
    alice.send(&next, "after").await.unwrap();

    let events = carol.sync().await.unwrap();
    assert!(has(&events, |event| matches!(event, Event::Succeeded { .. })), "{events:?}");
    assert_eq!(carol.current(&club).unwrap(), next);
    assert_eq!(texts(&carol, &club), ["before"]);
    assert_eq!(texts(&carol, &next), ["before", "meanwhile", "after"], "the history goes over");
    talk(&mut [&mut alice, &mut bob, &mut carol], &next).await;

    // Whoever comes later, too; and back to the default suite.
    let dave = world.person("dave").await;
    alice.add(&next, &[user("dave")]).await.unwrap();
    let mut dave = dave;
    for person in [&mut dave, &mut bob, &mut carol] {
        person.sync().await.unwrap();
    }
    talk(&mut [&mut alice, &mut bob, &mut carol, &mut dave], &next).await;
    bob.reinit(&next, 1, false).await.unwrap();
    let last = gone_on(&mut [&mut alice, &mut bob, &mut carol, &mut dave], &next).await;
    alice.send(&last, "and back").await.unwrap();
    for person in [&mut bob, &mut carol, &mut dave] {
        person.sync().await.unwrap();
        assert_eq!(texts(person, &last).last().unwrap(), "and back");
        assert_eq!(person.group(&last).unwrap().cipher_suite(), 1);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_claimed_before_the_program_ended_is_not_claimed_again() {
    let world = World::whole().await;
    let store = SharedStore::default();
    let mut alice = world.person_in(Box::new(store.clone()), "alice").await;
    let (mut bob, mut carol, mut dave) =
        (world.person("bob").await, world.person("carol").await, world.person("dave").await);
    let club = club(&mut [&mut alice, &mut bob, &mut carol, &mut dave]).await;
    let kept = || store.scan(Room::ACCOUNT, b"successor/").unwrap().into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    {
        // It ends once the first was claimed, and before it has asked for the others.
        let mut call = std::pin::pin!(alice.reinit(&club, OTHER, false));
        let ended = std::future::poll_fn(|context| match call.as_mut().poll(context) {
            Poll::Pending if kept().is_empty() => Poll::Pending,
            ended => Poll::Ready(ended.is_pending()),
        });
        assert!(ended.await);
    }
    let first = kept();
    assert_eq!(first.len(), 1, "each is kept before the next is claimed");
    let named = |name: &str| String::from_utf8_lossy(&first[0]).contains(&format!("/{name}/"));
    let name = ["bob", "carol", "dave"].into_iter().find(|name| named(name)).unwrap();
    assert_eq!(left(&world, name), (SIDE_POOL - 1, true));

    drop(alice);
    let mut alice = Client::over(Box::new(store.clone()), &world.services()).unwrap();
    alice.reinit(&club, OTHER, false).await.unwrap();
    assert_eq!(kept().len(), 3);
    assert_eq!(left(&world, name), (SIDE_POOL - 1, true), "hers was there");
    let mut people = [&mut alice, &mut bob, &mut carol, &mut dave];
    let next = gone_on(&mut people, &club).await;
    talk(&mut people, &next).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_not_frozen_for_a_suite_that_a_member_does_not_offer() {
    let world = World::whole().await;
    let (mut alice, mut bob, mut carol) =
        (world.person("alice").await, world.person("bob").await, world.person("carol").await);
    let club = club(&mut [&mut alice, &mut bob, &mut carol]).await;
    withdraw(&world, "bob");
    for _ in 0..2 {
        match alice.reinit(&club, OTHER, false).await.unwrap_err() {
            ClientError::CannotAdd { user: whom, reason } => {
                assert_eq!(whom, user("bob"));
                assert!(reason.contains("bob/laptop") && reason.contains("cipher suite 3"), "{reason}");
                assert!(!reason.contains("carol"), "{reason}");
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(left(&world, "carol"), (SIDE_POOL - 1, true), "a second try uses up no more of hers");
    assert!(!alice.group(&club).unwrap().is_frozen());
    alice.send(&club, "as before").await.unwrap();
    // Both are named if both are missing.
    withdraw(&world, "carol");
    let mut dave = world.person("dave").await;
    alice.add(&club, &[user("dave")]).await.unwrap();
    withdraw(&world, "dave");
    let refused = alice.reinit(&club, OTHER, false).await.unwrap_err().to_string();
    assert!(refused.contains("bob/laptop") && refused.contains("dave/laptop"), "{refused}");

    // Once they were online, it can be made anew.
    for person in [&mut bob, &mut carol, &mut dave] {
        person.sync().await.unwrap();
        assert_eq!(left(&world, person.user().name()), (SIDE_POOL, true));
    }
    bob.reinit(&club, OTHER, false).await.unwrap();
    let next = gone_on(&mut [&mut alice, &mut bob, &mut carol, &mut dave], &club).await;
    talk(&mut [&mut alice, &mut bob, &mut carol, &mut dave], &next).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_froze_a_group_goes_on_even_if_the_directory_has_nothing_any_more() {
    let world = World::whole().await;
    let store = SharedStore::default();
    let mut alice = world.person_in(Box::new(store.clone()), "alice").await;
    let (mut bob, mut carol) = (world.person("bob").await, world.person("carol").await);
    let club = club(&mut [&mut alice, &mut bob, &mut carol]).await;
    alice.reinit(&club, OTHER, false).await.unwrap();
    drop(alice);
    withdraw(&world, "carol");
    let mut alice = Client::over(Box::new(store), &world.services()).unwrap();
    // Bob gives those who stand before him some seconds before he confirms the commit.
    while alice.current(&club).unwrap() == club {
        bob.sync().await.unwrap();
        let events = alice.sync().await.unwrap();
        assert_eq!(waits(&events), None, "{events:?}");
    }
    let next = alice.current(&club).unwrap();
    carol.sync().await.unwrap();
    bob.sync().await.unwrap();
    talk(&mut [&mut alice, &mut bob, &mut carol], &next).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_package_that_would_not_do_is_found_out_before_and_after_the_group_is_frozen() {
    let world = World::whole().await;
    let mut store = SharedStore::default();
    let mut alice = world.person_in(Box::new(store.clone()), "alice").await;
    let (mut bob, carol) = (world.person("bob").await, world.person("carol").await);
    let club = alice.create_group("The Club").await.unwrap();
    alice.add(&club, &[user("bob"), user("carol")]).await.unwrap();
    bob.sync().await.unwrap();
    // The directory has spoilt all of Carol's: their signatures are wrong.
    let spoil = |bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() ^= 1;
    let mut database = world.database();
    let change = database.transaction().unwrap();
    {
        let mut rows =
            change.prepare("SELECT rowid, bytes FROM ds_key_packages WHERE client LIKE '%/carol/%'").unwrap();
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?));
        for (row, mut bytes) in rows.query_map((), read).unwrap().map(Result::unwrap) {
            spoil(&mut bytes);
            change.execute("UPDATE ds_key_packages SET bytes = ?2 WHERE rowid = ?1", (row, bytes)).unwrap();
        }
    }
    change.commit().unwrap();
    let refused = alice.reinit(&club, OTHER, false).await.unwrap_err();
    let ClientError::CannotAdd { user: whom, reason } = &refused else { panic!("{refused}") };
    assert_eq!(whom, &user("carol"));
    assert!(reason.contains("carol/laptop") && reason.contains("does not do"), "{reason}");
    assert!(!alice.group(&club).unwrap().is_frozen());

    // She leaves others. One that was kept does not do any more when its time comes: another is claimed.
    withdraw(&world, "carol");
    let mut carol = carol;
    carol.sync().await.unwrap();
    alice.reinit(&club, OTHER, false).await.unwrap();
    assert_eq!(left(&world, "carol"), (SIDE_POOL - 1, true));
    drop(alice);
    let (key, value) = store.scan(Room::ACCOUNT, b"successor/").unwrap().pop().unwrap();
    let mut value = value.to_vec();
    // The last one is Carol's.
    spoil(&mut value);
    store.apply(&[Write::Put { room: Room::ACCOUNT, key, value: value.into() }]).unwrap();
    let mut alice = Client::over(Box::new(store), &world.services()).unwrap();
    while alice.current(&club).unwrap() == club {
        bob.sync().await.unwrap();
        let events = alice.sync().await.unwrap();
        assert_eq!(waits(&events), None, "{events:?}");
    }
    assert_eq!(left(&world, "carol"), (SIDE_POOL - 2, true));
    let next = gone_on(&mut [&mut alice, &mut bob, &mut carol], &club).await;
    talk(&mut [&mut alice, &mut bob, &mut carol], &next).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_group_that_cannot_go_on_says_why_and_goes_on_when_it_can() {
    let world = World::whole().await;
    let (mut alice, mut bob, mut carol) =
        (world.person("alice").await, world.person("bob").await, world.person("carol").await);
    let club = club(&mut [&mut alice, &mut bob, &mut carol]).await;
    let other = carol.create_group("The Pub").await.unwrap();
    carol.add(&other, &[user("alice")]).await.unwrap();
    alice.sync().await.unwrap();
    bob.reinit(&club, OTHER, false).await.unwrap();
    // He has a KeyPackage of Carol's, and is never seen again.
    drop(bob);
    withdraw(&world, "carol");

    carol.send(&other, "hello").await.unwrap();
    let events = alice.sync().await.unwrap();
    let reason = waits(&events).unwrap();
    assert!(reason.contains("carol/laptop") && !reason.contains("bob"), "{reason}");
    assert_eq!(texts(&alice, &other), ["hello"], "the other groups are read all the same");
    assert!(alice.group(&club).unwrap().is_frozen());
    let events = alice.sync().await.unwrap();
    assert_eq!(waits(&events), None, "it is told once: {events:?}");
    alice.send(&other, "hello yourself").await.unwrap();
    {
        // A listener neither fails nor turns in circles: in half a second it asks the directory a few times at most.
        let asked =
            || world.database().query_row("SELECT count(*) FROM ds_idempotency", (), |row| row.get::<_, i64>(0));
        let mut listener = alice.listen();
        carol.send(&other, "still here").await.unwrap();
        let said = |event: &Event| matches!(event, Event::Message { text: Some(text), .. } if text == "still here");
        while !has(&listener.next().await.unwrap(), said) {}
        let before = asked().unwrap();
        let quiet = tokio::time::timeout(Duration::from_millis(500), listener.next()).await;
        assert!(quiet.is_err(), "{quiet:?}");
        let more = asked().unwrap() - before;
        assert!(more < 5, "{more} requests");
    }

    // She has been away, and leaves KeyPackages now.
    carol.sync().await.unwrap();
    alice.sync().await.unwrap();
    let next = alice.current(&club).unwrap();
    assert_ne!(next, club);
    carol.sync().await.unwrap();
    for (person, said) in [(&mut alice, "we go on"), (&mut carol, "without him, for now")] {
        person.sync().await.unwrap();
        person.send(&next, said).await.unwrap();
    }
    alice.sync().await.unwrap();
    assert_eq!(texts(&alice, &next), ["we go on", "without him, for now"]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_begins_in_another_suite_with_handshakes_of_either_kind() {
    let world = World::whole().await;
    let (mut alice, mut bob, mut carol) =
        (world.person("alice").await, world.person("bob").await, world.person("carol").await);
    for handshakes in [Handshakes::Private, Handshakes::Visible { external_senders: Vec::new() }] {
        let group = alice.create_group_in("The Club", handshakes, OTHER).await.unwrap();
        alice.add(&group, &[user("bob"), user("carol")]).await.unwrap();
        bob.sync().await.unwrap();
        carol.sync().await.unwrap();
        bob.update(&group).await.unwrap();
        talk(&mut [&mut alice, &mut bob, &mut carol], &group).await;
        carol.remove(&group, &[user("bob")]).await.unwrap();
        alice.sync().await.unwrap();
        talk(&mut [&mut alice, &mut carol], &group).await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn suites_that_the_identity_key_does_not_sign_in_are_refused_by_name() {
    let world = World::whole().await;
    let (mut alice, mut bob) = (world.person("alice").await, world.person("bob").await);
    let club = club(&mut [&mut alice, &mut bob]).await;
    // P-256 and X448 sign with other schemes; 0 is reserved, and the last is private use.
    for number in [0, 2, 4, 5, 6, 7, 0xF001] {
        for refused in [
            alice.create_group_in("The Pub", Handshakes::Private, number).await.unwrap_err(),
            alice.reinit(&club, number, false).await.unwrap_err(),
        ] {
            let ClientError::Suite(unsupported) = &refused else { panic!("{refused}") };
            assert_eq!(unsupported.0, number);
            assert!(refused.to_string().contains("Ed25519") && !refused.is_transient(), "{refused}");
        }
    }
    assert_eq!(alice.groups().unwrap().len(), 1);
    assert!(!alice.group(&club).unwrap().is_frozen());
    world.stop().await;
}
