//! A server and what its clients do.

use std::cell::Cell;

use conclave_authentication::CertificateAuthority;
use conclave_channel::{
    Body, CommitHeader, Entry, EntryKind,
    access::{ChannelKey, KeyTree},
};
use conclave_delivery::{Config, DeliveryService, Done, Origin, limits::Limits, memory::MemoryStore};
use conclave_mls::{
    address::{DropToken, SealedAddress},
    credential::{IdentityBinding, Issuers},
    crypto,
    identity::Identities,
};
use conclave_names::{ChannelId, ClientUri, Domain, Epoch, Hash, Seq, SessionId, Timestamp};
use conclave_protocol::{Code, Refusal, SigningKey, method, session::SessionKey, signed, v1};
use prost::Message;

pub(crate) const NOW: Timestamp = Timestamp(1_700_000_000_000);
pub(crate) const DAY_MS: u64 = 24 * 3600 * 1000;
pub(crate) const GROUP: ChannelId = ChannelId::new([0x61; 16]);

pub(crate) fn domain() -> Domain {
    "example.com".parse().unwrap()
}

pub(crate) fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

pub(crate) fn channel_key(key: &SigningKey) -> ChannelKey {
    ChannelKey(key.verifying_key().to_bytes())
}

pub(crate) fn tree(members: &[u8]) -> KeyTree {
    KeyTree::new(members.iter().map(|n| channel_key(&key(*n)))).unwrap()
}

/// The certified key of a client.
pub(crate) struct Certified {
    pub(crate) uri: ClientUri,
    pub(crate) key: SigningKey,
    pub(crate) certificate: Vec<u8>,
}

/// A session as its client holds it.
pub(crate) struct Session {
    id: SessionId,
    key: SessionKey,
    counter: Cell<u64>,
    pub(crate) head: u64,
    /// Whose it is.
    pub(crate) member: u8,
}

impl Session {
    pub(crate) fn request(&self, method: &str, message: &impl Message) -> v1::SessionRequest {
        self.counter.set(self.counter.get() + 1);
        self.key.seal(method, self.id, self.counter.get(), message.encode_to_vec())
    }
}

pub(crate) struct World {
    pub(crate) service: DeliveryService,
    pub(crate) store: MemoryStore,
    pub(crate) now: Timestamp,
    authority: CertificateAuthority,
    pub(crate) identities: Identities,
    nonce: u128,
    calls: usize,
}

/// Makes a call that writes: every other one with a request that was authenticated ahead of its transaction, as servers
/// do, so that both ways are tested by all tests.
macro_rules! call {
    ($world:expr, $call:ident, $method:ident, $request:expr) => {{
        let (world, request) = (&mut *$world, $request);
        if world.next_is_ahead() {
            world
                .service
                .authenticate(request.clone(), conclave_protocol::method::$method, world.now)
                .and_then(|request| world.store.write(|tx| world.service.$call(tx, &request, world.now)))
        } else {
            world.store.write(|tx| world.service.$call(tx, &request, world.now))
        }
    }};
}
pub(crate) use call;

/// A bundle that names its committer.
pub(crate) fn committed_by(message: &v1::SubmitBundleRequest, member: u8) -> v1::SubmitBundleRequest {
    let mut message = message.clone();
    if let Ok(mut entry) = Entry::parse(&message.entry) {
        if let Some(header) = &mut entry.commit {
            header.committer = channel_key(&key(member));
        }
        message.entry = entry.to_bytes().unwrap();
    }
    message
}

fn session_of(reply: &v1::OpenSessionResponse) -> Session {
    Session {
        id: reply.session.as_slice().try_into().unwrap(),
        key: SessionKey::from_slice(&reply.mac_key).unwrap(),
        counter: Cell::new(0),
        head: reply.head,
        member: 0,
    }
}

/// A bundle to be filled in.
pub(crate) fn bundle(n: u8, epoch: u64, members: &[u8], base: u64) -> v1::SubmitBundleRequest {
    bundle_of(n, epoch, members, base, false)
}

