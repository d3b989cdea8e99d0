//! Commits that members dispute or acknowledge, as the server orders them; and what the server signs.

use conclave_channel::{
    Entry, EntryKind, Position, chain,
    law::{DISPUTE_MS, Ledger},
    receipt::{Equivocation, Receipt, ReceiptKey},
    verdict::{Signature, Verdict},
};
use conclave_names::{Epoch, Hash, Seq, Timestamp};
use conclave_protocol::{Code, Refusal, method, v1};

use crate::world::*;

/// A group of 1, 2 and 3 in epoch 1, which is settled: entry 1 added the others.
fn group() -> (World, Vec<Session>) {
    let mut world = World::new();
    world.create(GROUP, 1).unwrap();
    let first = world.open(1, 0, &[1]).unwrap();
    world.commit(&first, &bundle(1, 0, &[1, 2, 3], 0)).unwrap();
    let sessions = (1..=3).map(|n| world.open(n, 1, &[1, 2, 3]).unwrap()).collect();
    (world, sessions)
}

/// What member `n` of epoch 1 says about the commit at `seq`.
fn verdict(world: &mut World, kind: EntryKind, n: u8, session: &Session, seq: u64) -> v1::SubmitRequest {
    let logged = world.fetch(session, seq - 1).unwrap().entries.remove(0);
    let ended = Entry::parse(&logged.entry).unwrap().epoch;
    let about = Position { seq: Seq(seq), hash: chain::entry_hash(&logged.entry) };
    let path = tree(&[1, 2, 3]).path(&channel_key(&key(n))).unwrap();
    let entry = Verdict::sign(&GROUP, kind, ended, &about, &key(n), path, vec![n; 256]);
    submission(100 + n + kind.code(), entry.to_bytes().unwrap())
}

/// What a reader makes of a log from its beginning.
fn reads(world: &mut World, session: &Session) -> (u64, Vec<u8>, Vec<u8>) {
    let mut ledger = Ledger::new(Epoch(0), tree(&[1]).root(), 1);
    let (mut seq, mut hash) = (0, chain::start(&GROUP));
    for logged in world.fetch(session, 0).unwrap().entries {
        let (entry, said) = (Entry::parse(&logged.entry).unwrap(), chain::entry_hash(&logged.entry));
        let time = Timestamp(logged.time_ms);
        ledger.advance(time);
        ledger.admit(&GROUP, Seq(logged.seq), time, &entry, said).unwrap();
        (seq, hash) = (logged.seq, chain::next(&hash, Seq(logged.seq), entry.kind, time, &said));
    }
    (seq, hash.to_vec(), ledger.hash().unwrap().to_vec())
}

#[test]
fn the_end_that_is_told_with_a_group_info_is_what_readers_come_to() {
    let (mut world, sessions) = group();
    let [alice, bob, _] = sessions.as_slice() else { panic!() };
    let compare = |world: &mut World, session: &Session| {
        let served = world.group_info(session).unwrap();
        assert_eq!((served.head, served.chain, served.ledger), reads(world, session));
    };
    compare(&mut world, alice);
    world.send(alice, 2, 1).unwrap();
    world.commit(alice, &bundle(3, 1, &[1, 2, 3], 2)).unwrap();
    compare(&mut world, bob);
    let nack = verdict(&mut world, EntryKind::Nack, 2, bob, 3);
    world.submit(bob, &nack).unwrap();
    compare(&mut world, bob);
    world.now = world.now.plus_ms(DISPUTE_MS + 1);
    let bob = world.open(2, 1, &[1, 2, 3]).unwrap();
    // What was refused has changed nothing.
    refused(world.send(&bob, 5, 7), Code::EpochStale);
    world.send(&bob, 6, 1).unwrap();
    compare(&mut world, &bob);
}

