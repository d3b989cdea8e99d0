//! Epochs that are annulled while nobody is there, or where nobody can read of it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::*;
use conclave_channel::{Body, Entry, law::DISPUTE_MS, receipt::Receipt};
use conclave_engine::{
    group::{KIND_EVENT, Status, SubmissionBody},
    intent::Wish,
    invitation::{Invitation, JoinError, load_key_packages},
    writes::StoredMessage,
};
use conclave_names::Hash;
use conclave_protocol::{Code, Refusal, v1::SubmitResponse};

const MINUTE: u64 = 60_000;

/// Whether a stored row is an event of a kind.
fn says(row: &StoredMessage, kind: &str) -> bool {
    row.kind == KIND_EVENT && String::from_utf8_lossy(&row.body).contains(&format!("\"event\":\"{kind}\""))
}

/// A server admits no key of an epoch that time has annulled, so no entry can come that would show it.
#[test]
fn what_time_has_annulled_is_left_without_an_entry_that_shows_it() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    let access = carol.group().access().unwrap();
    let before = alice.group().epoch();
    alice.wish(Wish::Update);
    alice.drive_now(&mut world);
    for person in [&mut bob, &mut carol] {
        person.sync(&world.ds);
    }
    false_nack(&mut world, &access);
    for person in [&mut alice, &mut bob, &mut carol] {
        person.sync(&world.ds);
        assert_eq!(person.group().epoch(), before.next());
    }
    // Nobody is there to acknowledge it in time.
    world.ds.ahead += DISPUTE_MS + 10 * MINUTE;
    let entries = world.ds.entries.len();
    for person in [&mut bob, &mut alice, &mut carol] {
        person.sync(&world.ds);
        person.group().next_submission(world.ds.now(), &mut Vec::new()).unwrap();
        person.save();
        person.restart();
        assert_eq!(person.group().epoch(), before, "also after a crash");
        // Histories tell by their times what was there before.
        let noted = |kind: &str| person.store.messages.iter().rev().find(|row| says(row, kind)).unwrap();
        let (void, annulled) = (noted("updated"), noted("annulled"));
        assert!(void.seq <= annulled.seq && void.time_ms < annulled.time_ms);
    }
    assert_eq!(world.ds.entries.len(), entries);
    for (text, person) in [("one", &mut alice), ("two", &mut bob), ("three", &mut carol)] {
        person.sync(&world.ds);
        person.say(text);
        person.drive(&mut world);
    }
    for person in [&mut alice, &mut bob] {
        person.sync(&world.ds);
    }
    agree(&mut [&mut alice, &mut bob, &mut carol]);
    assert_eq!(alice.texts(), ["one", "two", "three"]);
}

/// Bob acknowledged the commit before the one that removed him: the server took his word behind that, where he cannot read it. By time alone both
/// are void, and he is back; that he sees nothing of his word is no silence of the server's.
#[test]
fn who_is_back_by_time_alone_does_not_miss_what_was_ordered_behind_its_removal() {
    for locked_out in [false, true] {
        let mut world = World::new();
        let [mut alice, mut bob, mut carol] = trio(&mut world);
        let access = carol.group().access().unwrap();
        alice.wish(Wish::Update);
        alice.drive_now(&mut world);
        carol.sync(&world.ds);
        dispute(&mut world, &access, 0);
        bob.sync(&world.ds);
        let ack = bob.group().next_submission(world.ds.now().plus_ms(MINUTE), &mut Vec::new()).unwrap().unwrap();
        bob.save();
        alice.wish(Wish::Remove { users: vec![bob.user()] });
        alice.drive_now(&mut world);
        let readable = world.ds.after(bob.group().position().seq);
        let seq = world.ds.submit(&ack).unwrap();
        let end = world.ds.end().place;
        let receipt = Receipt::sign(&receipt_signer(), world.ds.channel.unwrap(), end);
        let (chain, receipt) = (end.hash.to_vec(), receipt.signature.0.to_vec());
        let reply = SubmitResponse { seq: seq.0, time_ms: world.ds.now().0, chain, receipt };
        assert!(bob.group().accepted(&reply).is_empty());
        bob.group().process(&readable);
        assert!(*bob.group().status() == Status::Removed && bob.group().may_return());

        world.ds.ahead += DISPUTE_MS + 10 * MINUTE;
        let now = world.ds.now();
        bob.group().caught_up(now).unwrap();
        let first = bob.group().next_submission(now, &mut Vec::new()).unwrap();
        assert_eq!(*bob.group().status(), Status::Active, "by his clock");
        assert_eq!(bob.group().withheld(), []);
        let refusal = Refusal::new(Code::AccessRefused, "the key opens nothing any more");
        if locked_out {
            bob.group().locked_out(&mut Vec::new());
        } else {
            bob.group().refused(first.unwrap().intent, &refusal, &mut Vec::new()).unwrap();
        }
        assert_eq!(*bob.group().status(), Status::Removed);
        assert_eq!(bob.group().withheld(), []);
    }
}

