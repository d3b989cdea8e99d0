mod fake;
mod tls;

use std::time::Duration;

use conclave_names::{ChannelId, Epoch, Hash, Seq, StreamHandle, Timestamp};
use conclave_protocol::{Code, Refusal, SigningKey, method, v1};
use futures::StreamExt;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tonic::Status;

use super::*;
use fake::{Fake, HEARTBEAT, domain, refused};

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

async fn count(transport: &Transport) -> Result<v1::CountResponse, CallError> {
    transport.count(&Signer::bare(&key()), &v1::CountRequest {}).await
}

fn session(transport: &Transport) -> Session {
    let channel = ChannelId::new([1; 16]);
    Session::new(transport, SessionOpener { channel, epoch: Epoch(3), key: key(), path: None })
}

fn blob(size: usize) -> (Vec<u8>, Hash) {
    let bytes: Vec<u8> = (0..size).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let hash = Hash::new(Sha256::digest(&bytes).into());
    (bytes, hash)
}

#[tokio::test(start_paused = true)]
async fn a_transient_failure_is_tried_again_with_a_fresh_nonce() {
    let fake = Fake::default();
    fake.fail([refused(Code::Unavailable), refused(Code::Internal), Status::unavailable("a proxy says no")]);
    count(&fake.transport()).await.unwrap();
    assert_eq!(fake.calls(method::COUNT), 4);
}

#[tokio::test(start_paused = true)]
async fn a_permanent_refusal_is_told_at_once() {
    let fake = Fake::default();
    let transport = fake.transport();
    // Neither what is refused for good nor what takes longer than seconds is repeated.
    for code in [Code::AccessRefused, Code::EpochConflict, Code::StorageFull, Code::QuotaExceeded] {
        fake.fail([refused(code)]);
        let before = Instant::now();
        assert_eq!(count(&transport).await.unwrap_err().code(), Some(code));
        assert_eq!(before.elapsed(), Duration::ZERO);
    }
    assert_eq!(fake.calls(method::COUNT), 4);
    fake.fail([Status::unimplemented("an old server")]);
    assert!(matches!(count(&transport).await, Err(CallError::Protocol(_))));
}

#[tokio::test(start_paused = true)]
async fn the_time_that_a_limit_names_is_waited_for() {
    let limited = |ms: u64| Status::from(Refusal::new(Code::RateLimited, "too much").with("retry_after_ms", ms));
    let fake = Fake::default();
    let transport = fake.transport();
    fake.fail([limited(7000), limited(500)]);
    let before = Instant::now();
    count(&transport).await.unwrap();
    let took = before.elapsed();
    assert!(took >= Duration::from_millis(7500) && took < Duration::from_secs(8), "{took:?}");
    // What is beyond the deadline is told at once, with the time.
    fake.fail([limited(3_600_000)]);
    let before = Instant::now();
    let error = count(&transport).await.unwrap_err();
    assert_eq!((error.code(), before.elapsed()), (Some(Code::RateLimited), Duration::ZERO));
    assert!(error.is_transient());
    assert_eq!(error.retry_after(), Duration::from_secs(300));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_bounds_the_attempts() {
    let fake = Fake::default();
    fake.fail((0..1000).map(|_| refused(Code::Unavailable)));
    let before = Instant::now();
    let error = count(&fake.transport().with_deadline(Duration::from_secs(20))).await.unwrap_err();
    assert!(error.is_transient());
    assert_eq!(error.code(), Some(Code::Unavailable));
    let took = before.elapsed();
    assert!(took > Duration::from_secs(12) && took <= Duration::from_secs(20), "{took:?}");
    assert!((6..20).contains(&fake.calls(method::COUNT)));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_clock_is_corrected_once() {
    let fake = Fake::default();
    fake.state().ahead_ms = 3_600_000;
    let transport = fake.transport();
    count(&transport).await.unwrap();
    assert_eq!(fake.calls(method::COUNT), 2);
    // From then on the first attempt is good, for all who share the connection.
    count(&transport.clone()).await.unwrap();
    assert_eq!(fake.calls(method::COUNT), 3);
    // A server that never agrees is not asked for ever.
    fake.fail([1, 2].map(|time| Refusal::new(Code::RequestExpired, "no").with("server_time_ms", time).into()));
    assert_eq!(count(&transport).await.unwrap_err().code(), Some(Code::RequestExpired));
    assert_eq!(fake.calls(method::COUNT), 5);
}

#[tokio::test(start_paused = true)]
async fn a_session_is_opened_once_and_again_when_it_was_forgotten() {
    let fake = Fake::default();
    let session = session(&fake.transport());
    let fetch = |after| {
        let session = session.clone();
        async move { session.fetch(&v1::FetchRequest { after, limit: 0 }).await }
    };
    assert_eq!(fake.calls(method::OPEN_SESSION), 0);
    let answers = futures::future::join_all((1..40).map(fetch)).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(fake.calls(method::OPEN_SESSION), 1);
    assert_eq!(session.open().await, Ok(Seq(7)));

    fake.state().sessions.clear();
    let answers = futures::future::join_all((1..20).map(fetch)).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(fake.calls(method::OPEN_SESSION), 2);

    // One that forgets each session at once is not asked for ever.
    fake.fail([Code::SessionUnknown].map(refused));
    assert_eq!(fetch(5).await.unwrap().head, 5);
    fake.fail([refused(Code::SessionUnknown), refused(Code::AccessRefused)]);
    assert_eq!(fetch(5).await.unwrap_err().code(), Some(Code::AccessRefused));
}

#[tokio::test(start_paused = true)]
async fn an_overtaken_counter_is_replaced() {
    let fake = Fake::default();
    let session = session(&fake.transport());
    session.open().await.unwrap();
    fake.fail([refused(Code::RequestReplayed), refused(Code::Unavailable), refused(Code::RequestReplayed)]);
    session.fetch(&v1::FetchRequest::default()).await.unwrap();
    assert_eq!(fake.calls(method::FETCH), 4);
    fake.fail([refused(Code::RequestReplayed), refused(Code::RequestReplayed)]);
    let error = session.fetch(&v1::FetchRequest::default()).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::RequestReplayed));
}

