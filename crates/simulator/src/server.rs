//! The Delivery Service on a store in memory, reached by signed requests and sessions like any other.

use std::collections::{BTreeMap, BTreeSet};

use conclave_authentication::CertificateAuthority;
use conclave_channel::{access::KeyPath, law::DisputePause, receipt::ReceiptKey};
use conclave_delivery::{
    Config, DeliveryService, FollowedGroup,
    limits::Limits,
    memory::MemoryStore,
    store::{ChannelRow, EntryRow, RangeLimit, Read, Tx},
};
use conclave_engine::{
    account::Account,
    group::{Access, Founding, JoinAccess, KnockPost, SubmissionBody},
    key_packages::{AddressKey, Fresh},
};
use conclave_mls::{credential::Issuers, identity::Identities};
use conclave_names::{ChannelId, Domain, Epoch, Hash, Seq, SessionId, Timestamp};
use conclave_protocol::{Code, Refusal, SigningKey, method, session::SessionKey, signed, v1};
use prost::Message;

mod lies;

use lies::View;

use crate::hostile::Lie;

/// A log with the service that keeps it.
struct Log {
    service: DeliveryService,
    store: MemoryStore,
}

/// A log beside the true one, in which some clients live.
struct Fork {
    log: Log,
    of: BTreeSet<usize>,
}

pub(crate) struct Server {
    pub(crate) domain: Domain,
    pub(crate) authority: CertificateAuthority,
    log: Log,
    pub(crate) now: Timestamp,
    nonce: u128,
    /// Submissions that are still on their way.
    late: Vec<(Timestamp, Submission)>,
    /// Effects after which it dies.
    pub(crate) crash: Option<u64>,
    /// Whether it died in this call.
    gone: bool,
    /// Whom it serves at the moment.
    pub(crate) serving: usize,
    /// Other logs that it keeps of channels.
    forks: BTreeMap<ChannelId, Fork>,
    /// Logs that it makes up of the true one for some clients.
    views: BTreeMap<(usize, ChannelId), View>,
    /// The Welcomes that each inbox had.
    welcomes: BTreeMap<ChannelId, Vec<Vec<u8>>>,
    /// What it says to some clients to be the first entry that it keeps.
    kept: BTreeMap<(usize, ChannelId), Seq>,
    /// Where the log ends that it shows to some clients.
    stalled: BTreeMap<(usize, ChannelId), Seq>,
    /// What it lies about the way back into groups.
    ways_back: BTreeMap<ChannelId, BTreeSet<Lie>>,
    /// The GroupInfos that it was given.
    infos: BTreeMap<ChannelId, Vec<v1::ReadGroupInfoResponse>>,
}

/// An open session.
#[derive(Clone)]
pub(crate) struct Session {
    id: SessionId,
    key: SessionKey,
    counter: u64,
    channel: ChannelId,
    /// Whether it is of a fork.
    fork: bool,
}

/// Who opens a session: a member by its channel key, or the owner of an inbox.
pub(crate) enum Opener {
    Member(Access),
    Owner(ChannelId, SigningKey),
    /// Somebody who comes back, by the epoch's join key.
    Outsider(JoinAccess),
}

/// A submission as it goes over the network.
#[derive(Clone)]
pub(crate) struct Submission {
    bundle: bool,
    request: v1::SessionRequest,
    /// The channel, if it is for a fork of it.
    fork: Option<ChannelId>,
}

/// What the directory has of a client.
pub(crate) struct Stock {
    pub(crate) available: u64,
    pub(crate) needs_last_resort: bool,
}

fn key_path(path: &KeyPath) -> v1::KeyPath {
    let siblings = path.siblings.iter().map(Hash::to_vec).collect();
    v1::KeyPath { index: path.index, leaves: path.leaves, siblings }
}

pub(crate) fn broken(what: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::Internal, format!("the simulation is broken: {what}"))
}

/// The answer of a server that dies: nobody hears it.
fn gone() -> Refusal {
    Refusal::new(Code::Unavailable, "the server died")
}

impl Log {
    /// On a store, with nothing in memory.
    fn start(
        store: MemoryStore,
        domain: &Domain,
        authority: &CertificateAuthority,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let issuers: Issuers = [authority.issuer().clone()].into_iter().collect();
        let config = Config { limits: Limits::none(), ..Config::default() };
        let service = DeliveryService::new(domain.clone(), Identities::new(issuers), config)?;
        let mut log = Self { service, store };
        log.maintain(now)?;
        Ok(log)
    }

