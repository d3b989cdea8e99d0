//! The life of a visible group, with a server that is stopped and started in the middle of it.

use conclave_engine::{
    group::{Handshakes, Status, SubmissionBody},
    intent::Wish,
    outcome::Event,
};
use conclave_mls::{credential::Issuers, crypto, identity::Identities, rules::Rules};
use conclave_protocol::Code;
use mls_rs::{MlsMessage, external_client::ExternalClient, group::ExportedTree};

use crate::{
    person::{Person, agree, group_of},
    raw::Raw,
    world::{on_both, refused},
};

#[test]
fn people_join_talk_update_and_go_while_the_server_restarts() {
    on_both(|mut world| {
        let [mut alice, mut bob, mut charlie] = ["alice", "bob", "charlie"].map(|name| Person::new(&mut world, name));
        alice.create(&mut world, Handshakes::Visible { external_senders: Vec::new() });
        assert!(alice.group().is_visible());
        agree(&mut world, &mut [&mut alice]);
        alice.add(&mut world, &mut [&mut bob]);
        agree(&mut world, &mut [&mut alice, &mut bob]);
        alice.say(&mut world, "hello Bob");
        bob.say(&mut world, "hello Alice");
        bob.add(&mut world, &mut [&mut charlie]);
        world.restart();
        agree(&mut world, &mut [&mut alice, &mut bob, &mut charlie]);

        charlie.wish(Wish::Update);
        charlie.drive(&mut world);
        agree(&mut world, &mut [&mut alice, &mut bob, &mut charlie]);
        charlie.say(&mut world, "hi all");

        // Bob asks to go; the server stops; somebody commits what it had seen before.
        bob.wish(Wish::Leave);
        bob.drive(&mut world);
        assert!(bob.group().is_asked_to_leave());
        world.restart();
        alice.drive(&mut world);
        bob.sync(&mut world);
        assert_eq!(*bob.group().status(), Status::Removed);
        agree(&mut world, &mut [&mut alice, &mut charlie]);

        let users = vec![charlie.user()];
        alice.wish(Wish::Remove { users });
        alice.drive(&mut world);
        charlie.sync(&mut world);
        assert_eq!(*charlie.group().status(), Status::Removed);
        agree(&mut world, &mut [&mut alice]);

        // Both come back, at once.
        world.restart();
        alice.add(&mut world, &mut [&mut bob, &mut charlie]);
        alice.say(&mut world, "welcome back");
        agree(&mut world, &mut [&mut alice, &mut bob, &mut charlie]);
        assert_eq!(charlie.texts(), ["hi all", "welcome back"]);
        assert_eq!(bob.texts(), ["hello Bob", "hello Alice", "hi all", "welcome back"]);
        for person in [&alice, &bob, &charlie] {
            let bad = |event: &&Event| matches!(event, Event::Stuck { .. } | Event::Refused { .. });
            assert_eq!(person.events.iter().find(bad), None);
        }
    });
}

#[test]
fn nobody_uploads_a_tree_and_the_one_that_is_served_belongs_to_the_group_info() {
    on_both(|mut world| {
        let [mut alice, mut bob, mut charlie] = ["alice", "bob", "charlie"].map(|name| Person::new(&mut world, name));
        group_of(&mut world, &mut [&mut alice, &mut bob], Vec::new());
        let key_packages = vec![charlie.key_package(&mut world)];
        alice.wish(Wish::Add { key_packages });
        let submission = alice.next(&world).unwrap();
        assert!(submission.blobs.is_empty());
        let SubmissionBody::Bundle(bundle) = &submission.body else { panic!("an Add is a commit") };
        assert!(bundle.tree.is_empty() && bundle.join_key.is_empty());
        alice.drive(&mut world);
        charlie.join(&mut world);
        agree(&mut world, &mut [&mut alice, &mut bob, &mut charlie]);

        // What anybody would join from outside with: it is of the current epoch, whichever that is.
        for _ in 0..2 {
            agree(&mut world, &mut [&mut alice, &mut bob, &mut charlie]);
            let (epoch, session) = (charlie.group().epoch().0, charlie.session(&mut world));
            let info = world.group_info(&session).unwrap();
            let tree = world.tree(&session, epoch).unwrap();
            assert_eq!(info.epoch, epoch);
            let outsider = ExternalClient::builder()
                .crypto_provider(crypto::provider())
                .identity_provider(Identities::new([world.ca.issuer().clone()].into_iter().collect::<Issuers>()))
                .mls_rules(Rules)
                .build();
            let info = MlsMessage::from_bytes(&info.group_info).unwrap();
            let tree = ExportedTree::from_bytes(&tree).unwrap();
            let seen = outsider.observe_group(info, Some(tree), None).unwrap();
            assert_eq!(seen.group_context().epoch(), epoch);
            assert_eq!(seen.roster().members_iter().count(), 3);
            // Neither of an epoch that is over.
            refused(world.tree(&session, epoch - 1), Code::EpochStale);
            bob.wish(Wish::Update);
            bob.drive(&mut world);
            refused(world.tree(&session, epoch), Code::EpochStale);
        }
        // Who was removed reads neither.
        let session = charlie.session(&mut world);
        let users = vec![charlie.user()];
        bob.wish(Wish::Remove { users });
        bob.drive(&mut world);
        refused(world.group_info(&session), Code::AccessRefused);
        refused(world.tree(&session, bob.group().epoch().0), Code::AccessRefused);
    });
}

#[test]
fn the_first_epoch_can_be_joined_from_outside_and_a_private_group_has_no_tree_to_read() {
    on_both(|mut world| {
        let mut alice = Person::new(&mut world, "alice");
        group_of(&mut world, &mut [&mut alice], Vec::new());
        let session = alice.session(&mut world);
        let info = world.group_info(&session).unwrap();
        assert_eq!(info.epoch, 0);
        assert!(MlsMessage::from_bytes(&info.group_info).unwrap().as_group_info().is_some());
        assert!(!world.tree(&session, 0).unwrap().is_empty());

        let mut bob = Person::new(&mut world, "bob");
        let channel = bob.create(&mut world, Handshakes::Private);
        assert_eq!(world.followed(channel), None);
        let session = bob.session(&mut world);
        assert!(world.group_info(&session).unwrap().group_info.is_empty());
        refused(world.tree(&session, 0), Code::AccessRefused);
    });
}

#[test]
fn a_commit_that_is_too_long_for_an_entry_is_judged_all_the_same() {
    on_both(|mut world| {
        let [mut alice, mut bob] = ["alice", "bob"].map(|name| Person::new(&mut world, name));
        let channel = group_of(&mut world, &mut [&mut alice, &mut bob], Vec::new());
        let names: Vec<_> = (0..80).map(|number| format!("user{number}")).collect();
        let key_packages = names.iter().map(|name| Raw::new(&mut world, name, false).key_package(&mut world)).collect();
        alice.wish(Wish::Add { key_packages });
        let submission = alice.next(&world).unwrap();
        assert_eq!(submission.blobs.len(), 1, "the commit itself");
        // Its blob must be there, and be the one that is named.
        let SubmissionBody::Bundle(bundle) = &submission.body else { panic!("an Add is a commit") };
        let session = alice.session(&mut world);
        refused(world.submit_bundle(&session, bundle), Code::BlobUnknown);
        alice.send(&mut world, &submission).unwrap();
        world.restart();
        agree(&mut world, &mut [&mut alice, &mut bob]);
        assert_eq!(world.followed(channel).unwrap().members, 82);
    });
}
