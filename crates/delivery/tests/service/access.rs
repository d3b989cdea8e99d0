//! Who may read and write.

use conclave_channel::EntryKind;
use conclave_delivery::{Batch, StreamEnd};
use conclave_names::{ChannelId, Seq, Timestamp};
use conclave_protocol::{Code, method, signed, v1};
use prost::Message;

use super::world::*;

#[test]
fn strangers_are_refused_alike_whether_the_channel_exists_or_not() {
    let mut world = World::new();
    world.create(GROUP, 1).unwrap();
    let inbox = ChannelId::new([7; 16]);
    world.create_inbox(inbox, 5, [1; 32]).unwrap();
    let session = world.open(1, 0, &[1]).unwrap();
    world.commit(&session, &bundle(1, 0, &[1, 2], 0)).unwrap();

    let absent = ChannelId::new([0xEE; 16]);
    let mut shifted = open_request(GROUP, 2, 1, &[1, 2]);
    shifted.path.as_mut().unwrap().index ^= 1;
    let attempts = [
        (9, open_request(absent, 9, 0, &[9]), "an absent channel"),
        (9, open_request(GROUP, 9, 1, &[9]), "a stranger's own tree"),
        (9, open_request(GROUP, 2, 1, &[1, 2]), "a member's path under a stranger's key"),
        (2, open_request(GROUP, 2, 0, &[1, 2]), "an epoch before one's own"),
        (2, open_request(GROUP, 2, 7, &[1, 2]), "an epoch to come"),
        (2, shifted, "a wrong path"),
        (2, v1::OpenSessionRequest { path: None, ..open_request(GROUP, 2, 1, &[1, 2]) }, "no path"),
        (9, open_request(inbox, 9, 0, &[9]), "another's inbox"),
        (9, v1::OpenSessionRequest { channel: inbox.to_vec(), epoch: 0, path: None }, "another's inbox, no path"),
    ];
    let expected = refused(world.open_with(9, &open_request(absent, 9, 3, &[8, 9])), Code::AccessRefused);
    for (n, request, what) in attempts {
        assert_eq!(refused(world.open_with(n, &request), Code::AccessRefused), expected, "{what}");
    }
    assert!(world.open(2, 1, &[1, 2]).is_ok());
    assert!(world.open_inbox(5, inbox).is_ok());
}

#[test]
fn malformed_paths_are_named_before_anything_is_looked_up() {
    let mut world = World::new();
    let path = |siblings| Some(v1::KeyPath { index: 0, leaves: 2, siblings });
    for siblings in [vec![vec![0; 31]], vec![vec![0; 32]; 21]] {
        let message = v1::OpenSessionRequest { channel: GROUP.to_vec(), epoch: 0, path: path(siblings) };
        refused(world.open_with(1, &message), Code::Malformed);
    }
    let message = v1::OpenSessionRequest { channel: vec![1], epoch: 0, path: None };
    refused(world.open_with(1, &message), Code::Malformed);
}

