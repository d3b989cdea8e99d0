//! Keys that time renews (RFC 9750, sections 6.2 and 8.2.2), and members that have yet to show themselves (section 3.7).

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use common::*;
use conclave_authentication::CertificateAuthority;
use conclave_channel::law::DISPUTE_MS;
use conclave_engine::{
    group::{REFRESH_MS, REFRESH_SPREAD_MS, REST_MS, REST_MS_MOST},
    intent::Wish,
    outcome::Event,
};
use conclave_names::{Epoch, Timestamp};
use conclave_protocol::{Code, Refusal};

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
    let other = CertificateAuthority::generate(&domain(), NOW).unwrap();
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

/// Does all that is due by itself until a time, as a listener does; the server refuses it for good. Gives how often it was asked.
fn in_vain(world: &World, person: &mut Person, until: Timestamp) -> usize {
    let (mut now, mut asked, mut turns) = (world.ds.now(), 0, 0);
    while now <= until {
        turns += 1;
        assert!(turns < 100, "it turns in circles: {asked} {:?} {now} {:?}", person.group().due(now), person.group());
        person.group().caught_up(now).unwrap();
        let submission = person.group().next_submission(now, &mut Vec::new()).unwrap();
        if let Some(submission) = submission {
            asked += 1;
            let refusal = Refusal::new(Code::EntryInvalid, "not this one");
            person.group().refused(submission.intent, &refusal, &mut Vec::new()).unwrap();
            person.save();
            if asked % 3 == 1 {
                person.restart();
            }
        }
        person.save();
        let due = person.group().due(now);
        now = due.map_or(until.plus_ms(1), |due| due.max(now.plus_ms(1)));
    }
    asked
}

#[test]
fn a_renewal_that_is_refused_for_good_is_tried_ever_more_seldom() {
    let mut world = World::new();
    let (mut alice, mut bob) = (world.person("alice"), world.person("bob"));
    group_of(&mut world, &mut [&mut alice, &mut bob]);
    bob.drive_now(&mut world);
    pass(&mut world, REFRESH_MS + REFRESH_SPREAD_MS + HOUR);
    // Whatever it was that was to be acknowledged.
    bob.say("hello");
    bob.drive_now(&mut world);
    alice.drive_now(&mut world);
    alice.sync(&world.ds);
    assert_eq!(own_updates(&alice), 1);
    // A new certificate is to go into her leaf at once, whatever the time.
    rotate(&mut world, &mut alice);
    alice.sync(&world.ds);
    let start = world.ds.now();
    let asked = in_vain(&world, &mut alice, start.plus_ms(HOUR));
    assert!((4..=9).contains(&asked), "{asked} in an hour");
    pass(&mut world, HOUR);
    let asked = in_vain(&world, &mut alice, start.plus_ms(48 * HOUR));
    assert!((3..=12).contains(&asked), "{asked} in two days");
    // Never is it longer than a day.
    pass(&mut world, 48 * HOUR);
    alice.sync(&world.ds);
    let now = world.ds.now();
    let due = alice.group().refresh_due().unwrap();
    assert!(due > now && due <= now.plus_ms(REST_MS_MOST), "{due:?} at {now:?}");
    // What its user wishes does not wait for that, and a commit that is taken ends it.
    let wish = alice.wish(Wish::Update);
    alice.drive_now(&mut world);
    assert!(!alice.group().is_pending(wish));
    bob.sync(&world.ds);
    agree(&mut [&mut alice, &mut bob]);
    rotate(&mut world, &mut alice);
    alice.restart();
    assert!(alice.group().refresh_due().unwrap() <= world.ds.now(), "the pause is over");
    let now = world.ds.now();
    in_vain(&world, &mut alice, now.plus_ms(1000));
    let due = alice.group().refresh_due().unwrap();
    assert!(due >= now.plus_ms(REST_MS) && due <= now.plus_ms(REST_MS + 1000), "and the first is short again");
}

/// A new certificate by an authority for somebody's present key.
fn certify(world: &World, person: &mut Person, ca: &CertificateAuthority) {
    let mut account = person.account.clone();
    let public = account.signature_key.verifying_key().to_bytes();
    let (from, until) = (world.ds.now(), world.until);
    account.certificate = ca.issue(&account.client, &public, &account.binding, from, until, random()).unwrap();
    person.account = account.clone();
    person.group().set_account(account);
}

