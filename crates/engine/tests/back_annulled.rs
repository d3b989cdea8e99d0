//! Who came back, by a commit from outside or by a member's, and then an epoch before that is annulled: it was a member then.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::*;
use conclave_authentication::CertificateAuthority;
use conclave_channel::law::DISPUTE_MS;
use conclave_engine::{
    group::{Access, RejoinError, Status},
    intent::Wish,
    outcome::Event,
};
use conclave_mls::credential::{Issuer, Issuers};
use conclave_names::Epoch;

/// Bob could not apply the commit that added Dave, which stands; he has learned since what he lacked. Alice has begun another epoch, which is
/// open, and Bob has come back into that.
struct Cast {
    world: World,
    alice: Person,
    bob: Person,
    carol: Person,
    dave: Person,
    /// Carol's in the epoch before Alice's commit.
    access: Access,
    /// Which that is.
    before: Epoch,
}

fn stands(person: &mut Person) -> (Status, Epoch) {
    let group = person.group();
    (group.status().clone(), group.epoch())
}

fn learn(person: &mut Person, other: &CertificateAuthority) {
    person.account.issuers.push(other.certificate().to_vec());
    let issuers: Issuers = person.account.issuers.iter().map(|der| Issuer::parse(der).unwrap()).collect();
    person.mls.identities().set_issuers(issuers);
}

fn cast() -> Cast {
    let mut world = World::new();
    let other = CertificateAuthority::generate(&domain(), NOW).unwrap();
    let both = [&world.ca, &other];
    let mut alice = world.person_of("alice", &world.ca, &both);
    let mut carol = world.person_of("carol", &world.ca, &both);
    let (mut bob, mut dave) = (world.person("bob"), world.person_of("dave", &other, &both));
    group_of(&mut world, &mut [&mut alice, &mut bob, &mut carol]);
    let package = dave.key_package(&world);
    alice.wish(Wish::Add { key_packages: vec![package] });
    alice.drive_now(&mut world);
    dave.join(&world);
    for person in [&mut bob, &mut carol] {
        person.drive_now(&mut world);
    }
    for person in [&mut alice, &mut bob, &mut carol, &mut dave] {
        person.sync(&world.ds);
    }
    assert!(world.ds.ledger.as_ref().unwrap().open().is_empty());
    assert!(bob.group().wants_rejoin());
    learn(&mut bob, &other);
    let (access, before) = (carol.group().access().unwrap(), carol.group().epoch());

    alice.wish(Wish::Update);
    alice.drive_now(&mut world);
    bob.sync(&world.ds);
    bob.begin_rejoin(&world, false).unwrap();
    bob.drive_now(&mut world);
    assert_eq!(stands(&mut bob), (Status::Active, Epoch(before.0 + 2)));
    Cast { world, alice, bob, carol, dave, access, before }
}

impl Cast {
    /// The commit of this number among the open ones is disputed, and nobody acknowledges it in time.
    fn annul(&mut self, open: usize) {
        dispute(&mut self.world, &self.access, open);
        for person in [&mut self.alice, &mut self.bob, &mut self.carol, &mut self.dave] {
            person.sync(&self.world.ds);
        }
        self.world.ds.ahead += DISPUTE_MS + 600_000;
        let now = self.world.ds.now();
        for person in [&mut self.alice, &mut self.bob, &mut self.carol, &mut self.dave] {
            person.sync(&self.world.ds);
            let mut events = Vec::new();
            person.group().next_submission(now, &mut events).unwrap();
            person.events.append(&mut events);
            person.save();
        }
    }

    /// Bob comes back once more, and everybody talks.
    fn heals(mut self) {
        let Self { world, alice, bob, carol, dave, .. } = &mut self;
        carol.wish(Wish::Update);
        carol.drive_now(world);
        bob.sync(&world.ds);
        if bob.group().wants_rejoin() {
            bob.begin_rejoin(world, false).unwrap();
            bob.drive_now(world);
        }
        bob.say("here I am again");
        bob.drive_now(world);
        for person in [&mut *alice, &mut *carol, &mut *dave] {
            person.sync(&world.ds);
            assert_eq!(person.texts().last().unwrap(), "here I am again");
        }
        agree(&mut [alice, bob, carol, dave]);
    }
}

/// Begins to come back, at once or after reading on.
fn back(world: &World, person: &mut Person) {
    for _ in 0..2 {
        match person.begin_rejoin(world, false) {
            Ok(()) => return,
            Err(RejoinError::ReadOn) => drop(person.sync(&world.ds)),
            Err(error) => panic!("{error} {:?}", person.group().status()),
        }
    }
    panic!("there is always more to read");
}

fn ended(person: &Person) -> bool {
    let over = |event: &Event| matches!(event, Event::InvitationAnnulled {} | Event::RemovedFromGroup { .. });
    person.events.iter().any(over)
}

