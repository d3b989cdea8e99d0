//! Members acknowledge what they read, and silence is told (RFC 9750, sections 8.1.4 and 8.4.2).

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use common::*;
use conclave_engine::{
    group::{HEARTBEAT_MS, UNSEEN_MS},
    intent::Wish,
    outcome::Event,
};
use conclave_names::Seq;

fn cast() -> (World, Person, Person) {
    let mut world = World::new();
    let (mut alice, mut bob) = (world.person("alice"), world.person("bob"));
    group_of(&mut world, &mut [&mut alice, &mut bob]);
    (world, alice, bob)
}

fn unseen(person: &Person) -> Vec<Seq> {
    let seq = |event: &Event| match event {
        Event::Unseen { seq, .. } => Some(*seq),
        _ => None,
    };
    person.events.iter().filter_map(seq).collect()
}

/// Everybody does what is due, until nothing is.
fn settle(world: &mut World, people: &mut [&mut Person]) -> usize {
    let before = world.ds.entries.len();
    for _ in 0..4 {
        for person in people.iter_mut() {
            person.restart();
            person.drive_now(world);
        }
    }
    world.ds.entries.len() - before
}

#[test]
fn who_only_reads_acknowledges_once_and_heartbeats_are_not_answered() {
    let (mut world, mut alice, mut bob) = cast();
    settle(&mut world, &mut [&mut alice, &mut bob]);
    world.ds.ahead += 4 * HEARTBEAT_MS;
    settle(&mut world, &mut [&mut alice, &mut bob]);
    alice.say("anybody there?");
    alice.drive_now(&mut world);
    let said = world.ds.entries.len() as u64;
    assert_eq!(alice.group().unseen().unwrap().0, Seq(said));
    assert_eq!(settle(&mut world, &mut [&mut alice, &mut bob]), 0, "nothing before its time");
    assert_eq!(alice.group().unseen().unwrap().0, Seq(said));

    world.ds.ahead += 2 * HEARTBEAT_MS;
    assert_eq!(settle(&mut world, &mut [&mut alice, &mut bob]), 1, "one heartbeat, and none about it");
    assert_eq!(alice.group().unseen(), None);
    world.ds.ahead += UNSEEN_MS + 4 * HEARTBEAT_MS;
    assert_eq!(settle(&mut world, &mut [&mut alice, &mut bob]), 0);
    assert!(unseen(&alice).is_empty() && unseen(&bob).is_empty());
}

#[test]
fn an_answer_acknowledges_as_well() {
    let (mut world, mut alice, mut bob) = cast();
    world.ds.ahead += 4 * HEARTBEAT_MS;
    settle(&mut world, &mut [&mut alice, &mut bob]);
    alice.say("how are you?");
    alice.drive_now(&mut world);
    bob.drive_now(&mut world);
    bob.say("fine");
    bob.drive_now(&mut world);
    alice.sync(&world.ds);
    assert_eq!(alice.group().unseen(), None);
    assert!(bob.group().unseen().is_some());
    // What was read only after the answer was made is not acknowledged by it.
    bob.say("and you?");
    alice.say("fine, too");
    alice.drive_now(&mut world);
    let place = world.ds.entries.len() as u64;
    alice.group().wish_text("and the weather?").unwrap();
    alice.drive_now(&mut world);
    bob.drive_now(&mut world);
    alice.sync(&world.ds);
    assert_eq!(alice.group().unseen(), None);
    assert!(bob.group().unseen().is_some_and(|(seq, _)| seq > Seq(place)));
}

#[test]
fn silence_is_told_once_and_ends_with_a_word() {
    let (mut world, mut alice, mut bob) = cast();
    settle(&mut world, &mut [&mut alice, &mut bob]);
    world.ds.ahead += 4 * HEARTBEAT_MS;
    settle(&mut world, &mut [&mut alice, &mut bob]);
    // The server keeps this from Bob, or Bob is away: to Alice it is the same.
    alice.say("hello?");
    alice.drive_now(&mut world);
    let hello = Seq(world.ds.entries.len() as u64);
    world.ds.ahead += UNSEEN_MS;
    settle(&mut world, &mut [&mut alice]);
    assert!(unseen(&alice).is_empty());
    world.ds.ahead += 4 * HEARTBEAT_MS;
    settle(&mut world, &mut [&mut alice]);
    assert_eq!(unseen(&alice), [hello]);
    let told = alice.store.messages.iter().filter(|row| row.kind == conclave_engine::group::KIND_EVENT);
    assert!(
        told.filter(|row| String::from_utf8_lossy(&row.body).contains("unseen")).count() == 1,
        "it is in the history"
    );

    alice.say("hello??");
    settle(&mut world, &mut [&mut alice]);
    world.ds.ahead += UNSEEN_MS + 4 * HEARTBEAT_MS;
    settle(&mut world, &mut [&mut alice]);
    assert_eq!(unseen(&alice), [hello], "it was told");
    settle(&mut world, &mut [&mut alice, &mut bob]);
    assert_eq!(alice.group().unseen(), None);
    alice.wish(Wish::Update);
    alice.drive_now(&mut world);
    assert!(alice.group().unseen().is_some(), "it begins anew");
}

#[test]
fn who_is_alone_waits_for_nobody() {
    let mut world = World::new();
    let mut alice = world.person("alice");
    alice.create(&mut world, "Alone");
    alice.say("note to myself");
    alice.drive_now(&mut world);
    assert_eq!(alice.group().unseen(), None);
    world.ds.ahead += UNSEEN_MS * 3;
    settle(&mut world, &mut [&mut alice]);
    assert!(unseen(&alice).is_empty());
}
