//! Commits that some or all members cannot apply: who stands where in the end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::*;
use conclave_authentication::CertificateAuthority;
use conclave_channel::{
    Entry, EntryKind,
    law::{DISPUTE_MS, DisputePause},
};
use conclave_engine::{
    group::{Status, SubmissionBody},
    intent::Wish,
    outcome::Event,
};
use conclave_names::{Epoch, Hash};
use conclave_protocol::{Code, Refusal, v1::SubmitResponse};

/// Alice and Carol believe two authorities, Bob only the first. So Bob cannot apply a commit that adds Dave.
struct Cast {
    world: World,
    alice: Person,
    bob: Person,
    carol: Person,
    dave: Person,
}

fn cast() -> Cast {
    cast_with(DisputePause::DEFAULT)
}

fn cast_with(pause: DisputePause) -> Cast {
    let mut world = World::new();
    let other = CertificateAuthority::generate(&domain(), NOW).unwrap();
    let both = [&world.ca, &other];
    let mut alice = world.person_of("alice", &world.ca, &both);
    let mut bob = world.person("bob");
    let mut carol = world.person_of("carol", &world.ca, &both);
    let dave = world.person_of("dave", &other, &both);
    alice.dispute_pause = pause;
    group_of(&mut world, &mut [&mut alice, &mut bob, &mut carol]);
    Cast { world, alice, bob, carol, dave }
}

impl Cast {
    /// Alice adds Dave, and says something after that.
    fn add_dave(&mut self) {
        let package = self.dave.key_package(&self.world);
        self.alice.wish(Wish::Add { key_packages: vec![package] });
        self.alice.drive_now(&mut self.world);
        self.alice.say("welcome, Dave");
        self.alice.drive_now(&mut self.world);
    }

    fn wait(&mut self) {
        self.world.ds.ahead += DISPUTE_MS + 60_001;
    }
}

fn annulled(person: &Person) -> usize {
    person.events.iter().filter(|event| matches!(event, Event::Annulled { .. })).count()
}

fn is_stuck(person: &mut Person) -> bool {
    matches!(person.group().status(), Status::Stuck { .. })
}

#[test]
fn a_commit_that_some_applied_stands_and_the_victim_is_told_to_rejoin() {
    let mut cast = cast();
    cast.add_dave();
    cast.bob.drive_now(&mut cast.world);
    assert!(is_stuck(&mut cast.bob));
    // Alice reads of the dispute; her word does not count, and she says none.
    cast.alice.drive_now(&mut cast.world);
    assert_eq!(cast.alice.group().settled_epoch(), Epoch(1));
    cast.carol.drive_now(&mut cast.world);
    assert!(cast.carol.events.iter().any(|event| {
        matches!(event, Event::NotApplied { by: Some(by), reason: Some(_), .. } if by == &cast.bob.account.client)
    }));
    cast.wait();
    cast.alice.say("after the window");
    cast.alice.drive_now(&mut cast.world);
    cast.dave.join(&cast.world);
    for person in [&mut cast.carol, &mut cast.dave, &mut cast.bob] {
        person.sync(&cast.world.ds);
        assert_eq!(person.group().settled_epoch(), Epoch(2));
    }
    agree(&mut [&mut cast.alice, &mut cast.carol, &mut cast.dave]);
    assert_eq!(annulled(&cast.alice) + annulled(&cast.carol), 0);
    let Status::Stuck { reason } = cast.bob.group().status() else { panic!() };
    assert!(reason.contains("comes back by itself"), "{reason}");
}

