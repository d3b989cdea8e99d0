//! What somebody finds who takes a member's store (RFC 9750, section 8.2.2): no key that was used, and unused ones for as long
//! only as it is stated.

use std::collections::BTreeSet;

use conclave_channel::{Entry, EntryKind};
use conclave_names::Timestamp;
use mls_rs::{MlsMessage, group::ReceivedMessage};

use super::{Group, Incoming, Opened};
use crate::{
    Mls,
    group::{PAST_MS, Status, SubmissionBody, standing::Parent},
    intent::Wish,
    mls_client::MlsGroup,
    stores::{EPOCHS_KEPT, GroupRows},
    writes::Room,
};

#[path = "../../tests/common/mod.rs"]
pub(in crate::group) mod common;

use common::{Person, Store, World, group_of};

/// Every MLS state that a store has of a group, with its earlier epochs.
fn states(person: &Person, store: &Store) -> Vec<MlsGroup> {
    let name = person.group.as_ref().unwrap().name().clone();
    let group = Group::load(&person.account, &Mls::new(&person.account), store, &name).unwrap().unwrap();
    let id = name.to_string().into_bytes();
    let of = |parent: &Parent| {
        let apart = Mls::new(&person.account);
        let epochs = group.shared.groups.epochs_before(&id, u64::MAX);
        apart.groups.load(&id, GroupRows { state: parent.state.clone(), epochs });
        apart.client(&person.account, group.mls.cipher_suite()).load_group(&id).unwrap()
    };
    group.parents.iter().map(of).chain([group.mls.clone()]).collect()
}

/// Whether what is in a store decrypts a message.
pub(in crate::group) fn decrypts(person: &Person, store: &Store, message: &MlsMessage) -> bool {
    states(person, store)
        .iter_mut()
        .any(|mls| matches!(mls.process_incoming_message(message.clone()), Ok(ReceivedMessage::ApplicationMessage(_))))
}

/// The message in an entry of somebody else, if it is one that this person can open.
pub(in crate::group) fn message_in(person: &Person, entry: &[u8]) -> Option<MlsMessage> {
    let group = person.group.as_ref().unwrap();
    let parsed = Entry::parse(entry).unwrap();
    let incoming = Incoming { seq: conclave_names::Seq(1), time: Timestamp(0), entry: entry.to_vec(), blob: None };
    match (parsed.kind, group.open(&parsed, &incoming)) {
        (EntryKind::Message, Opened::Message(message, _)) => Some(*message),
        _ => None,
    }
}

/// Random numbers that a seed determines.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

fn sent_by(person: &mut Person, world: &World, text: &str) -> Vec<u8> {
    person.say(text);
    let next = person.group().next_submission(world.ds.now(), &mut Vec::new()).unwrap().unwrap();
    person.save();
    let SubmissionBody::Entry(request) = next.body else { panic!("not a message") };
    request.entry
}

#[test]
fn after_a_busy_life_no_store_decrypts_what_was_read_or_sent() {
    for seed in 1..=3 {
        busy_life(Dice(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed)));
    }
}

fn busy_life(mut dice: Dice) {
    let mut world = World::new();
    let mut people = ["alice", "bob", "carol"].map(|name| world.person(name));
    let [alice, bob, carol] = &mut people;
    group_of(&mut world, &mut [alice, bob, carol]);
    let bob = 1;
    let (mut read, mut controls) = (Vec::new(), 0);
    for step in 0..60 {
        let actor = usize::try_from(dice.below(3)).unwrap();
        // Some read for the first time in a long while, with commits in between.
        people[actor].sync(&world.ds);
        if dice.below(4) == 0 {
            people[actor].wish(Wish::Update);
        } else {
            people[actor].say(&format!("step {step}"));
        }
        people[actor].drive(&mut world);
        if dice.below(3) == 0 {
            continue;
        }
        let after = people[bob].group().position().seq;
        for incoming in world.ds.after(after) {
            if let Some(message) = message_in(&people[bob], &incoming.entry) {
                let own =
                    people[bob].group().intents.values().any(|intent| {
                        intent.prepared.as_ref().is_some_and(|prepared| prepared.entry == incoming.entry)
                    });
                if own {
                    continue;
                }
                // What is not read yet can be read, or this test would show nothing.
                controls += usize::from(decrypts(&people[bob], &people[bob].store, &message));
                read.push(message);
            }
        }
        people[bob].sync(&world.ds);
        // It is durable now, and so it is over with every key that was used, also in states that the group may go back to.
        for message in &read {
            assert!(!decrypts(&people[bob], &people[bob].store, message), "step {step}");
        }
        if dice.below(5) == 0 {
            people[bob].restart();
        }
    }
    assert!(controls > 3, "{controls}");
    assert!(!people[bob].group().parents.is_empty(), "states before open commits were looked at, too");
}

