//! What becomes of a member that a successor's Welcome does not let in, and of what waits in the store for a succession.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

#[path = "common/anew.rs"]
mod anew;
mod common;

use anew::*;
use common::{Person, World, agree, dispute};
use conclave_channel::law::DISPUTE_MS;
use conclave_engine::{
    group::{Group, KnockRefused, Status},
    intent::Wish,
    knock::Knocked,
    outcome::Event,
    writes::Room,
};
use conclave_names::GroupUri;
use mls_rs::CipherSuite;

/// Keys of the rows of a group.
fn rows_of(person: &Person, group: &GroupUri) -> Vec<(Room, String)> {
    let name = group.to_string();
    let of = |key: &[u8]| key.windows(name.len()).any(|window| window == name.as_bytes());
    let rows = person.store.rows.keys().filter(|(_, key)| of(key));
    rows.map(|(room, key)| (*room, String::from_utf8_lossy(key).into_owned())).collect()
}

/// What is long is stored in pieces.
#[test]
fn nothing_that_waited_for_a_succession_stays_in_the_store_after_a_crash() {
    let mut world = World::new();
    world.until = common::NOW.plus_ms(4 * 365 * 86_400_000);
    let mut people: Vec<_> = (0..100).map(|number| world.person(&format!("member{number}"))).collect();
    common::group_of(&mut world, &mut people.iter_mut().collect::<Vec<_>>());
    let old = people[0].group().name().clone();
    let mut others = people.split_off(2);
    freeze(&mut world, &mut people, reinit());
    people.append(&mut others);
    make(&world, 0, &mut people);
    people[0].drive(&mut world);
    people[1].sync(&world.ds);
    for person in &mut people[..2] {
        let waits = rows_of(person, &old);
        assert!(waits.iter().any(|(room, key)| *room == Room::LONG && key.ends_with("continuation")));
        // It dies between the two transactions.
        person.restart();
        go_on(person, &world);
        let mut left = rows_of(person, &old);
        left.retain(|(room, _)| [Room::BLOB, Room::LONG, Room::PIECE].contains(room));
        assert!(left.is_empty(), "{left:?}");
    }
    assert_eq!(people[0].group().epoch_authenticator().unwrap(), people[1].group().epoch_authenticator().unwrap());
}

/// Bob has lost the private part of the KeyPackage by which he is to come into the successor.
fn bob_is_left_out(world: &mut World) -> (Vec<Person>, Group) {
    let mut people = frozen(world);
    people[1].say("what Bob says meanwhile");
    make(world, 0, &mut people);
    let bob = &mut people[1];
    bob.store.rows.retain(|(room, _), _| *room != Room::KEY_PACKAGE);
    bob.restart();
    people[0].drive(world);
    for person in &mut people {
        person.sync(&world.ds);
        person.restart();
    }
    for at in [0, 2] {
        go_on(&mut people[at], world);
        people[at].restart();
    }
    found(world, &mut people[0]);
    let bob = &mut people[1];
    let mut old = bob.group.take().unwrap();
    let refused = old.succeed(&bob.store, world.ds.now(), &mut bob.events).unwrap_err();
    let told = old.left_out(&refused.to_string());
    assert!(matches!(told.as_slice(), [Event::Stuck { .. }]), "{told:?}");
    bob.events.extend(told);
    (people, old)
}

