//! Channels and submissions.

use conclave_channel::{Body, Entry, EntryKind, law};
use conclave_names::{ChannelId, Epoch, Hash, Timestamp, limits};
use conclave_protocol::{Code, Retry, method, v1};

use super::world::*;

#[test]
fn entries_get_places_times_and_a_running_hash() {
    let mut world = World::new();
    world.create(GROUP, 1).unwrap();
    let session = world.open(1, 0, &[1]).unwrap();
    assert_eq!(session.head, 0);
    let first = world.submit(&session, &submission(1, entry(EntryKind::Message, 0, b"one"))).unwrap();
    assert_eq!((first.reply.seq, first.reply.time_ms, first.wake), (1, NOW.0, vec![GROUP]));
    // The clock runs back: times in a channel do not.
    world.now = Timestamp(NOW.0 - 5000);
    let second = world.submit(&session, &submission(2, entry(EntryKind::Proposal, 0, b"two"))).unwrap();
    assert_eq!((second.reply.seq, second.reply.time_ms), (2, NOW.0));
    let log = world.fetch(&session, 0).unwrap();
    assert_eq!(log.head, 2);
    assert_eq!(chain_of(&GROUP, &log.entries).to_vec(), second.reply.chain);
    assert_eq!(log.entries[0].entry, entry(EntryKind::Message, 0, b"one"));
    assert_eq!(world.seqs(&session, 1), [2]);
    assert_eq!(world.fetch_some(&session, 0, 1).unwrap().entries.len(), 1);
}

#[test]
fn creating_twice_is_no_error_but_another_key_is() {
    let mut world = World::new();
    world.create(GROUP, 1).unwrap();
    let session = world.open(1, 0, &[1]).unwrap();
    world.commit(&session, &bundle(1, 0, &[1, 2], 0)).unwrap();
    world.create(GROUP, 1).unwrap();
    refused(world.create(GROUP, 2), Code::ChannelExists);
    refused(world.create_inbox(GROUP, 1, [0; 32]), Code::ChannelExists);
    let inbox = ChannelId::new([7; 16]);
    world.create_inbox(inbox, 3, [1; 32]).unwrap();
    world.create_inbox(inbox, 3, [1; 32]).unwrap();
    refused(world.create_inbox(inbox, 3, [2; 32]), Code::ChannelExists);
    refused(world.create_inbox(inbox, 4, [1; 32]), Code::ChannelExists);
    refused(world.create(inbox, 3), Code::ChannelExists);
    // Nothing was changed by what was refused.
    assert_eq!(world.seqs(&session, 0), [1]);
}

#[test]
fn a_channel_starts_with_its_creators_key_alone() {
    let mut world = World::new();
    for root in [tree(&[1, 2]).root().to_vec(), tree(&[2]).root().to_vec(), vec![0; 31], vec![]] {
        let message = v1::CreateChannelRequest { channel: GROUP.to_vec(), key_root: root, ..Default::default() };
        let request = world.sign(&key(1), method::CREATE_CHANNEL, &message);
        refused(world.store.write(|tx| world.service.create_channel(tx, &request, world.now)), Code::Malformed);
    }
    let message =
        v1::CreateChannelRequest { channel: vec![1; 15], key_root: tree(&[1]).root().to_vec(), ..Default::default() };
    let request = world.sign(&key(1), method::CREATE_CHANNEL, &message);
    refused(world.store.write(|tx| world.service.create_channel(tx, &request, world.now)), Code::Malformed);
    let message = v1::CreateInboxRequest { inbox: vec![1; 16], drop_key: vec![1; 33] };
    let request = world.sign(&key(1), method::CREATE_INBOX, &message);
    refused(world.store.write(|tx| world.service.create_inbox(tx, &request, world.now)), Code::Malformed);
}

#[test]
fn a_lost_reply_is_had_again_and_takes_effect_once() {
    let mut world = World::new();
    world.create(GROUP, 1).unwrap();
    let session = world.open(1, 0, &[1]).unwrap();
    let message = submission(1, entry(EntryKind::Message, 0, b"x"));
    let first = world.submit(&session, &message).unwrap();
    world.send(&session, 2, 0).unwrap();
    world.now = NOW.plus_ms(1000);
    let again = world.submit(&session, &message).unwrap();
    assert_eq!(again.reply, first.reply);
    assert!(again.wake.is_empty());
    // Also in another session of the same key, but not for another request.
    let other = world.open(1, 0, &[1]).unwrap();
    assert_eq!(world.submit(&other, &message).unwrap().reply, first.reply);
    let changed = submission(1, entry(EntryKind::Message, 0, b"y"));
    refused(world.submit(&other, &changed), Code::IdempotencyMismatch);
    assert_eq!(world.seqs(&session, 0), [1, 2]);
    // After a day it is forgotten.
    world.now = NOW.plus_ms(DAY_MS + 1000);
    let session = world.open(1, 0, &[1]).unwrap();
    assert_eq!(world.submit(&session, &message).unwrap().reply.seq, 3);
}

