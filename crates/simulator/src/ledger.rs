//! What the simulation knows and no client does: who said what, and who was a member when.

use std::collections::{BTreeMap, BTreeSet};

use conclave_engine::outcome::Event;
use conclave_names::{ChannelId, ClientUri, Epoch, GroupUri, IdempotencyKey, Seq};

use crate::network::Stop;

/// A group of the simulation.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) group: GroupUri,
    pub(crate) channel: ChannelId,
    pub(crate) founder: ClientUri,
}

/// Something that was said: its intent became durable.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) actor: usize,
    pub(crate) slot: usize,
    pub(crate) intent: IdempotencyKey,
    /// The place that the service acknowledged.
    pub(crate) acknowledged: Option<u64>,
    /// The sender was told that it comes to nothing, or that it was removed before.
    pub(crate) excused: bool,
}

/// What the members say of a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) added: BTreeSet<ClientUri>,
    pub(crate) removed: BTreeSet<ClientUri>,
}

/// The record of one simulation.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) slots: Vec<Option<Slot>>,
    pub(crate) said: Vec<Said>,
    /// By group and the epoch that began.
    pub(crate) changes: BTreeMap<(usize, Epoch), Change>,
    /// Commits in the channels that nobody can apply.
    pub(crate) broken: BTreeSet<(usize, Seq)>,
    /// Entries that say nothing but where their sender stands.
    pub(crate) heartbeats: BTreeSet<Vec<u8>>,
    /// What each key of a client encrypted, by the epoch's authenticator and the generation.
    pub(crate) keys: BTreeMap<(ClientUri, Vec<u8>, u32), Vec<u8>>,
    /// Wishes that came to nothing, with the user told.
    pub(crate) failures: usize,
    /// What happened, without anything that differs between two runs of a seed.
    pub(crate) trace: Vec<String>,
}

/// Reasons for which a wish may come to nothing although everybody follows the rules.
const GOOD_REASONS: &[&str] =
    &["members joined since this message was written", "this client is no member of the group any more"];

impl Ledger {
    pub(crate) fn tell(&mut self, what: impl Into<String>) {
        self.trace.push(what.into());
    }

    pub(crate) fn slot(&self, slot: usize) -> Option<&Slot> {
        self.slots.get(slot).and_then(Option::as_ref)
    }

    pub(crate) fn slot_of(&self, group: &GroupUri) -> Option<usize> {
        self.slots.iter().position(|slot| slot.as_ref().is_some_and(|slot| slot.group == *group))
    }

    /// Takes what an engine tells its user. What no honest world gives rise to is a violation.
    pub(crate) fn hear(&mut self, client: &ClientUri, slot: usize, events: &[Event]) -> Result<(), Stop> {
        let mut changes: BTreeMap<Epoch, Change> = BTreeMap::new();
        for event in events {
            match event {
                Event::Added { members, epoch, .. } => {
                    changes.entry(*epoch).or_default().added.extend(members.iter().cloned());
                }
                Event::Removed { members, epoch, .. } => {
                    changes.entry(*epoch).or_default().removed.extend(members.iter().cloned());
                }
                Event::Updated { epoch, .. } => {
                    changes.entry(*epoch).or_default();
                }
                Event::IntentFailed { reason, .. } => {
                    self.failures += 1;
                    self.tell(format!("    {} is told: {reason}", client.user().name()));
                    // The Welcome of a commit that nobody could apply has used up the address.
                    let used_up = !self.broken.is_empty() && reason.contains("ADDRESS_INVALID");
                    if !used_up && !GOOD_REASONS.iter().any(|good| reason.contains(good)) {
                        return Err(Stop::violation(format!("{client}: a wish failed without need: {reason}")));
                    }
                }
                Event::Refused { seq, reason } => {
                    return Err(Stop::violation(format!("{client} refuses the honest entry {seq}: {reason}")));
                }
                Event::Stuck { seq, reason } if self.broken.is_empty() => {
                    return Err(Stop::violation(format!("{client} cannot follow the honest entry {seq}: {reason}")));
                }
                Event::ReceiptInvalid { seq } | Event::ReceiptBroken { seq, .. } | Event::Equivocation { seq, .. } => {
                    return Err(Stop::violation(format!("{client} raises a false alarm about the receipt of {seq}")));
                }
                Event::PositionGone { reason, .. } => {
                    return Err(Stop::violation(format!("{client} was told that an entry is gone: {reason}")));
                }
                Event::LogsDiffer { member, seq } => {
                    return Err(Stop::violation(format!(
                        "{client} raises a false alarm about {member}'s word of entry {seq}"
                    )));
                }
                _ => {}
            }
        }
        for (epoch, change) in changes {
            let known = self.changes.entry((slot, epoch)).or_insert_with(|| change.clone());
            if *known != change {
                return Err(Stop::violation(format!(
                    "{client} saw another change in epoch {epoch} than others: {change:?}, not {known:?}"
                )));
            }
        }
        Ok(())
    }

    /// A client encrypted something that is about to leave it. No key does so twice (RFC 9420, section 9.1), whether or not
    /// what it encrypted first ever arrived.
    pub(crate) fn encrypted(
        &mut self,
        client: &ClientUri,
        (epoch, generation): (Vec<u8>, u32),
        entry: &[u8],
    ) -> Result<(), Stop> {
        let first = self.keys.entry((client.clone(), epoch, generation)).or_insert_with(|| entry.to_vec());
        if first == entry {
            return Ok(());
        }
        Err(Stop::violation(format!("{client} encrypted two messages with its key of generation {generation}")))
    }

    /// The service acknowledged an intent.
    pub(crate) fn acknowledged(&mut self, intent: IdempotencyKey, seq: Seq) {
        for said in self.said.iter_mut().filter(|said| said.intent == intent) {
            said.acknowledged = Some(seq.0);
        }
    }

    /// An intent is not under way any more, and its user was told why.
    pub(crate) fn excuse(&mut self, which: impl Fn(&Said) -> bool) {
        self.said.iter_mut().filter(|said| which(said)).for_each(|said| said.excused = true);
    }

    /// Members of an epoch, from the changes before. None if a change is not known.
    pub(crate) fn roster(&self, slot: usize, epoch: Epoch) -> Option<BTreeSet<ClientUri>> {
        let mut roster = BTreeSet::from([self.slot(slot)?.founder.clone()]);
        for number in 1..=epoch.0 {
            let change = self.changes.get(&(slot, Epoch(number)))?;
            for removed in &change.removed {
                roster.remove(removed);
            }
            roster.extend(change.added.iter().cloned());
        }
        Some(roster)
    }
}
