//! Clients that were shown another log than the others, or cannot read how a commit was decided: how they find out, and come back.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::*;
use conclave_authentication::CertificateAuthority;
use conclave_channel::law::DISPUTE_MS;
use conclave_engine::{
    group::{Incoming, KnockRefused, RejoinError, Status, SubmissionBody},
    intent::Wish,
    outcome::{Event, Outcome},
};
use conclave_names::Seq;
use conclave_protocol::{Code, Refusal};

fn said(person: &mut Person, world: &mut World, text: &str) {
    person.say(text);
    person.drive_now(world);
}

/// What somebody has made, as an entry at a place of a log that is shown to nobody else.
fn shown(world: &World, person: &mut Person) -> Incoming {
    let now = world.ds.now();
    let submission = person.group().next_submission(now, &mut Vec::new()).unwrap().unwrap();
    person.save();
    let entry = match &submission.body {
        SubmissionBody::Entry(request) => request.entry.clone(),
        SubmissionBody::Bundle(bundle) => bundle.entry.clone(),
    };
    Incoming { seq: person.group().position().seq.next(), time: now, entry, blob: None }
}

/// Takes it for what the server has ordered.
fn take(person: &mut Person, entry: Incoming) {
    let done = person.group().process(&[entry]);
    assert_eq!(done.outcomes[0].1, Outcome::Confirmed);
    person.save();
}

/// Reads the log once more, if that is wanted.
fn audit(world: &World, person: &mut Person) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(after) = person.group().wants_audit() {
        person.group().audit(&world.ds.after(after), &mut events).unwrap();
    }
    person.save();
    events
}

fn rewritten(events: &[Event]) -> bool {
    events.iter().any(|event| matches!(event, Event::LogRewritten { .. }))
}

/// Is let in by a knock at the first round.
fn comes_back(world: &mut World, lost: &mut Person, member: &mut Person) {
    assert!(lost.group().wants_rejoin(), "{:?}", lost.group().status());
    member.sync(&world.ds);
    knock(world, lost, member).unwrap();
    member.drive_now(world);
    lost.restart();
    lost.join(world);
    lost.drive_now(world);
    assert_eq!(*lost.group().status(), Status::Active);
    member.sync(&world.ds);
}

/// Bob renews his keys in a log of his own: the group knows him by the leaf before, and has not come to the epoch that he is in.
#[test]
fn who_renewed_its_leaf_in_another_log_is_known_by_the_one_before() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    bob.wish(Wish::Update);
    let update = shown(&world, &mut bob);
    take(&mut bob, update);
    said(&mut alice, &mut world, "meanwhile");
    assert!(bob.group().wants_audit().is_none());
    bob.group().epoch_refused();
    assert!(rewritten(&audit(&world, &mut bob)));
    let before = bob.group().epoch();
    comes_back(&mut world, &mut bob, &mut alice);
    assert_eq!(bob.group().epoch(), before, "another one of the same number");
    carol.sync(&world.ds);
    agree(&mut [&mut alice, &mut bob, &mut carol]);
}

/// The log that the server gives out now ends before the entry that began Bob's epoch, and the server speaks of an earlier one.
#[test]
fn a_log_that_ends_too_early_is_another() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    said(&mut alice, &mut world, "in both");
    bob.sync(&world.ds);
    bob.wish(Wish::Update);
    let update = shown(&world, &mut bob);
    take(&mut bob, update);
    bob.wish(Wish::Heartbeat);
    let stale = Refusal::new(Code::EpochStale, "too early");
    let now = world.ds.now();
    let submission = bob.group().next_submission(now, &mut Vec::new()).unwrap().unwrap();
    assert_eq!(bob.group().refused(submission.intent, &stale, &mut Vec::new()), Err(stale));
    assert!(bob.group().wants_audit().is_some(), "it hints at another log");
    assert!(rewritten(&audit(&world, &mut bob)));
    comes_back(&mut world, &mut bob, &mut alice);
    carol.sync(&world.ds);
    agree(&mut [&mut alice, &mut bob, &mut carol]);
}

