//! Branches of a group: members that count the same epoch and share none of its secrets.
//!
//! MLS alone does not show one: a message of another branch just does not decrypt. So all that members send says which epoch it is of
//! (`conclave_mls::components::EpochTag`). Who sees another tag for an epoch that it was in knows of a fork and tells. Which branch is
//! the group is decided by the law of which commit stands, on the log that the DS gives out now: so the entries that we remember are
//! read once more, and who processed other ones is in the wrong branch and must come back. Who processed these waits for the
//! others to do so. The same is done where an entry does not follow on those that we have, and where the DS
//! does not know our epoch; what it signs for again and again counts as well. A tag of a message that did not decrypt is the word of anybody who has the group seed, that of a handshake
//! in the clear which MLS refuses the server's; by itself it changes nothing.

use std::collections::BTreeMap;

use conclave_channel::{Claim, Entry, LogFault, Position, chain};
use conclave_mls::components::EpochTag;
use conclave_names::{ClientUri, Epoch, Hash, Seq, Timestamp};

use super::{
    Group, Incoming, Status,
    access::fault,
    presence::UNSEEN_MS,
    standing::{Branch, COMES_BACK, Lost},
};
use crate::{
    mls_client::MlsError,
    outcome::{Event, Outcome, ProcessError, Rejection},
};

/// Epochs whose tags are remembered.
const TAGS: usize = 4;

/// Void epochs whose tags are remembered.
const VOID_TAGS: usize = 16;

/// Receipts for another log that are taken for the truth, if no other comes between.
const BROKEN: u32 = 3;

/// What is known of branches. Not stored: another message will tell again.
#[derive(Debug, Default)]
pub(super) struct Branches {
    /// Of the last epochs that we were in.
    tags: BTreeMap<Epoch, EpochTag>,
    /// Of epochs that were annulled: what was on its way in them may still come, and shows no fork.
    void: Vec<EpochTag>,
    /// The newest epoch that a fork was told of.
    told: Option<Epoch>,
    /// How far the log was read once more this time.
    audit: Option<Position>,
    /// How often there was reason to in this epoch.
    suspicions: u32,
    /// Receipts since the last good one that were for another log.
    broken: u32,
    /// When silence was a reason last.
    silence: Option<Timestamp>,
    /// The entry that did not follow on what we have.
    refused: Option<(Seq, Hash)>,
    /// Whether a part of what we have could not be read once more: our keys open only what comes after it.
    unreadable: bool,
    /// The entry that was given out ahead of our place, by a server that takes the key of an invitation which is not settled.
    ahead: Option<(Seq, Hash)>,
}

impl Group {
    /// How we name the present epoch in what we send.
    pub(super) fn epoch_tag(&self) -> Result<EpochTag, MlsError> {
        Ok(EpochTag::of(&self.epoch_authenticator()?))
    }

    /// Remembers the epoch that is about to end.
    pub(super) fn remember_epoch(&mut self) {
        self.branches.suspicions = 0;
        let epoch = self.epoch();
        if let Ok(tag) = self.epoch_tag() {
            self.branches.tags.insert(epoch, tag);
        }
        while self.branches.tags.len() > TAGS {
            self.branches.tags.pop_first();
        }
    }

    /// The epochs after this one, of which we are in the last, are void.
    pub(super) fn remember_void(&mut self, after: Epoch) {
        self.remember_epoch();
        self.branches.void.extend(self.branches.tags.split_off(&after.next()).into_values());
        let excess = self.branches.void.len().saturating_sub(VOID_TAGS);
        self.branches.void.drain(..excess);
    }

    /// Whether a message says to be of another epoch with this number than we were in.
    pub(super) fn is_of_another_branch(&self, epoch: Epoch, said: EpochTag) -> bool {
        let ours = if epoch == self.epoch() { self.epoch_tag().ok() } else { self.branches.tags.get(&epoch).copied() };
        ours.is_some_and(|ours| ours != said) && !self.branches.void.contains(&said)
    }

    /// Whether the commit that added us is yet to come, so that what is said in this epoch, as far as we have read, is said in one that
    /// will be void. If that one is settled instead, it is another branch than that of who invited us.
    pub(super) fn reads_before_joining(&self, epoch: Epoch) -> bool {
        let invited = self.joined_by.is_some_and(|commit| commit != Hash::new([0; 32]));
        invited && self.joined_at.is_none() && epoch == self.joined && self.ledger.settled() < epoch
    }

