//! A member whose server no longer keeps what it would read next.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::cast_possible_truncation)]

mod common;

use common::{World, group_of};
use conclave_channel::LogFault;
use conclave_engine::{
    group::Status,
    intent::Wish,
    outcome::{Event, ProcessError},
};
use conclave_names::Seq;

#[test]
fn being_late_is_kept_and_told_once_and_a_server_that_remembers_ends_it() {
    let mut world = World::new();
    let mut people = ["alice", "bob"].map(|name| world.person(name));
    let [alice, bob] = &mut people;
    group_of(&mut world, &mut [alice, bob]);
    for text in ["one", "two", "three"] {
        alice.say(text);
        alice.drive(&mut world);
    }
    let place = bob.group().position().seq;
    let batch = world.ds.after(place);
    assert_eq!(batch.len(), 3);

    // A server that leaves entries out without a word is caught, whatever it says of others.
    let skipped = bob.group().process(&batch[2..]);
    let gap = LogFault::Gap { expected: place.next(), found: batch[2].seq };
    assert_eq!(skipped.fault, Some(ProcessError::Log(gap)));

    let mut events = Vec::new();
    bob.group().position_gone(Some(Seq(9)), &mut events);
    let Event::PositionGone { after, oldest, reason } = &events[0] else { panic!("{events:?}") };
    assert_eq!((*after, *oldest), (place, Some(Seq(9))));
    assert_eq!(*bob.group().status(), Status::Stuck { reason: reason.clone() });
    assert!(reason.contains("comes back by itself"), "{reason}");
    bob.save();
    bob.restart();
    assert_eq!(*bob.group().status(), Status::Stuck { reason: reason.clone() }, "a restart forgets nothing");
    bob.group().position_gone(Some(Seq(12)), &mut events);
    assert_eq!(events.len(), 1, "it is told once");
    assert!(bob.group().next_submission(common::NOW, &mut events).unwrap().is_none());

    // It was an error of the server's: what comes next is here after all.
    let done = bob.group().process(&batch);
    assert!(done.fault.is_none());
    assert_eq!(done.events.iter().filter(|event| matches!(event, Event::Message { .. })).count(), 3);
    assert_eq!(*bob.group().status(), Status::Active);
    bob.save();
    bob.restart();
    assert_eq!(*bob.group().status(), Status::Active);
    bob.group().wish(Wish::Update).unwrap();
}

#[test]
fn who_was_removed_is_not_told_of_what_it_may_not_read() {
    let mut world = World::new();
    let mut people = ["alice", "bob", "carol"].map(|name| world.person(name));
    let [alice, bob, carol] = &mut people;
    group_of(&mut world, &mut [alice, bob, carol]);
    let user = bob.user();
    alice.wish(Wish::Remove { users: vec![user] });
    alice.drive(&mut world);
    bob.sync(&world.ds);
    assert!(*bob.group().status() == Status::Removed && bob.group().may_return(), "it may yet be annulled");
    let mut events = Vec::new();
    bob.group().position_gone(Some(Seq(9)), &mut events);
    assert!(events.is_empty() && *bob.group().status() == Status::Removed && !bob.group().may_return());
}

#[test]
fn who_is_removed_is_told_of_what_it_did_not_get_to_say() {
    let mut world = World::new();
    let mut people = ["alice", "bob"].map(|name| world.person(name));
    let [alice, bob] = &mut people;
    group_of(&mut world, &mut [alice, bob]);
    alice.wish(Wish::Remove { users: vec![bob.user()] });
    alice.drive(&mut world);
    bob.say("too late");
    bob.wish(Wish::Update);
    bob.wish(Wish::Leave);
    // Also if it was killed in between.
    bob.restart();
    bob.sync(&world.ds);
    assert_eq!(bob.group().intents().count(), 0);
    let failed = |events: &[Event]| -> Vec<String> {
        let reason = |event: &Event| match event {
            Event::IntentFailed { reason, .. } => Some(reason.clone()),
            _ => None,
        };
        events.iter().filter_map(reason).collect()
    };
    let reasons = failed(&bob.events);
    // It did want to leave.
    assert_eq!(reasons.len(), 2);
    assert!(reasons[0].contains("was not sent") && reasons[1].contains("keys"), "{reasons:?}");
    let kept = bob.store.messages.iter().filter(|stored| stored.kind == conclave_engine::group::KIND_EVENT);
    let kept = kept.filter(|stored| String::from_utf8_lossy(&stored.body).contains("intent_failed")).count();
    assert_eq!(kept, 2, "the history has it");
}
