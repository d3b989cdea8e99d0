//! What stands in the clear of entries, where it is not true: counts of members, and lengths of what is to be fetched.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::*;
use conclave_channel::{
    Body, CommitHeader, Entry, EntryKind, LogFault,
    law::{DISPUTE_MS, SETTLED_MS},
};
use conclave_engine::{
    group::Status,
    outcome::{Event, ProcessError},
};
use conclave_names::{Epoch, Hash, Seq, Timestamp, limits};
use conclave_protocol::v1::SubmitResponse;

/// Alice says something else of the members than her commit does, and than is so.
fn claim(world: &mut World, alice: &mut Person, removed: u32, members: u32) {
    bad_commit(world, alice, |entry| {
        let header = entry.commit.as_mut().unwrap();
        (header.removed, header.members) = (removed, members);
    });
}

fn reason(person: &mut Person) -> String {
    match person.group().status() {
        Status::Stuck { reason } => reason.clone(),
        status => panic!("{status:?}"),
    }
}

#[test]
fn who_says_to_be_alone_without_having_removed_anybody_is_disputed_like_others() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    let settled = bob.group().settled_epoch();
    claim(&mut world, &mut alice, 0, 1);
    assert_eq!(world.ds.ledger.as_ref().unwrap().open().len(), 1, "nobody has said that it applies");
    bob.drive_now(&mut world);
    carol.sync(&world.ds);
    assert_eq!(carol.group().settled_epoch(), settled);
    assert!(carol.events.iter().any(|event| matches!(event, Event::Disputed { .. })));
    world.ds.ahead += DISPUTE_MS + 60_001;
    bob.say("we go on");
    bob.drive_now(&mut world);
    for person in [&mut alice, &mut carol] {
        person.sync(&world.ds);
        assert!(person.events.iter().any(|event| matches!(event, Event::Annulled { .. })));
        assert_eq!(*person.group().status(), Status::Active);
        assert_eq!(person.texts(), ["we go on"]);
    }
    agree(&mut [&mut alice, &mut bob, &mut carol]);
    carol.wish(conclave_engine::intent::Wish::Update);
    carol.drive_now(&mut world);
    bob.sync(&world.ds);
    agree(&mut [&mut bob, &mut carol]);
}

/// Any member may remove all others; so it may say that it does. Those are told who, and what is left to do.
#[test]
fn a_false_removal_of_all_others_is_told_as_what_it_is() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    // One that is open already, and that nobody can apply either.
    claim(&mut world, &mut alice, 0, 2);
    bob.sync(&world.ds);
    reason(&mut bob);
    let claimed = world.ds.ledger.as_ref().unwrap().open()[0].clone();
    let header = CommitHeader { committer: claimed.committer, removed: 2, members: 1, key_root: claimed.key_root };
    let epoch = Epoch(alice.group().epoch().0 + 1);
    world.ds.put(Entry::commit(epoch, header, Body::Inline(vec![1; 256])));
    told_who_it_was(&world, &mut [&mut bob, &mut carol]);
}

#[test]
fn so_is_one_that_comes_alone() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    claim(&mut world, &mut alice, 2, 1);
    told_who_it_was(&world, &mut [&mut bob, &mut carol]);
    bob.drive_now(&mut world);
    told_who_it_was(&world, &mut [&mut bob]);
}

fn told_who_it_was(world: &World, people: &mut [&mut Person]) {
    for person in people {
        person.sync(&world.ds);
        let reason = reason(person);
        assert!(reason.contains("alice/laptop says that it removed all other members"), "{reason}");
        assert!(reason.contains("make a new group without that member"), "{reason}");
    }
}

#[test]
fn only_what_may_be_of_use_is_fetched() {
    let mut world = World::new();
    let [_, mut bob, _] = trio(&mut world);
    let bob = bob.group();
    let epoch = bob.epoch();
    let staged = |size| Body::Staged { hash: Hash::new([1; 32]), size };
    let wants = |entry: Entry| bob.wants_blob(&entry.to_bytes().unwrap());
    let commit = |epoch, size| {
        let key = conclave_channel::access::ChannelKey([1; 32]);
        let header = CommitHeader { committer: key, removed: 0, members: 3, key_root: Hash::new([1; 32]) };
        Entry::commit(epoch, header, staged(size))
    };
    assert!(wants(Entry::new(EntryKind::Message, epoch, staged(limits::STAGED_BODY))));
    assert!(wants(commit(epoch, limits::HANDSHAKE)));
    assert!(!wants(commit(epoch.next(), limits::HANDSHAKE)), "it cannot be followed");
    assert!(!wants(commit(epoch, limits::HANDSHAKE + 3 * 128 + 1)), "a group of three has none so large");
    // Nothing goes on here; but the commit that freezes the group may come before it in one batch.
    assert!(wants(Entry::new(EntryKind::Successor, epoch, staged(limits::STAGED_BODY))));
    assert!(!wants(Entry::new(EntryKind::Successor, epoch, staged(limits::STAGED_BODY + 1))));
    assert!(!bob.wants_blob(&[1, 2, 3]));
}

