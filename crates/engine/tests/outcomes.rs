//! What becomes of entries that come early, twice, with gaps or from another branch of the group.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::*;
use conclave_channel::Entry;
use conclave_engine::{
    group::{EARLY_ENTRIES, EARLY_MS, Incoming, KIND_EVENT, KIND_MESSAGE, Known, Status, SubmissionBody},
    intent::Wish,
    outcome::{Event, Outcome, Rejection},
    writes::StoredMessage,
};
use conclave_mls::content::{Content, MessageId};
use conclave_names::{Epoch, Seq};

fn pair(world: &mut World) -> [Person; 2] {
    let mut people = ["alice", "bob"].map(|name| world.person(name));
    let [alice, bob] = &mut people;
    group_of(world, &mut [alice, bob]);
    people
}

fn said(person: &mut Person, world: &mut World, texts: &[&str]) {
    for text in texts {
        person.say(text);
        person.drive_now(world);
    }
}

fn take_in(person: &mut Person, batch: &[Incoming]) -> Vec<(Seq, Outcome)> {
    let done = person.group().take_in(batch, NOW, |_| Known::No);
    assert_eq!(done.fault, None);
    person.events.extend(done.events);
    person.save();
    done.outcomes
}

#[test]
fn what_comes_early_waits_for_what_stands_before_it() {
    let mut world = World::new();
    let [mut alice, mut bob] = pair(&mut world);
    // A commit between messages: those after it are of an epoch that Bob is not in yet.
    said(&mut alice, &mut world, &["one"]);
    alice.wish(Wish::Update);
    alice.drive_now(&mut world);
    said(&mut alice, &mut world, &["two", "three"]);
    let batch = world.ds.after(bob.group().position().seq);
    assert_eq!(batch.len(), 4);
    for late in [&batch[2..3], &batch[3..], &batch[1..2]] {
        assert_eq!(take_in(&mut bob, late), [(late[0].seq, Outcome::Buffered)]);
        assert_eq!(bob.texts(), [""; 0]);
    }
    assert!(bob.group().early_due().is_some());
    let outcomes = take_in(&mut bob, &batch[..1]);
    assert_eq!(outcomes.iter().filter(|(_, outcome)| *outcome == Outcome::Applied).count(), 4, "{outcomes:?}");
    assert_eq!(bob.texts(), ["one", "two", "three"]);
    assert_eq!(bob.group().early_due(), None);
    agree(&mut [&mut alice, &mut bob]);
    // What comes again is known, and what comes again otherwise is, too.
    let again = take_in(&mut bob, &batch);
    assert!(again.iter().all(|(_, outcome)| *outcome == Outcome::Duplicate), "{again:?}");
    assert!(!bob.events.iter().any(|event| matches!(event, Event::LogRewritten { .. })));
    let mut other = batch[1].clone();
    other.entry = batch[0].entry.clone();
    assert_eq!(take_in(&mut bob, &[other]), [(batch[1].seq, Outcome::Stale)]);
    let told = |event: &Event| *event == Event::LogRewritten { seq: batch[1].seq };
    assert!(bob.events.iter().any(told), "{:?}", bob.events);
}

#[test]
fn what_waits_is_bounded_in_number_and_time() {
    let mut world = World::new();
    let [mut alice, mut bob] = pair(&mut world);
    said(&mut alice, &mut world, &["one", "two"]);
    let batch = world.ds.after(bob.group().position().seq);
    let many: Vec<_> = (0..EARLY_ENTRIES as u64 + 9)
        .map(|number| Incoming { seq: Seq(batch[1].seq.0 + number), ..batch[1].clone() })
        .collect();
    let outcomes = take_in(&mut bob, &many);
    assert_eq!(outcomes.iter().filter(|(_, outcome)| *outcome == Outcome::Buffered).count(), EARLY_ENTRIES);
    let overflow: Vec<_> = outcomes.iter().filter(|(_, outcome)| *outcome == Outcome::Overflow).collect();
    assert_eq!((outcomes.len(), overflow.len()), (many.len(), 9), "for the others there is no room");
    assert_eq!(overflow[0].0, many[EARLY_ENTRIES].seq);
    let due = bob.group().early_due().unwrap();
    assert_eq!(due, NOW.plus_ms(EARLY_MS));
    assert!(bob.group().due(NOW).is_some_and(|first| first <= due));
    bob.group().next_submission(due, &mut Vec::new()).unwrap();
    assert_eq!(bob.group().early_due(), None);
    // The channel has it all.
    bob.sync(&world.ds);
    assert_eq!(bob.texts(), ["one", "two"]);
}

