//! Catching up.

use conclave_channel::{Body, Entry};
use conclave_engine::{
    group::{Incoming, Status},
    invitation::{Invitation, InvitationError, JoinError},
    outcome::Event,
};
use conclave_names::{Seq, Timestamp};
use conclave_protocol::{Code, v1::LoggedEntry};

use super::{Actor, Surroundings};
use crate::{network::Stop, sabotage::Sabotage, server::Opener};

/// Entries of a page: few, so that there are several.
const PAGE: u32 = 5;

impl Actor {
    /// Catches up with everything and carries out what there is to do.
    pub(crate) fn sync(&mut self, around: &mut Surroundings) -> Result<(), Stop> {
        self.read_inbox(around)?;
        for slot in 0..self.groups.len() {
            self.read_group(around, slot)?;
            self.drive(around, slot)?;
        }
        self.refill(around)
    }

    /// Reads the inbox: joins the groups that this client was added to.
    fn read_inbox(&mut self, around: &mut Surroundings) -> Result<(), Stop> {
        let mut again = true;
        loop {
            let (skew, owner) = (self.skew, &self.account.inbox);
            let opener = Opener::Owner(owner.id, owner.key.clone());
            let mut session = match self.inbox.take() {
                Some(session) => session,
                None => around.call(|server| server.open(skew, &opener))?,
            };
            let done = self.account.inbox.done;
            let page = around.call(|server| server.fetch(&mut session, done, PAGE));
            if matches!(&page, Err(Stop::Refused(refusal)) if refusal.code == Code::SessionUnknown) && again {
                again = false;
                continue;
            }
            self.inbox = Some(session.clone());
            let page = page?;
            let Some(last) = page.last().map(|entry| Seq(entry.seq)) else { return Ok(()) };
            for entry in &page {
                self.take_invitation(around, &entry.entry)?;
                self.account.inbox.done = Seq(entry.seq);
                around.weather.moment()?;
                self.disk.apply([self.account.to_write()]);
            }
            let trimmed = around.call(|server| server.trim(&mut session, last));
            self.inbox = Some(session);
            trimmed?;
        }
    }

    fn take_invitation(&mut self, around: &mut Surroundings, entry: &[u8]) -> Result<(), Stop> {
        if self.sabotage == Sabotage::LoseInvitation {
            return Ok(());
        }
        let invitation = match Invitation::open(&self.account, &self.mls, entry) {
            Ok(invitation) => invitation,
            // We died after joining, before noting that this entry is done with.
            Err(InvitationError::NotForUs) => return Ok(()),
            Err(error) => return Err(Stop::violation(format!("{}: an invitation: {error}", self.client))),
        };
        let Some(slot) = around.ledger.slot_of(invitation.name()) else {
            return Err(Stop::violation("an invitation to a group that nobody made"));
        };
        if self.sabotage != Sabotage::InboxFirst {
            // We may have been removed and added again, without having read of either.
            self.read_group(around, slot)?;
        }
        let mut tree = invitation.tree().map_err(Stop::violation)?;
        while let Some(name) = tree.wanted().pop() {
            let chunk = around.call(|server| server.blob(&name))?;
            tree.give(&chunk).map_err(Stop::violation)?;
        }
        let (now, mut events) = (self.now(&around.server), Vec::new());
        match invitation.join(&self.account, &self.mls, &self.disk, &tree, now, &mut events) {
            Ok(group) => {
                around.ledger.tell(format!("    {} joins group {slot} in epoch {}", self.name(), group.epoch()));
                self.put_group(slot, group);
                self.close_session(slot);
                self.save(around, slot)?;
            }
            // A last resort's invitation is ours for ever: we died after joining by it.
            Err(JoinError::Member | JoinError::Old) => return Ok(()),
            Err(error) => return Err(Stop::violation(format!("{}: cannot join: {error}", self.client))),
        }
        self.read_group(around, slot)
    }