#[test]
fn who_came_back_into_an_epoch_that_is_annulled_is_lost_as_before_and_no_stranger() {
    for crash in [false, true] {
        let mut cast = cast();
        if crash {
            cast.bob.restart();
        }
        cast.annul(0);
        assert!(!ended(&cast.bob), "{:?}", cast.bob.events);
        if crash {
            cast.bob.restart();
        }
        let group = cast.bob.group();
        assert!(matches!(group.status(), Status::Stuck { .. }) && group.wants_rejoin(), "{:?}", group.status());
        assert!(group.epoch() < cast.before, "it never was in that one");
        assert!(group.access().is_ok());
        cast.heals();
    }
}

#[test]
fn whose_way_back_itself_is_annulled_takes_another() {
    let mut cast = cast();
    cast.alice.sync(&cast.world.ds);
    cast.carol.sync(&cast.world.ds);
    assert_eq!(cast.world.ds.ledger.as_ref().unwrap().open().len(), 2);
    // Dave has read Alice's commit only: his is a key of the epoch that Bob's commit ended.
    let batch = cast.world.ds.after(cast.dave.group().position().seq);
    cast.dave.group().process(&batch[..1]);
    cast.access = cast.dave.group().access().unwrap();
    assert_eq!(cast.access.epoch, cast.before.next());
    cast.annul(1);
    assert!(!ended(&cast.bob), "{:?}", cast.bob.events);
    assert!(cast.bob.group().wants_rejoin());
    assert_eq!(cast.alice.group().epoch(), cast.before.next());
    cast.heals();
}

/// The server had forgotten what Bob had not read, so he came back into an epoch in which nothing had happened to him; the one that he was in
/// is the group's again.
#[test]
fn who_came_back_past_a_gap_goes_on_in_the_epoch_that_it_was_in() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    let (access, before) = (carol.group().access().unwrap(), bob.group().epoch());
    for _ in 0..2 {
        alice.wish(Wish::Update);
        alice.drive_now(&mut world);
    }
    bob.group().position_gone(None, &mut Vec::new());
    bob.save();
    assert_eq!(bob.begin_rejoin(&world, false), Err(RejoinError::ReadOn));
    bob.sync(&world.ds);
    bob.begin_rejoin(&world, false).unwrap();
    bob.drive_now(&mut world);
    assert_eq!(stands(&mut bob), (Status::Active, Epoch(before.0 + 3)));
    dispute(&mut world, &access, 0);
    bob.sync(&world.ds);
    world.ds.ahead += DISPUTE_MS + 600_000;
    let now = world.ds.now();
    bob.sync(&world.ds);
    let mut events = Vec::new();
    bob.group().next_submission(now, &mut events).unwrap();
    bob.save();
    bob.restart();
    assert!(
        events.iter().any(|event| matches!(event, Event::Annulled { epoch, .. } if *epoch == before)),
        "{events:?}"
    );
    assert!(!events.contains(&Event::InvitationAnnulled {}), "{events:?}");
    assert_eq!(stands(&mut bob), (Status::Active, before));
    bob.say("as before");
    bob.drive_now(&mut world);
    for person in [&mut alice, &mut carol] {
        person.sync(&world.ds);
        assert_eq!(person.texts(), ["as before"]);
    }
    agree(&mut [&mut alice, &mut bob, &mut carol]);
}

/// Bob was about to come back from outside when he read that he was removed. That is void: he has still not read what he missed, and comes back.
#[test]
fn whose_removal_is_annulled_while_it_comes_back_goes_on_with_that() {
    for by_the_log in [true, false] {
        let mut world = World::new();
        let [mut alice, mut bob, mut carol, mut dave] =
            ["alice", "bob", "carol", "dave"].map(|name| world.person(name));
        group_of(&mut world, &mut [&mut alice, &mut bob, &mut carol, &mut dave]);
        bob.sync(&world.ds);
        carol.say("unread");
        carol.drive_now(&mut world);
        alice.wish(Wish::Update);
        alice.drive_now(&mut world);
        bob.group().position_gone(None, &mut Vec::new());
        assert_eq!(bob.begin_rejoin(&world, false), Err(RejoinError::ReadOn));
        let accesses = [&mut carol, &mut dave].map(|person| {
            person.sync(&world.ds);
            person.group().access().unwrap()
        });
        alice.wish(Wish::Remove { users: vec![bob.user()] });
        alice.drive_now(&mut world);
        bob.sync(&world.ds);
        assert!(*bob.group().status() == Status::Removed && bob.group().may_return());
        let open = world.ds.ledger.as_ref().unwrap().open().len();
        for access in &accesses {
            dispute(&mut world, access, open - 1);
        }
        bob.sync(&world.ds);
        world.ds.ahead += DISPUTE_MS + 600_000;
        if by_the_log {
            carol.say("he is still there");
            carol.drive_now(&mut world);
        }
        bob.sync(&world.ds);
        let now = world.ds.now();
        let next = bob.group().next_submission(now, &mut Vec::new()).unwrap();
        assert!(next.is_none() && bob.group().wants_rejoin(), "{:?}", bob.group().status());
        bob.save();
        bob.restart();
        carol.sync(&world.ds);
        carol.wish(Wish::Update);
        carol.drive_now(&mut world);
        bob.sync(&world.ds);
        back(&world, &mut bob);
        bob.drive_now(&mut world);
        assert_eq!(*bob.group().status(), Status::Active);
        for person in [&mut alice, &mut carol, &mut dave] {
            person.sync(&world.ds);
        }
        agree(&mut [&mut alice, &mut bob, &mut carol, &mut dave]);
    }
}

