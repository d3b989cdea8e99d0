//! Members that cannot follow the group any more come back by themselves (RFC 9750, sections 5.3 and 6.6).

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::*;
use conclave_authentication::CertificateAuthority;
use conclave_channel::Entry;
use conclave_engine::{
    group::{RejoinError, Status, SubmissionBody},
    intent::Wish,
    outcome::Event,
};
use conclave_mls::credential::{Issuer, Issuers};
use conclave_names::{Epoch, Seq};

/// Alice and Carol believe two authorities; Bob and Erin learn of the second too late, so that they cannot apply a commit that
/// adds Dave.
struct Cast {
    world: World,
    other: CertificateAuthority,
    alice: Person,
    bob: Person,
    carol: Person,
    erin: Person,
    dave: Person,
}

fn cast() -> Cast {
    let mut world = World::new();
    let other = CertificateAuthority::generate(&domain(), NOW).unwrap();
    let both = [&world.ca, &other];
    let mut alice = world.person_of("alice", &world.ca, &both);
    let mut carol = world.person_of("carol", &world.ca, &both);
    let (mut bob, mut erin) = (world.person("bob"), world.person("erin"));
    let dave = world.person_of("dave", &other, &both);
    group_of(&mut world, &mut [&mut alice, &mut bob, &mut carol, &mut erin]);
    let mut cast = Cast { world, other, alice, bob, carol, erin, dave };
    let package = cast.dave.key_package(&cast.world);
    cast.alice.wish(Wish::Add { key_packages: vec![package] });
    cast.alice.drive_now(&mut cast.world);
    cast.alice.say("welcome, Dave");
    cast.alice.drive_now(&mut cast.world);
    cast.dave.join(&cast.world);
    // Bob and Erin dispute it; Carol says that she applied it: it stands.
    for person in [&mut cast.bob, &mut cast.erin, &mut cast.carol] {
        person.drive_now(&mut cast.world);
    }
    cast.bob.sync(&cast.world.ds);
    cast.erin.sync(&cast.world.ds);
    cast.dave.sync(&cast.world.ds);
    assert!(cast.bob.group().wants_rejoin() && cast.erin.group().wants_rejoin());
    cast
}

impl Cast {
    /// Bob and Erin hear of the second authority.
    fn learn(&mut self) {
        for person in [&mut self.bob, &mut self.erin] {
            person.account.issuers.push(self.other.certificate().to_vec());
            learn(person);
        }
    }

    fn everybody_reads(&mut self) {
        for person in [&mut self.alice, &mut self.bob, &mut self.carol, &mut self.erin, &mut self.dave] {
            person.sync(&self.world.ds);
        }
    }
}

fn learn(person: &mut Person) {
    let issuers: Issuers = person.account.issuers.iter().map(|der| Issuer::parse(der).unwrap()).collect();
    person.mls.identities().set_issuers(issuers);
}

fn rejoined(person: &Person) -> usize {
    person.events.iter().filter(|event| matches!(event, Event::Rejoined { .. })).count()
}

