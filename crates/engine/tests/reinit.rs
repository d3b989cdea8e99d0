//! A group that is made anew (RFC 9420, section 11.2; RFC 9750, section 5.2.3): frozen, continued by whoever is there, and by one
//! only.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "common/anew.rs"]
mod anew;
mod common;

use anew::*;
use common::{Person, World, agree, false_nack, group_of, trio};
use conclave_authentication::CertificateAuthority;
use conclave_channel::{Body, Entry, EntryKind, law::DISPUTE_MS};
use conclave_engine::{
    group::{Incoming, KnockRefused, RejoinError, Status},
    intent::Wish,
    outcome::{Event, Outcome},
};
use conclave_mls::{
    components::HandshakeMode,
    credential::{Issuer, Issuers},
};
use mls_rs::CipherSuite;

fn failures(person: &Person) -> Vec<&str> {
    let mut reasons = Vec::new();
    for event in &person.events {
        if let Event::IntentFailed { reason, .. } = event {
            reasons.push(reason.as_str());
        }
    }
    reasons
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
    assert!([alice, bob, carol].iter_mut().all(|person| person.group().cipher_suite() == u16::from(NEW)));
}

#[test]
fn a_freeze_that_is_annulled_is_over_and_what_waited_is_said() {
    let mut world = World::new();
    let mut people = trio(&mut world);
    let access = people[2].group().access().unwrap();
    let before = people[0].group().epoch();
    let freeze = people[0].wish(reinit());
    people[0].drive_now(&mut world);
    for person in &mut people {
        person.sync(&world.ds);
        assert!(person.group().is_frozen());
    }
    people[1].say("while it was frozen");
    false_nack(&mut world, &access);
    for person in &mut people {
        person.sync(&world.ds);
    }
    // Nobody acknowledges it in time.
    world.ds.ahead += DISPUTE_MS + 600_000;
    for person in &mut people {
        person.sync(&world.ds);
        let mut events = Vec::new();
        person.group().next_submission(world.ds.now(), &mut events).unwrap();
        person.events.append(&mut events);
        person.save();
        person.restart();
        let group = person.group();
        assert_eq!((group.is_frozen(), group.epoch(), group.successor_due()), (false, before, None));
    }
    for _ in 0..2 {
        for person in &mut people {
            person.drive_now(&mut world);
        }
    }
    for person in &people {
        assert_eq!(person.texts(), ["while it was frozen"]);
    }
    // Who wanted it is told that it was not done: it was disputed.
    let told = |event: &Event| matches!(event, Event::IntentFailed { intent, .. } if *intent == freeze);
    assert!(people[0].events.iter().any(told), "{:?}", people[0].events);
    people[2].wish(Wish::Update);
    people[2].drive_now(&mut world);
    // It can be made anew later.
    people[1].wish(reinit());
    people[1].drive_now(&mut world);
    for person in &mut people {
        person.sync(&world.ds);
        assert!(person.group().is_frozen());
    }
    let [alice, bob, carol] = &mut people;
    agree(&mut [alice, bob, carol]);
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
    assert!(failed[0].1.contains("add them again"), "{failed:?}");
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

/// Dave cannot apply the commit that adds Eve, and has not come back when the group is made anew.
#[test]
fn a_member_that_was_locked_out_meanwhile_is_let_into_the_successor() {
    let mut world = World::new();
    world.until = common::NOW.plus_ms(4 * 365 * 86_400_000);
    let other = CertificateAuthority::generate(&common::domain(), common::NOW).unwrap();
    let both = [&world.ca, &other];
    let mut people: Vec<_> = ["alice", "bob", "carol"].map(|name| world.person_of(name, &world.ca, &both)).into();
    let (mut dave, mut eve) = (world.person("dave"), world.person_of("eve", &other, &both));
    let [alice, bob, carol] = people.as_mut_slice() else { panic!() };
    group_of(&mut world, &mut [alice, bob, carol, &mut dave]);
    let package = eve.key_package(&world);
    alice.wish(Wish::Add { key_packages: vec![package] });
    alice.drive_now(&mut world);
    eve.join(&world);
    for person in [&mut dave, bob, carol] {
        person.drive_now(&mut world);
    }
    dave.sync(&world.ds);
    assert!(dave.group().wants_rejoin());
    dave.say("to those whom Dave knows");
    dave.group().wish_text_to_all("to all").unwrap();
    let package = dave.key_package(&world);
    dave.wish(Wish::Add { key_packages: vec![package] });

    people.push(eve);
    people[0].wish(reinit());
    people[0].drive_now(&mut world);
    people[1].drive_now(&mut world);
    for person in &mut people {
        person.sync(&world.ds);
        assert!(person.group().is_frozen());
    }
    // In between, no commit from outside gets anybody back: none would go on by it.
    dave.sync(&world.ds);
    dave.mls.identities().set_issuers(issuers_of(&world, &other));
    assert_eq!(dave.begin_rejoin(&world, false), Err(RejoinError::NoGroupInfo));
    let early = knock(&world, &mut dave, &mut people[0]);
    let refused = people[0].group().answer(&early, world.ds.now());
    assert!(matches!(refused, Err(KnockRefused::Frozen)), "{refused:?}");
    let mut events = Vec::new();
    let alice = people[0].account.client.clone();
    dave.group().knocked(vec![alice], world.ds.now(), &mut events);
    dave.save();
    assert!(dave.group().knock_due(world.ds.now()).unwrap() > world.ds.now());

    dave.suite = NEW;
    let name = dave.group().name().clone();
    let mut all: Vec<_> = people.into_iter().chain([dave]).collect();
    make(&world, 0, &mut all);
    all[0].drive_now(&mut world);
    let mut dave = all.pop().unwrap();
    let done = dave.sync(&world.ds);
    assert!(matches!(done.outcomes.last(), Some((_, Outcome::Unfollowed))), "{done:?}");
    let told = |event: &&Event| matches!(event, Event::Stuck { reason, .. } if reason.contains("was made anew"));
    assert_eq!(done.events.iter().filter(told).count(), 1, "{done:?}");
    dave.restart();
    dave.mls.identities().set_issuers(issuers_of(&world, &other));
    assert_eq!(dave.begin_rejoin(&world, false), Err(RejoinError::MadeAnew));
    assert!(dave.group().knock_due(world.ds.now()).unwrap() <= world.ds.now(), "others may help now");

    for person in &mut all {
        person.sync(&world.ds);
        go_on(person, &world);
        person.restart();
    }
    found(&mut world, &mut all[0]);
    dave.suite = CipherSuite::from(dave.group().cipher_suite());
    for person in &mut all {
        person.suite = dave.suite;
    }
    // Eve he does not know.
    let knocks: Vec<_> = all.iter_mut().take(3).map(|person| knock(&world, &mut dave, person)).collect();
    dave.suite = NEW;
    assert_eq!(knocks[1].group(), Some(&name));
    // The successor is of another suite.
    assert!(matches!(all[1].group().answer(&knocks[1], world.ds.now()), Err(KnockRefused::KeyPackage(_))));
    let package = dave.key_package(&world);
    let fresh = knocks[1].with_key_package(&all[1].mls, package, world.ds.now()).unwrap();
    all[1].group().answer(&fresh, world.ds.now()).unwrap();
    all[1].drive_now(&mut world);
    // The others find it done, also after a restart.
    all[3].sync(&world.ds);
    for at in [0, 2] {
        all[at].sync(&world.ds);
        all[at].restart();
        let refused = all[at].group().would_answer(&knocks[at], world.ds.now());
        assert!(matches!(refused, Err(KnockRefused::Back)), "{refused:?}");
    }
    let mut old = dave.group.take().unwrap();
    dave.join(&world);
    let mut events = Vec::new();
    let [bob, mallory] = [&all[1], &world.person("mallory")].map(|person| person.account.client.clone());
    let next = dave.group.as_mut().unwrap();
    assert!(!old.is_continued_by(next, &mallory) && old.is_continued_by(next, &bob));
    old.continued_by(next, world.ds.now(), &mut events);
    let mut writes = old.take_writes().unwrap();
    writes.extend(next.take_writes().unwrap());
    dave.store.apply(writes);
    assert!(events.contains(&Event::Succeeded { group: dave.group().name().clone() }));
    let failed = |event: &&Event| matches!(event, Event::IntentFailed { .. });
    assert_eq!(events.iter().filter(failed).count(), 1, "nobody is added: {events:?}");
    let listed = conclave_engine::group::list(&dave.store).unwrap();
    let of_old = listed.iter().find(|listed| listed.name == name).unwrap();
    assert_eq!((&of_old.status, of_old.successor.as_ref()), (&Status::Removed, Some(dave.group().name())));
    dave.restart();
    dave.mls.identities().set_issuers(issuers_of(&world, &other));
    for _ in 0..2 {
        dave.drive_now(&mut world);
    }
    // Eve is nobody that he knew when he wrote.
    assert_eq!(dave.events.iter().filter(failed).count(), 1, "{:?}", dave.events);
    for person in &mut all {
        person.sync(&world.ds);
        assert_eq!(person.texts(), ["to all"]);
    }
    all.push(dave);
    agree(&mut all.iter_mut().collect::<Vec<_>>());
}

fn issuers_of(world: &World, other: &CertificateAuthority) -> Issuers {
    [world.ca.certificate(), other.certificate()].into_iter().map(|der| Issuer::parse(der).unwrap()).collect()
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
    // It is read once more, in case it was changed on its way.
    assert!(matches!(done.outcomes.as_slice(), [(at, Outcome::Rejected(_)), (_, Outcome::Rejected(_))] if at.0 == seq));
    assert!(!people[0].group().has_successor());
    make(&world, 0, &mut people);
    people[0].drive(&mut world);
    all_go_on(&mut world, &mut people);
}

/// Alice and Bob, who make a group anew that has 100 more members, and Carol, who was away since before it was frozen.
fn successor_of_many() -> (World, Vec<Person>) {
    let mut world = World::new();
    world.until = common::NOW.plus_ms(4 * 365 * 86_400_000);
    let names = ["alice", "bob", "carol"].map(str::to_owned).into_iter();
    let names = names.chain((0..100).map(|n| format!("member{n}")));
    let mut people: Vec<_> = names.map(|name| world.person(&name)).collect();
    let [alice, bob, carol] = &mut people[..3] else { panic!() };
    group_of(&mut world, &mut [alice, bob, carol]);
    let key_packages = people[3..].iter_mut().map(|person| person.key_package(&world)).collect();
    people[0].wish(Wish::Add { key_packages });
    people[0].drive(&mut world);
    for person in &mut people[..3] {
        person.sync(&world.ds);
    }
    freeze(&mut world, &mut people[..2], reinit());
    make(&world, 0, &mut people);
    people[0].drive(&mut world);
    people[1].sync(&world.ds);
    assert!(people[..2].iter_mut().all(|person| person.group().has_successor()));
    people.truncate(3);
    (world, people)
}

/// What a shell fetches for somebody: the blobs that it needs as far as it knows before it processes any of it.
fn page(world: &World, person: &mut Person) -> Vec<Incoming> {
    let mut page = world.ds.after(person.group().position().seq);
    for incoming in &mut page {
        incoming.blob = incoming.blob.take().filter(|_| person.group().wants_blob(&incoming.entry));
    }
    page
}

#[test]
fn who_reads_the_freezing_commit_and_a_large_successor_in_one_page_goes_on_with_the_others() {
    let (world, mut people) = successor_of_many();
    let [alice, bob, carol] = people.as_mut_slice() else { panic!() };
    let page = page(&world, carol);
    let staged = |incoming: &&Incoming| {
        let entry = Entry::parse(&incoming.entry).unwrap();
        entry.kind == EntryKind::Successor && matches!(entry.body, Body::Staged { .. })
    };
    assert!(!carol.group().is_frozen() && page.iter().filter(staged).count() == 1, "it is to be large");
    carol.group().process(&page);
    carol.save();
    assert!(carol.group().has_successor());
    for person in [&mut *alice, &mut *bob, &mut *carol] {
        go_on(person, &world);
    }
    assert_eq!(carol.group().key_root().unwrap(), alice.group().key_root().unwrap());
    assert_eq!(carol.group().name(), bob.group().name());
}

#[test]
fn a_successor_whose_blob_did_not_come_is_read_once_more() {
    let (world, mut people) = successor_of_many();
    let carol = &mut people[2];
    let mut without = world.ds.after(carol.group().position().seq);
    without.last_mut().unwrap().blob = None;
    carol.group().process(&without);
    assert!(carol.group().is_frozen() && !carol.group().has_successor() && carol.group().wants_refetch());
    let refused = |event: &Event| matches!(event, Event::Refused { .. });
    carol.sync(&world.ds);
    assert!(carol.group().has_successor() && !carol.events.iter().any(refused));
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

#[test]
fn what_comes_after_the_successor_counts_for_nobody_and_is_said_again_there() {
    let mut world = World::new();
    let mut people = members(&mut world);
    people[1].say("late");
    let now = world.ds.now();
    let late = people[1].group().next_submission(now, &mut Vec::new()).unwrap().unwrap();
    people[1].save();
    freeze(&mut world, &mut people, reinit());
    make(&world, 0, &mut people);
    people[0].drive(&mut world);
    world.ds.submit(&late).unwrap();
    // Alice goes on before it comes, Bob and Carol read both at once.
    all_go_on(&mut world, &mut people);
    assert!(people.iter().all(|person| person.texts().is_empty()));
    assert_eq!(people[1].group().intents().count(), 1);
    people[1].drive(&mut world);
    for person in &mut people {
        person.sync(&world.ds);
        assert_eq!(person.texts(), ["late"]);
    }
}

#[test]
fn what_cannot_go_over_is_told() {
    let mut world = World::new();
    let mut people = members(&mut world);
    // Bob has not seen that Dora was added.
    people[1].say("not for Dora");
    let mut dora = world.person("dora");
    let package = dora.key_package(&world);
    people[0].wish(Wish::Add { key_packages: vec![package] });
    people[0].drive(&mut world);
    dora.join(&world);
    people.push(dora);
    freeze(&mut world, &mut people, reinit());
    let mut eve = world.person("eve");
    let package = eve.key_package(&world);
    people[1].wish(Wish::Add { key_packages: vec![package] });
    people[1].wish(reinit());
    people[1].wish(Wish::Update);
    make(&world, 0, &mut people);
    people[0].drive(&mut world);
    all_go_on(&mut world, &mut people);
    let told = failures(&people[1]);
    let reasons = ["members joined since", "made anew with cipher suite", "another member has made the group anew"];
    assert!(told.len() == 3 && told.iter().zip(reasons).all(|(told, reason)| told.contains(reason)), "{told:?}");
    let noted = people[1].store.messages.iter().filter(|stored| {
        stored.kind == conclave_engine::group::KIND_EVENT
            && stored.body.windows(13).any(|word| word == b"intent_failed")
    });
    assert_eq!(noted.count(), 3, "who dies now is told all the same");
    assert_eq!(people[1].group().intents().count(), 0);
    assert!(people.iter().all(|person| person.texts().is_empty()));
}

#[test]
fn whoever_was_to_be_added_is_added_to_a_successor_of_the_same_suite() {
    let mut world = World::new();
    let mut people = members(&mut world);
    freeze(&mut world, &mut people, Wish::ReInit { cipher_suite: 1, visible: false });
    let mut eve = world.person("eve");
    let package = eve.key_package(&world);
    people[1].wish(Wish::Add { key_packages: vec![package] });
    make(&world, 0, &mut people);
    people[0].drive(&mut world);
    all_go_on(&mut world, &mut people);
    people[1].drive(&mut world);
    eve.join(&world);
    eve.sync(&world.ds);
    for person in &mut people {
        person.sync(&world.ds);
    }
    people.push(eve);
    agree(&mut people.iter_mut().collect::<Vec<_>>());
    assert!(failures(&people[1]).is_empty());
}

/// Alice and Eve in a frozen group. Who could say that the commit applies that added Eve is gone, so time alone settles it.
fn frozen_with_nobody_to_acknowledge(world: &mut World) -> Vec<Person> {
    let mut people = members(world);
    let mut eve = world.person("eve");
    let package = eve.key_package(world);
    people[0].wish(Wish::Add { key_packages: vec![package] });
    people[0].drive(world);
    let users = people[1..].iter().map(Person::user).collect();
    people[0].wish(Wish::Remove { users });
    people[0].drive(world);
    eve.join(world);
    people[0].wish(reinit());
    people[0].drive(world);
    people.truncate(1);
    people.push(eve);
    for person in &mut people {
        person.drive(world);
        assert!(person.group().is_frozen());
        assert_ne!(person.group().settled_epoch(), person.group().epoch());
    }
    people
}

#[test]
fn where_nobody_can_acknowledge_the_group_goes_on_after_a_week() {
    let mut world = World::new();
    let mut people = frozen_with_nobody_to_acknowledge(&mut world);
    let due = people[0].group().successor_due().unwrap();
    let packages_before = packages(&world, 0, &mut people);
    let now = world.ds.now().plus_ms(WEEK);
    assert!(due > now && people[0].group().make_successor(&packages_before, now).is_err(), "not yet");
    world.ds.ahead += WEEK + 3_600_000;
    assert!(due < world.ds.now());
    make(&world, 0, &mut people);
    people[0].drive_now(&mut world);
    all_go_on(&mut world, &mut people);
}

#[test]
fn a_successor_before_the_freezing_commit_is_settled_counts_for_nobody() {
    let mut world = World::new();
    let mut people = frozen_with_nobody_to_acknowledge(&mut world);
    // Alice's clock is a week ahead.
    let packages = packages(&world, 0, &mut people);
    let ahead = world.ds.now().plus_ms(2 * WEEK);
    people[0].group().make_successor(&packages, ahead).unwrap();
    people[0].save();
    people[0].drive(&mut world);
    for person in &mut people {
        person.sync(&world.ds);
        assert!(person.events.iter().any(|event| matches!(event, Event::Refused { .. })));
        assert!(!person.group().has_successor() && person.group().intents().count() == 0);
    }
    world.ds.ahead += WEEK + 3_600_000;
    make(&world, 0, &mut people);
    people[0].drive_now(&mut world);
    all_go_on(&mut world, &mut people);
}

#[test]
fn who_was_removed_from_the_successor_and_added_again_stays_where_it_is() {
    let mut world = World::new();
    let mut people = frozen(&mut world);
    people[1].say("to nobody");
    make(&world, 0, &mut people);
    people[0].drive(&mut world);
    for person in &mut people {
        person.sync(&world.ds);
    }
    go_on(&mut people[0], &world);
    found(&mut world, &mut people[0]);
    let users = vec![people[1].user()];
    people[0].wish(Wish::Remove { users });
    people[0].drive(&mut world);
    people[1].suite = NEW;
    let package = people[1].key_package(&world);
    people[0].wish(Wish::Add { key_packages: vec![package] });
    people[0].drive(&mut world);

    let mut old = people[1].group.take().unwrap();
    people[1].join(&world);
    let epoch = people[1].group().epoch();
    let bob = &mut people[1];
    assert!(old.succeed(&bob.store, world.ds.now(), &mut bob.events).unwrap().is_none());
    bob.store.apply(old.take_writes().unwrap());
    assert!(failures(bob).iter().any(|reason| reason.contains("was not sent")));
    bob.restart();
    assert_eq!(bob.group().epoch(), epoch);
    bob.say("back");
    bob.drive(&mut world);
    let listed = conclave_engine::group::list(&bob.store).unwrap();
    assert!(
        listed.iter().any(|group| group.name == *old.name() && group.successor.as_ref() == Some(bob.group().name()))
    );
    people[0].sync(&world.ds);
    assert_eq!(people[0].texts(), ["back"]);
    let [alice, bob, _] = people.as_mut_slice() else { panic!() };
    agree(&mut [alice, bob]);
}
