//! Messages and proposals that were on their way for long, while commits were ordered and annulled: whose they are is known all the
//! same.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::*;
use conclave_channel::law::DISPUTE_MS;
use conclave_engine::{
    group::{Status, Submission, SubmissionBody},
    intent::Wish,
    outcome::{Event, Outcome},
};

/// What somebody has made, and the network keeps for now.
fn on_its_way(person: &mut Person, world: &World) -> Submission {
    let submission = person.group().next_submission(world.ds.now(), &mut Vec::new()).unwrap().unwrap();
    person.save();
    assert!(matches!(submission.body, SubmissionBody::Entry(_)));
    submission
}

/// `committer` ends some epochs, the first of which is disputed and annulled: the group is where it was.
fn annulled_epochs(world: &mut World, count: usize, committer: &mut Person, others: [&mut Person; 2]) {
    let access = committer.group().access().unwrap();
    let before = committer.group().epoch();
    let [one, two] = others;
    let doubter = two.group().access().unwrap();
    assert_eq!(doubter.epoch, access.epoch);
    for round in 0..count {
        committer.wish(Wish::Update);
        committer.drive_now(world);
        if round == 0 {
            false_nack(world, &doubter);
        }
        one.sync(&world.ds);
    }
    assert_eq!(one.group().epoch().0, before.0 + count as u64);
    // Nobody is there to acknowledge it in time.
    world.ds.ahead += DISPUTE_MS + 600_000;
    for person in [committer, one, two] {
        person.sync(&world.ds);
        person.group().next_submission(world.ds.now(), &mut Vec::new()).unwrap();
        person.save();
        assert_eq!(person.group().epoch(), before);
        person.restart();
        person.events.clear();
    }
}

fn outcome(person: &mut Person, world: &World) -> Outcome {
    person.sync(&world.ds).outcomes.last().unwrap().1.clone()
}

fn refused(person: &Person) -> bool {
    person.events.iter().any(|event| matches!(event, Event::Refused { .. } | Event::Forked { .. }))
}

#[test]
fn a_message_of_an_epoch_that_came_back_is_known_as_ours_and_said_once() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    bob.say("slow");
    let late = on_its_way(&mut bob, &world);
    // Two epochs on, it would be refused, and is to be made anew.
    annulled_epochs(&mut world, 2, &mut alice, [&mut bob, &mut carol]);
    assert!(bob.group().intents().next().is_some());
    world.ds.submit(&late).unwrap();
    assert_eq!(outcome(&mut bob, &world), Outcome::Confirmed);
    assert!(bob.group().intents().next().is_none(), "it is said");
    bob.drive_now(&mut world);
    for person in [&mut alice, &mut carol] {
        person.sync(&world.ds);
    }
    for person in [&alice, &bob, &carol] {
        assert_eq!(person.texts(), ["slow"]);
        assert!(!refused(person), "{:?}", person.events);
    }
    agree(&mut [&mut alice, &mut bob, &mut carol]);
}

#[test]
fn if_it_was_made_anew_and_both_arrive_each_is_known() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    bob.say("slow");
    let late = on_its_way(&mut bob, &world);
    annulled_epochs(&mut world, 2, &mut alice, [&mut bob, &mut carol]);
    let anew = on_its_way(&mut bob, &world);
    assert!(
        matches!((&late.body, &anew.body), (SubmissionBody::Entry(a), SubmissionBody::Entry(b)) if a.entry != b.entry)
    );
    world.ds.submit(&late).unwrap();
    assert_eq!(outcome(&mut bob, &world), Outcome::Confirmed);
    bob.restart();
    world.ds.submit(&anew).unwrap();
    assert_eq!(outcome(&mut bob, &world), Outcome::Confirmed);
    assert!(!refused(&bob), "{:?}", bob.events);
    alice.sync(&world.ds);
    assert!(!refused(&alice), "{:?}", alice.events);
    carol.sync(&world.ds);
    agree(&mut [&mut alice, &mut bob, &mut carol]);
}

