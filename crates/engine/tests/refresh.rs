//! Keys that time renews (RFC 9750, sections 6.2 and 8.2.2), and members that have yet to show themselves (section 3.7).

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use common::*;
use conclave_channel::law::DISPUTE_MS;
use conclave_engine::{
    group::{REFRESH_MS, REFRESH_SPREAD_MS},
    intent::Wish,
    outcome::Event,
};
use conclave_names::Epoch;

const HOUR: u64 = 3_600_000;

fn pass(world: &mut World, ms: u64) {
    world.ds.ahead += ms;
}

/// Who is a member that we know to take part, by user name.
fn confirmed(person: &mut Person) -> Vec<(String, bool)> {
    let members = person.group().members().unwrap();
    members.into_iter().map(|member| (member.user.name().to_owned(), member.confirmed)).collect()
}

fn own_updates(person: &Person) -> usize {
    let own = |event: &&Event| matches!(event, Event::Updated { by, .. } if *by == person.account.client);
    person.events.iter().filter(own).count()
}

#[test]
fn keys_are_renewed_after_a_week_and_a_commit_of_ours_counts() {
    let mut world = World::new();
    let (mut alice, mut bob) = (world.person("alice"), world.person("bob"));
    group_of(&mut world, &mut [&mut alice, &mut bob]);
    let due = |person: &mut Person| person.group().refresh_due().unwrap();
    for person in [&mut alice, &mut bob] {
        let wait = due(person).0 - NOW.0;
        assert!((REFRESH_MS..REFRESH_MS + REFRESH_SPREAD_MS + 2 * HOUR).contains(&wait), "{wait}");
        assert!(person.group().due(NOW) <= Some(due(person)));
    }
    assert_ne!(due(&mut alice), due(&mut bob), "not all at the same time");

    // Bob renews by himself in the middle: his turn moves, Alice's does not.
    let (hers, his) = (due(&mut alice), due(&mut bob));
    pass(&mut world, REFRESH_MS / 2);
    bob.wish(Wish::Update);
    bob.drive_now(&mut world);
    alice.drive_now(&mut world);
    assert_eq!(due(&mut alice), hers);
    assert!(due(&mut bob).0 - his.0 > REFRESH_MS / 2 - HOUR);

    pass(&mut world, REFRESH_MS / 2 + REFRESH_SPREAD_MS + HOUR);
    let authenticator = alice.group().epoch_authenticator().unwrap();
    let keys = alice.group().key_root().unwrap();
    for _ in 0..3 {
        alice.restart();
        alice.drive_now(&mut world);
        bob.drive_now(&mut world);
    }
    assert_eq!((own_updates(&alice), own_updates(&bob)), (1, 1), "Alice once, Bob not again");
    assert_ne!(alice.group().epoch_authenticator().unwrap(), authenticator);
    assert_ne!(alice.group().key_root().unwrap(), keys);
    agree(&mut [&mut alice, &mut bob]);
}

#[test]
fn a_renewed_certificate_goes_into_the_leaf_at_once() {
    let mut world = World::new();
    let (mut alice, mut bob) = (world.person("alice"), world.person("bob"));
    group_of(&mut world, &mut [&mut alice, &mut bob]);
    let mut account = bob.account.clone();
    let public = account.signature_key.verifying_key().to_bytes();
    let (start, end) = (NOW.plus_ms(1), NOW.plus_ms(86_400_000 * 20));
    account.certificate = world.ca.issue(&account.client, &public, &account.binding, start, end, random()).unwrap();
    bob.drive_now(&mut world);
    assert_eq!(own_updates(&bob), 0);
    bob.account = account.clone();
    bob.group().set_account(account);
    assert!(bob.group().refresh_due().unwrap() <= world.ds.now());
    for _ in 0..3 {
        bob.drive_now(&mut world);
    }
    assert_eq!(own_updates(&bob), 1);
    alice.drive_now(&mut world);
    agree(&mut [&mut alice, &mut bob]);
    bob.restart();
    assert!(bob.group().refresh_due().unwrap() > world.ds.now());
}

