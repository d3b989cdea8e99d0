//! A client: the engine, what survives its death, and the steps of its shell.

mod audit;
mod come_back;
mod drive;
mod knock;
mod offend;
mod read;
mod reinit;
mod rotate;
mod stream;
mod wish;

use std::collections::BTreeMap;

use conclave_engine::{
    Mls,
    account::{Account, Inbox},
    group::{Group, Incoming, KIND_EVENT, Status},
    invitation::load_key_packages,
    outcome::Event,
    writes::{Room, Rows as _, Write},
};
use conclave_mls::credential::IdentityBinding;
use conclave_names::{ChannelId, ClientUri, Epoch, GroupUri, Seq, Timestamp, UserUri};
use conclave_protocol::{Refusal, SigningKey};
use zeroize::Zeroizing;

use crate::{
    disk::Disk,
    hostile::Offence,
    keys::Keys,
    ledger::{Alarm, Ledger},
    network::{NetworkFault, Stop, Weather},
    program::ClientSpec,
    sabotage::Sabotage,
    server::{Opener, Server, Session},
    witness::Witnesses,
};

const DAY: u64 = 86_400_000;

/// What surrounds an actor in a step.
pub(crate) struct Surroundings {
    pub(crate) server: Server,
    pub(crate) ledger: Ledger,
    pub(crate) weather: Weather,
    pub(crate) witnesses: Witnesses,
    pub(crate) keys: Keys,
}

impl Surroundings {
    /// One request that is no submission.
    fn call<T>(&mut self, request: impl FnOnce(&mut Server) -> Result<T, Refusal>) -> Result<T, Stop> {
        let fault = self.weather.fault();
        self.call_with(fault, request)
    }

    /// One request and its reply. Submissions deal with delay themselves, before.
    fn call_with<T>(
        &mut self,
        fault: Option<NetworkFault>,
        request: impl FnOnce(&mut Server) -> Result<T, Refusal>,
    ) -> Result<T, Stop> {
        self.weather.moment()?;
        let reply = match fault {
            Some(NetworkFault::RequestLost | NetworkFault::Delayed) => return Err(Stop::Unreachable),
            Some(NetworkFault::ReplyLost) => {
                let _lost = request(&mut self.server);
                self.server.was_gone();
                return Err(Stop::Unreachable);
            }
            Some(NetworkFault::Doubled) | None => request(&mut self.server),
        };
        let gone = self.server.was_gone();
        if gone {
            self.ledger.tell("    the server dies");
        }
        self.weather.moment()?;
        if gone {
            return Err(Stop::Unreachable);
        }
        reply.map_err(Stop::Refused)
    }
}

pub(crate) struct Actor {
    index: usize,
    /// How far its clock is off, in milliseconds.
    skew: i64,
    sabotage: Sabotage,
    pub(crate) disk: Disk,
    client: ClientUri,
    /// When each group's channel was read to its end.
    caught_up: Vec<Timestamp>,
    /// Authenticators of the epochs that it was in, the newest of each number.
    epochs: BTreeMap<(usize, Epoch), Vec<u8>>,
    /// How it breaks the rules with its next submission.
    offence: Option<Offence>,
    /// What it had when it made a successor, by group: for a planted fault.
    own_successors: BTreeMap<GroupUri, Disk>,
    // What follows dies with the program.
    account: Account,
    mls: Mls,
    groups: Vec<Option<Group>>,
    sessions: Vec<Option<(Epoch, Session)>>,
    inbox: Option<Session>,
    /// What streams brought before its turn, by group.
    early: BTreeMap<usize, BTreeMap<Seq, Incoming>>,
    /// The newest entries that it has read, by group.
    lately: BTreeMap<usize, BTreeMap<Seq, Incoming>>,
}

/// Key material, which no decision depends on.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Stop> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(Stop::violation)?;
    Ok(bytes)
}

/// Whether something to be stored records an event of a kind.
fn records(write: &Write, is_one: impl Fn(&Event) -> bool) -> bool {
    let Write::Message(row) = write else { return false };
    row.kind == KIND_EVENT && serde_json::from_slice(&row.body).is_ok_and(|event| is_one(&event))
}

