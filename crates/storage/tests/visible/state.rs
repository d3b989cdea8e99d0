//! What the service keeps of a followed group: enough, in time, and nothing that a message would have to pay for.

use conclave_channel::{Entry, EntryKind, Position, chain, verdict::Verdict};
use conclave_delivery::{
    Config, DeliveryService,
    store::{CheckpointRow, Read},
};
use conclave_engine::{group::SubmissionBody, intent::Wish, outcome::Event};
use conclave_names::{Epoch, Seq};
use conclave_protocol::{Code, method, v1};

use crate::{
    person::{Person, agree, group_of},
    raw::{Raw, Twist},
    world::{Session, World, on_both, random, refused},
};

fn bundle(person: &mut Person, world: &World, wish: Wish) -> v1::SubmitBundleRequest {
    person.wish(wish);
    match person.next(world).unwrap().body {
        SubmissionBody::Bundle(bundle) => *bundle,
        SubmissionBody::Entry(_) => panic!("it is no commit"),
    }
}

#[test]
fn a_group_that_is_not_in_memory_is_restored_each_time() {
    on_both(|mut world| {
        let [mut alice, mut bob] = ["alice", "bob"].map(|name| Person::new(&mut world, name));
        let channel = group_of(&mut world, &mut [&mut alice, &mut bob], Vec::new());
        assert!(world.service.followed_bytes() > 0);
        world.restart_with(0);
        for _ in 0..3 {
            bob.wish(Wish::Update);
            bob.drive(&mut world);
            alice.say(&mut world, "hello");
            agree(&mut world, &mut [&mut alice, &mut bob]);
            assert_eq!(world.service.followed_bytes(), 0);
        }
        bob.wish(Wish::Leave);
        bob.drive(&mut world);
        alice.drive(&mut world);
        agree(&mut world, &mut [&mut alice]);
        // As it is with memory.
        world.restart_with(Config::default().followed_bytes);
        assert_eq!(world.followed(channel).unwrap().members, 1);
    });
}

#[test]
fn what_was_undone_leaves_nothing_behind() {
    on_both(|mut world| {
        let [mut alice, mut bob, mut charlie] = ["alice", "bob", "charlie"].map(|name| Person::new(&mut world, name));
        group_of(&mut world, &mut [&mut alice, &mut bob, &mut charlie], Vec::new());
        // A commit that was undone, and another one in its place; then both once more with proposals.
        let from_alice = bundle(&mut alice, &world, Wish::Update);
        let from_bob = bundle(&mut bob, &world, Wish::Update);
        let session = alice.session(&mut world);
        world.submit_bundle_in_vain(&session, &from_alice);
        let session = bob.session(&mut world);
        world.submit_bundle(&session, &from_bob).unwrap();
        alice.drive(&mut world);
        agree(&mut world, &mut [&mut alice, &mut bob, &mut charlie]);

        charlie.wish(Wish::Leave);
        let SubmissionBody::Entry(leave) = charlie.next(&world).unwrap().body else { panic!("it is a proposal") };
        let session = charlie.session(&mut world);
        world.submit_in_vain(&session, &leave);
        // The proposal is not there, so that nobody commits it.
        alice.wish(Wish::Update);
        alice.drive(&mut world);
        assert_eq!(world.followed(alice.group().profile().channel).unwrap().members, 3);
        agree(&mut world, &mut [&mut alice, &mut bob]);
        charlie.drive(&mut world);
        alice.drive(&mut world);
        agree(&mut world, &mut [&mut alice, &mut bob]);
        assert_eq!(alice.group().members().unwrap().len(), 2);
    });
}

#[test]
fn a_message_neither_reads_nor_writes_what_is_followed() {
    on_both(|mut world| {
        let [mut alice, mut bob] = ["alice", "bob"].map(|name| Person::new(&mut world, name));
        let channel = group_of(&mut world, &mut [&mut alice, &mut bob], Vec::new());
        let good = world.read(move |_, read, _| Ok(read.checkpoint(&channel)?.unwrap())).unwrap();
        let rows = world.rows(channel);
        // Nothing is in memory, and what is stored is spoilt: whoever looks at it fails.
        world.restart_with(0);
        let spoilt = CheckpointRow { snapshot: vec![0xFF; 100], ..good.clone() };
        world.write(move |_, tx, _| Ok(tx.put_checkpoint(&spoilt)?)).unwrap();
        for number in 0..50 {
            alice.say(&mut world, &format!("message {number}"));
        }
        bob.sync(&mut world);
        assert_eq!(bob.texts().len(), 50);
        assert_eq!(world.rows(channel), rows);
        alice.wish(Wish::Update);
        let update = alice.next(&world).unwrap();
        refused(alice.send(&mut world, &update), Code::Internal);
        // The fault was the store's, and nothing else is lost.
        world.write(move |_, tx, _| Ok(tx.put_checkpoint(&good)?)).unwrap();
        alice.drive(&mut world);
        agree(&mut world, &mut [&mut alice, &mut bob]);
    });
}

