//! The Delivery Service on a store in memory, reached by signed requests and sessions like any other.

use conclave_authentication::CertificateAuthority;
use conclave_channel::receipt::ReceiptKey;
use conclave_delivery::{
    Config, DeliveryService, FollowedGroup,
    limits::Limits,
    memory::MemoryStore,
    store::{ChannelRow, EntryRow, RangeLimit},
};
use conclave_engine::{
    account::Account,
    group::{Access, SubmissionBody},
    key_packages::{AddressKey, Fresh},
};
use conclave_mls::{credential::Issuers, identity::Identities};
use conclave_names::{ChannelId, Domain, Hash, Seq, SessionId, Timestamp};
use conclave_protocol::{Code, Refusal, SigningKey, method, session::SessionKey, signed, v1};
use prost::Message;

pub(crate) struct Server {
    pub(crate) domain: Domain,
    pub(crate) authority: CertificateAuthority,
    service: DeliveryService,
    store: MemoryStore,
    pub(crate) now: Timestamp,
    nonce: u128,
    /// Submissions that are still on their way.
    late: Vec<(Timestamp, Submission)>,
}

/// An open session.
#[derive(Clone)]
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

/// A submission as it goes over the network.
#[derive(Clone)]
pub(crate) struct Submission {
    bundle: bool,
    request: v1::SessionRequest,
}

/// What the directory has of a client.
pub(crate) struct Stock {
    pub(crate) available: u64,
    pub(crate) needs_last_resort: bool,
}

pub(crate) fn broken(what: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::Internal, format!("the simulation is broken: {what}"))
}

impl Server {
    pub(crate) fn new(now: Timestamp) -> Result<Self, Refusal> {
        let domain: Domain = "example.com".parse().map_err(broken)?;
        let authority = CertificateAuthority::generate(&domain, now).map_err(broken)?;
        let issuers: Issuers = [authority.issuer().clone()].into_iter().collect();
        let service = DeliveryService::new(
            domain.clone(),
            Identities::new(issuers),
            Config { limits: Limits::none(), ..Config::default() },
        )?;
        let mut server =
            Self { domain, authority, service, store: MemoryStore::new(), now, nonce: 0, late: Vec::new() };
        server.store.write(|tx| server.service.maintain(tx, now))?;
        Ok(server)
    }

    /// Time passes, and what was late arrives.
    pub(crate) fn pass(&mut self, ms: u64) -> Result<(), Refusal> {
        self.now = self.now.plus_ms(ms);
        self.store.write(|tx| self.service.maintain(tx, self.now))?;
        let (due, late) = std::mem::take(&mut self.late).into_iter().partition(|(due, _)| *due <= self.now);
        self.late = late;
        for (_, submission) in due {
            let _nobody_waits = self.submit(&submission);
        }
        Ok(())
    }

    /// Has a submission arrive later.
    pub(crate) fn delay(&mut self, submission: Submission) {
        // Spread by how many are on their way: over one step or several.
        let ms = 1_000 + 7_000 * (self.late.len() as u64);
        self.late.push((self.now.plus_ms(ms), submission));
    }

    fn sign(
        &mut self,
        skew: i64,
        key: &SigningKey,
        certificate: &[u8],
        method: &str,
        message: &impl Message,
    ) -> v1::SignedRequest {
        self.nonce += 1;
        let time = Timestamp(self.now.0.saturating_add_signed(skew));
        let nonce = self.nonce.to_be_bytes();
        signed::sign(key, method, &self.domain, time, nonce, message.encode_to_vec(), certificate.to_vec())
    }

    pub(crate) fn address_key(&mut self) -> Result<AddressKey, Refusal> {
        let info = self.store.read(|read| self.service.get_server_info(read, self.now))?;
        Ok(AddressKey { id: info.address_key_id.as_slice().try_into().map_err(broken)?, public: info.address_key })
    }

    pub(crate) fn receipt_key(&mut self) -> Result<ReceiptKey, Refusal> {
        let info = self.store.read(|read| self.service.get_server_info(read, self.now))?;
        Ok(ReceiptKey(info.receipt_key.as_slice().try_into().map_err(broken)?))
    }

    pub(crate) fn create_channel(
        &mut self,
        skew: i64,
        access: &Access,
        root: &Hash,
        group_info: Vec<u8>,
    ) -> Result<(), Refusal> {
        let message = v1::CreateChannelRequest {
            channel: access.channel.to_vec(),
            key_root: root.to_vec(),
            group_info,
            ..v1::CreateChannelRequest::default()
        };
        let request = self.sign(skew, &access.key, &[], method::CREATE_CHANNEL, &message);
        self.store.write(|tx| self.service.create_channel(tx, &request, self.now)).map(drop)
    }

    /// What the service knows of a group, if it reads its handshakes.
    pub(crate) fn followed(&mut self, channel: &ChannelId) -> Result<Option<FollowedGroup>, Refusal> {
        self.store.read(|read| self.service.followed_group(read, channel))
    }

    pub(crate) fn create_inbox(&mut self, skew: i64, account: &Account) -> Result<(), Refusal> {
        let inbox = &account.inbox;
        let message = v1::CreateInboxRequest { inbox: inbox.id.to_vec(), drop_key: inbox.drop_key.to_vec() };
        let request = self.sign(skew, &inbox.key, &[], method::CREATE_INBOX, &message);
        self.store.write(|tx| self.service.create_inbox(tx, &request, self.now)).map(drop)
    }

