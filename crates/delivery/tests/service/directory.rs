//! The directory of KeyPackages.

use conclave_names::{Timestamp, limits};
use conclave_protocol::{Code, Refusal, method, v1};
use mls_rs::CipherSuite;

use super::{
    key_packages::{Fault, Maker},
    world::*,
};

pub(crate) fn upload(
    world: &mut World,
    who: &Certified,
    key_packages: Vec<Vec<u8>>,
    last_resort: Vec<u8>,
) -> Result<u64, Refusal> {
    let request = world.sign_as(who, method::UPLOAD, &v1::UploadRequest { key_packages, last_resort });
    call!(world, upload, UPLOAD, request).map(|done| done.reply.available)
}

pub(crate) fn claim_request(n: u8, target: &str) -> v1::ClaimRequest {
    v1::ClaimRequest {
        target: target.to_owned(),
        cipher_suites: vec![1],
        idempotency_key: vec![n; 16],
        ..v1::ClaimRequest::default()
    }
}

pub(crate) fn claim(
    world: &mut World,
    who: &Certified,
    message: &v1::ClaimRequest,
) -> Result<v1::ClaimResponse, Refusal> {
    let request = world.sign_as(who, method::CLAIM, message);
    call!(world, claim, CLAIM, request).map(|done| done.reply)
}

pub(crate) fn count(world: &mut World, who: &Certified) -> Vec<v1::SuiteCount> {
    let request = world.sign_as(who, method::COUNT, &v1::CountRequest {});
    call!(world, count, COUNT, request).unwrap().reply.suites
}

pub(crate) const ALICE: &str = "mimi://example.com/u/alice";

#[test]
fn each_key_package_is_served_once_and_then_the_last_resort() {
    let mut world = World::new();
    let (alice, bob) = (world.certified("alice/laptop", 1), world.certified("bob/phone", 2));
    let identities = world.identities.clone();
    let maker = Maker::new(&alice, &identities);
    let packages = maker.some(2);
    let last = maker.make(Fault::LastResort);
    assert_eq!(upload(&mut world, &alice, packages.clone(), last.clone()).unwrap(), 2);
    assert_eq!(upload(&mut world, &alice, packages.clone(), last.clone()).unwrap(), 2, "a retry changes nothing");

    let mut served = Vec::new();
    for n in 0..4 {
        let mut reply = claim(&mut world, &bob, &claim_request(n, ALICE)).unwrap();
        assert_eq!((reply.key_packages.len(), reply.without.len()), (1, 0));
        let package = reply.key_packages.remove(0);
        assert_eq!(package.client, alice.uri.to_string());
        assert_eq!(package.last_resort, n >= 2);
        served.push(package.key_package);
    }
    assert_eq!(served, [packages[0].clone(), packages[1].clone(), last.clone(), last.clone()]);
    let counts = count(&mut world, &alice);
    assert_eq!(counts.len(), 1);
    assert!(counts[0].available == 0 && counts[0].last_resort && counts[0].last_resort_used);

    // A used one does not come back; the whole upload is refused.
    let fresh = maker.make(Fault::None);
    let mixed = vec![fresh.clone(), packages[0].clone()];
    let refusal = refused(upload(&mut world, &alice, mixed, vec![]), Code::KeyPackageInvalid);
    assert_eq!(refusal.number("index"), Some(1));
    assert_eq!(upload(&mut world, &alice, vec![], vec![]).unwrap(), 0);
    // But the same upload again, whose reply was lost, is no error.
    assert_eq!(upload(&mut world, &alice, packages, last.clone()).unwrap(), 0);
    // A new last resort takes the place of the old, which does not come back either.
    let newer = maker.make(Fault::LastResort);
    upload(&mut world, &alice, vec![fresh], newer.clone()).unwrap();
    assert!(!count(&mut world, &alice)[0].last_resort_used);
    refused(upload(&mut world, &alice, vec![maker.make(Fault::None)], last), Code::KeyPackageInvalid);
    claim(&mut world, &bob, &claim_request(8, ALICE)).unwrap();
    assert_eq!(claim(&mut world, &bob, &claim_request(9, ALICE)).unwrap().key_packages[0].key_package, newer);
}

