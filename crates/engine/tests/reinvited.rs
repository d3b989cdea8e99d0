//! Invitations to who has a history in the group that time has made void, or may yet.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::*;
use conclave_channel::{Entry, law::DISPUTE_MS};
use conclave_engine::{
    group::{Group, Status, SubmissionBody},
    intent::Wish,
    invitation::{Invitation, JoinError, load_key_packages},
    key_packages,
    outcome::Event,
};

const MINUTE: u64 = 60_000;

fn add(world: &mut World, by: &mut Person, whom: &mut Person) {
    let key_packages = vec![whom.key_package(world)];
    by.wish(Wish::Add { key_packages });
    by.drive_now(world);
}

/// What comes of the newest invitation.
fn accept(world: &World, person: &mut Person) -> Result<Group, JoinError<std::convert::Infallible>> {
    load_key_packages(&person.mls, &person.store).unwrap();
    let ours = world.ds.welcomes.iter().rev();
    let mut ours =
        ours.filter_map(|welcome| Invitation::open(&person.account, &person.mls, &inbox_entry(welcome)).ok());
    let invitation = ours.next().unwrap();
    let tree = world.tree(&invitation);
    invitation.join(&person.account, &person.mls, &person.store, &tree, NOW, &mut person.events)
}

/// More was annulled than the commit that invited Dave: the epochs begin anew before it.
#[test]
fn whose_invitation_was_annulled_with_commits_before_it_can_be_invited_again() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    let mut dave = world.person("dave");
    let (before, access) = (carol.group().epoch(), carol.group().access().unwrap());
    alice.wish(Wish::Update);
    alice.drive_now(&mut world);
    add(&mut world, &mut alice, &mut dave);
    dave.join(&world);
    dispute(&mut world, &access, 0);
    dave.sync(&world.ds);
    world.ds.ahead += DISPUTE_MS + 10 * MINUTE;
    let now = world.ds.now();
    dave.group().caught_up(now).unwrap();
    let mut events = Vec::new();
    assert!(dave.group().next_submission(now, &mut events).unwrap().is_none());
    dave.save();
    assert!(events.contains(&Event::InvitationAnnulled {}), "{events:?}");

    add(&mut world, &mut carol, &mut dave);
    dave.join(&world);
    assert_eq!(dave.group().epoch().0, before.0 + 1);
    for person in [&mut alice, &mut bob, &mut carol, &mut dave] {
        person.sync(&world.ds);
    }
    agree(&mut [&mut alice, &mut bob, &mut carol, &mut dave]);
}

/// Nobody lets Dave read that the commit which removed him is void, as the one that invited him is too.
#[test]
fn who_was_invited_and_removed_by_annulled_commits_can_be_invited_again() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    let mut dave = world.person("dave");
    let access = carol.group().access().unwrap();
    add(&mut world, &mut alice, &mut dave);
    dave.join(&world);
    let users = vec![dave.user()];
    alice.wish(Wish::Remove { users });
    alice.drive_now(&mut world);
    dave.sync(&world.ds);
    assert_eq!(*dave.group().status(), Status::Removed);
    assert!(dave.group().is_unproven(), "if the DS does not let Dave read, what invited him is void");
    dispute(&mut world, &access, 0);
    world.ds.ahead += DISPUTE_MS + 10 * MINUTE;
    assert_eq!(dave.group().void_invitation(), [Event::InvitationAnnulled {}]);
    dave.save();
    assert!(!dave.group().may_return(), "there is nothing to read on for");

    add(&mut world, &mut carol, &mut dave);
    dave.join(&world);
    for person in [&mut alice, &mut bob, &mut carol, &mut dave] {
        person.sync(&world.ds);
    }
    agree(&mut [&mut alice, &mut bob, &mut carol, &mut dave]);
}