    /// A member says that it is in another epoch with this number.
    pub(super) fn of_another_branch(
        &mut self,
        outcome: Outcome,
        entry: &Entry,
        seq: Seq,
        events: &mut Vec<Event>,
    ) -> Outcome {
        let committer = entry.commit.map(|header| header.committer);
        let member = committer.and_then(|key| self.member_with(&key));
        self.tell_fork(seq, entry.epoch, member, events);
        match outcome {
            Outcome::Rejected(Rejection::Mls(reason)) => Outcome::Rejected(Rejection::Branch(reason)),
            Outcome::NeedsRecovery(Rejection::Mls(reason)) => Outcome::NeedsRecovery(Rejection::Branch(reason)),
            Outcome::NeedsRecovery(unknown @ Rejection::UnknownProposal) => {
                Outcome::NeedsRecovery(Rejection::Branch(unknown.to_string()))
            }
            other => other,
        }
    }

    /// Tells of a fork, once an epoch, and has the log read once more.
    pub(super) fn tell_fork(&mut self, seq: Seq, epoch: Epoch, member: Option<ClientUri>, events: &mut Vec<Event>) {
        if self.branches.told >= Some(epoch) {
            return;
        }
        self.branches.told = Some(epoch);
        self.branches.audit = Some(self.window.oldest());
        events.push(Event::Forked { seq, epoch, member });
    }

    /// Entries that we have may be of another log than the server gives out now. Has that looked at; but more and more seldom, where the
    /// reason stays and nothing is found.
    pub(super) fn suspect_branch(&mut self) {
        if self.branches.audit.is_some() || self.status == Status::Removed || self.is_in_wrong_branch() {
            return;
        }
        self.branches.suspicions = self.branches.suspicions.saturating_add(1);
        if self.branches.suspicions.is_power_of_two() {
            self.branches.audit = Some(self.window.oldest());
        }
    }

    /// Nobody shows to have seen what we said: what we know may not be what the others are given. That is asked once a day at most.
    pub(super) fn suspect_silence(&mut self, now: Timestamp) {
        if self.branches.silence.is_none_or(|last| last.plus_ms(UNSEEN_MS) <= now) {
            self.branches.silence = Some(now);
            self.suspect_branch();
        }
    }

    /// The DS signed for the log that we have.
    pub(super) fn signs_for_our_log(&mut self) {
        self.branches.broken = 0;
    }

    /// The DS signed for another log than we have. Where it does so again and again, that is the one that it gives out to the others, and
    /// ours differs in what can be read no more.
    pub(super) fn signs_for_another_log(&mut self, seq: Seq, events: &mut Vec<Event>) {
        self.branches.broken = self.branches.broken.saturating_add(1);
        if self.branches.broken >= BROKEN && self.status == Status::Active {
            self.branches.broken = 0;
            self.lose_branch(seq, events);
        }
    }

    /// Takes the DS's word that it knows an earlier epoch of ours ([`Group::access_before`]), but not the present one, after the log was read
    /// to its end. Time may have annulled it; or it is of another branch: the log is to be read once more.
    pub fn epoch_refused(&mut self) {
        self.suspect_branch();
    }

    /// An entry cannot follow on those that we have. Until the commit that added us is settled, we know of what was open before it by our
    /// inviter's word only: if it is the same entry once more, the inviter had another log than the server gives out. And so have we, if that
    /// is not to be seen in what we have, as the server gives out nothing of that any more.
    pub(super) fn doubt_invitation(&mut self, incoming: &Incoming, fault: &ProcessError, events: &mut Vec<Event>) {
        let by_word = self.joined_by.is_some() && self.joined > self.ledger.settled();
        if !(by_word || self.branches.unreadable) || !matches!(fault, ProcessError::Law { .. }) {
            return;
        }
        let seen = (incoming.seq, chain::entry_hash(&incoming.entry));
        if self.branches.refused.replace(seen) == Some(seen) {
            self.lose_branch(incoming.seq, events);
        }
    }

    /// The server gives out what comes behind our place, not what follows it. Where the commit that invited us was annulled before we had read
    /// so far, another one may have begun an epoch of the same number with the same channel keys, by which our key reads from a later place
    /// on. So what is ahead is asked for once more: if it is the same again, what invited us is void, and another invitation may
    /// lead into that epoch. Says whether that may be.
    pub(super) fn begins_ahead(&mut self, batch: &[Incoming], fault: &ProcessError, events: &mut Vec<Event>) -> bool {
        let Some(incoming) = batch.first() else { return false };
        let ProcessError::Log(LogFault::Gap { expected, found }) = fault else { return false };
        // What is there, though out of turn, can be read.
        let ahead = found > expected && batch.iter().all(|other| other.seq != *expected);
        let invited = self.joined_by.is_some_and(|commit| commit != Hash::new([0; 32]));
        if !ahead || !invited || !self.is_unproven() {
            return false;
        }
        let seen = (incoming.seq, chain::entry_hash(&incoming.entry));
        if self.branches.ahead.replace(seen) == Some(seen) {
            self.branches.ahead = None;
            events.extend(self.void_invitation());
        }
        true
    }