#[test]
fn a_removed_member_reads_up_to_its_removal_and_no_further() {
    let mut world = World::new();
    world.create(GROUP, 1).unwrap();
    let alice = world.open(1, 0, &[1]).unwrap();
    world.send(&alice, 1, 0).unwrap(); // 1
    world.commit(&alice, &bundle(2, 0, &[1, 2, 3], 1)).unwrap(); // 2
    let bob = world.open(2, 1, &[1, 2, 3]).unwrap();
    assert_eq!(world.seqs(&bob, 0), [2], "a joiner reads from where the committer stood");
    world.send(&bob, 3, 1).unwrap(); // 3
    world.commit(&alice, &bundle(4, 1, &[1, 2, 3], 3)).unwrap(); // 4, removes nobody
    assert_eq!(world.seqs(&bob, 0), [2, 3, 4], "a key of epoch 1 still reads in epoch 2");
    world.send(&bob, 5, 2).unwrap(); // 5: and it still writes
    let removal = world.commit(&alice, &bundle_of(6, 2, &[1, 3], 5, true)).unwrap(); // 6
    let alice = world.open(1, 3, &[1, 3]).unwrap();
    world.send(&alice, 7, 3).unwrap(); // 7
    world.commit(&alice, &bundle(8, 3, &[1, 3], 7)).unwrap(); // 8

    assert_eq!(world.seqs(&bob, 0), [2, 3, 4, 5, 6]);
    assert_eq!(world.fetch(&bob, 6).unwrap().entries, []);
    let log = world.fetch(&bob, u64::MAX).unwrap();
    assert_eq!((log.entries.len(), log.head), (0, removal.reply.seq), "the head beyond is not told");
    // A session opened afterwards with the old key is no better.
    for epoch in [1, 2] {
        let late = world.open(2, epoch, &[1, 2, 3]).unwrap();
        assert_eq!(late.head, 6);
        assert_eq!(world.seqs(&late, 5), [6]);
    }
    refused(world.open(2, 3, &[1, 2, 3]), Code::AccessRefused);
    // The removed member writes no more, and is told nothing of later epochs.
    refused(world.send(&bob, 9, 3), Code::AccessRefused);
    refused(world.send(&bob, 9, 2), Code::AccessRefused);
    assert_eq!(refused(world.send(&bob, 9, 1), Code::EpochStale).number("epoch"), Some(3));
    assert_eq!(refused(world.send(&bob, 9, 4), Code::EpochStale).number("epoch"), Some(3));
    refused(world.commit(&bob, &bundle(9, 3, &[2], 6)), Code::AccessRefused);
    let conflict = refused(world.commit(&bob, &bundle(9, 2, &[2], 5)), Code::EpochConflict);
    assert_eq!((conflict.number("epoch"), conflict.number("winner")), (Some(3), Some(6)));
    refused(world.group_info(&bob), Code::AccessRefused);
    let stage = bob.request(method::STAGE_BLOB, &v1::StageBlobRequest::default());
    refused(world.store.write(|tx| world.service.stage_blob(tx, &stage, world.now)), Code::AccessRefused);
    // Who stayed has a key of the new epoch.
    let carol = world.open(3, 3, &[1, 3]).unwrap();
    assert_eq!(world.seqs(&carol, 0), [6, 7, 8]);
    world.send(&carol, 10, 4).unwrap();
}

#[test]
fn a_removed_committer_gets_its_lost_reply() {
    let mut world = World::new();
    world.create(GROUP, 1).unwrap();
    let alice = world.open(1, 0, &[1]).unwrap();
    let removal = bundle_of(1, 0, &[1], 0, true);
    let first = world.commit(&alice, &removal).unwrap().reply;
    assert_eq!(world.commit(&alice, &removal).unwrap().reply, first);
    refused(world.send(&alice, 2, 1), Code::AccessRefused);
    let alice = world.open(1, 1, &[1]).unwrap();
    assert_eq!(world.commit(&alice, &removal).unwrap().reply, first);
    world.send(&alice, 2, 1).unwrap();
}

fn batch(world: &mut World, session: &Session, after: u64) -> Batch {
    let request = session.request(method::ATTACH, &v1::AttachRequest { handle: vec![1; 16], after });
    let attached = world.store.read(|read| world.service.attach(read, &request, world.now)).unwrap();
    assert_eq!(attached.after, Seq(after));
    world.store.read(|read| world.service.stream_batch(read, &attached.subscription, attached.after)).unwrap()
}

#[test]
fn a_stream_ends_after_the_removal() {
    let mut world = World::new();
    world.create(GROUP, 1).unwrap();
    let alice = world.open(1, 0, &[1]).unwrap();
    world.commit(&alice, &bundle(1, 0, &[1, 2], 0)).unwrap();
    let bob = world.open(2, 1, &[1, 2]).unwrap();
    let first = batch(&mut world, &bob, 0);
    assert_eq!((first.entries.len(), first.position, first.more, first.ended), (1, Seq(1), false, None));
    assert_eq!(batch(&mut world, &bob, 1).entries, []);
    world.commit(&alice, &bundle_of(2, 1, &[1], 1, true)).unwrap();
    let alice = world.open(1, 2, &[1]).unwrap();
    world.send(&alice, 3, 2).unwrap();
    let last = batch(&mut world, &bob, 1);
    assert_eq!((last.entries.len(), last.position, last.ended), (1, Seq(2), Some(StreamEnd::AccessEnded)));
    assert_eq!(batch(&mut world, &bob, 2).ended, Some(StreamEnd::AccessEnded));
    assert_eq!(StreamEnd::AccessEnded.as_str(), "ACCESS_ENDED");
    let detach = bob.request(method::DETACH, &v1::DetachRequest { handle: vec![2; 16] });
    let detached = world.service.detach(&detach, world.now).unwrap();
    assert_eq!((detached.handle.to_vec(), detached.channel), (vec![2; 16], GROUP));
    let bad = bob.request(method::ATTACH, &v1::AttachRequest { handle: vec![1; 3], after: 0 });
    refused(world.store.read(|read| world.service.attach(read, &bad, world.now)), Code::Malformed);
}