#[test]
fn a_member_that_the_successors_welcome_does_not_let_in_knocks_and_is_let_in() {
    let mut world = World::new();
    let (mut people, old) = bob_is_left_out(&mut world);
    let bob = &mut people[1];
    let name = old.name().clone();
    bob.group = Some(old);
    bob.save();
    let left = rows_of(bob, &name);
    assert!(!left.iter().any(|(room, _)| *room == Room::BLOB), "what does not open is of no use: {left:?}");
    bob.restart();
    assert!(matches!(bob.group().status(), Status::Stuck { .. }), "it is a member still");
    assert!(bob.group().knock_due(world.ds.now()).unwrap() <= world.ds.now());
    assert_eq!(bob.group().whom_to_ask().unwrap().len(), 2);
    // What he is told to say now waits.
    bob.say("and after that");
    bob.suite = CipherSuite::from(bob.group().cipher_suite());
    let suite = bob.suite;
    people[0].suite = suite;
    let [alice, bob, carol] = people.as_mut_slice() else { panic!() };
    let knocked = knock(&world, bob, alice);
    bob.suite = NEW;
    let package = bob.key_package(&world);
    let fresh = knocked.with_key_package(&alice.mls, package, world.ds.now()).unwrap();
    alice.group().answer(&fresh, world.ds.now()).unwrap();
    alice.drive_now(&mut world);
    carol.sync(&world.ds);
    let mut old = bob.group.take().unwrap();
    bob.join(&world);
    let next = bob.group.as_mut().unwrap();
    assert!(old.is_continued_by(next, &alice.account.client));
    let mut events = Vec::new();
    old.continued_by(next, world.ds.now(), &mut events);
    let mut writes = old.take_writes().unwrap();
    writes.extend(next.take_writes().unwrap());
    bob.store.apply(writes);
    assert!(events.contains(&Event::Succeeded { group: bob.group().name().clone() }), "{events:?}");
    bob.drive_now(&mut world);
    for person in [alice, carol] {
        person.sync(&world.ds);
        assert_eq!(person.texts(), ["what Bob says meanwhile", "and after that"]);
    }
    let [alice, bob, carol] = people.as_mut_slice() else { panic!() };
    agree(&mut [alice, bob, carol]);
}

/// The server hides from Bob the successor that Alice has made. So he makes one, and takes it for that of everybody. They have one name, and one
/// channel at the server, which Alice told it of.
fn bob_goes_on_alone(world: &mut World) -> Vec<Person> {
    let mut people = frozen(world);
    people[1].say("what Bob says meanwhile");
    let hidden = world.ds.entries.len();
    make(world, 0, &mut people);
    make(world, 1, &mut people);
    people[0].drive(world);
    let true_log = world.ds.entries.split_off(hidden);
    people[1].drive(world);
    go_on(&mut people[1], world);
    world.ds.entries.truncate(hidden);
    world.ds.entries.extend(true_log);
    people[2].sync(&world.ds);
    for at in [0, 2] {
        go_on(&mut people[at], world);
    }
    assert_eq!(people[1].group().name().clone(), *people[0].group().name());
    assert_ne!(people[1].group().key_root().unwrap(), people[0].group().key_root().unwrap());
    found(world, &mut people[0]);
    people
}

#[test]
fn who_went_on_in_another_successor_than_the_others_knocks_and_is_let_in() {
    let mut world = World::new();
    let mut people = bob_goes_on_alone(&mut world);
    let [alice, bob, carol] = people.as_mut_slice() else { panic!() };
    let mut told = Vec::new();
    bob.group().not_founded(&mut told);
    assert!(matches!(told.as_slice(), [Event::Stuck { reason, .. }] if reason.contains("another channel")), "{told:?}");
    bob.save();
    bob.restart();
    assert!(matches!(bob.group().status(), Status::Stuck { .. }) && bob.group().wants_rejoin());
    assert!(bob.group().founding().unwrap().is_some(), "the server may think otherwise another time");
    told.clear();
    bob.group().not_founded(&mut told);
    assert_eq!(told, [], "it is told once");
    assert!(bob.group().knock_due(world.ds.now()).unwrap() <= world.ds.now());
    // Nothing of the channel that the server has is for what Bob has.
    bob.sync(&world.ds);
    assert_eq!(bob.group().position().seq.0, 0);

    for person in [&mut *alice, &mut *bob] {
        person.suite = NEW;
    }
    let knocked = knock(&world, bob, alice);
    assert_eq!(knocked.group(), alice.group().predecessor(), "of what they had in common");
    let package = bob.key_package(&world);
    let fresh = knocked.with_key_package(&alice.mls, package, world.ds.now()).unwrap();
    alice.group().answer(&fresh, world.ds.now()).unwrap();
    alice.drive_now(&mut world);
    bob.join(&world);
    assert_eq!(bob.group().founding().unwrap().map(|founding| founding.channel), None);
    bob.drive_now(&mut world);
    for person in [&mut *alice, &mut *carol] {
        person.sync(&world.ds);
        assert_eq!(person.texts(), ["what Bob says meanwhile"]);
    }
    agree(&mut [alice, bob, carol]);
}