    /// Whether an entry was given out ahead of our place that is to be asked for once more.
    pub(super) fn was_ahead(&self) -> bool {
        self.branches.ahead.is_some()
    }

    /// The server gives out what follows our place, and did not before. It cannot have been right both times.
    pub(super) fn ahead_before(&mut self) -> Option<ProcessError> {
        let (found, _) = self.branches.ahead.take()?;
        Some(LogFault::Gap { expected: self.window.position().seq.next(), found }.into())
    }

    /// After which place the log is to be read once more and given to [`Group::audit`], if it is.
    #[must_use]
    pub fn wants_audit(&self) -> Option<Seq> {
        // Who is no member any more has no key to read with.
        self.branches.audit.filter(|_| self.status != Status::Removed).map(|place| place.seq)
    }

    /// Compares entries that were read once more with what was processed. If the server gives out another log now, this client is in a
    /// branch that is not the group, and must come back.
    ///
    /// # Errors
    /// [`MlsError`] if these entries are none, or not those that follow [`Group::wants_audit`]; then the audit ends without a result.
    pub fn audit(&mut self, batch: &[Incoming], events: &mut Vec<Event>) -> Result<(), MlsError> {
        let Some(mut place) = self.branches.audit.take() else { return Ok(()) };
        let end = self.window.position().seq;
        self.branches.unreadable = batch.first().is_some_and(|first| first.seq > place.seq.next());
        // The place that we joined from is before what our key may read.
        let first =
            batch.first().and_then(|first| Some(Seq(first.seq.0.checked_sub(1)?))).filter(|seq| *seq > place.seq);
        if let Some((seq, hash)) = first.and_then(|seq| Some((seq, self.window.hash_at(seq)?))) {
            place = Position { seq, hash };
        }
        for incoming in batch {
            if incoming.seq > end {
                break;
            }
            if incoming.seq != place.seq.next() {
                return Err(fault("the server gave out other entries than those asked for"));
            }
            let entry = Entry::parse(&incoming.entry).map_err(fault)?;
            let said = chain::entry_hash(&incoming.entry);
            let hash = chain::next(&place.hash, incoming.seq, entry.kind, incoming.time, &said);
            place = Position { seq: incoming.seq, hash };
            if self.window.check(&place) == Claim::Different {
                self.lose_branch(incoming.seq, events);
                return Ok(());
            }
        }
        if batch.is_empty() && place.seq < end {
            // Entries that we have are gone from it; unless a removal has ended what our keys read.
            if self.status != Status::Active || self.returned.is_some() {
                return Ok(());
            }
            self.lose_branch(place.seq.next(), events);
            return Ok(());
        }
        self.branches.audit = (place.seq < end).then_some(place);
        Ok(())
    }

    /// Ends an audit that the server does not serve.
    pub fn end_audit(&mut self) {
        self.branches.audit = None;
    }

    /// Whether our place is one in a log that is not the group's: nothing that follows it can be processed.
    pub(super) fn is_in_wrong_log(&self) -> bool {
        self.lost.as_ref().is_some_and(|lost| lost.branch == Branch::Wrong)
    }

    /// Whether our MLS state is of a branch that is not the group.
    pub(super) fn is_in_wrong_branch(&self) -> bool {
        self.lost.as_ref().is_some_and(|lost| lost.branch != Branch::None)
    }

    fn lose_branch(&mut self, seq: Seq, events: &mut Vec<Event>) {
        let reason = format!(
            "the server gives out another log than before from entry {seq} on: this client followed a branch that is not the \
             group; {COMES_BACK}"
        );
        for event in [Event::LogRewritten { seq }, Event::Stuck { seq, reason: reason.clone() }] {
            self.tell(event, self.window.time(), events);
        }
        self.lost = Some(Lost::settled(seq, Hash::new([0; 32]), reason.clone(), Branch::Wrong));
        self.status = Status::Stuck { reason };
        self.touched = true;
    }
}

#[cfg(test)]
#[path = "fork_tests.rs"]
mod tests;