#[test]
fn how_long_a_dispute_waits_is_the_groups_own() {
    for pause in [DisputePause::MIN, DisputePause::DEFAULT, DisputePause::MAX] {
        let mut cast = cast_with(pause);
        assert_eq!(cast.carol.group().profile().dispute_pause, pause, "who joined knows it");
        cast.add_dave();
        // By the server's clock: others may think that so short a time is over.
        let now = cast.world.ds.now();
        cast.bob.drive_at(&mut cast.world, now);
        assert!(is_stuck(&mut cast.bob));
        // A second before its end, whatever that of others is.
        cast.world.ds.ahead += pause.ms() - 1000;
        cast.alice.say("nothing is decided");
        // By the server's clock.
        let now = cast.world.ds.now();
        let said = cast.alice.group().next_submission(now, &mut Vec::new()).unwrap().unwrap();
        cast.alice.save();
        cast.world.ds.submit(&said).unwrap();
        cast.alice.sync(&cast.world.ds);
        cast.bob.sync(&cast.world.ds);
        assert!(is_stuck(&mut cast.bob) && annulled(&cast.alice) + annulled(&cast.bob) == 0, "{pause:?}");
        cast.bob.restart();
        cast.world.ds.ahead += 61_001;
        cast.bob.drive_now(&mut cast.world);
        assert_eq!(*cast.bob.group().status(), Status::Active, "{pause:?}");
        cast.carol.restart();
        cast.carol.sync(&cast.world.ds);
        cast.alice.sync(&cast.world.ds);
        assert_eq!((annulled(&cast.alice), annulled(&cast.bob), annulled(&cast.carol)), (1, 1, 1), "{pause:?}");
        agree(&mut [&mut cast.alice, &mut cast.bob, &mut cast.carol]);
    }
}

/// What Bob says comes too late for his epoch, which a commit has ended that he cannot apply. He does not wait with his dispute.
#[test]
fn who_is_refused_for_a_commit_that_it_cannot_apply_disputes_that_at_once() {
    let mut cast = cast();
    cast.bob.say("are you there?");
    let said = cast.bob.group().next_submission(cast.world.ds.now(), &mut Vec::new()).unwrap().unwrap();
    cast.bob.save();
    let bob = cast.bob.group().epoch();
    cast.add_dave();
    let stale = Refusal::new(Code::EpochStale, format!("the group is not in epoch {bob} any more"));
    cast.bob.sync(&cast.world.ds);
    let mut events = Vec::new();
    cast.bob.group().refused(said.intent, &stale, &mut events).unwrap();
    assert_eq!(events, []);
    let now = cast.world.ds.now();
    let next = cast.bob.group().next_submission(now, &mut events).unwrap().unwrap();
    let SubmissionBody::Entry(request) = &next.body else { panic!() };
    assert_eq!(Entry::parse(&request.entry).unwrap().kind, EntryKind::Nack);
    cast.bob.save();
    cast.world.ds.submit(&next).unwrap();
    cast.bob.sync(&cast.world.ds);
    // After that the service's word is a hint only, as before.
    assert_eq!(cast.bob.group().refused(said.intent, &stale, &mut events), Err(stale));
    assert!(cast.bob.group().next_submission(now, &mut events).unwrap().is_none());
}

/// Carol has removed Erin after the commit that Bob cannot apply: his key reads that, and nothing of what came later. By his clock a week is
/// over in which he could have disputed it.
#[test]
fn who_comes_after_a_week_and_may_read_no_further_comes_back() {
    let mut cast = cast();
    let mut erin = cast.world.person_of("erin", &cast.world.ca, &[&cast.world.ca]);
    let package = erin.key_package(&cast.world);
    cast.alice.wish(Wish::Add { key_packages: vec![package] });
    cast.alice.drive_now(&mut cast.world);
    for person in [&mut cast.bob, &mut cast.carol] {
        person.sync(&cast.world.ds);
    }
    cast.add_dave();
    cast.carol.wish(Wish::Remove { users: vec![erin.user()] });
    cast.carol.drive_now(&mut cast.world);
    let place = cast.bob.group().position().seq;
    let readable = cast.world.ds.after(place);
    cast.world.ds.ahead += 8 * 86_400_000;
    let now = cast.world.ds.now();
    for _ in 0..2 {
        let batch: Vec<_> = readable.iter().filter(|entry| entry.seq > place).cloned().collect();
        cast.bob.group().process(&batch);
    }
    cast.bob.group().caught_up(now).unwrap();
    assert!(is_stuck(&mut cast.bob) && !cast.bob.group().wants_rejoin());
    let mut events = Vec::new();
    let next = cast.bob.group().next_submission(now, &mut events).unwrap().unwrap();
    cast.bob.save();
    let refusal = cast.world.ds.submit(&next).unwrap_err();
    assert_eq!(refusal.code, Code::VerdictRefused);
    cast.bob.group().refused(next.intent, &refusal, &mut events).unwrap();
    assert!(cast.bob.group().wants_rejoin(), "{:?} {events:?}", cast.bob.group().status());
}

