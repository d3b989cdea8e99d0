//! Frozen groups that wait for members in vain: the others go on without them, once their users decide so.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

#[path = "common/anew.rs"]
mod anew;
mod common;

use anew::*;
use common::{Person, World, agree};
use conclave_channel::law::Ledger;
use conclave_engine::{
    group::{Group, INVITED_MS, ONWARD_MS, Status},
    intent::Wish,
    outcome::{Event, Outcome},
};
use conclave_names::Epoch;

fn went_on(person: &Person) -> usize {
    person.events.iter().filter(|event| matches!(event, Event::WentOnWithout { .. })).count()
}

/// A week passes.
fn wait(world: &mut World, people: &mut [Person]) {
    world.ds.ahead += ONWARD_MS + 3_600_000;
    for person in people {
        person.sync(&world.ds);
    }
}

/// What one begins to go on in.
fn begin(world: &World, person: &mut Person) -> Group {
    let now = world.ds.now();
    person.group().begin_onward(now).unwrap()
}

/// Says in the frozen group that it goes on in another.
fn say_so(world: &mut World, person: &mut Person, next: &Group) {
    let now = world.ds.now();
    person.group().go_on_in(next, now).unwrap();
    person.save();
    person.restart();
    person.drive_now(world);
}

#[test]
fn after_a_week_members_go_on_without_who_is_not_to_be_had() {
    let mut world = World::new();
    let mut people = frozen(&mut world);
    people[1].say("said while it was frozen");
    people[2].say("said by who is not to be had");
    let now = world.ds.now();
    assert!(people[0].group().onward_from().unwrap() > now);
    assert!(people[0].group().begin_onward(now).is_err(), "not yet");
    wait(&mut world, &mut people);
    let mut next = begin(&world, &mut people[0]);
    let (old, room) = (people[0].group().name().clone(), people[0].group().profile().room.clone());
    assert_eq!((&next.profile().room, next.cipher_suite()), (&room, u16::from(NEW)));
    assert_ne!(next.profile().channel, people[0].group().profile().channel);
    // Bob is to be had.
    people[1].suite = NEW;
    let package = people[1].key_package(&world);
    let frozen_ds = std::mem::take(&mut world.ds);
    world.ds.ahead = frozen_ds.ahead;
    (world.ds.channel, world.ds.ledger) =
        (Some(next.profile().channel), Some(Ledger::new(Epoch(0), next.key_root().unwrap(), 1)));
    next.wish(Wish::Add { key_packages: vec![package] }).unwrap();
    let group = people[0].group.replace(next).unwrap();
    people[0].save();
    people[0].drive_now(&mut world);
    let next = people[0].group.replace(group).unwrap();
    let next_ds = std::mem::replace(&mut world.ds, frozen_ds);

    say_so(&mut world, &mut people[0], &next);
    for person in &mut people {
        person.sync(&world.ds);
        person.restart();
        assert_eq!(went_on(person), 1);
        assert_eq!(person.group().onward().unwrap().group, *next.name());
    }
    // Whoever comes second is too late, and a successor, too.
    let carol = people[2].account.client.clone();
    let [alice, bob, carol_now] = people.as_mut_slice() else { panic!() };
    assert!(carol_now.group().onward().unwrap().without_us && !bob.group().onward().unwrap().without_us);
    assert!(bob.group().successor_due().is_none() && bob.group().onward_from().is_none());

    let now = world.ds.now();
    let mut told = Vec::new();
    carol_now.group().left_behind(now, &mut told);
    carol_now.save();
    assert!(told.iter().any(|event| matches!(event, Event::IntentFailed { .. })), "what she said is told of: {told:?}");
    assert_eq!(*carol_now.group().status(), Status::Removed);
    let absent = |event: &Event| matches!(event, Event::WentOnWithout { absent, .. } if *absent == [carol.clone()]);
    assert!(carol_now.events.iter().any(absent));
    carol_now.restart();
    assert!(carol_now.group.is_none(), "its keys are gone");

    world.ds = next_ds;
    let old_of_alice = alice.group.replace(next).unwrap();
    let old_of_bob = bob.group.take().unwrap();
    bob.join(&world);
    for (person, mut gone) in [(&mut *alice, old_of_alice), (&mut *bob, old_of_bob)] {
        let mut events = Vec::new();
        let next = person.group.as_mut().unwrap();
        gone.go_over(next, now, &mut events);
        let mut writes = gone.take_writes().unwrap();
        writes.extend(next.take_writes().unwrap());
        person.store.apply(writes);
        person.restart();
        let listed = conclave_engine::group::list(&person.store).unwrap();
        let of_old = listed.iter().find(|listed| listed.name == old).unwrap();
        assert_eq!((&of_old.status, of_old.successor.as_ref()), (&Status::Removed, Some(person.group().name())));
    }
    assert_eq!(alice.group().predecessor(), Some(&old));
    for _ in 0..2 {
        bob.drive_now(&mut world);
        alice.drive_now(&mut world);
    }
    assert_eq!(alice.texts().last().unwrap(), "said while it was frozen");
    agree(&mut [alice, bob]);
}

