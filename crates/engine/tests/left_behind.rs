//! What becomes of a member that a successor's Welcome does not let in, and of what waits in the store for a succession.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "common/anew.rs"]
mod anew;
mod common;

use anew::*;
use common::{Person, World, agree};
use conclave_engine::{
    group::{Group, Status},
    outcome::Event,
    writes::Room,
};
use conclave_names::GroupUri;
use mls_rs::CipherSuite;

/// Keys of the rows of a group.
fn rows_of(person: &Person, group: &GroupUri) -> Vec<(Room, String)> {
    let name = group.to_string();
    let of = |key: &[u8]| key.windows(name.len()).any(|window| window == name.as_bytes());
    let rows = person.store.rows.keys().filter(|(_, key)| of(key));
    rows.map(|(room, key)| (*room, String::from_utf8_lossy(key).into_owned())).collect()
}

/// What is long is stored in pieces.
#[test]
fn nothing_that_waited_for_a_succession_stays_in_the_store_after_a_crash() {
    let mut world = World::new();
    world.until = common::NOW.plus_ms(4 * 365 * 86_400_000);
    let mut people: Vec<_> = (0..100).map(|number| world.person(&format!("member{number}"))).collect();
    common::group_of(&mut world, &mut people.iter_mut().collect::<Vec<_>>());
    let old = people[0].group().name().clone();
    let mut others = people.split_off(2);
    freeze(&mut world, &mut people, reinit());
    people.append(&mut others);
    make(&world, 0, &mut people);
    people[0].drive(&mut world);
    people[1].sync(&world.ds);
    for person in &mut people[..2] {
        let waits = rows_of(person, &old);
        assert!(waits.iter().any(|(room, key)| *room == Room::LONG && key.ends_with("continuation")));
        // It dies between the two transactions.
        person.restart();
        go_on(person, &world);
        let mut left = rows_of(person, &old);
        left.retain(|(room, _)| [Room::BLOB, Room::LONG, Room::PIECE].contains(room));
        assert!(left.is_empty(), "{left:?}");
    }
    assert_eq!(people[0].group().epoch_authenticator().unwrap(), people[1].group().epoch_authenticator().unwrap());
}

/// Bob has lost the private part of the KeyPackage by which he is to come into the successor.
fn bob_is_left_out(world: &mut World) -> (Vec<Person>, Group) {
    let mut people = frozen(world);
    people[1].say("what Bob says meanwhile");
    make(world, 0, &mut people);
    let bob = &mut people[1];
    bob.store.rows.retain(|(room, _), _| *room != Room::KEY_PACKAGE);
    bob.restart();
    people[0].drive(world);
    for person in &mut people {
        person.sync(&world.ds);
        person.restart();
    }
    for at in [0, 2] {
        go_on(&mut people[at], world);
        people[at].restart();
    }
    found(world, &mut people[0]);
    let bob = &mut people[1];
    let mut old = bob.group.take().unwrap();
    let refused = old.succeed(&bob.store, world.ds.now(), &mut bob.events).unwrap_err();
    let told = old.left_out(&refused.to_string());
    assert!(matches!(told.as_slice(), [Event::Stuck { .. }]), "{told:?}");
    bob.events.extend(told);
    (people, old)
}

#[test]
fn a_member_that_the_successors_welcome_does_not_let_in_knocks_and_is_let_in() {
    let mut world = World::new();
    let (mut people, old) = bob_is_left_out(&mut world);
    let bob = &mut people[1];
    let name = old.name().clone();
    bob.group = Some(old);
    bob.save();
    let left = rows_of(bob, &name);
    assert!(!left.iter().any(|(room, _)| *room == Room::BLOB), "what does not open is of no use: {left:?}");
    bob.restart();
    assert!(matches!(bob.group().status(), Status::Stuck { .. }), "it is a member still");
    assert!(bob.group().knock_due(world.ds.now()).unwrap() <= world.ds.now());
    assert_eq!(bob.group().whom_to_ask().unwrap().len(), 2);
    // What he is told to say now waits.
    bob.say("and after that");
    bob.suite = CipherSuite::from(bob.group().cipher_suite());
    let suite = bob.suite;
    people[0].suite = suite;
    let [alice, bob, carol] = people.as_mut_slice() else { panic!() };
    let knocked = knock(&world, bob, alice);
    bob.suite = NEW;
    let package = bob.key_package(&world);
    let fresh = knocked.with_key_package(&alice.mls, package, world.ds.now()).unwrap();
    alice.group().answer(&fresh, world.ds.now()).unwrap();
    alice.drive_now(&mut world);
    carol.sync(&world.ds);
    let mut old = bob.group.take().unwrap();
    bob.join(&world);
    let next = bob.group.as_mut().unwrap();
    assert!(old.is_continued_by(next, &alice.account.client));
    let mut events = Vec::new();
    old.continued_by(next, world.ds.now(), &mut events);
    let mut writes = old.take_writes().unwrap();
    writes.extend(next.take_writes().unwrap());
    bob.store.apply(writes);
    assert!(events.contains(&Event::Succeeded { group: bob.group().name().clone() }), "{events:?}");
    bob.drive_now(&mut world);
    for person in [alice, carol] {
        person.sync(&world.ds);
        assert_eq!(person.texts(), ["what Bob says meanwhile", "and after that"]);
    }
    let [alice, bob, carol] = people.as_mut_slice() else { panic!() };
    agree(&mut [alice, bob, carol]);
}
