//! A server that does just enough, and fails when it is told to.

use std::{
    collections::{HashMap, VecDeque},
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use conclave_names::{Domain, SessionId, Timestamp};
use conclave_protocol::{
    Code, Refusal, method,
    session::{self, ReplayWindow, SessionKey},
    signed,
    v1::{
        self, SessionRequest, SignedRequest,
        delivery_service_server::{DeliveryService, DeliveryServiceServer},
        key_package_directory_server::{KeyPackageDirectory, KeyPackageDirectoryServer},
        stream_event::Event as Wire,
    },
};
use futures::{Stream, StreamExt, future, stream};
use hyper_util::rt::TokioIo;
use prost::Message;
use sha2::{Digest, Sha256};
use tokio::{io::DuplexStream, sync::mpsc, time::sleep};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{
    Request, Response, Status,
    codegen::{Service, http::Uri},
    transport::{Endpoint as Grpc, Server, server::Router},
};

use crate::transport::{Transport, endpoint::settings};

/// The server's heartbeat.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(20);

pub(super) fn domain() -> Domain {
    "example.com".parse().unwrap()
}

/// What the server knows and is told to do.
#[derive(Default)]
pub(super) struct State {
    /// The answers to the next calls.
    pub(super) failures: VecDeque<Status>,
    /// Calls that came, the failed ones too.
    pub(super) calls: Vec<&'static str>,
    /// Nonces of signed requests.
    pub(super) nonces: Vec<[u8; 16]>,
    /// Tickets that came with signed requests.
    pub(super) tickets: Vec<Option<String>>,
    /// How far the server's clock is ahead.
    pub(super) ahead_ms: u64,
    pub(super) sessions: HashMap<SessionId, (SessionKey, ReplayWindow)>,
    /// Blobs as far as they came.
    pub(super) staged: HashMap<Vec<u8>, Vec<u8>>,
    /// Bytes of blobs that came over the wire.
    pub(super) staged_bytes: usize,
    /// Offsets from which blobs were read.
    pub(super) read_from: Vec<u64>,
    /// The next streams of blobs break after so many parts.
    pub(super) cuts: VecDeque<usize>,
    /// How many heartbeats a stream brings before it falls silent. Then it is closed, if `close` says so.
    pub(super) heartbeats: usize,
    pub(super) close: bool,
    /// The silence after which it says that it ends a stream.
    pub(super) silence_ms: u64,
    /// What `stage_blob` says instead of the truth.
    pub(super) received: Option<u64>,
}

#[derive(Clone, Default)]
pub(super) struct Fake(pub(super) Arc<Mutex<State>>);

/// The next call fails with this.
pub(super) fn refused(code: Code) -> Status {
    Refusal::new(code, "as told").into()
}

impl Fake {
    pub(super) fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Has the next calls fail.
    pub(super) fn fail(&self, failures: impl IntoIterator<Item = Status>) {
        self.state().failures.extend(failures);
    }

    pub(super) fn calls(&self, method: &str) -> usize {
        self.state().calls.iter().filter(|call| **call == method).count()
    }

    pub(super) fn router(&self) -> Router {
        Server::builder()
            .add_service(KeyPackageDirectoryServer::new(self.clone()))
            .add_service(DeliveryServiceServer::new(self.clone()))
    }

    /// A transport to this server through memory: with paused time, nothing in it takes any.
    pub(super) fn transport(&self) -> Transport {
        let (connections, incoming) = mpsc::unbounded_channel();
        tokio::spawn(self.router().serve_with_incoming(UnboundedReceiverStream::new(incoming)));
        let grpc = settings(Grpc::from_static("http://conclave"));
        Transport::over(grpc.connect_with_connector_lazy(InMemory(connections)), domain())
    }

    fn enter(&self, method: &'static str) -> Result<(), Status> {
        let mut state = self.state();
        state.calls.push(method);
        state.failures.pop_front().map_or(Ok(()), Err)
    }

    fn signed<M: Message + Default>(&self, method: &'static str, request: Request<SignedRequest>) -> Result<M, Status> {
        self.enter(method)?;
        let ticket = request.metadata().get("conclave-ticket").map(|ticket| ticket.to_str().unwrap().to_owned());
        let mut state = self.state();
        state.tickets.push(ticket);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let now = Timestamp(u64::try_from(now).unwrap() + state.ahead_ms);
        let verified = signed::verify(request.get_ref(), method, &domain(), now).map_err(Refusal::from)?;
        assert!(!state.nonces.contains(&verified.nonce), "a nonce was used twice");
        state.nonces.push(verified.nonce);
        Ok(verified.decode().map_err(Refusal::from)?)
    }

    fn in_session<M: Message + Default>(
        &self,
        method: &'static str,
        request: Request<SessionRequest>,
    ) -> Result<M, Status> {
        self.enter(method)?;
        let request = request.into_inner();
        let id = session::session_of(&request).map_err(Refusal::from)?;
        let mut state = self.state();
        let (key, window) = state.sessions.get_mut(&id).ok_or_else(|| refused(Code::SessionUnknown))?;
        key.verify(method, &request).map_err(Refusal::from)?;
        window.note(request.counter).map_err(Refusal::from)?;
        Ok(session::decode(&request).map_err(Refusal::from)?)
    }
}

struct InMemory(mpsc::UnboundedSender<io::Result<DuplexStream>>);

impl Service<Uri> for InMemory {
    type Response = TokioIo<DuplexStream>;
    type Error = io::Error;
    type Future = future::Ready<Result<Self::Response, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let sent = self.0.send(Ok(theirs)).map(|()| TokioIo::new(ours));
        future::ready(sent.map_err(|_| io::ErrorKind::ConnectionRefused.into()))
    }
}

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Implements a service whose other calls are not served.
macro_rules! serve {
    ($service:ident, $($name:ident($request:ident) -> $response:ident;)* { $($real:tt)* }) => {
        #[tonic::async_trait]
        impl $service for Fake {
            $(
                async fn $name(&self, _: Request<$request>) -> Result<Response<v1::$response>, Status> {
                    Err(refused(Code::ServiceDisabled))
                }
            )*
            $($real)*
        }
    };
}