    /// Dies and comes back.
    fn restart(&mut self, domain: &Domain, authority: &CertificateAuthority, now: Timestamp) -> Result<(), Refusal> {
        *self = Self::start(std::mem::take(&mut self.store), domain, authority, now)?;
        Ok(())
    }

    /// What the server does by itself now and then, and when it starts.
    fn maintain(&mut self, now: Timestamp) -> Result<(), Refusal> {
        while self.store.write(|tx| self.service.maintain(tx, now))?.reply {}
        while self.store.write(|tx| self.service.deliver_outbox(tx, now))?.outbox {}
        Ok(())
    }
}

impl Server {
    pub(crate) fn new(now: Timestamp) -> Result<Self, Refusal> {
        let domain: Domain = "example.com".parse().map_err(broken)?;
        let authority = CertificateAuthority::generate(&domain, now).map_err(broken)?;
        let log = Log::start(MemoryStore::new(), &domain, &authority, now)?;
        Ok(Self {
            domain,
            authority,
            log,
            now,
            nonce: 0,
            late: Vec::new(),
            crash: None,
            gone: false,
            serving: 0,
            forks: BTreeMap::new(),
            views: BTreeMap::new(),
            welcomes: BTreeMap::new(),
            kept: BTreeMap::new(),
            stalled: BTreeMap::new(),
            ways_back: BTreeMap::new(),
            infos: BTreeMap::new(),
        })
    }

    /// Time passes, and what was late arrives.
    pub(crate) fn pass(&mut self, ms: u64) -> Result<(), Refusal> {
        self.now = self.now.plus_ms(ms);
        self.crash = None;
        self.log.maintain(self.now)?;
        for fork in self.forks.values_mut() {
            fork.log.maintain(self.now)?;
        }
        let (due, late) = std::mem::take(&mut self.late).into_iter().partition(|(due, _)| *due <= self.now);
        self.late = late;
        for (_, submission) in due {
            let _nobody_waits = self.submit(&submission);
        }
        Ok(())
    }

    /// A place between two effects of the server's. If it dies here, it starts anew with what its store has.
    fn moment(&mut self) -> Result<(), Refusal> {
        match self.crash {
            None => return Ok(()),
            Some(0) => self.crash = None,
            Some(left) => {
                self.crash = Some(left - 1);
                return Ok(());
            }
        }
        self.gone = true;
        self.log.restart(&self.domain, &self.authority, self.now)?;
        for fork in self.forks.values_mut() {
            fork.log.restart(&self.domain, &self.authority, self.now)?;
        }
        Err(gone())
    }

    /// Whether it died in the call that was made last.
    pub(crate) fn was_gone(&mut self) -> bool {
        std::mem::take(&mut self.gone)
    }

    fn log_of(&mut self, fork: Option<ChannelId>) -> &mut Log {
        match fork.and_then(|channel| self.forks.get_mut(&channel)) {
            Some(fork) => &mut fork.log,
            None => &mut self.log,
        }
    }

    /// One transaction that writes. Before and after it, the server may die.
    fn write<R>(
        &mut self,
        fork: Option<ChannelId>,
        call: impl FnOnce(&DeliveryService, &mut dyn Tx, Timestamp) -> Result<R, Refusal>,
    ) -> Result<R, Refusal> {
        self.moment()?;
        let now = self.now;
        let log = self.log_of(fork);
        let done = log.store.write(|tx| call(&log.service, tx, now))?;
        self.moment()?;
        Ok(done)
    }

    fn read<R>(
        &mut self,
        fork: Option<ChannelId>,
        call: impl FnOnce(&DeliveryService, &mut dyn Read, Timestamp) -> Result<R, Refusal>,
    ) -> Result<R, Refusal> {
        self.moment()?;
        let now = self.now;
        let log = self.log_of(fork);
        log.store.read(|read| call(&log.service, read, now))
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
        let info = self.read(None, |service, read, now| service.get_server_info(read, now))?;
        Ok(AddressKey { id: info.address_key_id.as_slice().try_into().map_err(broken)?, public: info.address_key })
    }

    pub(crate) fn receipt_key(&mut self) -> Result<ReceiptKey, Refusal> {
        let info = self.read(None, |service, read, now| service.get_server_info(read, now))?;
        Ok(ReceiptKey(info.receipt_key.as_slice().try_into().map_err(broken)?))
    }