/// Stores keep times as signed numbers. Of a server's lie one group is to suffer, not the store.
#[test]
fn a_time_that_nobody_will_see_is_no_time() {
    let mut world = World::new();
    let [mut alice, mut bob, _] = trio(&mut world);
    alice.say("hello");
    alice.drive_now(&mut world);
    let genuine = world.ds.after(bob.group().position().seq);
    for time in [limits::TIME_MAX + 1, 1 << 63, u64::MAX] {
        let mut forged = genuine.clone();
        forged[0].time = Timestamp(time);
        let done = bob.group().process(&forged);
        assert!(matches!(done.fault, Some(ProcessError::Log(LogFault::Time { .. }))), "{time}: {:?}", done.fault);
        assert!(done.events.is_empty());
    }
    bob.sync(&world.ds);
    assert_eq!(bob.texts(), ["hello"]);
}

/// It takes more than two disputes to take back a commit that says to remove two. Who disputed it does not know whether others applied it.
#[test]
fn a_false_removal_that_too_few_dispute_is_told_with_its_committer_and_how_many_are_missing() {
    let mut world = World::new();
    let mut people = ["alice", "bob", "carol", "dave"].map(|name| world.person(name));
    let [alice, bob, carol, dave] = &mut people;
    group_of(&mut world, &mut [alice, bob, carol, dave]);
    for person in [&mut *alice, &mut *bob, &mut *carol, &mut *dave] {
        person.drive_now(&mut world);
    }
    claim(&mut world, alice, 2, 2);
    let at = world.ds.entries.last().unwrap().0;
    // Dave is away.
    for person in [&mut *bob, &mut *carol] {
        person.sync(&world.ds);
        let now = world.ds.now();
        let nack = person.group().next_submission(now, &mut Vec::new()).unwrap().unwrap();
        let reply =
            SubmitResponse { seq: world.ds.submit(&nack).unwrap().0, time_ms: now.0, ..SubmitResponse::default() };
        person.group().accepted(&reply);
        person.save();
    }
    assert!(world.ds.ledger.as_ref().unwrap().open()[0].disputed().is_none());
    world.ds.ahead += DISPUTE_MS + 6 * 60_000;
    for person in [&mut *bob, &mut *carol] {
        person.drive_now(&mut world);
        let found = person.events.iter().find_map(|event| match event {
            Event::Undecided { commit, by, removed, missing, until, .. } => {
                Some((*commit, by.clone(), *removed, *missing, *until))
            }
            _ => None,
        });
        let commit = Seq(world.ds.entries.iter().position(|(time, _)| *time == at).unwrap() as u64 + 1);
        assert_eq!(found, Some((commit, Some(alice.account.client.clone()), 2, 1, at.plus_ms(SETTLED_MS))));
        let reason = reason(person);
        assert!(reason.contains(&alice.account.client.to_string()) && reason.contains("1 more"), "{reason}");
        assert!(
            !person
                .events
                .iter()
                .any(|event| matches!(event, Event::Stuck { reason, .. } if reason.contains("went on")))
        );
        assert!(person.group().wants_rejoin(), "it tries all the same");
    }
    // What it says is so: Dave comes, and it is taken back.
    dave.drive_now(&mut world);
    world.ds.ahead += DISPUTE_MS + 6 * 60_000;
    dave.say("that was nothing");
    dave.drive_now(&mut world);
    for person in [&mut *alice, &mut *bob, &mut *carol] {
        person.sync(&world.ds);
        assert_eq!(*person.group().status(), Status::Active);
        assert_eq!(person.texts(), ["that was nothing"]);
    }
    agree(&mut [alice, bob, carol, dave]);
}
