//! Changes on their way: what becomes of them is told, and they outlive what this version knows.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::*;
use conclave_authentication::CertificateAuthority;
use conclave_channel::law::DISPUTE_MS;
use conclave_engine::{
    group::{Group, KIND_EVENT, Status},
    intent::Wish,
    outcome::Event,
    writes::Room,
};
use conclave_names::{Epoch, IdempotencyKey};

fn failures(events: &[Event]) -> Vec<IdempotencyKey> {
    let failed = |event: &Event| match event {
        Event::IntentFailed { intent, .. } => Some(*intent),
        _ => None,
    };
    events.iter().filter_map(failed).collect()
}

#[test]
fn a_failure_names_its_intent_and_is_kept_with_it() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = ["alice", "bob", "carol"].map(|name| world.person(name));
    group_of(&mut world, &mut [&mut alice, &mut bob]);
    // Bob writes before he knows of Carol, and changes his keys after.
    let (stale, _) = bob.group().wish_text("for Alice only").unwrap();
    let (anyway, _) = bob.group().wish_text_to_all("for everybody").unwrap();
    let update = bob.group().wish(Wish::Update).unwrap();
    bob.save();
    let package = carol.key_package(&world);
    alice.wish(Wish::Add { key_packages: vec![package] });
    alice.drive_now(&mut world);
    carol.join(&world);
    bob.sync(&world.ds);

    let now = world.ds.now();
    let mut events = Vec::new();
    assert!(bob.group().next_submission(now, &mut events).is_err());
    assert_eq!(failures(&events), [stale]);
    bob.save();
    // He dies before anybody could be told: the history has it.
    bob.restart();
    assert!(!bob.group().is_pending(stale) && bob.group().is_pending(anyway) && bob.group().is_pending(update));
    let kept = bob.store.messages.iter().filter(|row| row.kind == KIND_EVENT);
    let kept: Vec<_> = kept.map(|row| String::from_utf8(row.body.clone()).unwrap()).collect();
    assert_eq!(kept.iter().filter(|row| row.contains(&stale.to_string())).count(), 1, "{kept:?}");
    for _ in 0..3 {
        bob.drive_now(&mut world);
    }
    assert!(failures(&bob.events).is_empty());
    carol.sync(&world.ds);
    alice.sync(&world.ds);
    assert_eq!((alice.texts(), carol.texts()), (vec!["for everybody".into()], vec!["for everybody".into()]));
}

#[test]
fn what_a_later_version_wishes_is_kept_and_harms_nothing() {
    let mut world = World::new();
    let [mut alice, mut bob] = ["alice", "bob"].map(|name| world.person(name));
    group_of(&mut world, &mut [&mut alice, &mut bob]);
    // A message of ours on its way, turned into something of a kind that nobody knows yet.
    alice.group().write_state_next();
    alice.group().wish_text("a message").unwrap();
    alice.save();
    let rows: Vec<_> = alice.store.rows.keys().filter(|(room, _)| *room == Room::INTENT).cloned().collect();
    assert_eq!(rows.len(), 1);
    // struct { uint8 version; opaque id[16]; uint8 kind; ... }
    let row = alice.store.rows.get_mut(&rows[0]).unwrap();
    assert_eq!(row[17], 1);
    row[17] = 200;
    let foreign = row.clone();
    alice.restart();
    assert_eq!((alice.group().intents().count(), alice.group().foreign_intents()), (0, 1));

    alice.say("hello");
    alice.wish(Wish::Update);
    alice.restart();
    alice.drive(&mut world);
    bob.drive(&mut world);
    alice.drive(&mut world);
    agree(&mut [&mut alice, &mut bob]);
    assert_eq!(bob.texts(), ["hello"]);
    assert_eq!(alice.store.rows.get(&rows[0]), Some(&foreign), "it was neither lost nor overwritten");
    assert_eq!(alice.group().foreign_intents(), 1);
}