#[test]
fn a_group_has_its_own_pause_within_bounds() {
    let create = |world: &mut World, dispute_ms: u64| {
        let root = tree(&[1]).root().to_vec();
        let message =
            v1::CreateChannelRequest { channel: GROUP.to_vec(), key_root: root, dispute_ms, ..Default::default() };
        let request = world.sign(&key(1), method::CREATE_CHANNEL, &message);
        world.store.write(|tx| world.service.create_channel(tx, &request, world.now)).map(drop)
    };
    for pause in [10_000, 60_000, 24 * 3_600_000] {
        let mut world = World::new();
        for bad in [1, 9_999, 24 * 3_600_000 + 1, u64::MAX] {
            refused(create(&mut world, bad), Code::Malformed);
        }
        create(&mut world, pause).unwrap();
        create(&mut world, pause).unwrap();
        // It is not changed by asking again.
        refused(create(&mut world, 0), Code::ChannelExists);
        refused(create(&mut world, pause - 1000 + 2000 * u64::from(pause == 10_000)), Code::ChannelExists);
        let first = world.open(1, 0, &[1]).unwrap();
        world.commit(&first, &bundle(1, 0, &[1, 2, 3], 0)).unwrap();
        let (alice, bob) = (world.open(1, 1, &[1, 2, 3]).unwrap(), world.open(2, 1, &[1, 2, 3]).unwrap());
        world.commit(&alice, &bundle(2, 1, &[1, 2, 3, 4], 1)).unwrap();
        let nack = verdict(&mut world, EntryKind::Nack, 2, &bob, 2);
        world.submit(&bob, &nack).unwrap();
        world.now = world.now.plus_ms(pause);
        // At the bound an Ack would still count.
        let bob = world.open(2, 1, &[1, 2, 3]).unwrap();
        refused(world.commit(&bob, &bundle(5, 1, &[1, 2, 3], 2)), Code::EpochConflict);
        world.now = world.now.plus_ms(1);
        world.commit(&bob, &bundle(6, 1, &[1, 2, 3], 3)).unwrap();
    }
}

#[test]
fn a_commit_that_nobody_acknowledges_is_annulled_and_the_epoch_takes_another() {
    let (mut world, sessions) = group();
    let [alice, bob, carol] = sessions.as_slice() else { panic!() };
    let bad = bundle(2, 1, &[1, 2, 3, 4], 1);
    assert_eq!(world.commit(alice, &bad).unwrap().reply.seq, 2);
    world.send(alice, 3, 2).unwrap(); // 3, in the epoch that will not have been

    let nack = verdict(&mut world, EntryKind::Nack, 2, bob, 2);
    assert_eq!(world.submit(bob, &nack).unwrap().reply.seq, 4);
    let again = verdict(&mut world, EntryKind::Nack, 3, carol, 2);
    refused(world.submit(carol, &again), Code::VerdictRefused);
    let early = refused(world.commit(bob, &bundle(5, 1, &[1, 2, 3], 2)), Code::EpochConflict);
    assert_eq!(early.number("epoch"), Some(2));

    world.now = world.now.plus_ms(DISPUTE_MS);
    let dave = world.open(4, 2, &[1, 2, 3, 4]).unwrap();
    world.now = world.now.plus_ms(1);
    let bob = world.open(2, 1, &[1, 2, 3]).unwrap();
    assert_eq!(world.commit(&bob, &bundle(6, 1, &[1, 2, 3], 4)).unwrap().reply.seq, 5);
    assert_eq!(world.group_info(&bob).unwrap().epoch, 2);

    // Who was added by the annulled commit is a member of nothing; nor is its key tree that of the new epoch 2.
    refused(world.fetch(&dave, 0), Code::AccessRefused);
    refused(world.open(4, 2, &[1, 2, 3, 4]), Code::AccessRefused);
    let carol = world.open(3, 2, &[1, 2, 3]).unwrap();
    world.send(&carol, 7, 2).unwrap();
    assert_eq!(world.seqs(&carol, 4), [5, 6]);
}

/// The server knows no members: but it knows how many there were, and how many the commit says to remove.
#[test]
fn a_commit_that_falsely_leaves_one_member_can_be_disputed() {
    let (mut world, sessions) = group();
    let [alice, bob, _] = sessions.as_slice() else { panic!() };
    // Not a removal, but a tree of her key alone.
    world.commit(alice, &bundle(2, 1, &[1], 1)).unwrap();
    let nack = verdict(&mut world, EntryKind::Nack, 2, bob, 2);
    world.submit(bob, &nack).unwrap();
    world.now = world.now.plus_ms(DISPUTE_MS + 1);
    let bob = bob_again(&mut world);
    assert_eq!(world.commit(&bob, &bundle(3, 1, &[1, 2, 3], 3)).unwrap().reply.seq, 4);
    // And what no group has is refused.
    let mut none = bundle(4, 2, &[1, 2, 3], 4);
    let mut entry = Entry::parse(&none.entry).unwrap();
    entry.commit.as_mut().unwrap().members = 0;
    none.entry = entry.to_bytes().unwrap();
    let alice = world.open(1, 2, &[1, 2, 3]).unwrap();
    refused(world.commit(&alice, &none), Code::EntryInvalid);
}