#[test]
fn checkpoints_take_the_place_of_handshakes() {
    on_both(|mut world| {
        let [mut alice, mut bob] = ["alice", "bob"].map(|name| Person::new(&mut world, name));
        let channel = group_of(&mut world, &mut [&mut alice, &mut bob], Vec::new());
        let mut most = (0, 0);
        for round in 0..150 {
            let person = if round % 3 == 0 { &mut bob } else { &mut alice };
            person.wish(Wish::Update);
            person.drive(&mut world);
            let (checkpoints, handshakes) = world.rows(channel);
            most = (most.0.max(checkpoints), most.1.max(handshakes));
        }
        // One is for what is not settled yet.
        assert!(most.0 <= 3 && most.0 >= 2, "{most:?}");
        assert!(most.1 <= 200 && most.1 >= 63, "{most:?}");
        let (checkpoints, _) = world.rows(channel);
        assert!(checkpoints <= 3);
        world.restart_with(0);
        agree(&mut world, &mut [&mut alice, &mut bob]);
    });
}

/// Has a member say that it could not apply a commit.
pub(crate) fn nack(person: &mut Person, world: &mut World, commit: &v1::SubmitResponse, entry: &[u8]) {
    // By the key of the epoch that it ended, which the member is still in.
    let access = person.group().access().unwrap();
    let epoch = Entry::parse(entry).unwrap().epoch;
    let about = Position { seq: Seq(commit.seq), hash: chain::entry_hash(entry) };
    let body = vec![0; 256];
    let word = Verdict::sign(&access.channel, EntryKind::Nack, epoch, &about, &access.key, access.path, body);
    let session = person.session(world);
    let message = v1::SubmitRequest { idempotency_key: random::<16>().to_vec(), entry: word.to_bytes().unwrap() };
    world.submit(&session, &message).unwrap();
}

#[test]
fn an_annulled_commit_is_taken_back() {
    on_both(|mut world| {
        for followed_bytes in [Config::default().followed_bytes, 0] {
            world.restart_with(followed_bytes);
            let [mut alice, mut bob] = ["alice", "bob"].map(|name| Person::new(&mut world, name));
            let mut mallory = Raw::new(&mut world, "mallory", false);
            let channel = group_of(&mut world, &mut [&mut alice, &mut bob], Vec::new());
            let key_packages = vec![mallory.key_package(&mut world)];
            alice.wish(Wish::Add { key_packages });
            alice.drive(&mut world);
            mallory.join(&mut world);
            agree(&mut world, &mut [&mut alice, &mut bob]);
            let before = world.followed(channel).unwrap();
            assert_eq!((before.epoch, alice.group().settled_epoch()), (Epoch(2), Epoch(1)));

            // Two commits; Bob says of the first that he cannot apply it, and nobody contradicts.
            let void = bundle(&mut alice, &world, Wish::Update);
            let session = alice.session(&mut world);
            let first = world.submit_bundle(&session, &void).unwrap();
            alice.sync(&mut world);
            let more = bundle(&mut alice, &world, Wish::Update);
            let session = alice.session(&mut world);
            world.submit_bundle(&session, &more).unwrap();
            assert_eq!(world.followed(channel).unwrap().epoch, Epoch(4));
            nack(&mut bob, &mut world, &first, &void.entry);
            // While it is disputed, it is what the service follows.
            assert_eq!(world.followed(channel).unwrap().epoch, Epoch(4));
            world.now = world.now.plus_ms(16 * 60 * 1000);

            // Another commit takes the place of the first: it is judged by the state before both.
            let instead = mallory.commit(&world, &Twist::default(), |builder| builder);
            let session = world.open(&mallory.access()).unwrap();
            world.submit_bundle(&session, &instead).unwrap();
            let after = world.followed(channel).unwrap();
            assert_eq!(after.epoch, Epoch(3));
            let info = world.group_info(&session).err();
            assert!(info.is_none(), "the GroupInfo is that of the commit that stands");
            alice.forget_session();
            bob.forget_session();
            agree(&mut world, &mut [&mut bob, &mut alice]);
            assert!(alice.events.iter().any(|event| matches!(event, Event::Annulled { .. })));
            bob.drive(&mut world);
            alice.wish(Wish::Update);
            alice.drive(&mut world);
            world.restart_with(followed_bytes);
            agree(&mut world, &mut [&mut alice, &mut bob]);
        }
    });
}

