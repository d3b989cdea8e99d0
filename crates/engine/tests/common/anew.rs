//! Groups that are made anew: what their members and a shell do.

#![allow(dead_code, unreachable_pub)]

use std::time::SystemTime;

use conclave_channel::{Body, Entry, EntryKind, law::Ledger, size_class};
use conclave_engine::{
    group::{Group, WishError},
    intent::Wish,
    key_packages,
    knock::Knocked,
    outcome::Event,
};
use conclave_names::{Epoch, Timestamp};
use mls_rs::CipherSuite;

use crate::common::{self, Ds, Person, World, agree, group_of};

pub const NEW: CipherSuite = CipherSuite::CURVE25519_CHACHA;

/// After so long without a dispute, a commit stands.
pub const WEEK: u64 = conclave_channel::law::SETTLED_MS;

pub fn reinit() -> Wish {
    Wish::ReInit { cipher_suite: NEW.into(), visible: false }
}

/// KeyPackages for the successor, in the order of who is asked for.
pub fn packages(world: &World, maker: usize, people: &mut [Person]) -> Vec<Vec<u8>> {
    let (suite, wanted) = people[maker].group().successor_needs().unwrap();
    let package = |client| {
        let person = people.iter_mut().find(|person| person.account.client == client).unwrap();
        // mls-rs judges their lifetimes by the system's clock.
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let now = Timestamp(u64::try_from(since.as_millis()).unwrap());
        let fresh =
            key_packages::generate(&person.account, &person.mls, suite.into(), &world.address_key, 1, false, now);
        let fresh = fresh.unwrap();
        person.store.apply(fresh.writes);
        fresh.key_packages.into_iter().next().unwrap()
    };
    wanted.into_iter().map(package).collect()
}

pub fn make(world: &World, maker: usize, people: &mut [Person]) {
    let packages = packages(world, maker, people);
    let now = world.ds.now().plus_ms(60_000);
    people[maker].group().make_successor(&packages, now).unwrap();
    people[maker].save();
}

/// Alice, Bob and Carol in a group with a blank leaf between them, and the commit that freezes it, acknowledged.
pub fn frozen(world: &mut World) -> Vec<Person> {
    let mut people = members(world);
    freeze(world, &mut people, reinit());
    people
}

/// Alice, Bob and Carol in a group with a blank leaf between them.
pub fn members(world: &mut World) -> Vec<Person> {
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
    people
}

/// The first commits that the group is made anew, and the others acknowledge that.
pub fn freeze(world: &mut World, people: &mut [Person], reinit: Wish) {
    let long = world.ds.now().plus_ms(WEEK);
    people[0].wish(reinit);
    people[0].drive(world);
    assert!(people[0].group().is_frozen());
    let due = people[0].group().successor_due();
    assert!(due.is_some_and(|due| due > long), "the commit may yet be annulled");
    people[1].drive(world);
    for person in people {
        person.sync(&world.ds);
        assert!(person.group().is_frozen() && person.group().successor_due().is_some_and(|due| due < long));
        assert!(person.events.iter().any(|event| matches!(event, Event::Frozen { .. })));
    }
}

/// Goes on in the successor: what the shell does.
pub fn go_on(person: &mut Person, world: &World) {
    assert!(person.group().has_successor());
    let mut old = person.group.take().unwrap();
    let mut next = old.succeed(&person.store, world.ds.now(), &mut person.events).unwrap().unwrap();
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
pub fn found(world: &mut World, person: &mut Person) {
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

pub fn all_go_on(world: &mut World, people: &mut [Person]) {
    for person in people.iter_mut() {
        person.sync(&world.ds);
        person.restart();
        go_on(person, world);
        person.restart();
    }
    found(world, &mut people[0]);
    let root = people[0].group().key_root().unwrap();
    for person in people.iter_mut() {
        assert_eq!(person.group().key_root().unwrap(), root);
    }
    agree(&mut people.iter_mut().collect::<Vec<_>>());
}

/// A knock of one about a group that he was locked out of, as it lies in the inbox of another, and opened.
pub fn knock(world: &World, from: &mut Person, to: &mut Person) -> Knocked {
    let (theirs, ours) = (to.key_package(world), from.key_package(world));
    let post = from.group().knock(&to.account.client, &theirs, ours, world.ds.now()).unwrap();
    let body = Body::Inline(size_class::pad(post.knock, 0));
    let entry = Entry::new(EntryKind::Knock, Epoch(0), body).to_bytes().unwrap();
    Knocked::open(&to.mls, &entry, world.ds.now()).unwrap()
}