/// Carol has spoken where Bob could not follow. When she comes back, the others have settled all that was open then: by which commits those epochs
/// began, nothing tells her.
#[test]
fn where_it_cannot_be_told_what_was_annulled_it_is_said_again_and_read_once() {
    for is_annulled in [true, false] {
        let mut cast = cast();
        if is_annulled {
            cast.add_dave();
        } else {
            cast.alice.wish(Wish::Update);
            cast.alice.drive_now(&mut cast.world);
        }
        cast.carol.sync(&cast.world.ds);
        cast.carol.say("what Carol said");
        cast.carol.drive_now(&mut cast.world);
        cast.bob.drive_now(&mut cast.world);
        cast.wait();
        cast.bob.wish(Wish::Update);
        for _ in 0..3 {
            cast.bob.drive_now(&mut cast.world);
            cast.alice.drive_now(&mut cast.world);
            cast.world.ds.ahead += 2 * 3_600_000;
        }
        assert!(cast.world.ds.ledger.as_ref().unwrap().open().is_empty());
        cast.carol.group().position_gone(None, &mut Vec::new());
        cast.carol.save();
        knock(&cast.world, &mut cast.carol, &mut cast.alice).unwrap();
        cast.alice.drive_now(&mut cast.world);
        cast.carol.join(&cast.world);
        cast.carol.restart();
        cast.carol.drive_now(&mut cast.world);
        for person in [&mut cast.alice, &mut cast.bob, &mut cast.carol] {
            person.sync(&cast.world.ds);
            let heard = person.texts().into_iter().filter(|text| text == "what Carol said").count();
            assert_eq!(heard, 1, "{is_annulled}: {:?}", person.events);
        }
        let failed = |event: &Event| matches!(event, Event::IntentFailed { .. });
        assert!(!cast.carol.events.iter().any(failed), "{:?}", cast.carol.events);
        agree(&mut [&mut cast.alice, &mut cast.bob, &mut cast.carol]);
    }
}

#[test]
fn without_an_answer_the_commit_is_annulled_for_everybody_whenever_they_come() {
    let mut cast = cast();
    cast.add_dave();
    cast.dave.join(&cast.world);
    cast.dave.sync(&cast.world.ds);
    cast.bob.drive_now(&mut cast.world);
    assert!(is_stuck(&mut cast.bob));
    cast.wait();
    // Bob's own commit is the next entry: it is what annuls Alice's.
    cast.bob.drive_now(&mut cast.world);
    assert_eq!(*cast.bob.group().status(), Status::Active);
    cast.bob.say("we go on");
    cast.bob.drive_now(&mut cast.world);

    // Alice applied it and went back; Carol reads all of it at once; Dave is a member of nothing.
    cast.alice.restart();
    cast.alice.sync(&cast.world.ds);
    cast.carol.sync(&cast.world.ds);
    cast.dave.sync(&cast.world.ds);
    for person in [&cast.alice, &cast.bob, &cast.carol] {
        assert_eq!(annulled(person), 1, "{:?}", person.account.client);
    }
    assert!(cast.dave.events.iter().any(|event| matches!(event, Event::InvitationAnnulled {})));
    assert_eq!(*cast.dave.group().status(), Status::Removed);
    agree(&mut [&mut cast.alice, &mut cast.bob, &mut cast.carol]);
    assert_eq!(cast.carol.texts().last().unwrap(), "we go on");
    assert_eq!(cast.alice.texts().last().unwrap(), "we go on");

    // And everybody can commit and talk.
    for round in 0..3 {
        for person in [&mut cast.alice, &mut cast.bob, &mut cast.carol] {
            person.wish(Wish::Update);
            person.say(&format!("round {round}"));
            person.drive(&mut cast.world);
        }
    }
    cast.alice.sync(&cast.world.ds);
    cast.bob.sync(&cast.world.ds);
    agree(&mut [&mut cast.alice, &mut cast.bob, &mut cast.carol]);
}