#[test]
fn a_victim_comes_back_and_everybody_agrees() {
    let mut cast = cast();
    // As long as the authority is unknown to him, no way leads back, and nothing changes.
    assert!(matches!(cast.bob.begin_rejoin(&cast.world, false), Err(RejoinError::Mls(_))));
    assert!(cast.bob.group().wants_rejoin());
    cast.learn();
    cast.bob.begin_rejoin(&cast.world, false).unwrap();
    assert!(!cast.bob.group().wants_rejoin(), "it is under way");
    cast.bob.drive_now(&mut cast.world);
    assert_eq!(*cast.bob.group().status(), Status::Active);
    assert_eq!(cast.bob.group().epoch(), Epoch(3));
    let came = Event::CameMeanwhile { members: vec![cast.dave.account.client.clone()], epoch: Epoch(3) };
    assert!(cast.bob.events.contains(&came), "{:?}", cast.bob.events);
    assert!(!cast.bob.events.iter().any(|event| matches!(event, Event::WentMeanwhile { .. })));
    assert!(
        cast.bob.events.iter().any(|event| matches!(event, Event::Missed { from: Seq(2), .. })),
        "{:?}",
        cast.bob.events
    );
    cast.alice.say("good to see you");
    cast.alice.drive_now(&mut cast.world);
    cast.bob.say("here I am");
    cast.bob.drive_now(&mut cast.world);
    cast.everybody_reads();
    agree(&mut [&mut cast.alice, &mut cast.bob, &mut cast.carol, &mut cast.dave]);
    assert!(!cast.bob.texts().contains(&"welcome, Dave".to_owned()), "that was before");
    assert_eq!(cast.bob.texts(), ["good to see you", "here I am"]);
    for person in [&cast.alice, &cast.bob, &cast.carol, &cast.dave] {
        assert_eq!(rejoined(person), 1);
        assert!(!person.events.iter().any(|event| matches!(event, Event::LogsDiffer { .. })));
    }
    // He is a member like all: he commits, and is removed.
    cast.bob.wish(Wish::Update);
    cast.bob.drive_now(&mut cast.world);
    let users = vec![cast.bob.user()];
    cast.carol.wish(Wish::Remove { users });
    cast.carol.drive_now(&mut cast.world);
    cast.everybody_reads();
    agree(&mut [&mut cast.alice, &mut cast.carol, &mut cast.dave]);
    assert_eq!(*cast.bob.group().status(), Status::Removed);
}

#[test]
fn two_victims_come_back_one_after_the_other_and_a_lost_race_is_run_again() {
    let mut cast = cast();
    cast.learn();
    cast.bob.begin_rejoin(&cast.world, false).unwrap();
    cast.erin.begin_rejoin(&cast.world, false).unwrap();
    cast.bob.drive_now(&mut cast.world);
    // Erin's is of no use any more; that it comes to nothing costs her nothing.
    cast.erin.drive_now(&mut cast.world);
    assert!(cast.erin.group().wants_rejoin());
    cast.erin.begin_rejoin(&cast.world, false).unwrap();
    cast.erin.drive_now(&mut cast.world);
    cast.everybody_reads();
    agree(&mut [&mut cast.alice, &mut cast.bob, &mut cast.carol, &mut cast.erin, &mut cast.dave]);
    assert_eq!(cast.alice.group().epoch(), Epoch(4));
    cast.erin.say("all together");
    cast.erin.drive_now(&mut cast.world);
    cast.everybody_reads();
    for person in [&cast.alice, &cast.bob, &cast.carol, &cast.dave] {
        assert_eq!(person.texts().last().unwrap(), "all together");
    }
}

#[test]
fn a_crash_at_any_moment_changes_nothing_of_that() {
    let mut cast = cast();
    cast.learn();
    let restart = |person: &mut Person| {
        person.restart();
        learn(person);
    };
    // What he wished to say before he was lost is said after he is back.
    restart(&mut cast.bob);
    cast.bob.begin_rejoin(&cast.world, false).unwrap();
    restart(&mut cast.bob);
    let now = cast.world.ds.now();
    let submission = cast.bob.group().next_submission(now, &mut Vec::new()).unwrap().unwrap();
    cast.bob.save();
    assert!(submission.join.is_some(), "the DS is not to learn who comes back");
    // The reply is lost, and so is what was not durable.
    cast.world.ds.submit(&submission).unwrap();
    restart(&mut cast.bob);
    let again = cast.bob.group().next_submission(now, &mut Vec::new()).unwrap().unwrap();
    assert_eq!(format!("{:?}", again.body), format!("{:?}", submission.body));
    cast.bob.sync(&cast.world.ds);
    restart(&mut cast.bob);
    assert_eq!(*cast.bob.group().status(), Status::Active);
    cast.bob.say("back");
    restart(&mut cast.bob);
    cast.bob.drive_now(&mut cast.world);
    cast.everybody_reads();
    agree(&mut [&mut cast.alice, &mut cast.bob, &mut cast.carol, &mut cast.dave]);
    assert_eq!(cast.alice.texts().last().unwrap(), "back");
}

