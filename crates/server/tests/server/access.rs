//! Who may read and write a channel, and what may stand in it.

use std::time::Duration;

use conclave_channel::{Body, Entry, EntryKind};
use conclave_names::{ChannelId, Epoch, Hash, limits};
use conclave_protocol::{Code, Refusal, method, v1, v1::stream_event::Event};
use sha2::Digest as _;

use super::client::*;

#[tokio::test]
async fn a_stranger_cannot_tell_whether_a_channel_exists() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let client = Client::of(&running).await;
    let there = client.channel(1).await.channel;
    let inbox = ChannelId::new([5; 16]);
    let message = v1::CreateInboxRequest { inbox: inbox.to_vec(), drop_key: vec![1; 32] };
    client.delivery().create_inbox(sign(&key(5), method::CREATE_INBOX, &message)).await.unwrap();
    let absent = ChannelId::new([0xEE; 16]);
    let mut answers: Vec<Refusal> = Vec::new();
    for (n, open) in [
        (9, member_of(absent, 9, 0, &[9])),
        (9, member_of(there, 9, 0, &[9])),
        (9, member_of(there, 1, 0, &[1])),
        (1, member_of(there, 1, 1, &[1])),
        (9, member_of(inbox, 9, 0, &[9])),
        (9, v1::OpenSessionRequest { channel: inbox.to_vec(), epoch: 0, path: None }),
        (9, v1::OpenSessionRequest { channel: absent.to_vec(), epoch: 0, path: None }),
    ] {
        answers.push(denied(client.open(n, &open).await, Code::AccessRefused));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    denied(
        client.open(9, &v1::OpenSessionRequest { channel: vec![1; 15], epoch: 0, path: None }).await,
        Code::Malformed,
    );
    let long = v1::KeyPath { index: 0, leaves: 1, siblings: vec![vec![0; 32]; 30] };
    let long = v1::OpenSessionRequest { channel: there.to_vec(), epoch: 0, path: Some(long) };
    denied(client.open(9, &long).await, Code::Malformed);
    denied(client.create(there, 9).await, Code::ChannelExists);
    client.session(1, there).await;
    running.shutdown().await;
}

#[tokio::test]
async fn a_session_is_its_keys_and_each_counter_is_used_once() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let client = Client::of(&running).await;
    let (mine, other) = (client.channel(1).await, client.channel(2).await);
    let fetch = v1::FetchRequest { after: 0, limit: 0 };
    let good = mine.request(method::FETCH, &fetch);
    let forged = v1::SessionRequest { session: mine.id.to_vec(), ..other.request(method::FETCH, &fetch) };
    refused(client.delivery().fetch(forged).await, Code::SessionUnknown);
    let other_call = mine.request(method::TRIM, &fetch);
    refused(client.delivery().fetch(other_call).await, Code::SessionUnknown);
    refused(
        client.delivery().fetch(v1::SessionRequest { mac: vec![1; 5], ..good.clone() }).await,
        Code::SessionUnknown,
    );
    refused(client.delivery().fetch(v1::SessionRequest { session: vec![1; 5], ..good.clone() }).await, Code::Malformed);
    client.delivery().fetch(good.clone()).await.unwrap();
    refused(client.delivery().fetch(good).await, Code::RequestReplayed);
    // What is for inboxes is not for groups.
    let trim = mine.request(method::TRIM, &v1::TrimRequest { up_to: 1 });
    refused(client.delivery().trim(trim).await, Code::AccessRefused);
    running.shutdown().await;
}