#[test]
fn the_keys_of_all_epochs_that_may_come_back_are_at_hand_newest_first() {
    let mut cast = cast();
    let mut had = Vec::new();
    for _ in 0..3 {
        had.push(cast.alice.group().access().unwrap());
        cast.alice.wish(Wish::Update);
        cast.alice.drive_now(&mut cast.world);
    }
    cast.alice.restart();
    let mut before = cast.alice.group().epoch();
    while let Some(access) = cast.alice.group().access_before(before).unwrap() {
        let known = had.pop().unwrap();
        assert_eq!((access.epoch, access.key, access.path), (known.epoch, known.key, known.path));
        before = access.epoch;
    }
    assert!(had.is_empty());
    // Who joined in the last one has none.
    cast.carol.sync(&cast.world.ds);
    assert!(cast.carol.group().access_before(before).unwrap().is_none());
}

/// Carol was removed by a commit that followed on one that Bob could not apply. Time annuls both, and she is a member again.
#[test]
fn a_removal_that_time_annuls_is_not_the_end() {
    let mut cast = cast();
    cast.add_dave();
    // Alice removes her in the epoch that will be void.
    let users = vec![cast.carol.user()];
    cast.alice.wish(Wish::Remove { users });
    cast.alice.drive_now(&mut cast.world);
    cast.bob.drive_now(&mut cast.world);
    cast.carol.sync(&cast.world.ds);
    assert_eq!(*cast.carol.group().status(), Status::Removed);
    cast.wait();
    // She learns of the time that passed before she reads on.
    cast.carol.drive_now(&mut cast.world);
    cast.bob.drive_now(&mut cast.world);
    cast.bob.say("we go on");
    cast.bob.drive_now(&mut cast.world);
    cast.carol.sync(&cast.world.ds);
    cast.alice.sync(&cast.world.ds);
    assert_eq!(*cast.carol.group().status(), Status::Active);
    assert_eq!(cast.carol.texts().last().unwrap(), "we go on");
    agree(&mut [&mut cast.alice, &mut cast.bob, &mut cast.carol]);
}

#[test]
fn a_crash_at_any_moment_changes_nothing_of_that() {
    let mut cast = cast();
    cast.add_dave();
    cast.bob.sync(&cast.world.ds);
    cast.bob.restart();
    cast.bob.drive_now(&mut cast.world);
    cast.bob.restart();
    assert!(is_stuck(&mut cast.bob));
    cast.carol.sync(&cast.world.ds);
    cast.carol.restart();
    cast.wait();
    cast.bob.drive_now(&mut cast.world);
    cast.bob.restart();
    cast.carol.sync(&cast.world.ds);
    cast.carol.restart();
    cast.alice.restart();
    cast.alice.sync(&cast.world.ds);
    cast.alice.restart();
    cast.carol.say("here");
    cast.carol.drive_now(&mut cast.world);
    cast.alice.sync(&cast.world.ds);
    cast.bob.sync(&cast.world.ds);
    agree(&mut [&mut cast.alice, &mut cast.bob, &mut cast.carol]);
    assert_eq!(cast.alice.texts().last().unwrap(), "here");
    // No state of a void or settled epoch is left behind.
    let states = |person: &Person| {
        person.store.rows.keys().filter(|(_, key)| key.windows(6).any(|part| part == b"\0state")).count()
    };
    for person in [&mut cast.alice, &mut cast.bob, &mut cast.carol] {
        person.group().write_state_next();
        person.save();
        let open = person.group().open_commits();
        assert_eq!(states(person), 1 + open, "{:?}", person.account.client);
    }
}