#[test]
fn the_idempotency_key_of_another_member_is_another_key() {
    let mut world = World::new();
    world.create(GROUP, 1).unwrap();
    let session = world.open(1, 0, &[1]).unwrap();
    world.commit(&session, &bundle(1, 0, &[1, 2], 0)).unwrap();
    let other = world.open(2, 1, &[1, 2]).unwrap();
    let message = submission(9, entry(EntryKind::Message, 1, b"x"));
    assert_eq!(world.submit(&session, &message).unwrap().reply.seq, 2);
    assert_eq!(world.submit(&other, &message).unwrap().reply.seq, 3);
}

#[test]
fn each_kind_has_its_epochs() {
    let mut world = World::new();
    world.create(GROUP, 1).unwrap();
    let session = world.open(1, 0, &[1]).unwrap();
    for epoch in 0..3 {
        world.commit(&session, &bundle(epoch + 1, epoch.into(), &[1], epoch.into())).unwrap();
    }
    world.send(&session, 10, 3).unwrap();
    world.send(&session, 11, 2).unwrap();
    for epoch in [1, 4] {
        let refusal = refused(world.send(&session, 12, epoch), Code::EpochStale);
        assert_eq!(refusal.number("epoch"), Some(3));
        assert_eq!(refusal.retry(), Retry::AfterUpdate);
    }
    let proposal = submission(13, entry(EntryKind::Proposal, 2, b"p"));
    assert_eq!(refused(world.submit(&session, &proposal), Code::EpochStale).number("epoch"), Some(3));
    let early = refused(world.commit(&session, &bundle(14, 4, &[1], 0)), Code::EpochStale);
    assert_eq!(early.number("epoch"), Some(3));
}

#[test]
fn a_channel_may_begin_in_epoch_1_by_any_member_who_all_say_the_same() {
    let mut world = World::new();
    let members = [1, 2, 3];
    let create = |world: &mut World, n: u8, members: &[u8], path_of: u8, epoch: u64| {
        let path = tree(members).path(&channel_key(&key(path_of))).ok();
        let message = v1::CreateChannelRequest {
            channel: GROUP.to_vec(),
            key_root: tree(members).root().to_vec(),
            epoch,
            path: path.map(|path| v1::KeyPath {
                index: path.index,
                leaves: path.leaves,
                siblings: path.siblings.iter().map(Hash::to_vec).collect(),
            }),
            ..Default::default()
        };
        let request = world.sign(&key(n), method::CREATE_CHANNEL, &message);
        world.store.write(|tx| world.service.create_channel(tx, &request, world.now)).map(drop)
    };
    // Not by strangers, with another's path, without one, or later in a group's life.
    refused(create(&mut world, 9, &members, 1, 1), Code::Malformed);
    refused(create(&mut world, 1, &members, 2, 1), Code::Malformed);
    refused(create(&mut world, 1, &members, 9, 1), Code::Malformed);
    refused(create(&mut world, 1, &members, 1, 2), Code::Malformed);
    refused(create(&mut world, 1, &members, 1, 0), Code::Malformed);
    create(&mut world, 2, &members, 2, 1).unwrap();
    for n in members {
        create(&mut world, n, &members, n, 1).unwrap();
    }
    refused(create(&mut world, 1, &[1, 4], 1, 1), Code::ChannelExists);
    refused(world.create(GROUP, 1), Code::ChannelExists);
    let session = world.open(3, 1, &members).unwrap();
    world.send(&session, 1, 1).unwrap();
    refused(world.send(&session, 2, 0), Code::EpochStale);
    world.commit(&session, &committed_by(&bundle(3, 1, &[1, 2, 3], 0), 3)).unwrap();
}

#[test]
fn a_message_of_the_epoch_before_may_be_an_hour_late() {
    let mut world = World::new();
    world.create(GROUP, 1).unwrap();
    let session = world.open(1, 0, &[1]).unwrap();
    world.commit(&session, &bundle(1, 0, &[1, 2], 0)).unwrap();
    world.send(&session, 2, 0).unwrap();
    world.now = world.now.plus_ms(law::LATE_MS + 1000);
    let session = world.open(1, 0, &[1]).unwrap();
    let refusal = refused(world.send(&session, 3, 0), Code::EpochStale);
    assert_eq!((refusal.number("epoch"), refusal.retry()), (Some(1), Retry::AfterUpdate));
    world.send(&session, 3, 1).unwrap();
}

