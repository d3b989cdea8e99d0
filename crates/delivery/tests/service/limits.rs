//! What the service limits by what a request proves.

use conclave_channel::EntryKind;
use conclave_delivery::{
    Config, Origin,
    limits::{Limits, Rate},
};
use conclave_names::ChannelId;
use conclave_protocol::{Code, Refusal, method, v1};

use super::{
    directory::{ALICE, claim, claim_request, count, upload},
    key_packages::{Fault, Maker},
    world::*,
};

fn world(limits: Limits) -> World {
    World::with(&Config { limits, ..Config::default() })
}

/// Checks that a refusal says what it promises, and gives the time to wait.
#[track_caller]
fn limited<T>(result: Result<T, Refusal>, word: &str) -> u64 {
    let refusal = refused(result, Code::RateLimited);
    assert!(refusal.message.contains(word) && refusal.message.contains("wait"), "{refusal}");
    let ms = refusal.number("retry_after_ms").unwrap();
    assert!(ms > 0);
    ms
}

#[test]
fn no_claimant_drains_a_pool_and_the_target_stays_reachable() {
    let mut world = world(Limits::default());
    let alice = world.certified("alice/laptop", 1);
    let (mallory, bob) = (world.certified("mallory/one", 2), world.certified("bob/phone", 3));
    let identities = world.identities.clone();
    let maker = Maker::new(&alice, &identities);
    upload(&mut world, &alice, maker.some(20), maker.make(Fault::LastResort)).unwrap();

    let mut last_resorts = 0;
    for n in 0..100 {
        let reply = claim(&mut world, &mallory, &claim_request(n, ALICE)).unwrap();
        assert_eq!((reply.key_packages.len(), reply.without.len()), (1, 0), "alice is always reachable");
        last_resorts += usize::from(reply.key_packages[0].last_resort);
    }
    assert_eq!(last_resorts, 97, "three are for one user");
    assert_eq!(count(&mut world, &alice)[0].available, 17);
    // Another device of the same user is no other user.
    let other_device = world.certified("mallory/two", 2);
    assert!(claim(&mut world, &other_device, &claim_request(0, ALICE)).unwrap().key_packages[0].last_resort);
    // Others have theirs.
    for n in 0..3 {
        assert!(!claim(&mut world, &bob, &claim_request(n, ALICE)).unwrap().key_packages[0].last_resort, "{n}");
    }
}

#[test]
fn all_claimants_together_leave_some_of_a_pool_and_later_it_is_open_again() {
    let mut world = world(Limits::default());
    let alice = world.certified("alice/laptop", 1);
    let identities = world.identities.clone();
    let maker = Maker::new(&alice, &identities);
    upload(&mut world, &alice, maker.some(20), maker.make(Fault::LastResort)).unwrap();
    let crowd: Vec<_> = (10..60).map(|n| world.certified(&format!("user{n}/phone"), n)).collect();
    let mut from_pool = 0;
    for who in &crowd {
        let reply = claim(&mut world, who, &claim_request(1, ALICE)).unwrap();
        from_pool += usize::from(!reply.key_packages[0].last_resort);
    }
    assert_eq!(from_pool, 10);
    assert_eq!(count(&mut world, &alice)[0].available, 10);
    let bob = world.certified("bob/phone", 3);
    assert!(claim(&mut world, &bob, &claim_request(1, ALICE)).unwrap().key_packages[0].last_resort);
    // The reply of an earlier claim is given again, whatever the limit is by now.
    assert!(!claim(&mut world, &crowd[0], &claim_request(1, ALICE)).unwrap().key_packages[0].last_resort);
    assert_eq!(count(&mut world, &alice)[0].available, 10);

    world.now = world.now.plus_ms(10 * 60 * 1000);
    assert!(!claim(&mut world, &bob, &claim_request(2, ALICE)).unwrap().key_packages[0].last_resort);
    assert!(claim(&mut world, &bob, &claim_request(3, ALICE)).unwrap().key_packages[0].last_resort);
}

#[test]
fn a_pool_without_last_resort_is_left_alone_all_the_same() {
    let mut world = world(Limits { client_claimed: Rate::per_hour(2, 1), ..Limits::none() });
    let (alice, bob) = (world.certified("alice/laptop", 1), world.certified("bob/phone", 3));
    let identities = world.identities.clone();
    upload(&mut world, &alice, Maker::new(&alice, &identities).some(5), Vec::new()).unwrap();
    for n in 0..2 {
        claim(&mut world, &bob, &claim_request(n, ALICE)).unwrap();
    }
    let ms = limited(claim(&mut world, &bob, &claim_request(2, ALICE)), "last resort");
    assert_eq!(ms, 3_600_000);
    // Of two devices the one that can be reached is, and the other is named.
    let phone = world.certified("alice/phone", 1);
    let last = Maker::new(&phone, &identities).make(Fault::LastResort);
    upload(&mut world, &phone, Vec::new(), last).unwrap();
    let reply = claim(&mut world, &bob, &claim_request(2, ALICE)).unwrap();
    assert_eq!(reply.key_packages[0].client, phone.uri.to_string());
    assert_eq!(reply.without, [alice.uri.to_string()]);
    world.now = world.now.plus_ms(ms);
    assert_eq!(claim(&mut world, &bob, &claim_request(3, ALICE)).unwrap().key_packages.len(), 2);
}

