//! Event streams.

use conclave_protocol::{Code, Refusal, v1::stream_event::Event};

use super::client::*;

async fn entries(events: &mut tonic::Streaming<conclave_protocol::v1::StreamEvent>) -> (Vec<u8>, Vec<u64>) {
    match next(events).await {
        Event::Entries(new) => (new.channel, new.entries.iter().map(|entry| entry.seq).collect()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_stream_carries_what_was_there_and_what_comes() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let client = Client::of(&running).await;
    let (one, other) = (client.channel(1).await, client.channel(2).await);
    for n in 1..=3 {
        one.submit(n, vec![0; 256]).await;
    }
    let (handle, mut events) = client.stream().await;
    one.attach(&handle, 1).await.unwrap();
    assert_eq!(entries(&mut events).await, (one.channel.to_vec(), vec![2, 3]));
    other.attach(&handle, 0).await.unwrap();
    other.submit(1, vec![0; 256]).await;
    assert_eq!(entries(&mut events).await, (other.channel.to_vec(), vec![1]));
    one.submit(4, vec![0; 256]).await;
    assert_eq!(entries(&mut events).await, (one.channel.to_vec(), vec![4]));
    one.detach(&handle).await.unwrap();
    match next(&mut events).await {
        Event::Ended(ended) => assert_eq!((ended.channel, ended.reason), (one.channel.to_vec(), "DETACHED".into())),
        event => panic!("{event:?}"),
    }
    one.submit(5, vec![0; 256]).await;
    other.submit(2, vec![0; 256]).await;
    assert_eq!(entries(&mut events).await, (other.channel.to_vec(), vec![2]));
    running.shutdown().await;
}

#[tokio::test]
async fn only_open_streams_are_attached_to() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let client = Client::of(&running).await;
    let session = client.channel(1).await;
    let code = |status| Refusal::from_status(&status).unwrap().code;
    assert_eq!(code(session.attach(&[7; 16], 0).await.unwrap_err()), Code::StreamUnknown);
    assert_eq!(code(session.detach(&[7; 16]).await.unwrap_err()), Code::StreamUnknown);
    assert_eq!(code(session.attach(&[7; 3], 0).await.unwrap_err()), Code::Malformed);
    running.shutdown().await;
}

#[tokio::test]
async fn a_slow_reader_gets_everything_and_slows_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let client = Client::of(&running).await;
    let session = client.channel(1).await;
    // A connection of its own, from which nothing is read at first.
    let slow = Client::of(&running).await;
    let (slow_handle, mut slow_events) = slow.stream().await;
    session.attach(&slow_handle, 0).await.unwrap();
    let (handle, mut events) = client.stream().await;
    session.attach(&handle, 0).await.unwrap();
    // More than windows and queues hold: about 12 MB.
    let mut seen = 0;
    for n in 1..=200 {
        session.submit(n, vec![0; 60_000]).await;
        while seen < n {
            seen = *entries(&mut events).await.1.last().unwrap();
        }
    }
    let mut expected = 1;
    while expected <= 200 {
        for seq in entries(&mut slow_events).await.1 {
            assert_eq!(seq, expected);
            expected += 1;
        }
    }
    running.shutdown().await;
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_no_reader_unwoken() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let client = Client::of(&running).await;
    let session = client.channel(1).await;
    let (handle, mut events) = client.stream().await;
    session.attach(&handle, 0).await.unwrap();
    // Each call is given up at once, wherever it is then. What was stored all the same must reach the stream.
    for n in 1..=50 {
        let request = session.submission(n, vec![0; 256]);
        let mut delivery = Client::of(&running).await.delivery();
        let call = tokio::spawn(async move { delivery.submit(request).await });
        tokio::task::yield_now().await;
        call.abort();
        let _ = call.await;
    }
    let last = session.submit(51, vec![0; 256]).await;
    let mut seen = 0;
    while seen < last {
        seen = *entries(&mut events).await.1.last().unwrap();
    }
    assert_eq!(session.fetch(0).await.head, last);
    running.shutdown().await;
}

#[tokio::test]
async fn streams_end_when_the_server_stops() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let client = Client::of(&running).await;
    let (_, mut events) = client.stream().await;
    let stopping = tokio::spawn(running.shutdown());
    // Either way it ends: without an error, or with one that says to come back.
    if let Err(status) = events.message().await {
        assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
    }
    stopping.await.unwrap();
}
