//! A device whose profile is an older copy than its membership of a group is let into that again, over a real server.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::{SharedStore, World, has, texts, user};
use conclave_client::{Approval, Client, Event, Status, store::ProfileStore};
use conclave_engine::writes::{Room, Write};
use conclave_names::GroupUri;

fn open(world: &World, store: &SharedStore) -> Client {
    Client::over(Box::new(store.clone()), &world.services()).unwrap()
}

fn is_active(client: &Client, group: &GroupUri) -> bool {
    client.groups().unwrap().iter().any(|of| of.name == *group && of.status == Status::Active)
}

fn readmitted(event: &Event) -> bool {
    matches!(event, Event::Readmitted { .. })
}

/// Alice shares a group with Bob. Her profile is copied, she joins another of his, and says something in both; the copy is put back.
async fn put_back(world: &World) -> (Client, SharedStore, Client, [GroupUri; 2]) {
    let store = SharedStore::default();
    let mut alice = world.person_in(Box::new(store.clone()), "alice").await;
    let mut bob = world.person("bob").await;
    let before = alice.create_group("Before").await.unwrap();
    alice.add(&before, &[user("bob")]).await.unwrap();
    bob.sync().await.unwrap();
    alice.close();
    let copy = store.copy();
    let mut alice = open(world, &store);
    let after = bob.create_group("After").await.unwrap();
    bob.add(&after, &[user("alice")]).await.unwrap();
    alice.sync().await.unwrap();
    for group in [&before, &after] {
        alice.send(group, "newer").await.unwrap();
    }
    bob.sync().await.unwrap();
    drop(alice);
    (open(world, &copy), copy, bob, [before, after])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_comes_back_into_a_group_that_its_copy_does_not_know() {
    let world = World::whole().await;
    let (mut alice, _copy, mut bob, [before, after]) = Box::pin(put_back(&world)).await;
    alice.sync().await.unwrap();
    assert!(is_active(&alice, &before) && !alice.groups().unwrap().iter().any(|group| group.name == after));
    // She is a member as Bob sees it.
    assert_eq!(bob.group(&after).unwrap().members().unwrap().len(), 2);
    let asked = alice.ask_for_groups(&[user("bob")]).await.unwrap();
    assert_eq!(asked.devices, [bob.client().clone()]);
    let events = bob.sync().await.unwrap();
    let let_in: Vec<_> = events.iter().filter(|happened| readmitted(&happened.event)).collect();
    assert_eq!(let_in.len(), 1, "{events:?}");
    assert_eq!(let_in[0].group.as_ref(), Some(&after), "not where she follows the group");
    let events = alice.sync().await.unwrap();
    assert!(has(&events, |event| matches!(event, Event::Joined { .. })), "{events:?}");
    for group in [&before, &after] {
        alice.send(group, "back").await.unwrap();
        bob.sync().await.unwrap();
        bob.send(group, "welcome").await.unwrap();
        alice.sync().await.unwrap();
        assert_eq!(texts(&bob, group), ["newer", "back", "welcome"]);
        assert_eq!(texts(&alice, group), ["back", "welcome"]);
        assert_eq!(bob.group(group).unwrap().members().unwrap().len(), 2);
    }
    // Asked once more, nobody changes anything.
    alice.ask_for_groups(&[user("bob")]).await.unwrap();
    assert!(!has(&bob.sync().await.unwrap(), readmitted));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_identity_key_a_copy_is_let_in_after_another_device_has_approved_of_it() {
    let world = World::whole().await;
    let mut alice = world.person("alice").await;
    let mut bob = world.person("bob").await;
    let store = SharedStore::default();
    let pending = Client::start_link(Box::new(store.clone()), &world.services(), "alice", "phone").await.unwrap();
    let request = alice.link_request(pending.code()).await.unwrap();
    alice.approve_link(&request).await.unwrap();
    let Approval::Linked(phone) = pending.poll().await.unwrap() else { panic!("it was approved") };
    phone.close();
    let copy = store.copy();
    let mut phone = open(&world, &store);
    let club = bob.create_group("The Club").await.unwrap();
    bob.add(&club, &[user("alice")]).await.unwrap();
    phone.sync().await.unwrap();
    assert!(is_active(&phone, &club));
    drop(phone);

    // Who has the copy may be a thief: it has nothing that the phone did not have.
    let mut phone = open(&world, &copy);
    phone.ask_for_groups(&[user("bob")]).await.unwrap();
    assert!(!has(&bob.sync().await.unwrap(), readmitted));
    phone.sync().await.unwrap();
    assert!(!is_active(&phone, &club));
    // The laptop says that it is none.
    let pending = phone.ask_to_rotate().await.unwrap();
    let request = alice.link_request(pending.code()).await.unwrap();
    alice.approve_link(&request).await.unwrap();
    assert!(phone.rotate_if_approved(&pending).await.unwrap().is_some());
    phone.ask_for_groups(&[user("bob")]).await.unwrap();
    let events = bob.sync().await.unwrap();
    assert!(has(&events, readmitted), "{events:?}");
    phone.sync().await.unwrap();
    assert!(is_active(&phone, &club));
    phone.send(&club, "back").await.unwrap();
    bob.sync().await.unwrap();
    assert_eq!(texts(&bob, &club), ["back"]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_restored_and_never_got_the_answer_is_let_in_when_it_asks_again() {
    let world = World::whole().await;
    let bobs = SharedStore::default();
    let mut alice = world.person("alice").await;
    let mut bob = world.person_in(Box::new(bobs.clone()), "bob").await;
    let club = alice.create_group("The Club").await.unwrap();
    alice.add(&club, &[user("bob")]).await.unwrap();
    bob.sync().await.unwrap();
    let file = alice.recovery_file().unwrap();
    drop(alice);
    let store = SharedStore::default();
    let mut alice = Client::restore(Box::new(store.clone()), &world.services(), &file).await.unwrap();
    alice.ask_for_groups(&[]).await.unwrap();
    assert!(has(&bob.sync().await.unwrap(), readmitted));
    // It was away until the server had dropped the Welcome.
    let welcomes = "DELETE FROM ds_entries WHERE kind = 4";
    assert!(world.database().execute(welcomes, ()).unwrap() > 0);
    alice.sync().await.unwrap();
    assert!(!is_active(&alice, &club));
    // An hour later: Bob lets nobody in twice in that time, and the identity key vouches once.
    let mut asking: serde_json::Value =
        serde_json::from_slice(&store.get(Room::ACCOUNT, b"asking").unwrap().unwrap()).unwrap();
    asking["vouched"] = 0.into();
    let value = serde_json::to_vec(&asking).unwrap().into();
    store.clone().apply(&[Write::Put { room: Room::ACCOUNT, key: b"asking".to_vec(), value }]).unwrap();
    drop((alice, bob));
    let answered = |row: &(Vec<u8>, _)| row.0.windows(10).any(|part| part == b"\0answered/");
    let rows = bobs.scan(Room::GROUP, b"").unwrap().into_iter().filter(answered);
    let gone: Vec<_> = rows.map(|(key, _)| Write::Delete { room: Room::GROUP, key }).collect();
    assert_eq!(gone.len(), 1);
    bobs.clone().apply(&gone).unwrap();
    let (mut alice, mut bob) = (open(&world, &store), open(&world, &bobs));
    alice.ask_for_groups(&[]).await.unwrap();
    assert!(has(&bob.sync().await.unwrap(), readmitted));
    alice.sync().await.unwrap();
    assert!(is_active(&alice, &club));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_in_no_group_of_ours_is_not_heard_and_who_knocks_too_often_not_any_more() {
    let world = World::whole().await;
    let store = SharedStore::default();
    let (mut alice, mut mallory) = (world.person("alice").await, world.person("mallory").await);
    let mut bob = world.person_in(Box::new(store.clone()), "bob").await;
    let club = alice.create_group("The Club").await.unwrap();
    alice.add(&club, &[user("bob")]).await.unwrap();
    bob.sync().await.unwrap();
    let heard = || store.scan(Room::ACCOUNT, b"heard/").unwrap();
    for _ in 0..3 {
        mallory.ask_for_groups(&[user("bob")]).await.unwrap();
        bob.sync().await.unwrap();
    }
    assert!(heard().is_empty(), "nobody knows Mallory, and nothing is kept of her");
    // Alice is known, and says each time that she has lost nothing.
    for _ in 0..9 {
        alice.ask_for_groups(&[user("bob")]).await.unwrap();
        bob.sync().await.unwrap();
    }
    let rows = heard();
    assert_eq!((rows.len(), u64::from_be_bytes(*rows[0].1.last_chunk::<8>().unwrap())), (1, 8), "of nine");
    // Now she has. Today that is too late; tomorrow it is not.
    let file = alice.recovery_file().unwrap();
    drop(alice);
    let mut alice = Client::restore(Box::new(SharedStore::default()), &world.services(), &file).await.unwrap();
    alice.ask_for_groups(&[]).await.unwrap();
    assert!(!has(&bob.sync().await.unwrap(), readmitted));
    let (key, value) = rows[0].clone();
    let since = u64::from_be_bytes(*value.first_chunk::<8>().unwrap()) - 86_400_000;
    let value = [since.to_be_bytes(), 8_u64.to_be_bytes()].concat().into();
    store.clone().apply(&[Write::Put { room: Room::ACCOUNT, key, value }]).unwrap();
    alice.ask_for_groups(&[]).await.unwrap();
    assert!(has(&bob.sync().await.unwrap(), readmitted));
    alice.sync().await.unwrap();
    assert!(is_active(&alice, &club));
    world.stop().await;
}