impl Actor {
    pub(crate) fn new(
        around: &mut Surroundings,
        index: usize,
        slots: usize,
        spec: ClientSpec,
        (identity, sabotage): (SigningKey, Sabotage),
    ) -> Result<Self, Stop> {
        let server = &mut around.server;
        let skew = spec.skew;
        let user = UserUri::new(server.domain.clone(), &format!("user{}", spec.user)).map_err(Stop::violation)?;
        let client = user.client(&format!("device{}", spec.device)).map_err(Stop::violation)?;
        let signature_key = SigningKey::from_bytes(&random()?);
        let public = signature_key.verifying_key().to_bytes();
        let end = server.now.plus_ms(365 * DAY);
        let binding = IdentityBinding::sign(&identity, &client, &public, end);
        let before = Timestamp(server.now.0.saturating_sub(3_600_000));
        let certificate =
            server.authority.issue(&client, &public, &binding, before, end, random()?).map_err(Stop::violation)?;
        let account = Account {
            rotation: conclave_engine::rotation::Rotation::default(),
            client: client.clone(),
            signature_key,
            identity_secret: Some(identity),
            binding,
            certificate,
            issuers: vec![server.authority.certificate().to_vec()],
            inbox: Inbox {
                id: ChannelId::new(random()?),
                key: SigningKey::from_bytes(&random()?),
                drop_key: Zeroizing::new(random()?),
                done: Seq(0),
                trimmed: Seq(0),
            },
        };
        server.create_inbox(skew, &account).map_err(Stop::Refused)?;
        let mut disk = Disk::default();
        disk.apply([account.to_write()]);
        let mls = Mls::new(&account);
        let groups = (0..slots).map(|_| None).collect();
        let sessions = vec![None; slots];
        let caught_up = vec![server.now; slots];
        let mut actor = Self {
            index,
            skew,
            sabotage,
            disk,
            client,
            caught_up,
            epochs: BTreeMap::new(),
            offence: None,
            own_successors: BTreeMap::new(),
            account,
            mls,
            groups,
            sessions,
            inbox: None,
            early: BTreeMap::new(),
            lately: BTreeMap::new(),
        };
        actor.refill(around)?;
        Ok(actor)
    }

    /// The identity key of the user, for its other devices.
    pub(crate) fn identity(&self) -> Option<SigningKey> {
        self.account.identity_secret.clone()
    }

    /// Breaks the rules with the next thing that can be made wrong in this way, if that comes at once.
    pub(crate) fn intend(&mut self, offence: Option<Offence>) {
        self.offence = offence;
    }

    /// The inbox.
    pub(crate) fn inbox(&self) -> ChannelId {
        self.account.inbox.id
    }

    pub(crate) fn index(&self) -> usize {
        self.index
    }

    pub(crate) fn client(&self) -> &ClientUri {
        &self.client
    }

    pub(crate) fn name(&self) -> String {
        format!("client {}", self.index)
    }

    pub(crate) fn group(&self, slot: usize) -> Option<&Group> {
        self.groups.get(slot).and_then(Option::as_ref)
    }

    pub(crate) fn is_active(&self, slot: usize) -> bool {
        self.group(slot).is_some_and(|group| *group.status() == Status::Active)
    }

    /// Whether this client was in the group and is no member any more. After a restart, the disk alone says so.
    pub(crate) fn has_ended(&self, slot: usize, ledger: &Ledger) -> bool {
        let Some(known) = ledger.slot(slot) else { return false };
        let listed = conclave_engine::group::list(&self.disk).unwrap_or_default();
        listed.iter().any(|group| group.name == known.group && group.status == Status::Removed)
    }

    /// Whether this client is or was in a group, for all that its disk says.
    pub(crate) fn was_in(&self, slot: usize, ledger: &Ledger) -> bool {
        let Some(known) = ledger.slot(slot) else { return false };
        conclave_engine::group::list(&self.disk).unwrap_or_default().iter().any(|group| group.name == known.group)
    }

    /// The group, if wishes are taken: also of who cannot follow just now.
    fn wisher(&mut self, slot: usize) -> Option<&mut Group> {
        self.groups.get_mut(slot).and_then(Option::as_mut).filter(|group| *group.status() != Status::Removed)
    }

    fn active(&mut self, slot: usize) -> Option<&mut Group> {
        self.groups.get_mut(slot).and_then(Option::as_mut).filter(|group| *group.status() == Status::Active)
    }

    /// The group, if this client may still submit to it: who cannot follow may dispute.
    fn member(&mut self, slot: usize) -> Option<&mut Group> {
        self.groups
            .get_mut(slot)
            .and_then(Option::as_mut)
            .filter(|group| *group.status() != Status::Removed || group.may_return())
    }

    /// There are more groups than before.
    fn make_room(&mut self, slots: usize, now: Timestamp) {
        if slots > self.groups.len() {
            self.groups.resize_with(slots, || None);
            self.sessions.resize(slots, None);
            self.caught_up.resize(slots, now);
        }
    }

    fn put_group(&mut self, slot: usize, group: Group) {
        self.make_room(slot + 1, self.caught_up.first().copied().unwrap_or_default());
        self.lately.remove(&slot);
        self.early.remove(&slot);
        if let Some(place) = self.groups.get_mut(slot) {
            *place = Some(group);
        }
    }

    pub(crate) fn now(&self, server: &Server) -> Timestamp {
        Timestamp(server.now.0.saturating_add_signed(self.skew))
    }

