//! A member's answer to a knock that is annulled: who knocked has joined by it, and the group has its old leaf back.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::*;
use conclave_channel::law::DISPUTE_MS;
use conclave_engine::{
    group::{KnockRefused, Status},
    intent::Wish,
    outcome::Event,
};

/// Bob was locked out with something to say, Alice has let him in again, and Carol and Dave dispute that: of a commit that removes, one word is not
/// enough.
struct Cast {
    world: World,
    alice: Person,
    bob: Person,
    carol: Person,
    dave: Person,
}

fn cast() -> Cast {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol, mut dave] = ["alice", "bob", "carol", "dave"].map(|name| world.person(name));
    group_of(&mut world, &mut [&mut alice, &mut bob, &mut carol, &mut dave]);
    alice.say("before all that");
    alice.drive_now(&mut world);
    for person in [&mut bob, &mut carol, &mut dave] {
        person.sync(&world.ds);
    }
    bob.say("still to be said");
    bob.group().position_gone(None, &mut Vec::new());
    bob.save();
    let mut cast = Cast { world, alice, bob, carol, dave };
    cast.disputed();
    cast
}

impl Cast {
    /// Alice answers Bob's knock; two others, who can apply the commit, dispute it.
    fn disputed(&mut self) {
        let accesses = [&mut self.carol, &mut self.dave].map(|person| person.group().access().unwrap());
        knock(&self.world, &mut self.bob, &mut self.alice).unwrap();
        self.alice.drive_now(&mut self.world);
        for access in &accesses {
            false_nack(&mut self.world, access);
        }
        self.alice.sync(&self.world.ds);
    }

    /// Nobody acknowledges it in time, and life goes on.
    fn annul(&mut self) {
        self.world.ds.ahead += DISPUTE_MS + 600_000;
        self.carol.say("as if nothing had been");
        self.carol.drive_now(&mut self.world);
        self.alice.sync(&self.world.ds);
        assert!(self.alice.events.iter().any(|event| matches!(event, Event::Annulled { .. })));
    }

    /// Bob knocks again, is let in, and says what he had to say.
    fn heals(mut self) {
        let Self { world, alice, bob, carol, dave } = &mut self;
        assert!(bob.group().wants_rejoin(), "{:?}", bob.group().status());
        assert!(bob.group().knock_due(world.ds.now()).is_some_and(|due| due <= world.ds.now()), "at once");
        assert!(bob.group().whom_to_ask().unwrap().contains(&carol.account.client));
        bob.restart();
        knock(world, bob, alice).unwrap();
        alice.drive_now(world);
        bob.events.clear();
        bob.join(world);
        assert_eq!(*bob.group().status(), Status::Active);
        bob.drive_now(world);
        for person in [&mut *alice, &mut *carol, &mut *dave] {
            person.sync(&world.ds);
            assert_eq!(person.texts().last().unwrap(), "still to be said");
        }
        agree(&mut [alice, bob, carol, dave]);
        assert_eq!(alice.group().members().unwrap().len(), 4, "the old leaf is gone");
    }
}

#[test]
fn who_reads_that_it_was_annulled_knocks_again() {
    let mut cast = cast();
    cast.bob.join(&cast.world);
    assert_eq!(*cast.bob.group().status(), Status::Active);
    cast.bob.sync(&cast.world.ds);
    cast.bob.restart();
    cast.annul();
    cast.bob.sync(&cast.world.ds);
    let void = |event: &Event| matches!(event, Event::InvitationAnnulled {});
    assert!(cast.bob.events.iter().any(void), "{:?}", cast.bob.events);
    assert!(matches!(cast.bob.group().status(), Status::Stuck { .. }));
    cast.heals();
}

#[test]
fn so_does_who_takes_the_void_invitation_up_later() {
    let mut cast = cast();
    cast.annul();
    cast.bob.join(&cast.world);
    assert!(cast.bob.group().is_unproven());
    // The DS admits no key of an epoch that is void.
    let told = cast.bob.group().void_invitation();
    cast.bob.save();
    assert!(told.iter().any(|event| matches!(event, Event::Stuck { .. })), "{told:?}");
    cast.heals();
}

#[test]
fn it_may_be_annulled_twice() {
    let mut cast = cast();
    cast.bob.join(&cast.world);
    cast.annul();
    cast.bob.sync(&cast.world.ds);
    let Cast { world, carol, dave, .. } = &mut cast;
    carol.sync(&world.ds);
    dave.sync(&world.ds);
    cast.disputed();
    cast.bob.restart();
    cast.bob.join(&cast.world);
    cast.annul();
    cast.bob.sync(&cast.world.ds);
    cast.heals();
}

#[test]
fn once_it_stands_the_old_leaf_is_forgotten() {
    let mut cast = cast();
    let Cast { world, alice, bob, carol, .. } = &mut cast;
    bob.join(world);
    carol.drive_now(world);
    let ledger = world.ds.ledger.as_ref().unwrap();
    assert!(ledger.open().is_empty(), "Carol acknowledged it: {:?}", ledger.open());
    bob.sync(&world.ds);
    alice.sync(&world.ds);
    let row = |person: &Person| person.store.rows.keys().any(|(_, key)| key.ends_with(b"\0old-leaves"));
    assert!(!row(bob));
    // Locked out again, it is the new leaf that is replaced.
    bob.group().position_gone(None, &mut Vec::new());
    bob.save();
    world.ds.ahead += 2 * 3_600_000;
    knock(world, bob, carol).unwrap();
    carol.drive_now(world);
    bob.join(world);
    assert!(row(bob), "until this one stands");
    bob.sync(&world.ds);
    alice.sync(&world.ds);
    agree(&mut [alice, bob, carol]);
}

#[test]
fn who_was_removed_for_good_meanwhile_stays_out() {
    let mut cast = cast();
    cast.bob.join(&cast.world);
    cast.annul();
    cast.bob.sync(&cast.world.ds);
    let Cast { world, alice, bob, carol, .. } = &mut cast;
    let users = vec![bob.user()];
    carol.wish(Wish::Remove { users });
    carol.drive_now(world);
    alice.sync(&world.ds);
    assert!(matches!(knock(world, bob, alice), Err(KnockRefused::NoMember)));
}
