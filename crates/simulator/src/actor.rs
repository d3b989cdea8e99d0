//! A client: the engine, rows that survive a crash, and the steps of its shell.

use std::{collections::BTreeMap, convert::Infallible};

use conclave_channel::{Body, Entry};
use conclave_engine::{
    Mls,
    account::{Account, Inbox},
    group::{Group, Incoming, NewGroup, Status, SubmissionBody},
    intent::Wish,
    invitation::{Invitation, load_key_packages},
    key_packages,
    outcome::Event,
    writes::{Room, Rows, StoredMessage, Write},
};
use conclave_mls::{credential::IdentityBinding, crypto};
use conclave_names::{ChannelId, GroupUri, Seq, Timestamp, UserUri};
use conclave_protocol::{Refusal, Retry, SigningKey, v1};
use zeroize::Zeroizing;

use crate::{
    run::Sabotage,
    server::{Opener, Server},
};

/// Randomness for keys, which are of no concern to the schedule.
fn random<const N: usize>() -> [u8; N] {
    rand::random()
}

/// What goes wrong with one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The request never arrives.
    LostRequest,
    /// The service acts, but the reply is lost.
    LostReply,
    /// The client dies after storing what it will send.
    CrashBefore,
    /// The client dies after sending.
    CrashAfter,
}

#[derive(Default)]
struct Disk {
    rows: BTreeMap<(Room, Vec<u8>), Vec<u8>>,
    messages: BTreeMap<(u64, [u8; 32]), StoredMessage>,
}

impl Disk {
    fn apply(&mut self, writes: Vec<Write>) {
        for write in writes {
            match write {
                Write::Put { room, key, value } => {
                    self.rows.insert((room, key), value.to_vec());
                }
                Write::Delete { room, key } => {
                    self.rows.remove(&(room, key));
                }
                Write::Message(message) => {
                    self.messages.insert((message.seq, message.id), message);
                }
            }
        }
    }
}

impl Rows for Disk {
    type Error = Infallible;