#[test]
fn rows_of_any_later_version_keep_their_places_in_the_order() {
    let mut world = World::new();
    let [mut alice, mut bob] = ["alice", "bob"].map(|name| world.person(name));
    group_of(&mut world, &mut [&mut alice, &mut bob]);
    // The commit that made the group stays until the state after it is written.
    let intents = |alice: &Person| -> Vec<_> {
        alice.store.rows.keys().filter(|(room, _)| *room == Room::INTENT).cloned().collect()
    };
    let before = intents(&alice);
    for text in ["first", "second", "third"] {
        alice.group().wish_text(text).unwrap();
    }
    alice.save();
    let keys = |alice: &Person| -> Vec<_> { intents(alice).into_iter().filter(|key| !before.contains(key)).collect() };
    let [first, second, third] = keys(&alice).try_into().unwrap();
    // Nothing but the first byte of such a row can be understood, which says so: what follows is of any form and length.
    let (next, last) = (vec![2], [&[255], [7; 300].as_slice()].concat());
    alice.store.rows.insert(first.clone(), next.clone());
    alice.store.rows.insert(third.clone(), last.clone());
    alice.restart();
    assert_eq!((alice.group().intents().count(), alice.group().foreign_intents()), (1, 2));

    // What is wished now comes after all of them, and before them what must come first.
    alice.group().wish_text("fourth").unwrap();
    alice.save();
    let known: Vec<_> = keys(&alice).into_iter().filter(|key| ![&first, &third].contains(&key)).collect();
    assert_eq!((known.len(), &known[0]), (2, &second));
    assert!(known[1] > third, "a place after that of the later version's");
    alice.restart();
    alice.drive(&mut world);
    bob.drive(&mut world);
    assert_eq!(bob.texts(), ["second", "fourth"]);
    assert_eq!(keys(&alice), [first.clone(), third.clone()]);
    assert_eq!(alice.store.rows[&first].as_slice(), next);
    assert_eq!(alice.store.rows[&third].as_slice(), last);

    // A row without a version, or of none that there ever was, is damaged.
    let name = alice.group().name().clone();
    for damaged in [vec![], vec![0, 1, 2]] {
        let mut broken = alice.store.clone();
        broken.rows.insert(first.clone(), damaged);
        assert!(Group::load(&alice.account, &alice.mls, &broken, &name).is_err());
    }
}

#[test]
fn a_commit_of_ours_that_comes_late_after_an_annulment_is_known() {
    let mut world = World::new();
    let other = CertificateAuthority::generate(&domain(), NOW).unwrap();
    let both = [&world.ca, &other];
    let mut alice = world.person_of("alice", &world.ca, &both);
    let mut bob = world.person("bob");
    let mut carol = world.person_of("carol", &world.ca, &both);
    let mut dave = world.person_of("dave", &other, &both);
    group_of(&mut world, &mut [&mut alice, &mut bob, &mut carol]);
    // Carol's commit is on its way for long. Alice's overtakes it, and Carol applies that.
    carol.wish(Wish::Update);
    let now = world.ds.now();
    let late = carol.group().next_submission(now, &mut Vec::new()).unwrap().unwrap();
    carol.save();
    let package = dave.key_package(&world);
    alice.wish(Wish::Add { key_packages: vec![package] });
    alice.drive_now(&mut world);
    carol.sync(&world.ds);
    assert_eq!(carol.group().epoch(), Epoch(2));
    // Bob cannot, nobody answers him in time, and then Carol's arrives.
    bob.drive_now(&mut world);
    world.ds.ahead += DISPUTE_MS + 60_001;
    carol.restart();
    world.ds.submit(&late).unwrap();
    carol.sync(&world.ds);
    assert!(carol.events.iter().any(|event| matches!(event, Event::Annulled { .. })));
    assert_eq!((carol.group().epoch(), carol.group().status().clone()), (Epoch(2), Status::Active));
    alice.sync(&world.ds);
    bob.sync(&world.ds);
    agree(&mut [&mut alice, &mut bob, &mut carol]);
    carol.say("it was mine");
    carol.drive(&mut world);
    alice.sync(&world.ds);
    bob.sync(&world.ds);
    assert_eq!((alice.texts(), bob.texts()), (vec!["it was mine".into()], vec!["it was mine".into()]));
}
