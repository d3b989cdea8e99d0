//! Which commits stand (`conclave_channel::law`), as a member carries it out.
//!
//! The state before each open commit is kept until the commit is settled, so that the member can go back if it is
//! annulled. Who cannot apply a commit disputes it and stays in the epoch that it ended; who applied one that is
//! disputed says so, unless another member did before (`verdicts`).

use std::sync::OnceLock;

use conclave_channel::{
    access::ChannelKey,
    law::{Change, OpenCommit, SETTLED_MS},
};
use conclave_names::{ClientUri, Epoch, Hash, Seq, Timestamp};
use zeroize::Zeroizing;

use super::{
    Group, Status,
    access::fault,
    journal::{Used, skip_handshake_keys},
};
use crate::{
    mls_client::{Mls, MlsError, MlsGroup},
    outcome::Event,
    stores::GroupRows,
};

/// How much longer than the others a member waits that cannot read how a dispute ended, in milliseconds: clocks differ.
pub(super) const BLIND_MS: u64 = 5 * 60 * 1000;

/// How often who was removed looks whether it is a member again, while that may be, in milliseconds.
const RETURN_MS: u64 = 10 * 60 * 1000;

/// What becomes of a client that cannot follow its group, and what people can do: the end of each reason.
pub(super) const COMES_BACK: &str = "it comes back by itself, or asks members to let it in, and sends what waits then; if neither \
                                     helps within a day, have a member remove this client and add it again";

/// The state before an open commit.
#[derive(Clone)]
pub(super) struct Parent {
    /// The commit.
    pub(super) commit: Seq,
    /// The epoch that it ended.
    pub(super) ended: Epoch,
    /// The epoch of the state: that one, unless we came back from outside by the commit.
    pub(super) at: Epoch,
    /// Whether the state is of a branch that is not the group, from which we came back.
    pub(super) astray: bool,
    /// The MLS state, as mls-rs wrote it in that epoch.
    pub(super) state: Zeroizing<Vec<u8>>,
    pub(super) last_added: Epoch,
    /// The first epoch that we could read then: coming back from outside begins anew.
    pub(super) joined: Epoch,
    /// The commit that it began by, and its place, as far as they were known then.
    pub(super) joined_by: Option<Hash>,
    pub(super) joined_at: Option<Seq>,
    pub(super) signs_since: Epoch,
    /// Keys of our handshake ratchet that were used in that epoch and that the state does not know of.
    pub(super) spent: u32,
    /// Keys of others' messages, the same; only until the next transaction (`late`).
    pub(super) late: Vec<Used>,
    /// When somebody's proposal was ordered that nobody had committed.
    pub(super) proposed_at: Option<Timestamp>,
    /// Whom the commit removed.
    pub(super) removed: Vec<ClientUri>,
    /// And added, of those whom a commit had removed that was open then.
    pub(super) added: Vec<ClientUri>,
    /// Whether it is ours, and brought new keys into our leaf.
    pub(super) renews: bool,
}