#[test]
fn what_is_annulled_renewed_nothing() {
    let mut world = World::new();
    let other = conclave_authentication::CertificateAuthority::generate(&domain(), NOW).unwrap();
    let mut alice = world.person_of("alice", &world.ca, &[&world.ca, &other]);
    let mut bob = world.person("bob");
    let mut dave = world.person_of("dave", &other, &[&world.ca, &other]);
    group_of(&mut world, &mut [&mut alice, &mut bob]);
    let before = alice.group().refresh_due().unwrap();
    pass(&mut world, HOUR * 24);
    // Bob cannot apply what adds Dave, and nobody else is there to acknowledge it.
    let package = dave.key_package(&world);
    alice.wish(Wish::Add { key_packages: vec![package] });
    alice.drive_now(&mut world);
    let after = alice.group().refresh_due().unwrap();
    assert!(after.0 - before.0 >= HOUR * 24);
    let update = alice.wish(Wish::Update);
    alice.drive_now(&mut world);
    bob.drive_now(&mut world);
    pass(&mut world, DISPUTE_MS + 60_001);
    bob.drive_now(&mut world);
    alice.restart();
    alice.sync(&world.ds);
    assert!(alice.events.iter().any(|event| matches!(event, Event::Annulled { .. })));
    // What its user wished is done again. Bob disputes that, too.
    assert!(alice.group().is_pending(update));
    let access = bob.group().access().unwrap();
    alice.drive_now(&mut world);
    assert!(alice.group().refresh_due().unwrap() > before);
    false_nack(&mut world, &access);
    // Clocks differ.
    pass(&mut world, DISPUTE_MS + 10 * 60_000);
    bob.say("nobody answers");
    bob.drive_now(&mut world);
    alice.sync(&world.ds);
    assert!(!alice.group().is_pending(update));
    assert_eq!(alice.group().refresh_due(), Some(before));
}

#[test]
fn a_silent_joiner_is_confirmed_by_its_first_heartbeat() {
    let mut world = World::new();
    let (mut alice, mut bob) = (world.person("alice"), world.person("bob"));
    group_of(&mut world, &mut [&mut alice, &mut bob]);
    pass(&mut world, 2 * HOUR);
    bob.drive_now(&mut world);
    alice.sync(&world.ds);
    assert!(confirmed(&mut alice).iter().all(|(_, confirmed)| *confirmed));
}

#[test]
fn a_member_is_confirmed_by_what_it_says_or_does() {
    let mut world = World::new();
    let [mut alice, mut bob, mut charlie] = ["alice", "bob", "charlie"].map(|name| world.person(name));
    group_of(&mut world, &mut [&mut alice, &mut bob, &mut charlie]);
    let of = |person: &mut Person, name: &str| confirmed(person).iter().find(|(user, _)| user == name).unwrap().1;
    // Each takes those for members whom it found; nobody doubts itself.
    assert!(of(&mut alice, "alice") && of(&mut bob, "bob") && of(&mut bob, "alice") && of(&mut bob, "charlie"));
    assert!(!of(&mut alice, "bob") && !of(&mut alice, "charlie"));
    alice.restart();
    assert!(!of(&mut alice, "bob") && !of(&mut alice, "charlie"));
    bob.say("here I am");
    bob.drive_now(&mut world);
    alice.drive_now(&mut world);
    assert!(of(&mut alice, "bob") && !of(&mut alice, "charlie"));
    charlie.wish(Wish::Leave);
    charlie.drive_now(&mut world);
    alice.sync(&world.ds);
    assert!(of(&mut alice, "charlie"), "who asks to leave was there");
    alice.drive(&mut world);
    assert_eq!(alice.group().epoch(), Epoch(2));
    // Added again, and doubted again, until it commits.
    let package = charlie.key_package(&world);
    charlie.sync(&world.ds);
    alice.wish(Wish::Add { key_packages: vec![package] });
    alice.drive_now(&mut world);
    charlie.join(&world);
    alice.restart();
    assert!(of(&mut alice, "bob") && !of(&mut alice, "charlie"));
    charlie.wish(Wish::Update);
    charlie.drive_now(&mut world);
    alice.drive_now(&mut world);
    alice.restart();
    assert!(of(&mut alice, "charlie"));
}