pub(crate) fn bundle_of(n: u8, epoch: u64, members: &[u8], base: u64, removes: bool) -> v1::SubmitBundleRequest {
    // Who commits is filled in by `World::commit`.
    let (committer, tree) = (channel_key(&key(0)), tree(members));
    let header = CommitHeader { committer, removed: removes.into(), members: tree.len(), key_root: tree.root() };
    let entry = Entry::commit(Epoch(epoch), header, Body::Inline(vec![n; 256]));
    v1::SubmitBundleRequest {
        idempotency_key: vec![n; 16],
        entry: entry.to_bytes().unwrap(),
        base_seq: base,
        group_info: vec![n; 300],
        join_key: vec![n; 32],
        ..v1::SubmitBundleRequest::default()
    }
}

pub(crate) fn entry(kind: EntryKind, epoch: u64, text: &[u8]) -> Vec<u8> {
    Entry::new(kind, Epoch(epoch), Body::Inline(text.to_vec())).to_bytes().unwrap()
}

pub(crate) fn submission(n: u8, entry: Vec<u8>) -> v1::SubmitRequest {
    v1::SubmitRequest { idempotency_key: vec![n; 16], entry }
}

impl World {
    pub(crate) fn new() -> Self {
        let config = Config { limits: Limits::none(), ..Config::default() };
        Self::with(&config)
    }

    pub(crate) fn with(config: &Config) -> Self {
        let authority = CertificateAuthority::self_signed(&domain(), &[200; 32], NOW).unwrap();
        let issuers: Issuers = [authority.issuer().clone()].into_iter().collect();
        let identities = Identities::new(issuers);
        let service = DeliveryService::new(domain(), identities.clone(), *config).unwrap();
        let mut world =
            Self { service, store: MemoryStore::new(), now: NOW, authority, identities, nonce: 0, calls: 0 };
        world.maintain();
        world
    }

    /// Whether the next call authenticates its request ahead.
    pub(crate) fn next_is_ahead(&mut self) -> bool {
        self.calls += 1;
        self.calls.is_multiple_of(2)
    }

    /// Maintains until nothing is left to do. Tells how many steps that took.
    pub(crate) fn maintain(&mut self) -> u32 {
        for step in 1..10_000 {
            if !self.store.write(|tx| self.service.maintain(tx, self.now)).unwrap().reply {
                return step;
            }
        }
        panic!("maintenance never ends");
    }

    /// A client with a certificate of 60 days.
    pub(crate) fn certified(&self, name: &str, n: u8) -> Certified {
        let uri: ClientUri = format!("mimi://example.com/d/{name}").parse().unwrap();
        let (identity, key) = (key(n), key(n + 100));
        let public = key.verifying_key().to_bytes();
        let until = self.now.plus_ms(60 * DAY_MS);
        let binding = IdentityBinding::sign(&identity, &uri, &public, until);
        let before = Timestamp(self.now.0 - 3_600_000);
        let certificate = self.authority.issue(&uri, &public, &binding, before, until, [n; 16]).unwrap();
        Certified { uri, key, certificate }
    }

    pub(crate) fn sign(&mut self, key: &SigningKey, method: &str, message: &impl Message) -> v1::SignedRequest {
        self.nonce += 1;
        let nonce = self.nonce.to_be_bytes();
        signed::sign(key, method, &domain(), self.now, nonce, message.encode_to_vec(), Vec::new())
    }

    pub(crate) fn sign_as(&mut self, who: &Certified, method: &str, message: &impl Message) -> v1::SignedRequest {
        let mut request = self.sign(&who.key, method, message);
        request.certificate.clone_from(&who.certificate);
        request
    }

    pub(crate) fn create(&mut self, channel: ChannelId, n: u8) -> Result<(), Refusal> {
        let message = v1::CreateChannelRequest {
            channel: channel.to_vec(),
            key_root: tree(&[n]).root().to_vec(),
            ..Default::default()
        };
        let request = self.sign(&key(n), method::CREATE_CHANNEL, &message);
        call!(self, create_channel, CREATE_CHANNEL, request).map(drop)
    }