/// A clock that was once wrong by years leaves the channel that far ahead; what time decides is decided all the same.
#[test]
fn a_dispute_ends_after_a_clock_was_far_ahead() {
    let (mut world, _) = group();
    let right = world.now;
    world.now = right.plus_ms(50 * 365 * DAY_MS);
    let alice = world.open(1, 1, &[1, 2, 3]).unwrap();
    world.send(&alice, 9, 1).unwrap();
    world.now = right;
    let alice = world.open(1, 1, &[1, 2, 3]).unwrap();
    let bob = bob_again(&mut world);
    assert_eq!(world.commit(&alice, &bundle(2, 1, &[1, 2, 3, 4], 2)).unwrap().reply.seq, 3);
    let nack = verdict(&mut world, EntryKind::Nack, 2, &bob, 3);
    world.submit(&bob, &nack).unwrap();
    world.now = right.plus_ms(DISPUTE_MS);
    let bob = bob_again(&mut world);
    refused(world.commit(&bob, &bundle(5, 1, &[1, 2, 3], 4)), Code::EpochConflict);
    world.now = right.plus_ms(DISPUTE_MS + 1);
    let bob = bob_again(&mut world);
    assert_eq!(world.commit(&bob, &bundle(6, 1, &[1, 2, 3], 4)).unwrap().reply.seq, 5);
    // Nobody sees time run backwards; and a clock that is a little behind is waited for.
    let log = world.fetch(&bob, 0).unwrap().entries;
    assert!(log.is_sorted_by(|one, next| one.time_ms <= next.time_ms));
    let last = log.last().unwrap().time_ms;
    assert_eq!(last, right.plus_ms(50 * 365 * DAY_MS + DISPUTE_MS + 1).0);
}

#[test]
fn an_annulled_removal_gives_the_access_back() {
    let (mut world, sessions) = group();
    let [alice, _, carol] = sessions.as_slice() else { panic!() };
    world.commit(alice, &bundle_of(2, 1, &[1, 2], 1, true)).unwrap();
    assert_eq!(world.seqs(carol, 1), [2]);
    // The removed member's word alone disputes nothing.
    let removed = verdict(&mut world, EntryKind::Nack, 3, carol, 2);
    world.submit(carol, &removed).unwrap();
    world.now = world.now.plus_ms(DISPUTE_MS + 1);
    let carol = world.open(3, 1, &[1, 2, 3]).unwrap();
    refused(world.send(&carol, 9, 1), Code::AccessRefused);
    assert_eq!(world.seqs(&carol, 1), [2], "the removal stands");

    let bob = bob_again(&mut world);
    let bob_says = verdict(&mut world, EntryKind::Nack, 2, &bob, 2);
    world.submit(&bob, &bob_says).unwrap();
    world.now = world.now.plus_ms(DISPUTE_MS);
    let carol = world.open(3, 1, &[1, 2, 3]).unwrap();
    assert_eq!(world.seqs(&carol, 1), [2]);
    refused(stage(&mut world, &carol), Code::AccessRefused);
    world.now = world.now.plus_ms(1);
    let carol = world.open(3, 1, &[1, 2, 3]).unwrap();
    // What goes before the entry by which the channel comes to this time: she reads on, and stages.
    assert_eq!(world.seqs(&carol, 1), [2, 3, 4]);
    assert_eq!(stage(&mut world, &carol).unwrap(), 4);
    let bob = bob_again(&mut world);
    world.send(&bob, 10, 1).unwrap();
    assert_eq!(world.seqs(&carol, 1), [2, 3, 4, 5]);
    world.send(&carol, 11, 1).unwrap();
    let info = world.group_info(&carol).unwrap();
    assert_eq!((info.epoch, info.group_info.len()), (1, 0), "the annulled epoch's is never served");
}

/// Stages a small blob; says how much of it there is.
fn stage(world: &mut World, session: &Session) -> Result<u64, Refusal> {
    let data = b"blob".to_vec();
    let message = v1::StageBlobRequest { hash: chain::entry_hash(&data).to_vec(), size: 4, offset: 0, data };
    let request = session.request(method::STAGE_BLOB, &message);
    world.store.write(|tx| world.service.stage_blob(tx, &request, world.now)).map(|done| done.reply.received)
}

fn bob_again(world: &mut World) -> Session {
    world.open(2, 1, &[1, 2, 3]).unwrap()
}