/// Alice's commit invites Dave, and nobody else can apply it. Dave removes Bob, who is stuck at it, and adds him again: if Bob gave
/// up for that what he has of the group, he would have nothing when Alice's commit is annulled.
#[test]
fn who_is_stuck_at_a_commit_that_may_be_annulled_gives_up_nothing_for_an_invitation() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    let mut dave = world.person("dave");
    let key_packages = vec![dave.key_package(&world)];
    alice.wish(Wish::Add { key_packages });
    let mut submission = alice.group().next_submission(world.ds.now(), &mut Vec::new()).unwrap().unwrap();
    alice.save();
    let SubmissionBody::Bundle(bundle) = &mut submission.body else { panic!() };
    let mut entry = Entry::parse(&bundle.entry).unwrap();
    entry.commit.as_mut().unwrap().members += 1;
    bundle.entry = entry.to_bytes().unwrap();
    world.ds.submit(&submission).unwrap();
    dave.join(&world);
    bob.sync(&world.ds);
    assert!(matches!(bob.group().status(), Status::Stuck { .. }));
    let users = vec![bob.user()];
    dave.wish(Wish::Remove { users });
    dave.drive_now(&mut world);
    add(&mut world, &mut dave, &mut bob);

    let joined = accept(&world, &mut bob);
    assert!(matches!(joined, Err(JoinError::Undecided)), "{joined:?}");
    bob.drive_now(&mut world);
    world.ds.ahead += DISPUTE_MS + 10 * MINUTE;
    carol.drive_now(&mut world);
    for person in [&mut alice, &mut bob, &mut carol] {
        person.sync(&world.ds);
        assert_eq!(*person.group().status(), Status::Active);
    }
    agree(&mut [&mut alice, &mut bob, &mut carol]);
    // What it waited for is void.
    let joined = accept(&world, &mut bob);
    assert!(matches!(joined, Err(JoinError::Member)), "{joined:?}");
}

/// The server shows Bob late that he was removed and added again: his invitation comes first, and must not be taken for a copy.
#[test]
fn an_invitation_waits_for_the_channel_that_it_is_ahead_of() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    let users = vec![bob.user()];
    alice.wish(Wish::Remove { users });
    alice.drive_now(&mut world);
    add(&mut world, &mut alice, &mut bob);
    let joined = accept(&world, &mut bob);
    assert!(matches!(joined, Err(JoinError::Undecided)), "{joined:?}");

    bob.sync(&world.ds);
    assert_eq!(*bob.group().status(), Status::Removed);
    bob.join(&world);
    for person in [&mut alice, &mut bob, &mut carol] {
        person.sync(&world.ds);
    }
    agree(&mut [&mut alice, &mut bob, &mut carol]);
}

/// Dave's invitation is annulled, and the DS says that what Dave would read of that is gone. The commit that adds him again begins an epoch
/// of the same number; the first invitation leads to no epoch at all.
#[test]
fn who_cannot_read_that_its_invitation_was_annulled_takes_up_the_next_one_and_not_the_first() {
    let mut world = World::new();
    let [mut alice, _bob, mut carol] = trio(&mut world);
    let mut dave = world.person("dave");
    let fresh = key_packages::generate(&dave.account, &dave.mls, dave.suite, &world.address_key, 0, true, NOW).unwrap();
    dave.store.apply(fresh.writes);
    let last_resort = fresh.last_resort.unwrap();
    let access = carol.group().access().unwrap();
    alice.wish(Wish::Add { key_packages: vec![last_resort.clone()] });
    alice.drive_now(&mut world);
    dave.join(&world);
    let first = dave.group().epoch();
    let mut events = Vec::new();
    dave.group().position_gone(None, &mut events);
    dave.save();
    assert!(matches!(dave.group().status(), Status::Stuck { .. }));
    dispute(&mut world, &access, 0);
    world.ds.ahead += DISPUTE_MS + 10 * MINUTE;
    let again = accept(&world, &mut dave);
    assert!(matches!(again, Err(JoinError::Old)), "it has been there: {again:?}");

    carol.wish(Wish::Add { key_packages: vec![last_resort] });
    carol.drive_now(&mut world);
    let group = accept(&world, &mut dave).unwrap();
    assert_eq!(group.epoch(), first, "the number begins anew");
    dave.group = Some(group);
    dave.save();
    for person in [&mut alice, &mut carol, &mut dave] {
        person.sync(&world.ds);
    }
    agree(&mut [&mut alice, &mut carol, &mut dave]);
    // Of both, also after the program began anew.
    dave.group().position_gone(None, &mut events);
    dave.save();
    dave.restart();
    let welcomes: Vec<_> = world.ds.welcomes.clone();
    for welcome in welcomes.iter().rev().take(2) {
        world.ds.welcomes = vec![welcome.clone()];
        let again = accept(&world, &mut dave);
        assert!(matches!(again, Err(JoinError::Old)), "{again:?}");
    }
}
