//! A client that changes its signature key, in all of its groups (RFC 9420, sections 5.3.1 and 7.3; RFC 9750, sections 4 and 8.2.2).

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use common::{SharedStore, World, dying, has, noted, texts, user};
use conclave_client::{
    Approval, Client, ClientError, Event, Handshakes, Membership, Registration, Status,
    store::{MemoryStore, ProfileStore},
};
use conclave_engine::{account::Account, writes::Room};
use conclave_names::GroupUri;
use conclave_protocol::Code;

fn account(store: &SharedStore) -> Account {
    Account::from_row(&store.get(Room::ACCOUNT, Account::KEY).unwrap().unwrap()).unwrap()
}

fn key_changed(event: &Event) -> bool {
    matches!(event, Event::KeyChanged { member, .. } if member.user() == &user("bob"))
}

/// Every leaf's signature key that the directory has of Bob.
fn at_the_directory(world: &World) -> BTreeSet<Vec<u8>> {
    use mls_rs_codec::MlsDecode as _;
    let database = world.database();
    let mut rows = database.prepare("SELECT bytes FROM ds_key_packages WHERE client LIKE '%/bob/%'").unwrap();
    let packages = rows.query_map((), |row| row.get::<_, Vec<u8>>(0)).unwrap();
    let key = |bytes: Vec<u8>| {
        let message = mls_rs::MlsMessage::mls_decode(&mut bytes.as_slice()).unwrap();
        message.as_key_package().unwrap().signing_identity().signature_key.as_bytes().to_vec()
    };
    packages.map(|bytes| key(bytes.unwrap())).collect()
}

/// A private and a visible group of Alice's, with Bob in both.
async fn groups(alice: &mut Client, bob: &mut Client) -> [GroupUri; 2] {
    let visible = Handshakes::Visible { external_senders: Vec::new() };
    let groups = [
        alice.create_group_in("Private", Handshakes::Private, 1).await.unwrap(),
        alice.create_group_in("Visible", visible, 1).await.unwrap(),
    ];
    for group in &groups {
        alice.add(group, &[user("bob")]).await.unwrap();
    }
    bob.sync().await.unwrap();
    groups
}