#[test]
fn what_is_no_submission_is_refused() {
    let mut world = World::new();
    world.create(GROUP, 1).unwrap();
    let session = world.open(1, 0, &[1]).unwrap();
    let commit = bundle(1, 0, &[1], 0);
    refused(world.submit(&session, &submission(1, commit.entry.clone())), Code::EntryInvalid);
    refused(world.submit(&session, &submission(1, entry(EntryKind::Welcome, 0, b"w"))), Code::EntryInvalid);
    refused(world.submit(&session, &submission(1, vec![])), Code::EntryInvalid);
    refused(world.submit(&session, &submission(1, vec![2; 40])), Code::UnsupportedVersion);
    refused(world.submit(&session, &submission(1, vec![1; limits::INLINE_BODY + 2000])), Code::TooLarge);
    let mut no_key = submission(1, entry(EntryKind::Message, 0, b"x"));
    no_key.idempotency_key.clear();
    refused(world.submit(&session, &no_key), Code::Malformed);
    let message = v1::SubmitBundleRequest { entry: entry(EntryKind::Message, 0, b"x"), ..commit };
    refused(world.commit(&session, &message), Code::EntryInvalid);
    let unstaged = Entry::new(EntryKind::Message, Epoch(0), Body::Staged { hash: Hash::new([1; 32]), size: 9 });
    refused(world.submit(&session, &submission(1, unstaged.to_bytes().unwrap())), Code::BlobUnknown);
    assert_eq!(world.fetch(&session, 0).unwrap().head, 0);
}

#[test]
fn one_fetch_is_bounded_in_entries_and_bytes() {
    let mut world = World::new();
    world.create(GROUP, 1).unwrap();
    let session = world.open(1, 0, &[1]).unwrap();
    for n in 0..40 {
        let body = entry(EntryKind::Message, 0, &vec![n; limits::INLINE_BODY]);
        world.submit(&session, &submission(n, body)).unwrap();
    }
    let log = world.fetch_some(&session, 0, u32::MAX).unwrap();
    let bytes: usize = log.entries.iter().map(|entry| entry.entry.len()).sum();
    assert!(bytes <= limits::FETCH_BYTES && log.entries.len() > 30, "{} entries", log.entries.len());
    assert_eq!(log.head, 40);
    let rest = world.seqs(&session, log.entries.len() as u64);
    assert_eq!(rest.last(), Some(&40));
}

#[test]
fn a_full_store_changes_nothing_and_says_so() {
    let mut world = World::new();
    world.create(GROUP, 1).unwrap();
    let session = world.open(1, 0, &[1]).unwrap();
    world.store.set_full(true);
    refused(world.send(&session, 1, 0), Code::StorageFull);
    refused(world.commit(&session, &bundle(1, 0, &[1], 0)), Code::StorageFull);
    refused(world.create(ChannelId::new([9; 16]), 1), Code::StorageFull);
    assert_eq!(world.fetch(&session, 0).unwrap().head, 0);
    world.store.set_full(false);
    assert_eq!(world.send(&session, 1, 0).unwrap(), 1);
}

#[test]
fn an_epoch_takes_so_many_proposals_and_the_next_as_many() {
    let (mut world, session) = two();
    let propose = |world: &mut World, session: &Session, n: u64, epoch: u64| {
        let entry = entry(EntryKind::Proposal, epoch, &n.to_be_bytes());
        let key = u128::from(n).to_be_bytes().to_vec();
        world.submit(session, &v1::SubmitRequest { idempotency_key: key, entry })
    };
    for n in 0..512 {
        propose(&mut world, &session, n, 1).unwrap();
    }
    let refusal = refused(propose(&mut world, &session, 512, 1), Code::QuotaExceeded);
    assert!(refusal.message.contains("commit some first"), "{refusal}");
    world.send(&session, 200, 1).unwrap();
    let head = world.fetch(&session, 0).unwrap().head;
    world.commit(&session, &bundle(201, 1, &[1, 2], head)).unwrap();
    let session = world.open(1, 2, &[1, 2]).unwrap();
    propose(&mut world, &session, 513, 2).unwrap();
}

/// A group of 1 and 2 in epoch 1, and a session of 1.
fn two() -> (World, Session) {
    let mut world = World::new();
    world.create(GROUP, 1).unwrap();
    let first = world.open(1, 0, &[1]).unwrap();
    world.commit(&first, &bundle(1, 0, &[1, 2], 0)).unwrap();
    let session = world.open(1, 1, &[1, 2]).unwrap();
    (world, session)
}