#[tokio::test(start_paused = true)]
async fn a_blob_goes_up_in_chunks_and_resumes_where_it_was() {
    let fake = Fake::default();
    let session = session(&fake.transport());
    let (bytes, hash) = blob((5 << 20) / 2);
    session.open().await.unwrap();
    // The second chunk fails at first.
    fake.fail([refused(Code::Unavailable)]);
    assert_eq!(session.upload_blob(&bytes).await, Ok(hash));
    assert_eq!(fake.state().staged[hash.as_ref()], bytes);
    assert_eq!(fake.state().staged_bytes, bytes.len());

    // Two MiB are there from before: the first chunk tells, the last follows.
    fake.state().staged.get_mut(hash.as_ref()).unwrap().truncate(2 << 20);
    fake.state().staged_bytes = 0;
    assert_eq!(session.upload_blob(&bytes).await, Ok(hash));
    assert_eq!(fake.state().staged_bytes, 3 << 19);
    assert_eq!(fake.state().staged[hash.as_ref()], bytes);

    let (nothing, hash) = blob(0);
    assert_eq!(session.upload_blob(&nothing).await, Ok(hash));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_lies_about_an_upload_is_found_out() {
    let fake = Fake::default();
    let session = session(&fake.transport());
    let (bytes, _) = blob(2 << 20);
    for lie in [0, 1 << 20, 3 << 20, u64::MAX] {
        fake.state().received = Some(lie);
        assert!(matches!(session.upload_blob(&bytes).await, Err(CallError::Protocol(_))), "{lie}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_blob_comes_down_and_resumes_where_it_broke() {
    let fake = Fake::default();
    let transport = fake.transport();
    let (bytes, hash) = blob(1 << 20);
    assert_eq!(transport.download_blob(hash, 1 << 20).await.unwrap_err().code(), Some(Code::BlobUnknown));
    fake.state().staged.insert(hash.to_vec(), bytes.clone());
    fake.state().read_from.clear();
    fake.state().cuts.extend([3, 0, 5]);
    assert_eq!(transport.download_blob(hash, 1 << 20).await, Ok(bytes));
    assert_eq!(fake.state().read_from, [0, 3 << 16, 3 << 16, 8 << 16]);

    let error = transport.download_blob(hash, (1 << 20) - 1).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::TooLarge));
    let (nothing, hash) = blob(0);
    fake.state().staged.insert(hash.to_vec(), nothing.clone());
    assert_eq!(transport.download_blob(hash, 0).await, Ok(nothing));
}

#[tokio::test(start_paused = true)]
async fn other_bytes_than_the_blobs_are_refused() {
    let fake = Fake::default();
    let (mut bytes, hash) = blob(200_000);
    bytes[100_000] ^= 1;
    fake.state().staged.insert(hash.to_vec(), bytes);
    let error = fake.transport().download_blob(hash, 1 << 20).await.unwrap_err();
    assert_eq!(error, CallError::WrongBlob(hash));
    assert!(!error.is_transient());
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_taken_for_dead() {
    let fake = Fake::default();
    fake.state().heartbeats = 3;
    let mut stream = fake.transport().open_stream().await.unwrap();
    assert_eq!(stream.handle(), StreamHandle::new([5; 16]));
    let channel = ChannelId::new([6; 16]);
    assert_eq!(stream.next().await, Some(Ok(Event::Entries { channel, entries: Vec::new() })));
    let before = Instant::now();
    for _ in 0..3 {
        assert_eq!(stream.next().await, Some(Ok(Event::Heartbeat(Timestamp(1)))));
    }
    let patience = HEARTBEAT * 5 / 2;
    assert_eq!(stream.next().await, Some(Err(StreamError::Silent(patience))));
    let took = before.elapsed();
    let expected = HEARTBEAT * 3 + patience;
    assert!(took >= expected && took < expected + Duration::from_secs(1), "{took:?}");
    assert_eq!(stream.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_kept_alive_and_known_to_be_gone_when_the_server_does_not_know_it() {
    let fake = Fake::default();
    fake.state().heartbeats = 100;
    fake.state().silence_ms = 60_000;
    let mut stream = fake.transport().open_stream().await.unwrap();
    assert!(matches!(stream.next().await, Some(Ok(Event::Entries { .. }))));
    for beats in 1..=6 {
        assert!(matches!(stream.next().await, Some(Ok(Event::Heartbeat(_)))));
        assert!(fake.calls("KeepAlive") + 1 >= beats, "one each 20 s");
    }
    // One that is lost is sent again; the answer that there is no such stream ends ours.
    fake.fail([refused(Code::Unavailable), refused(Code::StreamUnknown)]);
    let before = Instant::now();
    let error = loop {
        match stream.next().await.unwrap() {
            Ok(Event::Heartbeat(_)) => {}
            Ok(event) => panic!("{event:?}"),
            Err(error) => break error,
        }
    };
    assert!(before.elapsed() <= Duration::from_secs(41), "{:?}", before.elapsed());
    assert!(error.is_transient(), "{error}");
    assert!(matches!(error, StreamError::Broken(error) if error.code() == Some(Code::StreamUnknown)));
    assert_eq!(stream.next().await, None);
    // Nobody says any more that we are there.
    let calls = fake.calls("KeepAlive");
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(fake.calls("KeepAlive"), calls);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_stream_is_kept_alive_no_longer() {
    let fake = Fake::default();
    fake.state().silence_ms = 60_000;
    let stream = fake.transport().open_stream().await.unwrap();
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(fake.calls("KeepAlive"), 2);
    drop(stream);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(fake.calls("KeepAlive"), 2);
    fake.state().silence_ms = 1;
    assert!(matches!(fake.transport().open_stream().await, Err(CallError::Protocol(_))));
}

#[tokio::test(start_paused = true)]
async fn a_closed_stream_ends_with_an_error_to_act_upon() {
    let fake = Fake::default();
    fake.state().close = true;
    fake.fail([refused(Code::Unavailable)]);
    let mut stream = fake.transport().open_stream().await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    let error = stream.next().await.unwrap().unwrap_err();
    assert_eq!(error, StreamError::Closed);
    assert!(error.is_transient());
    assert_eq!(stream.next().await, None);
}

#[test]
fn debug_prints_no_key() {
    let opener = SessionOpener { channel: ChannelId::new([1; 16]), epoch: Epoch(3), key: key(), path: None };
    let shown = format!("{opener:?}{:?}", Signer::certified(&key(), vec![1]));
    assert_eq!(
        shown,
        "SessionOpener { channel: ChannelId(01010101010101010101010101010101), epoch: Epoch(3), .. }Signer(..)"
    );
}

#[test]
fn futures_of_calls_can_move_between_threads() {
    fn send<T: Send>(_: &T) {}
    async fn calls(transport: Transport) {
        let session = session(&transport);
        let _ = transport.get_issuers().await;
        let _ = transport.claim(&Signer::bare(&key()), &v1::ClaimRequest::default()).await;
        let _ = session.submit(&v1::SubmitRequest::default()).await;
        let _ = session.upload_blob(&[]).await;
        let _ = transport.download_blob(Hash::new([0; 32]), 0).await;
        let _ = transport.open_stream().await.unwrap().next().await;
    }
    let _ = |transport| send(&calls(transport));
}

#[tokio::test(start_paused = true)]
async fn a_ticket_goes_with_every_call_and_into_no_log() {
    let fake = Fake::default();
    let ticket = Ticket::new(" QUJD-_9 \n").unwrap();
    assert!(!format!("{ticket:?}").contains("QUJD"));
    let transport = fake.transport();
    count(&transport).await.unwrap();
    let transport = Transport { ticket: Ticketed(Some(ticket)), ..transport };
    count(&transport).await.unwrap();
    assert_eq!(fake.state().tickets, [None, Some("QUJD-_9".to_owned())]);
    for wrong in ["", "  ", "two words", "\u{e4}", &"x".repeat(201)] {
        assert_eq!(Ticket::new(wrong).unwrap_err(), EndpointError::Ticket, "{wrong}");
    }
}