async fn talk(from: &mut Client, to: &mut Client, groups: &[GroupUri], text: &str) {
    for group in groups {
        from.send(group, text).await.unwrap();
    }
    to.sync().await.unwrap();
    for group in groups {
        assert_eq!(texts(to, group).last().map(String::as_str), Some(text));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_goes_to_the_authentication_service_the_directory_and_every_group() {
    let world = World::whole().await;
    let store = SharedStore::default();
    let mut alice = world.person("alice").await;
    let mut bob = world.person_in(Box::new(store.clone()), "bob").await;
    let groups = groups(&mut alice, &mut bob).await;
    talk(&mut bob, &mut alice, &groups, "by the old key").await;
    let (old, identity) = (bob.signature_key(), bob.identity_key());
    let safety = bob.safety_number(&user("alice"), &alice.identity_key());

    let rotated = bob.rotate_keys().await.unwrap();
    assert!(rotated.waiting.is_empty() && rotated.problem.is_none(), "{rotated:?}");
    let new = bob.signature_key();
    assert_ne!(new, old);
    assert_eq!(bob.identity_key(), identity);
    assert_eq!(bob.safety_number(&user("alice"), &alice.identity_key()), safety);
    assert_eq!(at_the_directory(&world), [new.to_vec()].into());
    let record = bob.user_record(&user("bob")).await.unwrap();
    assert_eq!(record.clients.len(), 1, "it is the same device");

    let events = alice.sync().await.unwrap();
    assert_eq!(events.iter().filter(|happened| key_changed(&happened.event)).count(), 2, "{events:?}");
    assert!(!has(&events, |event| matches!(event, Event::IdentityChanged { .. })));
    for group in &groups {
        assert_eq!((noted(&alice, group, "key_changed"), noted(&bob, group, "key_changed")), (1, 1));
        let log = alice.membership_log(group).unwrap();
        let change = log.iter().find(|change| change.change == Membership::KeyChanged).unwrap();
        assert_eq!(change.by.as_ref(), Some(bob.client()));
    }
    talk(&mut bob, &mut alice, &groups, "by the new key").await;
    talk(&mut alice, &mut bob, &groups, "to the new key").await;
    // New groups, and the next rotation.
    let club = alice.create_group("The Club").await.unwrap();
    alice.add(&club, &[user("bob")]).await.unwrap();
    drop(bob);
    let mut bob = Client::over(Box::new(store.clone()), &world.services()).unwrap();
    bob.sync().await.unwrap();
    bob.rotate_keys().await.unwrap();
    let all = [groups[0].clone(), groups[1].clone(), club];
    alice.sync().await.unwrap();
    talk(&mut bob, &mut alice, &all, "by the third key").await;
    assert_eq!(at_the_directory(&world), [bob.signature_key().to_vec()].into());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_dies_between_any_two_steps_goes_on() {
    let world = World::whole().await;
    let mut alice = world.person("alice").await;
    let store = SharedStore::default();
    let mut bob = world.person_in(Box::new(store.clone()), "bob").await;
    let groups = groups(&mut alice, &mut bob).await;
    drop(bob);
    let mut steps = 0;
    loop {
        let before = account(&store).signature_key.verifying_key().to_bytes();
        let left = Arc::new(AtomicUsize::new(steps));
        let mut bob = Client::over(dying(&store, &left), &world.services()).unwrap();
        let rotated = bob.rotate_keys().await;
        let survived = left.load(Ordering::SeqCst) > 0;
        drop(bob);
        // What was stored suffices: for the key that was begun, or for the old one.
        let begun = account(&store).rotation.next.map(|next| next.key.verifying_key().to_bytes());
        let mut bob = Client::over(Box::new(store.clone()), &world.services()).unwrap();
        bob.sync().await.unwrap();
        match (steps, begun) {
            (0, begun) => assert!(begun.is_none() && bob.signature_key() == before),
            (_, Some(begun)) => assert_eq!(bob.signature_key(), begun, "step {steps}"),
            (_, None) => assert_ne!(bob.signature_key(), before, "step {steps}"),
        }
        assert!(bob.groups_without_new_key().unwrap().is_empty());
        assert!(account(&store).rotation.next.is_none());
        assert_eq!(at_the_directory(&world), [bob.signature_key().to_vec()].into(), "step {steps}");
        alice.sync().await.unwrap();
        let text = format!("after step {steps}");
        talk(&mut bob, &mut alice, &groups, &text).await;
        talk(&mut alice, &mut bob, &groups, &text).await;
        if survived {
            assert!(rotated.unwrap().problem.is_none());
            bob.renew_credential().await.unwrap();
            break;
        }
        steps += 1;
    }
    assert!(steps > 5, "{steps}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_authentication_service_is_away_or_refuses_the_old_key_goes_on() {
    let mut world = World::split().await;
    let store = SharedStore::default();
    let mut alice = world.person("alice").await;
    let mut bob = world.person_in(Box::new(store.clone()), "bob").await;
    let groups = groups(&mut alice, &mut bob).await;
    let old = bob.signature_key();

    // It refuses.
    let database = rusqlite::Connection::open(world.directories[0].path().join("conclave.db")).unwrap();
    database.busy_timeout(Duration::from_secs(10)).unwrap();
    let registered: Vec<u8> =
        database.query_row("SELECT identity_key FROM as_users WHERE user LIKE '%/bob'", (), |row| row.get(0)).unwrap();
    let set = |key: &[u8]| {
        database.execute("UPDATE as_users SET identity_key = ?1 WHERE user LIKE '%/bob'", [key]).unwrap();
    };
    set(&[9; 32]);
    let refused = bob.rotate_keys().await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::IdentityMismatch), "{refused}");
    assert!(account(&store).rotation.next.is_none(), "it is given up");
    assert_eq!(bob.signature_key(), old);
    talk(&mut bob, &mut alice, &groups, "as before").await;
    set(&registered);

    // It is away.
    let running = world.authentication.take().unwrap();
    let listen = running.addr();
    running.shutdown().await;
    bob.set_deadline(Duration::from_millis(100));
    let refused = bob.rotate_keys().await.unwrap_err();
    assert!(refused.is_transient(), "{refused}");
    let begun = account(&store).rotation.next.unwrap().key.verifying_key().to_bytes();
    assert_eq!(bob.signature_key(), old);
    bob.set_deadline(Duration::from_secs(30));
    drop(bob);
    let mut bob = Client::over(Box::new(store.clone()), &world.services_with(listen)).unwrap();
    bob.set_deadline(Duration::from_millis(500));
    talk(&mut alice, &mut bob, &groups, "read all the same").await;
    drop(bob);

    // It is back.
    authentication_for(&mut world, listen, Duration::from_secs(86_400)).await;
    let mut bob = Client::over(Box::new(store.clone()), &world.services()).unwrap();
    bob.sync().await.unwrap();
    assert_eq!(bob.signature_key(), begun, "the key that was begun, not another");
    alice.sync().await.unwrap();
    talk(&mut bob, &mut alice, &groups, "by the new key").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_linked_device_has_its_new_key_approved() {
    let world = World::whole().await;
    let mut laptop = world.person("alice").await;
    let pending = Client::start_link(Box::new(MemoryStore::new()), &world.services(), "alice", "phone").await.unwrap();
    let request = laptop.link_request(pending.code()).await.unwrap();
    laptop.approve_link(&request).await.unwrap();
    let Approval::Linked(mut phone) = pending.poll().await.unwrap() else { panic!("it was approved") };
    let club = laptop.create_group("The Club").await.unwrap();
    laptop.add(&club, &[user("alice")]).await.unwrap();
    phone.sync().await.unwrap();
    let old = phone.signature_key();
    let refused = phone.rotate_keys().await.unwrap_err();
    assert!(matches!(refused, ClientError::NeedsApproval) && refused.to_string().contains("device add"), "{refused}");

    let asked = phone.ask_to_rotate().await.unwrap();
    assert!(phone.rotate_if_approved(&asked).await.unwrap().is_none());
    assert_eq!(phone.signature_key(), old);
    let request = laptop.link_request(asked.code()).await.unwrap();
    assert_eq!(request.client, *phone.client());
    laptop.approve_link(&request).await.unwrap();
    let rotated = phone.rotate_if_approved(&asked).await.unwrap().unwrap();
    assert!(rotated.waiting.is_empty() && rotated.problem.is_none(), "{rotated:?}");
    assert_ne!(phone.signature_key(), old);
    let events = laptop.sync().await.unwrap();
    let changed = |event: &Event| matches!(event, Event::KeyChanged { member, .. } if member == phone.client());
    assert!(has(&events, changed), "{events:?}");
    let said = [club];
    talk(&mut phone, &mut laptop, &said, "from the phone").await;
    talk(&mut laptop, &mut phone, &said, "to the phone").await;
    world.stop().await;
}

/// RFC 9750, section 8.2.2, for who has copied the store of a linked device: the whole way, through a real server.
#[tokio::test(flavor = "multi_thread")]
async fn a_copied_store_reads_nothing_after_the_owners_rotation() {
    let world = World::whole().await;
    let mut alice = world.person("alice").await;
    let mut laptop = world.person("bob").await;
    let store = SharedStore::default();
    let pending = Client::start_link(Box::new(store.clone()), &world.services(), "bob", "phone").await.unwrap();
    let request = laptop.link_request(pending.code()).await.unwrap();
    laptop.approve_link(&request).await.unwrap();
    let Approval::Linked(mut phone) = pending.poll().await.unwrap() else { panic!("it was approved") };
    let groups = groups(&mut alice, &mut phone).await;
    laptop.sync().await.unwrap();
    drop(phone);
    let stolen = store.copy();
    let mut phone = Client::over(Box::new(store.clone()), &world.services()).unwrap();
    for group in &groups {
        alice.send(group, "between theft and rotation").await.unwrap();
    }
    phone.sync().await.unwrap();
    // Certificates are dated by the second, and of two of one second neither is the older one.
    let second = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let certified = second();
    while second() == certified {
        tokio::task::yield_now().await;
    }
    let asked = phone.ask_to_rotate().await.unwrap();
    let request = laptop.link_request(asked.code()).await.unwrap();
    laptop.approve_link(&request).await.unwrap();
    phone.rotate_if_approved(&asked).await.unwrap().unwrap();
    alice.sync().await.unwrap();
    talk(&mut alice, &mut phone, &groups, "after the rotation").await;
    talk(&mut phone, &mut alice, &groups, "from the owner").await;

    let mut thief = Client::over(Box::new(stolen), &world.services()).unwrap();
    let secret =
        |thief: &Client| groups.iter().any(|group| texts(thief, group).iter().any(|text| !text.starts_with("between")));
    for _ in 0..3 {
        // Whatever it is told, it reads nothing of that.
        let _ = thief.sync().await;
        assert!(!secret(&thief));
        for group in &groups {
            let _ = thief.rejoin(group).await;
            assert_ne!(*thief.group(group).unwrap().status(), Status::Active, "it does not come back");
        }
        alice.sync().await.unwrap();
        phone.sync().await.unwrap();
    }
    assert!(!secret(&thief));
    // It gets no new certificate, and so the key ends with the one that it has.
    let refused = thief.renew_credential().await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::KeyReplaced), "{refused}");
    assert!(refused.to_string().contains("keys rotate"), "{refused}");
    // Its owner is a member as before, and a removal of anybody shuts the copy out of the channel as well.
    talk(&mut phone, &mut alice, &groups, "still here").await;
    for group in &groups {
        let member = |of: &Client, client: &mut Client| {
            client.group(group).unwrap().members().unwrap().iter().any(|member| member.client == *of.client())
        };
        assert!(member(&phone, &mut alice));
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_its_groups_learns_of_it_and_goes_on() {
    let world = World::whole().await;
    let mut alice = world.person("alice").await;
    let mut bob = world.person("bob").await;
    let groups = groups(&mut alice, &mut bob).await;
    alice.send(&groups[0], "first").await.unwrap();
    let mut listener = bob.listen();
    listener.next().await.unwrap();
    // Between two events of a stream that goes on.
    let rotated = listener.client().rotate_keys().await.unwrap();
    assert!(rotated.problem.is_none(), "{rotated:?}");
    for group in &groups {
        alice.send(group, "to who listens").await.unwrap();
    }
    let mut heard = 0;
    let listened = async {
        while heard < 2 {
            let events = listener.next().await.unwrap();
            let said =
                |event: &Event| matches!(event, Event::Message { text: Some(text), .. } if text == "to who listens");
            heard += events.iter().filter(|happened| said(&happened.event)).count();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), listened).await.unwrap();
    world.stop().await;
}

/// KeyPackages of the old key that somebody claimed before are still good for an invitation.
#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_by_the_old_key_is_taken_up_and_renewed() {
    let world = World::whole().await;
    let mut alice = world.person("alice").await;
    let store = SharedStore::default();
    let registration = Registration { user: "bob".into(), device: "laptop".into(), invite: None };
    let mut bob = Client::register(Box::new(store.clone()), &world.services(), registration).await.unwrap();
    let club = alice.create_group("The Club").await.unwrap();
    alice.add(&club, &[user("bob")]).await.unwrap();
    bob.rotate_keys().await.unwrap();
    assert_eq!(*bob.group(&club).unwrap().status(), Status::Active);
    assert!(bob.groups_without_new_key().unwrap().is_empty());
    assert_eq!(bob.former_signature_keys(), 1, "others may have claimed more");
    let said = [club];
    let events = alice.sync().await.unwrap();
    assert!(has(&events, key_changed), "{events:?}");
    talk(&mut bob, &mut alice, &said, "here").await;
    world.stop().await;
}

/// Starts the Authentication Service of a split world again, where it was.
async fn authentication_for(world: &mut World, listen: std::net::SocketAddr, lifetime: Duration) {
    if let Some(running) = world.authentication.take() {
        running.shutdown().await;
    }
    let config = conclave_server::Config {
        delivery: false,
        listen,
        credential_lifetime: lifetime,
        ..conclave_server::Config::for_tests(world.directories[0].path(), common::domain())
    };
    world.authentication = Some(conclave_server::Server::start(config).await.unwrap());
}

/// While the Authentication Service is away, nothing but the renewal waits; and who listens renews when it is time (R38).
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_in_time_and_keeps_nobody_from_reading() {
    let mut world = World::split().await;
    let listen = world.authentication.as_ref().unwrap().addr();
    let store = SharedStore::default();
    let mut alice = world.person("alice").await;
    // Certificates begin an hour ago, and are renewed after two thirds of their life: these two seconds after they were issued.
    authentication_for(&mut world, listen, Duration::from_secs(1803)).await;
    let mut bob = world.person_in(Box::new(store.clone()), "bob").await;
    let groups = groups(&mut alice, &mut bob).await;
    alice.send(&groups[0], "first").await.unwrap();
    let mut listener = bob.listen();
    listener.next().await.unwrap();
    let caught_up = account(&store).certificate;
    let listened = async {
        while account(&store).certificate == caught_up {
            // Each group takes the new one.
            listener.next().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), listened).await.unwrap();
    drop(bob);

    world.authentication.take().unwrap().shutdown().await;
    let before = account(&store).certificate;
    let mut bob = Client::over(Box::new(store.clone()), &world.services_with(listen)).unwrap();
    bob.set_deadline(Duration::from_millis(300));
    while account(&store).renew_after().unwrap() > now() {
        bob.sync().await.unwrap();
    }
    talk(&mut alice, &mut bob, &groups, "read without a new certificate").await;
    assert_eq!(account(&store).certificate, before);
    authentication_for(&mut world, listen, Duration::from_secs(86_400)).await;
    bob.set_deadline(Duration::from_secs(30));
    bob.sync().await.unwrap();
    assert_ne!(account(&store).certificate, before);
    world.stop().await;
}

fn now() -> conclave_names::Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    conclave_names::Timestamp(u64::try_from(since.as_millis()).unwrap())
}
