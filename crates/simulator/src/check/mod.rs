//! What must hold when everything is calm.

mod changes;
mod messages;
mod noticed;
mod plight;
mod truth;

use std::collections::{BTreeMap, BTreeSet};

use conclave_channel::{Entry, law::SETTLED_MS};
use conclave_delivery::store::{ChannelKind, EntryRow};
use conclave_names::{ClientUri, GroupUri, Seq, Timestamp};

use self::truth::Truth;
use crate::{
    actor::Actor,
    hostile::Offence,
    ledger::{Deed, Ledger, Slot},
    network::Stop,
    sums::Sums,
    world::{Report, World},
};

/// What is checked of one group.
struct Scene<'a> {
    world: &'a World,
    slot: usize,
    known: &'a Slot,
    entries: &'a [EntryRow],
    /// Where the log ends.
    head: Seq,
    truth: Truth,
    /// Whether two members broke the rules together, so that nobody can go on.
    lost: bool,
}

pub(crate) fn all(world: &mut World) -> Result<Report, Stop> {
    let ledger = &world.around.ledger;
    let sums = Sums {
        deaths: ledger.deaths,
        late_deaths: ledger.late_deaths,
        misdeeds: ledger.misdeeds.len(),
        alarms: ledger.alarms.len(),
        witnessed: world.around.witnesses.heard,
        handshakes: world.around.keys.handshakes,
        rejoined: ledger.recoveries.rejoined,
        knocks: ledger.recoveries.knocks,
        readmitted: ledger.recoveries.readmitted,
        healed: ledger.recoveries.healed,
        succeeded: ledger.recoveries.succeeded,
        wishes: ledger.failures,
        ..Sums::default()
    };
    let mut report = Report { clients: world.actors.len(), members: 0, sums, trace: Vec::new() };
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
        report.sums.epochs += truth.epoch().0;
        report.sums.void += truth.void_commits().count();
        let lost = world.around.ledger.is_lost(slot);
        let scene = Scene { world, slot, known: &known, entries: &entries, head: row.head, truth, lost };
        scene.nobody_stops_in_silence()?;
        scene.void_commits_are_explained()?;
        if scene.lost {
            report.sums.lost += 1;
            scene.everybody_knows_that_it_is_lost()?;
            continue;
        }
        scene.members_agree(&mut report)?;
        scene.records_agree()?;
        scene.messages(&mut report)?;
    }
    messages::none_twice(world)?;
    noticed::misdeeds(world, &heads)?;
    Ok(report)
}

