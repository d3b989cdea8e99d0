//! The Delivery Service on a store in memory, reached by signed requests and sessions like any other.

use conclave_authentication::CertificateAuthority;
use conclave_delivery::{Config, DeliveryService, memory::MemoryStore};
use conclave_engine::{account::Account, group::Access, key_packages::AddressKey};
use conclave_mls::{credential::Issuers, identity::Identities};
use conclave_names::{ChannelId, Domain, Hash, SessionId, Timestamp};
use conclave_protocol::{Refusal, SigningKey, method, session::SessionKey, signed, v1};
use prost::Message;

pub(crate) struct Server {
    pub(crate) domain: Domain,
    pub(crate) authority: CertificateAuthority,
    service: DeliveryService,
    store: MemoryStore,
    pub(crate) now: Timestamp,
    nonce: u128,
}

/// An open session.
pub(crate) struct Session {
    id: SessionId,
    key: SessionKey,
    counter: u64,
}

/// Who opens a session: a member by its channel key, or the owner of an inbox.
pub(crate) enum Opener {
    Member(Access),
    Owner(ChannelId, SigningKey),
}

fn broken(what: impl std::fmt::Display) -> Refusal {
    Refusal::new(conclave_protocol::Code::Internal, format!("the simulation is broken: {what}"))
}

impl Server {
    pub(crate) fn new(now: Timestamp) -> Result<Self, Refusal> {
        let domain: Domain = "example.com".parse().map_err(broken)?;
        let authority = CertificateAuthority::generate(&domain, now).map_err(broken)?;
        let issuers: Issuers = [authority.issuer().clone()].into_iter().collect();
        let service = DeliveryService::new(domain.clone(), Identities::new(issuers), Config::default())?;
        let mut server = Self { domain, authority, service, store: MemoryStore::new(), now, nonce: 0 };
        server.store.write(|tx| server.service.maintain(tx, now))?;
        Ok(server)
    }

    fn sign(
        &mut self,
        key: &SigningKey,
        certificate: &[u8],
        method: &str,
        message: &impl Message,
    ) -> v1::SignedRequest {
        self.nonce += 1;
        let nonce = self.nonce.to_be_bytes();
        signed::sign(key, method, &self.domain, self.now, nonce, message.encode_to_vec(), certificate.to_vec())
    }

    pub(crate) fn address_key(&mut self) -> Result<AddressKey, Refusal> {
        let info = self.store.read(|read| self.service.get_server_info(read, self.now))?;
        Ok(AddressKey { id: info.address_key_id.as_slice().try_into().map_err(broken)?, public: info.address_key })
    }

    pub(crate) fn create_channel(&mut self, access: &Access, root: &Hash) -> Result<(), Refusal> {
        let message = v1::CreateChannelRequest { channel: access.channel.to_vec(), key_root: root.to_vec() };
        let request = self.sign(&access.key, &[], method::CREATE_CHANNEL, &message);
        self.store.write(|tx| self.service.create_channel(tx, &request, self.now)).map(drop)
    }

    pub(crate) fn create_inbox(&mut self, account: &Account) -> Result<(), Refusal> {
        let message =
            v1::CreateInboxRequest { inbox: account.inbox.id.to_vec(), drop_key: account.inbox.drop_key.to_vec() };
        let request = self.sign(&account.inbox.key, &[], method::CREATE_INBOX, &message);
        self.store.write(|tx| self.service.create_inbox(tx, &request, self.now)).map(drop)
    }

    pub(crate) fn upload(&mut self, account: &Account, key_packages: Vec<Vec<u8>>) -> Result<(), Refusal> {
        let message = v1::UploadRequest { key_packages, last_resort: Vec::new() };
        let request = self.sign(&account.signature_key, &account.certificate, method::UPLOAD, &message);
        self.store.write(|tx| self.service.upload(tx, &request, self.now)).map(drop)
    }

