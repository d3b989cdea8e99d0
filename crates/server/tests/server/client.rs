//! A client made of the generated stubs.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use conclave_channel::{
    Body, Entry, EntryKind,
    access::{ChannelKey, KeyTree},
};
use conclave_names::{ChannelId, Domain, Epoch, SessionId, Timestamp};
use conclave_protocol::{
    Code, Refusal, SigningKey, method,
    session::SessionKey,
    signed,
    v1::{
        self, authentication_service_client::AuthenticationServiceClient,
        delivery_service_client::DeliveryServiceClient, key_package_directory_client::KeyPackageDirectoryClient,
    },
};
use conclave_server::{Config, Running, Server};
use prost::{Message, bytes::BufMut};
use tonic::{
    Request, Response, Status, Streaming,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

pub(crate) fn domain() -> Domain {
    "example.com".parse().unwrap()
}

pub(crate) fn config(directory: &Path) -> Config {
    Config::for_tests(directory, domain())
}

pub(crate) async fn start(directory: &Path) -> Running {
    Server::start(config(directory)).await.unwrap()
}

pub(crate) fn now() -> Timestamp {
    Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap())
}

pub(crate) fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

/// The refusal that an answer must be.
#[track_caller]
pub(crate) fn refusal<T: std::fmt::Debug>(answer: Result<Response<T>, Status>) -> Refusal {
    let status = answer.unwrap_err();
    Refusal::from_status(&status).unwrap_or_else(|| panic!("no refusal: {status:?}"))
}

#[derive(Clone)]
pub(crate) struct Client(pub(crate) Channel);

impl Client {
    pub(crate) async fn of(running: &Running) -> Self {
        Self::to(&running.addr().to_string(), running.ca_pem().unwrap()).await
    }

    pub(crate) async fn to(addr: &str, ca_pem: &str) -> Self {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca_pem));
        let endpoint = Endpoint::from_shared(format!("https://{addr}")).unwrap().tls_config(tls).unwrap();
        Self(endpoint.connect().await.unwrap())
    }

    pub(crate) fn authentication(&self) -> AuthenticationServiceClient<Channel> {
        AuthenticationServiceClient::new(self.0.clone())
    }

    pub(crate) fn directory(&self) -> KeyPackageDirectoryClient<Channel> {
        KeyPackageDirectoryClient::new(self.0.clone())
    }

    pub(crate) fn delivery(&self) -> DeliveryServiceClient<Channel> {
        DeliveryServiceClient::new(self.0.clone())
    }

    pub(crate) async fn register(&self, name: &str, n: u8, invite: &str) -> Result<(), Status> {
        let message = v1::RegisterUserRequest {
            user: format!("mimi://example.com/u/{name}"),
            identity_key: key(n).verifying_key().to_bytes().to_vec(),
            invite: invite.to_owned(),
        };
        let request = sign(&key(n), method::REGISTER_USER, &message);
        self.authentication().register_user(request).await.map(drop)
    }

    /// Makes a group channel of one member and opens a session on it.
    pub(crate) async fn channel(&self, n: u8) -> Session {
        let channel = ChannelId::new([n; 16]);
        let tree = KeyTree::new([ChannelKey(key(n).verifying_key().to_bytes())]).unwrap();
        let create = v1::CreateChannelRequest { channel: channel.to_vec(), key_root: tree.root().to_vec() };
        self.delivery().create_channel(sign(&key(n), method::CREATE_CHANNEL, &create)).await.unwrap();
        self.session(n, channel).await
    }

    pub(crate) async fn session(&self, n: u8, channel: ChannelId) -> Session {
        let path = v1::KeyPath { index: 0, leaves: 1, siblings: Vec::new() };
        let open = v1::OpenSessionRequest { channel: channel.to_vec(), epoch: 0, path: Some(path) };
        let reply = self.delivery().open_session(sign(&key(n), method::OPEN_SESSION, &open)).await.unwrap();
        let reply = reply.into_inner();
        Session {
            client: self.clone(),
            channel,
            id: reply.session.as_slice().try_into().unwrap(),
            key: SessionKey::from_slice(&reply.mac_key).unwrap(),
            counter: AtomicU64::new(0),
        }
    }

    /// Opens a stream; gives its handle.
    pub(crate) async fn stream(&self) -> (Vec<u8>, Streaming<v1::StreamEvent>) {
        let mut events = self.delivery().open_stream(v1::OpenStreamRequest {}).await.unwrap().into_inner();
        match next(&mut events).await {
            v1::stream_event::Event::Opened(opened) => {
                assert_eq!(opened.heartbeat_ms, 20_000);
                (opened.handle, events)
            }
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) async fn next(events: &mut Streaming<v1::StreamEvent>) -> v1::stream_event::Event {
    events.message().await.unwrap().unwrap().event.unwrap()
}

pub(crate) fn sign(key: &SigningKey, method: &str, message: &impl Message) -> v1::SignedRequest {
    static NONCE: AtomicU64 = AtomicU64::new(0);
    let nonce = u128::from(NONCE.fetch_add(1, Ordering::Relaxed)).to_be_bytes();
    signed::sign(key, method, &domain(), now(), nonce, message.encode_to_vec(), Vec::new())
}

pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) channel: ChannelId,
    id: SessionId,
    key: SessionKey,
    counter: AtomicU64,
}