#[test]
fn who_is_told_first_that_the_channel_is_anothers_and_then_that_it_is_not_goes_on() {
    let mut world = World::new();
    let mut people = bob_goes_on_alone(&mut world);
    let carol = &mut people[2];
    carol.group().not_founded(&mut Vec::new());
    carol.save();
    carol.restart();
    carol.group().founded();
    carol.save();
    carol.restart();
    assert_eq!(*carol.group().status(), Status::Active);
    assert!(carol.group().founding().unwrap().is_none());
    // Of who has the channel's word, no other counts.
    carol.group().not_founded(&mut Vec::new());
    assert_eq!(*carol.group().status(), Status::Active);
    people[0].say("after that");
    people[0].drive_now(&mut world);
    people[2].sync(&world.ds);
    assert_eq!(people[2].texts(), ["after that"]);
}

/// A stream brings it before Bob has told the server of the channel, which Alice did.
#[test]
fn who_is_removed_from_a_successor_before_founding_it_founds_nothing() {
    let mut world = World::new();
    let mut people = frozen(&mut world);
    make(&world, 0, &mut people);
    people[0].drive(&mut world);
    for person in &mut people {
        person.sync(&world.ds);
        go_on(person, &world);
    }
    found(&mut world, &mut people[0]);
    let [alice, bob, carol] = people.as_mut_slice() else { panic!() };
    alice.say("to all");
    alice.drive_now(&mut world);
    carol.sync(&world.ds);
    assert!(carol.group().founding().unwrap().is_none(), "there is a channel to read");
    let users = vec![bob.user()];
    assert!(bob.group().founding().unwrap().is_some());
    alice.wish(Wish::Remove { users });
    alice.drive_now(&mut world);
    bob.sync(&world.ds);
    assert_eq!(*bob.group().status(), Status::Removed);
    assert!(bob.group().founding().unwrap().is_none());
    bob.restart();
}

/// `lost` takes the newest invitation for what has become of the group that it could not follow.
fn leaves_for(world: &World, lost: &mut Person) {
    let mut old = lost.group.take().unwrap();
    lost.join(world);
    let next = lost.group.as_mut().unwrap();
    let mut events = Vec::new();
    old.continued_by(next, world.ds.now(), &mut events);
    let mut writes = old.take_writes().unwrap();
    writes.extend(next.take_writes().unwrap());
    lost.store.apply(writes);
}

/// Answers a knock in a successor of another suite, by a KeyPackage that the directory gives out.
fn answered(world: &mut World, knocked: &Knocked, lost: &mut Person, member: &mut Person) -> Result<(), KnockRefused> {
    lost.suite = CipherSuite::from(member.group().cipher_suite());
    let package = lost.key_package(world);
    let fresh = knocked.with_key_package(&member.mls, package, world.ds.now()).unwrap();
    member.group().answer(&fresh, world.ds.now())?;
    member.drive_now(world);
    Ok(())
}

/// The KeyPackages by which others knock are of the suite of the group that they knew.
fn knock_in(world: &World, suite: u16, from: &mut Person, to: &mut Person) -> Knocked {
    let (mine, theirs) = (from.suite, to.suite);
    (from.suite, to.suite) = (suite.into(), suite.into());
    let knocked = knock(world, from, to);
    (from.suite, to.suite) = (mine, theirs);
    knocked
}