#[tokio::test]
async fn wrong_entries_and_epochs_leave_the_channel_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let client = Client::of(&running).await;
    let session = client.channel(1).await;
    let entry = |kind, epoch, body| Entry::new(kind, Epoch(epoch), body).to_bytes().unwrap();
    let small = || Body::Inline(vec![0; 256]);
    let mut version = entry(EntryKind::Message, 0, small());
    version[0] = 9;
    let mut longer = entry(EntryKind::Message, 0, small());
    longer.push(0);
    let absent = Body::Staged { hash: Hash::new([7; 32]), size: 100 };
    for (bytes, code) in [
        (Vec::new(), Code::EntryInvalid),
        (vec![1; 40], Code::EntryInvalid),
        (longer, Code::EntryInvalid),
        (version, Code::UnsupportedVersion),
        (vec![1; limits::INLINE_BODY + 2000], Code::TooLarge),
        (entry(EntryKind::Welcome, 0, small()), Code::EntryInvalid),
        (bundle(1, 0, &[1], false).entry, Code::EntryInvalid),
        (entry(EntryKind::Message, 0, absent), Code::BlobUnknown),
        (entry(EntryKind::Message, 1, small()), Code::EpochStale),
        (entry(EntryKind::Proposal, u64::MAX, small()), Code::EpochStale),
    ] {
        refused(client.delivery().submit(session.entry(1, bytes)).await, code);
    }
    let good = bundle(2, 0, &[1, 2], false);
    for (bad, code) in [
        (v1::SubmitBundleRequest { entry: entry(EntryKind::Message, 0, small()), ..good.clone() }, Code::EntryInvalid),
        (v1::SubmitBundleRequest { base_seq: 7, ..good.clone() }, Code::EntryInvalid),
        (v1::SubmitBundleRequest { tree: vec![1; 32], ..good.clone() }, Code::TreeIncomplete),
        (
            v1::SubmitBundleRequest {
                tree: vec![1; 32],
                tree_added: vec![vec![1; 32]],
                tree_whole: true,
                ..good.clone()
            },
            Code::BlobUnknown,
        ),
        (v1::SubmitBundleRequest { group_info: vec![1; limits::GROUP_INFO + 1], ..good.clone() }, Code::TooLarge),
        (v1::SubmitBundleRequest { idempotency_key: vec![1; 3], ..good.clone() }, Code::Malformed),
        (bundle(2, 1, &[1, 2], false), Code::EpochStale),
    ] {
        denied(session.commit(&bad).await, code);
    }
    assert_eq!(session.fetch(0).await, v1::FetchResponse { oldest: 1, ..Default::default() });
    let info = session.group_info().await;
    assert!(info.epoch == 0 && info.head == 0 && info.group_info.is_empty() && info.tree.is_empty());

    let winner = session.commit(&good).await.unwrap();
    let refusal = denied(session.commit(&bundle(3, 0, &[1, 3], false)).await, Code::EpochConflict);
    assert_eq!((refusal.number("epoch"), refusal.number("winner")), (Some(1), Some(winner)));
    assert_eq!(session.commit(&good).await.unwrap(), winner, "a repetition gets the same answer");
    let other = v1::SubmitBundleRequest { group_info: vec![9; 9], ..good };
    denied(session.commit(&other).await, Code::IdempotencyMismatch);
    let info = session.group_info().await;
    assert_eq!((info.epoch, info.group_info, session.fetch(0).await.head), (1, vec![2; 300], winner));
    running.shutdown().await;
}

#[tokio::test]
async fn wrong_blobs_are_refused_and_the_right_one_is_taken() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let client = Client::of(&running).await;
    let session = client.channel(1).await;
    let data = vec![5; 1000];
    let hash = sha2::Sha256::digest(&data).to_vec();
    let good = v1::StageBlobRequest { hash: hash.clone(), size: 1000, offset: 0, data };
    for (bad, code) in [
        (v1::StageBlobRequest { hash: vec![1; 31], ..good.clone() }, Code::Malformed),
        (v1::StageBlobRequest { size: limits::BLOB + 1, ..good.clone() }, Code::TooLarge),
        (
            v1::StageBlobRequest { size: limits::BLOB, data: vec![0; limits::BLOB_CHUNK + 1], ..good.clone() },
            Code::TooLarge,
        ),
        (v1::StageBlobRequest { offset: u64::MAX, ..good.clone() }, Code::Malformed),
        (v1::StageBlobRequest { data: vec![6; 1000], ..good.clone() }, Code::BlobInvalid),
    ] {
        refused(session.stage(&bad).await, code);
    }
    let read = v1::ReadBlobRequest { hash, offset: 0 };
    refused(client.delivery().read_blob(read.clone()).await, Code::BlobUnknown);
    assert_eq!(session.stage(&good).await.unwrap().into_inner().received, 1000);
    client.delivery().read_blob(read.clone()).await.unwrap();
    refused(client.delivery().read_blob(v1::ReadBlobRequest { offset: 1001, ..read.clone() }).await, Code::Malformed);
    refused(client.delivery().read_blob(v1::ReadBlobRequest { hash: vec![1], ..read }).await, Code::Malformed);
    running.shutdown().await;
}