#[test]
fn the_next_entry_finds_room_where_others_wait() {
    let mut world = World::new();
    let [mut alice, mut bob] = pair(&mut world);
    let texts: Vec<_> = (0..EARLY_ENTRIES + 2).map(|number| number.to_string()).collect();
    said(&mut alice, &mut world, &texts.iter().map(String::as_str).collect::<Vec<_>>());
    let batch = world.ds.after(bob.group().position().seq);
    let outcomes = take_in(&mut bob, &batch[1..]);
    assert_eq!(outcomes.last().unwrap().1, Outcome::Overflow);
    let outcomes = take_in(&mut bob, &batch[..1]);
    assert_eq!(outcomes.len(), EARLY_ENTRIES + 1);
    assert!(outcomes.iter().all(|(_, outcome)| *outcome == Outcome::Applied));
    assert_eq!(take_in(&mut bob, &batch[EARLY_ENTRIES + 1..])[0].1, Outcome::Applied);
}

/// RFC 9750, section 8.6: a member sends again what it said, or what somebody else did.
#[test]
fn what_is_said_again_under_the_same_name_is_shown_once() {
    let mut world = World::new();
    let [mut alice, mut bob] = pair(&mut world);
    let content = Content::text("pay 10", [7; 16]).unwrap().to_bytes();
    let room = alice.group().profile().room.clone();
    let id = MessageId::of(&alice.user(), &room, &content, &[7; 16]);
    let again = |person: &mut Person, world: &mut World| {
        person.wish(Wish::Send { content: content.clone(), id });
        person.drive_now(world);
    };
    again(&mut alice, &mut world);
    again(&mut alice, &mut world);
    // In one batch.
    let done = bob.sync(&world.ds);
    let outcomes: Vec<_> = done.outcomes.iter().map(|(_, outcome)| outcome.clone()).collect();
    assert_eq!(outcomes, [Outcome::Applied, Outcome::Duplicate]);
    assert!(
        done.events
            .iter()
            .any(|event| matches!(event, Event::Replayed { member, .. } if *member == alice.account.client))
    );
    // And later, when the history has it.
    again(&mut alice, &mut world);
    let batch = world.ds.after(bob.group().position().seq);
    let store = bob.store.clone();
    let done = bob.group().process_with(&batch, |id| store.known(id));
    assert_eq!(done.outcomes[0].1, Outcome::Duplicate);
    bob.save();
    assert_eq!(bob.texts(), ["pay 10"]);
    assert_eq!(bob.store.messages.iter().filter(|stored| stored.kind == KIND_MESSAGE).count(), 1);
    // Who takes another's words says them itself.
    again(&mut bob, &mut world);
    alice.sync(&world.ds);
    let by_bob = alice.events.iter().filter(|event| {
        matches!(event, Event::Message { sender, id: other, .. } if *sender == bob.account.client && *other != id)
    });
    assert_eq!(by_bob.count(), 1);
}