#[test]
fn what_was_said_in_a_void_epoch_is_no_fork_and_not_taken_for_said() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    let doubter = carol.group().access().unwrap();
    let before = bob.group().epoch();
    alice.wish(Wish::Update);
    alice.drive_now(&mut world);
    false_nack(&mut world, &doubter);
    for person in [&mut bob, &mut carol] {
        person.sync(&world.ds);
    }
    bob.say("in an epoch that never was");
    let late = on_its_way(&mut bob, &world);
    world.ds.ahead += DISPUTE_MS + 600_000;
    for person in [&mut alice, &mut bob, &mut carol] {
        person.sync(&world.ds);
        person.group().next_submission(world.ds.now(), &mut Vec::new()).unwrap();
        person.save();
        assert_eq!(person.group().epoch(), before);
    }
    // Another epoch gets the number of the void one, so that the server takes it.
    carol.wish(Wish::Update);
    carol.drive_now(&mut world);
    for person in [&mut alice, &mut bob] {
        person.sync(&world.ds);
        person.events.clear();
    }
    world.ds.submit(&late).unwrap();
    assert_eq!(outcome(&mut bob, &world), Outcome::Stale);
    assert!(!refused(&bob), "{:?}", bob.events);
    for person in [&mut alice, &mut carol] {
        person.sync(&world.ds);
        assert!(!person.events.iter().any(|event| matches!(event, Event::Forked { .. })), "{:?}", person.events);
    }
    // It is still to be said, and is.
    bob.drive_now(&mut world);
    for person in [&mut alice, &mut carol] {
        person.sync(&world.ds);
        assert_eq!(person.texts(), ["in an epoch that never was"]);
    }
    agree(&mut [&mut alice, &mut bob, &mut carol]);
}

#[test]
fn a_wish_to_leave_of_an_epoch_that_came_back_is_carried_out() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    bob.wish(Wish::Leave);
    let late = on_its_way(&mut bob, &world);
    annulled_epochs(&mut world, 1, &mut alice, [&mut bob, &mut carol]);
    world.ds.submit(&late).unwrap();
    assert_eq!(outcome(&mut bob, &world), Outcome::Confirmed);
    assert!(bob.group().is_asked_to_leave());
    assert!(!refused(&bob), "{:?}", bob.events);
    alice.drive(&mut world);
    bob.sync(&world.ds);
    carol.sync(&world.ds);
    assert_eq!(*bob.group().status(), Status::Removed);
    assert!(!bob.events.iter().any(|event| matches!(event, Event::Stuck { .. })), "{:?}", bob.events);
    agree(&mut [&mut alice, &mut carol]);
    assert_eq!(alice.group().members().unwrap().len(), 2);
}

/// The state in the store lags a commit behind, and has an epoch that is remembered no more: after the annulment it comes back.
#[test]
fn epochs_before_an_annulled_one_end_together() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    let mut update = |world: &mut World, others: &mut [&mut Person]| {
        alice.wish(Wish::Update);
        alice.drive_now(world);
        for person in &mut *others {
            person.sync(&world.ds);
        }
    };
    for _ in 0..4 {
        update(&mut world, &mut [&mut bob, &mut carol]);
    }
    let doubter = carol.group().access().unwrap();
    update(&mut world, &mut [&mut bob]);
    dispute(&mut world, &doubter, 4);
    update(&mut world, &mut [&mut bob]);
    world.ds.ahead += DISPUTE_MS + 600_000;
    carol.say("as if nothing had been");
    carol.drive_now(&mut world);
    bob.sync(&world.ds);
    assert_eq!(bob.group().epoch(), doubter.epoch);
    // All keys of past epochs are over.
    world.ds.ahead += 2 * 3_600_000;
    for text in ["one", "two"] {
        carol.say(text);
        carol.drive_now(&mut world);
        bob.sync(&world.ds);
    }
    carol.wish(Wish::Update);
    carol.drive_now(&mut world);
    bob.sync(&world.ds);
    assert_eq!(*bob.group().status(), Status::Active);
    alice.sync(&world.ds);
    agree(&mut [&mut alice, &mut bob, &mut carol]);
}