#[tokio::test]
async fn the_stream_of_a_removed_member_ends_with_its_removal() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let client = Client::of(&running).await;
    let alice = client.channel(1).await;
    alice.commit(&bundle(1, 0, &[1, 2], false)).await.unwrap();
    let bob = client.open(2, &member_of(alice.channel, 2, 1, &[1, 2])).await.unwrap();
    let (handle, mut events) = client.stream().await;
    bob.attach(&handle, 0).await.unwrap();
    let mut seen = Vec::new();
    let removal = alice.commit(&bundle(2, 1, &[1], true)).await.unwrap();
    let alice = client.open(1, &member_of(alice.channel, 1, 2, &[1])).await.unwrap();
    let after = Entry::new(EntryKind::Message, Epoch(2), Body::Inline(vec![0; 256])).to_bytes().unwrap();
    let after = client.delivery().submit(alice.entry(1, after)).await.unwrap().into_inner().seq;
    let reason = loop {
        match next(&mut events).await {
            Event::Entries(new) => seen.extend(new.entries.iter().map(|entry| entry.seq)),
            Event::Ended(ended) => break (ended.channel, ended.reason),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(reason, (bob.channel.to_vec(), "ACCESS_ENDED".to_owned()));
    assert_eq!(seen, (1..=removal).collect::<Vec<_>>());
    assert!(after > removal && bob.fetch(0).await.head == removal);
    // Attached again it learns no more than that.
    bob.attach(&handle, removal).await.unwrap();
    match next(&mut events).await {
        Event::Ended(ended) => assert_eq!(ended.reason, "ACCESS_ENDED"),
        other => panic!("{other:?}"),
    }
    running.shutdown().await;
}

#[tokio::test]
async fn attaching_again_moves_the_place_and_doubles_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let client = Client::of(&running).await;
    let session = client.channel(1).await;
    for n in 1..=3 {
        session.submit(n, vec![0; 256]).await;
    }
    let (handle, mut events) = client.stream().await;
    let mut batch = async || match next(&mut events).await {
        Event::Entries(new) => new.entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    session.attach(&handle, 0).await.unwrap();
    assert_eq!(batch().await, [1, 2, 3]);
    session.attach(&handle, 3).await.unwrap();
    session.attach(&handle, 1).await.unwrap();
    assert_eq!(batch().await, [2, 3]);
    session.submit(4, vec![0; 256]).await;
    assert_eq!(batch().await, [4]);
    session.detach(&handle).await.unwrap();
    // Once more is once too often, but no error: it is what was wanted.
    session.detach(&handle).await.unwrap();
    match next(&mut events).await {
        Event::Ended(ended) => assert_eq!(ended.reason, "DETACHED"),
        other => panic!("{other:?}"),
    }
    running.shutdown().await;
}

#[tokio::test]
async fn the_handle_of_a_stream_goes_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let client = Client::of(&running).await;
    let session = client.channel(1).await;
    let (handle, events) = Client::of(&running).await.stream().await;
    session.attach(&handle, 0).await.unwrap();
    drop(events);
    let gone = async {
        loop {
            if let Err(status) = session.attach(&handle, 0).await {
                return status;
            }
        }
    };
    let status = tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
    assert_eq!(Refusal::from_status(&status).unwrap().code, Code::StreamUnknown);
    running.shutdown().await;
}
