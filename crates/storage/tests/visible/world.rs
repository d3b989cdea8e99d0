//! A Delivery Service on either store, and the sessions of its callers.

use std::{cell::Cell, sync::Arc};

use conclave_authentication::CertificateAuthority;
use conclave_delivery::{
    Config, DeliveryService, Done, FollowedGroup,
    limits::Limits,
    memory::MemoryStore,
    store::{Read, Tx},
};
use conclave_engine::{group::Access, key_packages::AddressKey};
use conclave_mls::{credential::Issuers, crypto, identity::Identities};
use conclave_names::{ChannelId, Domain, Hash, SessionId, Timestamp};
use conclave_protocol::{Code, Refusal, SigningKey, method, session::SessionKey, signed, v1};
use conclave_storage::{Database, Options};
use mls_rs_core::crypto::CipherSuiteProvider;
use prost::Message;

pub(crate) const NOW: Timestamp = Timestamp(1_750_000_000_000);

pub(crate) fn domain() -> Domain {
    "example.com".parse().unwrap()
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    crypto::suite(crypto::DEFAULT_SUITE).unwrap().random_bytes_vec(N).unwrap().try_into().unwrap()
}

/// A session as its client holds it.
pub(crate) struct Session {
    id: SessionId,
    key: SessionKey,
    counter: Cell<u64>,
}

impl Session {
    pub(crate) fn request(&self, method: &str, message: &impl Message) -> v1::SessionRequest {
        self.counter.set(self.counter.get() + 1);
        self.key.seal(method, self.id, self.counter.get(), message.encode_to_vec())
    }
}

enum Store {
    Memory(Box<MemoryStore>),
    Sqlite { runtime: tokio::runtime::Runtime, database: Database, directory: tempfile::TempDir },
}

pub(crate) struct World {
    pub(crate) service: Arc<DeliveryService>,
    store: Store,
    config: Config,
    pub(crate) ca: CertificateAuthority,
    pub(crate) now: Timestamp,
    nonce: u128,
    /// Whether the last commit was judged ahead of its transaction.
    ahead: bool,
    /// How often the service was started: sessions are of one start.
    pub(crate) starts: usize,
}

fn service(ca: &CertificateAuthority, config: &Config) -> Arc<DeliveryService> {
    let issuers: Issuers = [ca.issuer().clone()].into_iter().collect();
    Arc::new(DeliveryService::new(domain(), Identities::new(issuers), *config).unwrap())
}

/// It was refused so. Gives the refusal.
#[track_caller]
pub(crate) fn refused<T>(result: Result<T, Refusal>, code: Code) -> Refusal {
    let refusal = result.err().expect("it should be refused");
    assert_eq!(refusal.code, code, "{refusal}");
    refusal
}

/// It was refused as a handshake, for this reason.
#[track_caller]
pub(crate) fn not_ordered<T>(result: Result<T, Refusal>, reason: &str) -> Refusal {
    let refusal = refused(result, Code::HandshakeRefused);
    assert_eq!(refusal.metadata.get("reason").map(String::as_str), Some(reason), "{refusal}");
    refusal
}

/// Runs a test on either store.
pub(crate) fn on_both(test: impl Fn(World)) {
    test(World::memory());
    test(World::sqlite());
}

impl World {
    fn new(store: Store) -> Self {
        let ca = CertificateAuthority::generate(&domain(), NOW).unwrap();
        let config = Config { limits: Limits::none(), ..Config::default() };
        let service = service(&ca, &config);
        let mut world = Self { service, store, config, ca, now: NOW, nonce: 0, ahead: false, starts: 0 };
        world.write(|service, tx, now| service.maintain(tx, now)).unwrap();
        world
    }

    pub(crate) fn memory() -> Self {
        Self::new(Store::Memory(Box::new(MemoryStore::new())))
    }