#[test]
fn messages_that_never_came_are_missed_by_their_generations() {
    let mut world = World::new();
    let [mut alice, mut bob] = pair(&mut world);
    said(&mut alice, &mut world, &["one"]);
    // These never reach the channel: so the server says.
    for text in ["two", "three"] {
        let (intent, _) = alice.group().wish_text(text).unwrap();
        let now = world.ds.now();
        assert!(alice.group().next_submission(now, &mut Vec::new()).unwrap().is_some());
        let never = conclave_protocol::Refusal::new(conclave_protocol::Code::SignatureInvalid, "no");
        alice.group().refused(intent, &never, &mut Vec::new()).unwrap();
        alice.save();
    }
    said(&mut alice, &mut world, &["four"]);
    bob.sync(&world.ds);
    bob.restart();
    said(&mut alice, &mut world, &["five"]);
    bob.sync(&world.ds);
    assert_eq!(bob.texts(), ["one", "four", "five"]);
    let missed: Vec<_> = bob.events.iter().filter(|event| matches!(event, Event::MessagesMissing { .. })).collect();
    let (member, epoch) = (alice.account.client.clone(), alice.group().epoch());
    assert_eq!(
        missed,
        [&Event::MessagesMissing { member, epoch, from: 1, to: 2 }],
        "once, and not again after a restart"
    );
    // In the next epoch all count from zero.
    bob.wish(Wish::Update);
    bob.drive_now(&mut world);
    alice.sync(&world.ds);
    said(&mut alice, &mut world, &["six"]);
    bob.sync(&world.ds);
    assert_eq!(bob.events.iter().filter(|event| matches!(event, Event::MessagesMissing { .. })).count(), 1);
}

/// The server shows Bob another commit than Alice and Carol, and later forgets to keep them apart.
#[test]
fn a_fork_is_told_from_corruption_and_who_is_in_the_wrong_branch_comes_back() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = ["alice", "bob", "carol"].map(|name| world.person(name));
    group_of(&mut world, &mut [&mut alice, &mut bob, &mut carol]);
    let place = fork(&mut world, &mut alice, &mut bob, &mut carol);
    assert_eq!((alice.group().epoch(), bob.group().epoch()), (Epoch(2), Epoch(2)));

    alice.say("in the group");
    alice.drive_now(&mut world);
    let batch = world.ds.after(bob.group().position().seq);
    // A corrupted one is just that.
    let mut corrupted = batch[0].clone();
    let mut entry = Entry::parse(&corrupted.entry).unwrap();
    if let conclave_channel::Body::Inline(body) = &mut entry.body {
        *body.last_mut().unwrap() ^= 1;
    }
    corrupted.entry = entry.to_bytes().unwrap();
    let before = bob.store.clone();
    let done = bob.group().process(&[corrupted]);
    assert_eq!(done.outcomes[0].1, Outcome::Rejected(Rejection::Seal));
    assert!(bob.group().wants_audit().is_none());
    bob.store = before;
    bob.restart();
    let done = bob.group().process(&batch);
    assert!(matches!(done.outcomes[0].1, Outcome::Rejected(Rejection::Branch(_))), "{:?}", done.outcomes);
    let told = |event: &Event| matches!(event, Event::Forked { epoch: Epoch(2), .. });
    assert_eq!(done.events.iter().filter(|event| told(event)).count(), 1);
    bob.save();

    // The log as it is now is not the one that Bob processed.
    let after = bob.group().wants_audit().unwrap();
    let mut events = Vec::new();
    bob.group().audit(&world.ds.after(after), &mut events).unwrap();
    assert!(events.contains(&Event::LogRewritten { seq: place }), "{events:?}");
    bob.save();
    bob.restart();
    assert!(matches!(bob.group().status(), Status::Stuck { .. }));
    assert!(bob.group().wants_rejoin(), "the way back is open");
    let rest = world.ds.after(bob.group().position().seq);
    let done = bob.group().process(&rest);
    assert!(done.outcomes.is_empty() && done.fault.is_none());
}

#[test]
fn who_processed_the_log_as_it_is_stays_where_it_is_and_heals_nothing() {
    let mut world = World::new();
    let [mut alice, mut bob] = pair(&mut world);
    said(&mut alice, &mut world, &["one", "two"]);
    bob.sync(&world.ds);
    // Nobody has told of a fork.
    assert_eq!(bob.group().wants_audit(), None);
    let mut events = Vec::new();
    bob.group().audit(&world.ds.after(Seq(0)), &mut events).unwrap();
    assert!(events.is_empty());
    bob.wish(Wish::Heartbeat);
    bob.drive_now(&mut world);
    alice.sync(&world.ds);
    assert!(!alice.events.iter().any(|event| matches!(event, Event::Forked { .. })));
}