#[test]
fn a_claim_sent_again_within_the_hour_gets_the_same() {
    let mut world = World::new();
    let (alice, bob) = (world.certified("alice/laptop", 1), world.certified("bob/phone", 2));
    let identities = world.identities.clone();
    upload(&mut world, &alice, Maker::new(&alice, &identities).some(3), vec![]).unwrap();
    let first = claim(&mut world, &bob, &claim_request(1, ALICE)).unwrap();
    assert_eq!(claim(&mut world, &bob, &claim_request(1, ALICE)).unwrap(), first);
    assert_eq!(count(&mut world, &alice)[0].available, 2);
    let other = v1::ClaimRequest { cipher_suites: vec![3], ..claim_request(1, ALICE) };
    refused(claim(&mut world, &bob, &other), Code::IdempotencyMismatch);
    // Another client's key of the same bytes is another one.
    let carol = world.certified("carol/phone", 3);
    assert_ne!(claim(&mut world, &carol, &claim_request(1, ALICE)).unwrap(), first);
    world.now = NOW.plus_ms(3_600_000);
    assert_ne!(claim(&mut world, &bob, &claim_request(1, ALICE)).unwrap(), first);
}

#[test]
fn each_client_of_a_user_gives_one_of_the_first_suite_it_has() {
    let mut world = World::new();
    let (laptop, phone) = (world.certified("alice/laptop", 1), world.certified("alice/phone", 2));
    let (watch, bob) = (world.certified("alice/watch", 3), world.certified("bob/phone", 4));
    let identities = world.identities.clone();
    upload(&mut world, &laptop, Maker::new(&laptop, &identities).some(1), vec![]).unwrap();
    let chacha = Maker { suite: CipherSuite::CURVE25519_CHACHA, ..Maker::new(&phone, &identities) };
    upload(&mut world, &phone, chacha.some(1), vec![]).unwrap();
    upload(&mut world, &watch, vec![], vec![]).unwrap();
    let both = v1::ClaimRequest { cipher_suites: vec![7, 3, 1], ..claim_request(1, ALICE) };
    let reply = claim(&mut world, &bob, &both).unwrap();
    let clients: Vec<_> = reply.key_packages.iter().map(|package| package.client.as_str()).collect();
    assert_eq!(clients, [laptop.uri.to_string(), phone.uri.to_string()]);
    assert_eq!(reply.without, [watch.uri.to_string()]);
    let one = claim(&mut world, &bob, &claim_request(2, &laptop.uri.to_string())).unwrap();
    assert_eq!((one.key_packages.len(), one.without), (0, vec![laptop.uri.to_string()]));
}

#[test]
fn bad_claims_are_refused() {
    let mut world = World::new();
    let bob = world.certified("bob/phone", 2);
    refused(claim(&mut world, &bob, &claim_request(1, ALICE)), Code::UserUnknown);
    for target in ["", "alice", "mimi://example.com/r/room", "mimi://other.org/u/alice", "mimi://other.org/d/a/b"] {
        refused(claim(&mut world, &bob, &claim_request(1, target)), Code::NameInvalid);
    }
    let with = |cipher_suites| v1::ClaimRequest { cipher_suites, ..claim_request(1, ALICE) };
    refused(claim(&mut world, &bob, &with(vec![])), Code::Malformed);
    refused(claim(&mut world, &bob, &with(vec![65_536])), Code::Malformed);
    refused(claim(&mut world, &bob, &with(vec![1; 17])), Code::TooLarge);
    let no_key = v1::ClaimRequest { idempotency_key: vec![], ..claim_request(1, ALICE) };
    refused(claim(&mut world, &bob, &no_key), Code::Malformed);
}

