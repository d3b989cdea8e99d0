//! Staged blobs.

use conclave_channel::{Body, Entry, EntryKind, chain::entry_hash};
use conclave_names::{ChannelId, Epoch, Hash, limits};
use conclave_protocol::{Code, Refusal, method, v1};
use proptest::prelude::*;

use super::world::*;

fn stage(
    world: &mut World,
    session: &Session,
    hash: Hash,
    blob: &[u8],
    from: usize,
    to: usize,
) -> Result<u64, Refusal> {
    let message = v1::StageBlobRequest {
        hash: hash.to_vec(),
        size: blob.len() as u64,
        offset: from as u64,
        data: blob[from..to].to_vec(),
    };
    stage_message(world, session, &message)
}

fn stage_message(world: &mut World, session: &Session, message: &v1::StageBlobRequest) -> Result<u64, Refusal> {
    let request = session.request(method::STAGE_BLOB, message);
    world.store.write(|tx| world.service.stage_blob(tx, &request, world.now)).map(|done| done.reply.received)
}

fn read(world: &mut World, hash: Hash, offset: u64) -> Result<(u64, Vec<u8>), Refusal> {
    let request = v1::ReadBlobRequest { hash: hash.to_vec(), offset };
    world.store.read(|read| world.service.read_blob(read, &request)).map(|part| (part.size, part.data))
}

fn group() -> (World, Session) {
    let mut world = World::new();
    world.create(GROUP, 1).unwrap();
    let session = world.open(1, 0, &[1]).unwrap();
    (world, session)
}

fn staged(n: u8, hash: Hash, size: u64) -> v1::SubmitRequest {
    submission(n, Entry::new(EntryKind::Message, Epoch(0), Body::Staged { hash, size }).to_bytes().unwrap())
}

#[test]
fn a_blob_is_readable_when_it_is_whole() {
    let (mut world, session) = group();
    let blob: Vec<u8> = (0..=255).collect();
    let hash = entry_hash(&blob);
    assert_eq!(stage(&mut world, &session, hash, &blob, 0, 100).unwrap(), 100);
    refused(read(&mut world, hash, 0), Code::BlobUnknown);
    refused(world.submit(&session, &staged(1, hash, 256)), Code::BlobUnknown);
    assert_eq!(stage(&mut world, &session, hash, &blob, 200, 256).unwrap(), 100, "a gap is not kept");
    assert_eq!(stage(&mut world, &session, hash, &blob, 0, 100).unwrap(), 100, "a part may come again");
    assert_eq!(stage(&mut world, &session, hash, &blob, 50, 256).unwrap(), 256, "or overlap");
    assert_eq!(stage(&mut world, &session, hash, &blob, 0, 100).unwrap(), 256);
    assert_eq!(read(&mut world, hash, 0).unwrap(), (256, blob.clone()));
    assert_eq!(read(&mut world, hash, 150).unwrap(), (256, blob[150..].to_vec()));
    assert_eq!(read(&mut world, hash, 256).unwrap(), (256, vec![]));
    refused(read(&mut world, hash, 257), Code::Malformed);
    refused(world.submit(&session, &staged(1, hash, 255)), Code::BlobInvalid);
    world.submit(&session, &staged(1, hash, 256)).unwrap();
    refused(stage(&mut world, &session, hash, &blob[..255], 0, 10), Code::BlobInvalid);
}

#[test]
fn a_blob_with_another_hash_is_refused_and_can_be_staged_rightly() {
    let (mut world, session) = group();
    let (blob, wrong) = (vec![1; 300], vec![2; 300]);
    let hash = entry_hash(&blob);
    stage(&mut world, &session, hash, &wrong, 0, 200).unwrap();
    refused(stage(&mut world, &session, hash, &wrong, 200, 300), Code::BlobInvalid);
    refused(stage(&mut world, &session, hash, &blob, 200, 300), Code::BlobInvalid);
    // Who starts over with the right bytes is not held up by the wrong ones.
    assert_eq!(stage(&mut world, &session, hash, &blob, 0, 100).unwrap(), 100);
    assert_eq!(stage(&mut world, &session, hash, &blob, 100, 300).unwrap(), 300);
    assert_eq!(read(&mut world, hash, 0).unwrap().1, blob);
}