/// Bob was not shown an entry, and invites Erin out of the log that he knows: what she reads cannot follow on it.
#[test]
fn who_was_invited_out_of_another_log_finds_out_and_is_let_in_by_others() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    let [mut dave, mut erin] = ["dave", "erin"].map(|name| world.person(name));
    said(&mut alice, &mut world, "withheld from Bob");
    for invited in [&mut dave, &mut erin] {
        bob.wish(Wish::Add { key_packages: vec![invited.key_package(&world)] });
        let now = world.ds.now();
        let add = bob.group().next_submission(now, &mut Vec::new()).unwrap().unwrap();
        bob.save();
        let seq = world.ds.submit(&add).unwrap();
        let (time, entry) = world.ds.entries.last().unwrap().clone();
        take(&mut bob, Incoming { seq: Seq(seq.0 - 1), time, entry, blob: None });
    }
    erin.join(&world);
    let done = erin.sync(&world.ds);
    assert!(done.fault.is_some());
    assert_eq!(*erin.group().status(), Status::Active, "once may be a mistake on the way");
    let done = erin.sync(&world.ds);
    assert!(done.fault.is_some() && rewritten(&done.events), "{:?}", done.events);
    comes_back(&mut world, &mut erin, &mut alice);
    carol.sync(&world.ds);
    agree(&mut [&mut alice, &mut carol, &mut erin]);
}

/// A member has let Bob in again, and the Welcome is lost.
#[test]
fn a_lost_answer_to_a_knock_is_given_again() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    bob.group().position_gone(None, &mut Vec::new());
    bob.save();
    knock(&world, &mut bob, &mut alice).unwrap();
    alice.drive_now(&mut world);
    carol.sync(&world.ds);
    world.ds.welcomes.clear();
    bob.restart();
    let due = bob.group().knock_due(world.ds.now()).unwrap();
    world.ds.ahead += due.0 - world.ds.now().0;
    knock(&world, &mut bob, &mut carol).unwrap();
    carol.drive_now(&mut world);
    bob.join(&world);
    bob.drive_now(&mut world);
    alice.sync(&world.ds);
    carol.sync(&world.ds);
    agree(&mut [&mut alice, &mut bob, &mut carol]);
    // And in one round nobody lets him in whom another has let in.
    bob.group().position_gone(None, &mut Vec::new());
    bob.save();
    let (theirs, ours) = (alice.key_package(&world), bob.key_package(&world));
    let now = world.ds.now();
    bob.group().knock(&alice.account.client, &theirs, ours, now).unwrap();
    world.ds.ahead += 2 * 3_600_000;
    knock(&world, &mut bob, &mut carol).unwrap();
    carol.drive_now(&mut world);
    alice.sync(&world.ds);
    let again = knock(&world, &mut bob, &mut alice);
    assert!(matches!(again, Ok(()) | Err(KnockRefused::TooSoon)), "{again:?}");
}

/// Alice is about to leave and still has something to say; Bob, who is to commit that, is locked out.
#[test]
fn who_waits_to_leave_lets_others_in_all_the_same() {
    let mut world = World::new();
    let [mut alice, mut bob] = ["alice", "bob"].map(|name| world.person(name));
    group_of(&mut world, &mut [&mut alice, &mut bob]);
    alice.wish(Wish::Leave);
    alice.drive_now(&mut world);
    alice.say("before I go");
    bob.group().position_gone(None, &mut Vec::new());
    bob.save();
    knock(&world, &mut bob, &mut alice).unwrap();
    alice.drive_now(&mut world);
    bob.join(&world);
    bob.drive(&mut world);
    alice.sync(&world.ds);
    assert_eq!(*alice.group().status(), Status::Removed);
    // She had wished to leave before she said it.
    let failed = |event: &Event| matches!(event, Event::IntentFailed { .. });
    assert!(bob.texts().is_empty() && alice.events.iter().any(failed), "{:?}", alice.events);
}