    pub(crate) fn stock(&mut self, skew: i64, account: &Account) -> Result<Stock, Refusal> {
        let request =
            self.sign(skew, &account.signature_key, &account.certificate, method::COUNT, &v1::CountRequest {});
        let suites = self.store.write(|tx| self.service.count(tx, &request, self.now))?.reply.suites;
        let suite = suites.first();
        Ok(Stock {
            available: suite.map_or(0, |suite| suite.available),
            needs_last_resort: suite.is_none_or(|suite| !suite.last_resort || suite.last_resort_used),
        })
    }

    pub(crate) fn upload(&mut self, skew: i64, account: &Account, fresh: Fresh) -> Result<(), Refusal> {
        let last_resort = fresh.last_resort.unwrap_or_default();
        let message = v1::UploadRequest { key_packages: fresh.key_packages, last_resort };
        let request = self.sign(skew, &account.signature_key, &account.certificate, method::UPLOAD, &message);
        self.store.write(|tx| self.service.upload(tx, &request, self.now)).map(drop)
    }

    pub(crate) fn claim(&mut self, skew: i64, account: &Account, target: &str) -> Result<Vec<Vec<u8>>, Refusal> {
        let message = v1::ClaimRequest {
            target: target.to_owned(),
            cipher_suites: vec![1],
            idempotency_key: (self.nonce + 1).to_be_bytes().to_vec(),
            ..v1::ClaimRequest::default()
        };
        let request = self.sign(skew, &account.signature_key, &account.certificate, method::CLAIM, &message);
        let done = self.store.write(|tx| self.service.claim(tx, &request, self.now))?;
        Ok(done.reply.key_packages.into_iter().map(|claimed| claimed.key_package).collect())
    }

    pub(crate) fn open(&mut self, skew: i64, opener: &Opener) -> Result<Session, Refusal> {
        let (message, key) = match opener {
            Opener::Member(access) => {
                let path = v1::KeyPath {
                    index: access.path.index,
                    leaves: access.path.leaves,
                    siblings: access.path.siblings.iter().map(Hash::to_vec).collect(),
                };
                let channel = access.channel.to_vec();
                (v1::OpenSessionRequest { channel, epoch: access.epoch.0, path: Some(path) }, &access.key)
            }
            Opener::Owner(inbox, key) => {
                (v1::OpenSessionRequest { channel: inbox.to_vec(), epoch: 0, path: None }, key)
            }
        };
        let request = self.sign(skew, key, &[], method::OPEN_SESSION, &message);
        let reply = self.store.write(|tx| self.service.open_session(tx, &request, self.now))?.reply;
        Ok(Session {
            id: reply.session.as_slice().try_into().map_err(broken)?,
            key: SessionKey::from_slice(&reply.mac_key)?,
            counter: 0,
        })
    }

    pub(crate) fn fetch(
        &mut self,
        session: &mut Session,
        after: Seq,
        limit: u32,
    ) -> Result<Vec<v1::LoggedEntry>, Refusal> {
        let request = session.request(method::FETCH, &v1::FetchRequest { after: after.0, limit });
        Ok(self.store.read(|read| self.service.fetch(read, &request, self.now))?.entries)
    }

    pub(crate) fn trim(&mut self, session: &mut Session, up_to: Seq) -> Result<(), Refusal> {
        let request = session.request(method::TRIM, &v1::TrimRequest { up_to: up_to.0 });
        self.store.write(|tx| self.service.trim(tx, &request, self.now)).map(drop)
    }

    pub(crate) fn submit(&mut self, submission: &Submission) -> Result<v1::SubmitResponse, Refusal> {
        let request = &submission.request;
        let mut done = if submission.bundle {
            self.store.write(|tx| self.service.submit_bundle(tx, request, self.now))?
        } else {
            self.store.write(|tx| self.service.submit(tx, request, self.now))?
        };
        if done.outbox {
            self.store.write(|tx| self.service.deliver_outbox(tx, self.now))?;
        }
        self.service.sign_receipt(&mut done);
        Ok(done.reply)
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

    /// A channel as it is stored, for the checks.
    pub(crate) fn log(&mut self, channel: &ChannelId) -> Result<(ChannelRow, Vec<EntryRow>), Refusal> {
        let all = RangeLimit { entries: u32::MAX, bytes: usize::MAX };
        self.store.read(|read| {
            let row = read.channel(channel)?.ok_or_else(|| broken("a group without a channel"))?;
            Ok((row, read.entries(channel, Seq(0), None, all)?))
        })
    }
}

impl Session {
    fn request(&mut self, method: &str, message: &impl Message) -> v1::SessionRequest {
        self.counter += 1;
        self.key.seal(method, self.id, self.counter, message.encode_to_vec())
    }

    pub(crate) fn submission(&mut self, body: &SubmissionBody) -> Submission {
        match body {
            SubmissionBody::Entry(request) => {
                Submission { bundle: false, request: self.request(method::SUBMIT, request) }
            }
            SubmissionBody::Bundle(request) => {
                Submission { bundle: true, request: self.request(method::SUBMIT_BUNDLE, request.as_ref()) }
            }
        }
    }
}