#[test]
fn an_acknowledged_commit_stands_and_later_words_do_not_count() {
    let (mut world, sessions) = group();
    let [alice, bob, carol] = sessions.as_slice() else { panic!() };
    world.commit(alice, &bundle(2, 1, &[1, 2, 3], 1)).unwrap();
    let nack = verdict(&mut world, EntryKind::Nack, 2, bob, 2);
    world.submit(bob, &nack).unwrap();
    let own = verdict(&mut world, EntryKind::Ack, 1, alice, 2);
    refused(world.submit(alice, &own), Code::VerdictRefused);
    let ack = verdict(&mut world, EntryKind::Ack, 3, carol, 2);
    world.submit(carol, &ack).unwrap();
    // The same again is the same submission, and another is refused.
    assert_eq!(world.submit(carol, &ack).unwrap().reply.seq, 4);
    let late = verdict(&mut world, EntryKind::Nack, 3, carol, 2);
    refused(world.submit(carol, &late), Code::VerdictRefused);
    world.now = world.now.plus_ms(10 * DISPUTE_MS);
    let alice = world.open(1, 2, &[1, 2, 3]).unwrap();
    world.send(&alice, 9, 2).unwrap();
}

#[test]
fn a_forged_verdict_and_a_borrowed_committer_are_refused() {
    let (mut world, sessions) = group();
    let [alice, bob, _] = sessions.as_slice() else { panic!() };
    refused(world.commit_as(alice, &bundle(2, 1, &[1, 2, 3], 1), 2), Code::EntryInvalid);
    world.commit(alice, &bundle(2, 1, &[1, 2, 3], 1)).unwrap();
    let mut request = verdict(&mut world, EntryKind::Nack, 2, bob, 2);
    let mut entry = Entry::parse(&request.entry).unwrap();
    entry.verdict.as_mut().unwrap().signature = Signature([1; 64]);
    request.entry = entry.to_bytes().unwrap();
    refused(world.submit(bob, &request), Code::VerdictRefused);
    // A key of another epoch proves nothing.
    let path = tree(&[2, 9]).path(&channel_key(&key(9))).unwrap();
    let about = Position { seq: Seq(2), hash: Hash::new([0; 32]) };
    let entry = Verdict::sign(&GROUP, EntryKind::Nack, Epoch(1), &about, &key(9), path, vec![]);
    refused(world.submit(bob, &submission(50, entry.to_bytes().unwrap())), Code::VerdictRefused);
    assert_eq!(world.seqs(bob, 1), [2]);
}

#[test]
fn every_accepted_submission_has_a_receipt_and_two_of_one_place_prove_a_lie() {
    let (mut world, sessions) = group();
    let info = world.store.read(|read| world.service.get_server_info(read, world.now)).unwrap();
    let public = ReceiptKey(info.receipt_key.as_slice().try_into().unwrap());
    let receipt_of = |world: &World, mut done: conclave_delivery::Done<v1::SubmitResponse>| {
        world.service.sign_receipt(&mut done);
        let hash = done.reply.chain.as_slice().try_into().unwrap();
        let position = Position { seq: Seq(done.reply.seq), hash };
        let signature = Signature(done.reply.receipt.as_slice().try_into().unwrap());
        Receipt { channel: GROUP, position, signature }
    };
    let message = submission(9, entry(EntryKind::Message, 1, b"hello"));
    let done = world.submit(&sessions[1], &message).unwrap();
    let first = receipt_of(&world, done);
    first.verify(&public).unwrap();
    let log = world.fetch(&sessions[0], 1).unwrap().entries;
    assert_eq!(first.position.seq, Seq(log[0].seq));
    let done = world.submit(&sessions[1], &message).unwrap();
    assert_eq!(receipt_of(&world, done), first, "the answer to a retry has it too");
    let done = world.commit(&sessions[0], &bundle(2, 1, &[1, 2, 3], 1)).unwrap();
    let second = receipt_of(&world, done);
    second.verify(&public).unwrap();
    assert!(Equivocation { one: first, other: second }.verify(&public).is_err());

    // The same server, having forgotten: it orders another entry in the same place.
    let (mut other, sessions) = group();
    let secret = world.store.read(|read| read.server_secret()).unwrap().unwrap();
    other.store.write(|tx| tx.put_server_secret(&secret)).unwrap();
    other.service = conclave_delivery::DeliveryService::new(
        domain(),
        other.identities.clone(),
        conclave_delivery::Config::default(),
    )
    .unwrap();
    other.maintain();
    let session = other.open(1, 1, &[1, 2, 3]).unwrap();
    let done = other.submit(&session, &submission(9, entry(EntryKind::Message, 1, b"goodbye"))).unwrap();
    let lie = receipt_of(&other, done);
    assert_eq!(Equivocation { one: first, other: lie }.verify(&public), Ok(()));
    drop(sessions);
}