/// Alice, Bob, Carol and Dave go on in a successor, whose Welcome lets nobody in who is named here. Gives them with their groups as they stand.
fn go_on_without(world: &mut World, left_out: &[usize]) -> Vec<Person> {
    world.until = common::NOW.plus_ms(4 * 365 * 86_400_000);
    let mut people: Vec<_> = ["alice", "bob", "carol", "dave"].map(|name| world.person(name)).into();
    common::group_of(world, &mut people.iter_mut().collect::<Vec<_>>());
    for person in &mut people {
        person.sync(&world.ds);
    }
    freeze(world, &mut people, reinit());
    anew_without(world, &mut people, left_out);
    people
}

/// The first makes the successor of a frozen group.
fn anew_without(world: &mut World, people: &mut [Person], left_out: &[usize]) {
    make(world, 0, people);
    for at in left_out {
        people[*at].store.rows.retain(|(room, _), _| *room != Room::KEY_PACKAGE);
        people[*at].restart();
    }
    people[0].drive(world);
    for (at, person) in people.iter_mut().enumerate() {
        person.sync(&world.ds);
        person.restart();
        if left_out.contains(&at) {
            let group = person.group.as_mut().unwrap();
            let refused = group.succeed(&person.store, world.ds.now(), &mut person.events).unwrap_err();
            group.left_out(&refused.to_string());
            person.save();
        } else if person.group().has_successor() {
            go_on(person, world);
        }
        person.restart();
    }
    found(world, &mut people[0]);
}

/// The answer is annulled: in the successor there is the leaf again that others made for him.
#[test]
fn whose_way_into_the_successor_is_annulled_knocks_again() {
    let mut world = World::new();
    let mut people = go_on_without(&mut world, &[1]);
    let suite = people[1].group().cipher_suite();
    let old = people[1].group().name().clone();
    let [alice, bob, carol, dave] = people.as_mut_slice() else { panic!() };
    let accesses = [&mut *carol, &mut *dave].map(|person| person.group().access().unwrap());
    let first = knock_in(&world, suite, bob, alice);
    bob.group().knocked(vec![alice.account.client.clone()], world.ds.now(), &mut Vec::new());
    bob.save();
    answered(&mut world, &first, bob, alice).unwrap();
    leaves_for(&world, bob);
    bob.restart();
    assert_eq!(*bob.group().status(), Status::Active);
    for access in &accesses {
        dispute(&mut world, access, 0);
    }
    bob.sync(&world.ds);
    alice.sync(&world.ds);
    world.ds.ahead += DISPUTE_MS + 600_000;
    carol.say("as if nothing had been");
    carol.drive_now(&mut world);
    alice.sync(&world.ds);
    bob.sync(&world.ds);
    bob.restart();
    let now = world.ds.now();
    assert!(bob.group().wants_rejoin(), "{:?}", bob.group().status());
    assert!(bob.group().knock_due(now).is_some_and(|due| due <= now));
    // He names the group that he knew.
    let second = knock_in(&world, u16::from(NEW), bob, alice);
    assert_eq!(second.group(), Some(&old));
    bob.group().knocked(vec![alice.account.client.clone()], now, &mut Vec::new());
    bob.save();
    answered(&mut world, &second, bob, alice).unwrap();
    bob.join(&world);
    bob.say("here at last");
    bob.drive_now(&mut world);
    for person in [&mut *alice, &mut *carol, &mut *dave] {
        person.sync(&world.ds);
        assert_eq!(person.texts().last().unwrap(), "here at last");
    }
    agree(&mut [alice, bob, carol, dave]);
}

