//! Invitations to who has a history in the group that time has made void, or may yet.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::*;
use conclave_channel::{Entry, LogFault, law::DISPUTE_MS};
use conclave_engine::{
    group::{Group, Incoming, Status, SubmissionBody},
    intent::Wish,
    invitation::{Invitation, JoinError, load_key_packages},
    key_packages,
    outcome::{Event, ProcessError},
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
    assert!(events.is_empty(), "his clock alone ends no membership: {events:?}");
    // But the DS takes his key no more.
    assert!(dave.group().is_unproven());
    assert_eq!(dave.group().void_invitation(), [Event::InvitationAnnulled {}]);
    dave.save();

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

/// Dave has two invitations to epochs of one number: the first is of Alice's commit, which was annulled before he came, the other of Carol's,
/// with the same last resort. Gives where what Carol's epoch may read begins.
fn twice_invited(world: &mut World, dave: &mut Person) -> ([Person; 3], Vec<Incoming>) {
    let mut people = trio(world);
    let [alice, _, carol] = &mut people;
    let fresh = key_packages::generate(&dave.account, &dave.mls, dave.suite, &world.address_key, 0, true, NOW).unwrap();
    dave.store.apply(fresh.writes);
    let last_resort = fresh.last_resort.unwrap();
    let access = carol.group().access().unwrap();
    alice.wish(Wish::Add { key_packages: vec![last_resort.clone()] });
    alice.drive_now(world);
    dispute(world, &access, 0);
    world.ds.ahead += DISPUTE_MS + 10 * MINUTE;
    carol.sync(&world.ds);
    let read = carol.group().position().seq;
    carol.wish(Wish::Add { key_packages: vec![last_resort] });
    carol.drive_now(world);
    // The newest is tried first.
    let newest = world.ds.welcomes.pop().unwrap();
    dave.join(world);
    world.ds.welcomes.push(newest);
    (people, world.ds.after(read))
}

/// The key by which Alice invited Dave opens the epoch that Carol's commit began, and reads from there.
#[test]
fn who_is_given_entries_ahead_by_the_key_of_a_void_invitation_takes_the_next_one() {
    let mut world = World::new();
    let mut dave = world.person("dave");
    let ([mut alice, mut bob, mut carol], ahead) = twice_invited(&mut world, &mut dave);
    let again = accept(&world, &mut dave);
    assert!(matches!(again, Err(JoinError::Member)), "as long as the first holds: {again:?}");
    let place = dave.group().position();
    let done = dave.group().process(&ahead);
    assert_eq!((done.fault, done.events), (None, vec![]), "nobody is accused of what an annulment does");
    assert!(dave.group().wants_refetch() && dave.group().position() == place);
    let done = dave.group().process(&ahead);
    // And the keys that were to follow those of the last resort are not needed.
    assert!(matches!(done.events.as_slice(), [Event::InvitationAnnulled {}, Event::IntentFailed { .. }]));
    assert_eq!(done.fault, None);
    assert!(!dave.group().wants_refetch());
    dave.save();
    dave.restart();

    dave.group = Some(accept(&world, &mut dave).unwrap());
    dave.save();
    for person in [&mut alice, &mut bob, &mut carol, &mut dave] {
        person.sync(&world.ds);
    }
    agree(&mut [&mut alice, &mut bob, &mut carol, &mut dave]);
}

#[test]
fn a_server_that_gives_out_entries_ahead_and_then_those_before_them_is_found_out() {
    let mut world = World::new();
    let mut dave = world.person("dave");
    let ([mut alice, ..], ahead) = twice_invited(&mut world, &mut dave);
    let place = dave.group().position().seq;
    assert_eq!(dave.group().process(&ahead).fault, None);
    let honest = world.ds.after(place);
    let done = dave.group().process(&honest);
    let gap = ProcessError::Log(LogFault::Gap { expected: place.next(), found: ahead[0].seq });
    assert_eq!((done.fault, done.outcomes), (Some(gap), vec![]));
    // What it gives out now can be read all the same.
    assert!(!dave.group().wants_refetch());
    assert_eq!(dave.group().process(&honest).fault, None);
    // Nor is an invitation doubted where what follows is there, out of turn.
    dave.restart();
    let mut swapped = world.ds.after(dave.group().position().seq);
    swapped.swap(0, 1);
    for _ in 0..2 {
        assert!(dave.group().process(&swapped).fault.is_some());
        assert!(!dave.group().wants_refetch() && *dave.group().status() == Status::Active);
    }
    // And who may have read to the end is a member by no invitation that can be void.
    let place = alice.group().position().seq;
    let ahead: Vec<_> = world.ds.after(place).into_iter().skip(1).collect();
    assert!(alice.group().process(&ahead).fault.is_some());
}

/// The server may give out something else each time.
#[test]
fn other_entries_ahead_prove_nothing() {
    let mut world = World::new();
    let mut dave = world.person("dave");
    let (_, ahead) = twice_invited(&mut world, &mut dave);
    let other: Vec<_> = world.ds.after(dave.group().position().seq).into_iter().skip(1).collect();
    assert_ne!(other[0].seq, ahead[0].seq);
    for batch in [&ahead, &other, &ahead, &other] {
        let done = dave.group().process(batch);
        assert!(done.events.is_empty() && dave.group().wants_refetch(), "{:?}", done.events);
    }
    assert_eq!(*dave.group().status(), Status::Active);
}
