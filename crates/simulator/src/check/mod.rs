//! What must hold when everything is calm.

mod changes;
mod messages;
mod truth;

use std::collections::{BTreeMap, BTreeSet};

use conclave_delivery::store::{ChannelKind, EntryRow};
use conclave_engine::group::Group;
use conclave_names::{ClientUri, Hash};

use self::truth::Truth;
use crate::{
    actor::Actor,
    hostile::{Offence, Tamper},
    ledger::{Alarm, Deed, Ledger, Misdeed, Slot},
    network::Stop,
    world::{Report, World},
};

/// What is checked of one group.
struct Scene<'a> {
    world: &'a World,
    slot: usize,
    known: &'a Slot,
    entries: &'a [EntryRow],
    truth: Truth,
    /// Whether two members broke the rules together, so that nobody can go on.
    lost: bool,
}

pub(crate) fn all(world: &mut World) -> Result<Report, Stop> {
    let mut report = Report {
        clients: world.actors.len(),
        epochs: 0,
        members: 0,
        sent: 0,
        read: 0,
        misdeeds: world.around.ledger.misdeeds.len(),
        alarms: world.around.ledger.alarms.len(),
        witnessed: world.around.witnesses.heard,
        handshakes: world.around.keys.handshakes,
        void: 0,
        rejoined: world.around.ledger.recoveries.rejoined,
        knocks: world.around.ledger.recoveries.knocks,
        readmitted: world.around.ledger.recoveries.readmitted,
        healed: world.around.ledger.recoveries.healed,
        succeeded: world.around.ledger.recoveries.succeeded,
        wishes_failed: world.around.ledger.failures,
        trace: Vec::new(),
    };
    let mut heads = BTreeMap::new();
    for slot in 0..world.around.ledger.slots.len() {
        let Some(known) = world.around.ledger.slot(slot).cloned().filter(|known| !known.orphan) else { continue };
        let (row, entries) = world.around.server.log(&known.channel).map_err(Stop::Refused)?;
        truth::chain_recomputes(&known, &entries, row.head, &row.head_hash)?;
        world.around.ledger.find_partial(slot, &entries);
        let now = world.around.server.now;
        let truth = Truth::of(&known, &entries, now)?;
        let ChannelKind::Group { ledger } = &row.kind else { continue };
        if ledger.at(now).epoch() != truth.epoch() {
            return Err(Stop::violation("the service takes the group for one in another epoch"));
        }
        let members = truth.members(&world.around.ledger, slot)?.unwrap_or_default();
        heads.insert(slot, (row.head_hash, members));
        // What time has annulled shows at the service with the next entry.
        if ledger.epoch() == truth.epoch() {
            service_agrees(world, slot, &known)?;
        }
        report.epochs += truth.epoch().0;
        report.void += truth.void_commits().count();
        let lost = world.around.ledger.is_lost(slot);
        let scene = Scene { world, slot, known: &known, entries: &entries, truth, lost };
        scene.void_commits_are_explained()?;
        if scene.lost {
            scene.everybody_knows_that_it_is_lost()?;
            continue;
        }
        report.members += scene.members_agree()?;
        scene.records_agree()?;
        scene.messages(&mut report)?;
    }
    messages::none_twice(world)?;
    misdeeds_are_noticed(world, &heads)?;
    Ok(report)
}

