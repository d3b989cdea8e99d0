//! Coming back into a group that this client cannot follow any more, as the client's shell does.

use conclave_engine::{
    group::{Group, RejoinError, WayBack},
    invitation::TreeFetch,
};
use conclave_names::Epoch;
use conclave_protocol::Code;

use super::{Actor, Surroundings};
use crate::{network::Stop, server::Session};

/// How often a way back is begun in one call: others may commit meanwhile.
const TRIES: usize = 4;

impl Actor {
    /// Comes back by an external commit, if that is what the group wants.
    pub(crate) fn come_back(&mut self, around: &mut Surroundings, slot: usize) -> Result<(), Stop> {
        for _ in 0..TRIES {
            if !self.group(slot).is_some_and(Group::wants_rejoin) {
                return Ok(());
            }
            match self.begin_rejoin(around, slot)? {
                Ok(()) => {
                    around.ledger.tell(format!("    {} comes back to group {slot}", self.name()));
                    around.ledger.missed.insert((self.index, slot));
                    self.drive(around, slot)?;
                }
                Err(RejoinError::ReadOn | RejoinError::Epoch { .. } | RejoinError::NotNeeded) => {
                    self.read_group(around, slot)?;
                }
                Err(blocked) => {
                    around.ledger.tell(format!("    {} cannot come back to group {slot}: {blocked}", self.name()));
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Makes the commit, and makes it durable.
    fn begin_rejoin(&mut self, around: &mut Surroundings, slot: usize) -> Result<Result<(), RejoinError>, Stop> {
        let mut session = match self.session(around, slot) {
            Err(Stop::Refused(refusal)) if refusal.code == Code::AccessRefused => return Ok(Err(no_access())),
            session => session?,
        };
        let served = match around.call(|server| server.group_info(&mut session)) {
            Err(Stop::Refused(refusal)) if refusal.code == Code::SessionUnknown => {
                self.close_session(slot);
                return Ok(Err(RejoinError::ReadOn));
            }
            Err(Stop::Refused(refusal)) if refusal.code == Code::AccessRefused => {
                self.close_session(slot);
                return Ok(Err(no_access()));
            }
            served => served?,
        };
        let now = self.now(&around.server);
        let Some(group) = self.groups.get_mut(slot).and_then(Option::as_mut) else { return Ok(Ok(())) };
        let way = group.way_back(Epoch(served.epoch), &served.group_info, now);
        self.save(around, slot)?;
        let way = match way {
            Ok(way) => way,
            Err(error) => return Ok(Err(error)),
        };
        let tree = match Self::tree_of(around, &way, &mut session) {
            Err(Stop::Refused(_)) => return Ok(Err(RejoinError::Contradicts("the tree is gone".into()))),
            tree => tree?,
        };
        let Some(group) = self.groups.get_mut(slot).and_then(Option::as_mut) else { return Ok(Ok(())) };
        let begun = group.rejoin(&way, &tree, false, now).map(drop);
        self.save(around, slot)?;
        Ok(begun)
    }

    fn tree_of(around: &mut Surroundings, way: &WayBack, session: &mut Session) -> Result<TreeFetch, Stop> {
        let mut tree = way.tree().map_err(Stop::violation)?;
        if tree.wants_whole() {
            let whole = around.call(|server| server.whole_tree(session, way.epoch()))?;
            tree.give(&whole).map_err(Stop::violation)?;
        }
        while let Some(name) = tree.wanted().pop() {
            let chunk = around.call(|server| server.blob(&name))?;
            if tree.give(&chunk).is_err() {
                break;
            }
        }
        Ok(tree)
    }
}

fn no_access() -> RejoinError {
    RejoinError::Contradicts("the key of this client opens nothing any more".into())
}