/// The commit that ended the message's epoch is open, and the state before it is kept.
#[test]
fn the_key_of_a_late_message_is_gone_from_the_state_before_the_commit_too() {
    for at_once in [true, false] {
        let mut world = World::new();
        let mut people = ["alice", "bob", "carol"].map(|name| world.person(name));
        let [alice, bob, carol] = &mut people;
        group_of(&mut world, &mut [alice, bob, carol]);
        bob.sync(&world.ds);
        let mut late = Vec::new();
        for text in ["one", "two", "three"] {
            carol.say(text);
        }
        for _ in 0..3 {
            let next = carol.group().next_submission(world.ds.now(), &mut Vec::new()).unwrap().unwrap();
            let SubmissionBody::Entry(request) = &next.body else { panic!("not a message") };
            late.push(message_in(bob, &request.entry).unwrap());
            world.ds.entries.push((world.ds.now(), request.entry.clone()));
            carol.sync(&world.ds);
        }
        // The server orders them after the commit.
        let messages = world.ds.entries.split_off(world.ds.entries.len() - 3);
        alice.wish(Wish::Update);
        alice.drive(&mut world);
        if !at_once {
            bob.sync(&world.ds);
        }
        for (_, entry) in messages.iter().take(2) {
            let now = world.ds.now();
            world.ds.entries.push((now, entry.clone()));
        }
        assert!(late.iter().all(|message| decrypts(bob, &bob.store, message)), "or this test would show nothing");
        bob.sync(&world.ds);
        assert_eq!(bob.texts(), ["one", "two"]);
        assert!(!bob.group().parents.is_empty(), "the commit is open");
        for _ in 0..2 {
            assert!(!decrypts(bob, &bob.store, &late[0]) && !decrypts(bob, &bob.store, &late[1]));
            assert!(decrypts(bob, &bob.store, &late[2]), "the last may still come");
            bob.restart();
        }
        let (now, last) = (world.ds.now(), messages[2].1.clone());
        world.ds.entries.push((now, last));
        bob.sync(&world.ds);
        assert_eq!(bob.texts().len(), 3);
        assert!(!late.iter().any(|message| decrypts(bob, &bob.store, message)));
    }
}

#[test]
fn a_key_that_sealed_something_is_not_in_the_store_when_it_leaves() {
    let mut world = World::new();
    let mut people = ["alice", "bob"].map(|name| world.person(name));
    let [alice, bob] = &mut people;
    group_of(&mut world, &mut [alice, bob]);
    for count in 1..5 {
        sent_by(alice, &world, "hello");
        let generations: BTreeSet<_> =
            states(alice, &alice.store).iter_mut().map(|mls| mls.peek_next_key_generation().unwrap()).collect();
        // The one before the commit that added Bob has sent nothing.
        assert_eq!(generations.last(), Some(&count));
        alice.drive(&mut world);
    }
}

#[test]
fn unused_keys_of_an_epoch_go_an_hour_and_ten_minutes_after_its_end() {
    let mut world = World::new();
    let mut people = common::trio(&mut world);
    let [alice, bob, carol] = &mut people;
    // Encrypted, and never sent.
    let lost = message_in(bob, &sent_by(carol, &world, "lost on the way")).unwrap();
    assert!(decrypts(bob, &bob.store, &lost));
    alice.wish(Wish::Update);
    alice.drive(&mut world);
    bob.sync(&world.ds);
    let ended = bob.group().past.last().unwrap().ended;
    // The states before open commits have keys of their epochs; they go when the commits are settled.
    let in_past = |bob: &Person| {
        let mut mls = states(bob, &bob.store).pop().unwrap();
        matches!(mls.process_incoming_message(lost.clone()), Ok(ReceivedMessage::ApplicationMessage(_)))
    };
    assert!(in_past(bob));
    assert_eq!(bob.group().due(ended).unwrap().min(ended.plus_ms(PAST_MS)), bob.group().due(ended).unwrap());
    bob.group().caught_up(ended.plus_ms(PAST_MS - 1)).unwrap();
    bob.save();
    assert!(in_past(bob));
    bob.group().caught_up(ended.plus_ms(PAST_MS)).unwrap();
    bob.save();
    assert!(!in_past(bob));
    assert!(!bob.store.rows.keys().any(|(room, _)| *room == Room::EPOCH), "with the resumption PSK");
    // They go by the log as well, if its next entry is as late.
    carol.restart();
    carol.sync(&world.ds);
    assert!(!carol.group().past.is_empty());
    world.ds.ahead += PAST_MS + 1;
    alice.say("much later");
    alice.drive(&mut world);
    carol.sync(&world.ds);
    assert!(carol.group().past.is_empty());
    assert!(!carol.store.rows.keys().any(|(room, _)| *room == Room::EPOCH));
    // And the group goes on.
    bob.restart();
    bob.wish(Wish::Update);
    bob.drive(&mut world);
    for person in [&mut *alice, &mut *carol] {
        person.sync(&world.ds);
    }
    common::agree(&mut [alice, bob, carol]);
}