impl Scene<'_> {
    fn ledger(&self) -> &Ledger {
        &self.world.around.ledger
    }

    fn is_victim(&self, actor: &Actor) -> bool {
        self.ledger().is_victim(actor.index(), self.slot) || self.world.is_left_behind(actor, self.slot)
    }

    /// Every commit stands, but those that nobody could apply, what followed them, and what was disputed without need.
    fn void_commits_are_explained(&self) -> Result<(), Stop> {
        let disputes = |misdeed: &Misdeed| misdeed.deed == Deed::Offended(Offence::FalseNack);
        let disputed = self.ledger().misdeeds_in(self.slot).any(disputes);
        let mut void_since = None;
        for commit in self.truth.void_commits() {
            let bad =
                self.ledger().is_bad_commit(self.slot, commit) || self.ledger().is_partial_commit(self.slot, commit);
            void_since = void_since.or(bad.then_some(commit));
            if !disputed && void_since.is_none() && !self.ledger().has_victims(self.slot) {
                return Err(Stop::violation(format!("commit {commit} of group {} is void without need", self.slot)));
            }
        }
        for misdeed in self.ledger().misdeeds_in(self.slot) {
            let Deed::Offended(offence) = misdeed.deed else { continue };
            let alone = self.world.is_alone_with_its_offence(misdeed.client, self.slot)
                || self.world.is_among_ghosts(misdeed.client, self.slot);
            if offence.is_void()
                && !self.lost
                && !alone
                && !misdeed.seq.is_some_and(|seq| self.truth.void.contains(&seq))
            {
                return Err(Stop::violation(format!("{offence:?} in {:?} stands", misdeed.seq)));
            }
        }
        Ok(())
    }

    /// A commit that nobody can apply stands by a false word: who goes on does so with all others that do, and everybody
    /// else is told.
    fn everybody_knows_that_it_is_lost(&self) -> Result<(), Stop> {
        let mut seen = None;
        for actor in self.world.actors.values().filter(|actor| actor.is_active(self.slot) && !self.is_victim(actor)) {
            let Some(group) = actor.group(self.slot) else { continue };
            let view = (group.epoch(), group.epoch_authenticator().map_err(Stop::violation)?);
            if seen.as_ref().is_some_and(|seen| *seen != view) {
                return Err(Stop::violation(format!("{} disagrees about group {}", actor.name(), self.slot)));
            }
            seen = Some(view);
        }
        Ok(())
    }

    /// A group that was made anew went on with all its members, and each of them is or was in the successor.
    fn everybody_went_on(&self, next: usize, roster: &BTreeSet<ClientUri>) -> Result<(), Stop> {
        let (slot, ledger) = (self.slot, self.ledger());
        let Some(successor) = ledger.slot(next) else { return Ok(()) };
        if successor.founders != *roster {
            return Err(Stop::violation(format!("group {slot} goes on without some of its members, or with others")));
        }
        let members = self.world.actors.values().filter(|actor| roster.contains(actor.client()));
        let knows = |actor: &&Actor| !ledger.uninvited.contains(&(actor.index(), slot)) && !self.is_victim(actor);
        for actor in members.filter(knows) {
            let listed = conclave_engine::group::list(&actor.disk).map_err(Stop::violation)?;
            let went_on = listed
                .iter()
                .any(|group| group.name == self.known.group && group.successor.as_ref() == Some(&successor.group));
            let is_there = listed.iter().any(|group| group.name == successor.group);
            if !went_on || !is_there || actor.is_active(slot) {
                return Err(Stop::violation(format!("{} did not go on from group {slot}", actor.name())));
            }
        }
        Ok(())
    }

    /// All members agree on the group, they are those whom the changes lead to, and nobody else believes to be one.
    fn members_agree(&self) -> Result<usize, Stop> {
        let Some(roster) = self.truth.members(self.ledger(), self.slot)? else { return Ok(0) };
        if let Some(next) = self.known.successor {
            return self.everybody_went_on(next, &roster).map(|()| 0);
        }
        let mut seen = None;
        let mut members = 0;
        for actor in self.world.actors.values().filter(|actor| !self.is_victim(actor)) {
            let (client, slot) = (actor.client(), self.slot);
            let group = actor.group(slot);
            if self.world.is_alone_with_its_offence(actor.index(), slot) {
                continue;
            }
            if !actor.is_active(slot) {
                // Who is alone leaves without a word to the service.
                let left = actor.has_ended(slot, self.ledger()) && roster.len() == 1;
                let knows = self.ledger().uninvited.contains(&(actor.index(), slot));
                let helpless = self.world.is_helpless(actor.index(), slot);
                if roster.contains(client) && !left && !knows && !helpless {
                    let status = group.map(|group| group.status().clone());
                    return Err(Stop::violation(format!(
                        "{} is a member of group {slot}, but stands at {status:?}",
                        actor.name()
                    )));
                }
                continue;
            }
            let Some(group) = group else { continue };
            if !roster.contains(client) {
                return Err(Stop::violation(format!(
                    "{} was removed from group {slot} and does not know",
                    actor.name()
                )));
            }
            members += 1;
            let own: BTreeSet<_> =
                group.members().map_err(Stop::violation)?.into_iter().map(|member| member.client).collect();
            if own != roster {
                return Err(Stop::violation(format!(
                    "{} sees other members than those whom the changes lead to",
                    actor.name()
                )));
            }
            let view = (
                group.epoch(),
                group.epoch_authenticator().map_err(Stop::violation)?,
                group.key_root().map_err(Stop::violation)?,
                group.position(),
                group.profile().clone(),
            );
            if view.0 != self.truth.epoch() {
                return Err(Stop::violation(format!(
                    "{} is in epoch {} of group {slot}, which is in {}",
                    actor.name(),
                    view.0,
                    self.truth.epoch()
                )));
            }
            if seen.as_ref().is_some_and(|seen| *seen != view) {
                return Err(Stop::violation(format!("{} disagrees about group {slot}", actor.name())));
            }
            seen = Some(view);
            if group.owes_rotation() && !self.world.is_among_ghosts(actor.index(), slot) {
                return Err(Stop::violation(format!("{} never gets its new key into group {slot}", actor.name())));
            }
            if group.intents().count() > 0 && !self.world.is_among_ghosts(actor.index(), slot) {
                return Err(Stop::violation(format!("{} has an intent that never ends", actor.name())));
            }
        }
        Ok(members)
    }
}

