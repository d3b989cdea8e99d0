//! A group that is made anew (RFC 9420, section 11.2; RFC 9750, section 5.2.3): frozen, continued by whoever is there, and by one
//! only.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::time::SystemTime;

use common::{Ds, Person, World, agree, group_of};
use conclave_channel::{Body, Entry, EntryKind, law::Ledger};
use conclave_engine::{
    group::{Group, WishError},
    intent::Wish,
    key_packages,
    outcome::{Event, Outcome},
};
use conclave_mls::components::HandshakeMode;
use conclave_names::{Epoch, Timestamp};
use mls_rs::CipherSuite;

const NEW: CipherSuite = CipherSuite::CURVE25519_CHACHA;

fn reinit() -> Wish {
    Wish::ReInit { cipher_suite: NEW.into(), visible: false }
}

/// KeyPackages for the successor, in the order of who is asked for.
fn packages(world: &World, maker: usize, people: &mut [Person]) -> Vec<Vec<u8>> {
    let (suite, wanted) = people[maker].group().successor_needs().unwrap();
    assert_eq!(suite, u16::from(NEW));
    let package = |client| {
        let person = people.iter_mut().find(|person| person.account.client == client).unwrap();
        // mls-rs judges their lifetimes by the system's clock.
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let now = Timestamp(u64::try_from(since.as_millis()).unwrap());
        let fresh = key_packages::generate(&person.account, &person.mls, NEW, &world.address_key, 1, false, now);
        let fresh = fresh.unwrap();
        person.store.apply(fresh.writes);
        fresh.key_packages.into_iter().next().unwrap()
    };
    wanted.into_iter().map(package).collect()
}

fn make(world: &World, maker: usize, people: &mut [Person]) {
    let packages = packages(world, maker, people);
    let now = world.ds.now().plus_ms(60_000);
    people[maker].group().make_successor(&packages, now).unwrap();
    people[maker].save();
}

/// Alice, Bob and Carol in a group with a blank leaf between them, and the commit that freezes it, acknowledged.
fn frozen(world: &mut World) -> Vec<Person> {
    world.until = common::NOW.plus_ms(4 * 365 * 86_400_000);
    let mut people: Vec<_> = ["alice", "dave", "bob", "carol"].map(|name| world.person(name)).into();
    let [alice, dave, bob, carol] = people.as_mut_slice() else { panic!() };
    group_of(world, &mut [alice, dave, bob, carol]);
    let users = vec![dave.user()];
    alice.wish(Wish::Remove { users });
    alice.drive(world);
    people.remove(1);
    for person in &mut people {
        person.sync(&world.ds);
    }
    people[0].wish(reinit());
    people[0].drive(world);
    assert!(people[0].group().is_frozen());
    assert_eq!(people[0].group().successor_due(), None, "the commit may yet be annulled");
    people[1].drive(world);
    for person in &mut people {
        person.sync(&world.ds);
        assert!(person.group().is_frozen() && person.group().successor_due().is_some());
        assert!(person.events.iter().any(|event| matches!(event, Event::Frozen { .. })));
    }
    people
}

/// Goes on in the successor: what the shell does.
fn go_on(person: &mut Person, world: &World) {
    assert!(person.group().has_successor());
    let mut old = person.group.take().unwrap();
    let mut next = old.succeed(&person.store, world.ds.now(), &mut person.events).unwrap();
    let mut writes = old.take_writes().unwrap();
    writes.extend(next.take_writes().unwrap());
    person.store.apply(writes);
    assert!(matches!(old.wish(Wish::Update), Err(WishError::Removed)));
    let listed = conclave_engine::group::list(&person.store).unwrap();
    let of = |group: &Group| listed.iter().find(|listed| listed.name == *group.name()).unwrap();
    assert_eq!(of(&old).successor.as_ref(), Some(next.name()));
    assert_eq!(of(&next).predecessor.as_ref(), Some(old.name()));
    assert_eq!(
        (next.profile().room.clone(), &next.profile().title),
        (old.profile().room.clone(), &old.profile().title)
    );
    person.group = Some(next);
}

