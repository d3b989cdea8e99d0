//! Clients that have lost everything come back into all their groups, over a real server (R93).

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::{Watched, World, has, texts, user};
use conclave_client::{
    Approval, Client, ClientError, Event, Handshakes, Membership, RecoveryFile, RegisterError, Status, profile::Kdf,
    store::MemoryStore,
};
use conclave_names::GroupUri;
use conclave_protocol::Code;

const KDF: Kdf = Kdf { memory_kib: 1024, passes: 1, lanes: 1 };

async fn restore(world: &World, file: &RecoveryFile) -> Client {
    Client::restore(Box::new(MemoryStore::new()), &world.services(), file).await.unwrap()
}

/// Links a device of Alice's, under a name that may have been a device's before.
async fn link(world: &World, first: &mut Client, device: &str) -> Client {
    let store = Box::new(MemoryStore::new());
    let pending = Client::start_link(store, &world.services(), "alice", device).await.unwrap();
    let request = first.link_request(pending.code()).await.unwrap();
    first.approve_link(&request).await.unwrap();
    match pending.poll().await.unwrap() {
        Approval::Linked(client) => *client,
        Approval::Waiting(_) => panic!("it was approved"),
    }
}

/// Two groups, one of which the server reads, and who made each.
async fn groups(first: &mut Client, second: &mut Client, users: [&str; 2]) -> [GroupUri; 2] {
    let club = first.create_group("The Club").await.unwrap();
    first.add(&club, &[user(users[1])]).await.unwrap();
    let visible = Handshakes::Visible { external_senders: Vec::new() };
    let pub_ = second.create_group_with("The Pub", visible).await.unwrap();
    second.add(&pub_, &[user(users[0])]).await.unwrap();
    first.sync().await.unwrap();
    second.sync().await.unwrap();
    [club, pub_]
}

fn members(client: &mut Client, group: &GroupUri) -> Vec<String> {
    let mut members: Vec<_> =
        client.group(group).unwrap().members().unwrap().into_iter().map(|member| member.client.to_string()).collect();
    members.sort();
    members
}

