//! A stranger asks for everything, again and again. The others are served meanwhile, and he is once he has stopped.

use std::{collections::HashMap, future::Future, time::Duration};

use conclave_names::ChannelId;
use conclave_protocol::{Code, Refusal, SigningKey, method, v1};
use conclave_server::{AddressLimits, Config, Rate, Running, Server, ServiceLimits, create_ticket};
use tonic::Status;

use super::{client::*, people::*};

/// From where the stranger calls; the others are at 127.0.0.1.
const STRANGER: u8 = 66;

/// Attempts on each surface.
const FLOOD: usize = 60;

fn tight(directory: &std::path::Path) -> Config {
    let address_limits = AddressLimits {
        connections: 6,
        streams: 3,
        new_connections: Rate::per_minute(20, 20),
        reads: Rate::per_minute(20, 20),
        signed: Rate::per_minute(30, 30),
        sessions: Rate::per_minute(12, 12),
        registrations: Rate::per_minute(4, 4),
        links: Rate::per_minute(5, 5),
        channels: Rate::per_minute(8, 8),
        new_streams: Rate::per_minute(10, 10),
        ..AddressLimits::default()
    };
    Config {
        max_sessions: 20,
        max_sessions_per_address: 10,
        address_limits,
        service_limits: ServiceLimits::default(),
        ..config(directory)
    }
}

/// Somebody who uses the server as one does.
struct Honest {
    client: Client,
    session: Session,
    events: tonic::Streaming<v1::StreamEvent>,
    sent: u64,
}

impl Honest {
    async fn new(running: &Running) -> Self {
        let client = Client::of(running).await;
        let session = client.channel(1).await;
        let (handle, events) = client.stream().await;
        session.attach(&handle, 0).await.unwrap();
        Self { client, session, events, sent: 0 }
    }