/// A commit whose key root is nobody's: nobody can apply it, its committer included.
#[test]
fn a_commit_that_nobody_can_apply_does_not_end_the_group() {
    let mut world = World::new();
    let (mut alice, mut bob, mut carol) = (world.person("alice"), world.person("bob"), world.person("carol"));
    group_of(&mut world, &mut [&mut alice, &mut bob, &mut carol]);
    alice.wish(Wish::Update);
    let mut submission = alice.group().next_submission(world.ds.now(), &mut Vec::new()).unwrap().unwrap();
    alice.save();
    let SubmissionBody::Bundle(bundle) = &mut submission.body else { panic!() };
    let mut entry = Entry::parse(&bundle.entry).unwrap();
    entry.commit.as_mut().unwrap().key_root = Hash::new([7; 32]);
    bundle.entry = entry.to_bytes().unwrap();
    world.ds.submit(&submission).unwrap();

    for person in [&mut alice, &mut bob, &mut carol] {
        person.sync(&world.ds);
        assert!(is_stuck(person));
    }
    // The second dispute is one too many, and its author takes that for what it is.
    bob.drive_now(&mut world);
    carol.drive_now(&mut world);
    assert_eq!(world.ds.ledger.as_ref().unwrap().open().len(), 1);
    world.ds.ahead += DISPUTE_MS + 60_001;
    carol.drive_now(&mut world);
    for person in [&mut alice, &mut bob, &mut carol] {
        person.drive(&mut world);
    }
    for person in [&mut alice, &mut bob, &mut carol] {
        person.sync(&world.ds);
        assert_eq!(*person.group().status(), Status::Active);
    }
    agree(&mut [&mut alice, &mut bob, &mut carol]);
}

#[test]
fn a_word_about_a_commit_is_sent_once_also_if_it_cannot_be_read() {
    let mut world = World::new();
    let [mut alice, mut bob, _] = trio(&mut world);
    alice.wish(Wish::Update);
    alice.drive_now(&mut world);
    bob.sync(&world.ds);
    let now = world.ds.now().plus_ms(2 * 3_600_000);
    let ack = bob.group().next_submission(now, &mut Vec::new()).unwrap().unwrap();
    bob.save();
    let wish = bob.group().intents().find(|intent| intent.id == ack.intent).unwrap().wish.clone();
    assert!(matches!(wish, Wish::Ack { .. }), "{wish:?}");
    // Without a reply it is the same once more.
    let again = bob.group().next_submission(now, &mut Vec::new()).unwrap().unwrap();
    assert_eq!(again.intent, ack.intent);
    let seq = world.ds.submit(&ack).unwrap();
    let reply = SubmitResponse { seq: seq.0, time_ms: now.0, chain: vec![0; 32], receipt: Vec::new() };
    bob.group().accepted(&reply);
    for _ in 0..2 {
        let next = bob.group().next_submission(now, &mut Vec::new()).unwrap();
        assert!(next.is_none_or(|next| next.intent != ack.intent));
        bob.save();
        bob.restart();
    }
    // It is done with as soon as it can be read.
    bob.sync(&world.ds);
    assert!(bob.group().intents().all(|intent| intent.id != ack.intent));
    assert_eq!(bob.group().open_commits(), 0);
}

