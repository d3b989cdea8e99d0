//! A committer that leaves a GroupInfo with another `external_pub` than the epoch's, well signed and sealed.

use conclave_authentication::CertificateAuthority;
use conclave_channel::law::DISPUTE_MS;
use conclave_mls::signing::sign;
use conclave_names::Epoch;
use mls_rs_core::crypto::CipherSuiteProvider as _;

use super::{
    super::{
        Handshakes, Status,
        process::audit_tests::common::{NOW, Person, World, agree, dispute, domain, group_of},
        rejoin::tests::{opened, serve},
    },
    *,
};
use crate::{
    intent::Wish,
    mls_client::{signature_secret, suite},
};

/// A GroupInfo (an MLSMessage) with another X25519 key, and signed again by its signer (RFC 9420, sections 5.1.2 and 12.4.3).
fn with_another_key(signer: &Person, info: &[u8], key: Option<&[u8]>) -> Vec<u8> {
    // The extension's type, and the lengths of its data and of the key; the key is the 32 bytes after it.
    let place = info.windows(4).position(|window| window == [0, 4, 33, 32]).unwrap() + 4;
    let (_, public) = suite(signer.suite).unwrap().kem_generate().unwrap();
    let mut bytes = info.to_vec();
    bytes[place..place + 32].copy_from_slice(key.unwrap_or(public.as_ref()));
    signed_again(signer, bytes)
}

/// One with another confirmation tag.
fn with_another_tag(signer: &Person, info: &[u8]) -> Vec<u8> {
    let mut bytes = info.to_vec();
    // The signer's leaf is between it and the signature.
    let last = bytes.len() - 66 - 4 - 1;
    bytes[last] ^= 1;
    signed_again(signer, bytes)
}

fn signed_again(signer: &Person, mut bytes: Vec<u8>) -> Vec<u8> {
    // Version and wire format come before what is signed, and the signature's length and 64 bytes after it.
    let end = bytes.len() - 66;
    let (provider, key) = (suite(signer.suite).unwrap(), signature_secret(&signer.account.signature_key));
    let signature = sign(&provider, &key, "GroupInfoTBS", &bytes[4..end]).unwrap();
    bytes[end + 2..].copy_from_slice(&signature);
    bytes
}

/// Alice, Bob and Carol, and Dave, whose being added Bob could not apply, and the others could: he has to come back.
fn cast(world: &mut World) -> (Person, Person, Person, Person) {
    cast_in(world, Handshakes::Private)
}

fn cast_in(world: &mut World, handshakes: Handshakes) -> (Person, Person, Person, Person) {
    let other = CertificateAuthority::generate(&domain(), NOW).unwrap();
    let both = [&world.ca, &other];
    let mut alice = world.person_of("alice", &world.ca, &both);
    let mut carol = world.person_of("carol", &world.ca, &both);
    let mut dave = world.person_of("dave", &other, &both);
    let mut bob = world.person("bob");
    alice.handshakes = handshakes;
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
    leave(world, alice, |alice, info| with_another_key(alice, info, None));
}

/// Has the DS serve something else than the newest commit has left.
fn leave(world: &mut World, alice: &mut Person, change: impl FnOnce(&Person, &[u8]) -> Vec<u8>) {
    if alice.group().is_visible() {
        world.ds.group_info.1 = change(alice, &world.ds.group_info.1);
        return;
    }
    let mut info = opened(world, alice.group());
    info.group_info = change(alice, &info.group_info);
    serve(world, alice.group(), &info);
}

/// Has a person look at what is served, as one that has acknowledged a commit. Gives what it tells.
fn vet(world: &World, person: &mut Person) -> Option<Event> {
    let (epoch, served) = &world.ds.group_info;
    let mut events = Vec::new();
    person.group().vet_group_info(*epoch, served, world.ds.now(), &mut events).unwrap();
    person.save();
    assert!(events.len() < 2, "{events:?}");
    events.pop()
}