#[test]
fn nobody_holds_up_who_stages_the_right_blob() {
    let (mut world, alice) = group();
    world.commit(&alice, &bundle(1, 0, &[1, 2], 0)).unwrap();
    let mallory = world.open(2, 1, &[1, 2]).unwrap();
    let blob: Vec<u8> = (0..200).collect();
    let hash = entry_hash(&blob);
    // A wrong size, then wrong bytes, both before the right ones.
    assert_eq!(stage(&mut world, &mallory, hash, &[7; 300], 0, 100).unwrap(), 100);
    assert_eq!(stage(&mut world, &alice, hash, &blob, 0, 100).unwrap(), 100, "what others stage is nothing to her");
    assert_eq!(stage(&mut world, &mallory, hash, &[7; 200], 0, 199).unwrap(), 199, "another size begins anew");
    refused(stage(&mut world, &mallory, hash, &[7; 200], 199, 200), Code::BlobInvalid);
    assert_eq!(stage(&mut world, &alice, hash, &blob, 100, 200).unwrap(), 200);
    assert_eq!(read(&mut world, hash, 0).unwrap(), (200, blob.clone()));
    // Who comes later has nothing left to do, and cannot change it.
    assert_eq!(stage(&mut world, &mallory, hash, &[7; 200], 0, 10).unwrap(), 200);
    refused(stage(&mut world, &mallory, hash, &[7; 300], 0, 10), Code::BlobInvalid);
    assert_eq!(read(&mut world, hash, 0).unwrap().1, blob);
}

#[test]
fn a_blob_is_resumed_by_who_began_it_also_in_another_session() {
    let (mut world, session) = group();
    let blob = vec![5; 3000];
    let hash = entry_hash(&blob);
    stage(&mut world, &session, hash, &blob, 0, 1000).unwrap();
    world.now = NOW.plus_ms(DAY_MS - 1);
    world.maintain();
    let session = world.open(1, 0, &[1]).unwrap();
    assert_eq!(stage(&mut world, &session, hash, &blob, 0, 500).unwrap(), 1000);
    assert_eq!(stage(&mut world, &session, hash, &blob, 1000, 2999).unwrap(), 2999);
    // Each part gives it another day.
    world.now = NOW.plus_ms(2 * DAY_MS - 2);
    world.maintain();
    let session = world.open(1, 0, &[1]).unwrap();
    assert_eq!(stage(&mut world, &session, hash, &blob, 2999, 3000).unwrap(), 3000);
    assert_eq!(read(&mut world, hash, 0).unwrap().1, blob);
}

#[test]
fn what_a_channel_stages_and_nothing_names_is_bounded() {
    let (mut world, session) = group();
    let announce = |world: &mut World, session: &Session, n: u8, size: u64| {
        let message = v1::StageBlobRequest { hash: vec![n; 32], size, offset: 0, data: vec![n; 10] };
        stage_message(world, session, &message)
    };
    announce(&mut world, &session, 1, limits::BLOB).unwrap();
    let named = world.stage(&session, b"a small one");
    announce(&mut world, &session, 2, limits::BLOB - 11).unwrap();
    let refusal = refused(announce(&mut world, &session, 3, 10), Code::QuotaExceeded);
    assert!(refusal.message.contains(&limits::STAGED_BYTES.to_string()), "{refusal}");
    announce(&mut world, &session, 2, limits::BLOB - 11).unwrap();
    // What is named counts no longer; another channel has a quota of its own.
    world.submit(&session, &staged(1, named, 11)).unwrap();
    announce(&mut world, &session, 3, 11).unwrap();
    refused(announce(&mut world, &session, 4, 10), Code::QuotaExceeded);
    let other = ChannelId::new([9; 16]);
    world.create(other, 2).unwrap();
    let elsewhere = world.open_with(2, &open_request(other, 2, 0, &[2])).unwrap();
    announce(&mut world, &elsewhere, 4, 12).unwrap();
    // Smaller instead of larger frees the difference; after a day all of it is free.
    announce(&mut world, &session, 1, 100).unwrap();
    announce(&mut world, &session, 4, 11).unwrap();
    world.now = NOW.plus_ms(DAY_MS);
    world.maintain();
    let session = world.open(1, 0, &[1]).unwrap();
    announce(&mut world, &session, 5, limits::BLOB).unwrap();
    announce(&mut world, &session, 6, limits::BLOB).unwrap();
}

#[test]
fn so_many_blobs_of_a_channel_and_no_more_are_staged() {
    let (mut world, session) = group();
    for n in 0..=limits::STAGED_BLOBS {
        let hash = [n.to_be_bytes(); 4].concat();
        let message = v1::StageBlobRequest { hash, size: 2, offset: 0, data: vec![1] };
        let result = stage_message(&mut world, &session, &message);
        if n < limits::STAGED_BLOBS {
            result.unwrap();
        } else {
            refused(result, Code::QuotaExceeded);
        }
    }
}