/// However fast epochs follow on one another, and whether they are read one by one or all at once.
#[test]
fn keys_of_no_more_past_epochs_are_kept_than_is_stated() {
    for at_once in [false, true] {
        let mut world = World::new();
        let mut people = common::trio(&mut world);
        let [alice, bob, carol] = &mut people;
        bob.sync(&world.ds);
        // Encrypted in each epoch, and never sent.
        let mut unsent = Vec::new();
        for _ in 0..EPOCHS_KEPT + 3 {
            unsent.push(carol.group().mls.clone().encrypt_application_message(b"lost on the way", Vec::new()).unwrap());
            alice.wish(Wish::Update);
            alice.drive_now(&mut world);
            carol.sync(&world.ds);
            // So that nobody keeps the state before it.
            while let Some(open) = world.ds.ledger.as_ref().unwrap().open().first() {
                carol.group().wish_first(Wish::Ack { commit: open.seq }).unwrap();
                let ack = carol.group().next_submission(world.ds.now(), &mut Vec::new()).unwrap().unwrap();
                carol.save();
                world.ds.submit(&ack).unwrap();
                carol.sync(&world.ds);
            }
            if !at_once {
                bob.sync(&world.ds);
                alice.sync(&world.ds);
            }
        }
        if at_once {
            let is_in = |bob: &mut Person, message| in_memory(bob, message) && decrypts(bob, &bob.store, message);
            assert!(is_in(bob, &unsent[0]), "his present epoch is over, and he has yet to learn it");
        }
        bob.sync(&world.ds);
        bob.group().write_state_next();
        bob.save();
        assert!(bob.group().parents.is_empty() && bob.group().ledger.open().is_empty());
        for _ in 0..2 {
            let (gone, kept) = unsent.split_at(3);
            assert!(kept.iter().all(|message| in_memory(bob, message) && decrypts(bob, &bob.store, message)));
            assert!(!gone.iter().any(|message| in_memory(bob, message) || decrypts(bob, &bob.store, message)));
            let rows = bob.store.rows.keys().filter(|(room, _)| *room == Room::EPOCH).count();
            assert_eq!((rows as u64, bob.group().past.len() as u64), (EPOCHS_KEPT, EPOCHS_KEPT));
            bob.restart();
        }
        // The time of the rest runs from the end of each.
        let last = bob.group().past.last().unwrap().ended.plus_ms(PAST_MS);
        bob.group().caught_up(last).unwrap();
        bob.save();
        assert!(!unsent.iter().any(|message| in_memory(bob, message) || decrypts(bob, &bob.store, message)));
    }
}

/// Whether the group as it is in memory decrypts a message.
fn in_memory(person: &mut Person, message: &MlsMessage) -> bool {
    let mut mls = person.group().mls.clone();
    matches!(mls.process_incoming_message(message.clone()), Ok(ReceivedMessage::ApplicationMessage(_)))
}

/// Where nobody says anything, time alone ends what is kept for commits that nobody disputed.
#[test]
fn a_quiet_group_keeps_the_states_before_commits_for_a_week() {
    let mut world = World::new();
    let mut people = common::trio(&mut world);
    let [alice, bob, carol] = &mut people;
    let lost = message_in(bob, &sent_by(carol, &world, "lost on the way")).unwrap();
    for _ in 0..3 {
        alice.wish(Wish::Update);
        alice.drive(&mut world);
    }
    bob.sync(&world.ds);
    let kept = bob.group().parents.len();
    assert!(kept >= 3 && decrypts(bob, &bob.store, &lost));
    let state_rows = |bob: &Person| {
        bob.store
            .rows
            .keys()
            .filter(|(room, key)| *room == Room::GROUP && key.windows(6).any(|window| window == b"\0state"))
            .count()
    };
    assert!(state_rows(bob) > kept - 1);
    let last = bob.group().ledger.open().last().unwrap().time;
    let over = last.plus_ms(conclave_channel::law::SETTLED_MS);
    // While clocks may differ, nothing is certain.
    bob.group().caught_up(over).unwrap();
    bob.group().next_submission(over, &mut Vec::new()).unwrap();
    assert!(!bob.group().parents.is_empty());
    let due = bob.group().settling_due().unwrap();
    assert!(due > over && bob.group().due(over).unwrap() <= due);
    let end = over.plus_ms(3_600_000);
    bob.group().caught_up(end).unwrap();
    let mut events = Vec::new();
    let _ = bob.group().next_submission(end, &mut events).unwrap();
    bob.save();
    assert!(bob.group().parents.is_empty() && bob.group().ledger.open().is_empty());
    assert_eq!(bob.group().settling_due(), None, "or the shell would come back to it for ever");
    assert!(!decrypts(bob, &bob.store, &lost));
    bob.restart();
    assert_eq!((state_rows(bob), bob.group().parents.len()), (1, 0));
    // The log decides the same with the next entry, and everybody goes on.
    world.ds.ahead += conclave_channel::law::SETTLED_MS + 7_200_000;
    bob.say("a week later");
    bob.drive_now(&mut world);
    for person in [&mut *alice, &mut *carol] {
        person.drive_now(&mut world);
        assert!(person.texts().contains(&"a week later".to_owned()));
    }
    // Some renew their keys by then.
    for person in [&mut *alice, &mut *bob, &mut *carol] {
        person.sync(&world.ds);
    }
    common::agree(&mut [alice, bob, carol]);
}

