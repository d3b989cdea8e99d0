//! Forks of groups with visible handshakes.

use super::{
    super::{
        Handshakes,
        process::audit_tests::common::{self, World},
    },
    *,
};
use crate::intent::Wish;

/// Where the server reads the handshakes, a commit or a proposal of the other branch names the fork, without a message.
#[test]
fn a_handshake_in_the_clear_tells_of_a_fork_too() {
    for leaves in [false, true] {
        let mut world = World::new();
        let [mut alice, mut bob, mut carol] = ["alice", "bob", "carol"].map(|name| world.person(name));
        alice.handshakes = Handshakes::Visible { external_senders: Vec::new() };
        common::group_of(&mut world, &mut [&mut alice, &mut bob, &mut carol]);
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