/// Who has not read the channel's newest entries does not know what time has decided: there may be an Ack.
#[test]
fn who_is_behind_goes_back_from_nothing() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    let access = carol.group().access().unwrap();
    alice.wish(Wish::Update);
    alice.drive_now(&mut world);
    bob.sync(&world.ds);
    false_nack(&mut world, &access);
    alice.sync(&world.ds);
    let epoch = alice.group().epoch();
    bob.drive_now(&mut world);
    assert!(world.ds.ledger.as_ref().unwrap().open().is_empty(), "Bob acknowledged it");
    world.ds.ahead += DISPUTE_MS + 10 * MINUTE;
    let mut events = Vec::new();
    alice.group().next_submission(world.ds.now(), &mut events).unwrap();
    assert_eq!((alice.group().epoch(), events), (epoch, Vec::new()));
    for person in [&mut alice, &mut carol] {
        person.sync(&world.ds);
    }
    agree(&mut [&mut alice, &mut bob, &mut carol]);
}

/// A commit that nobody can apply and that claims to remove somebody ends what everybody may read.
#[test]
fn a_commit_that_shuts_everybody_out_does_not_end_the_group() {
    let mut world = World::new();
    let mut people = ["alice", "bob", "carol", "dave"].map(|name| world.person(name));
    let [alice, bob, carol, dave] = &mut people;
    group_of(&mut world, &mut [&mut *alice, &mut *bob, &mut *carol, &mut *dave]);
    for person in [&mut *alice, &mut *bob, &mut *carol, &mut *dave] {
        person.sync(&world.ds);
    }
    bad_commit(&mut world, alice, |entry| entry.commit.as_mut().unwrap().removed += 1);
    for person in [&mut *bob, &mut *carol, &mut *dave] {
        person.sync(&world.ds);
        assert!(matches!(person.group().status(), Status::Stuck { .. }));
    }
    for person in [&mut *bob, &mut *carol] {
        let now = world.ds.now();
        let nack = person.group().next_submission(now, &mut Vec::new()).unwrap().unwrap();
        let seq = world.ds.submit(&nack).unwrap();
        // The reply comes, and nothing can be read any more.
        let reply = SubmitResponse { seq: seq.0, time_ms: now.0, chain: vec![0; 32], receipt: Vec::new() };
        person.group().accepted(&reply);
        person.save();
        person.restart();
        assert!(person.group().next_submission(now, &mut Vec::new()).unwrap().is_none(), "it is said once");
    }
    world.ds.ahead += DISPUTE_MS + 10 * MINUTE;
    let now = world.ds.now();
    let due = bob.group().due(now).unwrap();
    assert!(due <= now && due.0 > DISPUTE_MS, "{due:?}");
    let commit = bob.group().next_submission(now, &mut Vec::new()).unwrap().unwrap();
    bob.save();
    assert!(matches!(commit.body, SubmissionBody::Bundle(_)));
    world.ds.submit(&commit).unwrap();
    for person in [&mut *alice, &mut *bob, &mut *carol, &mut *dave] {
        person.sync(&world.ds);
        assert_eq!(*person.group().status(), Status::Active);
    }
    agree(&mut [alice, bob, carol, dave]);
}

