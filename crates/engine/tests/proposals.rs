//! Commits that refer to proposals which some member could not read (RFC 9750, section 5.2.2).

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::*;
use conclave_channel::{Body, Entry, EntryKind};
use conclave_engine::{
    group::{Incoming, Status},
    intent::Wish,
    outcome::{Event, Outcome, Rejection},
};

/// Alice, Bob, Carol and Dave; Dave asks to leave, and Carol commits it. Bob has read neither.
fn scene() -> (World, [Person; 4]) {
    let mut world = World::new();
    let mut people = ["alice", "bob", "carol", "dave"].map(|name| world.person(name));
    let [alice, bob, carol, dave] = &mut people;
    group_of(&mut world, &mut [alice, bob, carol, dave]);
    for person in &mut people {
        person.sync(&world.ds);
    }
    let [_, _, carol, dave] = &mut people;
    dave.wish(Wish::Leave);
    dave.drive_now(&mut world);
    carol.drive(&mut world);
    carol.say("Dave has left");
    carol.drive(&mut world);
    (world, people)
}

/// Of a batch, with one entry's body changed on its way.
fn damaged(mut batch: Vec<Incoming>, kind: EntryKind) -> Vec<Incoming> {
    for incoming in &mut batch {
        let mut entry = Entry::parse(&incoming.entry).unwrap();
        if entry.kind == kind {
            let Body::Inline(body) = &mut entry.body else { panic!("it is short") };
            *body.last_mut().unwrap() ^= 1;
            incoming.entry = entry.to_bytes().unwrap();
        }
    }
    batch
}

#[test]
fn a_proposal_that_came_damaged_is_read_once_more_and_its_commit_applied() {
    let (world, [mut alice, mut bob, mut carol, _]) = scene();
    let place = bob.group().position();
    let batch = world.ds.after(place.seq);
    let done = bob.group().process(&damaged(batch.clone(), EntryKind::Proposal));
    assert_eq!(done.outcomes, [(batch[0].seq, Outcome::Rejected(Rejection::Seal))]);
    assert!(bob.group().wants_refetch() && bob.group().position() == place, "nothing was passed over");
    assert!(done.events.is_empty() && done.fault.is_none(), "{done:?}");
    bob.save();
    // Also if it is killed in between.
    bob.restart();
    let done = bob.sync(&world.ds);
    assert!(done.outcomes.iter().all(|(_, outcome)| *outcome == Outcome::Applied), "{:?}", done.outcomes);
    alice.sync(&world.ds);
    agree(&mut [&mut alice, &mut bob, &mut carol]);
    assert_eq!(bob.group().position(), carol.group().position());
    assert_eq!(bob.texts(), ["Dave has left"]);
    assert!(!bob.events.iter().any(|event| matches!(event, Event::Refused { .. } | Event::LogsDiffer { .. })));
}

#[test]
fn one_that_stays_as_it_is_costs_one_reading_more_and_its_commit_says_what_is_wrong() {
    let (world, [_, mut bob, _, _]) = scene();
    let place = bob.group().position().seq;
    let batch = damaged(world.ds.after(place), EntryKind::Proposal);
    let mut outcomes = Vec::new();
    for round in 0..2 {
        let done = bob.group().process(&batch[outcomes.len()..]);
        assert_eq!(done.outcomes[0], (batch[0].seq, Outcome::Rejected(Rejection::Seal)), "{round}");
        if round == 1 {
            // It is passed over, and told of; the commit is read once more, too.
            assert!(done.events.iter().any(|event| matches!(event, Event::Refused { .. })), "{:?}", done.events);
            outcomes = done.outcomes;
        } else {
            assert_eq!(done.outcomes.len(), 1);
        }
    }
    assert_eq!(outcomes[1].1, Outcome::NeedsRecovery(Rejection::UnknownProposal));
    assert!(bob.group().wants_refetch());
    assert!(matches!(bob.group().status(), Status::Stuck { .. }));
}

#[test]
fn damage_that_differs_each_time_ends_with_the_first_good_copy() {
    let (world, [_, mut bob, mut carol, _]) = scene();
    let batch = world.ds.after(bob.group().position().seq);
    for change in 1..5_u8 {
        let mut bad = batch.clone();
        let mut entry = Entry::parse(&bad[0].entry).unwrap();
        let Body::Inline(body) = &mut entry.body else { panic!("it is short") };
        body[7] ^= change;
        bad[0].entry = entry.to_bytes().unwrap();
        let done = bob.group().process(&bad);
        assert_eq!(done.outcomes.len(), 1, "{change}");
        assert!(bob.group().wants_refetch(), "{change}");
    }
    bob.sync(&world.ds);
    agree(&mut [&mut bob, &mut carol]);
}

/// The shapes of a commit that a proposal of somebody else's takes: one such, and here several (RFC 9420, section 12.4).
#[test]
fn what_several_propose_is_carried_out_by_one_commit() {
    let mut world = World::new();
    let mut people = ["alice", "bob", "carol", "dave", "erin"].map(|name| world.person(name));
    let [alice, bob, carol, dave, erin] = &mut people;
    group_of(&mut world, &mut [&mut *alice, &mut *bob, &mut *carol, &mut *dave, &mut *erin]);
    for person in [&mut *alice, &mut *bob, &mut *carol, &mut *dave, &mut *erin] {
        person.sync(&world.ds);
    }
    let (epoch, before) = (alice.group().epoch(), world.ds.entries.len());
    // Neither has read what the other asks.
    for person in [&mut *dave, &mut *erin] {
        person.wish(Wish::Leave);
        let asks = person.group().next_submission(world.ds.now(), &mut Vec::new()).unwrap().unwrap();
        person.save();
        world.ds.submit(&asks).unwrap();
    }
    bob.drive_now(&mut world);
    let kinds: Vec<_> = world.ds.entries[before..].iter().map(|(_, entry)| Entry::parse(entry).unwrap().kind).collect();
    assert_eq!(kinds[..3], [EntryKind::Proposal, EntryKind::Proposal, EntryKind::Commit], "{kinds:?}");
    for person in [&mut *alice, &mut *carol, &mut *dave, &mut *erin] {
        person.sync(&world.ds);
    }
    assert_eq!((dave.group().status(), erin.group().status()), (&Status::Removed, &Status::Removed));
    assert_eq!((alice.group().epoch(), alice.group().members().unwrap().len()), (epoch.next(), 3));
    agree(&mut [alice, bob, carol]);
}