#[test]
fn what_the_server_serves_is_checked() {
    let mut cast = cast();
    cast.learn();
    let genuine = cast.world.ds.group_info.clone();
    let refused = |cast: &mut Cast, epoch: Epoch, bytes: Vec<u8>| {
        cast.world.ds.group_info = (epoch, bytes);
        let error = cast.bob.begin_rejoin(&cast.world, false).unwrap_err();
        assert!(cast.bob.group().wants_rejoin(), "nothing has changed");
        error
    };
    let (epoch, bytes) = genuine.clone();
    assert_eq!(refused(&mut cast, epoch, Vec::new()), RejoinError::NoGroupInfo);
    assert_eq!(refused(&mut cast, Epoch(1), bytes.clone()), RejoinError::Sealed, "it is bound to its epoch");
    for at in [0, 5, bytes.len() / 2, bytes.len() - 1] {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert_eq!(refused(&mut cast, epoch, changed), RejoinError::Sealed, "byte {at}");
    }
    cast.world.ds.group_info = genuine.clone();
    // One that was good once: others have committed since.
    cast.alice.wish(Wish::Update);
    cast.alice.drive_now(&mut cast.world);
    cast.bob.sync(&cast.world.ds);
    assert_eq!(
        refused(&mut cast, genuine.0, genuine.1),
        RejoinError::Epoch { given: Epoch(2), current: Epoch(3) },
        "no way back into the past"
    );
}

#[test]
fn after_a_removal_only_a_member_can_help() {
    let mut cast = cast();
    cast.learn();
    let users = vec![cast.erin.user()];
    cast.alice.wish(Wish::Remove { users });
    cast.alice.drive_now(&mut cast.world);
    cast.bob.sync(&cast.world.ds);
    assert_eq!(cast.bob.begin_rejoin(&cast.world, false), Err(RejoinError::Sealed));
    assert!(cast.bob.group().wants_rejoin());
}

#[test]
fn a_stranger_who_alone_vouches_for_the_members_is_doubted() {
    let mut cast = cast();
    cast.learn();
    // Dave, whose joining Bob could not see, makes the newest GroupInfo.
    cast.dave.wish(Wish::Update);
    cast.dave.drive_now(&mut cast.world);
    cast.bob.sync(&cast.world.ds);
    let dave = cast.dave.account.client.clone();
    assert_eq!(cast.bob.begin_rejoin(&cast.world, false), Err(RejoinError::Doubtful(dave.clone())));
    assert!(cast.bob.group().wants_rejoin());
    // Whom his user believes is asked of him by name: another does not do.
    let erin = cast.erin.account.client.clone();
    let doubted = Err(RejoinError::Doubtful(dave.clone()));
    assert_eq!(cast.bob.begin_rejoin_by(&cast.world, Some(&erin)), doubted);
    cast.bob.begin_rejoin_by(&cast.world, Some(&dave)).unwrap();
    cast.bob.drive_now(&mut cast.world);
    cast.everybody_reads();
    agree(&mut [&mut cast.alice, &mut cast.bob, &mut cast.carol, &mut cast.dave]);
}

#[test]
fn the_clear_part_of_the_entry_names_neither_victim_nor_old_key() {
    let mut cast = cast();
    cast.learn();
    let old = cast.bob.group().access().unwrap().key.verifying_key().to_bytes();
    cast.bob.begin_rejoin(&cast.world, false).unwrap();
    let now = cast.world.ds.now();
    let submission = cast.bob.group().next_submission(now, &mut Vec::new()).unwrap().unwrap();
    let SubmissionBody::Bundle(bundle) = &submission.body else { panic!("a commit") };
    let header = Entry::parse(&bundle.entry).unwrap().commit.unwrap();
    assert_eq!((header.removed, header.members), (0, 5));
    let join = submission.join.unwrap();
    assert_ne!(join.key.verifying_key().to_bytes(), old);
    let shown: Vec<&[u8]> = [&bundle.entry, &bundle.group_info, &bundle.join_key, &bundle.tree]
        .into_iter()
        .chain(&submission.blobs)
        .map(Vec::as_slice)
        .collect();
    let name = cast.bob.account.client.to_string();
    for secret in [old.as_slice(), name.as_bytes(), &cast.bob.account.certificate] {
        assert!(!shown.iter().any(|bytes| bytes.windows(secret.len()).any(|window| window == secret)));
    }
}
