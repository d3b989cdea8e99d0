//! Asking members to be let into a group again, and being asked, as the client's shell does.

use conclave_engine::{
    group::Group,
    key_packages,
    knock::{Knocked, KnockedError},
    outcome::Event,
};
use conclave_mls::crypto;
use conclave_names::ClientUri;

use super::{Actor, Surroundings};
use crate::{
    ledger::Alarm,
    network::Stop,
    sabotage::Sabotage,
    server::{Server, broken},
};

impl Actor {
    /// Asks a few members to let this client in again, if it is time for that; nobody, if nobody can help.
    pub(super) fn knock(&mut self, around: &mut Surroundings, slot: usize, helpless: bool) -> Result<(), Stop> {
        let now = self.now(&around.server);
        let Some(group) = self.group(slot) else { return Ok(()) };
        if self.sabotage == Sabotage::NeverKnock || group.knock_due(now).is_none_or(|due| due > now) {
            return Ok(());
        }
        let members = if helpless { Vec::new() } else { group.whom_to_ask().map_err(Stop::violation)? };
        let mut asked = Vec::new();
        for member in members {
            if asked.len() == Group::knocks_at_a_time() {
                break;
            }
            if self.ask(around, slot, &member)? {
                around.ledger.recoveries.knocks += 1;
                asked.push(member);
            }
        }
        around.ledger.tell(format!("    {} asks {} to be let into group {slot} again", self.name(), asked.len()));
        let Some(group) = self.groups.get_mut(slot).and_then(Option::as_mut) else { return Ok(()) };
        let mut events = Vec::new();
        group.knocked(asked, now, &mut events);
        self.hear(around, slot, &events, &[])?;
        self.save(around, slot)
    }

    /// Asks one member, by a KeyPackage that is claimed of it. Says whether it can be asked.
    fn ask(&mut self, around: &mut Surroundings, slot: usize, member: &ClientUri) -> Result<bool, Stop> {
        let (skew, account) = (self.skew, self.account.clone());
        let claimed = around.call(|server| server.claim(skew, &account, &member.to_string()))?;
        let theirs = claimed.into_iter().next().map(|claimed| claimed.key_package);
        let theirs = theirs.ok_or_else(|| Stop::Refused(broken(format!("{member} has no last resort"))))?;
        let address_key = around.call(Server::address_key)?;
        let (suite, now) = (crypto::DEFAULT_SUITE, self.now(&around.server));
        let fresh = key_packages::generate(&account, &self.mls, suite, &address_key, 1, false, now);
        let fresh = fresh.map_err(Stop::violation)?;
        around.weather.moment()?;
        self.disk.apply(fresh.writes);
        let ours = fresh.key_packages.into_iter().next().unwrap_or_default();
        let Some(group) = self.groups.get_mut(slot).and_then(Option::as_mut) else { return Ok(false) };
        let post = match group.knock(member, &theirs, ours, now) {
            Ok(post) => post,
            Err(error) => {
                around.ledger.tell(format!("    {} cannot ask {member}: {error}", self.name()));
                return Ok(false);
            }
        };
        around.call(|server| server.knock(skew, post)).map(|()| true)
    }

    /// Lets somebody who knocked into a group again, if it is ours and it is a member.
    pub(super) fn take_knock(&mut self, around: &mut Surroundings, entry: &[u8]) -> Result<(), Stop> {
        let now = self.now(&around.server);
        let knocked = match Knocked::open(&self.mls, entry, now) {
            Ok(knocked) => knocked,
            // We died after dealing with it, before noting that this entry is done with.
            Err(KnockedError::NotForUs) => return Ok(()),
            Err(error) => {
                return self.notice(around, 0, Alarm::Invitation, &format!("a knock is no good: {error}"));
            }
        };
        // Who was locked out knows a group by the name that it had then.
        let slot = knocked.group().and_then(|group| around.ledger.slot_of(group));
        let slot = slot.map(|slot| self.present(&around.ledger, slot));
        if let Some(slot) = slot.filter(|slot| self.is_active(*slot) && self.sabotage != Sabotage::NeverAnswer) {
            self.let_in(around, slot, &knocked)?;
        }
        let writes = knocked.used(&self.mls, &self.disk).map_err(Stop::violation)?;
        around.weather.moment()?;
        self.disk.apply(writes);
        Ok(())
    }

