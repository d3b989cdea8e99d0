//! Making a group anew and going on in its successor, as the client's shell does.

use conclave_engine::{
    Mls,
    group::{Group, Incoming, SubmissionBody},
    intent::Wish,
    invitation::JoinError,
    outcome::Event,
};
use conclave_mls::crypto;
use conclave_names::{ClientUri, GroupUri, RoomUri, Timestamp};
use conclave_protocol::Code;

use super::{Actor, DAY, Surroundings};
use crate::{
    disk::Disk,
    ledger::{Ledger, Said, Slot},
    network::Stop,
    sabotage::Sabotage,
    server::broken,
};

impl Actor {
    /// The group of a program's slot in which this client is now: the newest in the line of successors.
    pub(crate) fn present(&self, ledger: &Ledger, slot: usize) -> usize {
        let line = ledger.line(slot);
        let here = |slot: &&usize| self.group(**slot).is_some();
        let active = |slot: &&usize| here(slot) && !self.has_left(**slot);
        line.iter().rev().find(active).or_else(|| line.iter().rev().find(here)).copied().unwrap_or(slot)
    }

    /// Wishes that a group be made anew, once it is sure that it could go on.
    pub(crate) fn reinit(&mut self, around: &mut Surroundings, slot: usize, switch: bool) -> Result<(), Stop> {
        if !self.is_active(slot) {
            return Ok(());
        }
        self.read_group(around, slot)?;
        let Some(group) = self.active(slot).filter(|group| !group.is_frozen()) else { return Ok(()) };
        let visible = group.is_visible() != switch;
        let members = group.members().map_err(Stop::violation)?;
        self.packages_of(around, members.into_iter().map(|member| member.client))?;
        self.wish(around, slot, Wish::ReInit { cipher_suite: crypto::DEFAULT_SUITE.into(), visible })
    }

    /// A KeyPackage of each of these clients but our own.
    fn packages_of(
        &self,
        around: &mut Surroundings,
        clients: impl IntoIterator<Item = ClientUri>,
    ) -> Result<Vec<Vec<u8>>, Stop> {
        let mut packages = Vec::new();
        for client in clients.into_iter().filter(|client| *client != self.client) {
            let (skew, account) = (self.skew, &self.account);
            let claimed = around.call(|server| server.claim(skew, account, &client.to_string()))?;
            let package = claimed.into_iter().next().map(|claimed| claimed.key_package);
            packages.push(package.ok_or_else(|| Stop::Refused(broken(format!("{client} has no last resort"))))?);
        }
        Ok(packages)
    }

    /// Does what a frozen group needs: makes the successor when it is our turn, and goes on in it.
    pub(super) fn go_on(&mut self, around: &mut Surroundings, slot: usize) -> Result<(), Stop> {
        let (now, sabotage) = (self.now(&around.server), self.sabotage);
        let Some(group) = self.active(slot).filter(|group| group.is_frozen()) else { return Ok(()) };
        if sabotage == Sabotage::NeverSucceed {
            return Ok(());
        }
        let due = group.successor_due().is_some_and(|due| due <= now);
        let (_, clients) = group.successor_needs().map_err(Stop::violation)?;
        if sabotage == Sabotage::OwnSuccessor {
            let packages = self.packages_of(around, clients.clone())?;
            self.keep_own_successor(slot, &packages, now)?;
        }
        if due {
            let packages = self.packages_of(around, clients)?;
            around.weather.moment()?;
            let Some(group) = self.active(slot) else { return Ok(()) };
            group.make_successor(&packages, now).map_err(Stop::violation)?;
            self.save(around, slot)?;
            around.ledger.tell(format!("    {} makes a successor of group {slot}", self.name()));
            self.drive(around, slot)?;
        }
        if self.active(slot).is_some_and(|group| group.has_successor()) { self.succeed(around, slot) } else { Ok(()) }
    }

    fn succeed(&mut self, around: &mut Surroundings, slot: usize) -> Result<(), Stop> {
        let now = self.now(&around.server);
        let Some(mut old) = self.groups.get_mut(slot).and_then(Option::take) else { return Ok(()) };
        self.close_session(slot);
        let mut events = Vec::new();
        let next = match self.own_successor(&old)? {
            Some((own, disk)) => {
                old = own;
                old.succeed(&disk, now, &mut events)
            }
            None => old.succeed(&self.disk, now, &mut events),
        };
        let next = match next {
            Ok(next) => next,
            Err(JoinError::Store(error)) => match error {},
            Err(error) => {
                let told = old.left_out(&error.to_string());
                self.put_group(slot, old);
                self.hear(around, slot, &told, &[])?;
                return self.save(around, slot);
            }
        };
        self.hear(around, slot, &events, &[])?;
        let failed = |said: &Said| {
            events.iter().any(|event| matches!(event, Event::IntentFailed { intent, .. } if *intent == said.intent))
        };
        around.ledger.excuse(failed);
        let Some(at) = self.enter(around, slot, old, next)? else { return Ok(()) };
        self.read_group(around, at)?;
        self.drive(around, at)
    }