/// They talk in all groups, in the same epoch.
async fn talk(people: &mut [&mut Client], groups: &[GroupUri]) {
    for group in groups {
        for index in 0..people.len() {
            let said = format!("{index} in {}", group.name());
            people[index].send(group, &said).await.unwrap();
            for person in people.iter_mut() {
                person.sync().await.unwrap();
                assert_eq!(texts(person, group).last(), Some(&said));
            }
        }
        let authenticator = people[0].group(group).unwrap().epoch_authenticator().unwrap();
        for person in people.iter_mut() {
            assert_eq!(person.group(group).unwrap().epoch_authenticator().unwrap(), authenticator);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_client_comes_back_into_every_group_by_its_identity_key() {
    let world = World::whole().await;
    let (mut alice, mut bob) = (world.person("alice").await, world.person("bob").await);
    let both = groups(&mut alice, &mut bob, ["alice", "bob"]).await;
    // A third one, in which nobody is left to ask.
    let alone = bob.create_group("Diary").await.unwrap();
    bob.send(&both[0], "before the loss").await.unwrap();
    let file = bob.recovery_file().unwrap().seal("correct horse", KDF).unwrap();
    let before = (bob.client().clone(), bob.identity_key());
    drop(bob);

    let file = RecoveryFile::open(&file, "correct horse").unwrap();
    assert_eq!(file.groups().len(), 3);
    let mut bob = restore(&world, &file).await;
    assert_eq!((bob.client().clone(), bob.identity_key()), before);
    assert_eq!(bob.lost_groups().unwrap().len(), 3);
    // Nobody has to be named: the file names them.
    let asked = bob.ask_for_groups(&[]).await.unwrap();
    assert_eq!(asked.devices, [alice.client().clone()]);
    assert!(bob.sync().await.unwrap().is_empty(), "Alice has not been online");

    let events = alice.sync().await.unwrap();
    let back = events.iter().filter(
        |happened| matches!(&happened.event, Event::Readmitted { members, .. } if members[..] == [before.0.clone()]),
    );
    assert_eq!(back.count(), 2, "{events:?}");
    assert!(!has(&events, |event| matches!(event, Event::IdentityChanged { .. } | Event::Added { .. })), "{events:?}");
    let events = bob.sync().await.unwrap();
    assert_eq!(events.iter().filter(|happened| matches!(happened.event, Event::Joined { .. })).count(), 2);
    talk(&mut [&mut alice, &mut bob], &both).await;
    for group in &both {
        assert_eq!(members(&mut alice, group).len(), 2, "the old place is gone");
        assert!(!texts(&bob, group).contains(&"before the loss".to_owned()), "what was read before is gone for good");
        let log = alice.membership_log(group).unwrap();
        assert_eq!(log.iter().filter(|change| change.change == Membership::Readmitted).count(), 1);
    }
    // What could not be healed is said by name.
    let lost = bob.lost_groups().unwrap();
    assert_eq!(lost.iter().map(|lost| &lost.group).collect::<Vec<_>>(), [&alone]);
    assert_eq!((lost[0].title.as_str(), lost[0].users.len()), ("Diary", 0));
    bob.forget_lost_groups().unwrap();
    assert!(bob.lost_groups().unwrap().is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_was_made_anew_in_another_suite_meanwhile_is_the_same_to_who_comes_back() {
    let world = World::whole().await;
    let (mut alice, mut bob) = (world.person("alice").await, world.person("bob").await);
    let mut carol = world.person("carol").await;
    let club = alice.create_group("The Club").await.unwrap();
    alice.add(&club, &[user("bob"), user("carol")]).await.unwrap();
    carol.sync().await.unwrap();
    bob.sync().await.unwrap();
    let file = bob.recovery_file().unwrap();
    drop(bob);
    // Alice confirms it, and makes the successor at once.
    carol.reinit(&club, 3, false).await.unwrap();
    alice.sync().await.unwrap();
    carol.sync().await.unwrap();
    let next = alice.current(&club).unwrap();
    assert_ne!(next, club);
    let mut bob = restore(&world, &file).await;
    bob.ask_for_groups(&[]).await.unwrap();
    alice.sync().await.unwrap();
    bob.sync().await.unwrap();
    assert_eq!(bob.group(&next).unwrap().cipher_suite(), 3);
    assert_eq!(bob.lost_groups().unwrap().len(), 1, "Alice alone says that this is it");
    assert!(bob.asking().is_some());
    talk(&mut [&mut alice, &mut bob, &mut carol], &[next]).await;
    assert!(bob.lost_groups().unwrap().is_empty(), "he is in it, under its new name");
    bob.sync().await.unwrap();
    assert_eq!(bob.asking(), None);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_was_linked_again_is_let_in_by_the_users_other_device() {
    let world = World::whole().await;
    let mut laptop = world.person("alice").await;
    let mut phone = link(&world, &mut laptop, "phone").await;
    let mut bob = world.person("bob").await;
    let both = groups(&mut laptop, &mut bob, ["alice", "bob"]).await;
    laptop.add(&both[0], &[user("alice")]).await.unwrap();
    bob.sync().await.unwrap();
    phone.sync().await.unwrap();
    assert_eq!(members(&mut phone, &both[0]).len(), 3);
    drop(phone);

    let mut phone = link(&world, &mut laptop, "phone").await;
    let asked = phone.ask_for_groups(&[]).await.unwrap();
    assert_eq!(asked.devices, [laptop.client().clone()], "and nobody else: it knows nobody else");
    laptop.sync().await.unwrap();
    phone.sync().await.unwrap();
    talk(&mut [&mut laptop, &mut bob, &mut phone], &both).await;
    for group in &both {
        assert_eq!(members(&mut bob, group).len(), 3);
    }
    // Asked once more, nothing happens: it is back.
    phone.ask_for_groups(&[user("bob")]).await.unwrap();
    for person in [&mut laptop, &mut bob] {
        let events = person.sync().await.unwrap();
        assert!(!has(&events, |event| matches!(event, Event::Readmitted { .. })), "{events:?}");
    }
    talk(&mut [&mut laptop, &mut bob, &mut phone], &both).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_ask_and_answer_while_several_are_asked_at_once() {
    let world = World::whole().await;
    let (mut alice, mut bob, mut carol) =
        (world.person("alice").await, world.person("bob").await, world.person("carol").await);
    let both = groups(&mut alice, &mut bob, ["alice", "bob"]).await;
    alice.add(&both[0], &[user("carol")]).await.unwrap();
    carol.sync().await.unwrap();
    bob.sync().await.unwrap();
    let file = bob.recovery_file().unwrap();
    drop(bob);
    let mut bob = restore(&world, &file).await;
    let asked = bob.ask_for_groups(&[]).await.unwrap();
    assert_eq!(asked.devices.len(), 2, "{asked:?}");
    // Both answer, and the second finds it done.
    alice.sync().await.unwrap();
    carol.sync().await.unwrap();
    bob.sync().await.unwrap();
    alice.sync().await.unwrap();
    carol.sync().await.unwrap();
    assert!(bob.lost_groups().unwrap().is_empty());
    talk(&mut [&mut alice, &mut bob, &mut carol], &both[..1]).await;
    talk(&mut [&mut alice, &mut bob], &both[1..]).await;
    let log = alice.membership_log(&both[0]).unwrap();
    assert_eq!(log.iter().filter(|change| change.change == Membership::Readmitted).count(), 1, "{log:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_removed_on_purpose_stays_out_and_is_told_which_group_is_lost() {
    let world = World::whole().await;
    let (mut alice, mut bob) = (world.person("alice").await, world.person("bob").await);
    let both = groups(&mut alice, &mut bob, ["alice", "bob"]).await;
    let file = bob.recovery_file().unwrap();
    drop(bob);
    // His device was stolen: whoever has it is put out of one group, and brings itself back into the other only.
    alice.remove(&both[0], &[user("bob")]).await.unwrap();
    let mut bob = restore(&world, &file).await;
    bob.ask_for_groups(&[user("alice")]).await.unwrap();
    alice.sync().await.unwrap();
    bob.sync().await.unwrap();
    assert_eq!(members(&mut alice, &both[0]), [alice.client().to_string()]);
    assert!(bob.group(&both[0]).is_err());
    assert_eq!(*bob.group(&both[1]).unwrap().status(), Status::Active);
    assert_eq!(bob.lost_groups().unwrap().iter().map(|lost| &lost.title).collect::<Vec<_>>(), ["The Club"]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_who_knocks_at_all_groups_gets_into_none() {
    let world = World::whole().await;
    let (mut alice, mut bob) = (world.person("alice").await, world.person("bob").await);
    let both = groups(&mut alice, &mut bob, ["alice", "bob"]).await;
    let mut mallory = world.person("mallory").await;
    let asked = mallory.ask_for_groups(&[user("alice"), user("bob"), user("nobody")]).await.unwrap();
    assert_eq!(asked.devices.len(), 2);
    assert!(asked.unable.iter().any(|unable| unable.who == user("nobody").to_string()), "{asked:?}");
    for person in [&mut alice, &mut bob] {
        let events = person.sync().await.unwrap();
        assert!(!has(&events, |event| matches!(event, Event::Readmitted { .. } | Event::Added { .. })), "{events:?}");
        for group in &both {
            assert_eq!(members(person, group).len(), 2);
        }
    }
    assert!(mallory.sync().await.unwrap().is_empty());
    // Neither is a file of another identity key taken for the account's.
    let other = World::whole().await;
    let mut impostor = other.person("bob").await;
    let file = impostor.recovery_file().unwrap();
    let refused = Client::restore(Box::new(MemoryStore::new()), &world.services(), &file).await.unwrap_err();
    let RegisterError::Step(ClientError::Call(refused)) = refused else { panic!("{refused:?}") };
    assert_eq!(refused.code(), Some(Code::IdentityMismatch));
    other.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn for_a_knock_of_a_stranger_no_group_is_read_and_for_a_members_each_is() {
    let world = World::whole().await;
    let watched = Watched::default();
    let mut alice = world.person_in(watched.store(), "alice").await;
    let (mut bob, mut mallory) = (world.person("bob").await, world.person("mallory").await);
    groups(&mut alice, &mut bob, ["alice", "bob"]).await;
    let file = bob.recovery_file().unwrap();
    drop((alice, bob));
    let open = || Client::over(watched.store(), &world.services()).unwrap();

    mallory.ask_for_groups(&[user("alice")]).await.unwrap();
    let mut alice = open();
    watched.take();
    alice.sync().await.unwrap();
    assert_eq!(watched.take(), [0], "who is in no group of hers, for all that she has stored");
    drop(alice);
    let mut bob = restore(&world, &file).await;
    bob.ask_for_groups(&[]).await.unwrap();
    let mut alice = open();
    watched.take();
    let events = alice.sync().await.unwrap();
    assert!(has(&events, |event| matches!(event, Event::Readmitted { .. })), "{events:?}");
    let reads = watched.take();
    assert!(reads.len() == 1 && reads[0] >= 2, "{reads:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_knows_which_groups_the_saved_file_would_not_bring_back() {
    let world = World::whole().await;
    let (mut alice, mut bob) = (world.person("alice").await, world.person("bob").await);
    let mut carol = world.person("carol").await;
    let [club, pub_] = groups(&mut alice, &mut bob, ["alice", "bob"]).await;
    let state = |bob: &mut Client| bob.recovery_state().unwrap().unwrap();
    let never = state(&mut bob);
    assert_eq!((never.saved, never.missing.len(), never.left.len()), (None, 2, 0));
    let file = bob.recovery_file().unwrap();
    assert_eq!(state(&mut bob), never, "a file that was not kept brings nothing back");
    bob.recovery_saved(&file).unwrap();
    let kept = state(&mut bob);
    assert_eq!((kept.saved, kept.is_current(), kept.left.len()), (Some(file.saved()), true, 0));

    // A new one, whose only other member he asks anyway for others: the file does not name it.
    let den = bob.create_group("The Den").await.unwrap();
    bob.add(&den, &[user("alice")]).await.unwrap();
    assert_eq!(state(&mut bob).missing, std::slice::from_ref(&den));
    let file = bob.recovery_file().unwrap();
    bob.recovery_saved(&file).unwrap();
    assert!(state(&mut bob).is_current());
    // The same under another name is no other group.
    bob.reinit(&club, 3, false).await.unwrap();
    alice.sync().await.unwrap();
    bob.sync().await.unwrap();
    let next = bob.current(&club).unwrap();
    assert_ne!(next, club);
    assert_eq!(state(&mut bob).missing, []);
    assert_eq!(state(&mut bob).left, []);
    // Nor one of which somebody whom it names is still a member.
    bob.add(&next, &[user("carol")]).await.unwrap();
    assert!(state(&mut bob).is_current());
    // But those are gone, and the file knows nobody who could let him in.
    bob.remove(&next, &[user("alice")]).await.unwrap();
    assert_eq!(state(&mut bob).missing, std::slice::from_ref(&next));
    // And from one he is removed.
    alice.remove(&pub_, &[user("bob")]).await.unwrap();
    bob.sync().await.unwrap();
    assert_eq!(state(&mut bob).left, [pub_]);

    // Restored, it is the file that was restored from which counts.
    drop(bob);
    let mut bob = restore(&world, &file).await;
    let restored = state(&mut bob);
    assert_eq!((restored.saved, restored.is_current(), restored.left.len()), (Some(file.saved()), true, 0));
    bob.ask_for_groups(&[user("carol")]).await.unwrap();
    alice.sync().await.unwrap();
    carol.sync().await.unwrap();
    bob.sync().await.unwrap();
    assert_eq!(*bob.group(&next).unwrap().status(), Status::Active);
    assert_eq!(state(&mut bob).missing, [next], "he is back by Carol, whom the file does not name");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_linked_device_makes_no_recovery_file() {
    let world = World::whole().await;
    let mut laptop = world.person("alice").await;
    let mut phone = link(&world, &mut laptop, "phone").await;
    assert!(matches!(phone.recovery_file(), Err(ClientError::NoIdentityKey)));
    assert_eq!(phone.recovery_state().unwrap(), None, "so nobody is told to make one");
    world.stop().await;
}