impl Parent {
    /// Uses up the keys of late messages in the state, loaded.
    pub(super) fn spend_late(&self, mls: &mut MlsGroup) -> Result<(), MlsError> {
        for used in &self.late {
            match used.spend(mls) {
                // What the state has not cannot be found in it.
                Ok(()) | Err(mls_rs::error::MlsError::KeyMissing(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Whether what we lost is a branch that is not the group (`fork`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Branch {
    /// No: it is a commit.
    #[default]
    None,
    /// Yes, and our place is one in the other log.
    Wrong,
    /// Yes, but our place is one in the group's log again.
    Resumed,
}

/// A commit that we could not apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lost {
    /// Its place.
    pub(super) commit: Seq,
    /// Hash of its entry as we were given it.
    pub(super) hash: Hash,
    /// Why.
    pub(super) reason: String,
    /// Whether we were given the same again, so that our place is behind it. At first it is read once more.
    pub(super) certain: bool,
    /// Whether it was told of: not before the shell could ask for an issuer that is not known.
    pub(super) told: bool,
    /// Whether others could apply it: then we must rejoin.
    pub(super) settled: bool,
    /// When the DS took our word that we could not apply it.
    pub(super) nacked: Option<Timestamp>,
    /// Whether it is a branch.
    pub(super) branch: Branch,
    /// If the group was made anew without us: its last epoch (`anew`).
    pub(super) anew: Option<Epoch>,
    /// If our place is known by a member's word only: hash of the sealed GroupInfo that named it (`place`).
    pub(super) word: Option<Hash>,
}

impl Lost {
    /// What stands, and only a way back leads beyond.
    pub(super) fn settled(commit: Seq, hash: Hash, reason: String, branch: Branch) -> Self {
        Self {
            commit,
            hash,
            reason,
            certain: true,
            told: true,
            settled: true,
            nacked: None,
            branch,
            anew: None,
            word: None,
        }
    }
}

impl Group {
    /// Commits of which the log has not decided yet whether they stand.
    #[must_use]
    pub fn open_commits(&self) -> usize {
        self.ledger.open().len()
    }

    /// The newest epoch of which it is certain that it stands.
    #[must_use]
    pub fn settled_epoch(&self) -> Epoch {
        self.ledger.settled()
    }

    /// Whether the removal that ended our membership may yet be annulled, so that reading on is worth while.
    #[must_use]
    pub fn may_return(&self) -> bool {
        self.status == Status::Removed && self.removed_at.is_some_and(|commit| self.ledger.find(commit).is_some())
    }

    /// Whether the entry after our place is to be read once more: it could not be applied, and may have been changed on
    /// its way; or another was given out in its place.
    #[must_use]
    pub fn wants_refetch(&self) -> bool {
        self.lost.as_ref().is_some_and(|lost| !lost.certain) || self.reads_proposal_again() || self.was_ahead()
    }

    /// Whether the group can be written to at this time: always, unless we could not apply a commit that may yet stand.
    pub(super) fn is_active(&self, now: Timestamp) -> bool {
        match (&self.status, &self.lost) {
            (Status::Active, _) => true,
            // By then the commit is annulled, as soon as the next entry comes: let it be ours.
            (Status::Stuck { .. }, Some(lost)) => {
                let annulled = self.ledger.at(now).epoch() == self.epoch();
                lost.certain && !lost.settled && (annulled || self.blind_due().is_some_and(|due| due <= now))
            }
            _ => false,
        }
    }

    /// Whether the commit that invited us is not settled, for all that we have read. If the DS does not let us read
    /// then, it is void, or promised other channel keys than ours: of who was a member before, the DS takes the key of
    /// the settled epoch, which we do not have.
    #[must_use]
    pub fn is_unproven(&self) -> bool {
        let unread = self.window.time() == Timestamp(0);
        self.predecessor.is_none()
            && self.joined > Epoch(0)
            && (unread || self.joined > self.ledger.settled())
            && (self.status == Status::Active || self.may_return())
    }

    /// Ends our membership by an invitation that came to nothing. We can be invited again; and if it was a member's answer to our knock,
    /// we knock again.
    pub fn void_invitation(&mut self) -> Vec<Event> {
        let events = self.end_invitation();
        self.note_here(&events);
        events
    }

    fn end_invitation(&mut self) -> Vec<Event> {
        self.void = true;
        self.removed_at = None;
        let mut events = vec![Event::InvitationAnnulled {}];
        // What we did since came to nothing, too: it is done once we are back, or told of.
        self.revive(None, Epoch(self.joined.0.saturating_sub(1)), &mut events);
        match self.locked_out_again() {
            Some(event) => events.push(event),
            None => events.extend(self.end()),
        }
        events
    }

    /// Keeps the state of the epoch that a commit ends which stays open, and whom it adds and removes.
    pub(super) fn keep_parent(
        &mut self,
        (commit, ended): (Seq, Epoch),
        added: &[ClientUri],
        removed: Vec<ClientUri>,
    ) -> Result<(), MlsError> {
        let group_id = self.mls.group_id().to_vec();
        // Where the commit was applied to the group itself, the store has the state before.
        if self.epoch() == ended && self.lags() {
            self.write_state()?;
        }
        let state = self.shared.groups.state_of(&group_id).ok_or_else(|| fault("the state was not written"))?;
        let (last_added, joined, spent) = (self.last_added, self.joined, self.spent_keys());
        let was_removed = |client: &&ClientUri| self.parents.iter().any(|parent| parent.removed.contains(client));
        let added = added.iter().filter(was_removed).cloned().collect();
        let (late, proposed_at) = (Vec::new(), self.proposed_at);
        self.parents.push(Parent {
            commit,
            ended,
            at: ended,
            astray: false,
            state,
            last_added,
            joined,
            joined_by: self.joined_by,
            joined_at: self.joined_at,
            signs_since: self.signs_since,
            spent,
            late,
            proposed_at,
            added,
            removed,
            renews: false,
        });
        Ok(())
    }

    /// Carries out what time alone has decided. Of an annulment the log shows it only with the next entry, which nobody can
    /// make who stays in that epoch: the DS admits none of its keys any more. And in a group where nobody talks, no entry would end
    /// what is kept for commits that nobody disputed in a week. Clocks differ, so we wait a little.
    pub(super) fn time_decides(&mut self, events: &mut Vec<Event>) -> Result<(), MlsError> {
        let Some(until) = self.read_to_end else { return Ok(()) };
        let certain = Timestamp(until.0.saturating_sub(BLIND_MS));
        let Some((ledger, changes)) = self.decided_by_time(certain) else { return Ok(()) };
        self.keep_before_time();
        self.ledger = ledger;
        let (told, removed_at) = (events.len(), self.removed_at);
        self.take_changes(&changes, None, events)?;
        // Others may have acknowledged the commit behind our removal, where we cannot read.
        self.returned = removed_at.filter(|_| self.status != Status::Removed).or(self.returned);
        self.touched = true;
        self.dirty |= changes.iter().any(|change| matches!(change, Change::Annulled { .. }));
        let seq = self.window.position().seq;
        for event in events.iter().skip(told) {
            // Later than any entry: histories tell by it what was there before.
            self.note(event, seq, until);
        }
        Ok(())
    }

    /// Whether we were removed, and are back only because by time alone that was annulled: we read nothing that was ordered behind the
    /// removal, and the DS may yet say that it stands.
    #[must_use]
    pub const fn is_back_by_time(&self) -> bool {
        self.returned.is_some()
    }

    /// The DS takes nothing of ours in the epoch that we are back in by time alone: our removal stands.
    pub(super) fn stay_removed(&mut self, events: &mut Vec<Event>) {
        self.returned = None;
        self.removed_at = None;
        for event in self.end() {
            self.tell(event, self.window.time(), events);
        }
    }

    /// When time alone annuls the epoch that we are in.
    pub(super) fn annulment_due(&self) -> Option<Timestamp> {
        let disputed = self.ledger.open().iter().filter_map(OpenCommit::disputed).min()?;
        let over = disputed.plus_ms(self.ledger.pause().ms() + 1);
        self.decided_by_time(over).map(|_| over.plus_ms(BLIND_MS))
    }

    /// When time alone settles the oldest open commit.
    pub(super) fn settling_due(&self) -> Option<Timestamp> {
        // Who cannot follow waits for an entry, or comes back.
        let open = self.ledger.open().first().filter(|_| self.status == Status::Active)?;
        let over = open.disputed().is_none().then(|| open.time.plus_ms(SETTLED_MS + 1))?;
        self.decided_by_time(over).map(|_| over.plus_ms(BLIND_MS))
    }

    /// When the channel is to be read once more by who was removed and may be a member again: no stream brings it anything.
    pub(super) fn return_due(&self) -> Option<Timestamp> {
        let awaits = self.status == Status::Removed && self.may_return();
        awaits.then(|| self.read_to_end.unwrap_or(self.window.time()).plus_ms(RETURN_MS))
    }

    /// Whose commit we could not apply, if it is open.
    pub(super) fn lost_committer(&self) -> Option<ChannelKey> {
        let lost = self.lost.as_ref()?;
        self.ledger.find(lost.commit).map(|(_, open)| open.committer)
    }

    /// Carries out what the log has decided. `alone`: by the commit of whom, if it was one.
    pub(super) fn take_changes(
        &mut self,
        changes: &[Change],
        alone: Option<ChannelKey>,
        events: &mut Vec<Event>,
    ) -> Result<(), MlsError> {
        for change in changes {
            match change {
                Change::Disputed { commit } => events.push(Event::Disputed { commit: *commit }),
                Change::Settled { commit, .. } => self.settled(*commit, alone.as_ref(), events),
                Change::Annulled { commits, epoch } => self.annulled(commits, *epoch, events)?,
            }
        }
        Ok(())
    }

    fn settled(&mut self, commit: Seq, alone: Option<&ChannelKey>, events: &mut Vec<Event>) {
        let (done, open) = std::mem::take(&mut self.parents).into_iter().partition(|parent| parent.commit <= commit);
        self.parents = open;
        self.forget_states(done);
        self.drop_verdicts(&[commit]);
        self.refresh_settled(commit);
        self.way_settled(commit);
        if self.removed_at == Some(commit) {
            self.removed_at = None;
        }
        self.prune_channel_keys();
        self.forget_settled();
        self.forget_withdrawn();
        self.prune_overtaken();
        self.prune_own();
        self.prune_seeds();
        self.forget_old_leaves();
        let by = alone.map(|key| self.member_with(key));
        if let Some(lost) = self.lost.as_mut().filter(|lost| lost.commit == commit && !lost.settled) {
            lost.settled = true;
            let reason = match by {
                Some(by) => {
                    let by = by.map_or_else(|| "a member".to_owned(), |by| by.to_string());
                    format!(
                        "{by} says that it removed all other members, by a commit that this client could not apply ({}). That ends the group for \
                         them as a true removal does: make a new group without that member",
                        lost.reason
                    )
                }
                None => format!(
                    "the commit that this client could not apply ({}) stands, as a member acknowledged it, or too few disputed it within a week: \
                     {COMES_BACK}",
                    lost.reason
                ),
            };
            events.push(Event::Stuck { seq: commit, reason: reason.clone() });
            self.status = Status::Stuck { reason };
        }
    }

    /// Goes back to the state before commits that are void, if we have gone on by them. Says whether we did.
    pub(super) fn go_back(&mut self, commits: &[Seq], epoch: Epoch, events: &mut Vec<Event>) -> Result<bool, MlsError> {
        self.drop_verdicts(commits);
        if let Some(first) = commits.first() {
            self.note_annulment(*first, epoch);
            events.push(Event::Annulled { commit: *first, epoch });
            self.refresh_annulled(*first);
            self.way_annulled(*first, self.rests.now(), events);
            self.forget_void_answers();
            self.forget_present(epoch);
            self.gap_annulled(*first);
        }
        // The server has forgotten the tree of the epoch that came back when it took that of a void one.
        self.tree_lost();
        if self.lost.as_ref().is_some_and(|lost| commits.contains(&lost.commit)) {
            self.follow_again(events);
        }
        if self.removed_at.is_some_and(|commit| commits.contains(&commit)) {
            self.removed_at = None;
            // Who was looking for a way back before does so again.
            self.status = match &self.lost {
                Some(lost) => Status::Stuck { reason: lost.reason.clone() },
                None => Status::Active,
            };
        }
        if !self.concerns_us(commits, epoch) {
            return Ok(false);
        }
        let Some(index) = self.place_of_parent(epoch) else {
            if let (true, Some(first)) = (self.joined <= epoch, commits.first()) {
                self.lose_settled(*first, epoch, events);
                return Ok(false);
            }
            // What added us was annulled with the rest, and what we did before, if we were let in again.
            self.revive(commits.first().copied(), epoch, events);
            events.extend(self.end_invitation());
            return Ok(false);
        };
        let mut void = self.parents.split_off(index);
        let newest = self.epoch();
        let parent = void.remove(0);
        self.remember_void(epoch);
        self.mls = self.load_parent(&parent)?;
        self.new_ratchets()?;
        self.keys = OnceLock::new();
        self.seeds.retain(|since, _| *since <= epoch);
        self.past.retain(|past| past.epoch < epoch);
        self.frozen = self.frozen.take().filter(|frozen| frozen.epoch <= epoch);
        self.tree_keys.retain(|since, _| *since <= epoch);
        self.last_added = parent.last_added;
        if self.joined != parent.joined {
            // By a void commit we had come back.
            (self.joined_by, self.joined_at) = (parent.joined_by, parent.joined_at);
        }
        self.joined = parent.joined;
        self.signs_since = parent.signs_since;
        // What was proposed is to be committed again, by one after the other from now on.
        let now = self.window.time().max(self.read_to_end.unwrap_or(Timestamp(0)));
        self.proposed_at = parent.proposed_at.map(|at| at.max(now));
        self.dirty = true;
        self.recount_generations();
        self.forget_states(void);
        if let Some(saved) = self.saved.filter(|saved| *saved > epoch) {
            self.delete_state(saved);
        }
        self.saved = Some(parent.at);
        if parent.at < epoch || parent.astray {
            // By the void commit we had come back to a group that we cannot follow.
            self.lose_again(&parent, events);
        }
        for void in epoch.0..newest.0 {
            self.delete_epoch(Epoch(void));
        }
        self.overtaken_void(epoch);
        self.unprepare(|prepared| prepared.epoch > epoch || prepared.bundle.is_some());
        Ok(true)
    }

    /// Whether we went on by commits that are void. What came before the commit that added us is none of ours.
    fn concerns_us(&self, commits: &[Seq], epoch: Epoch) -> bool {
        let before_us = self.joined_by.is_some() && self.joined_at.is_none_or(|at| commits.last() < Some(&at));
        self.epoch() > epoch && !before_us
    }

    /// Whether we are members by commits only that are void.
    pub(super) fn would_end(&self, commits: &[Seq], epoch: Epoch) -> bool {
        self.concerns_us(commits, epoch) && self.place_of_parent(epoch).is_none()
    }

    /// Which of the kept states we are in again if the group is in this epoch again: that which its commit ended, if we followed that, or
    /// the one from which we came back from outside later. We were members then. None if a void commit added us.
    fn place_of_parent(&self, epoch: Epoch) -> Option<usize> {
        let (index, parent) = self.parents.iter().enumerate().find(|(_, parent)| parent.ended >= epoch)?;
        (parent.at <= epoch).then_some(index)
    }

    /// The group as it was before an open commit, apart from the one that is open, and its storage.
    pub(super) fn open_apart(&self, parent: &Parent) -> Result<(Mls, MlsGroup), MlsError> {
        let apart = self.shared.apart();
        let group_id = self.name.to_string().into_bytes();
        apart.groups.load(&group_id, GroupRows { state: parent.state.clone(), ..GroupRows::default() });
        let mls = apart.client(&self.account, self.mls.cipher_suite()).load_group(&group_id)?;
        Ok((apart, mls))
    }

    /// The group as it was before an open commit, in place of the one that mls-rs has in memory.
    fn load_parent(&self, parent: &Parent) -> Result<MlsGroup, MlsError> {
        let group_id = self.name.to_string().into_bytes();
        let epochs = self.shared.groups.epochs_before(&group_id, parent.at.0);
        self.shared.groups.load(&group_id, GroupRows { state: parent.state.clone(), epochs });
        let mut mls = self.shared.client(&self.account, self.mls.cipher_suite()).load_group(&group_id)?;
        skip_handshake_keys(&mut mls, parent.spent)?;
        parent.spend_late(&mut mls)?;
        Ok(mls)
    }

    /// Notes a commit that we cannot apply. Says whether our place moves on behind it.
    pub(super) fn lose(&mut self, commit: Seq, hash: Hash, reason: &str, events: &mut Vec<Event>) -> bool {
        let before = self.lost.as_ref().filter(|lost| lost.commit == commit && lost.hash == hash);
        let (again, was_told) = (before.is_some(), before.is_some_and(|lost| lost.told));
        let told = again || !self.shared.identities.is_missing_an_issuer();
        self.lost = Some(Lost {
            commit,
            hash,
            reason: reason.to_owned(),
            certain: again,
            told,
            settled: false,
            nacked: None,
            branch: Branch::None,
            anew: None,
            word: None,
        });
        self.status = Status::Stuck { reason: reason.to_owned() };
        self.touched = true;
        if told && !was_told {
            events.push(Event::Stuck { seq: commit, reason: reason.to_owned() });
        }
        again
    }

    /// What we could not apply is void, or could be applied after all.
    pub(super) fn follow_again(&mut self, events: &mut Vec<Event>) {
        self.status = Status::Active;
        let Some(lost) = self.lost.take() else { return };
        if let (Some(from), Some(to)) = (self.skipped.take(), lost.commit.previous()) {
            events.push(Event::Missed { from, to });
        }
    }

    /// The first entry that we have not read, if we cannot follow: places may have been passed over before that at which we stand now.
    pub(super) fn first_unread(&self) -> Option<Seq> {
        let lost = self.lost.as_ref().map(|lost| lost.commit);
        self.skipped.into_iter().chain(lost).min()
    }

    /// The commit by which we came back is void.
    fn lose_again(&mut self, parent: &Parent, events: &mut Vec<Event>) {
        let commit = parent.commit;
        // In a branch, nothing of the group's is to be processed.
        let branch = if parent.astray { Branch::Resumed } else { Branch::None };
        let reason = "the commit by which this client came back was annulled".to_owned();
        let hash = Hash::new([0; 32]);
        self.lost = Some(Lost::settled(commit, hash, reason.clone(), branch));
        self.status = Status::Stuck { reason: reason.clone() };
        events.push(Event::Stuck { seq: commit, reason });
    }

    /// Takes the DS's word that entries right after our place are no longer kept: we cannot follow the group any more.
    /// If it gives them out after all, we go on.
    pub fn position_gone(&mut self, oldest: Option<Seq>, events: &mut Vec<Event>) {
        if self.status == Status::Removed {
            // Whether the removal was annulled cannot be read any more.
            self.removed_at = None;
            self.touched = true;
            return;
        }
        if matches!(self.status, Status::Stuck { .. }) && self.lost.is_none() {
            return;
        }
        let after = self.window.position().seq;
        let reason = format!(
            "the server no longer keeps what came after entry {after}: this client was away for too long; {COMES_BACK}"
        );
        self.lost = None;
        self.status = Status::Stuck { reason: reason.clone() };
        self.touched = true;
        self.tell(Event::PositionGone { after, oldest, reason }, self.window.time(), events);
    }

    /// Takes the DS's word that none of our keys opens the channel ([`Group::access`], then [`Group::access_before`] down to the last), though
    /// no entry removed us: our epoch is none of the group's, or long past. Only members can help. If entries come after all, we go
    /// on. If one did, and time alone had annulled it, it stands.
    pub fn locked_out(&mut self, events: &mut Vec<Event>) {
        if self.returned.is_some() {
            self.stay_removed(events);
            return;
        }
        let certain = self.lost.as_ref().is_none_or(|lost| lost.settled);
        if self.status == Status::Removed || (matches!(self.status, Status::Stuck { .. }) && certain) {
            return;
        }
        let after = self.window.position().seq;
        let reason = format!(
            "the server takes no key of this client any more after entry {after}: its epoch is not one of the group's, or long past, \
             and a member must let it in again"
        );
        self.lost = None;
        self.status = Status::Stuck { reason: reason.clone() };
        self.touched = true;
        self.tell(Event::Stuck { seq: after.next(), reason }, self.window.time(), events);
    }
}