#[test]
fn one_users_claims_and_uploads_are_limited_and_come_back() {
    let limits = Limits { user_claims: Rate::per_minute(3, 1), user_uploads: Rate::per_minute(2, 1), ..Limits::none() };
    let mut world = world(limits);
    let (alice, bob) = (world.certified("alice/laptop", 1), world.certified("bob/phone", 3));
    let identities = world.identities.clone();
    let maker = Maker::new(&alice, &identities);
    for _ in 0..2 {
        upload(&mut world, &alice, maker.some(2), Vec::new()).unwrap();
    }
    limited(upload(&mut world, &alice, maker.some(1), Vec::new()), "uploads");
    for n in 0..3 {
        claim(&mut world, &bob, &claim_request(n, ALICE)).unwrap();
    }
    let ms = limited(claim(&mut world, &bob, &claim_request(3, ALICE)), "claims");
    // Neither limit is the other's, or another user's.
    claim(&mut world, &alice, &claim_request(0, ALICE)).unwrap();
    world.now = world.now.plus_ms(ms);
    claim(&mut world, &bob, &claim_request(3, ALICE)).unwrap();
    limited(claim(&mut world, &bob, &claim_request(4, ALICE)), "claims");
    upload(&mut world, &alice, maker.some(1), Vec::new()).unwrap();
}

#[test]
fn one_members_submissions_requests_and_bytes_are_limited_apart() {
    let limits = Limits {
        member_submissions: Rate::per_second(2, 1),
        member_requests: Rate::per_second(3, 1),
        member_staged_bytes: Rate::per_second(1000, 100),
        ..Limits::none()
    };
    let mut world = world(limits);
    world.create(GROUP, 1).unwrap();
    let session = world.open(1, 0, &[1]).unwrap();
    for n in 0..2 {
        world.send(&session, n, 0).unwrap();
    }
    let ms = limited(world.send(&session, 2, 0), "submissions");
    assert_eq!(ms, 1000);
    // A new session of the same key is no other member.
    let again = world.open(1, 0, &[1]).unwrap();
    limited(world.send(&again, 2, 0), "submissions");
    for _ in 0..3 {
        world.fetch(&session, 0).unwrap();
    }
    limited(world.fetch(&session, 0), "requests");
    world.stage(&session, &[7; 800]);
    let blob = v1::StageBlobRequest { hash: vec![1; 32], size: 900, offset: 0, data: vec![1; 500] };
    let request = session.request(method::STAGE_BLOB, &blob);
    limited(world.store.write(|tx| world.service.stage_blob(tx, &request, world.now)), "bytes");
    // Another member of another group feels nothing.
    world.create(ChannelId::new([2; 16]), 2).unwrap();
    let other = world.open_with(2, &open_request(ChannelId::new([2; 16]), 2, 0, &[2])).unwrap();
    world.send(&other, 1, 0).unwrap();
    world.fetch(&other, 0).unwrap();

    world.now = world.now.plus_ms(ms);
    assert_eq!(world.send(&session, 2, 0), Ok(3));
    world.fetch(&session, 0).unwrap();
    limited(world.submit(&session, &submission(9, entry(EntryKind::Message, 0, b"x"))), "submissions");
}

#[test]
fn a_flood_of_sessions_leaves_others_theirs_and_tables_bounded() {
    let limits = Limits { buckets: 50, ..Limits::default() };
    let config =
        Config { max_sessions: 60, max_sessions_per_origin: 40, max_sessions_per_key: 4, limits, ..Config::default() };
    let mut world = World::with(&config);
    world.create(GROUP, 1).unwrap();
    let session = world.open(1, 0, &[1]).unwrap();
    for n in 100..=250 {
        let channel = ChannelId::new([n; 16]);
        world.create(channel, n).unwrap();
        for _ in 0..6 {
            let message = open_request(channel, n, 0, &[n]);
            let request = world.sign(&key(n), method::OPEN_SESSION, &message);
            let flooder = world.open_from(&request, Origin(1 + u64::from(n % 3))).unwrap();
            world.fetch(&flooder, 0).unwrap();
        }
        assert!(world.service.open_sessions() <= 60);
        // Three rates by member, each with so many buckets.
        assert!(world.service.limit_buckets() <= 3 * 50);
    }
    world.now = world.now.plus_ms(60_000);
    world.send(&session, 1, 0).unwrap();
    world.now = world.now.plus_ms(60_000);
    world.maintain();
    assert_eq!(world.service.limit_buckets(), 0);
}