#[test]
fn oversized_and_impossible_parts_are_refused() {
    let (mut world, session) = group();
    let good = v1::StageBlobRequest { hash: vec![1; 32], size: 100, offset: 0, data: vec![1; 10] };
    for (message, code) in [
        (v1::StageBlobRequest { hash: vec![1; 31], ..good.clone() }, Code::Malformed),
        (v1::StageBlobRequest { size: limits::BLOB + 1, ..good.clone() }, Code::TooLarge),
        (
            v1::StageBlobRequest { size: limits::BLOB, data: vec![0; limits::BLOB_CHUNK + 1], ..good.clone() },
            Code::TooLarge,
        ),
        (v1::StageBlobRequest { offset: 91, ..good.clone() }, Code::Malformed),
        (v1::StageBlobRequest { offset: u64::MAX, ..good.clone() }, Code::Malformed),
        (v1::StageBlobRequest { data: vec![], ..good.clone() }, Code::Malformed),
    ] {
        refused(stage_message(&mut world, &session, &message), code);
    }
    let request = v1::ReadBlobRequest { hash: vec![1; 5], offset: 0 };
    refused(world.store.read(|read| world.service.read_blob(read, &request)), Code::Malformed);
}

#[test]
fn what_nothing_names_goes_after_a_day_and_what_an_entry_names_stays() {
    let (mut world, session) = group();
    let (named, unnamed, partial) = (vec![1; 10], vec![2; 10], vec![3; 10]);
    let hash = world.stage(&session, &named);
    world.submit(&session, &staged(1, hash, 10)).unwrap();
    let gone = world.stage(&session, &unnamed);
    stage(&mut world, &session, entry_hash(&partial), &partial, 0, 5).unwrap();
    world.now = NOW.plus_ms(DAY_MS);
    world.maintain();
    assert_eq!(read(&mut world, hash, 0).unwrap().1, named);
    refused(read(&mut world, gone, 0), Code::BlobUnknown);
    let session = world.open(1, 0, &[1]).unwrap();
    assert_eq!(stage(&mut world, &session, entry_hash(&partial), &partial, 5, 10).unwrap(), 0);
}

#[test]
fn one_entry_names_a_blob_and_only_commits_and_successors_name_large_ones() {
    let (mut world, session) = group();
    let blob = vec![1; 1000];
    let hash = world.stage(&session, &blob);
    let first = staged(1, hash, 1000);
    let reply = world.submit(&session, &first).unwrap().reply;
    let refusal = refused(world.submit(&session, &staged(2, hash, 1000)), Code::BlobInvalid);
    assert!(refusal.message.contains("already"), "{refusal}");
    assert_eq!(world.submit(&session, &first).unwrap().reply, reply, "the same submission is no other entry");
    // Also where it is announced and nothing of it is here.
    let parse = |n: u8, size: u64| {
        let mut request = staged(n, Hash::new([n; 32]), limits::STAGED_BODY);
        let at = request.entry.len() - 8;
        request.entry[at..].copy_from_slice(&size.to_be_bytes());
        request
    };
    refused(world.submit(&session, &parse(3, limits::STAGED_BODY)), Code::BlobUnknown);
    refused(world.submit(&session, &parse(4, limits::STAGED_BODY + 1)), Code::TooLarge);
    let successor = |size| {
        let body = Body::Staged { hash: Hash::new([9; 32]), size };
        submission(5, Entry::new(EntryKind::Successor, Epoch(0), body).to_bytes().unwrap())
    };
    refused(world.submit(&session, &successor(limits::BLOB)), Code::TooLarge);
    refused(world.submit(&session, &successor(limits::STAGED_BODY)), Code::BlobUnknown);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever parts come in whatever order, following `received` ends with the blob as it was announced.
    #[test]
    fn any_order_of_parts_converges(
        len in 1..2000usize,
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<bool>()), 0..20),
    ) {
        let (mut world, session) = group();
        let blob: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let wrong = vec![0xFF; len];
        let hash = entry_hash(&blob);
        for (a, b, right) in cuts {
            let (a, b) = (a.index(len), b.index(len));
            let (from, to) = (a.min(b), a.max(b) + 1);
            let bytes = if right { &blob } else { &wrong };
            let _ = stage(&mut world, &session, hash, bytes, from, to);
            if let Ok((_, data)) = read(&mut world, hash, 0) {
                prop_assert_eq!(&data, &blob);
            }
        }
        let mut at = 0;
        for _ in 0..100 {
            let to = (at + 500).min(len);
            at = usize::try_from(stage(&mut world, &session, hash, &blob, at.min(len - 1), to.max(at.min(len - 1) + 1)).unwrap_or(0)).unwrap();
            if at == len { break; }
        }
        prop_assert_eq!(read(&mut world, hash, 0).unwrap().1, blob);
    }
}