/// The successor's channel, as the first of them tells the DS.
fn found(world: &mut World, person: &mut Person) {
    let founding = person.group().founding().unwrap().unwrap();
    assert_eq!(founding.epoch, Epoch(1));
    let members = u32::try_from(founding.path.leaves).unwrap();
    let ahead = world.ds.now().0 - common::NOW.0;
    world.ds = Ds {
        channel: Some(founding.channel),
        ledger: Some(Ledger::new(founding.epoch, founding.key_root, members)),
        ahead,
        ..Ds::default()
    };
    person.group().founded();
    person.save();
}

fn all_go_on(world: &mut World, people: &mut [Person]) {
    for person in people.iter_mut() {
        person.sync(&world.ds);
        person.restart();
        go_on(person, world);
        person.restart();
    }
    found(world, &mut people[0]);
    let root = people[0].group().key_root().unwrap();
    for person in people.iter_mut() {
        assert_eq!((person.group().key_root().unwrap(), person.group().cipher_suite()), (root, NEW.into()));
    }
    let [alice, bob, carol] = people else { panic!() };
    agree(&mut [alice, bob, carol]);
}

#[test]
fn a_group_with_a_blank_leaf_goes_on_in_another_suite_and_what_waits_goes_over() {
    let mut world = World::new();
    let mut people = frozen(&mut world);
    let before = people[0].group().members().unwrap().len();
    // What is said now waits, and so does all else.
    people[1].say("while it is frozen");
    let length = world.ds.entries.len();
    people[1].drive(&mut world);
    assert_eq!((world.ds.entries.len(), people[1].group().intents().count()), (length, 1));
    make(&world, 0, &mut people);
    people[0].restart();
    people[0].drive(&mut world);
    all_go_on(&mut world, &mut people);
    let epochs: Vec<_> = people[0].store.rows.keys().map(|(room, _)| *room).collect();
    assert!(!epochs.contains(&conclave_engine::writes::Room::EPOCH) && before == 3);

    people[1].drive(&mut world);
    for person in &mut people {
        person.sync(&world.ds);
    }
    for person in &people {
        assert_eq!(person.texts().last().map(String::as_str), Some("while it is frozen"));
    }
    // It is a group like any other: keys are renewed, and members come.
    let mut eve = world.person("eve");
    eve.suite = NEW;
    let package = eve.key_package(&world);
    people[2].wish(Wish::Update);
    people[2].drive(&mut world);
    people[1].wish(Wish::Add { key_packages: vec![package] });
    people[1].drive(&mut world);
    eve.join(&world);
    eve.sync(&world.ds);
    for person in &mut people {
        person.sync(&world.ds);
    }
    let [alice, bob, carol] = people.as_mut_slice() else { panic!() };
    agree(&mut [alice, bob, carol, &mut eve]);
}