    /// Leaves a group that this client could not follow for what has become of it, into which it was just let. Says whether there was one.
    pub(super) fn leave_for(&mut self, around: &mut Surroundings, slot: usize, joined: &[Event]) -> Result<bool, Stop> {
        let by = joined.iter().find_map(|event| match event {
            Event::Joined { by, .. } => Some(by),
            _ => None,
        });
        let (Some(by), Some(mut next)) = (by, self.groups.get_mut(slot).and_then(Option::take)) else {
            return Ok(false);
        };
        let is_one = |of: &usize| self.group(*of).is_some_and(|old| old.is_continued_by(&next, by));
        let left = (0..self.groups.len()).find(is_one);
        if left.is_none() {
            for old in self.groups.iter_mut().flatten() {
                if !old.may_be_continued_by(&next, by) {
                    continue;
                }
                old.stay_beside(&next);
                next.stand_beside(by);
                let writes = old.take_writes().map_err(Stop::violation)?;
                around.weather.moment()?;
                self.disk.apply(writes);
            }
        }
        self.go_over(around, left, (slot, next))
    }

    /// Leaves a group for one that stood beside it and is by now shown to be what has become of it.
    pub(super) fn leave_what_is_beside(&mut self, around: &mut Surroundings, slot: usize) -> Result<(), Stop> {
        if !self.group(slot).is_some_and(Group::stands_beside) {
            return Ok(());
        }
        let Some(next) = self.groups.get_mut(slot).and_then(Option::take) else { return Ok(()) };
        let is_one = |of: &usize| self.group(*of).is_some_and(|old| old.is_continued_beside(&next));
        let left = (0..self.groups.len()).find(is_one);
        self.go_over(around, left, (slot, next)).map(drop)
    }

    fn go_over(
        &mut self,
        around: &mut Surroundings,
        left: Option<usize>,
        (slot, mut next): (usize, Group),
    ) -> Result<bool, Stop> {
        let mut told = Vec::new();
        if let Some(mut old) = left.and_then(|left| self.groups.get_mut(left)).and_then(Option::take) {
            old.continued_by(&mut next, self.now(&around.server), &mut told);
            let mut writes = old.take_writes().map_err(Stop::violation)?;
            writes.extend(next.take_writes().map_err(Stop::violation)?);
            around.weather.moment()?;
            self.disk.apply(writes);
        }
        for said in around.ledger.said.iter_mut().filter(|said| next.is_pending(said.intent)) {
            (said.slot, said.acknowledged) = (slot, None);
        }
        self.put_group(slot, next);
        let Some(left) = left else { return Ok(false) };
        around.ledger.tell(format!("    {} leaves group {left} for group {slot}", self.name()));
        self.close_session(left);
        self.hear(around, left, &told, &[])?;
        let failed = |id| told.iter().any(|event| matches!(event, Event::IntentFailed { intent, .. } if *intent == id));
        around.ledger.excuse(|said| failed(said.intent));
        Ok(true)
    }

    fn let_in(&mut self, around: &mut Surroundings, slot: usize, knocked: &Knocked) -> Result<(), Stop> {
        match self.read_group(around, slot) {
            // What is amiss is told when the group's turn comes.
            Err(Stop::Alarmed) => return Ok(()),
            Err(Stop::Refused(refusal)) => return self.refused(around, slot, refusal),
            done => done?,
        }
        let now = self.now(&around.server);
        let Some(group) = self.groups.get_mut(slot).and_then(Option::as_mut) else { return Ok(()) };
        let answered = group.answer(knocked, now).map(drop);
        let client = knocked.client();
        let told = match &answered {
            Ok(()) => format!("    {} lets {client} into group {slot} again", self.name()),
            Err(refused) => format!("    {} does not let {client} into group {slot} again: {refused}", self.name()),
        };
        around.ledger.tell(told);
        self.save(around, slot)?;
        if answered.is_ok() {
            match self.drive(around, slot) {
                // The wish is stored: the group's turn comes.
                Err(Stop::Alarmed) => {}
                Err(Stop::Refused(refusal)) => self.refused(around, slot, refusal)?,
                done => done?,
            }
        }
        Ok(())
    }
}