/// Bob cannot apply a commit, and disputes it; the removal that follows ends what he can read, so he does not see that it was
/// acknowledged.
#[test]
fn who_cannot_read_how_a_dispute_ended_learns_it_from_a_refusal() {
    let mut world = World::new();
    let other = CertificateAuthority::generate(&domain(), NOW).unwrap();
    let both = [&world.ca, &other];
    let (mut alice, mut carol) =
        (world.person_of("alice", &world.ca, &both), world.person_of("carol", &world.ca, &both));
    let (mut bob, mut erin) = (world.person("bob"), world.person_of("erin", &world.ca, &both));
    let mut dave = world.person_of("dave", &other, &both);
    group_of(&mut world, &mut [&mut alice, &mut bob, &mut carol, &mut erin]);
    alice.wish(Wish::Add { key_packages: vec![dave.key_package(&world)] });
    alice.drive_now(&mut world);
    bob.drive_now(&mut world);
    assert!(matches!(bob.group().status(), Status::Stuck { .. }));
    let users = vec![erin.user()];
    alice.wish(Wish::Remove { users });
    alice.drive_now(&mut world);
    let removal = Seq(world.ds.entries.len() as u64);
    carol.drive(&mut world);
    let mut visible = world.ds.after(bob.group().position().seq);
    visible.retain(|entry| entry.seq <= removal);
    bob.group().process(&visible);
    bob.save();

    let refusal = Refusal::new(Code::AccessRefused, "a removal has ended what this session's key may do");
    let mut ask = |world: &World, wait: u64| {
        let now = world.ds.now().plus_ms(wait);
        bob.group().caught_up(now).unwrap();
        let commit = bob.group().next_submission(now, &mut Vec::new()).unwrap().unwrap();
        assert!(matches!(commit.body, SubmissionBody::Bundle(_)));
        bob.group().refused(commit.intent, &refusal, &mut Vec::new())
    };
    // It may be that the server's clock runs behind.
    assert_eq!(ask(&world, DISPUTE_MS + 120_000), Err(refusal.clone()));
    assert_eq!(ask(&world, DISPUTE_MS + 600_000), Ok(()));
    world.ds.ahead += DISPUTE_MS + 600_000;
    carol.sync(&world.ds);
    comes_back(&mut world, &mut bob, &mut carol);
}

/// Bob's keys open nothing any more of what he has, so that he cannot see that it was another log; only that the next entry cannot follow
/// on it, however often it comes.
#[test]
fn who_can_read_nothing_once_more_judges_by_an_entry_that_cannot_follow() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    bob.wish(Wish::Update);
    let update = shown(&world, &mut bob);
    take(&mut bob, update);
    said(&mut alice, &mut world, "meanwhile");
    alice.wish(Wish::Update);
    alice.drive_now(&mut world);
    let place = bob.group().position().seq;
    let mut told = Vec::new();
    for time in 1..=3 {
        assert!(!bob.group().wants_rejoin(), "one entry may be wrong by chance: {time}");
        let done = bob.group().process(&world.ds.after(place));
        assert!(done.fault.is_some());
        told.extend(done.events);
        while bob.group().wants_audit().is_some() {
            bob.group().audit(&world.ds.after(place), &mut told).unwrap();
        }
    }
    bob.save();
    assert!(rewritten(&told), "{told:?}");
    comes_back(&mut world, &mut bob, &mut alice);
    carol.sync(&world.ds);
    agree(&mut [&mut alice, &mut bob, &mut carol]);
}

/// He was a member when it was sent, and nobody says it again.
#[test]
fn who_comes_back_is_told_of_what_was_on_its_way() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    alice.say("on its way");
    let now = world.ds.now();
    let late = alice.group().next_submission(now, &mut Vec::new()).unwrap().unwrap();
    alice.save();
    bob.group().position_gone(None, &mut Vec::new());
    bob.save();
    comes_back(&mut world, &mut bob, &mut carol);
    let seq = world.ds.submit(&late).unwrap();
    bob.restart();
    let done = bob.sync(&world.ds);
    assert!(done.events.contains(&Event::Missed { from: seq, to: seq }), "{done:?}");
    carol.sync(&world.ds);
    alice.sync(&world.ds);
    assert!(carol.texts().contains(&"on its way".to_owned()));
    // Who joins is not told of what was not for it.
    let mut erin = world.person("erin");
    let package = erin.key_package(&world);
    carol.say("not for Erin");
    let now = world.ds.now();
    let late = carol.group().next_submission(now, &mut Vec::new()).unwrap().unwrap();
    carol.save();
    alice.wish(Wish::Add { key_packages: vec![package] });
    alice.drive_now(&mut world);
    world.ds.submit(&late).unwrap();
    erin.join(&world);
    let done = erin.sync(&world.ds);
    assert!(!done.events.iter().any(|event| matches!(event, Event::Missed { .. })), "{done:?}");
}