#[test]
fn who_cannot_follow_a_later_commit_acknowledges_the_one_that_it_applied() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    let access = carol.group().access().unwrap();
    alice.wish(Wish::Update);
    alice.drive_now(&mut world);
    bob.sync(&world.ds);
    false_nack(&mut world, &access);
    alice.sync(&world.ds);
    bad_commit(&mut world, &mut alice, |entry| entry.commit.as_mut().unwrap().key_root = Hash::new([7; 32]));
    bob.sync(&world.ds);
    assert!(matches!(bob.group().status(), Status::Stuck { .. }));
    bob.drive_now(&mut world);
    let ledger = world.ds.ledger.as_ref().unwrap();
    assert_eq!((ledger.settled(), ledger.open().len()), (bob.group().epoch(), 1), "the first stands");
    assert!(ledger.open()[0].disputed().is_some(), "the second is disputed");
}

#[test]
fn an_invitation_is_proven_once_its_commit_is_settled() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    let mut dave = world.person("dave");
    let access = carol.group().access().unwrap();
    let package = dave.key_package(&world);
    alice.wish(Wish::Add { key_packages: vec![package] });
    alice.drive_now(&mut world);
    dave.join(&world);
    dave.sync(&world.ds);
    assert!(dave.group().is_unproven(), "it may be annulled yet, and then nobody lets Dave read of it");
    bob.sync(&world.ds);
    false_nack(&mut world, &access);
    bob.drive_now(&mut world);
    dave.sync(&world.ds);
    assert!(!dave.group().is_unproven());
}

/// Their part of the ledger comes in a blob beside the tree, and the Welcome stays short.
#[test]
fn who_joins_while_commits_are_open_knows_which_and_by_a_welcome_of_a_kibibyte() {
    let mut world = World::new();
    let [mut alice, mut bob, _] = trio(&mut world);
    let mut dave = world.person("dave");
    for _ in 0..5 {
        alice.wish(Wish::Update);
        alice.drive_now(&mut world);
    }
    let package = dave.key_package(&world);
    alice.wish(Wish::Add { key_packages: vec![package] });
    alice.drive_now(&mut world);
    assert_eq!(alice.group().open_commits(), 6);
    let welcome = inbox_entry(world.ds.welcomes.last().unwrap());
    let Body::Inline(body) = Entry::parse(&welcome).unwrap().body else { panic!() };
    assert!(body.len() <= 1024, "{} bytes", body.len());
    dave.join(&world);
    for person in [&mut bob, &mut dave] {
        person.sync(&world.ds);
        assert_eq!(person.group().open_commits(), 6);
    }
    agree(&mut [&mut alice, &mut bob, &mut dave]);

    // The blob that says so is not the tree's, nor anything else.
    let mut erin = world.person("erin");
    let package = erin.key_package(&world);
    alice.wish(Wish::Add { key_packages: vec![package] });
    alice.drive_now(&mut world);
    let welcome = inbox_entry(world.ds.welcomes.last().unwrap());
    load_key_packages(&erin.mls, &erin.store).unwrap();
    let invitation = Invitation::open(&erin.account, &erin.mls, &welcome).unwrap();
    let mut fetch = invitation.tree().unwrap();
    assert_eq!(fetch.wanted().len(), 2);
    for name in fetch.wanted() {
        let mut blob = world.ds.blobs[&name].clone();
        blob[20] ^= 1;
        assert!(fetch.give(&blob).is_err());
    }
    let joined = invitation.join(&erin.account, &erin.mls, &erin.store, &fetch, NOW, &mut Vec::new());
    assert!(matches!(joined, Err(JoinError::Tree)), "{joined:?}");
    erin.join(&world);
}