#[test]
fn the_service_and_the_members_agree_after_whatever_happens() {
    on_both(|mut world| {
        for seed in 1..=3_u64 {
            let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let mut below = |bound: usize| {
                // xorshift64
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                usize::try_from(state >> 33).unwrap() % bound
            };
            let names: Vec<_> = (0..5).map(|number| format!("user{number}of{seed}")).collect();
            let mut people: Vec<_> = names.iter().map(|name| Person::new(&mut world, name)).collect();
            let channel = group_of(&mut world, &mut [&mut people[0]], Vec::new());
            let mut inside = vec![0_usize];
            for _ in 0..40 {
                let who = inside[below(inside.len())];
                let outside: Vec<_> = (0..people.len()).filter(|index| !inside.contains(index)).collect();
                match below(6) {
                    0 | 1 if !outside.is_empty() => {
                        let new = outside[below(outside.len())];
                        let key_packages = vec![people[new].key_package(&mut world)];
                        people[who].wish(Wish::Add { key_packages });
                        people[who].drive(&mut world);
                        people[new].join(&mut world);
                        inside.push(new);
                    }
                    2 if inside.len() > 1 => {
                        let gone = inside[below(inside.len())];
                        if gone != who {
                            let users = vec![people[gone].user()];
                            people[who].wish(Wish::Remove { users });
                            people[who].drive(&mut world);
                            people[gone].sync(&mut world);
                            inside.retain(|index| *index != gone);
                        }
                    }
                    3 if inside.len() > 1 => {
                        people[who].wish(Wish::Leave);
                        people[who].drive(&mut world);
                        inside.retain(|index| *index != who);
                        let other = inside[0];
                        people[other].drive(&mut world);
                        people[who].sync(&mut world);
                    }
                    4 => world.restart_with(if below(2) == 0 { 0 } else { 1 << 28 }),
                    5 => people[who].say(&mut world, "something"),
                    _ => {
                        people[who].wish(Wish::Update);
                        people[who].drive(&mut world);
                    }
                }
                let mut members: Vec<_> =
                    people.iter_mut().enumerate().filter(|(index, _)| inside.contains(index)).map(|(_, p)| p).collect();
                agree(&mut world, &mut members);
            }
            assert_eq!(world.followed(channel).unwrap().members, inside.len());
            assert!(world.followed(channel).unwrap().epoch > Epoch(10));
        }
    });
}

#[test]
fn what_was_judged_ahead_counts_only_for_the_state_that_it_was_judged_by() {
    on_both(|mut world| {
        let [mut alice, mut bob, mut charlie] = ["alice", "bob", "charlie"].map(|name| Person::new(&mut world, name));
        group_of(&mut world, &mut [&mut alice, &mut bob, &mut charlie], Vec::new());
        let ahead = |world: &mut World, session: &Session, bundle: &v1::SubmitBundleRequest| {
            let request = session.request(method::SUBMIT_BUNDLE, bundle);
            let judge = move |service: &DeliveryService, read: &mut dyn Read, now| {
                let mut request = service.authenticate(request, method::SUBMIT_BUNDLE, now)?;
                assert!(request.has_open_commit());
                service.judge_commit(read, &mut request, now)?;
                Ok(request)
            };
            world.read(judge).unwrap()
        };
        // A message comes in between: nothing changes. Then the service restarts, too.
        for restarts in [false, true] {
            let update = bundle(&mut alice, &world, Wish::Update);
            let session = alice.session(&mut world);
            let request = ahead(&mut world, &session, &update);
            bob.say(&mut world, "in between");
            if restarts {
                world.restart();
                let session = alice.session(&mut world);
                world.submit_bundle(&session, &update).unwrap();
            } else {
                world.write(move |service, tx, now| service.submit_bundle(tx, &request, now)).unwrap();
            }
            agree(&mut world, &mut [&mut alice, &mut bob, &mut charlie]);
        }
        // A proposal does: the commit is judged again, with it.
        let update = bundle(&mut alice, &world, Wish::Update);
        let session = alice.session(&mut world);
        let request = ahead(&mut world, &session, &update);
        charlie.wish(Wish::Leave);
        charlie.drive(&mut world);
        world.write(move |service, tx, now| service.submit_bundle(tx, &request, now)).unwrap();
        alice.sync(&mut world);
        bob.drive(&mut world);
        agree(&mut world, &mut [&mut alice, &mut bob, &mut charlie]);
        // Another commit comes first.
        let update = bundle(&mut alice, &world, Wish::Update);
        let session = alice.session(&mut world);
        let request = ahead(&mut world, &session, &update);
        bob.wish(Wish::Update);
        bob.drive(&mut world);
        let late = world.write(move |service, tx, now| service.submit_bundle(tx, &request, now));
        refused(late, Code::EpochConflict);
        alice.drive(&mut world);
        agree(&mut world, &mut [&mut alice, &mut bob]);
    });
}
