//! Forks of groups with visible handshakes.

use super::{
    super::{
        Handshakes,
        process::audit_tests::common::{self, Person, World},
    },
    *,
};
use crate::intent::Wish;

/// A group that the first makes and adds the others to, where the server has the tree.
fn visible_group_of(world: &mut World, people: &mut [&mut Person]) {
    let packages: Vec<_> = people.iter_mut().skip(1).map(|person| person.key_package(world)).collect();
    let (first, others) = people.split_first_mut().unwrap();
    first.handshakes = Handshakes::Visible { external_senders: Vec::new() };
    first.create(world, "Test");
    first.wish(Wish::Add { key_packages: packages });
    first.drive(world);
    let tree = first.group().mls.export_tree().to_bytes().unwrap();
    world.ds.blobs.insert(chain::entry_hash(&tree), tree);
    for person in others {
        person.join(world);
        person.sync(&world.ds);
    }
}

/// Where the server reads the handshakes, a commit or a proposal of the other branch names the fork, without a message.
#[test]
fn a_handshake_in_the_clear_tells_of_a_fork_too() {
    for leaves in [false, true] {
        let mut world = World::new();
        let [mut alice, mut bob, mut carol] = ["alice", "bob", "carol"].map(|name| world.person(name));
        visible_group_of(&mut world, &mut [&mut alice, &mut bob, &mut carol]);
        let place = common::fork(&mut world, &mut alice, &mut bob, &mut carol);
        let told = |event: &Event| matches!(event, Event::Forked { epoch: Epoch(2), .. });
        assert!(!alice.events.iter().any(told), "in one branch there is none");

        alice.wish(if leaves { Wish::Leave } else { Wish::Update });
        alice.drive_now(&mut world);
        let batch = world.ds.after(bob.group().position().seq);
        assert_eq!(batch.len(), 1);
        let done = bob.group().process(&batch);
        let named = |outcome: &Outcome| {
            matches!(outcome, Outcome::Rejected(Rejection::Branch(_)) | Outcome::NeedsRecovery(Rejection::Branch(_)))
        };
        assert!(named(&done.outcomes[0].1), "{:?}", done.outcomes);
        assert_eq!(done.events.iter().filter(|event| told(event)).count(), 1, "{:?}", done.events);
        bob.save();
        let after = bob.group().wants_audit().unwrap();
        let mut events = Vec::new();
        bob.group().audit(&world.ds.after(after), &mut events).unwrap();
        assert!(events.contains(&Event::LogRewritten { seq: place }), "{events:?}");
        assert!(bob.group().wants_rejoin());
        // Who was shown the group's own log has nothing to tell of.
        carol.sync(&world.ds);
        assert!(!carol.events.iter().any(told), "{:?}", carol.events);
        assert_eq!(carol.group().epoch_authenticator().unwrap(), alice.group().epoch_authenticator().unwrap());
    }
}