#[test]
fn only_certified_clients_are_served() {
    let mut world = World::new();
    let (alice, bob) = (world.certified("alice/laptop", 1), world.certified("bob/phone", 2));
    let message = claim_request(1, ALICE);
    let call = |world: &mut World, request: v1::SignedRequest| {
        world.store.write(|tx| world.service.claim(tx, &request, world.now))
    };
    let bare = world.sign(&bob.key, method::CLAIM, &message);
    refused(call(&mut world, bare), Code::CredentialInvalid);
    let mut stolen = world.sign(&bob.key, method::CLAIM, &message);
    stolen.certificate.clone_from(&alice.certificate);
    refused(call(&mut world, stolen), Code::CredentialInvalid);
    let mut nonsense = world.sign(&bob.key, method::CLAIM, &message);
    nonsense.certificate = vec![1; 100];
    refused(call(&mut world, nonsense), Code::CredentialInvalid);
    let request = world.sign_as(&bob, method::CLAIM, &message);
    refused(call(&mut world, request), Code::UserUnknown);
    world.now = NOW.plus_ms(61 * DAY_MS);
    let expired = world.sign_as(&bob, method::CLAIM, &message);
    refused(call(&mut world, expired), Code::CredentialInvalid);
    let mut unknown = World::new();
    unknown.identities.set_issuers(conclave_mls::credential::Issuers::new());
    let request = unknown.sign_as(&bob, method::CLAIM, &message);
    refused(call(&mut unknown, request), Code::CredentialInvalid);
}

#[test]
fn every_fault_of_a_key_package_refuses_the_upload() {
    let mut world = World::new();
    let (alice, bob) = (world.certified("alice/laptop", 1), world.certified("bob/phone", 2));
    let phone = world.certified("alice/phone", 1);
    let identities = world.identities.clone();
    let maker = Maker::new(&alice, &identities);
    let good = maker.make(Fault::None);
    let of = |who| Maker::new(who, &identities).make(Fault::None);
    let mut changed = good.clone();
    *changed.last_mut().unwrap() ^= 1;
    let longer = [good.as_slice(), &[0]].concat();
    let past = Maker { made: Timestamp(NOW.0 - 31 * DAY_MS), ..Maker::new(&alice, &identities) }.make(Fault::None);
    let future = Maker { made: NOW.plus_ms(DAY_MS), ..Maker::new(&alice, &identities) }.make(Fault::None);
    for (bad, code) in [
        (of(&bob), Code::KeyPackageForeign),
        (of(&phone), Code::KeyPackageForeign),
        (changed, Code::KeyPackageInvalid),
        (longer, Code::KeyPackageInvalid),
        (past, Code::KeyPackageInvalid),
        (future, Code::KeyPackageInvalid),
        (vec![], Code::KeyPackageInvalid),
        (vec![0, 1, 0, 5], Code::KeyPackageInvalid),
        (vec![0; limits::KEY_PACKAGE + 1], Code::TooLarge),
        (maker.make(Fault::LastResort), Code::KeyPackageInvalid),
        (maker.make(Fault::NoChannelKey), Code::KeyPackageInvalid),
        (maker.make(Fault::NoAddress), Code::KeyPackageInvalid),
        (maker.make(Fault::LongLife), Code::KeyPackageInvalid),
        (maker.make(Fault::OtherSigner), Code::KeyPackageInvalid),
    ] {
        let refusal = refused(upload(&mut world, &alice, vec![good.clone(), bad], vec![]), code);
        assert!(refusal.message.contains("KeyPackage 1"), "{refusal}");
    }
    refused(upload(&mut world, &alice, vec![], good.clone()), Code::KeyPackageInvalid);
    refused(upload(&mut world, &alice, vec![good.clone(); 101], vec![]), Code::TooLarge);
    assert!(count(&mut world, &alice).is_empty(), "nothing of all that was stored");
}

