//! Claims that say what the group requires.

use conclave_names::{code_points, limits};
use conclave_protocol::{
    Code,
    v1::{self, UnservedReason},
};
use mls_rs::CipherSuite;

use super::{
    directory::{claim, claim_request, count, upload},
    key_packages::{Fault, Maker},
    world::*,
};

const ALICE: &str = "mimi://example.com/u/alice";

fn requiring(n: u8, required: v1::Capabilities) -> v1::ClaimRequest {
    v1::ClaimRequest { required: Some(required), ..claim_request(n, ALICE) }
}

fn extensions(kinds: &[u16]) -> v1::Capabilities {
    v1::Capabilities { extension_types: kinds.iter().copied().map(u32::from).collect(), ..Default::default() }
}

#[test]
fn what_lacks_a_required_capability_is_neither_served_nor_used_up() {
    let mut world = World::new();
    let (alice, bob) = (world.certified("alice/laptop", 1), world.certified("bob/phone", 2));
    let identities = world.identities.clone();
    let plain = Maker::new(&alice, &identities);
    let able = Maker { extensions: vec![0xF0AA], ..Maker::new(&alice, &identities) };
    let (one, two, three) = (plain.make(Fault::None), able.make(Fault::None), able.make(Fault::None));
    let last = plain.make(Fault::LastResort);
    upload(&mut world, &alice, vec![one.clone(), two.clone(), three.clone()], last.clone()).unwrap();

    let needs = extensions(&[code_points::EXTENSION_CHANNEL_KEY, 0xF0AA]);
    let served: Vec<_> = (1..=2)
        .map(|n| claim(&mut world, &bob, &requiring(n, needs.clone())).unwrap().key_packages.remove(0).key_package)
        .collect();
    assert_eq!(served, [two, three], "in the order of storing, those that do");
    let reply = claim(&mut world, &bob, &requiring(3, needs.clone())).unwrap();
    assert!(reply.key_packages.is_empty(), "the last resort lacks it, too");
    assert_eq!(reply.without, [alice.uri.to_string()]);
    let unserved = &reply.unserved[0];
    assert_eq!(
        (unserved.client.as_str(), unserved.reason()),
        (reply.without[0].as_str(), UnservedReason::Capabilities)
    );
    assert_eq!(unserved.missing, Some(extensions(&[0xF0AA])));
    assert_eq!(claim(&mut world, &bob, &requiring(3, needs)).unwrap(), reply, "a retry gets the same");
    let left = count(&mut world, &alice)[0];
    assert!(left.available == 1 && !left.last_resort_used, "nothing was used up by what could not be served");
    assert_eq!(claim(&mut world, &bob, &claim_request(4, ALICE)).unwrap().key_packages[0].key_package, one);
    assert_eq!(claim(&mut world, &bob, &claim_request(5, ALICE)).unwrap().key_packages[0].key_package, last);
}

#[test]
fn every_kind_of_capability_counts_and_the_reply_names_all_that_is_missing() {
    let mut world = World::new();
    let (alice, bob) = (world.certified("alice/laptop", 1), world.certified("bob/phone", 2));
    let identities = world.identities.clone();
    upload(&mut world, &alice, Maker::new(&alice, &identities).some(1), vec![]).unwrap();
    // What every client has needs no listing, and numbers reserved as GREASE mean nothing.
    let met = v1::Capabilities {
        protocol_versions: vec![1, 0x1A1A],
        extension_types: vec![1, 5, u32::from(code_points::EXTENSION_CHANNEL_KEY), 0x0A0A],
        proposal_types: vec![1, 7, 0xEAEA],
        credential_types: vec![2, 0x2A2A],
    };
    let more = v1::Capabilities {
        protocol_versions: vec![1, 2],
        extension_types: vec![6, 1],
        proposal_types: vec![8],
        credential_types: vec![1, 2],
    };
    let reply = claim(&mut world, &bob, &requiring(1, more)).unwrap();
    let missing = v1::Capabilities {
        protocol_versions: vec![2],
        extension_types: vec![6],
        proposal_types: vec![8],
        credential_types: vec![1],
    };
    assert_eq!(reply.unserved[0].missing, Some(missing));
    assert_eq!(claim(&mut world, &bob, &requiring(2, met)).unwrap().key_packages.len(), 1);
}

