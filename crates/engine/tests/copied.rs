//! An older copy of a profile is put back, or two copies of one run at the same time.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::{Person, World, agree, bad_commit, dispute, group_of, trio};
use conclave_channel::law::DISPUTE_MS;
use conclave_engine::{
    group::{Handshakes, Status, SubmissionBody},
    intent::Wish,
    outcome::{Event, Outcome, Rejection},
};
use conclave_names::Timestamp;

const DAY: u64 = 86_400_000;

fn pair(world: &mut World, handshakes: Handshakes) -> (Person, Person) {
    let (mut alice, mut bob) = (world.person("alice"), world.person("bob"));
    alice.handshakes = handshakes;
    group_of(world, &mut [&mut alice, &mut bob]);
    (alice, bob)
}

fn in_pair(run: impl Fn(&mut World, Person, Person)) {
    let mut world = World::new();
    let (alice, bob) = pair(&mut world, Handshakes::Private);
    run(&mut world, alice, bob);
}

/// Another device with the same profile, as it is now.
fn copy_of(world: &World, person: &Person) -> Person {
    let mut copy = world.person("copy");
    copy.account = person.account.clone();
    copy.handshakes = person.handshakes.clone();
    copy.store = person.store.clone();
    copy.mls = conclave_engine::Mls::new(&copy.account);
    let name = person.group.as_ref().unwrap().name();
    copy.group = conclave_engine::group::Group::load(&copy.account, &copy.mls, &copy.store, name).unwrap();
    copy
}

fn warned(person: &Person) -> usize {
    person.events.iter().filter(|event| matches!(event, Event::KeysUsedElsewhere { .. })).count()
}

fn heard(person: &Person, text: &str) -> usize {
    person.texts().iter().filter(|heard| *heard == text).count()
}

/// Speaks once, as a client that follows the group.
fn tell(world: &mut World, person: &mut Person, text: &str) {
    person.sync(&world.ds);
    person.say(text);
    person.drive_now(world);
}

#[test]
fn what_an_older_copy_says_is_read_by_the_others() {
    in_pair(|world, mut alice, mut bob| {
        let mut copy = copy_of(world, &alice);
        for text in ["one", "two", "three"] {
            tell(world, &mut alice, text);
        }
        let done = copy.sync(&world.ds);
        let own = |(_, outcome): &_| *outcome == Outcome::Rejected(Rejection::OwnKeys);
        assert!(done.outcomes.iter().filter(|outcome| own(outcome)).count() >= 3, "{:?}", done.outcomes);
        assert_eq!(warned(&copy), 1, "{:?}", copy.events);
        let epoch = copy.group().epoch();
        // The device fails before it has renewed its keys.
        copy.restart();
        copy.say("four");
        copy.drive_now(world);
        assert!(copy.group().epoch() > epoch);
        let done = bob.sync(&world.ds);
        let refused = done.outcomes.iter().find(|(_, outcome)| matches!(outcome, Outcome::Rejected(_)));
        assert_eq!(refused, None);
        for text in ["one", "two", "three", "four"] {
            assert_eq!(heard(&bob, text), 1, "{text}: {:?}", bob.texts());
        }
        assert_eq!((heard(&copy, "four"), warned(&copy)), (1, 1));
        // And the others go on with it.
        tell(world, &mut bob, "five");
        copy.sync(&world.ds);
        assert_eq!(heard(&copy, "five"), 1);
    });
}

#[test]
fn an_older_copy_comes_back_after_a_commit_of_the_newer_one() {
    in_pair(|world, mut alice, mut bob| {
        let mut copy = copy_of(world, &alice);
        alice.wish(Wish::Update);
        alice.drive_now(world);
        tell(world, &mut alice, "newer");
        copy.sync(&world.ds);
        assert_eq!(warned(&copy), 1, "{:?}", copy.events);
        // Nobody is asked to annul what the device itself did.
        assert!(copy.group().intents().all(|intent| !matches!(intent.wish, Wish::Nack { .. })));
        assert!(copy.group().wants_rejoin(), "{:?}", copy.group().status());
        copy.begin_rejoin(world, false).unwrap();
        copy.drive_now(world);
        assert_eq!(*copy.group().status(), Status::Active);
        tell(world, &mut copy, "older");
        bob.sync(&world.ds);
        assert_eq!((heard(&bob, "newer"), heard(&bob, "older")), (1, 1), "{:?}", bob.events);
        assert!(bob.events.iter().all(|event| !matches!(event, Event::Refused { .. } | Event::Stuck { .. })));
    });
}

#[test]
fn what_was_on_its_way_when_a_way_back_is_annulled_is_told_to_be_missed() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    carol.say("on its way for long");
    let late = carol.group().next_submission(world.ds.now(), &mut Vec::new()).unwrap().unwrap();
    carol.save();
    alice.wish(Wish::Update);
    alice.drive_now(&mut world);
    bob.sync(&world.ds);
    let mut copy = copy_of(&world, &alice);
    let epoch = copy.group().epoch();
    // The newer copy makes what nobody can apply, and the older one comes back into the epoch that it begins.
    bad_commit(&mut world, &mut alice, |entry| entry.commit.as_mut().unwrap().members = 1);
    copy.sync(&world.ds);
    copy.begin_rejoin(&world, false).unwrap();
    copy.drive_now(&mut world);
    assert_eq!((copy.group().status().clone(), copy.group().epoch().0), (Status::Active, epoch.0 + 2));
    bob.drive_now(&mut world);
    world.ds.ahead += DISPUTE_MS + 60_000;
    let place = world.ds.submit(&late).unwrap();
    copy.sync(&world.ds);
    assert_eq!(copy.group().epoch(), epoch, "{:?}", copy.events);
    let missed = Event::Missed { from: place, to: place };
    assert!(copy.events.contains(&missed), "{:?}", copy.events);
    assert!(!copy.events.iter().any(|event| matches!(event, Event::Refused { .. })), "{:?}", copy.events);
    bob.sync(&world.ds);
    assert_eq!(heard(&bob, "on its way for long"), 1);
}