impl Session {
    pub(crate) fn request(&self, method: &str, message: &impl Message) -> v1::SessionRequest {
        let counter = self.counter.fetch_add(1, Ordering::Relaxed) + 1;
        self.key.seal(method, self.id, counter, message.encode_to_vec())
    }

    pub(crate) fn submission(&self, n: u64, body: Vec<u8>) -> v1::SessionRequest {
        let entry = Entry::new(EntryKind::Message, Epoch(0), Body::Inline(body)).to_bytes().unwrap();
        let key = u128::from(n).to_be_bytes().to_vec();
        self.request(method::SUBMIT, &v1::SubmitRequest { idempotency_key: key, entry })
    }

    pub(crate) async fn submit(&self, n: u64, body: Vec<u8>) -> u64 {
        self.client.delivery().submit(self.submission(n, body)).await.unwrap().into_inner().seq
    }

    pub(crate) async fn fetch(&self, after: u64) -> v1::FetchResponse {
        let request = self.request(method::FETCH, &v1::FetchRequest { after, limit: 0 });
        self.client.delivery().fetch(request).await.unwrap().into_inner()
    }

    pub(crate) async fn attach(&self, handle: &[u8], after: u64) -> Result<(), Status> {
        let message = v1::AttachRequest { handle: handle.to_vec(), after };
        let request = self.request(method::ATTACH, &message);
        self.client.delivery().attach(request).await.map(drop)
    }

    pub(crate) async fn detach(&self, handle: &[u8]) -> Result<(), Status> {
        let message = v1::DetachRequest { handle: handle.to_vec() };
        let request = self.request(method::DETACH, &message);
        self.client.delivery().detach(request).await.map(drop)
    }
}

/// Sends bytes as they are in a call.
pub(crate) async fn raw(client: &Client, path: &'static str, bytes: Vec<u8>) -> Result<Response<()>, Status> {
    let mut grpc = tonic::client::Grpc::new(client.0.clone());
    grpc.ready().await.unwrap();
    grpc.unary(Request::new(bytes), PathAndQuery::from_static(path), Raw).await
}

/// A codec that takes bytes for messages, and answers for nothing.
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, _: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        Ok(Some(()))
    }
}

/// Checks a refusal's code.
#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(answer: Result<Response<T>, Status>, code: Code) {
    let refusal = refusal(answer);
    assert_eq!(refusal.code, code, "{refusal}");
}