#[test]
fn before_the_week_is_over_it_counts_for_nobody() {
    let mut world = World::new();
    let mut people = frozen(&mut world);
    // Alice's clock is ahead.
    let ahead = world.ds.now().plus_ms(2 * ONWARD_MS);
    let next = people[0].group().begin_onward(ahead).unwrap();
    people[0].group().go_on_in(&next, ahead).unwrap();
    people[0].save();
    let now = world.ds.now();
    let early = people[0].group().next_submission(now, &mut Vec::new()).unwrap().unwrap();
    world.ds.submit(&early).unwrap();
    for person in &mut people {
        let done = person.sync(&world.ds);
        assert!(matches!(done.outcomes.last(), Some((_, Outcome::Rejected(_)))), "{done:?}");
        assert!(!person.group().has_successor() && person.group().onward().is_none());
    }
    make(&world, 1, &mut people);
    people[1].drive(&mut world);
    for person in &mut people {
        person.sync(&world.ds);
        assert!(person.group().has_successor() && person.group().onward().is_none());
    }
}

#[test]
fn of_a_successor_and_a_new_group_the_first_in_the_log_counts() {
    for successor_first in [true, false] {
        let mut world = World::new();
        let mut people = frozen(&mut world);
        wait(&mut world, &mut people);
        let next = begin(&world, &mut people[0]);
        let now = world.ds.now();
        people[0].group().go_on_in(&next, now).unwrap();
        people[0].save();
        make(&world, 1, &mut people);
        let now = world.ds.now().plus_ms(60_000);
        let [alice, bob, _] = people.as_mut_slice() else { panic!() };
        let mut both =
            [bob, alice].map(|person| person.group().next_submission(now, &mut Vec::new()).unwrap().unwrap());
        if !successor_first {
            both.reverse();
        }
        for submission in &both {
            world.ds.submit(submission).unwrap();
        }
        for person in &mut people {
            person.sync(&world.ds);
            assert_eq!(person.group().onward().is_none(), successor_first);
            assert!(person.group().has_successor());
            assert_eq!(went_on(person), usize::from(!successor_first));
        }
    }
}

#[test]
fn it_leads_nowhere_but_to_the_same_room_and_the_same_people() {
    let mut world = World::new();
    let mut people = frozen(&mut world);
    wait(&mut world, &mut people);
    let now = world.ds.now();
    let frozen = people[0].group.take().unwrap();
    let ds = std::mem::take(&mut world.ds);
    world.ds.ahead = ds.ahead;
    people[0].create(&mut world, "Another room");
    let other = people[0].group.replace(frozen).unwrap();
    assert!(people[0].group().go_on_in(&other, now).is_err());
    // Nor in one with a stranger.
    let next = people[0].group().begin_onward(now).unwrap();
    (world.ds.channel, world.ds.ledger) =
        (Some(next.profile().channel), Some(Ledger::new(Epoch(0), next.key_root().unwrap(), 1)));
    world.ds.entries.clear();
    let frozen = people[0].group.replace(next).unwrap();
    people[0].save();
    let mut eve = world.person("eve");
    eve.suite = NEW;
    let package = eve.key_package(&world);
    people[0].wish(Wish::Add { key_packages: vec![package] });
    people[0].drive_now(&mut world);
    let next = people[0].group.replace(frozen).unwrap();
    assert_eq!(next.members().unwrap().len(), 2);
    assert!(people[0].group().go_on_in(&next, now).is_err());
    assert_eq!(people[0].group().intents().count(), 0);
}

#[test]
fn whose_invitation_does_not_come_asks_members() {
    let mut world = World::new();
    let mut people = frozen(&mut world);
    wait(&mut world, &mut people);
    // Alice's new group has nobody else in it yet, so that all others are named; Bob is none of the named in this one.
    let next = begin(&world, &mut people[0]);
    say_so(&mut world, &mut people[0], &next);
    let bob = &mut people[1];
    bob.sync(&world.ds);
    let onward = bob.group().onward().unwrap();
    let now = world.ds.now();
    assert!(onward.without_us && onward.since <= now);
    assert!(bob.group().due(now).is_some_and(|due| due <= onward.since.plus_ms(INVITED_MS)));
    bob.group().left_out("no invitation to it has come");
    bob.save();
    bob.restart();
    assert!(bob.group().wants_rejoin() && bob.group().knock_due(now).is_some_and(|due| due <= now));
}