    /// Sends a message, and gets it.
    async fn is_served(&mut self) {
        self.sent += 1;
        assert_eq!(self.session.submit(self.sent, vec![0; 256]).await, self.sent);
        loop {
            match next(&mut self.events).await {
                v1::stream_event::Event::Entries(new) => {
                    assert_eq!(new.entries.last().unwrap().seq, self.sent);
                    return;
                }
                v1::stream_event::Event::Heartbeat(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Attempts something many times. Gives how often it was done; all else must be refused with the time to wait, and the
/// others are served meanwhile.
async fn flood<T, F, A>(honest: &mut Honest, what: &str, mut attempt: F) -> (usize, Vec<T>)
where
    F: FnMut(u64) -> A,
    A: Future<Output = Result<T, Status>>,
{
    let mut kept = Vec::new();
    let mut codes: HashMap<Code, usize> = HashMap::new();
    for n in 0..FLOOD {
        match attempt(n as u64).await {
            Ok(done) => kept.push(done),
            Err(status) => {
                let refusal = Refusal::from_status(&status).unwrap_or_else(|| panic!("{what}: {status:?}"));
                if refusal.code == Code::RateLimited {
                    assert!(refusal.number("retry_after_ms").unwrap() > 0, "{what}: {refusal}");
                    assert!(refusal.message.contains("operator"), "{what}: {refusal}");
                }
                *codes.entry(refusal.code).or_default() += 1;
            }
        }
        if n % 20 == 19 {
            honest.is_served().await;
        }
    }
    assert!(codes.get(&Code::RateLimited).is_some_and(|refused| *refused >= FLOOD / 3), "{what}: {codes:?}");
    (kept.len() + codes.iter().filter(|(code, _)| **code != Code::RateLimited).map(|(_, n)| n).sum::<usize>(), kept)
}

/// A key that nobody else has.
fn some_key(n: u64) -> SigningKey {
    let mut bytes = [0xF0; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    SigningKey::from_bytes(&bytes)
}

fn some_id(n: u64) -> Vec<u8> {
    u128::from(n + 1).to_be_bytes().to_vec()
}

#[tokio::test]
async fn who_floods_the_calls_is_limited_alone_and_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let running = Server::start(tight(directory.path())).await.unwrap();
    let mut honest = Honest::new(&running).await;
    honest.client.register("alice", 1, "").await.unwrap();
    let stranger = &Client::from(&running, STRANGER).await.unwrap();

    let read = |_| async { stranger.delivery().get_server_info(v1::GetServerInfoRequest {}).await };
    let (done, _) = flood(&mut honest, "reads", read).await;
    assert!((20..25).contains(&done), "{done}");
    let blob = |n| async move {
        let request = v1::ReadBlobRequest { hash: [some_id(n), some_id(n)].concat(), offset: 0 };
        stranger.delivery().read_blob(request).await
    };
    let (done, _) = flood(&mut honest, "blobs", blob).await;
    assert!(done < 5, "they are reads: {done}");

    let user = |n: u64| {
        let key = some_key(n);
        let identity_key = key.verifying_key().to_bytes().to_vec();
        let message = v1::RegisterUserRequest {
            user: format!("mimi://example.com/u/stranger{n}"),
            identity_key,
            invite: format!("guess {n}"),
        };
        let request = sign(&key, method::REGISTER_USER, &message);
        async move { stranger.authentication().register_user(request).await }
    };
    let (done, _) = flood(&mut honest, "registrations", user).await;
    assert!((4..8).contains(&done), "{done}");

    let link = |n: u64| {
        let key = some_key(n);
        let message = v1::PutLinkRequest {
            link_id: some_id(n),
            client: "mimi://example.com/d/alice/phone".into(),
            signature_key: key.verifying_key().to_bytes().to_vec(),
            mac: vec![0; 32],
        };
        let request = sign(&key, method::PUT_LINK, &message);
        async move { stranger.authentication().put_link(request).await }
    };
    let (done, _) = flood(&mut honest, "links", link).await;
    assert!((5..9).contains(&done), "{done}");
    // Alice's own new device finds a place.
    let own = v1::PutLinkRequest {
        link_id: vec![9; 16],
        client: "mimi://example.com/d/alice/phone".into(),
        signature_key: key(9).verifying_key().to_bytes().to_vec(),
        mac: vec![0; 32],
    };
    honest.client.authentication().put_link(sign(&key(9), method::PUT_LINK, &own)).await.unwrap();

    let channel = |n: u64| {
        let message = v1::CreateChannelRequest {
            channel: some_id(n),
            key_root: tree(&[STRANGER]).root().to_vec(),
            ..Default::default()
        };
        let request = sign(&key(STRANGER), method::CREATE_CHANNEL, &message);
        async move { stranger.delivery().create_channel(request).await }
    };
    let (channels, _) = flood(&mut honest, "channels", channel).await;
    assert!((8..12).contains(&channels), "{channels}");
    let inbox = |n: u64| {
        let message = v1::CreateInboxRequest { inbox: some_id(1000 + n), drop_key: vec![0; 32] };
        let request = sign(&some_key(n), method::CREATE_INBOX, &message);
        async move { stranger.delivery().create_inbox(request).await }
    };
    let (done, _) = flood(&mut honest, "inboxes", inbox).await;
    assert!(done < 4, "they are channels: {done}");

    // In channels of his own, where he may, and in others, where he may not.
    let mine = |n: u64| {
        let id: Vec<u8> = some_id(n % channels as u64);
        let message = member_of(ChannelId::try_from(id.as_slice()).unwrap(), STRANGER, 0, &[STRANGER]);
        async move { stranger.open(STRANGER, &message).await }
    };
    let (done, _) = flood(&mut honest, "sessions", mine).await;
    assert!((12..18).contains(&done), "{done}");
    let signed = |n: u64| {
        let request = sign(&some_key(n), method::POLL_LINK, &v1::PollLinkRequest { link_id: some_id(n) });
        async move { stranger.authentication().poll_link(request).await }
    };
    let (done, _) = flood(&mut honest, "signed calls", signed).await;
    assert!((30..40).contains(&done), "{done}");

    let stream = |_| async { stranger.delivery().open_stream(v1::OpenStreamRequest {}).await };
    let (done, streams) = flood(&mut honest, "streams", stream).await;
    assert_eq!(done, 3);

    let load = running.load();
    assert!(load.streams == 4 && load.sessions <= 20 && load.connections == 2, "{load:?}");
    assert!(load.limit_buckets < 50, "a bucket for each limit, address and member: {load:?}");

    // He stops; a minute later he is one like all others.
    drop(streams);
    let again = stranger.delivery().open_stream(v1::OpenStreamRequest {}).await;
    assert_eq!(again.err().and_then(|status| Refusal::from_status(&status)).map(|r| r.code), Some(Code::RateLimited));
    pass(Duration::from_secs(62)).await;
    honest.is_served().await;
    stranger.delivery().get_server_info(v1::GetServerInfoRequest {}).await.unwrap();
    stranger.register("stranger", 2, "").await.unwrap();
    let session = stranger.channel(STRANGER).await;
    session.submit(1, vec![0; 256]).await;
    let (handle, _events) = stranger.stream().await;
    session.attach(&handle, 0).await.unwrap();
    running.shutdown().await;
}

#[tokio::test]
async fn a_ticket_admits_its_holder_so_often_beyond_the_rates_of_a_crowded_address() {
    let directory = tempfile::tempdir().unwrap();
    let config = tight(directory.path());
    assert!(create_ticket(directory.path(), 1, 1).unwrap_err().to_string().contains("start the server once"));
    let running = Server::start(config.clone()).await.unwrap();
    let ticket = create_ticket(directory.path(), 5, 1).unwrap();
    let stranger = Client::from(&running, STRANGER).await.unwrap();
    let info = async |ticket: &str| {
        let mut request = tonic::Request::new(v1::GetServerInfoRequest {});
        if !ticket.is_empty() {
            request.metadata_mut().insert("conclave-ticket", ticket.parse().unwrap());
        }
        stranger.delivery().get_server_info(request).await
    };
    // While the rate admits, nothing is used up.
    for _ in 0..3 {
        info(&ticket).await.unwrap();
    }
    while info("").await.is_ok() {}
    for _ in 0..3 {
        info(&ticket).await.unwrap();
        refused(info("").await, Code::RateLimited);
    }
    for wrong in ["x", &ticket[1..], &ticket.to_uppercase()] {
        let refusal = refused(info(wrong).await, Code::RateLimited);
        assert!(refusal.message.contains("none of this server's") && refusal.number("retry_after_ms").is_some());
    }
    for _ in 0..2 {
        info(&ticket).await.unwrap();
    }
    assert!(refused(info(&ticket).await, Code::RateLimited).message.contains("used up"));
    drop(stranger);
    running.shutdown().await;
    // The key stays with the data.
    let running = Server::start(config).await.unwrap();
    let stranger = Client::from(&running, STRANGER).await.unwrap();
    let later = create_ticket(directory.path(), 1, 1).unwrap();
    while stranger.delivery().get_server_info(v1::GetServerInfoRequest {}).await.is_ok() {}
    for admitted in [true, false] {
        let mut request = tonic::Request::new(v1::GetServerInfoRequest {});
        request.metadata_mut().insert("conclave-ticket", later.parse().unwrap());
        assert_eq!(stranger.delivery().get_server_info(request).await.is_ok(), admitted);
    }
    running.shutdown().await;
}

#[tokio::test]
async fn who_floods_with_connections_keeps_nobody_out() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { max_connections: 8, ..tight(directory.path()) };
    let running = Server::start(config).await.unwrap();
    let mut honest = Honest::new(&running).await;
    // Two strangers, who together would take all places. What is not closed at once waits, here as there.
    let mut attempts = tokio::task::JoinSet::new();
    for n in [STRANGER, STRANGER + 1] {
        for _ in 0..12 {
            let endpoint = endpoint_from(&running, n);
            attempts.spawn(async move { endpoint.connect().await });
            honest.is_served().await;
        }
    }
    assert!(running.load().connections <= 8, "{:?}", running.load());
    for n in 2..4 {
        let newcomer = Client::from(&running, n).await.unwrap();
        assert!(running.load().connections <= 8, "{:?}", running.load());
        newcomer.delivery().get_server_info(v1::GetServerInfoRequest {}).await.unwrap();
        honest.is_served().await;
    }
    drop(attempts);
    pass(Duration::from_secs(62)).await;
    let client = Client::from(&running, STRANGER).await.unwrap();
    client.delivery().get_server_info(v1::GetServerInfoRequest {}).await.unwrap();
    honest.is_served().await;
    running.shutdown().await;
}

#[tokio::test]
async fn who_claims_one_targets_key_packages_leaves_some_for_others() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = tight(directory.path());
    config.address_limits = AddressLimits::default();
    let running = Server::start(config).await.unwrap();
    let mut honest = Honest::new(&running).await;
    let client = honest.client.clone();
    let alice = Certified::new(&client, "alice/laptop", 1, "").await.unwrap();
    let bob = Certified::new(&client, "bob/phone", 2, "").await.unwrap();
    let stranger = Client::from(&running, STRANGER).await.unwrap();
    let mallory = Certified::new(&stranger, "mallory/pc", 3, "").await.unwrap();
    let mut packages = Vec::new();
    for _ in 0..8 {
        packages.push(alice.key_package(&client, ChannelId::new([7; 16]), [7; 32]).await);
    }
    upload(&client, &alice, packages).await.unwrap();
    let claim = |who: &Certified, n: u64| {
        let message = v1::ClaimRequest {
            target: "mimi://example.com/u/alice".into(),
            cipher_suites: vec![1],
            idempotency_key: some_id(n),
            ..Default::default()
        };
        let request = who.sign(method::CLAIM, &message);
        let mut directory = stranger.directory();
        async move { directory.claim(request).await }
    };
    let (done, _) = flood(&mut honest, "claims", |n| claim(&mallory, n)).await;
    assert_eq!(done, 3);
    assert_eq!(available(&client, &alice).await, 5);
    assert_eq!(claim(&bob, 0).await.unwrap().into_inner().key_packages.len(), 1);
    running.shutdown().await;
}
