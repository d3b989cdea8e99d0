//! A group that a client cannot follow, and into which nobody lets it, ends; or at once, if its user leaves it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::*;
use conclave_engine::{
    group::{Group, KNOCK_MS, KnockRefused, Status, UNANSWERED_MS, list},
    intent::Wish,
    outcome::Event,
    writes::Room,
};
use conclave_names::Timestamp;

const DAY: u64 = 24 * KNOCK_MS;

/// In which certificates last longer than anybody asks.
fn long_world() -> World {
    let world = World::new();
    World { until: world.until.plus_ms(500 * DAY), ..world }
}

/// Alice, and Bob, who was removed: what he would read next is gone.
fn removed_unseen(world: &mut World) -> (Person, Person) {
    let [mut alice, mut bob, _] = trio(world);
    bob.say("never sent");
    lock_out(&mut bob);
    alice.wish(Wish::Remove { users: vec![bob.user()] });
    alice.drive_now(world);
    (alice, bob)
}

fn lock_out(person: &mut Person) {
    let mut events = Vec::new();
    person.group().position_gone(None, &mut events);
    person.events.extend(events);
    person.save();
    assert!(person.group().wants_rejoin());
}

fn end_here(person: &mut Person, now: Timestamp) -> bool {
    let mut events = Vec::new();
    let ended = person.group().end_here(now, &mut events);
    person.events.extend(events);
    person.save();
    ended
}

/// What is told of the end, and of what waited.
fn told(person: &Person) -> (Vec<String>, usize) {
    let mut reasons = Vec::new();
    let mut failed = 0;
    for event in &person.events {
        match event {
            Event::GivenUp { reason } => reasons.push(reason.clone()),
            Event::IntentFailed { .. } => failed += 1,
            _ => {}
        }
    }
    (reasons, failed)
}

fn nothing_is_left(world: &World, person: &mut Person) {
    let name = person.group().name().clone();
    assert_eq!(*person.group().status(), Status::Removed);
    assert!(!person.group().may_return() && !person.group().wants_rejoin());
    assert_eq!(person.group().knock_due(world.ds.now()), None);
    assert_eq!(person.group().due(world.ds.now()), None, "nothing is ever to be done in it again");
    for room in [Room::EPOCH, Room::INTENT, Room::BLOB] {
        assert!(!person.store.rows.keys().any(|(of, _)| *of == room), "a key or a wish is left in {room:?}");
    }
    let rows = person.store.rows.iter().filter(|((room, _), _)| *room == Room::GROUP);
    for ((_, key), _) in rows {
        let rest = &key[name.to_string().len() + 1..];
        assert!(!rest.starts_with(b"state") && !rest.starts_with(b"old-leaves"), "{}", String::from_utf8_lossy(rest));
    }
    assert!(Group::load(&person.account, &person.mls, &person.store, &name).unwrap().is_none());
    assert_eq!(list(&person.store).unwrap()[0].status, Status::Removed);
}

#[test]
fn who_was_removed_while_it_was_locked_out_asks_for_a_month_and_then_it_is_over() {
    let mut world = long_world();
    let (mut alice, mut bob) = removed_unseen(&mut world);
    let began = world.ds.now();
    let mut rounds = 0;
    loop {
        let now = bob.group().knock_due(world.ds.now()).unwrap().max(world.ds.now());
        world.ds.ahead += now.0 - world.ds.now().0;
        bob.restart();
        if end_here(&mut bob, now) {
            break;
        }
        let refused = knock(&world, &mut bob, &mut alice);
        assert!(matches!(refused, Err(KnockRefused::NoMember)), "{refused:?}");
        rounds += 1;
        assert!(rounds < 100, "it knocks for ever");
    }
    let lasted = world.ds.now().0 - began.0;
    assert!((UNANSWERED_MS..UNANSWERED_MS + 2 * DAY).contains(&lasted), "{} days", lasted / DAY);
    assert!(rounds >= 30, "{rounds}");
    let (reasons, failed) = told(&bob);
    assert!(reasons.len() == 1 && reasons[0].contains("removed"), "{reasons:?}");
    assert_eq!(failed, 1, "what waited is told of");
    nothing_is_left(&world, &mut bob);
    assert!(!end_here(&mut bob, world.ds.now().plus_ms(100 * DAY)), "it ends once");
    // He can be added like anybody.
    bob.group = None;
    let package = bob.key_package(&world);
    alice.wish(Wish::Add { key_packages: vec![package] });
    alice.drive_now(&mut world);
    bob.join(&world);
    agree(&mut [&mut alice, &mut bob]);
}

#[test]
fn who_has_asked_a_few_times_only_asks_on_whatever_its_clock_says() {
    let mut world = long_world();
    let (mut alice, mut bob) = removed_unseen(&mut world);
    assert!(!end_here(&mut bob, world.ds.now().plus_ms(100 * DAY)), "nobody was asked yet");
    // His clock is a year ahead when he asks first.
    let ahead = world.ds.ahead;
    world.ds.ahead += 365 * DAY;
    let _ = knock(&world, &mut bob, &mut alice);
    world.ds.ahead = ahead;
    for round in 0..7 {
        assert!(!end_here(&mut bob, world.ds.now()), "round {round}");
        let _ = knock(&world, &mut bob, &mut alice);
        world.ds.ahead += DAY;
    }
    assert!(!end_here(&mut bob, world.ds.now()), "it began a week ago");
    bob.restart();
    world.ds.ahead += UNANSWERED_MS;
    assert!(end_here(&mut bob, world.ds.now()));
}

#[test]
fn who_is_let_in_begins_anew() {
    let mut world = long_world();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    lock_out(&mut bob);
    for _ in 0..9 {
        // Alice is away, and Bob's knocks are in vain.
        bob.group().knocked(vec![alice.account.client.clone()], world.ds.now(), &mut Vec::new());
        bob.save();
        world.ds.ahead += DAY;
    }
    knock(&world, &mut bob, &mut carol).unwrap();
    carol.drive_now(&mut world);
    bob.join(&world);
    bob.sync(&world.ds);
    world.ds.ahead += UNANSWERED_MS;
    assert!(!end_here(&mut bob, world.ds.now()), "he follows the group");
    lock_out(&mut bob);
    let _ = knock(&world, &mut bob, &mut alice);
    assert!(!end_here(&mut bob, world.ds.now()), "he has just begun to ask");
}

#[test]
fn who_leaves_a_group_that_it_cannot_follow_is_out_at_once() {
    let mut world = long_world();
    let [mut alice, mut bob, _carol] = trio(&mut world);
    bob.say("never sent");
    lock_out(&mut bob);
    assert!(!end_here(&mut bob, world.ds.now()));
    bob.wish(Wish::Leave);
    bob.restart();
    assert!(end_here(&mut bob, world.ds.now()));
    let (reasons, failed) = told(&bob);
    assert!(reasons.len() == 1 && reasons[0].contains("show this device as a member until"), "{reasons:?}");
    assert_eq!(failed, 1, "the message; he did leave");
    nothing_is_left(&world, &mut bob);
    alice.sync(&world.ds);
    assert!(alice.group().members().unwrap().iter().any(|member| member.client == bob.account.client));
    // A member that follows the group is told, and so does nothing end.
    alice.wish(Wish::Leave);
    assert!(!end_here(&mut alice, world.ds.now().plus_ms(100 * DAY)));
}