    pub(crate) fn create_channel(
        &mut self,
        skew: i64,
        access: &Access,
        root: &Hash,
        group_info: Vec<u8>,
        pause: DisputePause,
    ) -> Result<(), Refusal> {
        let message = v1::CreateChannelRequest {
            channel: access.channel.to_vec(),
            key_root: root.to_vec(),
            group_info,
            dispute_ms: pause.ms(),
            ..v1::CreateChannelRequest::default()
        };
        let request = self.sign(skew, &access.key, &[], method::CREATE_CHANNEL, &message);
        self.write(None, |service, tx, now| service.create_channel(tx, &request, now)).map(drop)
    }

    /// Makes the channel of a group that goes on in it.
    pub(crate) fn found(&mut self, skew: i64, founding: &Founding) -> Result<(), Refusal> {
        let message = v1::CreateChannelRequest {
            channel: founding.channel.to_vec(),
            key_root: founding.key_root.to_vec(),
            group_info: founding.group_info.clone(),
            epoch: founding.epoch.0,
            path: Some(key_path(&founding.path)),
            dispute_ms: founding.dispute_pause.ms(),
        };
        let request = self.sign(skew, &founding.key, &[], method::CREATE_CHANNEL, &message);
        self.write(None, |service, tx, now| service.create_channel(tx, &request, now)).map(drop)
    }

    /// What the service knows of a group, if it reads its handshakes.
    pub(crate) fn followed(&mut self, channel: &ChannelId) -> Result<Option<FollowedGroup>, Refusal> {
        self.read(None, |service, read, _| service.followed_group(read, channel))
    }

    /// Certifies the signature key of an account, as the Authentication Service would.
    pub(crate) fn certify(&mut self, account: &Account) -> Result<Vec<u8>, Refusal> {
        let public = account.signature_key.verifying_key().to_bytes();
        let (from, until) = (Timestamp(self.now.0.saturating_sub(3_600_000)), account.binding.not_after_secs);
        let mut serial = [0; 16];
        serial.iter_mut().zip(public).for_each(|(to, from)| *to = from);
        let issued =
            self.authority.issue(&account.client, &public, &account.binding, from, Timestamp::from_secs(until), serial);
        issued.map_err(broken)
    }

    pub(crate) fn create_inbox(&mut self, skew: i64, account: &Account) -> Result<(), Refusal> {
        let inbox = &account.inbox;
        let message = v1::CreateInboxRequest { inbox: inbox.id.to_vec(), drop_key: inbox.drop_key.to_vec() };
        let request = self.sign(skew, &inbox.key, &[], method::CREATE_INBOX, &message);
        self.write(None, |service, tx, now| service.create_inbox(tx, &request, now)).map(drop)
    }

    pub(crate) fn stock(&mut self, skew: i64, account: &Account) -> Result<Stock, Refusal> {
        let request =
            self.sign(skew, &account.signature_key, &account.certificate, method::COUNT, &v1::CountRequest {});
        let suites = self.write(None, |service, tx, now| service.count(tx, &request, now))?.reply.suites;
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
        self.write(None, |service, tx, now| service.upload(tx, &request, now)).map(drop)
    }

    pub(crate) fn claim(
        &mut self,
        skew: i64,
        account: &Account,
        target: &str,
    ) -> Result<Vec<v1::ClaimedKeyPackage>, Refusal> {
        let message = v1::ClaimRequest {
            target: target.to_owned(),
            cipher_suites: vec![1],
            idempotency_key: (self.nonce + 1).to_be_bytes().to_vec(),
            ..v1::ClaimRequest::default()
        };
        let request = self.sign(skew, &account.signature_key, &account.certificate, method::CLAIM, &message);
        let done = self.write(None, |service, tx, now| service.claim(tx, &request, now))?;
        Ok(done.reply.key_packages)
    }