    /// One transaction with what a group has to store. Before and after it, the client may die.
    fn save(&mut self, around: &mut Surroundings, slot: usize) -> Result<(), Stop> {
        around.weather.moment()?;
        let now = self.now(&around.server);
        let Some(group) = self.groups.get_mut(slot).and_then(Option::as_mut) else { return Ok(()) };
        group.note_time(now);
        let mut writes = group.take_writes().map_err(Stop::violation)?;
        match self.sabotage {
            Sabotage::TornWrite => writes.truncate(writes.len() / 2),
            Sabotage::DropMessage => {
                if let Some(at) = writes.iter().rposition(|write| matches!(write, Write::Message(_))) {
                    writes.remove(at);
                }
            }
            Sabotage::ForgetChange => {
                writes.retain(|write| !records(write, |event| matches!(event, Event::Removed { .. })));
            }
            Sabotage::ForgetPlight => {
                writes.retain(|write| !records(write, |event| matches!(event, Event::Stuck { .. })));
            }
            Sabotage::HideGap => {
                writes.retain(|write| !records(write, |event| matches!(event, Event::Missed { .. })));
            }
            _ => {}
        }
        self.disk.apply(writes);
        around.ledger.taken(self.index, slot, false);
        self.witness(around, slot)?;
        around.weather.moment()
    }

    /// Shows what is stored to those who watch over keys.
    fn witness(&mut self, around: &mut Surroundings, slot: usize) -> Result<(), Stop> {
        let Some(group) = self.groups.get(slot).and_then(Option::as_ref) else { return Ok(()) };
        if *group.status() != Status::Active || around.ledger.is_victim(self.index, slot) {
            return Ok(());
        }
        let (epoch, name) = (group.epoch(), group.name().clone());
        let authenticator = group.epoch_authenticator().map_err(Stop::violation)?;
        let known = self.epochs.insert((slot, epoch), authenticator.clone());
        if known.as_ref() == Some(&authenticator) {
            return Ok(());
        }
        let now = around.server.now;
        around.witnesses.meet(self.index, &self.account, &self.disk, &name, (&authenticator, now))
    }

    /// Notices something beside what the engine tells.
    fn notice(&self, around: &mut Surroundings, slot: usize, alarm: Alarm, what: &str) -> Result<(), Stop> {
        around.ledger.alarm(self.index, slot, alarm, what)
    }

    /// Dies, and comes back with what its disk has.
    pub(crate) fn die(&mut self, ledger: &Ledger) -> Result<(), Stop> {
        if self.sabotage == Sabotage::ForgetIntents {
            self.disk.forget(Room::INTENT);
        }
        if self.sabotage == Sabotage::ForgetKeys {
            self.disk.forget(Room::USED);
        }
        self.groups.iter_mut().for_each(|group| *group = None);
        self.sessions.iter_mut().for_each(|session| *session = None);
        self.inbox = None;
        self.early.clear();
        self.lately.clear();
        let rows = self.disk.scan(Room::ACCOUNT, b"").unwrap_or_default();
        let (_, row) = rows.first().ok_or_else(|| Stop::violation("the account is not on the disk"))?;
        self.account = Account::from_row(row).map_err(Stop::violation)?;
        self.mls = Mls::new(&self.account);
        load_key_packages(&self.mls, &self.disk).map_err(Stop::violation)?;
        self.make_room(ledger.slots.len(), self.caught_up.first().copied().unwrap_or_default());
        for (slot, place) in self.groups.iter_mut().enumerate() {
            if let Some(known) = ledger.slot(slot) {
                *place = Group::load(&self.account, &self.mls, &self.disk, &known.group).map_err(Stop::violation)?;
            }
        }
        Ok(())
    }

    /// A session on a group's channel with the key of the epoch that we are in.
    fn session(&mut self, around: &mut Surroundings, slot: usize) -> Result<Session, Stop> {
        let Some(group) = self.group(slot) else { return Err(Stop::violation("a session without a group")) };
        let epoch = group.epoch();
        if let Some((_, session)) = self.sessions.get(slot).and_then(Option::as_ref).filter(|(of, _)| *of == epoch) {
            return Ok(session.clone());
        }
        let (opener, skew) = (Opener::Member(group.access().map_err(Stop::violation)?), self.skew);
        let session = around.call(|server| server.open(skew, &opener))?;
        self.keep_session(slot, epoch, session.clone());
        Ok(session)
    }

    /// Notes a session with its counter moved on.
    fn keep_session(&mut self, slot: usize, epoch: Epoch, session: Session) {
        if let Some(place) = self.sessions.get_mut(slot) {
            *place = Some((epoch, session));
        }
    }

    /// Lets go of a group's session.
    pub(crate) fn hang_up(&mut self, slot: usize) {
        self.close_session(slot);
    }

    /// Lets go of all sessions.
    pub(crate) fn hang_up_all(&mut self) {
        (0..self.sessions.len()).for_each(|slot| self.close_session(slot));
    }

    fn close_session(&mut self, slot: usize) {
        if let Some(place) = self.sessions.get_mut(slot) {
            *place = None;
        }
    }
}