/// That it leads nowhere, and who has signed it.
fn is_false(by: Option<&Person>, epoch: Epoch) -> Event {
    Event::FalseGroupInfo { by: by.map(|by| by.account.client.clone()), epoch }
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

#[test]
fn who_acknowledges_a_commit_finds_what_leads_nowhere_and_leaves_what_is_true() {
    for handshakes in [Handshakes::Private, Handshakes::Visible { external_senders: Vec::new() }] {
        let mut world = World::new();
        let (mut alice, mut bob, mut carol, mut dave) = cast_in(&mut world, handshakes);
        assert!(carol.group().wants_group_info(), "she has acknowledged that Dave was added");
        assert_eq!(vet(&world, &mut carol), None, "what is true");
        assert!(!carol.group().wants_group_info());

        commit_falsely(&mut world, &mut alice);
        carol.sync(&world.ds);
        assert!(!carol.group().wants_group_info(), "not each commit is looked at");
        world.ds.ahead += 2 * 3_600_000;
        carol.drive_now(&mut world);
        assert!(carol.group().wants_group_info());
        let epoch = carol.group().epoch();
        assert_eq!(vet(&world, &mut carol), Some(is_false(Some(&alice), epoch)));
        carol.restart();
        carol.drive_now(&mut world);
        assert_eq!((carol.group().epoch(), world.ds.group_info.0), (epoch.next(), epoch.next()));

        // So he comes back at once, and nobody stands still for it.
        bob.sync(&world.ds);
        assert_eq!(bob.begin_rejoin(&world, false), Ok(()));
        bob.drive_now(&mut world);
        for person in [&mut alice, &mut carol, &mut dave] {
            person.sync(&world.ds);
        }
        bob.sync(&world.ds);
        agree(&mut [&mut alice, &mut bob, &mut carol, &mut dave]);
        assert!(told(&bob).is_empty());
        // Nor does she take anything of Alice's for a while.
        let signed = Signed { by: alice.account.client.clone(), word: Hash::new([1; 32]) };
        let now = world.ds.now();
        assert!(carol.group().check_signer(&signed, now).is_err());
    }
}

#[test]
fn each_kind_of_what_leads_nowhere_is_found_and_only_who_has_signed_is_named() {
    type Change = fn(&Person, &[u8]) -> Vec<u8>;
    fn flipped(_: &Person, info: &[u8]) -> Vec<u8> {
        // In the signature.
        let mut bytes = info.to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        bytes
    }
    fn flipped_key(signer: &Person, info: &[u8]) -> Vec<u8> {
        flipped(signer, &with_another_key(signer, info, None))
    }
    let kinds: [(&str, Change, Option<bool>); 5] = [
        ("another key", |alice, info| with_another_key(alice, info, None), Some(true)),
        ("another tag", with_another_tag, Some(true)),
        ("another key that nobody signed", flipped_key, Some(false)),
        ("nothing of MLS", |_, _| vec![7; 300], Some(false)),
        ("what is true", |_, info| info.to_vec(), None),
    ];
    for handshakes in [Handshakes::Private, Handshakes::Visible { external_senders: Vec::new() }] {
        for (what, change, expected) in kinds {
            let mut world = World::new();
            let (mut alice, _, mut carol, _) = cast_in(&mut world, handshakes.clone());
            alice.wish(Wish::Update);
            alice.drive_now(&mut world);
            leave(&mut world, &mut alice, change);
            let wrong_epoch = vet(&world, &mut carol);
            assert_eq!(
                (wrong_epoch, carol.group().wants_group_info()),
                (None, true),
                "{what}: she has not read so far"
            );
            carol.sync(&world.ds);
            let epoch = carol.group().epoch();
            let expects = expected.map(|signed| is_false(signed.then_some(&alice), epoch));
            assert_eq!(vet(&world, &mut carol), expects, "{what}");
            assert_eq!(carol.group().intents.len(), usize::from(expected.is_some()), "{what}");
        }
    }
}

/// A server that serves nonsense whatever is left there has members make no commit after the other.
#[test]
fn what_a_server_makes_up_is_mended_more_and_more_seldom() {
    let mut world = World::new();
    let (_, _, mut carol, _) = cast(&mut world);
    let mut commits = Vec::new();
    for minute in 0..40_u64 {
        world.ds.group_info = (carol.group().epoch(), vec![7; 300]);
        carol.group().vets = true;
        let epoch = carol.group().epoch();
        assert_eq!(vet(&world, &mut carol), Some(is_false(None, epoch)));
        carol.drive_now(&mut world);
        if carol.group().epoch() > epoch {
            commits.push(minute);
        }
        world.ds.ahead += 60_000;
        if minute % 10 == 0 {
            carol.restart();
        }
    }
    // Her clock is a minute ahead.
    assert_eq!(commits, [0, 2, 4, 8, 16, 32]);
    // Once what is left there is served, the count begins anew.
    carol.wish(Wish::Update);
    carol.drive_now(&mut world);
    carol.group().vets = true;
    assert_eq!(vet(&world, &mut carol), None);
    world.ds.group_info.1 = vec![7; 300];
    carol.group().vets = true;
    let epoch = carol.group().epoch();
    assert_eq!(vet(&world, &mut carol), Some(is_false(None, epoch)));
    assert_eq!(carol.group().intents.len(), 1);
}