    pub(crate) fn open(&mut self, skew: i64, opener: &Opener) -> Result<Session, Refusal> {
        let (message, key) = match opener {
            Opener::Member(access) => {
                let path = key_path(&access.path);
                let channel = access.channel.to_vec();
                (v1::OpenSessionRequest { channel, epoch: access.epoch.0, path: Some(path) }, &access.key)
            }
            Opener::Outsider(join) => {
                let channel = join.channel.to_vec();
                (v1::OpenSessionRequest { channel, epoch: join.epoch.0, path: None }, &join.key)
            }
            Opener::Owner(inbox, key) => {
                (v1::OpenSessionRequest { channel: inbox.to_vec(), epoch: 0, path: None }, key)
            }
        };
        let channel = match opener {
            Opener::Member(access) => access.channel,
            Opener::Outsider(join) => join.channel,
            Opener::Owner(inbox, _) => *inbox,
        };
        if matches!(opener, Opener::Outsider(_)) && self.tells(&channel, Lie::NoJoin) {
            return Err(Refusal::new(Code::AccessRefused, "nobody comes from outside"));
        }
        let fork = self.forks.get(&channel).filter(|fork| fork.of.contains(&self.serving)).map(|_| channel);
        let request = self.sign(skew, key, &[], method::OPEN_SESSION, &message);
        let reply = self.write(fork, |service, tx, now| service.open_session(tx, &request, now))?.reply;
        Ok(Session {
            id: reply.session.as_slice().try_into().map_err(broken)?,
            key: SessionKey::from_slice(&reply.mac_key)?,
            counter: 0,
            channel,
            fork: fork.is_some(),
        })
    }

    pub(crate) fn fetch(
        &mut self,
        session: &mut Session,
        after: Seq,
        limit: u32,
    ) -> Result<Vec<v1::LoggedEntry>, Refusal> {
        if let Some(oldest) = self.kept.get(&(self.serving, session.channel)).filter(|oldest| after.next() < **oldest) {
            let refusal = Refusal::new(Code::PositionGone, "what comes after that place is no longer kept");
            return Err(refusal.with("oldest", oldest.0.to_string()));
        }
        let mut page = self.shown(session, after, limit)?;
        if let Some(end) = self.stalled.get(&(self.serving, session.channel)) {
            page.retain(|entry| entry.seq <= end.0);
        }
        Ok(page)
    }

    /// Of the log that the client is to see.
    fn shown(&mut self, session: &mut Session, after: Seq, limit: u32) -> Result<Vec<v1::LoggedEntry>, Refusal> {
        let Some(mut view) = self.views.remove(&(self.serving, session.channel)) else {
            return self.fetch_truth(session, after, limit);
        };
        let page = self.fetch_truth(session, view.next_true(), limit);
        let shown = page.map(|page| {
            for entry in page {
                view.take(entry);
            }
            view.page(after, limit)
        });
        self.views.insert((self.serving, session.channel), view);
        shown
    }

    fn fetch_truth(&mut self, session: &mut Session, after: Seq, limit: u32) -> Result<Vec<v1::LoggedEntry>, Refusal> {
        let request = session.request(method::FETCH, &v1::FetchRequest { after: after.0, limit });
        Ok(self.read(session.fork_of(), |service, read, now| service.fetch(read, &request, now))?.entries)
    }

    pub(crate) fn trim(&mut self, session: &mut Session, up_to: Seq) -> Result<(), Refusal> {
        let request = session.request(method::TRIM, &v1::TrimRequest { up_to: up_to.0 });
        self.write(session.fork_of(), |service, tx, now| service.trim(tx, &request, now)).map(drop)
    }

    pub(crate) fn submit(&mut self, submission: &Submission) -> Result<v1::SubmitResponse, Refusal> {
        self.submit_signed(submission, |_| {})
    }

    /// Takes a submission, and signs what was made of the answer.
    pub(crate) fn submit_signed(
        &mut self,
        submission: &Submission,
        lie: impl FnOnce(&mut v1::SubmitResponse),
    ) -> Result<v1::SubmitResponse, Refusal> {
        let (request, fork) = (&submission.request, submission.fork);
        let mut done = if submission.bundle {
            self.write(fork, |service, tx, now| service.submit_bundle(tx, request, now))?
        } else {
            self.write(fork, |service, tx, now| service.submit(tx, request, now))?
        };
        if done.outbox {
            self.write(fork, |service, tx, now| service.deliver_outbox(tx, now))?;
        }
        lie(&mut done.reply);
        self.log_of(fork).service.sign_receipt(&mut done);
        Ok(done.reply)
    }

    pub(crate) fn group_info(&mut self, session: &mut Session) -> Result<v1::ReadGroupInfoResponse, Refusal> {
        let request = session.request(method::READ_GROUP_INFO, &v1::ReadGroupInfoRequest {});
        let info = self.read(session.fork_of(), |service, read, now| service.read_group_info(read, &request, now))?;
        Ok(self.make_up(&session.channel, info))
    }