#[test]
fn a_change_that_does_not_go_over_is_told_and_kept_in_the_history() {
    let mut world = World::new();
    let mut people = frozen(&mut world);
    let mut eve = world.person("eve");
    let package = eve.key_package(&world);
    let add = people[1].wish(Wish::Add { key_packages: vec![package] });
    let again = people[1].wish(reinit());
    let update = people[1].wish(Wish::Update);
    people[1].say("while it is frozen");
    make(&world, 0, &mut people);
    people[0].drive(&mut world);
    all_go_on(&mut world, &mut people);
    let failed: Vec<_> = people[1]
        .events
        .iter()
        .filter_map(|event| match event {
            Event::IntentFailed { intent, reason } => Some((*intent, reason.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(failed.iter().map(|(intent, _)| *intent).collect::<Vec<_>>(), [add, again], "{failed:?}");
    assert!(failed[0].1.contains("nobody was added"), "{failed:?}");
    let noted = |reason: &str| {
        people[1].store.messages.iter().any(|stored| String::from_utf8_lossy(&stored.body).contains(reason))
    };
    assert!(failed.iter().all(|(_, reason)| noted(reason)), "it is in the history as well");
    assert!(!people[1].group().is_pending(update), "all keys are new");
    people[1].drive(&mut world);
    people[0].sync(&world.ds);
    assert_eq!(people[0].texts(), ["while it is frozen"]);
    assert_eq!(people[0].group().members().unwrap().len(), 3);
}

#[test]
fn the_committer_may_die_and_comes_back_to_the_successor() {
    let mut world = World::new();
    let mut people = frozen(&mut world);
    let (now, dues) = (world.ds.now(), people.iter_mut().map(|person| person.group().successor_due().unwrap()));
    let dues: Vec<_> = dues.collect();
    assert!(dues[0] < dues[1] && dues[1] < dues[2] && dues[2] < now.plus_ms(60_000), "one after the other");
    make(&world, 2, &mut people);
    people[2].drive(&mut world);
    all_go_on(&mut world, &mut people);
}

#[test]
fn of_two_successors_the_first_in_the_log_counts_for_everybody() {
    let mut world = World::new();
    let mut people = frozen(&mut world);
    make(&world, 1, &mut people);
    make(&world, 2, &mut people);
    let [_, bob, carol] = people.as_mut_slice() else { panic!() };
    let now = world.ds.now().plus_ms(60_000);
    let [mut of_bob, of_carol] =
        [bob, carol].map(|person| person.group().next_submission(now, &mut Vec::new()).unwrap().unwrap());
    // Carol's comes first, and Bob's twice.
    world.ds.submit(&of_carol).unwrap();
    world.ds.submit(&of_bob).unwrap();
    of_bob.blobs.clear();
    world.ds.submit(&of_bob).unwrap();
    let carol = people[2].account.client.clone();
    all_go_on(&mut world, &mut people);
    // Whoever made it stands first in its tree.
    assert_eq!(people[0].group().members().unwrap()[0].client, carol);
}

#[test]
fn what_is_no_successor_is_passed_over() {
    let mut world = World::new();
    let mut people = frozen(&mut world);
    let epoch = people[0].group().epoch();
    let garbage = Entry::new(EntryKind::Successor, epoch, Body::Inline(vec![7; 600])).to_bytes().unwrap();
    let (seq, time) = (world.ds.entries.len() as u64 + 1, world.ds.now());
    world.ds.entries.push((time, garbage));
    let done = people[0].sync(&world.ds);
    assert!(matches!(done.outcomes.as_slice(), [(at, Outcome::Rejected(_))] if at.0 == seq));
    assert!(!people[0].group().has_successor());
    make(&world, 0, &mut people);
    people[0].drive(&mut world);
    all_go_on(&mut world, &mut people);
}

#[test]
fn a_member_that_is_left_out_makes_no_successor() {
    let mut world = World::new();
    let mut people = frozen(&mut world);
    let mut packages = packages(&world, 0, &mut people);
    packages.pop();
    let now = world.ds.now().plus_ms(60_000);
    assert!(people[0].group().make_successor(&packages, now).is_err());
    // Nor is anybody else put in its place.
    let mut eve = world.person("eve");
    eve.suite = NEW;
    packages.push(eve.key_package(&world));
    assert!(people[0].group().make_successor(&packages, now).is_err());
    assert_eq!(people[0].group().intents().count(), 0);
}

#[test]
fn what_the_policy_does_not_admit_freezes_nothing() {
    let mut world = World::new();
    let mut people = ["alice", "bob"].map(|name| world.person(name));
    let [alice, bob] = &mut people;
    group_of(&mut world, &mut [alice, bob]);
    alice.wish(Wish::ReInit { cipher_suite: 2, visible: false });
    alice.drive(&mut world);
    assert!(alice.events.iter().any(|event| matches!(event, Event::IntentFailed { .. })));
    assert!(!alice.group().is_frozen() && alice.group().intents().count() == 0);
}

#[test]
fn the_successor_may_have_visible_handshakes() {
    let mut world = World::new();
    world.until = common::NOW.plus_ms(4 * 365 * 86_400_000);
    let mut people: Vec<_> = ["alice", "bob"].map(|name| world.person(name)).into();
    let [alice, bob] = people.as_mut_slice() else { panic!() };
    group_of(&mut world, &mut [alice, bob]);
    alice.wish(Wish::ReInit { cipher_suite: NEW.into(), visible: true });
    alice.drive(&mut world);
    bob.drive(&mut world);
    alice.sync(&world.ds);
    make(&world, 0, &mut people);
    people[0].drive(&mut world);
    for person in &mut people {
        person.sync(&world.ds);
        go_on(person, &world);
        let founding = person.group().founding().unwrap().unwrap();
        assert!(!founding.group_info.is_empty(), "the DS has to be told the tree");
        assert_eq!(person.group().profile().mode, HandshakeMode::Visible);
    }
    let infos: Vec<_> =
        people.iter_mut().map(|person| person.group().founding().unwrap().unwrap().group_info).collect();
    assert_eq!(infos[0], infos[1], "all say the same");
}
