//! Commits of what others proposed that cannot be made, or that the server refuses for good: they stop nobody, and nobody tries them
//! again without end.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::*;
use conclave_channel::Entry;
use conclave_engine::{
    group::{Status, Submission, SubmissionBody},
    intent::Wish,
    outcome::{Event, ProposedChange},
};
use conclave_names::Timestamp;
use conclave_protocol::{Code, Refusal};

/// What Alice has to submit at a time.
fn next(alice: &mut Person, now: Timestamp) -> Option<Submission> {
    let mut events = Vec::new();
    let next = alice.group().next_submission(now, &mut events).unwrap();
    alice.events.append(&mut events);
    alice.save();
    next
}

/// The server refuses it for good.
fn refuse(alice: &mut Person, submission: &Submission) {
    let refusal = Refusal::new(Code::TooLarge, "the bundle is too large");
    let mut events = Vec::new();
    alice.group().refused(submission.intent, &refusal, &mut events).unwrap();
    alice.events.append(&mut events);
    alice.save();
}

fn is_commit(submission: &Submission) -> bool {
    matches!(submission.body, SubmissionBody::Bundle(_))
}

fn count(person: &Person, which: impl Fn(&Event) -> bool) -> usize {
    person.events.iter().filter(|event| which(event)).count()
}

/// Alice, Bob and Carol; Carol asks to leave.
fn carol_leaves(world: &mut World) -> [Person; 3] {
    let mut people = trio(world);
    people[2].wish(Wish::Leave);
    people[2].drive_now(world);
    for person in &mut people {
        person.sync(&world.ds);
    }
    people
}

#[test]
fn what_is_refused_with_others_proposals_is_made_without_them() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = carol_leaves(&mut world);
    alice.say("hello");
    let now = world.ds.now().plus_ms(60_000);
    let with = next(&mut alice, now).unwrap();
    assert!(is_commit(&with));
    refuse(&mut alice, &with);
    let without = next(&mut alice, now).unwrap();
    let left_out = alice.events.iter().find_map(|event| match event {
        Event::ProposalsLeftOut { proposals, reason } => Some((proposals.clone(), reason.clone())),
        _ => None,
    });
    let (proposals, reason) = left_out.unwrap();
    assert_eq!(proposals, [ProposedChange::Remove(carol.account.client.clone())]);
    assert!(reason.contains("TOO_LARGE"), "{reason}");
    let SubmissionBody::Bundle(bundle) = &without.body else { panic!("a commit") };
    assert_eq!(Entry::parse(&bundle.entry).unwrap().commit.unwrap().removed, 0);
    world.ds.submit(&without).unwrap();
    alice.drive_now(&mut world);
    assert_eq!(alice.texts(), ["hello"]);
    // Who wants to leave asks once more, and it is done.
    carol.drive_now(&mut world);
    bob.drive_now(&mut world);
    carol.sync(&world.ds);
    assert_eq!(*carol.group().status(), Status::Removed);
    alice.sync(&world.ds);
    agree(&mut [&mut alice, &mut bob]);
    assert_eq!(count(&alice, |event| matches!(event, Event::IntentFailed { .. })), 0);
}

#[test]
fn what_fails_all_the_same_is_tried_again_later_and_told_once() {
    let mut world = World::new();
    let [mut alice, mut bob, _] = carol_leaves(&mut world);
    alice.say("hello");
    let mut now = world.ds.now().plus_ms(60_000);
    let mut tries = 0;
    // Two hours, in which whatever Alice commits is refused.
    let end = now.plus_ms(7_200_000);
    while now < end {
        while let Some(submission) = next(&mut alice, now) {
            assert!(is_commit(&submission), "a message must not pass a proposal");
            refuse(&mut alice, &submission);
            tries += 1;
        }
        let due = alice.group().commit_due().unwrap();
        assert!(due > now, "it is put off");
        assert!(alice.group().due(now).is_some_and(|due| due > now), "nothing is due again at once");
        now = due;
    }
    // Once with what is proposed, then without it after 1, 2, 4, … minutes.
    assert!((6..=10).contains(&tries), "{tries}");
    assert_eq!(count(&alice, |event| matches!(event, Event::IntentFailed { .. })), 1);
    let noted = |word: &str| {
        alice.store.messages.iter().filter(|row| String::from_utf8_lossy(&row.body).contains(word)).count()
    };
    assert_eq!((noted("intent_failed"), noted("proposals_left_out")), (1, 1));

    // A change of her own is not held up by that, and takes the proposal and the message with it.
    alice.wish(Wish::Remove { users: vec![bob.user()] });
    let removal = next(&mut alice, now.plus_ms(1)).unwrap();
    world.ds.submit(&removal).unwrap();
    alice.drive_now(&mut world);
    assert_eq!(alice.texts(), ["hello"]);
    bob.sync(&world.ds);
    assert_eq!(*bob.group().status(), Status::Removed);
}

#[test]
fn a_change_that_fails_by_itself_leaves_out_nobodys_proposal() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = carol_leaves(&mut world);
    let mut eve = world.person("eve");
    let key_packages = vec![eve.key_package(&world)];
    let add = alice.wish(Wish::Add { key_packages });
    let now = world.ds.now().plus_ms(60_000);
    for _ in 0..2 {
        let submission = next(&mut alice, now).unwrap();
        assert_eq!(submission.intent, add);
        refuse(&mut alice, &submission);
    }
    let failed = |event: &Event| matches!(event, Event::IntentFailed { intent, .. } if *intent == add);
    assert_eq!(count(&alice, failed), 1);
    alice.drive_now(&mut world);
    carol.sync(&world.ds);
    assert_eq!(*carol.group().status(), Status::Removed, "she was not left out");
    bob.sync(&world.ds);
    agree(&mut [&mut alice, &mut bob]);
}