#[test]
fn forged_late_misdirected_and_replayed_requests_are_refused() {
    let mut world = World::new();
    world.create(GROUP, 1).unwrap();
    let message = open_request(GROUP, 1, 0, &[1]);
    let good = world.sign(&key(1), method::OPEN_SESSION, &message);

    let mut forged = good.clone();
    forged.signature[0] ^= 1;
    assert!(world.open_signed(&forged).is_err());
    let mut changed = good.clone();
    changed.body = open_request(GROUP, 1, 1, &[1]).encode_to_vec();
    assert_eq!(world.open_signed(&changed).err().unwrap().code, Code::SignatureInvalid);
    let mut foreign = good.clone();
    foreign.key = key(2).verifying_key().to_bytes().to_vec();
    assert_eq!(world.open_signed(&foreign).err().unwrap().code, Code::SignatureInvalid);
    let other_call = world.sign(&key(1), method::CREATE_INBOX, &message);
    assert_eq!(world.open_signed(&other_call).err().unwrap().code, Code::WrongAudience);
    let elsewhere = signed::sign(
        &key(1),
        method::OPEN_SESSION,
        &"other.org".parse().unwrap(),
        NOW,
        [9; 16],
        message.encode_to_vec(),
        vec![],
    );
    assert_eq!(world.open_signed(&elsewhere).err().unwrap().code, Code::WrongAudience);

    world.open_signed(&good).unwrap();
    assert_eq!(world.open_signed(&good).err().unwrap().code, Code::RequestReplayed);
    world.now = NOW.plus_ms(4 * 60 * 1000);
    world.maintain();
    assert_eq!(world.open_signed(&good).err().unwrap().code, Code::RequestReplayed);
    world.now = NOW.plus_ms(11 * 60 * 1000);
    world.maintain();
    let late = world.open_signed(&good).err().unwrap();
    assert_eq!((late.code, late.number("server_time_ms")), (Code::RequestExpired, Some(world.now.0)));
    world.now = Timestamp(NOW.0 - 11 * 60 * 1000);
    assert_eq!(world.open_signed(&good).err().unwrap().code, Code::RequestExpired);
}

#[test]
fn session_requests_are_authenticated_once_each_and_for_one_call() {
    let mut world = World::new();
    world.create(GROUP, 1).unwrap();
    let session = world.open(1, 0, &[1]).unwrap();
    let message = submission(1, entry(EntryKind::Message, 0, b"x"));
    let request = session.request(method::SUBMIT, &message);
    let mut forged = request.clone();
    forged.body[3] ^= 1;
    let submit = |world: &mut World, request: &v1::SessionRequest| {
        world.store.write(|tx| world.service.submit(tx, request, world.now))
    };
    refused(submit(&mut world, &forged), Code::SessionUnknown);
    refused(submit(&mut world, &session.request(method::FETCH, &message)), Code::SessionUnknown);
    submit(&mut world, &request).unwrap();
    refused(submit(&mut world, &request), Code::RequestReplayed);
    let nonsense = session.request(method::SUBMIT, &v1::AttachRequest { handle: vec![], after: 7 });
    refused(submit(&mut world, &nonsense), Code::Malformed);
    world.now = NOW.plus_ms(10 * 60 * 1000);
    let idle = session.request(method::SUBMIT, &message);
    refused(submit(&mut world, &idle), Code::SessionUnknown);
    world.maintain();
    assert_eq!(world.service.open_sessions(), 0);
}