/// Nothing that time brings there may keep a listener busy.
#[test]
fn who_is_shut_out_has_nothing_to_do_for_ever() {
    let mut world = World::new();
    let [mut alice, mut bob, _] = trio(&mut world);
    alice.wish(Wish::Update);
    alice.drive_now(&mut world);
    bob.sync(&world.ds);
    // He has acknowledged it.
    world.ds.ahead += 3_700_000;
    bob.drive_now(&mut world);
    bob.group().position_gone(None, &mut Vec::new());
    bob.save();
    let later = world.ds.now().plus_ms(2 * 3_600_000);
    assert!(bob.group().due(later).is_some_and(|due| due <= later), "keys of the epoch before are to go");
    bob.group().shut_out(later).unwrap();
    bob.save();
    for _ in 0..2 {
        let due = bob.group().due(later);
        assert!(due.is_none_or(|due| due > later), "{due:?}");
        bob.restart();
    }
}

/// Nobody sends anything to who was removed, not even that this was annulled.
#[test]
fn who_was_removed_looks_whether_it_is_a_member_again() {
    let mut world = World::new();
    let [mut alice, mut bob, _] = trio(&mut world);
    alice.wish(Wish::Remove { users: vec![bob.user()] });
    alice.drive_now(&mut world);
    bob.sync(&world.ds);
    assert!(*bob.group().status() == Status::Removed && bob.group().may_return());
    let now = world.ds.now();
    let due = bob.group().due(now).unwrap();
    assert!(now < due && due <= now.plus_ms(600_000), "{due:?}");
    bob.group().caught_up(due).unwrap();
    assert!(bob.group().due(due).is_some_and(|next| next > due));
}

/// Bob has renewed his leaf in a log that only he was shown. Members know him by the one before that, however often he tried to come back by himself.
#[test]
fn who_was_refused_often_is_known_by_its_leaf_all_the_same() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    bob.wish(Wish::Update);
    let only_for_him = shown(&world, &mut bob);
    assert_eq!(bob.group().process(&[only_for_him]).outcomes[0].1, Outcome::Confirmed);
    bob.save();
    for _ in 0..2 {
        alice.wish(Wish::Update);
        alice.drive_now(&mut world);
    }
    carol.sync(&world.ds);
    bob.group().epoch_refused();
    while let Some(after) = bob.group().wants_audit() {
        bob.group().audit(&world.ds.after(after), &mut Vec::new()).unwrap();
    }
    let refusal = Refusal::new(Code::AccessRefused, "not by this way");
    let mut tries = 0;
    while tries < 20 {
        match bob.begin_rejoin(&world, false) {
            Ok(()) => {
                let now = world.ds.now();
                let way = bob.group().next_submission(now, &mut Vec::new()).unwrap().unwrap();
                bob.group().refused(way.intent, &refusal, &mut Vec::new()).unwrap();
                tries += 1;
            }
            Err(RejoinError::ReadOn) => drop(bob.sync(&world.ds)),
            Err(error) => panic!("{error}"),
        }
        bob.save();
        bob.restart();
    }
    for _ in 0..6 {
        let (theirs, ours) = (carol.key_package(&world), bob.key_package(&world));
        let now = world.ds.now();
        bob.group().knock(&carol.account.client, &theirs, ours, now).unwrap();
        bob.group().knocked(vec![carol.account.client.clone()], now, &mut Vec::new());
        bob.save();
    }
    knock(&world, &mut bob, &mut alice).unwrap();
    alice.drive_now(&mut world);
    bob.join(&world);
    bob.sync(&world.ds);
    carol.sync(&world.ds);
    agree(&mut [&mut alice, &mut bob, &mut carol]);
}
