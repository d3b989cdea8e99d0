//! Connections that say nothing, too much, or never end.

use std::time::Duration;

use conclave_names::limits;
use conclave_protocol::{Code, method, v1};
use conclave_server::{AddressLimits, Config, Server};
use rustls::version::TLS13;
use tokio::{io::AsyncReadExt, net::TcpStream, task::JoinSet};
use tonic::metadata::MetadataValue;

use super::{client::*, transport::handshake};

async fn info(client: &Client) -> Result<tonic::Response<v1::GetServerInfoResponse>, tonic::Status> {
    client.delivery().get_server_info(v1::GetServerInfoRequest {}).await
}

#[tokio::test]
async fn who_says_nothing_is_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let client = Client::of(&running).await;
    let mut without_tls = TcpStream::connect(running.addr()).await.unwrap();
    let mut without_http = handshake(&running, &TLS13, "localhost", b"h2").await.unwrap();
    while running.load().connections < 3 {
        info(&client).await.unwrap();
    }
    pass(Duration::from_secs(11)).await;
    let mut rest = Vec::new();
    // However it is put: nothing comes any more.
    let _ = without_tls.read_to_end(&mut rest).await;
    let _ = without_http.read_to_end(&mut rest).await;
    info(&client).await.unwrap();
    assert_eq!(running.load().connections, 1);
    running.shutdown().await;
}

#[tokio::test]
async fn who_uses_a_connection_for_nothing_loses_it_and_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let running = Server::start(Config { idle: Duration::from_secs(100), ..config(directory.path()) }).await.unwrap();
    let (idle, listening) = (Client::of(&running).await, Client::of(&running).await);
    info(&idle).await.unwrap();
    let (_, mut events) = listening.stream().await;
    assert_eq!(running.load().connections, 2);
    pass(Duration::from_secs(101)).await;
    assert!(matches!(next(&mut events).await, v1::stream_event::Event::Heartbeat(_)));
    while running.load().connections > 1 {
        info(&listening).await.unwrap();
    }
    // It may learn of it with this call.
    if info(&idle).await.is_err() {
        info(&idle).await.unwrap();
    }
    running.shutdown().await;
}

#[tokio::test]
async fn each_call_reads_no_more_than_it_can_use() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let client = Client::of(&running).await;
    for (call, most) in [
        (method::OPEN_SESSION, 64 * 1024),
        (method::FETCH, 64 * 1024),
        (method::SUBMIT, limits::INLINE_BODY + 64 * 1024),
        (method::UPLOAD, 1024 * 1024),
        (method::STAGE_BLOB, limits::BLOB_CHUNK + 64 * 1024),
        (method::SUBMIT_BUNDLE, limits::WIRE_MESSAGE),
    ] {
        let path = format!("/{call}");
        let refusal = refused(raw(&client, &path, vec![0; most + 1]).await, Code::TooLarge);
        assert!(refusal.message.contains(&most.to_string()), "{call}: {refusal}");
        // Less by what comes before a message: read, and found to be none.
        refused(raw(&client, &path, vec![0xFF; most - 5]).await, Code::Malformed);
    }
    let mut request = tonic::Request::new(v1::GetServerInfoRequest {});
    request.metadata_mut().insert("x-long", MetadataValue::try_from("x".repeat(20_000)).unwrap());
    client.delivery().get_server_info(request).await.unwrap_err();
    info(&client).await.unwrap();
    running.shutdown().await;
}

#[tokio::test]
async fn requests_that_never_end_have_few_places_and_are_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let address_limits = AddressLimits { requests: 3, ..AddressLimits::none() };
    let running = Server::start(Config { address_limits, ..config(directory.path()) }).await.unwrap();
    let (stranger, client) = (Client::from(&running, 66).await.unwrap(), Client::of(&running).await);
    let mut calls = JoinSet::new();
    for _ in 0..3 {
        let stranger = stranger.clone();
        calls.spawn(async move { endless(&stranger, &format!("/{}", method::SUBMIT)).await });
    }
    let crowded = loop {
        info(&client).await.unwrap();
        match info(&stranger).await {
            Ok(_) => {}
            Err(status) => break refused::<()>(Err(status), Code::RateLimited),
        }
    };
    assert!(crowded.message.contains("requests at a time") && crowded.number("retry_after_ms").is_some(), "{crowded}");
    pass(Duration::from_secs(61)).await;
    while let Some(given_up) = calls.join_next().await {
        refused(given_up.unwrap(), Code::Unavailable);
    }
    info(&stranger).await.unwrap();
    running.shutdown().await;
}

#[tokio::test]
async fn a_connection_carries_so_many_streams_and_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let (greedy, client) = (Client::of(&running).await, Client::of(&running).await);
    let mut streams = Vec::new();
    for _ in 0..256 {
        streams.push(greedy.stream().await);
    }
    let waiting = tokio::spawn({
        let greedy = greedy.clone();
        async move { info(&greedy).await }
    });
    for _ in 0..10 {
        info(&client).await.unwrap();
    }
    assert!(!waiting.is_finished());
    assert_eq!(running.load().streams, 256);
    drop(streams.pop());
    waiting.await.unwrap().unwrap();
    drop(streams);
    while running.load().streams > 0 {
        info(&client).await.unwrap();
    }
    running.shutdown().await;
}

#[tokio::test]
async fn a_stream_that_nobody_keeps_alive_ends() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { stream_silence: Some(Duration::from_secs(60)), ..config(directory.path()) };
    let running = Server::start(config).await.unwrap();
    let client = Client::of(&running).await;
    let session = client.channel(1).await;
    let (handle, mut events) = client.stream().await;
    session.attach(&handle, 0).await.unwrap();
    let keep_alive =
        async |handle: &[u8]| client.delivery().keep_alive(v1::KeepAliveRequest { handle: handle.to_vec() }).await;
    keep_alive(&handle).await.unwrap();
    refused(keep_alive(&[9; 16]).await, Code::StreamUnknown);
    refused(keep_alive(&[9; 15]).await, Code::Malformed);
    pass(Duration::from_secs(61)).await;
    let end = loop {
        match events.message().await {
            Ok(event) => assert!(event.is_some(), "it ends with a reason"),
            Err(status) => break refused::<()>(Err(status), Code::StreamUnknown),
        }
    };
    assert!(end.message.contains("KeepAlive"), "{end}");
    refused(keep_alive(&handle).await, Code::StreamUnknown);
    denied(session.attach(&handle, 0).await, Code::StreamUnknown);
    assert_eq!(running.load().streams, 0);
    running.shutdown().await;
}