/// Bob had been in a branch that is none of the group's. If his way back is void, he is not to take it for the group.
#[test]
fn who_came_back_out_of_another_branch_does_not_go_on_in_that() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    let seq = fork(&mut world, &mut alice, &mut bob, &mut carol);
    carol.restart();
    carol.sync(&world.ds);
    // The server gives the others' log now.
    bob.group().epoch_refused();
    let mut events = Vec::new();
    while let Some(after) = bob.group().wants_audit() {
        bob.group().audit(&world.ds.after(after), &mut events).unwrap();
    }
    bob.save();
    assert!(events.contains(&Event::LogRewritten { seq }), "{events:?}");
    let access = alice.group().access().unwrap();
    back(&world, &mut bob);
    bob.drive_now(&mut world);
    assert_eq!(*bob.group().status(), Status::Active);
    let open = world.ds.ledger.as_ref().unwrap().open().len();
    assert_eq!(open, 2);
    alice.sync(&world.ds);
    dispute(&mut world, &access, 1);
    bob.sync(&world.ds);
    world.ds.ahead += DISPUTE_MS + 600_000;
    let now = world.ds.now();
    bob.sync(&world.ds);
    bob.group().next_submission(now, &mut Vec::new()).unwrap();
    bob.save();
    bob.restart();
    assert!(bob.group().wants_rejoin(), "{:?}", bob.group().status());
    alice.sync(&world.ds);
    alice.drive_now(&mut world);
    carol.sync(&world.ds);
    carol.wish(Wish::Update);
    carol.drive_now(&mut world);
    bob.sync(&world.ds);
    back(&world, &mut bob);
    bob.drive_now(&mut world);
    for person in [&mut alice, &mut carol] {
        person.sync(&world.ds);
    }
    agree(&mut [&mut alice, &mut bob, &mut carol]);
}

/// Bob is removed and added again, and both is void: he is a member by his old leaf, of which he has nothing left.
#[test]
fn who_was_removed_and_added_by_annulled_commits_is_let_in_again() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol, mut dave] = ["alice", "bob", "carol", "dave"].map(|name| world.person(name));
    group_of(&mut world, &mut [&mut alice, &mut bob, &mut carol, &mut dave]);
    for person in [&mut alice, &mut bob, &mut carol, &mut dave] {
        person.sync(&world.ds);
    }
    carol.drive_now(&mut world);
    let accesses = [&mut carol, &mut dave].map(|person| person.group().access().unwrap());
    let (users, before) = (vec![bob.user()], bob.group().epoch());
    alice.wish(Wish::Remove { users });
    alice.drive_now(&mut world);
    bob.sync(&world.ds);
    assert!(*bob.group().status() == Status::Removed && bob.group().may_return());
    let package = bob.key_package(&world);
    alice.wish(Wish::Add { key_packages: vec![package] });
    alice.drive_now(&mut world);
    bob.join(&world);
    bob.sync(&world.ds);
    let index = world.ds.ledger.as_ref().unwrap().open().len() - 2;
    for access in &accesses {
        dispute(&mut world, access, index);
    }
    bob.sync(&world.ds);
    world.ds.ahead += DISPUTE_MS + 600_000;
    carol.say("as if nothing had been");
    carol.drive_now(&mut world);
    bob.restart();
    bob.sync(&world.ds);
    assert_eq!(carol.group().epoch(), before);
    assert!(bob.group().wants_rejoin(), "he is a member: {:?}", bob.group().status());
    knock(&world, &mut bob, &mut carol).unwrap();
    carol.drive_now(&mut world);
    bob.join(&world);
    bob.drive_now(&mut world);
    dave.sync(&world.ds);
    carol.sync(&world.ds);
    agree(&mut [&mut bob, &mut carol, &mut dave]);
    assert_eq!(carol.group().members().unwrap().len(), 4, "the old leaf is gone");
}