    pub(crate) fn create_inbox(&mut self, inbox: ChannelId, n: u8, drop_key: [u8; 32]) -> Result<(), Refusal> {
        let message = v1::CreateInboxRequest { inbox: inbox.to_vec(), drop_key: drop_key.to_vec() };
        let request = self.sign(&key(n), method::CREATE_INBOX, &message);
        call!(self, create_inbox, CREATE_INBOX, request).map(drop)
    }

    pub(crate) fn open_with(&mut self, n: u8, message: &v1::OpenSessionRequest) -> Result<Session, Refusal> {
        let request = self.sign(&key(n), method::OPEN_SESSION, message);
        Ok(Session { member: n, ..self.open_signed(&request)? })
    }

    pub(crate) fn open_signed(&mut self, request: &v1::SignedRequest) -> Result<Session, Refusal> {
        let reply = call!(self, open_session, OPEN_SESSION, request.clone())?.reply;
        Ok(session_of(&reply))
    }

    pub(crate) fn open_from(&mut self, request: &v1::SignedRequest, origin: Origin) -> Result<Session, Refusal> {
        let reply = self.store.write(|tx| self.service.open_session_from(tx, request, origin, self.now))?.reply;
        Ok(session_of(&reply))
    }

    /// Opens a session of member `n` of an epoch with these members.
    pub(crate) fn open(&mut self, n: u8, epoch: u64, members: &[u8]) -> Result<Session, Refusal> {
        self.open_with(n, &open_request(GROUP, n, epoch, members))
    }

    pub(crate) fn open_inbox(&mut self, n: u8, inbox: ChannelId) -> Result<Session, Refusal> {
        self.open_with(n, &v1::OpenSessionRequest { channel: inbox.to_vec(), epoch: 0, path: None })
    }

    pub(crate) fn submit(
        &mut self,
        session: &Session,
        message: &v1::SubmitRequest,
    ) -> Result<Done<v1::SubmitResponse>, Refusal> {
        let request = session.request(method::SUBMIT, message);
        call!(self, submit, SUBMIT, request)
    }

    pub(crate) fn send(&mut self, session: &Session, n: u8, epoch: u64) -> Result<u64, Refusal> {
        self.submit(session, &submission(n, entry(EntryKind::Message, epoch, &[n]))).map(|done| done.reply.seq)
    }

    pub(crate) fn commit(
        &mut self,
        session: &Session,
        message: &v1::SubmitBundleRequest,
    ) -> Result<Done<v1::SubmitResponse>, Refusal> {
        self.commit_as(session, message, session.member)
    }

    /// Commits, naming another member as the committer.
    pub(crate) fn commit_as(
        &mut self,
        session: &Session,
        message: &v1::SubmitBundleRequest,
        member: u8,
    ) -> Result<Done<v1::SubmitResponse>, Refusal> {
        let request = session.request(method::SUBMIT_BUNDLE, &committed_by(message, member));
        if !self.next_is_ahead() {
            return self.store.write(|tx| self.service.submit_bundle(tx, &request, self.now));
        }
        let mut request = self.service.authenticate(request, method::SUBMIT_BUNDLE, self.now)?;
        if request.has_addresses() {
            self.store.read(|read| self.service.open_addresses(read, &mut request, self.now))?;
            assert!(!request.has_addresses());
        }
        self.store.write(|tx| self.service.submit_bundle(tx, &request, self.now))
    }

    pub(crate) fn fetch(&mut self, session: &Session, after: u64) -> Result<v1::FetchResponse, Refusal> {
        self.fetch_some(session, after, 0)
    }

    pub(crate) fn fetch_some(
        &mut self,
        session: &Session,
        after: u64,
        limit: u32,
    ) -> Result<v1::FetchResponse, Refusal> {
        let request = session.request(method::FETCH, &v1::FetchRequest { after, limit });
        self.store.read(|read| self.service.fetch(read, &request, self.now))
    }

