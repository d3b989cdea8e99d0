//! What clients know of their own plight: who is out of a group, or cannot follow it, says so and why.

use conclave_engine::{
    group::{Status, list},
    outcome::Event,
};

use super::Scene;
use crate::{actor::Actor, network::Stop};

impl Scene<'_> {
    /// How a client stands to the group, for all that its disk says; none if it was never in it.
    fn standing(&self, actor: &Actor) -> Result<Option<(Status, bool)>, Stop> {
        let listed = list(&actor.disk).map_err(Stop::violation)?;
        let own = listed.into_iter().find(|group| group.name == self.known.group);
        Ok(own.map(|group| (group.status, group.successor.is_some())))
    }

    /// Whoever cannot follow the group, or is out of it, was told why: its history says so. That goes for those, too, whom the server
    /// shows another log.
    pub(super) fn nobody_stops_in_silence(&self) -> Result<(), Stop> {
        let group = self.known.group.to_string();
        for actor in self.world.actors.values() {
            let Some((status, went_on)) = self.standing(actor)? else { continue };
            let told = |says: &dyn Fn(Event) -> bool| actor.disk.events(&group).any(|(_, event)| says(event));
            let knows = match &status {
                Status::Active => true,
                Status::Stuck { reason: why } => told(&|event| explains(&event, why)),
                Status::Removed => {
                    went_on
                        || told(&|event| {
                            matches!(
                                event,
                                Event::RemovedFromGroup { .. } | Event::GivenUp { .. } | Event::InvitationAnnulled {}
                            )
                        })
                }
            };
            if !knows {
                let name = actor.name();
                return Err(Stop::violation(format!(
                    "{name} was not told why it stands at {status:?} in group {}",
                    self.slot
                )));
            }
        }
        Ok(())
    }

    /// A commit that nobody can apply stands by a false word: who goes on does so with all others that do, at the end of the log, and
    /// everybody else who was a member before it is told ([`Self::nobody_stops_in_silence`]).
    pub(super) fn everybody_knows_that_it_is_lost(&self) -> Result<(), Stop> {
        let bad = self
            .truth
            .commits()
            .find(|commit| self.ledger().is_bad_commit(self.slot, *commit) && !self.truth.void.contains(commit));
        let before = match bad {
            Some(bad) => self.truth.around(self.ledger(), self.slot, bad)?.0,
            None => None,
        };
        let mut seen = None;
        for actor in self.world.actors.values().filter(|actor| !self.is_victim(actor)) {
            let (name, slot) = (actor.name(), self.slot);
            let was_member = before.as_ref().is_some_and(|before| before.contains(actor.client()));
            let uninvited = self.ledger().uninvited.contains(&(actor.index(), slot));
            if was_member && !uninvited && self.standing(actor)?.is_none() {
                return Err(Stop::violation(format!("{name} was a member of group {slot} and knows nothing of it")));
            }
            let Some(group) = actor.group(slot).filter(|_| actor.is_active(slot)) else { continue };
            if (group.epoch(), group.position().seq) != (self.truth.epoch(), self.head) {
                return Err(Stop::violation(format!(
                    "{name} goes on in epoch {} of group {slot}, at {}, which is lost in {} at {}",
                    group.epoch(),
                    group.position().seq,
                    self.truth.epoch(),
                    self.head
                )));
            }
            let view = group.epoch_authenticator().map_err(Stop::violation)?;
            if seen.as_ref().is_some_and(|seen| *seen != view) {
                return Err(Stop::violation(format!("{name} disagrees about group {slot}")));
            }
            seen = Some(view);
        }
        Ok(())
    }
}

/// Whether an event tells why somebody cannot follow, as it says of itself.
fn explains(event: &Event, why: &str) -> bool {
    match event {
        Event::Stuck { reason, .. } | Event::PositionGone { reason, .. } => why == reason,
        // What to do about it is added to the reason.
        Event::Undecided { reason, .. } => why.contains(reason.as_str()),
        Event::KeysUsedElsewhere { .. } => why.contains("was not made by this profile"),
        _ => false,
    }
}