    /// Reads a group's channel to its end.
    pub(crate) fn read_group(&mut self, around: &mut Surroundings, slot: usize) -> Result<(), Stop> {
        let mut again = true;
        loop {
            let Some(group) = self.group(slot).filter(|group| *group.status() != Status::Removed) else {
                return Ok(());
            };
            let (after, epoch) = (group.position().seq, group.epoch());
            let page = match self.session(around, slot) {
                Ok(mut session) => {
                    let page = around.call(|server| server.fetch(&mut session, after, PAGE));
                    self.keep_session(slot, epoch, session);
                    page
                }
                Err(stop) => Err(stop),
            };
            if matches!(&page, Err(Stop::Refused(refusal)) if refusal.code == Code::AccessRefused) {
                self.close_session(slot);
                let Some(group) = self.groups.get_mut(slot).and_then(Option::as_mut) else { return Ok(()) };
                if group.is_unproven() && !around.ledger.broken.is_empty() {
                    let events = group.void_invitation();
                    self.hear(around, slot, &events)?;
                    let actor = self.index;
                    around.ledger.excuse(|said| said.actor == actor && said.slot == slot);
                    return self.save(around, slot);
                }
            }
            if matches!(&page, Err(Stop::Refused(refusal)) if refusal.code == Code::SessionUnknown) && again {
                again = false;
                self.close_session(slot);
                continue;
            }
            let page = page?;
            if page.is_empty() {
                if let Some(caught_up) = self.caught_up.get_mut(slot) {
                    *caught_up = around.server.now;
                }
                let now = self.now(&around.server);
                if let Some(group) = self.groups.get_mut(slot).and_then(Option::as_mut) {
                    group.caught_up(now).map_err(Stop::violation)?;
                }
                return self.save(around, slot);
            }
            self.process(around, slot, page)?;
        }
    }

    fn process(&mut self, around: &mut Surroundings, slot: usize, page: Vec<LoggedEntry>) -> Result<(), Stop> {
        let mut batch = Vec::with_capacity(page.len());
        for logged in page {
            let blob = match Entry::parse(&logged.entry).map(|entry| entry.body) {
                Ok(Body::Staged { hash, .. }) => Some(around.call(|server| server.blob(&hash))?),
                _ => None,
            };
            batch.push(Incoming { seq: Seq(logged.seq), time: Timestamp(logged.time_ms), entry: logged.entry, blob });
        }
        if self.sabotage == Sabotage::DropEntry && batch.len() > 1 {
            batch.remove(0);
        }
        let Some(group) = self.groups.get_mut(slot).and_then(Option::as_mut) else { return Ok(()) };
        let before = group.position();
        let done = group.process(&batch);
        if let Some(fault) = done.fault {
            return Err(Stop::violation(format!("{}: {fault}", self.client)));
        }
        if group.position() == before && !group.wants_refetch() {
            return Err(Stop::violation(format!("{} does not get on: {:?}", self.client, done.outcomes)));
        }
        let removed = *group.status() == Status::Removed;
        self.hear(around, slot, &done.events)?;
        if removed {
            // It stands in the channel, whether or not we live to store it.
            around.ledger.tell(format!("    {} reads that it was removed from group {slot}", self.name()));
            let actor = self.index;
            around.ledger.excuse(|said| said.actor == actor && said.slot == slot);
        }
        self.save(around, slot)
    }

    /// Passes on what the engine tells, and excuses what it says has failed.
    pub(super) fn hear(&mut self, around: &mut Surroundings, slot: usize, events: &[Event]) -> Result<(), Stop> {
        around.ledger.hear(&self.client, slot, events)?;
        if events.iter().any(|event| matches!(event, Event::IntentFailed { .. })) {
            let (actor, group) = (self.index, self.group(slot));
            around.ledger.excuse(|said| {
                said.actor == actor && said.slot == slot && group.is_none_or(|group| !group.is_pending(said.intent))
            });
        }
        Ok(())
    }
}