serve! { KeyPackageDirectory,
    upload(SignedRequest) -> UploadResponse;
    claim(SignedRequest) -> ClaimResponse;
    purge(SignedRequest) -> PurgeResponse;
    {
        async fn count(&self, request: Request<SignedRequest>) -> Result<Response<v1::CountResponse>, Status> {
            self.signed::<v1::CountRequest>(method::COUNT, request)?;
            Ok(Response::new(v1::CountResponse::default()))
        }
    }
}

serve! { DeliveryService,
    create_channel(SignedRequest) -> CreateChannelResponse;
    create_inbox(SignedRequest) -> CreateInboxResponse;
    knock(SignedRequest) -> KnockResponse;
    submit(SessionRequest) -> SubmitResponse;
    submit_bundle(SessionRequest) -> SubmitResponse;
    submit_external_proposal(SignedRequest) -> SubmitResponse;
    read_tree(SessionRequest) -> ReadTreeResponse;
    read_group_info(SessionRequest) -> ReadGroupInfoResponse;
    trim(SessionRequest) -> TrimResponse;
    attach(SessionRequest) -> AttachResponse;
    detach(SessionRequest) -> DetachResponse;
    {
        type ReadBlobStream = Events<v1::ReadBlobResponse>;
        type OpenStreamStream = Events<v1::StreamEvent>;

        async fn get_server_info(
            &self,
            _: Request<v1::GetServerInfoRequest>,
        ) -> Result<Response<v1::GetServerInfoResponse>, Status> {
            self.enter("GetServerInfo")?;
            Ok(Response::new(v1::GetServerInfoResponse { domain: domain().to_string(), ..Default::default() }))
        }

        async fn open_session(
            &self,
            request: Request<SignedRequest>,
        ) -> Result<Response<v1::OpenSessionResponse>, Status> {
            self.signed::<v1::OpenSessionRequest>(method::OPEN_SESSION, request)?;
            let mut state = self.state();
            let number = u8::try_from(state.calls.len()).unwrap();
            let (id, key) = (SessionId::new([number; 16]), [number; 32]);
            state.sessions.insert(id, (SessionKey::new(key), ReplayWindow::default()));
            Ok(Response::new(v1::OpenSessionResponse {
                session: id.to_vec(),
                mac_key: key.to_vec(),
                idle_ms: 60_000,
                head: 7,
            }))
        }

        async fn fetch(&self, request: Request<SessionRequest>) -> Result<Response<v1::FetchResponse>, Status> {
            let request: v1::FetchRequest = self.in_session(method::FETCH, request)?;
            Ok(Response::new(v1::FetchResponse { head: request.after, ..Default::default() }))
        }

        async fn stage_blob(
            &self,
            request: Request<SessionRequest>,
        ) -> Result<Response<v1::StageBlobResponse>, Status> {
            let part: v1::StageBlobRequest = self.in_session(method::STAGE_BLOB, request)?;
            let mut state = self.state();
            state.staged_bytes += part.data.len();
            if let Some(received) = state.received {
                return Ok(Response::new(v1::StageBlobResponse { received }));
            }
            let blob = state.staged.entry(part.hash.clone()).or_default();
            if u64::try_from(blob.len()).unwrap() == part.offset {
                blob.extend(part.data);
            }
            let received = blob.len() as u64;
            assert!(received < part.size || Sha256::digest(blob).to_vec() == part.hash);
            Ok(Response::new(v1::StageBlobResponse { received }))
        }

        async fn read_blob(
            &self,
            request: Request<v1::ReadBlobRequest>,
        ) -> Result<Response<Self::ReadBlobStream>, Status> {
            self.enter("ReadBlob")?;
            let v1::ReadBlobRequest { hash, offset } = request.into_inner();
            let mut state = self.state();
            state.read_from.push(offset);
            let blob = state.staged.get(&hash).ok_or_else(|| refused(Code::BlobUnknown))?.clone();
            let mut parts: Vec<_> = blob[usize::try_from(offset).unwrap()..]
                .chunks(1 << 16)
                .map(|data| Ok(v1::ReadBlobResponse { size: 0, data: data.to_vec() }))
                .collect();
            if let Some(Ok(first)) = parts.first_mut() {
                first.size = blob.len() as u64;
            }
            if let Some(cut) = state.cuts.pop_front() {
                parts.truncate(cut);
                parts.push(Err(Status::unavailable("cut")));
            }
            Ok(Response::new(stream::iter(parts).boxed()))
        }

        async fn keep_alive(
            &self,
            request: Request<v1::KeepAliveRequest>,
        ) -> Result<Response<v1::KeepAliveResponse>, Status> {
            assert_eq!(request.into_inner().handle, [5; 16]);
            self.enter("KeepAlive")?;
            Ok(Response::new(v1::KeepAliveResponse {}))
        }

        async fn open_stream(
            &self,
            _: Request<v1::OpenStreamRequest>,
        ) -> Result<Response<Self::OpenStreamStream>, Status> {
            self.enter("OpenStream")?;
            let event = |event| Ok(v1::StreamEvent { event: Some(event) });
            let heartbeat_ms = u64::try_from(HEARTBEAT.as_millis()).unwrap();
            let state = self.state();
            let silence_ms = state.silence_ms;
            let opened = event(Wire::Opened(v1::StreamOpened { handle: vec![5; 16], heartbeat_ms, silence_ms }));
            let beats = stream::iter(0..state.heartbeats).then(move |_| async move {
                sleep(HEARTBEAT).await;
                event(Wire::Heartbeat(v1::Heartbeat { time_ms: 1 }))
            });
            let entries = event(Wire::Entries(v1::StreamEntries { channel: vec![6; 16], entries: Vec::new() }));
            let unknown = Ok(v1::StreamEvent { event: None });
            let begin = stream::iter([opened, entries, unknown]).chain(beats);
            let events = if state.close { begin.boxed() } else { begin.chain(stream::pending()).boxed() };
            Ok(Response::new(events))
        }
    }
}
