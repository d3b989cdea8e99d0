//! What somebody reads of a group who was no member at the time, with all that a client's store has: by MLS itself, whatever the client's own
//! bookkeeping says (RFC 9750, sections 8.2.2 and 8.3).

use mls_rs::MlsMessage;

use super::process::audit_tests::{
    common::{Person, Store, World, agree, group_of, trio},
    decrypts, message_in,
};
use crate::intent::Wish;

/// What a person says now, as MLS has it: the seal around it is taken off by a member.
fn said(world: &mut World, speaker: &mut Person, member: &mut Person, text: &str) -> (Vec<u8>, MlsMessage) {
    member.sync(&world.ds);
    speaker.say(text);
    speaker.drive_now(world);
    let entry = world.ds.entries.last().unwrap().1.clone();
    let message = message_in(member, &entry).unwrap();
    (entry, message)
}

/// Whether one of these stores of a person decrypts it.
fn any(person: &Person, stores: &[&Store], message: &MlsMessage) -> bool {
    stores.iter().any(|store| decrypts(person, store, message))
}

#[test]
fn who_was_removed_decrypts_nothing_that_is_said_later() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    carol.sync(&world.ds);
    let before = carol.store.clone();
    let (entry, message) = said(&mut world, &mut alice, &mut bob, "with Carol");
    assert!(message_in(&carol, &entry).is_some() && any(&carol, &[&before], &message), "she is a member");
    alice.wish(Wish::Remove { users: vec![carol.user()] });
    alice.drive_now(&mut world);
    let mut later = vec![said(&mut world, &mut alice, &mut bob, "without her")];
    bob.wish(Wish::Update);
    bob.drive_now(&mut world);
    alice.sync(&world.ds);
    later.push(said(&mut world, &mut bob, &mut alice, "in the next epoch"));
    carol.sync(&world.ds);
    let after = carol.store.clone();
    for (entry, message) in &later {
        assert!(message_in(&carol, entry).is_none(), "no group seed of hers opens the seal");
        carol.store = before.clone();
        carol.restart();
        assert!(message_in(&carol, entry).is_none(), "nor one of before");
        assert!(!any(&carol, &[&before, &after], message));
    }
    agree(&mut [&mut alice, &mut bob]);
}

#[test]
fn who_was_added_decrypts_nothing_that_was_said_before() {
    let mut world = World::new();
    let mut people = ["alice", "bob", "carol"].map(|name| world.person(name));
    let [alice, bob, carol] = &mut people;
    group_of(&mut world, &mut [alice, bob]);
    alice.sync(&world.ds);
    bob.sync(&world.ds);
    let mut earlier = vec![said(&mut world, alice, bob, "in the beginning")];
    alice.wish(Wish::Update);
    alice.drive_now(&mut world);
    // Bob has read nothing of it yet, and could.
    bob.sync(&world.ds);
    let unread = bob.store.clone();
    earlier.push(said(&mut world, alice, bob, "just before she came"));
    assert!(any(bob, &[&unread], &earlier[1].1));
    alice.wish(Wish::Add { key_packages: vec![carol.key_package(&world)] });
    alice.drive_now(&mut world);
    carol.join(&world);
    let joined = carol.store.clone();
    let (_, message) = said(&mut world, alice, bob, "welcome");
    assert!(any(carol, &[&joined], &message), "she reads on from there");
    carol.sync(&world.ds);
    for (entry, message) in &earlier {
        // The group seed in force opens the seal, as she is given it; what is in it stays closed.
        assert!(message_in(carol, entry).is_some());
        assert!(!any(carol, &[&joined, &carol.store], message));
    }
    agree(&mut [alice, bob, carol]);
}

#[test]
fn a_stolen_store_decrypts_nothing_after_the_owner_has_renewed_its_keys() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    bob.sync(&world.ds);
    let stolen = bob.store.clone();
    let (_, message) = said(&mut world, &mut alice, &mut carol, "after the theft");
    assert!(any(&bob, &[&stolen], &message), "until then the thief reads everything");
    bob.sync(&world.ds);
    bob.wish(Wish::Update);
    bob.drive_now(&mut world);
    alice.sync(&world.ds);
    carol.sync(&world.ds);
    let mut later = vec![said(&mut world, &mut alice, &mut carol, "after the cure")];
    later.push(said(&mut world, &mut bob, &mut carol, "by its owner"));
    alice.sync(&world.ds);
    alice.wish(Wish::Update);
    alice.drive_now(&mut world);
    later.push(said(&mut world, &mut alice, &mut carol, "an epoch later"));
    // Reading on with what it has does not help the thief.
    let owner = std::mem::replace(&mut bob.store, stolen.clone());
    bob.restart();
    bob.sync(&world.ds);
    let followed = bob.store.clone();
    for (_, message) in &later {
        assert!(!any(&bob, &[&stolen, &followed], message));
    }
    bob.store = owner;
    bob.restart();
    bob.sync(&world.ds);
    agree(&mut [&mut alice, &mut bob, &mut carol]);
}
