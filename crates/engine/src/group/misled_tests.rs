//! A committer that leaves a GroupInfo with another `external_pub` than the epoch's, well signed and sealed.

use conclave_authentication::CertificateAuthority;
use conclave_channel::law::DISPUTE_MS;
use ed25519_dalek::Signer as _;
use mls_rs_codec::MlsEncode as _;
use mls_rs_core::crypto::CipherSuiteProvider as _;

use super::{
    super::{
        Status,
        process::audit_tests::common::{NOW, Person, World, agree, dispute, domain, group_of},
        rejoin::tests::{opened, serve},
    },
    *,
};
use crate::{intent::Wish, mls_client::suite};

#[derive(MlsSize, MlsEncode)]
struct SignContent {
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    label: Vec<u8>,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    content: Vec<u8>,
}

/// A GroupInfo (an MLSMessage) with another X25519 key, and signed again by its signer (RFC 9420, sections 5.1.2 and 12.4.3).
fn with_another_key(signer: &Person, info: &[u8], key: Option<&[u8]>) -> Vec<u8> {
    // The extension's type, and the lengths of its data and of the key; the key is the 32 bytes after it.
    let place = info.windows(4).position(|window| window == [0, 4, 33, 32]).unwrap() + 4;
    let (_, public) = suite(signer.suite).unwrap().kem_generate().unwrap();
    let mut bytes = info.to_vec();
    bytes[place..place + 32].copy_from_slice(key.unwrap_or(public.as_ref()));
    // Version and wire format come before what is signed, and the signature's length and 64 bytes after it.
    let end = bytes.len() - 66;
    let signed = SignContent { label: b"MLS 1.0 GroupInfoTBS".to_vec(), content: bytes[4..end].to_vec() };
    let signature = signer.account.signature_key.sign(&signed.mls_encode_to_vec().unwrap()).to_bytes();
    bytes[end + 2..].copy_from_slice(&signature);
    bytes
}

/// Alice, Bob and Carol, and Dave, whose being added Bob could not apply, and the others could: he has to come back.
fn cast(world: &mut World) -> (Person, Person, Person, Person) {
    let other = CertificateAuthority::generate(&domain(), NOW).unwrap();
    let both = [&world.ca, &other];
    let mut alice = world.person_of("alice", &world.ca, &both);
    let mut carol = world.person_of("carol", &world.ca, &both);
    let mut dave = world.person_of("dave", &other, &both);
    let mut bob = world.person("bob");
    group_of(world, &mut [&mut alice, &mut bob, &mut carol]);
    let package = dave.key_package(world);
    alice.wish(Wish::Add { key_packages: vec![package] });
    alice.drive_now(world);
    dave.join(world);
    for person in [&mut bob, &mut carol] {
        person.drive_now(world);
    }
    bob.sync(&world.ds);
    assert!(bob.group().wants_rejoin());
    bob.account.issuers.push(other.certificate().to_vec());
    bob.mls.identities().set_issuers(bob.account.parsed_issuers());
    (alice, bob, carol, dave)
}

/// Alice commits, and leaves a false key for who comes back.
fn commit_falsely(world: &mut World, alice: &mut Person) {
    alice.wish(Wish::Update);
    alice.drive_now(world);
    let mut info = opened(world, alice.group());
    info.group_info = with_another_key(alice, &info.group_info, None);
    serve(world, alice.group(), &info);
}

fn told(person: &Person) -> Vec<&ClientUri> {
    fn by(event: &Event) -> Option<&ClientUri> {
        if let Event::Misled { by, .. } = event { Some(by) } else { None }
    }
    person.events.iter().filter_map(by).collect()
}

/// Bob comes back by what is served, nobody can apply it, and it is annulled.
fn in_vain(world: &mut World, bob: &mut Person, others: &mut [&mut Person]) {
    bob.begin_rejoin(world, false).unwrap();
    bob.drive_now(world);
    assert_eq!(*bob.group().status(), Status::Active, "for all that he knows");
    for person in others.iter_mut() {
        person.drive_now(world);
        assert!(matches!(person.group().status(), Status::Stuck { .. }));
    }
    world.ds.ahead += DISPUTE_MS + 60_001;
    for person in others.iter_mut() {
        person.drive_now(world);
        assert_eq!(*person.group().status(), Status::Active);
    }
    bob.sync(&world.ds);
    assert!(bob.group().wants_rejoin());
}

