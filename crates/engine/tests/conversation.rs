//! The life of a group: RFC 9750, sections 3.1 to 3.5, with everybody's state made durable after each step.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod common;

use common::{Person, World, agree, group_of};
use conclave_engine::{
    group::Status,
    intent::Wish,
    outcome::{Event, Outcome},
};

fn people<const N: usize>(world: &World, names: [&str; N]) -> [Person; N] {
    names.map(|name| world.person(name))
}

#[test]
fn people_join_talk_update_and_go() {
    let mut world = World::new();
    let [mut alice, mut bob, mut charlie] = people(&world, ["alice", "bob", "charlie"]);
    alice.create(&mut world, "The Club");
    let package = bob.key_package(&world);
    alice.wish(Wish::Add { key_packages: vec![package] });
    alice.drive(&mut world);
    bob.join(&world);
    bob.sync(&world.ds);
    agree(&mut [&mut alice, &mut bob]);
    assert_eq!(bob.group().profile().title, "The Club");

    alice.say("hello Bob");
    alice.drive(&mut world);
    bob.drive(&mut world);
    assert_eq!(bob.texts(), ["hello Bob"]);

    let package = charlie.key_package(&world);
    bob.wish(Wish::Add { key_packages: vec![package] });
    bob.drive(&mut world);
    charlie.join(&world);
    for person in [&mut alice, &mut bob, &mut charlie] {
        person.drive(&mut world);
        person.restart();
    }
    agree(&mut [&mut alice, &mut bob, &mut charlie]);
    charlie.say("hi all");
    charlie.drive(&mut world);
    alice.sync(&world.ds);
    bob.sync(&world.ds);
    assert!(alice.texts().contains(&"hi all".into()) && bob.texts().contains(&"hi all".into()));

    let root = bob.group().key_root().unwrap();
    bob.wish(Wish::Update);
    bob.drive(&mut world);
    assert_ne!(bob.group().key_root().unwrap(), root, "the channel key is new, too");
    bob.group().access().unwrap();
    alice.sync(&world.ds);
    charlie.sync(&world.ds);
    agree(&mut [&mut alice, &mut bob, &mut charlie]);

    let users = vec![charlie.user()];
    alice.wish(Wish::Remove { users });
    alice.drive(&mut world);
    alice.say("Charlie is gone");
    alice.drive(&mut world);
    bob.sync(&world.ds);
    agree(&mut [&mut alice, &mut bob]);
    charlie.sync(&world.ds);
    assert_eq!(*charlie.group().status(), Status::Removed);
    assert!(!charlie.texts().contains(&"Charlie is gone".into()));
    assert!(charlie.group().wish(Wish::Update).is_err());
    charlie.restart();
    assert_eq!(*charlie.group().status(), Status::Removed);

    bob.wish(Wish::Leave);
    bob.drive(&mut world);
    alice.drive(&mut world);
    bob.sync(&world.ds);
    assert_eq!(*bob.group().status(), Status::Removed);
    assert_eq!(alice.group().members().unwrap().len(), 1);
    assert!(alice.events.iter().any(|event| matches!(event, Event::LeaveRequested { .. })));

    // Somebody who was removed can come back, as a new incarnation.
    let package = bob.key_package(&world);
    alice.wish(Wish::Add { key_packages: vec![package] });
    alice.drive(&mut world);
    bob.join(&world);
    bob.sync(&world.ds);
    bob.restart();
    agree(&mut [&mut alice, &mut bob]);
    alice.say("welcome back");
    alice.drive(&mut world);
    bob.sync(&world.ds);
    assert_eq!(bob.texts().last().unwrap(), "welcome back");
}