#[test]
fn a_reference_is_unique() {
    let mut world = World::new();
    let (alice, bob) = (world.certified("alice/laptop", 1), world.certified("bob/phone", 2));
    let identities = world.identities.clone();
    let maker = Maker::new(&alice, &identities);
    let (one, two, last) = (maker.make(Fault::None), maker.make(Fault::None), maker.make(Fault::LastResort));
    let double = vec![one.clone(), two.clone(), one.clone()];
    let refusal = refused(upload(&mut world, &alice, double, vec![]), Code::KeyPackageInvalid);
    assert_eq!(refusal.number("index"), Some(2));
    assert!(count(&mut world, &alice).is_empty(), "nothing of it was stored");

    let first = vec![one.clone(), two.clone()];
    assert_eq!(upload(&mut world, &alice, first.clone(), last.clone()).unwrap(), 2);
    // In another upload it is refused, as a last resort too, and nothing of that upload is stored.
    let other = vec![maker.make(Fault::None), two.clone()];
    assert_eq!(refused(upload(&mut world, &alice, other, vec![]), Code::KeyPackageInvalid).number("index"), Some(1));
    let refusal = refused(upload(&mut world, &alice, vec![], last.clone()), Code::KeyPackageInvalid);
    assert!(refusal.message.contains("last_resort"), "{refusal}");
    refused(upload(&mut world, &bob, vec![two.clone()], vec![]), Code::KeyPackageForeign);
    assert_eq!(count(&mut world, &alice)[0].available, 2);
    // The identical upload again is a retry for a day, whatever was served of it meanwhile.
    claim(&mut world, &bob, &claim_request(1, ALICE)).unwrap();
    assert_eq!(upload(&mut world, &alice, first.clone(), last.clone()).unwrap(), 1);
    world.now = NOW.plus_ms(DAY_MS);
    world.maintain();
    refused(upload(&mut world, &alice, first, last), Code::KeyPackageInvalid);
}

#[test]
fn the_directory_keeps_so_many_of_a_client_and_no_more() {
    let mut world = World::new();
    let alice = world.certified("alice/laptop", 1);
    let identities = world.identities.clone();
    let maker = Maker::new(&alice, &identities);
    for _ in 0..2 {
        upload(&mut world, &alice, maker.some(100), vec![]).unwrap();
    }
    let one = maker.some(1);
    refused(upload(&mut world, &alice, one, vec![]), Code::QuotaExceeded);
    assert_eq!(upload(&mut world, &alice, vec![], maker.make(Fault::LastResort)).unwrap(), 200);
    let chacha = Maker { suite: CipherSuite::CURVE25519_CHACHA, ..maker };
    assert_eq!(upload(&mut world, &alice, chacha.some(1), vec![]).unwrap(), 201);
}

#[test]
fn expired_key_packages_are_never_served() {
    let mut world = World::new();
    let (alice, bob) = (world.certified("alice/laptop", 1), world.certified("bob/phone", 2));
    let identities = world.identities.clone();
    let short = Maker { days: 5, ..Maker::new(&alice, &identities) };
    let long = Maker::new(&alice, &identities).some(1);
    upload(&mut world, &alice, short.some(2), short.make(Fault::LastResort)).unwrap();
    upload(&mut world, &alice, long.clone(), vec![]).unwrap();
    world.now = NOW.plus_ms(5 * DAY_MS);
    let first = claim(&mut world, &bob, &claim_request(1, ALICE)).unwrap();
    assert_eq!(first.key_packages[0].key_package, long[0]);
    let none = claim(&mut world, &bob, &claim_request(2, ALICE)).unwrap();
    assert_eq!((none.key_packages.len(), none.without.len()), (0, 1));
    assert!(count(&mut world, &alice).is_empty());
    world.maintain();
    let none = claim(&mut world, &bob, &claim_request(3, ALICE)).unwrap();
    assert_eq!(none.without.len(), 1);
}

#[test]
fn a_purge_takes_everything_of_the_caller_and_nothing_else() {
    let mut world = World::new();
    let (alice, bob) = (world.certified("alice/laptop", 1), world.certified("bob/phone", 2));
    let identities = world.identities.clone();
    let maker = Maker::new(&alice, &identities);
    let packages = maker.some(2);
    upload(&mut world, &alice, packages.clone(), maker.make(Fault::LastResort)).unwrap();
    upload(&mut world, &bob, Maker::new(&bob, &identities).some(1), vec![]).unwrap();
    let request = world.sign_as(&alice, method::PURGE, &v1::PurgeRequest {});
    let done = world.store.write(|tx| world.service.purge(tx, &request, world.now)).unwrap();
    assert_eq!(done.reply.removed, 3);
    assert!(count(&mut world, &alice).is_empty());
    assert_eq!(count(&mut world, &bob)[0].available, 1);
    refused(claim(&mut world, &bob, &claim_request(1, ALICE)), Code::UserUnknown);
    assert_eq!(upload(&mut world, &alice, packages, vec![]).unwrap(), 2, "what was not served may come again");
}