/// Entries of a group's log that count for nothing.
pub(crate) fn void_of(slot: &Slot, entries: &[EntryRow], now: Timestamp) -> Result<BTreeSet<Seq>, Stop> {
    Truth::of(slot, entries, now).map(|truth| truth.void)
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
        let disputed = |commit| {
            let dispute = Deed::Offended(Offence::FalseNack);
            self.ledger().misdeeds_in(self.slot).any(|of| of.deed == dispute && of.about == Some(commit))
        };
        let mut void_since = None;
        for commit in self.truth.void_commits() {
            let bad = self.ledger().is_bad_commit(self.slot, commit)
                || self.ledger().is_partial_commit(self.slot, commit)
                || disputed(commit);
            void_since = void_since.or(bad.then_some(commit));
            if void_since.is_none() && !self.ledger().has_victims(self.slot) {
                return Err(Stop::violation(format!("commit {commit} of group {} is void without need", self.slot)));
            }
        }
        for misdeed in self.ledger().misdeeds_in(self.slot) {
            let Deed::Offended(offence) = misdeed.deed else { continue };
            let alone = self.is_settled_alone(misdeed.seq)
                || self.is_judged_too_late(misdeed.seq)
                || misdeed.unwitnessed
                || self.world.has_no_judge(misdeed.client, self.slot)
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

    /// Whether those who were to judge a commit came only when a week had settled it: each of them comes back from outside.
    fn is_judged_too_late(&self, commit: Option<Seq>) -> bool {
        let Some(row) = self.entries.iter().find(|row| Some(row.seq) == commit) else { return false };
        let judged = self.ledger().judged_at.get(&(self.slot, row.seq));
        judged.is_none_or(|at| *at > row.time.plus_ms(SETTLED_MS))
    }

    /// Whether a later commit left nobody but its author in the group: that settles all before.
    fn is_settled_alone(&self, commit: Option<Seq>) -> bool {
        let alone = |row: &EntryRow| {
            let header = Entry::parse(&row.bytes).ok().and_then(|entry| entry.commit);
            header.is_some_and(|header| header.members == 1 && header.removed > 0)
        };
        let later = self.entries.iter().filter(|row| Some(row.seq) > commit && !self.truth.void.contains(&row.seq));
        later.into_iter().any(alone)
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
            // Who could not follow here may have been let into what became of the successor.
            let later: Vec<_> = ledger.line(slot).into_iter().skip(1).filter_map(|later| ledger.slot(later)).collect();
            let is_in = |name: &GroupUri| {
                later.iter().any(|of| of.group == *name) && listed.iter().any(|group| group.name == *name)
            };
            let here = listed.iter().find(|group| group.name == self.known.group);
            let went_on = here.and_then(|group| group.successor.as_ref()).is_some_and(is_in);
            if !went_on || actor.is_active(slot) {
                return Err(Stop::violation(format!("{} did not go on from group {slot}", actor.name())));
            }
        }
        Ok(())
    }

    /// Whom the members have for members, if the changes do not say: where only such clients know of all changes to which the server
    /// lied. They must agree on it all the same.
    fn roster_of_members(&self) -> Result<Option<BTreeSet<ClientUri>>, Stop> {
        if let Some(next) = self.known.successor.and_then(|next| self.ledger().slot(next)) {
            return Ok(Some(next.founders.clone()));
        }
        let honest = |actor: &&Actor| {
            actor.is_active(self.slot)
                && !self.is_victim(actor)
                && !self.world.is_alone_with_its_offence(actor.index(), self.slot)
        };
        let Some(group) = self.world.actors.values().find(honest).and_then(|actor| actor.group(self.slot)) else {
            return Ok(None);
        };
        Ok(Some(group.members().map_err(Stop::violation)?.into_iter().map(|member| member.client).collect()))
    }

    /// All members agree on the group, they are those whom the changes lead to, and nobody else believes to be one.
    fn members_agree(&self, report: &mut Report) -> Result<(), Stop> {
        report.sums.groups += 1;
        let by_changes = self.truth.members(self.ledger(), self.slot)?;
        report.sums.by_word += usize::from(by_changes.is_none());
        let roster = match by_changes {
            Some(roster) => Some(roster),
            None => self.roster_of_members()?,
        };
        // Else nobody is left who could disagree.
        let Some(roster) = roster else { return Ok(()) };
        let excused = |actor: &&Actor| roster.contains(actor.client()) && self.is_excused(actor);
        report.sums.excused += self.world.actors.values().filter(excused).count();
        if let Some(next) = self.known.successor {
            return self.everybody_went_on(next, &roster);
        }
        let mut seen = None;
        for actor in self.world.actors.values().filter(|actor| !self.is_victim(actor)) {
            let (client, slot) = (actor.client(), self.slot);
            let group = actor.group(slot);
            if self.world.is_alone_with_its_offence(actor.index(), slot) {
                continue;
            }
            if !actor.is_active(slot) {
                // Who is alone leaves without a word to the service.
                let left = actor.has_ended(slot, self.ledger()) && roster.len() == 1;
                if roster.contains(client) && !left && !self.is_excused(actor) {
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
            report.members += 1;
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
            // After a dispute, it waits before it renews its keys again.
            let waits = group.refresh_due().is_some_and(|due| due > actor.now(&self.world.around.server));
            if group.owes_rotation() && !waits && !self.world.is_among_ghosts(actor.index(), slot) {
                return Err(Stop::violation(format!("{} never gets its new key into group {slot}", actor.name())));
            }
            if group.intents().count() > 0 && !self.world.is_among_ghosts(actor.index(), slot) {
                return Err(Stop::violation(format!("{} has an intent that never ends", actor.name())));
            }
        }
        Ok(())
    }

    /// Whether a member need not be there, as it cannot: the server shows it another log, what invited it was no good, or nobody is left who
    /// could help it.
    fn is_excused(&self, actor: &Actor) -> bool {
        let (client, slot) = (actor.index(), self.slot);
        self.is_victim(actor)
            || self.world.is_alone_with_its_offence(client, slot)
            || self.ledger().uninvited.contains(&(client, slot))
            || self.world.is_helpless(client, slot)
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
