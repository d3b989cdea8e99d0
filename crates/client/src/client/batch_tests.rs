use std::collections::VecDeque;

use conclave_channel::{Entry, EntryKind};
use conclave_names::{Domain, IdempotencyKey, UserUri};
use conclave_server::{Config, Running, Server};

use super::*;
use crate::{Event, Registration, Services, store::MemoryStore, transport::Endpoint};

fn domain() -> Domain {
    "example.com".parse().unwrap()
}

async fn person(server: &Running, name: &str) -> Client {
    let mut endpoint = Endpoint::new(format!("https://{}", server.addr()), domain());
    endpoint.ca_pem = server.ca_pem().map(|pem| pem.as_bytes().to_vec());
    let services = Services { delivery: endpoint, authentication: None };
    let registration = Registration { user: name.into(), device: "laptop".into(), invite: None };
    Client::register(Box::new(MemoryStore::new()), &services, registration).await.unwrap()
}

/// Alice has many messages name blobs, of which nothing can be read.
async fn flood(alice: &mut Client, group: &GroupUri, count: u8, size: usize) {
    let (session, epoch) = (alice.session(group).unwrap(), alice.group(group).unwrap().epoch());
    for n in 0..count {
        let blob = vec![n; size];
        let hash = session.upload_blob(&blob).await.unwrap();
        let entry = Entry::new(EntryKind::Message, epoch, Body::Staged { hash, size: size as u64 });
        let request = v1::SubmitRequest {
            idempotency_key: IdempotencyKey::new([n; 16]).to_vec(),
            entry: entry.to_bytes().unwrap(),
        };
        session.submit(&request).await.unwrap();
    }
}

/// Bob in a group where Alice has said something behind 20 messages as large as they may be, and the page that he has to read.
async fn flooded(server: &Running) -> (Client, GroupUri, v1::FetchResponse) {
    let (mut alice, mut bob) = (person(server, "alice").await, person(server, "bob").await);
    let club = alice.create_group("The Club").await.unwrap();
    alice.add(&club, &[UserUri::new(domain(), "bob").unwrap()]).await.unwrap();
    bob.sync().await.unwrap();
    flood(&mut alice, &club, 20, usize::try_from(limits::STAGED_BODY).unwrap()).await;
    alice.send(&club, "and this").await.unwrap();
    let after = bob.group(&club).unwrap().position().seq;
    let page = bob.session(&club).unwrap().fetch(&v1::FetchRequest { after: after.0, limit: 0 }).await.unwrap();
    (bob, club, page)
}

/// Whether it is told of what Alice said.
fn is_heard(events: &[ClientEvent]) -> bool {
    let said = |event: &Event| matches!(event, Event::Message { text: Some(text), .. } if text == "and this");
    events.iter().any(|happened| said(&happened.event))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_held_at_once_than_one_batch() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(Config::for_tests(directory.path(), domain())).await.unwrap();
    let (mut bob, club, page) = Box::pin(flooded(&server)).await;
    let all = page.entries.len();
    let mut entries: VecDeque<_> = page.entries.into();
    let (mut taken, mut batches) = (0, 0);
    while !entries.is_empty() {
        let batch = bob.next_batch(&club, &mut entries, Source::Fetched).await.unwrap();
        let held: usize = batch.iter().map(|incoming| incoming.blob.as_ref().map_or(0, Vec::len)).sum();
        assert!(held as u64 <= BATCH_BYTES && !batch.is_empty(), "{held}");
        taken += batch.len();
        batches += 1;
    }
    assert_eq!((taken, batches), (all, 2), "20 of 256 KiB, 16 at a time");

    let events = bob.sync().await.unwrap();
    let refused = |event: &ClientEvent| matches!(event.event, Event::Refused { .. });
    assert_eq!(events.iter().filter(|event| refused(event)).count(), 20);
    assert!(is_heard(&events), "{events:?}");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_leaves_what_is_too_much_to_be_fetched() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(Config::for_tests(directory.path(), domain())).await.unwrap();
    let (mut bob, club, page) = Box::pin(flooded(&server)).await;
    // As if all had come at once.
    let events = bob.process_stream(&club, page.entries).await.unwrap();
    assert!(is_heard(&events), "{events:?}");
    server.shutdown().await;
}

