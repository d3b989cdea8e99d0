//! Keys that were used since the MLS state was written: after a crash none encrypts again, none is left behind, and after the
//! stated time the store has none of them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use common::*;
use conclave_engine::{
    group::{Group, MESSAGES_PER_EPOCH, STATE_MS, SubmissionBody},
    intent::Wish,
    outcome::{Outcome, Rejection},
    writes::Room,
};
use conclave_names::Epoch;

fn pair(world: &mut World) -> [Person; 2] {
    let mut people = ["alice", "bob"].map(|name| world.person(name));
    let [alice, bob] = &mut people;
    group_of(world, &mut [alice, bob]);
    people
}

/// Submits the next message, and reads it.
fn submit(person: &mut Person, world: &mut World) {
    let now = world.ds.now();
    let submission = person.group().next_submission(now, &mut Vec::new()).unwrap().unwrap();
    person.save();
    assert!(matches!(submission.body, SubmissionBody::Entry(_)));
    world.ds.submit(&submission).unwrap();
    person.sync(&world.ds);
}

/// Bytes of MLS state that the writes until now brought.
fn states(person: &Person) -> Vec<Vec<u8>> {
    let of_state = |key: &[u8]| key.windows(6).any(|part| part == b"\0state");
    let rows = person.store.rows.iter().filter(|((_, key), _)| of_state(key));
    rows.map(|(_, value)| value.clone()).collect()
}

#[test]
fn a_message_writes_no_state_and_a_commit_does() {
    let mut world = World::new();
    let [mut alice, mut bob] = pair(&mut world);
    let before = (states(&alice), states(&bob));
    for _ in 0..20 {
        alice.say("hello");
        submit(&mut alice, &mut world);
        bob.sync(&world.ds);
    }
    assert_eq!((states(&alice), states(&bob)), before);
    assert_eq!((alice.group().next_generation(), bob.group().next_generation()), (20, 0));
    alice.wish(Wish::Update);
    alice.drive_now(&mut world);
    bob.sync(&world.ds);
    assert!(states(&alice) != before.0 && states(&bob) != before.1);
    assert_eq!(alice.group().next_generation(), 0);
    agree(&mut [&mut alice, &mut bob]);
}

#[test]
fn no_key_encrypts_twice_whenever_the_client_dies() {
    let mut world = World::new();
    let [mut alice, mut bob] = pair(&mut world);
    for round in 0..12_u32 {
        alice.say(&format!("message {round}"));
        let generation = alice.group().next_generation();
        assert_eq!(generation, round);
        if round % 3 == 0 {
            // It is encrypted and stored, and never leaves.
            alice.group().next_submission(world.ds.now(), &mut Vec::new()).unwrap().unwrap();
            alice.save();
            alice.restart();
            assert_eq!(alice.group().next_generation(), generation + 1);
        }
        submit(&mut alice, &mut world);
        assert_eq!(alice.group().next_generation(), generation + 1);
        alice.restart();
        bob.sync(&world.ds);
        if round % 4 == 1 {
            bob.restart();
        }
    }
    assert_eq!(bob.texts(), (0..12).map(|round| format!("message {round}")).collect::<Vec<_>>());
    assert_eq!(alice.texts(), bob.texts());
    bob.say("read all of it");
    bob.drive_now(&mut world);
    alice.sync(&world.ds);
    assert_eq!(alice.texts().last().unwrap(), "read all of it");
}

/// A store in which the client's place is where it was, and its keys are as they are: what a thief could still read with it.
fn rewound(person: &mut Person, earlier: &Store) -> Store {
    let mut store = person.store.clone();
    let place = |room: Room, key: &[u8]| room == Room::LOG || (room == Room::GROUP && key.ends_with(b"\0meta"));
    store.rows.retain(|(room, key), _| !place(*room, key));
    let rows = earlier.rows.iter().filter(|((room, key), _)| place(*room, key));
    store.rows.extend(rows.map(|(key, value)| (key.clone(), value.clone())));
    store
}