    pub(crate) fn seqs(&mut self, session: &Session, after: u64) -> Vec<u64> {
        self.fetch(session, after).unwrap().entries.iter().map(|entry| entry.seq).collect()
    }

    pub(crate) fn stage(&mut self, session: &Session, blob: &[u8]) -> Hash {
        let hash = conclave_channel::chain::entry_hash(blob);
        let message =
            v1::StageBlobRequest { hash: hash.to_vec(), size: blob.len() as u64, offset: 0, data: blob.to_vec() };
        let request = session.request(method::STAGE_BLOB, &message);
        let done = call!(self, stage_blob, STAGE_BLOB, request).unwrap();
        assert_eq!(done.reply.received, blob.len() as u64);
        hash
    }

    pub(crate) fn group_info(&mut self, session: &Session) -> Result<v1::ReadGroupInfoResponse, Refusal> {
        let request = session.request(method::READ_GROUP_INFO, &v1::ReadGroupInfoRequest {});
        self.store.read(|read| self.service.read_group_info(read, &request, self.now))
    }

    pub(crate) fn deliver(&mut self) -> Vec<ChannelId> {
        self.store.write(|tx| self.service.deliver_outbox(tx, self.now)).unwrap().wake
    }

    /// A delivery address of an inbox.
    pub(crate) fn address(&mut self, inbox: ChannelId, drop_key: [u8; 32], nonce: u8, uses: u32) -> Vec<u8> {
        let expires = self.now.plus_ms(90 * DAY_MS);
        self.seal(&DropToken::mint(&drop_key, inbox, [nonce; 16], uses, expires))
    }

    pub(crate) fn seal(&mut self, token: &DropToken) -> Vec<u8> {
        let info = self.store.read(|read| self.service.get_server_info(read, self.now)).unwrap();
        let suite = crypto::suite(crypto::DEFAULT_SUITE).unwrap();
        let key_id = info.address_key_id.as_slice().try_into().unwrap();
        SealedAddress::seal(&suite, &info.address_key.into(), key_id, token).unwrap().to_bytes().unwrap()
    }
}

pub(crate) fn open_request(channel: ChannelId, n: u8, epoch: u64, members: &[u8]) -> v1::OpenSessionRequest {
    let path = tree(members).path(&channel_key(&key(n))).map(|path| v1::KeyPath {
        index: path.index,
        leaves: path.leaves,
        siblings: path.siblings.iter().map(Hash::to_vec).collect(),
    });
    v1::OpenSessionRequest { channel: channel.to_vec(), epoch, path: path.ok() }
}

pub(crate) fn welcome(parts: Vec<(Vec<u8>, Vec<u8>)>) -> v1::WelcomeBundle {
    v1::WelcomeBundle {
        cipher_suite: 1,
        encrypted_group_info: vec![0xE1; 500],
        attachment: vec![0xA7; 100],
        parts: parts
            .into_iter()
            .map(|(address, secrets)| v1::WelcomePart { domain: "example.com".to_owned(), address, secrets })
            .collect(),
    }
}

#[track_caller]
pub(crate) fn refused<T>(result: Result<T, Refusal>, code: Code) -> Refusal {
    match result {
        Ok(_) => panic!("not refused, but {code} was expected"),
        Err(refusal) => {
            assert_eq!(refusal.code, code, "{refusal}");
            refusal
        }
    }
}

/// Recomputes a channel's running hash from its entries.
pub(crate) fn chain_of(channel: &ChannelId, entries: &[v1::LoggedEntry]) -> Hash {
    use conclave_channel::chain;
    let mut hash = chain::start(channel);
    for (index, logged) in entries.iter().enumerate() {
        assert_eq!(logged.seq, index as u64 + 1);
        let kind = Entry::parse(&logged.entry).unwrap().kind;
        let entry = chain::entry_hash(&logged.entry);
        hash = chain::next(&hash, Seq(logged.seq), kind, Timestamp(logged.time_ms), &entry);
    }
    hash
}
