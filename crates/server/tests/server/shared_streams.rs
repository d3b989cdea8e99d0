//! Many streams of one channel, which the server reads once for all of them.

use std::sync::Arc;

use conclave_protocol::v1::{StreamEvent, stream_event::Event};
use tonic::Streaming;

use super::client::*;

/// Sequence numbers of the next event with entries; none if the channel ended, with the reason.
async fn entries(events: &mut Streaming<StreamEvent>) -> Result<Vec<u64>, String> {
    loop {
        match next(events).await {
            Event::Entries(new) => return Ok(new.entries.iter().map(|entry| entry.seq).collect()),
            Event::Ended(ended) => return Err(ended.reason),
            Event::Heartbeat(_) => {}
            Event::Opened(_) => panic!("opened twice"),
        }
    }
}

/// Reads from after `position` up to `last`, without a gap.
async fn read_all(events: &mut Streaming<StreamEvent>, mut position: u64, last: u64) {
    while position < last {
        for seq in entries(events).await.unwrap() {
            assert_eq!(seq, position + 1);
            position = seq;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_gets_all_of_the_channel_in_order_from_wherever_it_stands() {
    const MESSAGES: u64 = 300;
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let client = Client::of(&running).await;
    let session = Arc::new(client.channel(1).await);
    for n in 1..=20 {
        session.submit(n, vec![0; 256]).await;
    }
    let mut readers = Vec::new();
    let mut late = Vec::new();
    for n in 0..24_u64 {
        // Who does not read takes up the flow-control window of its connection, so it has one of its own.
        let client = if n % 4 == 0 { Client::of(&running).await } else { client.clone() };
        let (handle, mut events) = client.stream().await;
        let after = n % 6 * 4;
        session.attach(&handle, after).await.unwrap();
        if n % 4 == 0 {
            // Read only when everything was sent.
            late.push((events, after));
        } else {
            readers.push(tokio::spawn(async move { read_all(&mut events, after, MESSAGES + 20).await }));
        }
    }
    // Several at a time, so that news comes while news is read; some are long, so that batches end early.
    let senders: Vec<_> = (0..6)
        .map(|sender| {
            let session = Arc::clone(&session);
            tokio::spawn(async move {
                for n in 0..MESSAGES / 6 {
                    let size = if n % 10 == 0 { 60_000 } else { 100 };
                    session.submit(1000 + sender * 1000 + n, vec![0; size]).await;
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    for reader in readers {
        reader.await.unwrap();
    }
    for (mut events, after) in late {
        read_all(&mut events, after, MESSAGES + 20).await;
    }
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_stays_alone_with_a_channel_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let client = Client::of(&running).await;
    let session = client.channel(1).await;
    let (handle, mut events) = client.stream().await;
    session.attach(&handle, 0).await.unwrap();
    let mut seq = 0;
    for _ in 0..10 {
        // Two carry it, then one, then two again.
        let (other_handle, mut other) = client.stream().await;
        session.attach(&other_handle, seq).await.unwrap();
        seq = session.submit(seq + 1, vec![0; 256]).await;
        read_all(&mut events, seq - 1, seq).await;
        read_all(&mut other, seq - 1, seq).await;
        session.detach(&other_handle).await.unwrap();
        assert_eq!(entries(&mut other).await.unwrap_err(), "DETACHED");
        seq = session.submit(seq + 1, vec![0; 256]).await;
        read_all(&mut events, seq - 1, seq).await;
    }
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_ends_all_streams_of_earlier_keys_after_its_commit() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let client = Client::of(&running).await;
    let creator = client.channel(1).await;
    let channel = creator.channel;
    assert_eq!(creator.commit(&bundle(1, 0, &[1, 2], false)).await.unwrap(), 1);
    let mut streams = Vec::new();
    for n in [1, 2, 1, 2, 1, 2] {
        let (handle, events) = client.stream().await;
        let session = client.open(n, &member_of(channel, n, 1, &[1, 2])).await.unwrap();
        session.attach(&handle, 1).await.unwrap();
        streams.push((handle, events));
    }
    creator.submit_in(1, 1, vec![0; 256]).await;
    assert_eq!(creator.commit(&bundle(3, 1, &[1], true)).await.unwrap(), 3);
    let stays = client.open(1, &member_of(channel, 1, 2, &[1])).await.unwrap();
    stays.submit_in(2, 2, vec![0; 256]).await;
    for (_, events) in &mut streams {
        read_all(events, 1, 3).await;
        assert_eq!(entries(events).await.unwrap_err(), "ACCESS_ENDED");
    }
    // Who is still a member attaches again, with a key of the new epoch.
    for (handle, _) in &streams {
        stays.attach(handle, 3).await.unwrap();
    }
    stays.submit_in(3, 2, vec![0; 256]).await;
    for (_, events) in &mut streams {
        read_all(events, 3, 5).await;
    }
    running.shutdown().await;
}