#[test]
fn two_commits_on_one_epoch_and_both_wishes_come_true() {
    let mut world = World::new();
    let [mut alice, mut bob, mut charlie, mut dora] = people(&world, ["alice", "bob", "charlie", "dora"]);
    group_of(&mut world, &mut [&mut alice, &mut bob]);
    let to_charlie = charlie.key_package(&world);
    let to_dora = dora.key_package(&world);
    alice.wish(Wish::Add { key_packages: vec![to_charlie] });
    bob.wish(Wish::Add { key_packages: vec![to_dora] });
    // Both build their commit on the same epoch; Alice's is first.
    let mut events = Vec::new();
    let from_bob = bob.group().next_submission(common::NOW, &mut events).unwrap().unwrap();
    bob.save();
    alice.drive(&mut world);
    let refusal = world.ds.submit(&from_bob).unwrap_err();
    bob.sync(&world.ds);
    bob.group().refused(from_bob.intent, &refusal, &mut events).unwrap();
    bob.drive(&mut world);
    alice.sync(&world.ds);
    charlie.join(&world);
    charlie.sync(&world.ds);
    dora.join(&world);
    dora.sync(&world.ds);
    agree(&mut [&mut alice, &mut bob, &mut charlie, &mut dora]);
}

#[test]
fn a_lost_reply_and_a_crash_at_any_moment_lose_and_double_nothing() {
    let mut world = World::new();
    let [mut alice, mut bob] = people(&world, ["alice", "bob"]);
    group_of(&mut world, &mut [&mut alice, &mut bob]);
    // The message is stored, and the program dies before it is submitted.
    alice.say("one");
    alice.restart();
    alice.drive(&mut world);
    // It dies after the server took it, before the reply.
    alice.say("two");
    let mut events = Vec::new();
    let submission = alice.group().next_submission(common::NOW, &mut events).unwrap().unwrap();
    alice.save();
    world.ds.submit(&submission).unwrap();
    alice.restart();
    alice.drive(&mut world);
    // The same with a commit.
    alice.wish(Wish::Update);
    let submission = alice.group().next_submission(common::NOW, &mut events).unwrap().unwrap();
    alice.save();
    world.ds.submit(&submission).unwrap();
    alice.restart();
    alice.drive(&mut world);
    assert_eq!(alice.group().intents().count(), 0);
    bob.sync(&world.ds);
    agree(&mut [&mut alice, &mut bob]);
    assert_eq!(bob.texts(), ["one", "two"]);
    assert_eq!(alice.texts(), ["one", "two"]);
}

#[test]
fn a_message_made_in_an_epoch_that_ended_is_made_anew_unless_somebody_joined() {
    let mut world = World::new();
    let [mut alice, mut bob, mut charlie] = people(&world, ["alice", "bob", "charlie"]);
    group_of(&mut world, &mut [&mut alice, &mut bob]);
    let prepare = |person: &mut Person| {
        person.group().next_submission(common::NOW, &mut Vec::new()).unwrap().unwrap();
        person.save();
    };
    bob.say("late");
    prepare(&mut bob);
    for _ in 0..3 {
        alice.wish(Wish::Update);
        alice.drive(&mut world);
    }
    bob.drive(&mut world);
    alice.sync(&world.ds);
    assert_eq!(alice.texts(), ["late"]);

    bob.say("not for Charlie's eyes");
    prepare(&mut bob);
    let package = charlie.key_package(&world);
    alice.wish(Wish::Add { key_packages: vec![package] });
    alice.drive(&mut world);
    alice.wish(Wish::Update);
    alice.drive(&mut world);
    bob.drive(&mut world);
    alice.sync(&world.ds);
    assert_eq!(alice.texts(), ["late"]);
    assert!(bob.events.iter().any(|event| matches!(event, Event::IntentFailed { .. })));
}

#[test]
fn what_a_joiner_may_not_read_is_stale_and_not_an_alarm() {
    let mut world = World::new();
    let [mut alice, mut bob] = people(&world, ["alice", "bob"]);
    alice.create(&mut world, "Test");
    alice.say("before Bob");
    alice.drive(&mut world);
    let package = bob.key_package(&world);
    alice.wish(Wish::Add { key_packages: vec![package] });
    alice.drive(&mut world);
    bob.join(&world);
    let done = bob.sync(&world.ds);
    assert!(done.fault.is_none());
    assert!(done.outcomes.iter().all(|(_, outcome)| *outcome == Outcome::Stale));
    assert!(bob.texts().is_empty());
}