/// Of a group with visible handshakes, the service knows what the members know; of a private one, nothing.
fn service_agrees(world: &mut World, slot: usize, known: &Slot) -> Result<(), Stop> {
    if world.around.ledger.is_lost(slot) {
        return Ok(());
    }
    let followed = world.around.server.followed(&known.channel).map_err(Stop::Refused)?;
    for actor in world.actors.values() {
        if world.around.ledger.is_victim(actor.index(), slot) {
            continue;
        }
        let Some(group) = actor.group(slot).filter(|_| actor.is_active(slot)) else { continue };
        let context = group.context_hash().map_err(Stop::violation)?;
        if followed.map(|followed| followed.context) != group.is_visible().then_some(context) {
            return Err(Stop::violation(format!("the service and {} disagree about group {slot}", actor.name())));
        }
    }
    Ok(())
}

/// Each misdeed that must be noticed was: by the client that it was done to, or by any other of the group.
fn misdeeds_are_noticed(world: &World, heads: &BTreeMap<usize, (Hash, BTreeSet<ClientUri>)>) -> Result<(), Stop> {
    let ledger = &world.around.ledger;
    for misdeed in ledger.misdeeds.iter().filter(|misdeed| !misdeed.unseen) {
        let Misdeed { deed, slot, client, seq, alarms, .. } = *misdeed;
        let since = ledger.alarms.get(alarms..).unwrap_or_default();
        let by_client = |wanted: Alarm| since.contains(&(client, slot, wanted));
        let noticed = match deed {
            Deed::Tampered(Tamper::Unsigned) => by_client(Alarm::Receipt),
            Deed::Tampered(Tamper::Rewritten) => by_client(Alarm::Branch),
            Deed::Tampered(tamper) if tamper.is_about_pages() => by_client(Alarm::Fault),
            Deed::Lied(lie) if lie.is_another_log() => {
                // Who saw nothing of it, or is no member any more, or is alone, was not harmed.
                let actor = world.actors.get(&client).filter(|actor| actor.is_active(slot));
                let position = actor.and_then(|actor| actor.group(slot)).map(|group| group.position().hash);
                let apart = heads.get(&slot).is_some_and(|(head, members)| {
                    let member = actor.is_some_and(|actor| members.contains(actor.client()));
                    member && members.len() > 1 && position.is_some_and(|position| position != *head)
                });
                // Nobody speaks while it waits for somebody to commit what was proposed.
                let waits = |actor: &Actor| actor.group(slot).is_some_and(Group::waits_for_commit);
                let silent = world.actors.values().any(|actor| actor.is_active(slot) && waits(actor));
                !apart || silent || since.iter().any(|(_, at, _)| *at == slot)
            }
            // Of the others it was checked that they did no harm.
            _ => true,
        };
        if !noticed {
            return Err(Stop::violation(format!(
                "nobody noticed in group {slot} that {deed:?} was done to or by client {client} ({seq:?})"
            )));
        }
    }
    Ok(())
}
