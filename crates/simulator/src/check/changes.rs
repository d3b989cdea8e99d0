//! Who keeps which record of the members' changes (RFC 9750, section 8.4.3.1).

use std::collections::{BTreeMap, BTreeSet};

use conclave_engine::outcome::Event;
use conclave_names::{ClientUri, Epoch, Seq};

use super::Scene;
use crate::{actor::Actor, network::Stop};

/// What a client's history says of the changes at each place of a group's log, and what it says of itself.
#[derive(Default)]
struct Record {
    /// Of others and itself, in the same words for all.
    changes: BTreeMap<Seq, BTreeSet<String>>,
    /// Where it was removed.
    removed: BTreeSet<Seq>,
    /// The epochs in which members let it in.
    joined: BTreeSet<Epoch>,
    /// The first void commits of annulments that it was told of.
    annulled: BTreeSet<Seq>,
}

impl Record {
    fn of(actor: &Actor, group: &str) -> Self {
        let mut record = Self::default();
        for (seq, event) in actor.disk.events(group) {
            match event {
                Event::RemovedFromGroup { .. } => {
                    record.removed.insert(seq);
                }
                Event::Joined { epoch, .. } => {
                    record.joined.insert(epoch);
                }
                Event::Annulled { commit, .. } => {
                    record.annulled.insert(commit);
                }
                event => {
                    if let Some(text) = in_words(event) {
                        record.changes.entry(seq).or_default().insert(text);
                    }
                }
            }
        }
        record
    }
}

/// A change, with those whom it is about in one order; none if the event is no change.
fn in_words(event: Event) -> Option<String> {
    let list = |members: Vec<ClientUri>| members.into_iter().collect::<BTreeSet<_>>();
    match event {
        Event::Added { by, members, epoch } => Some(format!("{by} added {:?}, epoch {epoch}", list(members))),
        Event::Removed { by, members, epoch } => Some(format!("{by} removed {:?}, epoch {epoch}", list(members))),
        Event::Readmitted { by, members, epoch } => Some(format!("{by} let in {:?}, epoch {epoch}", list(members))),
        Event::Rejoined { member, epoch } => Some(format!("{member} came back, epoch {epoch}")),
        Event::Updated { by, epoch } => Some(format!("{by} renewed its keys, epoch {epoch}")),
        Event::KeyChanged { member, epoch } => Some(format!("{member} has another key, epoch {epoch}")),
        Event::Frozen { by, epoch } => Some(format!("{by} froze the group, epoch {epoch}")),
        _ => None,
    }
}

impl Scene<'_> {
    /// Whoever was a member before a commit and after it has the same record of it as all others, by whom and in which epoch; who was removed
    /// by it knows; and who has a record of what was annulled knows that it was.
    pub(super) fn records_agree(&self) -> Result<(), Stop> {
        let group = self.known.group.to_string();
        let records: Vec<_> = self
            .world
            .actors
            .values()
            .filter(|actor| !self.is_victim(actor))
            .map(|actor| (actor, Record::of(actor, &group)))
            .collect();
        for commit in self.truth.commits() {
            let mut first: Option<(&Actor, &BTreeSet<String>)> = None;
            let (before, _) = self.truth.around(self.ledger(), self.slot, commit)?;
            for (actor, record) in records.iter().filter(|(actor, _)| !self.was_apart(actor, commit)) {
                let had = record.changes.get(&commit);
                if self.truth.void.contains(&commit) {
                    // Who was away may have missed it.
                    let excused = self.ledger().missed.contains(&(actor.index(), self.slot)) || self.has_stopped(actor);
                    if had.is_some() && record.annulled.range(..=commit).next().is_none() && !excused {
                        return Err(Stop::violation(format!(
                            "{} has a record of commit {commit}, and none that it was annulled",
                            actor.name()
                        )));
                    }
                    continue;
                }
                match (had, first) {
                    (Some(had), Some((other, said))) if had != said => {
                        return Err(Stop::violation(format!(
                            "{} and {} have other records of commit {commit} of group {}: {had:?}, {said:?}",
                            actor.name(),
                            other.name(),
                            self.slot
                        )));
                    }
                    (Some(had), None) => first = Some((actor, had)),
                    _ => {}
                }
                let Some(before) = &before else { continue };
                if !before.contains(actor.client()) || self.came_late(actor, commit) || self.has_stopped(actor) {
                    continue;
                }
                // It may have been added again by the same commit.
                let began = self.entries.iter().find(|row| row.seq == commit).map(|row| row.epoch.next());
                let let_in = began.is_some_and(|began| record.joined.contains(&began));
                let knows = had.is_some() || let_in || record.removed.contains(&commit);
                if !knows {
                    return Err(Stop::violation(format!(
                        "{} was a member of group {} and has no record of commit {commit}",
                        actor.name(),
                        self.slot
                    )));
                }
            }
        }
        Ok(())
    }

    /// Whether a client lived in another log until after a commit.
    fn was_apart(&self, actor: &Actor, commit: Seq) -> bool {
        self.ledger().healed_at.get(&(actor.index(), self.slot)).is_some_and(|end| commit <= *end)
    }

    /// Whether a client stands somewhere in the log from where nothing leads on.
    fn has_stopped(&self, actor: &Actor) -> bool {
        let (client, slot) = (actor.index(), self.slot);
        self.world.is_alone_with_its_offence(client, slot) || self.world.is_helpless(client, slot)
    }
}