/// RFC 9750, section 5.3: what is proposed is committed by somebody, not by everybody at once, and not by one who sleeps.
#[test]
fn a_leave_is_committed_by_the_first_who_is_awake_and_by_each_in_turn() {
    let mut world = World::new();
    let mut people = ["alice", "bob", "carol", "dave"].map(|name| world.person(name));
    let [alice, bob, carol, dave] = &mut people;
    group_of(&mut world, &mut [&mut *alice, &mut *bob, &mut *carol, &mut *dave]);
    // Everybody else is offline: Dave asks, and goes.
    dave.wish(Wish::Leave);
    dave.drive_now(&mut world);
    assert!(dave.group().is_asked_to_leave());
    let asked = world.ds.now();
    // Alice, whose turn would be the first, sleeps. Of the others each has its own time.
    for person in [&mut *bob, &mut *carol] {
        person.sync(&world.ds);
    }
    let (first, second) = (bob.group().commit_due().unwrap(), carol.group().commit_due().unwrap());
    assert!(first < second, "{first:?} {second:?}");
    let mut events = Vec::new();
    assert!(carol.group().next_submission(first, &mut events).unwrap().is_none(), "it is Bob's turn");
    // Bob falls asleep, too. Carol does it after a wait that is bounded.
    assert!(second <= asked.plus_ms(60_000));
    assert!(carol.group().next_submission(second, &mut events).unwrap().is_some());
    carol.save();
    carol.drive(&mut world);
    for person in [&mut *alice, &mut *bob, &mut *dave] {
        person.sync(&world.ds);
    }
    assert_eq!(*dave.group().status(), Status::Removed);
    assert_eq!((alice.group().commit_due(), bob.group().commit_due()), (None, None), "nothing is left to commit");
    agree(&mut [alice, bob, carol]);
}

#[test]
fn who_has_something_to_say_commits_what_waits_at_once() {
    let mut world = World::new();
    let mut people = ["alice", "bob", "carol"].map(|name| world.person(name));
    let [alice, bob, carol] = &mut people;
    group_of(&mut world, &mut [&mut *alice, &mut *bob, &mut *carol]);
    carol.wish(Wish::Leave);
    carol.drive_now(&mut world);
    let asked = world.ds.now();
    bob.sync(&world.ds);
    assert!(bob.group().commit_due().is_some_and(|due| due > asked));
    bob.say("goodbye");
    let submission = bob.group().next_submission(asked, &mut Vec::new()).unwrap().unwrap();
    assert!(matches!(submission.body, SubmissionBody::Bundle(_)), "MLS has no messages while a proposal waits");
    bob.save();
    bob.drive(&mut world);
    alice.sync(&world.ds);
    carol.sync(&world.ds);
    assert_eq!(*carol.group().status(), Status::Removed);
    assert_eq!((alice.texts(), carol.texts()), (vec!["goodbye".to_owned()], Vec::new()));
}

#[test]
fn that_the_last_member_has_left_stands_in_its_history() {
    let mut world = World::new();
    let mut alice = world.person("alice");
    alice.create(&mut world, "Alone");
    alice.wish(Wish::Leave);
    alice.drive_now(&mut world);
    assert_eq!(*alice.group().status(), Status::Removed);
    let gone = Event::RemovedFromGroup { by: alice.account.client.clone() };
    assert!(alice.events.contains(&gone), "{:?}", alice.events);
    let noted =
        |message: &&StoredMessage| message.kind == KIND_EVENT && message.body == serde_json::to_vec(&gone).unwrap();
    assert_eq!(alice.store.messages.iter().filter(noted).count(), 1);
}