    /// Posts a knock. Nothing but the delivery address in it admits it: the signer is nobody.
    pub(crate) fn knock(&mut self, skew: i64, post: KnockPost) -> Result<(), Refusal> {
        let KnockPost { domain, address, knock } = post;
        let idempotency_key = (self.nonce + 1).to_be_bytes().to_vec();
        let message = v1::KnockRequest { idempotency_key, domain, address, knock };
        let nobody = SigningKey::from_bytes(&[0x4E; 32]);
        let request = self.sign(skew, &nobody, &[], method::KNOCK, &message);
        self.write(None, |service, tx, now| service.knock(tx, &request, now)).map(drop)
    }

    /// The tree of a visible group.
    pub(crate) fn whole_tree(&mut self, session: &mut Session, epoch: Epoch) -> Result<Vec<u8>, Refusal> {
        let mut tree = Vec::new();
        loop {
            let message = v1::ReadTreeRequest { epoch: epoch.0, offset: tree.len() as u64 };
            let request = session.request(method::READ_TREE, &message);
            let part = self.read(session.fork_of(), |service, read, now| service.read_tree(read, &request, now))?;
            tree.extend_from_slice(&part.data);
            if part.data.is_empty() || tree.len() as u64 >= part.size {
                return Ok(tree);
            }
        }
    }

    pub(crate) fn stage(&mut self, session: &mut Session, blob: &[u8]) -> Result<(), Refusal> {
        let hash = conclave_channel::chain::entry_hash(blob).to_vec();
        let size = blob.len() as u64;
        let mut offset = 0;
        for part in blob.chunks(conclave_names::limits::BLOB_CHUNK) {
            let message = v1::StageBlobRequest { hash: hash.clone(), size, offset, data: part.to_vec() };
            let request = session.request(method::STAGE_BLOB, &message);
            self.write(session.fork_of(), |service, tx, now| service.stage_blob(tx, &request, now))?;
            offset += part.len() as u64;
        }
        Ok(())
    }

    pub(crate) fn blob(&mut self, hash: &Hash) -> Result<Vec<u8>, Refusal> {
        let serving = self.serving;
        let forks = self.forks.iter().filter(|(_, fork)| fork.of.contains(&serving)).map(|(channel, _)| Some(*channel));
        let mut found = Err(broken("no log"));
        for fork in forks.chain([None]).collect::<Vec<_>>() {
            found = self.blob_of(fork, hash);
            if found.is_ok() {
                break;
            }
        }
        found
    }

    fn blob_of(&mut self, fork: Option<ChannelId>, hash: &Hash) -> Result<Vec<u8>, Refusal> {
        let mut bytes = Vec::new();
        loop {
            let request = v1::ReadBlobRequest { hash: hash.to_vec(), offset: bytes.len() as u64 };
            let part = self.read(fork, |service, read, _| service.read_blob(read, &request))?;
            bytes.extend_from_slice(&part.data);
            if part.data.is_empty() || bytes.len() as u64 >= part.size {
                return Ok(bytes);
            }
        }
    }

    /// A channel as it is stored, for the checks.
    pub(crate) fn log(&mut self, channel: &ChannelId) -> Result<(ChannelRow, Vec<EntryRow>), Refusal> {
        let all = RangeLimit { entries: u32::MAX, bytes: usize::MAX };
        self.log.store.read(|read| {
            let row = read.channel(channel)?.ok_or_else(|| broken("a group without a channel"))?;
            Ok((row, read.entries(channel, Seq(0), None, all)?))
        })
    }
}

impl Session {
    /// The channel that it is of.
    pub(crate) fn channel(&self) -> ChannelId {
        self.channel
    }

    fn fork_of(&self) -> Option<ChannelId> {
        self.fork.then_some(self.channel)
    }

    fn request(&mut self, method: &str, message: &impl Message) -> v1::SessionRequest {
        self.counter += 1;
        self.key.seal(method, self.id, self.counter, message.encode_to_vec())
    }

    pub(crate) fn submission(&mut self, body: &SubmissionBody) -> Submission {
        let (bundle, request) = match body {
            SubmissionBody::Entry(request) => (false, self.request(method::SUBMIT, request)),
            SubmissionBody::Bundle(request) => (true, self.request(method::SUBMIT_BUNDLE, request.as_ref())),
        };
        Submission { bundle, request, fork: self.fork_of() }
    }
}