    pub(crate) fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let database = Database::open(directory.path(), Options::default()).unwrap();
        Self::new(Store::Sqlite { runtime, database, directory })
    }

    /// Stops the service and starts it again, with so much memory for followed groups: what was only in memory is gone.
    pub(crate) fn restart_with(&mut self, followed_bytes: usize) {
        self.config.followed_bytes = followed_bytes;
        self.starts += 1;
        self.service = service(&self.ca, &self.config);
        if let Store::Sqlite { runtime, database, directory } = &mut self.store {
            runtime.block_on(database.close());
            *database = Database::open(directory.path(), Options::default()).unwrap();
        }
        self.write(|service, tx, now| service.maintain(tx, now)).unwrap();
    }

    pub(crate) fn restart(&mut self) {
        self.restart_with(Config::default().followed_bytes);
    }

    /// Runs a transaction.
    pub(crate) fn write<T: Send + 'static>(
        &mut self,
        call: impl FnOnce(&DeliveryService, &mut dyn Tx, Timestamp) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.now = self.now.plus_ms(10);
        let (service, now) = (Arc::clone(&self.service), self.now);
        match &mut self.store {
            Store::Memory(store) => store.write(|tx| call(&service, tx, now)),
            Store::Sqlite { runtime, database, .. } => {
                runtime.block_on(database.delivery().write(move |tx| call(&service, tx, now)))
            }
        }
    }

    /// Runs a transaction that only reads.
    pub(crate) fn read<T: Send + 'static>(
        &mut self,
        call: impl FnOnce(&DeliveryService, &mut dyn Read, Timestamp) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let (service, now) = (Arc::clone(&self.service), self.now);
        match &mut self.store {
            Store::Memory(store) => store.read(|read| call(&service, read, now)),
            Store::Sqlite { runtime, database, .. } => {
                runtime.block_on(database.delivery().read(move |read| call(&service, read, now)))
            }
        }
    }

    pub(crate) fn sign(&mut self, key: &SigningKey, method: &str, message: &impl Message) -> v1::SignedRequest {
        self.nonce += 1;
        signed::sign(key, method, &domain(), self.now, self.nonce.to_be_bytes(), message.encode_to_vec(), Vec::new())
    }

    pub(crate) fn address_key(&mut self) -> AddressKey {
        let info = self.read(|service, read, now| service.get_server_info(read, now)).unwrap();
        AddressKey { id: info.address_key_id.as_slice().try_into().unwrap(), public: info.address_key }
    }

    pub(crate) fn create_channel(
        &mut self,
        key: &SigningKey,
        message: &v1::CreateChannelRequest,
    ) -> Result<(), Refusal> {
        let request = self.sign(key, method::CREATE_CHANNEL, message);
        self.write(move |service, tx, now| service.create_channel(tx, &request, now)).map(drop)
    }

    fn open_session(&mut self, key: &SigningKey, message: &v1::OpenSessionRequest) -> Result<Session, Refusal> {
        let request = self.sign(key, method::OPEN_SESSION, message);
        let reply = self.write(move |service, tx, now| service.open_session(tx, &request, now))?.reply;
        Ok(Session {
            id: reply.session.as_slice().try_into().unwrap(),
            key: SessionKey::from_slice(&reply.mac_key).unwrap(),
            counter: Cell::new(0),
        })
    }

    pub(crate) fn open(&mut self, access: &Access) -> Result<Session, Refusal> {
        let path = v1::KeyPath {
            index: access.path.index,
            leaves: access.path.leaves,
            siblings: access.path.siblings.iter().map(Hash::to_vec).collect(),
        };
        let (channel, epoch) = (access.channel.to_vec(), access.epoch.0);
        self.open_session(&access.key, &v1::OpenSessionRequest { channel, epoch, path: Some(path) })
    }

    /// Makes an inbox.
    pub(crate) fn create_inbox(&mut self, inbox: ChannelId, key: &SigningKey, drop_key: [u8; 32]) {
        let message = v1::CreateInboxRequest { inbox: inbox.to_vec(), drop_key: drop_key.to_vec() };
        let request = self.sign(key, method::CREATE_INBOX, &message);
        self.write(move |service, tx, now| service.create_inbox(tx, &request, now)).unwrap();
    }

    /// The entries of an inbox, newest first.
    pub(crate) fn inbox(&mut self, inbox: ChannelId, key: &SigningKey) -> Vec<Vec<u8>> {
        let message = v1::OpenSessionRequest { channel: inbox.to_vec(), epoch: 0, path: None };
        let session = self.open_session(key, &message).unwrap();
        self.fetch(&session, 0).unwrap().into_iter().rev().map(|entry| entry.entry).collect()
    }

    pub(crate) fn fetch(&mut self, session: &Session, after: u64) -> Result<Vec<v1::LoggedEntry>, Refusal> {
        let request = session.request(method::FETCH, &v1::FetchRequest { after, limit: 0 });
        Ok(self.read(move |service, read, now| service.fetch(read, &request, now))?.entries)
    }

    pub(crate) fn stage(&mut self, session: &Session, blob: &[u8]) {
        let message = v1::StageBlobRequest {
            hash: conclave_channel::chain::entry_hash(blob).to_vec(),
            size: blob.len() as u64,
            offset: 0,
            data: blob.to_vec(),
        };
        let request = session.request(method::STAGE_BLOB, &message);
        self.write(move |service, tx, now| service.stage_blob(tx, &request, now)).unwrap();
    }

    pub(crate) fn blob(&mut self, hash: &Hash) -> Result<Vec<u8>, Refusal> {
        let mut blob = Vec::new();
        loop {
            let request = v1::ReadBlobRequest { hash: hash.to_vec(), offset: blob.len() as u64 };
            let part = self.read(move |service, read, _| service.read_blob(read, &request))?;
            blob.extend_from_slice(&part.data);
            if blob.len() as u64 == part.size {
                return Ok(blob);
            }
        }
    }

    pub(crate) fn submit(
        &mut self,
        session: &Session,
        message: &v1::SubmitRequest,
    ) -> Result<v1::SubmitResponse, Refusal> {
        let request = session.request(method::SUBMIT, message);
        Ok(self.write(move |service, tx, now| service.submit(tx, &request, now))?.reply)
    }

    pub(crate) fn submit_bundle(
        &mut self,
        session: &Session,
        message: &v1::SubmitBundleRequest,
    ) -> Result<v1::SubmitResponse, Refusal> {
        let request = session.request(method::SUBMIT_BUNDLE, message);
        // As a server does it, and as it is without that.
        self.ahead = !self.ahead;
        let done: Done<_> = if self.ahead {
            let request = self.read(move |service, read, now| {
                let mut request = service.authenticate(request, method::SUBMIT_BUNDLE, now)?;
                service.open_addresses(read, &mut request, now)?;
                service.judge_commit(read, &mut request, now)?;
                Ok(request)
            })?;
            self.write(move |service, tx, now| service.submit_bundle(tx, &request, now))?
        } else {
            self.write(move |service, tx, now| service.submit_bundle(tx, &request, now))?
        };
        if done.outbox {
            self.write(|service, tx, now| service.deliver_outbox(tx, now)).unwrap();
        }
        Ok(done.reply)
    }

    /// Submits a bundle in a transaction that is undone after all went well.
    pub(crate) fn submit_bundle_in_vain(&mut self, session: &Session, message: &v1::SubmitBundleRequest) {
        let request = session.request(method::SUBMIT_BUNDLE, message);
        let undone = self.write(move |service, tx, now| -> Result<(), Refusal> {
            service.submit_bundle(tx, &request, now).unwrap();
            Err(Refusal::new(Code::Unavailable, "the disk is gone"))
        });
        assert_eq!(undone.unwrap_err().code, Code::Unavailable);
    }

    /// The same with a proposal.
    pub(crate) fn submit_in_vain(&mut self, session: &Session, message: &v1::SubmitRequest) {
        let request = session.request(method::SUBMIT, message);
        let undone = self.write(move |service, tx, now| -> Result<(), Refusal> {
            service.submit(tx, &request, now).unwrap();
            Err(Refusal::new(Code::Unavailable, "the disk is gone"))
        });
        assert_eq!(undone.unwrap_err().code, Code::Unavailable);
    }

    pub(crate) fn followed(&mut self, channel: ChannelId) -> Option<FollowedGroup> {
        self.read(move |service, read, _| service.followed_group(read, &channel)).unwrap()
    }

    pub(crate) fn group_info(&mut self, session: &Session) -> Result<v1::ReadGroupInfoResponse, Refusal> {
        let request = session.request(method::READ_GROUP_INFO, &v1::ReadGroupInfoRequest {});
        self.read(move |service, read, now| service.read_group_info(read, &request, now))
    }

    /// The whole tree of an epoch.
    pub(crate) fn tree(&mut self, session: &Session, epoch: u64) -> Result<Vec<u8>, Refusal> {
        let mut tree = Vec::new();
        loop {
            let message = v1::ReadTreeRequest { epoch, offset: tree.len() as u64 };
            let request = session.request(method::READ_TREE, &message);
            let part = self.read(move |service, read, now| service.read_tree(read, &request, now))?;
            tree.extend_from_slice(&part.data);
            if tree.len() as u64 == part.size {
                return Ok(tree);
            }
        }
    }

    /// How many checkpoints and handshakes the store holds of a group.
    pub(crate) fn rows(&mut self, channel: ChannelId) -> (usize, usize) {
        self.read(move |_, read, _| {
            let oldest = read.checkpoints(&channel)?.first().map(|(_, seq)| *seq);
            let handshakes = read.followed(&channel, conclave_names::Seq(0))?.len();
            assert!(oldest.is_some());
            Ok((read.checkpoints(&channel)?.len(), handshakes))
        })
        .unwrap()
    }
}