    /// One transaction with what both groups have to store. Gives the slot of the successor, if it is entered now.
    fn enter(
        &mut self,
        around: &mut Surroundings,
        slot: usize,
        mut old: Group,
        next: Option<Group>,
    ) -> Result<Option<usize>, Stop> {
        let mut writes = old.take_writes().map_err(Stop::violation)?;
        let entered = match next {
            Some(mut next) => {
                writes.extend(next.take_writes().map_err(Stop::violation)?);
                Some((register(around, (self.index, slot), &mut next)?, next))
            }
            None => None,
        };
        if self.sabotage == Sabotage::TornWrite {
            writes.truncate(writes.len() / 2);
        }
        around.weather.moment()?;
        self.disk.apply(writes);
        self.put_group(slot, old);
        let Some((at, next)) = entered else {
            around.ledger.tell(format!("    {} is in the successor of group {slot} already", self.name()));
            return Ok(None);
        };
        around.ledger.tell(format!("    {} goes on in group {at}, the successor of group {slot}", self.name()));
        around.ledger.recoveries.succeeded += 1;
        // What waits is said there.
        for said in around.ledger.said.iter_mut().filter(|said| next.is_pending(said.intent)) {
            (said.slot, said.acknowledged) = (at, None);
        }
        self.put_group(at, next);
        self.witness(around, at)?;
        around.weather.moment()?;
        Ok(Some(at))
    }

    /// Groups of a room but one, of which this client is a member.
    pub(super) fn others_of_room(&self, but: usize, room: &RoomUri) -> Vec<usize> {
        let is_one = |slot: &usize| {
            *slot != but
                && self.is_active(*slot)
                && self.group(*slot).is_some_and(|group| group.profile().room == *room)
        };
        (0..self.groups.len()).filter(is_one).collect()
    }

    /// Has the service make the channel of a group that goes on in it, unless it has.
    pub(super) fn found(&mut self, around: &mut Surroundings, slot: usize) -> Result<(), Stop> {
        let Some(group) = self.group(slot) else { return Ok(()) };
        let Some(founding) = group.founding().map_err(Stop::violation)? else { return Ok(()) };
        let skew = self.skew;
        let founded = around.call(|server| server.found(skew, &founding));
        let Some(group) = self.groups.get_mut(slot).and_then(Option::as_mut) else { return Ok(()) };
        match founded {
            Err(Stop::Refused(refusal)) if refusal.code == Code::ChannelExists => {
                let mut told = Vec::new();
                group.not_founded(&mut told);
                around.ledger.usurped(self.index, slot)?;
                self.hear(around, slot, &told, &[])?;
            }
            founded => {
                founded?;
                group.founded();
            }
        }
        self.save(around, slot)
    }

    /// Makes a successor that nobody hears of, to go on in it whatever the log says. For a planted fault only.
    fn keep_own_successor(&mut self, slot: usize, packages: &[Vec<u8>], now: Timestamp) -> Result<(), Stop> {
        let Some(name) = self.group(slot).map(|group| group.name().clone()) else { return Ok(()) };
        let mut disk = self.disk.clone();
        let Some(mut group) = self.load(&disk, &name)?.filter(Group::is_frozen) else { return Ok(()) };
        // Everything is settled by then.
        let later = now.plus_ms(30 * DAY);
        if self.own_successors.contains_key(&name) || group.make_successor(packages, later).is_err() {
            return Ok(());
        }
        let Ok(Some(next)) = group.next_submission(later, &mut Vec::new()) else { return Ok(()) };
        let SubmissionBody::Entry(request) = next.body else { return Ok(()) };
        let seq = group.position().seq.next();
        let incoming = Incoming { seq, time: later, entry: request.entry, blob: next.blobs.first().cloned() };
        let _read = group.process(&[incoming]);
        disk.apply(group.take_writes().map_err(Stop::violation)?);
        if group.has_successor() {
            self.own_successors.insert(name, disk);
        }
        Ok(())
    }

    fn own_successor(&self, old: &Group) -> Result<Option<(Group, Disk)>, Stop> {
        let Some(disk) = self.own_successors.get(old.name()) else { return Ok(None) };
        Ok(self.load(disk, old.name())?.map(|group| (group, disk.clone())))
    }

    pub(super) fn load(&self, disk: &Disk, name: &GroupUri) -> Result<Option<Group>, Stop> {
        // The group that is open stays as it is.
        Group::load(&self.account, &Mls::new(&self.account), disk, name).map_err(Stop::violation)
    }
}

/// The successor as the world knows it. All who come to one come to the same.
fn register(around: &mut Surroundings, (client, slot): (usize, usize), next: &mut Group) -> Result<usize, Stop> {
    let members = next.members().map_err(Stop::violation)?.into_iter().map(|member| member.client).collect();
    let made = Slot {
        group: next.name().clone(),
        channel: next.profile().channel,
        founders: members,
        key_root: next.key_root().map_err(Stop::violation)?,
        epoch: next.epoch(),
        pause: next.profile().dispute_pause,
        successor: None,
        chosen: None,
        orphan: false,
    };
    if around.ledger.is_victim(client, slot) {
        return Ok(around.ledger.succeed_apart(client, slot, made));
    }
    around.ledger.succeed(slot, made)
}