#[test]
fn a_client_is_served_from_the_first_suite_that_does_and_each_at_most_once() {
    let mut world = World::new();
    let (laptop, phone) = (world.certified("alice/laptop", 1), world.certified("alice/phone", 1));
    let (watch, bob) = (world.certified("alice/watch", 1), world.certified("bob/phone", 4));
    let identities = world.identities.clone();
    let chacha = CipherSuite::CURVE25519_CHACHA;
    let able = |who| Maker { extensions: vec![0xF0AA], suite: chacha, ..Maker::new(who, &identities) };
    // The laptop is able in its second suite only, the phone lacks it, the watch has nothing.
    let second = able(&laptop).make(Fault::None);
    upload(&mut world, &laptop, vec![Maker::new(&laptop, &identities).make(Fault::None), second.clone()], vec![])
        .unwrap();
    upload(&mut world, &phone, Maker::new(&phone, &identities).some(2), vec![]).unwrap();
    upload(&mut world, &watch, vec![], vec![]).unwrap();

    let request = v1::ClaimRequest { cipher_suites: vec![1, 3], ..requiring(1, extensions(&[0xF0AA])) };
    let reply = claim(&mut world, &bob, &request).unwrap();
    assert_eq!(reply.key_packages.len(), 1);
    assert_eq!(reply.key_packages[0].key_package, second);
    let reasons: Vec<_> = reply.unserved.iter().map(|one| (one.client.clone(), one.reason())).collect();
    let (of_phone, of_watch) = (UnservedReason::Capabilities, UnservedReason::Empty);
    assert_eq!(reasons, [(phone.uri.to_string(), of_phone), (watch.uri.to_string(), of_watch)]);
    assert_eq!(reply.without.len(), 2);
    assert_eq!(count(&mut world, &laptop).iter().map(|suite| suite.available).sum::<u64>(), 1);
    assert_eq!(count(&mut world, &phone)[0].available, 2);
}

#[test]
fn a_client_without_any_is_told_apart_from_one_with_other_suites() {
    let mut world = World::new();
    let (laptop, phone) = (world.certified("alice/laptop", 1), world.certified("alice/phone", 1));
    let bob = world.certified("bob/phone", 4);
    let identities = world.identities.clone();
    let chacha = Maker { suite: CipherSuite::CURVE25519_CHACHA, days: 5, ..Maker::new(&laptop, &identities) };
    upload(&mut world, &laptop, chacha.some(1), vec![]).unwrap();
    upload(&mut world, &phone, vec![], vec![]).unwrap();
    let reply = claim(&mut world, &bob, &claim_request(1, ALICE)).unwrap();
    let told: Vec<_> = reply.unserved.iter().map(|one| (one.reason(), one.cipher_suites.clone())).collect();
    assert_eq!(told, [(UnservedReason::CipherSuite, vec![3]), (UnservedReason::Empty, vec![])]);
    // What has expired is nothing, whatever it was.
    world.now = NOW.plus_ms(5 * DAY_MS);
    let reply = claim(&mut world, &bob, &claim_request(2, ALICE)).unwrap();
    assert!(reply.unserved.iter().all(|one| one.reason() == UnservedReason::Empty));
}

#[test]
fn impossible_requirements_are_refused() {
    let mut world = World::new();
    let bob = world.certified("bob/phone", 2);
    let with = |kinds| requiring(1, v1::Capabilities { credential_types: kinds, ..Default::default() });
    refused(claim(&mut world, &bob, &with(vec![65_536])), Code::Malformed);
    refused(claim(&mut world, &bob, &with(vec![1; limits::REQUIRED_CAPABILITIES + 1])), Code::TooLarge);
    refused(claim(&mut world, &bob, &with(vec![1; limits::REQUIRED_CAPABILITIES])), Code::UserUnknown);
}