#[test]
fn many_commits_of_one_member_are_acknowledged_unasked() {
    let mut world = World::new();
    let (mut alice, mut bob) = (world.person("alice"), world.person("bob"));
    group_of(&mut world, &mut [&mut alice, &mut bob]);
    for _ in 0..20 {
        alice.wish(Wish::Update);
        alice.drive_now(&mut world);
    }
    assert_eq!(world.ds.ledger.as_ref().unwrap().open().len(), 20);
    bob.drive_now(&mut world);
    alice.sync(&world.ds);
    assert!(alice.group().open_commits() < 8);
    agree(&mut [&mut alice, &mut bob]);
}

#[test]
fn an_annulled_removal_leaves_the_member_in_place() {
    let mut cast = cast();
    cast.add_dave();
    // Carol is removed in an epoch that Bob cannot follow into, so that both commits fall together.
    let carol = cast.carol.user();
    cast.alice.wish(Wish::Remove { users: vec![carol] });
    cast.alice.drive_now(&mut cast.world);
    cast.bob.drive_now(&mut cast.world);
    cast.wait();
    cast.bob.drive_now(&mut cast.world);
    let seen: Vec<_> = cast.world.ds.after(cast.carol.group().position().seq);
    // Carol reads up to her removal first.
    let removal = seen.iter().position(|incoming| Entry::parse(&incoming.entry).unwrap().removes()).unwrap();
    let group = cast.carol.group();
    let done = group.process(&seen[..=removal]);
    assert_eq!(*group.status(), Status::Removed, "{done:?}");
    assert!(group.may_return());
    cast.carol.save();
    cast.carol.restart();
    cast.carol.sync(&cast.world.ds);
    assert_eq!(*cast.carol.group().status(), Status::Active);
    cast.alice.sync(&cast.world.ds);
    agree(&mut [&mut cast.alice, &mut cast.bob, &mut cast.carol]);
}

/// Carol was removed; the commit before that is disputed, and acknowledged where she cannot read. By time alone she is a member again.
#[test]
fn a_removal_that_stands_behind_what_the_removed_can_read_is_the_end() {
    let mut cast = cast();
    cast.add_dave();
    let users = vec![cast.carol.user()];
    cast.alice.wish(Wish::Remove { users });
    cast.bob.drive_now(&mut cast.world);
    cast.alice.drive_now(&mut cast.world);
    cast.carol.sync(&cast.world.ds);
    assert_eq!(*cast.carol.group().status(), Status::Removed);
    assert!(cast.carol.group().may_return());
    cast.wait();
    let later = cast.world.ds.now().plus_ms(600_000);
    cast.carol.group().caught_up(later).unwrap();
    // What she has to say waits for whether it stands, and she finds that out unasked: by a commit, which the DS takes in the present epoch only.
    let commit = cast.carol.group().next_submission(later, &mut Vec::new()).unwrap().unwrap();
    assert_eq!(*cast.carol.group().status(), Status::Active);
    assert!(matches!(commit.body, SubmissionBody::Bundle(_)), "{commit:?}");
    cast.carol.save();
    cast.carol.restart();
    cast.carol.wish(Wish::Update);
    let again = cast.carol.group().next_submission(later, &mut Vec::new()).unwrap().unwrap();
    assert_eq!(again.intent, commit.intent, "once");
    let refusal = Refusal::new(Code::EpochStale, "the group has gone on");
    let mut events = Vec::new();
    assert_eq!(cast.carol.group().refused(commit.intent, &refusal, &mut events), Ok(()));
    cast.carol.save();
    assert_eq!(*cast.carol.group().status(), Status::Removed);
    assert!(!cast.carol.group().may_return());
    assert!(cast.carol.group().wants_audit().is_none());
    let failed = |event: &Event| matches!(event, Event::IntentFailed { .. });
    assert!(events.iter().any(failed), "{events:?}");
}
