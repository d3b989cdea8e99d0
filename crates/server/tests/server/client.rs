//! A client made of the generated stubs.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use conclave_channel::{
    Body, CommitHeader, Entry, EntryKind,
    access::{ChannelKey, KeyTree},
};
use conclave_names::{ChannelId, Domain, Epoch, Hash, SessionId, Timestamp};
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

fn endpoint(addr: &str, ca_pem: &str) -> Endpoint {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca_pem));
    Endpoint::from_shared(format!("https://{addr}")).unwrap().tls_config(tls).unwrap()
}

/// The server, called from an address of loopback's own network (127.0.0.n).
pub(crate) fn endpoint_from(running: &Running, n: u8) -> Endpoint {
    endpoint(&running.addr().to_string(), running.ca_pem().unwrap()).local_address(Some([127, 0, 0, n].into()))
}

/// Lets time pass, at once. Not twice in a row without a call on each connection: an unanswered ping ends it.
pub(crate) async fn pass(time: std::time::Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

impl Client {
    pub(crate) async fn of(running: &Running) -> Self {
        Self::to(&running.addr().to_string(), running.ca_pem().unwrap()).await
    }

    pub(crate) async fn to(addr: &str, ca_pem: &str) -> Self {
        Self(endpoint(addr, ca_pem).connect().await.unwrap())
    }

    /// One that calls from an address of loopback's own network (127.0.0.n).
    pub(crate) async fn from(running: &Running, n: u8) -> Result<Self, tonic::transport::Error> {
        Ok(Self(endpoint_from(running, n).connect().await?))
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
        self.create(channel, n).await.unwrap();
        self.session(n, channel).await
    }

    pub(crate) async fn create(&self, channel: ChannelId, n: u8) -> Result<(), Status> {
        let create = v1::CreateChannelRequest {
            channel: channel.to_vec(),
            key_root: tree(&[n]).root().to_vec(),
            ..Default::default()
        };
        self.delivery().create_channel(sign(&key(n), method::CREATE_CHANNEL, &create)).await.map(drop)
    }

    pub(crate) async fn session(&self, n: u8, channel: ChannelId) -> Session {
        self.open(n, &member_of(channel, n, 0, &[n])).await.unwrap()
    }

    pub(crate) async fn open(&self, n: u8, open: &v1::OpenSessionRequest) -> Result<Session, Status> {
        let reply = self.delivery().open_session(sign(&key(n), method::OPEN_SESSION, open)).await?.into_inner();
        Ok(Session {
            client: self.clone(),
            channel: open.channel.as_slice().try_into().unwrap(),
            id: reply.session.as_slice().try_into().unwrap(),
            member: n,
            key: SessionKey::from_slice(&reply.mac_key).unwrap(),
            counter: AtomicU64::new(0),
        })
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

/// The key tree of these members.
pub(crate) fn tree(members: &[u8]) -> KeyTree {
    KeyTree::new(members.iter().map(|n| channel_key(*n))).unwrap()
}

fn channel_key(n: u8) -> ChannelKey {
    ChannelKey(key(n).verifying_key().to_bytes())
}

/// What `n` says to open a session as one of the members of an epoch.
pub(crate) fn member_of(channel: ChannelId, n: u8, epoch: u64, members: &[u8]) -> v1::OpenSessionRequest {
    let path = tree(members).path(&channel_key(n)).map(|path| v1::KeyPath {
        index: path.index,
        leaves: path.leaves,
        siblings: path.siblings.iter().map(Hash::to_vec).collect(),
    });
    v1::OpenSessionRequest { channel: channel.to_vec(), epoch, path: path.ok() }
}

/// A commit that ends an epoch and leaves these members.
pub(crate) fn bundle(n: u8, epoch: u64, members: &[u8], removes: bool) -> v1::SubmitBundleRequest {
    // Who commits is filled in by `Session::commit`.
    let (committer, tree) = (channel_key(0), tree(members));
    let header = CommitHeader { committer, removed: removes.into(), members: tree.len(), key_root: tree.root() };
    let entry = Entry::commit(Epoch(epoch), header, Body::Inline(vec![n; 256]));
    v1::SubmitBundleRequest {
        idempotency_key: vec![n; 16],
        entry: entry.to_bytes().unwrap(),
        group_info: vec![n; 300],
        join_key: vec![n; 32],
        ..Default::default()
    }
}

/// The bundle with its committer in the commit.
pub(crate) fn by(n: u8, bundle: &v1::SubmitBundleRequest) -> v1::SubmitBundleRequest {
    let mut entry = Entry::parse(&bundle.entry).unwrap();
    if let Some(header) = &mut entry.commit {
        header.committer = channel_key(n);
    }
    v1::SubmitBundleRequest { entry: entry.to_bytes().unwrap(), ..bundle.clone() }
}

pub(crate) async fn next(events: &mut Streaming<v1::StreamEvent>) -> v1::stream_event::Event {
    events.message().await.unwrap().unwrap().event.unwrap()
}

pub(crate) fn sign(key: &SigningKey, method: &str, message: &impl Message) -> v1::SignedRequest {
    signed::sign(key, method, &domain(), now(), nonce(), message.encode_to_vec(), Vec::new())
}

/// One that was not used in this process.
pub(crate) fn nonce() -> [u8; 16] {
    static NONCE: AtomicU64 = AtomicU64::new(0);
    u128::from(NONCE.fetch_add(1, Ordering::Relaxed)).to_be_bytes()
}

pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) channel: ChannelId,
    pub(crate) id: SessionId,
    /// Whose it is.
    pub(crate) member: u8,
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
        self.entry(n, entry)
    }

    pub(crate) fn entry(&self, n: u64, entry: Vec<u8>) -> v1::SessionRequest {
        let key = u128::from(n).to_be_bytes().to_vec();
        self.request(method::SUBMIT, &v1::SubmitRequest { idempotency_key: key, entry })
    }

    pub(crate) async fn commit(&self, bundle: &v1::SubmitBundleRequest) -> Result<u64, Status> {
        self.submit_bundle(&by(self.member, bundle)).await.map(|reply| reply.seq)
    }

    /// Submits a bundle as it is.
    pub(crate) async fn submit_bundle(&self, bundle: &v1::SubmitBundleRequest) -> Result<v1::SubmitResponse, Status> {
        let request = self.request(method::SUBMIT_BUNDLE, bundle);
        self.client.delivery().submit_bundle(request).await.map(Response::into_inner)
    }

    pub(crate) async fn group_info(&self) -> v1::ReadGroupInfoResponse {
        let request = self.request(method::READ_GROUP_INFO, &v1::ReadGroupInfoRequest {});
        self.client.delivery().read_group_info(request).await.unwrap().into_inner()
    }

    pub(crate) async fn stage(
        &self,
        message: &v1::StageBlobRequest,
    ) -> Result<Response<v1::StageBlobResponse>, Status> {
        self.client.delivery().stage_blob(self.request(method::STAGE_BLOB, message)).await
    }

    pub(crate) async fn submit(&self, n: u64, body: Vec<u8>) -> u64 {
        self.client.delivery().submit(self.submission(n, body)).await.unwrap().into_inner().seq
    }

    /// Submits a message of an epoch.
    pub(crate) async fn submit_in(&self, n: u64, epoch: u64, body: Vec<u8>) -> u64 {
        let entry = Entry::new(EntryKind::Message, Epoch(epoch), Body::Inline(body)).to_bytes().unwrap();
        self.client.delivery().submit(self.entry(n, entry)).await.unwrap().into_inner().seq
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
pub(crate) async fn raw(client: &Client, path: &str, bytes: Vec<u8>) -> Result<Response<()>, Status> {
    let mut grpc = tonic::client::Grpc::new(client.0.clone());
    grpc.ready().await.unwrap();
    grpc.unary(Request::new(bytes), path.parse::<PathAndQuery>().unwrap(), Raw).await
}

/// A call whose request never ends.
pub(crate) async fn endless(client: &Client, path: &str) -> Result<Response<()>, Status> {
    let mut grpc = tonic::client::Grpc::new(client.0.clone());
    grpc.ready().await.unwrap();
    let request = Request::new(futures::stream::pending::<Vec<u8>>());
    grpc.client_streaming(request, path.parse::<PathAndQuery>().unwrap(), Raw).await
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
pub(crate) fn refused<T: std::fmt::Debug>(answer: Result<Response<T>, Status>, code: Code) -> Refusal {
    let refusal = refusal(answer);
    assert_eq!(refusal.code, code, "{refusal}");
    refusal
}

/// Checks the code of what went wrong.
#[track_caller]
pub(crate) fn denied<T>(result: Result<T, Status>, code: Code) -> Refusal {
    refused(result.map(|_| Response::new(())), code)
}