/// What comes of reading the channel from there.
fn outcomes(person: &mut Person, store: Store, world: &World) -> Vec<Outcome> {
    let mut thief = Person {
        account: person.account.clone(),
        mls: conclave_engine::Mls::new(&person.account),
        // It wants to read what the history has.
        store: Store { messages: Vec::new(), ..store },
        group: None,
        events: Vec::new(),
        handshakes: person.handshakes.clone(),
        suite: person.suite,
        dispute_pause: person.dispute_pause,
    };
    let name = person.group().name().clone();
    thief.group = Group::load(&thief.account, &thief.mls, &thief.store, &name).unwrap();
    let done = thief.sync(&world.ds);
    assert!(done.fault.is_none(), "{:?}", done.fault);
    done.outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

#[test]
fn what_was_read_cannot_be_read_again_once_the_state_is_written() {
    let mut world = World::new();
    let [mut alice, mut bob] = pair(&mut world);
    let earlier = bob.store.clone();
    for text in ["one", "two", "three"] {
        alice.say(text);
        submit(&mut alice, &mut world);
    }
    bob.sync(&world.ds);
    assert_eq!(bob.texts(), ["one", "two", "three"]);
    let refused = |outcome: &Outcome| matches!(outcome, Outcome::Rejected(Rejection::Mls(_)));

    // Who opens the store by the rules finds no such key, from the first moment on.
    let store = rewound(&mut bob, &earlier);
    assert!(outcomes(&mut bob, store.clone(), &world).iter().all(refused));
    // A thief who does not keep to them does, for a while: that is the stated bound.
    let mut without = store;
    without.rows.retain(|(room, _), _| *room != Room::USED);
    assert!(outcomes(&mut bob, without, &world).iter().all(|outcome| *outcome == Outcome::Applied));

    let now = world.ds.now();
    assert!(bob.group().due(now).is_some_and(|due| due <= now.plus_ms(STATE_MS)));
    bob.group().next_submission(now, &mut Vec::new()).unwrap();
    bob.save();
    assert!(bob.store.rows.keys().any(|(room, _)| *room == Room::USED));
    let then = now.plus_ms(STATE_MS);
    assert_eq!(bob.group().due(then), Some(then));
    bob.group().next_submission(then, &mut Vec::new()).unwrap();
    bob.save();
    assert!(bob.store.rows.keys().all(|(room, _)| *room != Room::USED));
    let store = rewound(&mut bob, &earlier);
    assert!(outcomes(&mut bob, store, &world).iter().all(refused));
    assert_ne!(bob.group().due(then), Some(then));
}

#[test]
fn closing_writes_the_state_at_once_and_a_clock_set_back_does_not_put_it_off() {
    let mut world = World::new();
    let [mut alice, mut bob] = pair(&mut world);
    let earlier = bob.store.clone();
    alice.say("one");
    submit(&mut alice, &mut world);
    bob.sync(&world.ds);
    bob.group().write_state_next();
    bob.save();
    assert!(bob.store.rows.keys().all(|(room, _)| *room != Room::USED));
    let store = rewound(&mut bob, &earlier);
    assert!(outcomes(&mut bob, store, &world).iter().all(|outcome| *outcome != Outcome::Applied));

    alice.say("two");
    submit(&mut alice, &mut world);
    bob.sync(&world.ds);
    let now = world.ds.now();
    bob.group().note_time(now.plus_ms(86_400_000));
    bob.group().note_time(now);
    assert!(bob.group().due(now).is_some_and(|due| due <= now.plus_ms(STATE_MS)));
    bob.group().note_time(now.plus_ms(STATE_MS));
    bob.save();
    assert!(bob.store.rows.keys().all(|(room, _)| *room != Room::USED));
}

/// A DS that shows an entry twice makes the second fail to decrypt: what was read before in the same and in earlier batches is
/// still read, and what comes after it, too.
#[test]
fn a_message_that_fails_takes_nothing_with_it() {
    let mut world = World::new();
    let [mut alice, mut bob] = pair(&mut world);
    let earlier = bob.store.clone();
    for text in ["one", "two"] {
        alice.say(text);
        submit(&mut alice, &mut world);
        bob.sync(&world.ds);
    }
    alice.say("three");
    submit(&mut alice, &mut world);
    // Its second copy takes the place of the next.
    let twice = world.ds.entries.last().unwrap().clone();
    world.ds.entries.push(twice);
    alice.say("four");
    submit(&mut alice, &mut world);
    let done = bob.sync(&world.ds);
    assert!(matches!(done.outcomes[1].1, Outcome::Rejected(Rejection::Mls(_))), "{:?}", done.outcomes);
    bob.restart();
    alice.say("five");
    submit(&mut alice, &mut world);
    bob.sync(&world.ds);
    assert_eq!(bob.texts(), ["one", "two", "three", "four", "five"]);
    bob.group().write_state_next();
    bob.save();
    let store = rewound(&mut bob, &earlier);
    assert!(outcomes(&mut bob, store, &world).iter().all(|outcome| *outcome != Outcome::Applied));
}

#[test]
fn what_was_said_before_a_commit_that_is_annulled_keeps_its_keys() {
    use conclave_authentication::CertificateAuthority;
    use conclave_channel::law::DISPUTE_MS;

    let mut world = World::new();
    let other = CertificateAuthority::generate(&domain(), NOW).unwrap();
    let both = [&world.ca, &other];
    let (mut alice, mut bob) = (world.person_of("alice", &world.ca, &both), world.person("bob"));
    let mut dave = world.person_of("dave", &other, &both);
    group_of(&mut world, &mut [&mut alice, &mut bob]);
    for text in ["one", "two"] {
        alice.say(text);
        submit(&mut alice, &mut world);
    }
    alice.sync(&world.ds);
    // Bob cannot apply this one, and nobody else is there to say that it stands.
    let package = dave.key_package(&world);
    alice.wish(Wish::Add { key_packages: vec![package] });
    alice.drive_now(&mut world);
    alice.say("said to Dave as well");
    alice.drive_now(&mut world);
    assert_eq!(alice.group().epoch(), Epoch(2));
    bob.drive_now(&mut world);
    world.ds.ahead += DISPUTE_MS + 60_001;
    bob.drive_now(&mut world);
    alice.restart();
    alice.sync(&world.ds);
    // The epoch is Bob's: he committed in place of Alice. What she had said in the first is not encrypted again.
    assert_eq!((alice.group().epoch(), bob.group().epoch()), (Epoch(2), Epoch(2)));
    agree(&mut [&mut alice, &mut bob]);
    for round in 0..3 {
        alice.say(&format!("again {round}"));
        alice.drive_now(&mut world);
        alice.restart();
        bob.sync(&world.ds);
    }
    assert_eq!(bob.texts()[..2], ["one", "two"]);
    assert_eq!(bob.texts().last().unwrap(), "again 2");
}

/// Receivers find keys up to 1,024 steps ahead: who says so much begins an epoch, and nobody who comes late misses anything.
#[test]
fn nobody_says_more_in_an_epoch_than_late_readers_can_follow() {
    let mut world = World::new();
    let [mut alice, mut bob] = pair(&mut world);
    let epoch = alice.group().epoch();
    let count = MESSAGES_PER_EPOCH as usize + 3;
    for number in 0..count {
        alice.group().wish_text(&number.to_string()).unwrap();
    }
    let now = world.ds.now().plus_ms(60_000);
    let mut most = 0;
    while let Some(submission) = alice.group().next_submission(now, &mut Vec::new()).unwrap() {
        most = most.max(alice.group().next_generation());
        world.ds.submit(&submission).unwrap();
        let read = world.ds.after(alice.group().position().seq);
        assert!(alice.group().process(&read).fault.is_none());
    }
    alice.save();
    assert_eq!(most, MESSAGES_PER_EPOCH);
    assert!(alice.group().epoch() > epoch);
    bob.sync(&world.ds);
    assert_eq!(bob.texts().len(), count);
    assert_eq!(bob.texts().last().unwrap(), &(count - 1).to_string());
    agree(&mut [&mut alice, &mut bob]);
}