/// Bob is let in nowhere while the group is made anew twice.
#[test]
fn a_knock_is_answered_after_any_number_of_successions_but_not_by_who_has_come_in_between() {
    let mut world = World::new();
    let mut people = go_on_without(&mut world, &[1]);
    let suite = people[1].group().cipher_suite();
    let old = people[1].group().name().clone();
    let mut early = {
        let [_, bob, carol, dave] = people.as_mut_slice() else { panic!() };
        // Carol was locked out as well, as far as her knock says; she has long been there.
        carol.say("I am here");
        carol.drive_now(&mut world);
        vec![knock_in(&world, suite, bob, dave)]
    };
    for at in [0, 2, 3] {
        people[at].sync(&world.ds);
    }
    // Once more, and to the first suite.
    let mut here: Vec<_> = Vec::new();
    let mut bob = people.remove(1);
    here.append(&mut people);
    here[0].wish(Wish::ReInit { cipher_suite: suite, visible: false });
    here[0].drive(&mut world);
    here[1].drive(&mut world);
    for person in &mut here {
        person.sync(&world.ds);
        assert!(person.group().is_frozen());
    }
    here.push(bob);
    make(&world, 0, &mut here);
    bob = here.pop().unwrap();
    here[0].drive(&mut world);
    for person in &mut here {
        person.sync(&world.ds);
        go_on(person, &world);
        person.restart();
    }
    found(&mut world, &mut here[0]);
    let [alice, carol, dave] = here.as_mut_slice() else { panic!() };
    for person in [&mut *alice, &mut *carol, &mut *dave] {
        person.suite = suite.into();
        person.sync(&world.ds);
    }
    let knocked = early.remove(0);
    assert_eq!(knocked.group(), Some(&old));
    let now = world.ds.now();
    alice.group().would_answer(&knocked, now).unwrap();
    answered(&mut world, &knocked, &mut bob, dave).unwrap();
    for person in [&mut *alice, &mut *carol] {
        person.sync(&world.ds);
        let refused = person.group().would_answer(&knocked, now);
        assert!(matches!(refused, Err(KnockRefused::Back)), "{refused:?}");
    }
    leaves_for(&world, &mut bob);
    bob.sync(&world.ds);
    agree(&mut [alice, carol, dave, &mut bob]);
}

/// The Welcome of whoever made the successor opens for nobody: all others are outside, and only their word to the maker helps.
#[test]
fn all_whom_the_makers_welcome_does_not_let_in_ask_the_maker_first_and_are_let_in() {
    let mut world = World::new();
    let mut people = go_on_without(&mut world, &[1, 2, 3]);
    let suite = people[1].group().cipher_suite();
    let (alice, others) = people.split_first_mut().unwrap();
    assert_eq!(alice.group().members().unwrap().len(), 4);
    for lost in others.iter_mut() {
        assert!(matches!(lost.group().status(), Status::Stuck { .. }));
        // Nobody else can help.
        assert_eq!(lost.group().whom_to_ask().unwrap()[0], alice.account.client);
        let knocked = knock_in(&world, suite, lost, alice);
        let now = world.ds.now();
        lost.group().knocked(vec![alice.account.client.clone()], now, &mut Vec::new());
        lost.save();
        lost.restart();
        answered(&mut world, &knocked, lost, alice).unwrap();
        leaves_for(&world, lost);
        lost.drive_now(&mut world);
        alice.drive_now(&mut world);
    }
    for lost in others.iter_mut() {
        lost.sync(&world.ds);
        assert_eq!(*lost.group().status(), Status::Active);
    }
    alice.sync(&world.ds);
    agree(&mut people.iter_mut().collect::<Vec<_>>());
    assert_eq!(people[0].group().members().unwrap().len(), 4);
}

/// If the maker is away when it is asked first, others are asked the next time, who may have been let in by then.
#[test]
fn the_maker_is_not_the_only_one_who_is_asked() {
    let mut world = World::new();
    let mut people = go_on_without(&mut world, &[3]);
    let maker = people[0].account.client.clone();
    let dave = &mut people[3];
    let mut asked = Vec::new();
    for _ in 0..4 {
        asked.push(dave.group().whom_to_ask().unwrap()[0].clone());
        let now = dave.group().knock_due(world.ds.now()).unwrap();
        dave.group().knocked(vec![maker.clone()], now, &mut Vec::new());
        dave.save();
        dave.restart();
    }
    assert!(asked[0] == maker && asked[2] == maker, "{asked:?}");
}