#[test]
fn what_is_forged_here_differs_in_the_key_alone() {
    let mut world = World::new();
    let (mut alice, mut bob, ..) = cast(&mut world);
    alice.wish(Wish::Update);
    alice.drive_now(&mut world);
    let mut info = opened(&world, alice.group());
    let place = info.group_info.windows(4).position(|window| window == [0, 4, 33, 32]).unwrap() + 4;
    let key = info.group_info[place..place + 32].to_vec();
    let again = with_another_key(&alice, &info.group_info, Some(&key));
    assert_eq!(again, info.group_info, "Ed25519 gives the same signature");
    info.group_info = again;
    serve(&mut world, alice.group(), &info);
    bob.sync(&world.ds);
    bob.begin_rejoin(&world, false).unwrap();
    bob.drive_now(&mut world);
    alice.sync(&world.ds);
    agree(&mut [&mut alice, &mut bob]);
}

#[test]
fn who_was_misled_names_the_signer_and_takes_nothing_more_of_it() {
    let mut world = World::new();
    let (mut alice, mut bob, mut carol, mut dave) = cast(&mut world);
    commit_falsely(&mut world, &mut alice);
    bob.sync(&world.ds);
    in_vain(&mut world, &mut bob, &mut [&mut alice, &mut carol, &mut dave]);
    assert_eq!(told(&bob), [&alice.account.client]);

    // Each commit of hers would cost the group another quarter of an hour.
    commit_falsely(&mut world, &mut alice);
    for restarts in [false, true] {
        bob.sync(&world.ds);
        let entries = world.ds.entries.len();
        let signer = alice.account.client.clone();
        assert_eq!(bob.begin_rejoin(&world, false), Err(RejoinError::Misled(signer.clone())));
        assert_eq!(bob.begin_rejoin(&world, true), Err(RejoinError::Misled(signer)), "nor if his user wants it");
        assert!(bob.group().wants_rejoin() && world.ds.entries.len() == entries, "he can ask");
        if restarts {
            bob.restart();
        }
    }

    // What Carol leaves is another matter.
    carol.wish(Wish::Update);
    carol.drive_now(&mut world);
    bob.sync(&world.ds);
    bob.begin_rejoin(&world, false).unwrap();
    bob.drive_now(&mut world);
    for person in [&mut alice, &mut carol, &mut dave] {
        person.sync(&world.ds);
    }
    agree(&mut [&mut alice, &mut bob, &mut carol, &mut dave]);
    assert_eq!(told(&bob).len(), 1);

    // After a while, she may have been wronged.
    let signed = Signed { by: alice.account.client.clone(), word: Hash::new([1; 32]) };
    let (now, group) = (world.ds.now(), bob.group());
    assert!(group.check_signer(&signed, now).is_err());
    assert!(group.check_signer(&signed, now.plus_ms(MISLED_MS)).is_ok());
}

#[test]
fn whose_way_back_went_down_with_an_earlier_commit_blames_nobody() {
    let mut world = World::new();
    let (mut alice, mut bob, mut carol, mut dave) = cast(&mut world);
    let doubter = carol.group().access().unwrap();
    alice.wish(Wish::Update);
    alice.drive_now(&mut world);
    let disputed = world.ds.ledger.as_ref().unwrap().open().len() - 1;
    bob.sync(&world.ds);
    bob.begin_rejoin(&world, false).unwrap();
    bob.drive_now(&mut world);
    assert_eq!(*bob.group().status(), Status::Active);
    dispute(&mut world, &doubter, disputed);
    world.ds.ahead += DISPUTE_MS + 600_000;
    carol.say("nobody answered");
    carol.drive_now(&mut world);
    for person in [&mut alice, &mut bob, &mut dave] {
        person.sync(&world.ds);
    }
    assert!(bob.events.iter().any(|event| matches!(event, Event::Annulled { .. })));
    assert_eq!(told(&bob), Vec::<&ClientUri>::new());
}