    fn get(&self, room: Room, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, Infallible> {
        Ok(self.rows.get(&(room, key.to_vec())).cloned().map(Zeroizing::new))
    }

    fn scan(&self, room: Room, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Zeroizing<Vec<u8>>)>, Infallible> {
        let rows = self.rows.range((room, prefix.to_vec())..);
        Ok(rows
            .take_while(|((in_room, key), _)| *in_room == room && key.starts_with(prefix))
            .map(|((_, key), value)| (key.clone(), Zeroizing::new(value.clone())))
            .collect())
    }
}

pub(crate) struct Actor {
    pub(crate) account: Account,
    mls: Mls,
    disk: Disk,
    pub(crate) group: Option<Group>,
    name: Option<GroupUri>,
    sabotage: Sabotage,
    /// Texts whose sending was acknowledged or seen in the channel, in the order of wishing.
    pub(crate) wished: Vec<String>,
    /// Wishes that came to nothing, with the user told.
    pub(crate) failed: usize,
}

/// The simulation itself is broken, or a client refuses what it must accept.
pub(crate) type Step<T> = Result<T, String>;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Actor {
    pub(crate) fn new(server: &mut Server, name: &str, sabotage: Sabotage) -> Step<Self> {
        let client = UserUri::new(server.domain.clone(), name).and_then(|user| user.client("laptop")).map_err(text)?;
        let identity = SigningKey::from_bytes(&random());
        let signature_key = SigningKey::from_bytes(&random());
        let public = signature_key.verifying_key().to_bytes();
        let end = server.now.plus_ms(60 * 86_400_000);
        let binding = IdentityBinding::sign(&identity, &client, &public, end);
        let before = Timestamp(server.now.0.saturating_sub(3_600_000));
        let certificate = server.authority.issue(&client, &public, &binding, before, end, random()).map_err(text)?;
        let account = Account {
            client,
            signature_key,
            identity_secret: Some(identity),
            binding,
            certificate,
            issuers: vec![server.authority.certificate().to_vec()],
            inbox: Inbox {
                id: ChannelId::new(random()),
                key: SigningKey::from_bytes(&random()),
                drop_key: Zeroizing::new(random()),
                done: Seq(0),
            },
        };
        server.create_inbox(&account).map_err(text)?;
        let mut actor = Self {
            mls: Mls::new(&account),
            account,
            disk: Disk::default(),
            group: None,
            name: None,
            sabotage,
            wished: Vec::new(),
            failed: 0,
        };
        actor.refill(server, 30)?;
        Ok(actor)
    }

    fn refill(&mut self, server: &mut Server, count: u64) -> Step<()> {
        let key = server.address_key().map_err(text)?;
        let suite = crypto::DEFAULT_SUITE;
        let fresh =
            key_packages::generate(&self.account, &self.mls, suite, &key, count, false, server.now).map_err(text)?;
        self.disk.apply(fresh.writes);
        server.upload(&self.account, fresh.key_packages).map_err(text)
    }

    pub(crate) fn user(&self) -> &UserUri {
        self.account.client.user()
    }

    pub(crate) fn is_member(&self) -> bool {
        self.group.as_ref().is_some_and(|group| *group.status() == Status::Active)
    }

    /// What the disk has of what was said.
    pub(crate) fn messages(&self) -> impl Iterator<Item = &StoredMessage> {
        self.disk.messages.values().filter(|message| message.kind == conclave_engine::group::KIND_MESSAGE)
    }

    fn save(&mut self) -> Step<()> {
        if let Some(group) = &mut self.group {
            let writes = group.take_writes().map_err(text)?;
            if self.sabotage != Sabotage::SkipPersist {
                self.disk.apply(writes);
            }
        }
        Ok(())
    }

    /// Dies and comes back with what its disk has.
    pub(crate) fn crash(&mut self) -> Step<()> {
        self.group = None;
        self.mls = Mls::new(&self.account);
        load_key_packages(&self.mls, &self.disk).map_err(text)?;
        if let Some(name) = &self.name {
            self.group = Group::load(&self.account, &self.mls, &self.disk, name).map_err(text)?;
        }
        Ok(())
    }

    pub(crate) fn create(&mut self, server: &mut Server) -> Step<()> {
        let new =
            NewGroup { hub: server.domain.clone(), title: "Simulated".into(), cipher_suite: crypto::DEFAULT_SUITE };
        let group = Group::create(&self.account, &self.mls, new, server.now).map_err(text)?;
        let access = group.access().map_err(text)?;
        server.create_channel(&access, &group.key_root().map_err(text)?).map_err(text)?;
        self.name = Some(group.name().clone());
        self.group = Some(group);
        let sabotage = std::mem::replace(&mut self.sabotage, Sabotage::None);
        self.save()?;
        self.sabotage = sabotage;
        Ok(())
    }

    /// Wishes something, if this client can.
    pub(crate) fn wish(&mut self, wish: Wish) -> Step<()> {
        if let Some(group) = self.group.as_mut().filter(|group| *group.status() == Status::Active) {
            group.wish(wish).map_err(text)?;
            self.save()?;
        }
        Ok(())
    }

    pub(crate) fn say(&mut self, said: &str) -> Step<()> {
        if let Some(group) = self.group.as_mut().filter(|group| *group.status() == Status::Active) {
            group.wish_text(said).map_err(text)?;
            self.wished.push(said.to_owned());
            self.save()?;
        }
        Ok(())
    }

    /// Reads the inbox: joins the group that it was added to.
    pub(crate) fn read_inbox(&mut self, server: &mut Server) -> Step<()> {
        let opener = Opener::Owner(self.account.inbox.id, self.account.inbox.key.clone());
        let mut session = server.open(&opener).map_err(text)?;
        let entries = server.fetch(&mut session, self.account.inbox.done.0).map_err(text)?;
        for entry in entries {
            if let Ok(invitation) = Invitation::open(&self.account, &self.mls, &entry.entry) {
                // We may have been removed and added again, without having read of either.
                self.read_channel(server)?;
                let tree = server.blob(&invitation.tree()).map_err(text)?;
                let joined = invitation.join(&self.account, &self.mls, &self.disk, &tree, server.now, &mut Vec::new());
                if let Ok(group) = joined {
                    self.name = Some(group.name().clone());
                    self.group = Some(group);
                    self.save()?;
                }
            }
            self.account.inbox.done = Seq(entry.seq);
            server.trim(&mut session, entry.seq).map_err(text)?;
        }
        Ok(())
    }

    /// Reads the channel to its end.
    pub(crate) fn sync(&mut self, server: &mut Server) -> Step<()> {
        self.read_inbox(server)?;
        self.read_channel(server)
    }

    fn read_channel(&mut self, server: &mut Server) -> Step<()> {
        loop {
            let Some(group) = self.group.as_mut().filter(|group| *group.status() != Status::Removed) else {
                return Ok(());
            };
            let mut session = server.open(&Opener::Member(group.access().map_err(text)?)).map_err(text)?;
            let before = group.position();
            let entries = server.fetch(&mut session, before.seq.0).map_err(text)?;
            if entries.is_empty() {
                return Ok(());
            }
            let mut batch = Vec::new();
            for logged in entries {
                let blob = match Entry::parse(&logged.entry).map(|entry| entry.body) {
                    Ok(Body::Staged { hash, .. }) => Some(server.blob(&hash).map_err(text)?),
                    _ => None,
                };
                let (seq, time) = (Seq(logged.seq), Timestamp(logged.time_ms));
                batch.push(Incoming { seq, time, entry: logged.entry, blob });
            }
            if self.sabotage == Sabotage::DropEntry && batch.len() > 1 {
                batch.remove(0);
            }
            let done = group.process(&batch);
            let stuck = matches!(group.status(), Status::Stuck { .. });
            let moved = group.position() != before;
            self.count_failures(&done.events);
            self.save()?;
            if let Some(fault) = done.fault {
                return Err(format!("{}: {fault}", self.account.client));
            }
            if stuck || !moved {
                return Err(format!("{} cannot follow the group: {:?}", self.account.client, done.outcomes.last()));
            }
            if let Some(alarm) = done.events.iter().find(|event| matches!(event, Event::LogsDiffer { .. })) {
                return Err(format!("{}: a false alarm: {alarm:?}", self.account.client));
            }
        }
    }

    fn count_failures(&mut self, events: &[Event]) {
        self.failed += events.iter().filter(|event| matches!(event, Event::IntentFailed { .. })).count();
    }

    /// Submits one thing, with what goes wrong. Says whether there was something to submit.
    pub(crate) fn submit(&mut self, server: &mut Server, fault: Fault) -> Step<bool> {
        let Some(group) = self.group.as_mut().filter(|group| *group.status() == Status::Active) else {
            return Ok(false);
        };
        let mut events = Vec::new();
        let next = group.next_submission(server.now, &mut events);
        self.count_failures(&events);
        self.save()?;
        // A wish that cannot be carried out was dropped, and the user told.
        let Ok(next) = next else { return Ok(true) };
        let Some(submission) = next else { return Ok(false) };
        if fault == Fault::CrashBefore {
            self.crash()?;
            return Ok(true);
        }
        if fault == Fault::LostRequest {
            return Ok(true);
        }
        let sent = self.send(server, &submission.blobs, &submission.body);
        match (fault, sent) {
            (Fault::CrashAfter, _) => self.crash()?,
            (Fault::LostReply, _) | (_, Ok(_)) => {}
            (_, Err(refusal)) => {
                self.sync(server)?;
                let mut events = Vec::new();
                if let Some(group) = &mut self.group
                    && let Err(refusal) = group.refused(submission.intent, &refusal, &mut events)
                    && refusal.retry() == Retry::Never
                {
                    return Err(text(refusal));
                }
                self.count_failures(&events);
                self.save()?;
            }
        }
        Ok(true)
    }

    fn send(&mut self, server: &mut Server, blobs: &[Vec<u8>], body: &SubmissionBody) -> Result<u64, Refusal> {
        let broken = |error| Refusal::new(conclave_protocol::Code::Internal, text(error));
        let access = match &self.group {
            Some(group) => group.access().map_err(broken)?,
            None => return Err(Refusal::new(conclave_protocol::Code::Internal, "no group")),
        };
        let mut session = server.open(&Opener::Member(access))?;
        for blob in blobs {
            server.stage(&mut session, blob)?;
        }
        match body {
            SubmissionBody::Entry(request) => server.submit(&mut session, request),
            SubmissionBody::Bundle(request) => {
                let request: &v1::SubmitBundleRequest = request;
                server.commit(&mut session, request)
            }
        }
    }
}
