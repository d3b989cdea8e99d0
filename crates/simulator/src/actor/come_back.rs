//! Coming back into a group that this client cannot follow any more, as the client's shell does.

use conclave_channel::{Position, chain};
use conclave_delivery::store::EntryRow;
use conclave_engine::{
    group::{ChannelEnd, Group, RejoinError, WayBack},
    invitation::TreeFetch,
};
use conclave_names::{Epoch, Hash, Seq};
use conclave_protocol::{Code, v1::ReadGroupInfoResponse};

use super::{Actor, Surroundings};
use crate::{
    ledger::{Had, Slot},
    network::Stop,
    server::Session,
};

/// How often a way back is begun in one call: others may commit meanwhile.
const TRIES: usize = 4;

impl Actor {
    /// Comes back by an external commit, if that is what the group wants; if that is barred, asks members.
    pub(crate) fn come_back(&mut self, around: &mut Surroundings, slot: usize) -> Result<(), Stop> {
        let mut helpless = false;
        for _ in 0..TRIES {
            if !self.group(slot).is_some_and(Group::wants_rejoin) {
                return Ok(());
            }
            match self.begin_rejoin(around, slot)? {
                Ok(()) => {
                    around.ledger.tell(format!("    {} comes back to group {slot}", self.name()));
                    around.ledger.missed.insert((self.index, slot));
                    let had = self.had(around, slot);
                    self.drive(around, slot)?;
                    if self.is_active(slot) {
                        around.ledger.recoveries.rejoined += 1;
                        self.judge_place(around, slot, had)?;
                    }
                }
                Err(RejoinError::ReadOn | RejoinError::Epoch { .. } | RejoinError::NotNeeded) => {
                    self.read_group(around, slot)?;
                }
                Err(blocked) => {
                    around.ledger.tell(format!("    {} cannot come back to group {slot}: {blocked}", self.name()));
                    helpless = blocked == RejoinError::NoMember;
                    break;
                }
            }
        }
        if self.group(slot).is_some_and(Group::wants_rejoin) {
            self.knock(around, slot, helpless)?;
        }
        Ok(())
    }

    /// The messages of a group that this client has.
    pub(super) fn had(&self, around: &Surroundings, slot: usize) -> Had {
        let group = around.ledger.slot(slot).map(|known| known.group.to_string()).unwrap_or_default();
        self.disk.messages(&group).map(|stored| (Seq(stored.seq), stored.id)).collect()
    }

    /// Who was brought in by somebody that lives in another log begins in that one. Says whether it did.
    pub(super) fn judge_log(&self, around: &mut Surroundings, slot: usize) -> Result<bool, Stop> {
        let Some(known) = around.ledger.slot(slot).cloned() else { return Ok(false) };
        let Some(place) = self.group(slot).filter(|_| self.is_active(slot)).map(Group::position) else {
            return Ok(false);
        };
        let (_, entries) = around.server.log(&known.channel).map_err(Stop::Refused)?;
        let another = hash_at(&known, &entries, place.seq) != place.hash;
        if another {
            around.ledger.victims.insert((self.index, slot));
        }
        Ok(another)
    }

    /// Who has come into the group's own log anew lives in no other any more.
    pub(super) fn judge_place(&self, around: &mut Surroundings, slot: usize, had: Had) -> Result<(), Stop> {
        let Some(known) = around.ledger.slot(slot).cloned() else { return Ok(()) };
        let Some(group) = self.group(slot).filter(|_| self.is_active(slot)) else { return Ok(()) };
        let (epoch, place) = (group.epoch(), group.position());
        around.ledger.back.insert((self.index, slot), epoch);
        let another = self.judge_log(around, slot)?;
        if !another
            && around.ledger.is_victim(self.index, slot)
            && !around.server.shows_another_log(self.index, &known.channel)
        {
            // Its history has the other log's events, too.
            let known = self.disk.events(&known.group.to_string()).map(|(seq, _)| seq).max();
            around.ledger.heal(self.index, slot, place.seq.max(known.unwrap_or(place.seq)), had);
        }
        Ok(())
    }

    /// Makes the commit, and makes it durable.
    fn begin_rejoin(&mut self, around: &mut Surroundings, slot: usize) -> Result<Result<(), RejoinError>, Stop> {
        let (mut session, served) = match self.served(around, slot) {
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
        // Its counter moves on.
        self.close_session(slot);
        let now = self.now(&around.server);
        let hash = |bytes: &[u8]| Hash::try_from(bytes).map_err(|_| Stop::violation("it is no hash"));
        let place = Position { seq: Seq(served.head), hash: hash(&served.chain)? };
        let end = ChannelEnd { place, ledger: hash(&served.ledger)? };
        let Some(group) = self.groups.get_mut(slot).and_then(Option::as_mut) else { return Ok(Ok(())) };
        let before = group.position();
        let way = group.way_back(Epoch(served.epoch), &served.group_info, end, now);
        if group.position() != before {
            // It reads on from another place, and knows nothing of the log before that.
            self.lately.remove(&slot);
        }
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
        let begun = group.rejoin(&way, &tree, None, now).map(drop);
        self.save(around, slot)?;
        Ok(begun)
    }

    /// The GroupInfo that the service has, with the session that it was read in.
    fn served(&mut self, around: &mut Surroundings, slot: usize) -> Result<(Session, ReadGroupInfoResponse), Stop> {
        let read = |around: &mut Surroundings, mut session: Session| {
            let served = around.call(|server| server.group_info(&mut session))?;
            Ok((session, served))
        };
        let session = self.session(around, slot);
        // Its counter moves on, whether or not the reply comes.
        self.close_session(slot);
        let served = session.and_then(|session| read(around, session));
        if !matches!(&served, Err(Stop::Refused(refusal)) if refusal.code == Code::AccessRefused) {
            return served;
        }
        // The epoch that we are in is none of the server's: it was annulled, or is of another branch.
        match self.earlier_session(around, slot)? {
            Some(session) => read(around, session),
            None => served,
        }
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

/// The hash of a group's log at a place.
fn hash_at(known: &Slot, entries: &[EntryRow], place: Seq) -> Hash {
    let read = entries.iter().take_while(|entry| entry.seq <= place);
    read.fold(chain::start(&known.channel), |hash, entry| {
        chain::next(&hash, entry.seq, entry.kind, entry.time, &chain::entry_hash(&entry.bytes))
    })
}

fn no_access() -> RejoinError {
    RejoinError::Contradicts("the key of this client opens nothing any more".into())
}