    pub(crate) fn claim(&mut self, account: &Account, target: &str) -> Result<Vec<Vec<u8>>, Refusal> {
        let message = v1::ClaimRequest {
            target: target.to_owned(),
            cipher_suites: vec![1],
            idempotency_key: (self.nonce + 1).to_be_bytes().to_vec(),
        };
        let request = self.sign(&account.signature_key, &account.certificate, method::CLAIM, &message);
        let done = self.store.write(|tx| self.service.claim(tx, &request, self.now))?;
        Ok(done.reply.key_packages.into_iter().map(|claimed| claimed.key_package).collect())
    }

    pub(crate) fn open(&mut self, opener: &Opener) -> Result<Session, Refusal> {
        let (message, key) = match opener {
            Opener::Member(access) => {
                let path = v1::KeyPath {
                    index: access.path.index,
                    leaves: access.path.leaves,
                    siblings: access.path.siblings.iter().map(Hash::to_vec).collect(),
                };
                let channel = access.channel.to_vec();
                (v1::OpenSessionRequest { channel, epoch: access.epoch.0, path: Some(path) }, access.key.clone())
            }
            Opener::Owner(inbox, key) => {
                (v1::OpenSessionRequest { channel: inbox.to_vec(), epoch: 0, path: None }, key.clone())
            }
        };
        let request = self.sign(&key, &[], method::OPEN_SESSION, &message);
        let reply = self.store.write(|tx| self.service.open_session(tx, &request, self.now))?.reply;
        Ok(Session {
            id: reply.session.as_slice().try_into().map_err(broken)?,
            key: SessionKey::from_slice(&reply.mac_key)?,
            counter: 0,
        })
    }

    pub(crate) fn fetch(&mut self, session: &mut Session, after: u64) -> Result<Vec<v1::LoggedEntry>, Refusal> {
        let request = session.request(method::FETCH, &v1::FetchRequest { after, limit: 0 });
        Ok(self.store.read(|read| self.service.fetch(read, &request, self.now))?.entries)
    }

    pub(crate) fn trim(&mut self, session: &mut Session, up_to: u64) -> Result<(), Refusal> {
        let request = session.request(method::TRIM, &v1::TrimRequest { up_to });
        self.store.write(|tx| self.service.trim(tx, &request, self.now)).map(drop)
    }

    pub(crate) fn submit(&mut self, session: &mut Session, message: &v1::SubmitRequest) -> Result<u64, Refusal> {
        let request = session.request(method::SUBMIT, message);
        Ok(self.store.write(|tx| self.service.submit(tx, &request, self.now))?.reply.seq)
    }

    pub(crate) fn commit(&mut self, session: &mut Session, message: &v1::SubmitBundleRequest) -> Result<u64, Refusal> {
        let request = session.request(method::SUBMIT_BUNDLE, message);
        let seq = self.store.write(|tx| self.service.submit_bundle(tx, &request, self.now))?.reply.seq;
        self.store.write(|tx| self.service.deliver_outbox(tx, self.now))?;
        Ok(seq)
    }

    pub(crate) fn stage(&mut self, session: &mut Session, blob: &[u8]) -> Result<(), Refusal> {
        let hash = conclave_channel::chain::entry_hash(blob).to_vec();
        let size = blob.len() as u64;
        let mut offset = 0;
        for part in blob.chunks(conclave_names::limits::BLOB_CHUNK) {
            let message = v1::StageBlobRequest { hash: hash.clone(), size, offset, data: part.to_vec() };
            let request = session.request(method::STAGE_BLOB, &message);
            self.store.write(|tx| self.service.stage_blob(tx, &request, self.now))?;
            offset += part.len() as u64;
        }
        Ok(())
    }

    pub(crate) fn blob(&mut self, hash: &Hash) -> Result<Vec<u8>, Refusal> {
        let mut bytes = Vec::new();
        loop {
            let request = v1::ReadBlobRequest { hash: hash.to_vec(), offset: bytes.len() as u64 };
            let part = self.store.read(|read| self.service.read_blob(read, &request))?;
            bytes.extend_from_slice(&part.data);
            if part.data.is_empty() || bytes.len() as u64 >= part.size {
                return Ok(bytes);
            }
        }
    }
}

impl Session {
    fn request(&mut self, method: &str, message: &impl Message) -> v1::SessionRequest {
        self.counter += 1;
        self.key.seal(method, self.id, self.counter, message.encode_to_vec())
    }
}