#[test]
fn a_renewal_that_members_dispute_is_tried_ever_more_seldom() {
    let mut world = World::new();
    let other = CertificateAuthority::generate(&domain(), NOW).unwrap();
    let mut alice = world.person_of("alice", &world.ca, &[&world.ca, &other]);
    let (mut bob, mut carol) = (world.person("bob"), world.person("carol"));
    group_of(&mut world, &mut [&mut alice, &mut bob, &mut carol]);
    for person in [&mut alice, &mut bob, &mut carol] {
        person.drive_now(&mut world);
    }
    // Nobody else learns of the authority that renews her certificate.
    certify(&world, &mut alice, &other);
    let annulled =
        |person: &Person| person.events.iter().filter(|event| matches!(event, Event::Annulled { .. })).count();
    let (start, mut pauses) = (world.ds.now(), Vec::new());
    while world.ds.now() < start.plus_ms(24 * HOUR) {
        assert!(pauses.len() < 50, "the group is in dispute all the time: {pauses:?}");
        let before = alice.group().epoch();
        alice.drive_now(&mut world);
        assert_eq!(alice.group().epoch(), before.next(), "it was due");
        bob.drive_now(&mut world);
        carol.drive_now(&mut world);
        pass(&mut world, DISPUTE_MS + 60_001);
        bob.say("back again");
        bob.drive_now(&mut world);
        carol.drive_now(&mut world);
        alice.sync(&world.ds);
        alice.restart();
        assert_eq!(annulled(&alice), pauses.len() + 1, "nobody could apply it");
        let now = world.ds.now();
        let due = alice.group().refresh_due().unwrap();
        assert!(due > now, "not at once");
        alice.say("it does not keep me from speaking");
        alice.drive_at(&mut world, now);
        assert_eq!(alice.group().refresh_due(), Some(due));
        pauses.push((due.0 - now.0).div_ceil(HOUR));
        pass(&mut world, due.0.saturating_sub(now.0));
    }
    assert_eq!(pauses, [1, 1, 2, 4, 8, 16]);
    assert_eq!(bob.texts().iter().filter(|text| *text == "it does not keep me from speaking").count(), 5);

    // Now they learn, and her renewal stands: the next pause is a short one.
    for person in [&mut bob, &mut carol] {
        person.account.issuers.push(other.certificate().to_vec());
        person.mls.identities().set_issuers(person.account.parsed_issuers());
    }
    let before = annulled(&alice);
    alice.drive_now(&mut world);
    for person in [&mut bob, &mut carol] {
        person.drive_now(&mut world);
    }
    pass(&mut world, 2 * HOUR);
    for person in [&mut bob, &mut carol, &mut alice] {
        person.drive_now(&mut world);
    }
    assert_eq!(annulled(&alice), before);
    agree(&mut [&mut alice, &mut bob, &mut carol]);
    alice.restart();
    certify(&world, &mut alice, &other);
    assert!(alice.group().refresh_due().unwrap() <= world.ds.now(), "the pause is over");
}

#[test]
fn a_clock_that_was_ahead_keeps_no_renewal_back() {
    let mut world = World::new();
    let (mut alice, mut bob) = (world.person("alice"), world.person("bob"));
    group_of(&mut world, &mut [&mut alice, &mut bob]);
    rotate(&mut world, &mut alice);
    alice.sync(&world.ds);
    let ahead = world.ds.now().plus_ms(365 * 24 * HOUR);
    let submission = alice.group().next_submission(ahead, &mut Vec::new()).unwrap().unwrap();
    let refusal = Refusal::new(Code::EntryInvalid, "not this one");
    alice.group().refused(submission.intent, &refusal, &mut Vec::new()).unwrap();
    alice.save();
    alice.restart();
    assert!(alice.group().refresh_due().unwrap() > ahead);
    alice.drive_now(&mut world);
    assert_eq!(own_updates(&alice), 1);
}

#[test]
fn a_heartbeat_that_is_refused_for_good_is_not_repeated_at_once() {
    let mut world = World::new();
    let (mut alice, mut bob) = (world.person("alice"), world.person("bob"));
    group_of(&mut world, &mut [&mut alice, &mut bob]);
    alice.say("hello");
    alice.drive_now(&mut world);
    bob.sync(&world.ds);
    pass(&mut world, 3 * HOUR);
    bob.sync(&world.ds);
    let start = world.ds.now();
    let asked = in_vain(&world, &mut bob, start.plus_ms(24 * HOUR));
    assert!(asked < 15, "{asked}");
}
