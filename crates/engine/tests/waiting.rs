//! What is wished by who cannot follow the group just now waits, and is done once it can.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::*;
use conclave_channel::{Entry, law::DISPUTE_MS};
use conclave_engine::{
    group::{Status, SubmissionBody},
    intent::Wish,
    outcome::Event,
};
use conclave_names::Hash;
use conclave_protocol::{Code, Refusal, v1::SubmitResponse};

const MINUTE: u64 = 60_000;

/// A commit of Alice's that nobody can apply; Bob and Carol read it.
fn all_stuck(world: &mut World, people: &mut [Person; 3], change: impl FnOnce(&mut Entry)) {
    let [alice, bob, carol] = people;
    bad_commit(world, alice, change);
    for person in [bob, carol] {
        person.sync(&world.ds);
        assert!(matches!(person.group().status(), Status::Stuck { .. }));
    }
}

fn failed(person: &Person) -> bool {
    person.events.iter().any(|event| matches!(event, Event::IntentFailed { .. }))
}

#[test]
fn what_is_wished_during_a_dispute_is_done_after_the_annulment() {
    let mut world = World::new();
    let mut people = trio(&mut world);
    all_stuck(&mut world, &mut people, |entry| entry.commit.as_mut().unwrap().key_root = Hash::new([7; 32]));
    let mut dave = world.person("dave");
    let package = dave.key_package(&world);
    let [alice, bob, carol] = &mut people;
    bob.say("said during the dispute");
    let add = bob.wish(Wish::Add { key_packages: vec![package] });
    let message = bob.group().intents().find(|intent| matches!(intent.wish, Wish::Send { .. })).unwrap().id;
    bob.drive_now(&mut world);
    let ledger = world.ds.ledger.as_ref().unwrap();
    assert!(ledger.open()[0].disputed().is_some(), "nothing but his word about the commit went out");
    assert_eq!(world.ds.entries.len(), usize::try_from(ledger.open()[0].seq.0).unwrap() + 1);
    // A crash forgets none of it.
    bob.restart();
    assert!(bob.group().is_pending(message) && bob.group().is_pending(add));
    world.ds.ahead += DISPUTE_MS + 10 * MINUTE;
    bob.drive_now(&mut world);
    assert!(!bob.group().is_pending(message) && !bob.group().is_pending(add) && !failed(bob));
    dave.join(&world);
    for person in [&mut *alice, &mut *carol, &mut dave] {
        person.sync(&world.ds);
    }
    assert_eq!(alice.texts(), ["said during the dispute"]);
    assert_eq!(carol.texts(), ["said during the dispute"]);
    agree(&mut [alice, bob, carol, &mut dave]);
}

/// The commit claims to remove somebody, and nothing can be read any more. The server takes messages of the epoch before, too: one that
/// it takes would not show whether the commit stands.
#[test]
fn who_can_read_nothing_commits_before_it_says_what_waits() {
    let mut world = World::new();
    let mut people = trio(&mut world);
    all_stuck(&mut world, &mut people, |entry| entry.commit.as_mut().unwrap().removed += 1);
    let [alice, bob, carol] = &mut people;
    for person in [&mut *bob, &mut *carol] {
        let now = world.ds.now();
        let nack = person.group().next_submission(now, &mut Vec::new()).unwrap().unwrap();
        let seq = world.ds.submit(&nack).unwrap();
        let reply = SubmitResponse { seq: seq.0, time_ms: now.0, chain: vec![0; 32], receipt: Vec::new() };
        person.group().accepted(&reply);
        person.say("said while nothing could be read");
        assert!(person.group().next_submission(now, &mut Vec::new()).unwrap().is_none(), "it waits");
        person.save();
    }
    world.ds.ahead += DISPUTE_MS + 10 * MINUTE;
    let now = world.ds.now();
    // Had others applied it, the server would say so, and Bob would have to come back; his message waits on.
    let mut elsewhere = Person { store: bob.store.clone(), ..world.person("bob") };
    (elsewhere.account, elsewhere.mls) = (bob.account.clone(), conclave_engine::Mls::new(&bob.account));
    let name = bob.group().name().clone();
    elsewhere.group =
        conclave_engine::group::Group::load(&elsewhere.account, &elsewhere.mls, &elsewhere.store, &name).unwrap();
    let commit = elsewhere.group().next_submission(now, &mut Vec::new()).unwrap().unwrap();
    let refusal = Refusal::new(Code::EpochConflict, "another commit ended the epoch");
    elsewhere.group.as_mut().unwrap().refused(commit.intent, &refusal, &mut elsewhere.events).unwrap();
    assert!(elsewhere.group().wants_rejoin() && !failed(&elsewhere));
    assert!(elsewhere.group().intents().any(|intent| matches!(intent.wish, Wish::Send { .. })));

    let commit = bob.group().next_submission(now, &mut Vec::new()).unwrap().unwrap();
    bob.save();
    assert!(matches!(commit.body, SubmissionBody::Bundle(_)), "a commit comes first");
    world.ds.submit(&commit).unwrap();
    for _ in 0..2 {
        for person in [&mut *alice, &mut *bob, &mut *carol] {
            person.drive_now(&mut world);
            assert_eq!(*person.group().status(), Status::Active);
        }
    }
    assert_eq!(alice.texts(), ["said while nothing could be read"; 2]);
    agree(&mut [alice, bob, carol]);
}