fn holds(store: &Store, secret: &[u8]) -> bool {
    store.rows.values().any(|value| value.windows(secret.len()).any(|window| window == secret))
}

#[test]
fn a_removal_and_a_join_leave_no_old_keys() {
    let mut world = World::new();
    let mut people = ["alice", "bob", "carol"].map(|name| world.person(name));
    let [alice, bob, carol] = &mut people;
    group_of(&mut world, &mut [alice, bob, carol]);
    // Of the KeyPackage nothing is left; its channel key is the group's now.
    assert!(!bob.store.rows.keys().any(|(room, _)| *room == Room::KEY_PACKAGE));
    let first_seed: Vec<_> = alice.group().seeds.values().map(|seed| seed.expose().to_vec()).collect();
    let joined_with = bob.group().channel_keys[0].to_bytes();
    assert!(holds(&bob.store, &joined_with) && holds(&alice.store, &first_seed[0]));

    bob.wish(Wish::Update);
    bob.drive(&mut world);
    alice.wish(Wish::Remove { users: vec![carol.user()] });
    alice.drive(&mut world);
    carol.sync(&world.ds);
    assert_eq!(*carol.group().status(), Status::Removed);
    assert!(carol.group().may_return(), "the removal may yet be annulled");
    carol.restart();
    let mut secrets: Vec<_> = carol.group().seeds.values().map(|seed| seed.expose().to_vec()).collect();
    secrets.extend(carol.group().channel_keys.iter().map(|key| key.to_bytes().to_vec()));
    assert!(secrets.iter().all(|secret| holds(&carol.store, secret)));

    // Bob acknowledges; then all is settled.
    world.ds.ahead += 2 * 3_600_000;
    for _ in 0..3 {
        for person in [&mut *bob, &mut *alice] {
            person.drive_now(&mut world);
        }
    }
    assert!(alice.group().ledger.open().is_empty());
    for person in [&mut *alice, &mut *bob] {
        assert!(first_seed.iter().all(|seed| holds(&person.store, seed)), "the epoch before was sealed under it");
        person.wish(Wish::Update);
        person.drive(&mut world);
    }
    world.ds.ahead += 2 * 3_600_000;
    for _ in 0..3 {
        for person in [&mut *bob, &mut *alice] {
            person.drive_now(&mut world);
        }
    }
    assert!(!holds(&bob.store, &joined_with), "the leaf has another");
    assert!(!first_seed.iter().any(|seed| holds(&alice.store, seed) || holds(&bob.store, seed)));

    carol.sync(&world.ds);
    let now = world.ds.now().plus_ms(conclave_channel::law::SETTLED_MS);
    carol.group().next_submission(now, &mut Vec::new()).unwrap();
    carol.save();
    assert!(!secrets.iter().any(|secret| holds(&carol.store, secret)));
    let rooms: BTreeSet<_> = carol.store.rows.keys().map(|(room, _)| *room).collect();
    assert!(rooms.is_subset(&BTreeSet::from([Room::ACCOUNT, Room::GROUP, Room::LOG, Room::SUMMARY])), "{rooms:?}");
    assert_eq!(carol.store.rows.keys().filter(|(room, _)| *room == Room::GROUP).count(), 1, "which incarnation it was");
    let name = carol.group().name().clone();
    assert!(Group::load(&carol.account, &Mls::new(&carol.account), &carol.store, &name).unwrap().is_none());
    assert_eq!(crate::group::list(&carol.store).unwrap()[0].status, Status::Removed);
    // It can be added again.
    let package = carol.key_package(&world);
    alice.wish(Wish::Add { key_packages: vec![package] });
    alice.drive(&mut world);
    carol.join(&world);
    carol.sync(&world.ds);
    common::agree(&mut [alice, carol]);
}