#[test]
fn whose_way_back_is_annulled_and_then_a_commit_before_that_goes_back_twice() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    let (before, first) = (carol.group().epoch(), carol.group().access().unwrap());
    alice.wish(Wish::Update);
    alice.drive_now(&mut world);
    bob.sync(&world.ds);
    let (between, second) = (bob.group().epoch(), bob.group().access().unwrap());
    let mut copy = copy_of(&world, &alice);
    bad_commit(&mut world, &mut alice, |entry| entry.commit.as_mut().unwrap().members = 1);
    copy.sync(&world.ds);
    copy.begin_rejoin(&world, false).unwrap();
    copy.drive_now(&mut world);
    // The commit before its way back is disputed before that which came first: each goes when its time is over.
    dispute(&mut world, &second, 1);
    world.ds.ahead += DISPUTE_MS / 2;
    dispute(&mut world, &first, 0);
    for epoch in [between, before] {
        world.ds.ahead += DISPUTE_MS / 2 + 6 * 60_000;
        copy.sync(&world.ds);
        copy.group().next_submission(world.ds.now(), &mut Vec::new()).unwrap();
        copy.save();
        copy.restart();
        assert_eq!(copy.group().epoch(), epoch, "{:?}", copy.events);
    }
    tell(&mut world, &mut carol, "back at the beginning");
    carol.wish(Wish::Update);
    carol.drive_now(&mut world);
    for person in [&mut bob, &mut copy] {
        person.sync(&world.ds);
        assert_eq!(heard(person, "back at the beginning"), 1, "{:?}", person.events);
    }
    agree(&mut [&mut bob, &mut carol, &mut copy]);
}

#[test]
fn an_older_copy_speaks_after_the_newer_one_asked_to_leave() {
    let mut world = World::new();
    let (mut alice, mut bob) = pair(&mut world, Handshakes::Private);
    let mut copy = copy_of(&world, &alice);
    alice.wish(Wish::Leave);
    alice.drive_now(&mut world);
    let done = copy.sync(&world.ds);
    assert_eq!(done.outcomes.last().unwrap().1, Outcome::Rejected(Rejection::OwnKeys));
    assert_eq!(warned(&copy), 1);
    // Its next handshake key is one that the others know to be used.
    copy.restart();
    copy.say("still here");
    copy.drive_now(&mut world);
    bob.sync(&world.ds);
    assert_eq!(heard(&bob, "still here"), 1, "{:?}", bob.events);
}

#[test]
fn two_copies_that_run_do_not_drive_each_other_out_all_the_time() {
    in_pair(|world, mut alice, mut bob| {
        let mut copy = copy_of(world, &alice);
        alice.wish(Wish::Update);
        alice.drive_now(world);
        let mut back = Vec::new();
        for _ in 0..3 {
            for person in [&mut copy, &mut alice] {
                person.sync(&world.ds);
                let wants = person.group().wants_rejoin();
                back.push(wants);
                if wants {
                    person.begin_rejoin(world, false).unwrap();
                    person.drive_now(world);
                }
            }
        }
        assert_eq!(back, [true, true, false, false, false, false]);
        assert_eq!(warned(&alice), 1, "{:?}", alice.events);
        // Once the group has settled it, the one that is out tries again.
        world.ds.ahead += DAY;
        bob.drive_now(world);
        copy.sync(&world.ds);
        assert!(copy.group().wants_rejoin(), "{:?}", copy.group().status());
        assert_eq!(*bob.group().status(), Status::Active);
    });
}

#[test]
fn what_two_copies_say_with_one_key_is_said_once_by_both() {
    in_pair(|world, mut alice, mut bob| {
        let mut copy = copy_of(world, &alice);
        alice.say("on its way");
        let now = world.ds.now();
        let slow = alice.group().next_submission(now, &mut Vec::new()).unwrap().unwrap();
        alice.save();
        tell(world, &mut copy, "faster");
        assert!(matches!(slow.body, SubmissionBody::Entry(_)));
        world.ds.submit(&slow).unwrap();
        alice.drive_now(world);
        assert_eq!((warned(&alice), heard(&alice, "on its way")), (1, 1), "{:?}", alice.events);
        bob.sync(&world.ds);
        assert_eq!((heard(&bob, "faster"), heard(&bob, "on its way")), (1, 1), "{:?}", bob.events);
        assert!(!bob.events.iter().any(|event| matches!(event, Event::Replayed { .. })));
    });
}

#[test]
fn who_sends_our_own_words_again_does_not_have_us_warned() {
    in_pair(|world, mut alice, _| {
        tell(world, &mut alice, "mine");
        let (_, entry) = world.ds.entries.last().unwrap().clone();
        for restarts in [false, true] {
            if restarts {
                alice.restart();
            }
            let time = Timestamp(world.ds.now().0);
            world.ds.entries.push((time, entry.clone()));
            let done = alice.sync(&world.ds);
            assert_eq!(done.outcomes.last().unwrap().1, Outcome::Duplicate);
        }
        assert_eq!((warned(&alice), heard(&alice, "mine")), (0, 1));
        let epoch = alice.group().epoch();
        tell(world, &mut alice, "more");
        assert_eq!(alice.group().epoch(), epoch);
    });
}