/// A hostile server: entries that come long before their turn, for as many groups as it likes.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_all_groups_is_bounded_and_what_finds_no_room_is_fetched() {
    use conclave_engine::group::{
        EARLY_BYTES, EARLY_BYTES_OF_CLIENT, EARLY_ENTRIES, EARLY_ENTRIES_OF_CLIENT, Incoming,
    };
    const GROUPS: usize = 6;
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(Config::for_tests(directory.path(), domain())).await.unwrap();
    let (mut alice, mut bob) = (person(&server, "alice").await, person(&server, "bob").await);
    let mut groups = Vec::new();
    for n in 0..GROUPS {
        let group = alice.create_group(&format!("Group {n}")).await.unwrap();
        alice.add(&group, &[UserUri::new(domain(), "bob").unwrap()]).await.unwrap();
        groups.push(group);
    }
    bob.sync().await.unwrap();
    let all = |bob: &Client| {
        let held = bob.groups.values().map(conclave_engine::group::Group::early_held);
        held.fold((0, 0), |(entries, bytes), of| (entries + of.0, bytes + of.1))
    };
    let fill = |bob: &mut Client, group: &GroupUri, count: usize, size: usize| {
        let place = bob.group(group).unwrap().position().seq.0;
        let early = |n: u64| {
            let (seq, blob) = (Seq(place + 1000 + n), Some(vec![0; size - 1]));
            Incoming { seq, time: Timestamp(0), entry: vec![7], blob }
        };
        let batch: Vec<_> = (0..count as u64).map(early).collect();
        bob.take(group, &batch, Source::Stream).unwrap();
    };
    for group in &groups {
        fill(&mut bob, group, 2 * EARLY_ENTRIES, 100);
        assert!(bob.group(group).unwrap().early_held().0 <= EARLY_ENTRIES);
    }
    assert_eq!(all(&bob), (EARLY_ENTRIES_OF_CLIENT, 100 * EARLY_ENTRIES_OF_CLIENT));

    // In the last one, nothing finds room, and nothing is lost.
    let last = groups.last().unwrap();
    for text in ["this", "that", "and this"] {
        alice.send(last, text).await.unwrap();
    }
    let after = bob.group(last).unwrap().position().seq;
    let page = bob.session(last).unwrap().fetch(&v1::FetchRequest { after: after.0, limit: 0 }).await.unwrap();
    assert_eq!(bob.group(last).unwrap().early_held(), (0, 0));
    let events = bob.process_stream(last, page.entries.into_iter().skip(1).collect()).await.unwrap();
    assert!(is_heard(&events), "{events:?}");
    let texts = bob.recent(last, 10).unwrap().len();
    assert!(texts >= 3, "{texts}");

    // A group that is let go of leaves its room to others.
    bob.groups.clear();
    for group in &groups {
        fill(&mut bob, group, 5, 1 << 20);
        assert!(bob.group(group).unwrap().early_held().1 <= EARLY_BYTES);
    }
    assert_eq!(all(&bob), (EARLY_BYTES_OF_CLIENT >> 20, EARLY_BYTES_OF_CLIENT));
    alice.send(last, "and this").await.unwrap();
    assert!(is_heard(&bob.sync().await.unwrap()));
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_off_in_one_group_stops_the_others_only_if_the_server_is_away() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(Config::for_tests(directory.path(), domain())).await.unwrap();
    let mut bob = person(&server, "bob").await;
    let club = bob.create_group("The Club").await.unwrap();
    let broken = || {
        let cause = "the blob's stream ended early".to_owned();
        Err(ClientError::Call(CallError::Unreachable { cause }))
    };
    let mut events = Vec::new();
    bob.confine_call(&club, broken(), &mut events).await.unwrap();
    let told = |happened: &ClientEvent| {
        matches!(&happened.event, Event::GroupFailed { reason } if reason.contains("ended early"))
            && happened.group.as_ref() == Some(&club)
    };
    assert!(matches!(events.as_slice(), [only] if told(only)), "{events:?}");
    bob.sync().await.unwrap();
    assert!(bob.failed.is_empty(), "it is as it was");
    bob.set_deadline(std::time::Duration::from_millis(300));
    server.shutdown().await;
    let mut events = Vec::new();
    let away = bob.confine_call(&club, broken(), &mut events).await.unwrap_err();
    assert!(away.is_transient() && events.is_empty() && bob.failed.is_empty(), "{away} {events:?}");
}
