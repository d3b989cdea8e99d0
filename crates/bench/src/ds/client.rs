//! A client made of the generated stubs.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use conclave_names::{Domain, SessionId, Timestamp, limits};
use conclave_protocol::{
    SigningKey, method,
    session::SessionKey,
    signed,
    v1::{
        AttachRequest, CreateChannelRequest, FetchRequest, FetchResponse, OpenStreamRequest, SessionRequest,
        SignedRequest, StreamEvent, SubmitBundleRequest, SubmitRequest, SubmitResponse,
        delivery_service_client::DeliveryServiceClient, stream_event::Event,
    },
};
use prost::Message;
use tonic::{
    Status, Streaming,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use super::{Failure, Group, Process, server::domain};

/// Random bytes of the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// The time that requests are signed at.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// One HTTP/2 connection. Clones share it.
#[derive(Clone)]
pub(crate) struct Connection {
    delivery: DeliveryServiceClient<Channel>,
    domain: Domain,
}

impl Connection {
    pub(crate) async fn open(server: &Process) -> Result<Self, Failure> {
        let addr = server.addr();
        let endpoint = match server.ca_pem() {
            Some(pem) => {
                let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
                Endpoint::from_shared(format!("https://{addr}"))?.tls_config(tls)?
            }
            None => Endpoint::from_shared(format!("http://{addr}"))?,
        };
        let delivery =
            DeliveryServiceClient::new(endpoint.connect().await?).max_decoding_message_size(limits::WIRE_MESSAGE);
        Ok(Self { delivery, domain: domain()? })
    }

    fn sign(&self, key: &SigningKey, method: &str, message: &impl Message) -> Result<SignedRequest, Failure> {
        Ok(signed::sign(key, method, &self.domain, now(), random()?, message.encode_to_vec(), Vec::new()))
    }

    /// Makes a group's channel and brings it to epoch 1, in which all members are.
    pub(crate) async fn create(&self, group: &Group) -> Result<(), Failure> {
        let create = CreateChannelRequest {
            channel: group.channel.to_vec(),
            key_root: group.first_root()?.to_vec(),
            ..Default::default()
        };
        let request = self.sign(group.key(0)?, method::CREATE_CHANNEL, &create)?;
        self.delivery.clone().create_channel(request).await?;
        let creator = self.session_in(group, 0, 0).await?;
        creator.commit(&group.commit(0, 0, 0, random::<1024>()?.to_vec())?).await?;
        Ok(())
    }

    /// Opens a session of a member, in epoch 1.
    pub(crate) async fn session(&self, group: &Group, member: usize) -> Result<Session, Failure> {
        self.session_in(group, member, 1).await
    }

    async fn session_in(&self, group: &Group, member: usize, epoch: u64) -> Result<Session, Failure> {
        let request = self.sign(group.key(member)?, method::OPEN_SESSION, &group.open(member, epoch)?)?;
        let reply = self.delivery.clone().open_session(request).await?.into_inner();
        Ok(Session {
            delivery: self.delivery.clone(),
            id: reply.session.as_slice().try_into()?,
            key: SessionKey::from_slice(&reply.mac_key)?,
            counter: AtomicU64::new(0),
        })
    }

    /// Opens a stream; gives its handle.
    pub(crate) async fn stream(&self) -> Result<(Vec<u8>, Streaming<StreamEvent>), Failure> {
        let mut events = self.delivery.clone().open_stream(OpenStreamRequest {}).await?.into_inner();
        match events.message().await?.and_then(|event| event.event) {
            Some(Event::Opened(opened)) => Ok((opened.handle, events)),
            other => Err(format!("a stream begins with {other:?}").into()),
        }
    }
}

/// A member's session on a channel.
pub(crate) struct Session {
    delivery: DeliveryServiceClient<Channel>,
    id: SessionId,
    key: SessionKey,
    counter: AtomicU64,
}

impl Session {
    fn request(&self, method: &str, message: &impl Message) -> SessionRequest {
        let counter = self.counter.fetch_add(1, Ordering::Relaxed) + 1;
        self.key.seal(method, self.id, counter, message.encode_to_vec())
    }

    /// Submits an entry under a fresh idempotency key.
    pub(crate) async fn submit(&self, entry: Vec<u8>) -> Result<SubmitResponse, Failure> {
        let message = SubmitRequest { idempotency_key: random::<16>()?.to_vec(), entry };
        let request = self.request(method::SUBMIT, &message);
        Ok(self.delivery.clone().submit(request).await?.into_inner())
    }

    pub(crate) async fn commit(&self, bundle: &SubmitBundleRequest) -> Result<SubmitResponse, Status> {
        let request = self.request(method::SUBMIT_BUNDLE, bundle);
        Ok(self.delivery.clone().submit_bundle(request).await?.into_inner())
    }

    pub(crate) async fn fetch(&self, after: u64) -> Result<FetchResponse, Failure> {
        let request = self.request(method::FETCH, &FetchRequest { after, limit: 0 });
        Ok(self.delivery.clone().fetch(request).await?.into_inner())
    }

    /// Has a stream carry the session's channel.
    pub(crate) async fn attach(&self, handle: &[u8], after: u64) -> Result<(), Failure> {
        let request = self.request(method::ATTACH, &AttachRequest { handle: handle.to_vec(), after });
        self.delivery.clone().attach(request).await?;
        Ok(())
    }
}
