//! From wishes to submissions.

use std::sync::Arc;

use conclave_channel::EntryKind;
use conclave_mls::{
    components::{HandshakeAad, SafeAad},
    content::{Content, MEDIA_TYPE, MessageId},
    frame::{Frame, HEARTBEAT},
    gap::{GAP_ANSWER, GAP_REQUEST},
};
use conclave_names::{Epoch, IdempotencyKey, Timestamp};
use conclave_protocol::{
    Code, Refusal, Retry,
    v1::{SubmitBundleRequest, SubmitRequest},
};
use mls_rs::MlsMessage;
use mls_rs::group::proposal::Proposal;
use prost::Message as _;
use zeroize::Zeroizing;

use super::{
    Group, Status,
    access::fault,
    commit::{Change, is_outdated},
    rejoin::JoinAccess,
};
use crate::{
    intent::{Intent, Prepared, Wish},
    mls_client::{MlsError, random, suite},
    outcome::Event,
};

/// How long a proposal waits for each member that stands before us, before we commit it ourselves, in milliseconds:
/// so that not everybody commits at once, and a sleeping member holds nobody up.
const COMMIT_DELAY_MS: u64 = 1000;

/// Members that are waited for.
const COMMIT_DELAY_RANKS: u64 = 10;

/// In place of the epoch in which something was wished: no epoch comes after it, so that it is said to whoever is there.
pub(super) const TO_ALL: Epoch = Epoch(u64::MAX);

/// What is told to whom a message was to go to others than are there now.
pub(super) const JOINED_SINCE: &str =
    "members joined since this message was written; read who they are and send it again";

/// Why a wish is not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WishError {
    /// We were removed.
    #[error("this client is no member of the group any more: ask a member to add it again")]
    Removed,
    /// MLS refused.
    #[error(transparent)]
    Mls(#[from] MlsError),
}

/// Something to submit. Its writes must be durable first.
#[derive(Debug, Clone)]
pub struct Submission {
    /// The intent that it carries out.
    pub intent: IdempotencyKey,
    /// The session in which it is to be submitted, if not that of [`Group::access`].
    pub join: Option<JoinAccess>,
    /// Blobs to stage before.
    pub blobs: Vec<Vec<u8>>,
    /// The request.
    pub body: SubmissionBody,
}

/// The request of a submission.
#[derive(Debug, Clone)]
pub enum SubmissionBody {
    /// A message or a proposal.
    Entry(SubmitRequest),
    /// A commit.
    Bundle(Box<SubmitBundleRequest>),
}

impl Group {
    /// Takes a wish: it is stored, and carried out by the submissions that follow. Who cannot follow the group now carries it out once
    /// it can, or has come back, and once more if the epoch is annulled in which it was done; [`Event::IntentFailed`] tells of what cannot
    /// be carried out any more.
    ///
    /// # Errors
    /// [`WishError`] if we are no member.
    pub fn wish(&mut self, wish: Wish) -> Result<IdempotencyKey, WishError> {
        self.writable()?;
        self.wish_as_of(wish, self.epoch())
    }

    fn writable(&self) -> Result<(), WishError> {
        match &self.status {
            // What was disputed is decided within minutes, and ways back are taken without anybody's doing.
            Status::Active | Status::Stuck { .. } => Ok(()),
            Status::Removed => Err(WishError::Removed),
        }
    }

    /// The same by somebody who saw the members of an epoch.
    fn wish_as_of(&mut self, wish: Wish, wished: Epoch) -> Result<IdempotencyKey, WishError> {
        let id = IdempotencyKey::new(random(&suite(self.mls.cipher_suite())?)?);
        let order = self.free_order(false);
        let intent = Intent { id, wish, wished, prepared: None, ordered: false, not_to: Vec::new(), automatic: false };
        self.intents.insert(order, intent);
        self.save_intent(order);
        Ok(id)
    }

    /// Takes over what was wished in a group that this one goes on from, as by somebody who saw the members of an epoch; but what is
    /// to be said to whoever is there is so still.
    pub(super) fn take_over(&mut self, order: u64, intent: Intent, wished: Epoch) {
        let wished = if intent.wished == TO_ALL { TO_ALL } else { wished };
        self.intents.insert(order, Intent { wished, prepared: None, ordered: false, ..intent });
        self.save_intent(order);
    }

    /// Puts a wish before all others.
    pub(super) fn wish_first(&mut self, wish: Wish) -> Result<u64, MlsError> {
        let order = self.free_order(true);
        let id = IdempotencyKey::new(random(&suite(self.mls.cipher_suite())?)?);
        let wished = self.epoch();
        let intent = Intent { id, wish, wished, prepared: None, ordered: false, not_to: Vec::new(), automatic: true };
        self.intents.insert(order, intent);
        self.save_intent(order);
        Ok(order)
    }

    /// An intent that is made already, before all others.
    pub(super) fn wish_prepared(&mut self, wish: Wish, prepared: Prepared) -> Result<IdempotencyKey, MlsError> {
        let order = self.wish_first(wish)?;
        let id = self.intents.get_mut(&order).map(|intent| {
            intent.prepared = Some(Arc::new(prepared));
            intent.id
        });
        self.save_intent(order);
        id.ok_or_else(|| fault("no intent"))
    }

    /// A place for a new intent: after all others, or before them. Those of a later version's kinds keep theirs.
    pub(super) fn free_order(&self, first: bool) -> u64 {
        let under_way = || self.intents.keys().chain(self.done.keys());
        let known = || under_way().chain(&self.foreign_intents).copied().chain(self.step_order());
        let after = || known().max().map_or(u64::MAX / 2, |last| last.saturating_add(1));
        if first { known().min().and_then(|first| first.checked_sub(1)).unwrap_or_else(after) } else { after() }
    }

    /// Takes note of places that changes under way have whose kinds this version does not know.
    pub(crate) fn spare_places(&mut self, foreign: std::collections::BTreeSet<u64>) {
        self.foreign_intents = foreign;
    }

    /// How many changes under way are of kinds that this version does not know: a later version began them. They are kept, and go
    /// on when it is back.
    #[must_use]
    pub fn foreign_intents(&self) -> usize {
        self.foreign_intents.len()
    }

    /// Says something in plain text.
    ///
    /// # Errors
    /// [`WishError`], also for a text over [`conclave_names::limits::TEXT`] bytes.
    pub fn wish_text(&mut self, text: &str) -> Result<(IdempotencyKey, MessageId), WishError> {
        let salt = random(&suite(self.mls.cipher_suite())?)?;
        let content = Content::text(text, salt).map_err(fault)?.to_bytes();
        let id = MessageId::of(self.account.client.user(), &self.profile.room, &content, &salt);
        Ok((self.wish(Wish::Send { content, id })?, id))
    }

    /// Says something in plain text to whoever is a member when it is sent, also to those who join until then.
    ///
    /// # Errors
    /// As [`Group::wish_text`].
    pub fn wish_text_to_all(&mut self, text: &str) -> Result<(IdempotencyKey, MessageId), WishError> {
        let (intent, id) = self.wish_text(text)?;
        let found = self.intents.iter_mut().find(|(_, stored)| stored.id == intent);
        if let Some(order) = found.map(|(order, stored)| {
            stored.wished = TO_ALL;
            *order
        }) {
            self.save_intent(order);
        }
        Ok((intent, id))
    }

    /// Whether a change is still under way.
    #[must_use]
    pub fn is_pending(&self, id: IdempotencyKey) -> bool {
        self.intents.values().any(|intent| intent.id == id)
    }

    /// When somebody's proposal falls to us to commit, if nobody else does before.
    #[must_use]
    pub fn commit_due(&self) -> Option<Timestamp> {
        if self.status != Status::Active || self.frozen.is_some() || !self.may_commit() {
            return None;
        }
        let before = self.rank(COMMIT_DELAY_RANKS);
        // Who leaves itself comes after everybody else: it is there for the case that all leave.
        let last = if self.own_removal_proposed() { COMMIT_DELAY_RANKS + 1 } else { 0 };
        let turn = self.proposed_at?.plus_ms((last + before) * COMMIT_DELAY_MS);
        Some(self.put_off().map_or(turn, |until| turn.max(until)))
    }

    /// When there is something to do that time alone brings: a proposal to commit, a commit to acknowledge, an epoch
    /// to go on with once what nobody could apply is annulled, states to forget that nobody goes back to, keys of ours to renew, what
    /// we read to acknowledge, silence to tell of, or a state in the store that is too old. Then [`Group::next_submission`] is to be called, and what it leaves to
    /// be stored.
    #[must_use]
    pub fn due(&self, now: Timestamp) -> Option<Timestamp> {
        let ack = self.ack_due(now).map(|(_, due)| due);
        let presence =
            [self.heartbeat_due(), self.silence_due(), self.early_due(), self.gap_due()].into_iter().flatten();
        let decided = [self.annulment_due(), self.settling_due(), self.return_due()];
        let revival = [self.revival_due(), self.blind_due()].into_iter().flatten().min();
        let revival = revival.map(|due| self.rests.after(&Wish::Update, due));
        // What is to be said needs another epoch, which could not be begun.
        let waits = || self.has_said_enough() && self.intents.values().any(|intent| is_message(&intent.wish));
        let again = self.rests.until(&Wish::Update).filter(|_| waits());
        let revival = decided.into_iter().chain([revival, again]).flatten().min();
        [
            self.commit_due(),
            ack,
            self.successor_due(),
            self.onward_due(),
            self.prune_due(),
            revival,
            self.refresh_due(),
            self.state_due(now),
        ]
        .into_iter()
        .flatten()
        .chain(presence)
        .min()
    }

    /// Whether there are proposals that we can commit. Our own removal is for others to commit.
    fn may_commit(&self) -> bool {
        let own = self.mls.current_member_index();
        self.mls
            .get_cached_proposals()
            .iter()
            .any(|cached| !matches!(cached.proposal(), Proposal::Remove(remove) if remove.to_remove() == own))
    }

    pub(super) fn own_removal_proposed(&self) -> bool {
        let own = self.mls.current_member_index();
        self.mls
            .get_cached_proposals()
            .iter()
            .any(|cached| matches!(cached.proposal(), Proposal::Remove(remove) if remove.to_remove() == own))
    }

    /// The next thing to submit, if there is any. Events tell of wishes that came to nothing.
    ///
    /// # Errors
    /// [`MlsError`] if the present wish cannot be carried out; the wish is dropped with it. What time annulled is told as
    /// when the channel shows it, also then.
    pub fn next_submission(&mut self, now: Timestamp, events: &mut Vec<Event>) -> Result<Option<Submission>, MlsError> {
        if self.has_ended(now) {
            self.forget_all();
        }
        self.tell_silence(now, events);
        self.note_time(now);
        self.time_decides(events)?;
        self.note_put_off(now);
        self.note_rests(now);
        self.drop_early(now);
        self.forget_old_gaps(now);
        // Who cannot go on may still say so.
        let active = self.is_active(now);
        if self.status == Status::Removed {
            return Ok(None);
        }
        loop {
            self.drop_void_rejoins(now);
            let Some(order) = self.next_order(now, active)? else { return Ok(None) };
            let Some(intent) = self.intents.get(&order).cloned() else { return Ok(None) };
            let prepared = match intent.prepared {
                Some(prepared) if !is_outdated(&prepared, self.epoch()) => prepared,
                _ => match self.prepare(&intent, now, events) {
                    Ok(Some(prepared)) => {
                        let prepared = Arc::new(prepared);
                        self.acknowledged_by_us();
                        self.tell_left_out(now, events);
                        if let Some(stored) = self.intents.get_mut(&order) {
                            stored.prepared = Some(Arc::clone(&prepared));
                        }
                        self.save_intent(order);
                        prepared
                    }
                    // Nothing is left to do.
                    Ok(None) => {
                        // Others did it. If that is annulled, it is to be done.
                        if intent.wish.is_a_change() {
                            self.keep_done(order, &intent, self.epoch(), None);
                        }
                        self.drop_intent(order);
                        continue;
                    }
                    // Others will say it; our own changes must not wait for that.
                    Err(_) if intent.wish.is_verdict() => {
                        self.unable = intent.wish.about();
                        self.drop_intent(order);
                        continue;
                    }
                    // What others proposed must keep nobody from it.
                    Err(error) if intent.wish.is_commit() && self.leave_out_all(&error.to_string()) => continue,
                    Err(error) => {
                        self.give_up(order, intent.id, error.to_string(), now, events);
                        return Err(error);
                    }
                },
            };
            let join = self.intents.get(&order).map(|intent| self.join_access(intent)).transpose()?.flatten();
            return submission(intent.id, &prepared, join).map(Some);
        }
    }

    /// Gives a wish up. That it failed, and why, is kept in the history with it: who dies in between is told all the same.
    pub(super) fn fail_intent(
        &mut self,
        order: u64,
        intent: IdempotencyKey,
        reason: String,
        time: Timestamp,
        events: &mut Vec<Event>,
    ) {
        self.drop_intent(order);
        self.tell(Event::IntentFailed { intent, reason }, time, events);
    }

    fn drop_void_rejoins(&mut self, now: Timestamp) {
        let void = self.intents.iter().filter(|(_, intent)| self.rejoin_is_void(intent, now));
        for order in void.map(|(order, _)| *order).collect::<Vec<_>>() {
            self.drop_rejoin(order);
        }
    }

    /// The intent whose turn it is.
    fn next_order(&mut self, now: Timestamp, active: bool) -> Result<Option<u64>, MlsError> {
        let verdict = self.intents.iter().find(|(_, intent)| intent.wish.is_verdict() && !intent.ordered);
        let verdict = verdict.map(|(order, _)| *order);
        if verdict.is_some() {
            return Ok(verdict);
        }
        if let Some((commit, _)) = self.ack_due(now).filter(|(_, due)| *due <= now) {
            return self.wish_first(Wish::Ack { commit }).map(Some);
        }
        if !active {
            return Ok(self.intents.iter().find(|(_, intent)| intent.wish == Wish::Rejoin).map(|(order, _)| *order));
        }
        if self.frozen.is_some() {
            // Everything else waits for the successor.
            return Ok(self.intents.iter().find(|(_, intent)| intent.wish == Wish::Succeed).map(|(order, _)| *order));
        }
        let first = self.intents.values().find(|intent| !intent.ordered);
        // Who goes on blindly learns by a commit only whether it may: the DS takes messages of an epoch that has ended, too.
        let tells_nothing = |intent: &Intent| self.blind_due().is_some() && !intent.wish.is_commit();
        if self.lost.is_some() && first.is_none_or(tells_nothing) {
            // The epoch that we are left in needs another commit than the one that nobody could apply.
            if self.is_resting(&Wish::Update, now) {
                return Ok(None);
            }
            return self.wish_first(Wish::Update).map(Some);
        }
        // So does who is back because time alone annulled its removal: it may stand by a word behind it, which the removed cannot read.
        if self.returned.is_some() && first.is_none_or(|first| self.mls.commit_required() && !first.wish.is_commit()) {
            return self.wish_first(Wish::Update).map(Some);
        }
        if self.is_behind_a_copy(self.epoch())
            && first.is_none_or(|intent| !intent.wish.is_commit() || intent.wish.is_reinit())
        {
            // The others may know the keys that we would take next to be used.
            if self.is_resting(&Wish::Update, now) {
                return Ok(None);
            }
            return self.wish_first(Wish::Update).map(Some);
        }
        let next = self.intents.iter().find(|(_, intent)| !intent.ordered).map(|(order, intent)| {
            (*order, (is_message(&intent.wish) || intent.wish.is_reinit()) && intent.prepared.is_none())
        });
        let may_commit = self.may_commit();
        if may_commit && matches!(next, Some((_, true))) && self.put_off().is_some_and(|until| until > now) {
            return Ok(self.change_instead());
        }
        match next {
            // MLS forbids messages while proposals wait: commit them first.
            Some((_, true)) if may_commit && !self.own_removal_proposed() => {}
            // What we still have to say waits for who commits our removal; if nobody does, the others' come first. But who was locked out may
            // be the only one that is there to commit it.
            Some((_, true)) if self.mls.commit_required() => {
                if let Some(order) = self.readmission() {
                    return Ok(Some(order));
                }
                if self.commit_due().is_none_or(|due| due > now) {
                    return Ok(None);
                }
            }
            // Others would not find the keys of more.
            Some((_, true)) if self.has_said_enough() && self.is_resting(&Wish::Update, now) => {
                return Ok(self.change_instead());
            }
            Some((_, true)) if self.has_said_enough() => return self.wish_first(Wish::Update).map(Some),
            // Whom we removed may be a member again, and not to be left without a word.
            Some((order, _)) if self.leaves_nobody(order) && !self.ledger.open().is_empty() => return Ok(None),
            Some((order, _)) => return Ok(Some(order)),
            None if may_commit && self.commit_due().is_some_and(|due| due <= now) => {}
            None => {
                let wish = match self.gap_wish()? {
                    Some(wish) => Some(wish),
                    None => self.refresh_wish(now).or_else(|| self.heartbeat_wish(now)),
                };
                return wish.map(|wish| self.wish_first(wish)).transpose();
            }
        }
        self.wish_first(Wish::CommitProposals).map(Some)
    }

    fn is_alone(&self) -> bool {
        self.mls.roster().member_identities_iter().nth(1).is_none()
    }

    /// Whether a wish is to leave a group in which nobody else is.
    fn leaves_nobody(&self, order: u64) -> bool {
        self.intents.get(&order).is_some_and(|intent| intent.wish == Wish::Leave) && self.is_alone()
    }

    /// The intent to let somebody in again, if there is one.
    fn readmission(&self) -> Option<u64> {
        let lets_in = |intent: &Intent| !intent.ordered && matches!(intent.wish, Wish::Readmit { .. });
        self.intents.iter().find(|(_, intent)| lets_in(intent)).map(|(order, _)| *order)
    }

    /// Makes of a wish what is to be submitted in the present epoch; none if there is nothing left to do.
    fn prepare(
        &mut self,
        intent: &Intent,
        now: Timestamp,
        events: &mut Vec<Event>,
    ) -> Result<Option<Prepared>, MlsError> {
        match &intent.wish {
            Wish::Send { content, .. } => {
                if self.last_added > intent.wished {
                    return Err(fault(JOINED_SINCE));
                }
                if let Some(reason) = self.is_back(intent) {
                    return Err(fault(reason));
                }
                self.prepare_message(MEDIA_TYPE, content).map(Some)
            }
            Wish::Heartbeat => self.prepare_message(HEARTBEAT, &[]).map(Some),
            Wish::GapRequest { content } => {
                if !self.asks_by(content) {
                    return Ok(None);
                }
                self.prepare_message(GAP_REQUEST, content).map(Some)
            }
            Wish::GapAnswer { asker, request, content } => {
                if !self.gap_is_open(asker, *request) {
                    return Ok(None);
                }
                self.prepare_message(GAP_ANSWER, content).map(Some)
            }
            // It is made with its wish, of a GroupInfo that is not kept.
            Wish::Rejoin | Wish::Succeed => Ok(None),
            Wish::Leave => {
                if self.is_alone() {
                    // Nobody is there to commit it, and nobody to be left: the group ends with us.
                    let by = self.account.client.clone();
                    let ended: Vec<_> = std::iter::once(Event::RemovedFromGroup { by }).chain(self.end()).collect();
                    self.note_here(&ended);
                    events.extend(ended);
                    return Ok(None);
                }
                self.prepare_leave().map(Some)
            }
            Wish::Add { key_packages } => {
                let add = self.not_yet_members(key_packages)?;
                if add.is_empty() {
                    return Ok(None);
                }
                self.prepare_commit(&Change { add, ..Change::default() }, now).map(Some)
            }
            Wish::Remove { users } => {
                let remove = self.leaves_of(users)?;
                if remove.is_empty() {
                    return Ok(None);
                }
                if remove.contains(&self.mls.current_member_index()) {
                    return Err(fault("nobody can remove itself by a commit: leave the group instead"));
                }
                self.prepare_commit(&Change { remove, ..Change::default() }, now).map(Some)
            }
            Wish::Readmit { old_leaf, key_package } => {
                let Some(leaf) = self.leaf_with(old_leaf) else { return Ok(None) };
                let change =
                    Change { add: vec![MlsMessage::from_bytes(key_package)?], remove: vec![leaf], ..Change::default() };
                self.prepare_commit(&change, now).map(Some)
            }
            Wish::Update => self.prepare_commit(&Change { renew_own_keys: true, ..Change::default() }, now).map(Some),
            Wish::ReInit { cipher_suite, visible } => {
                let reinit = Some(self.plan_successor(*cipher_suite, *visible)?);
                self.prepare_commit(&Change { reinit, ..Change::default() }, now).map(Some)
            }
            Wish::Nack { commit, reason } => self.prepare_verdict(EntryKind::Nack, *commit, reason, now),
            Wish::Ack { commit } => self.prepare_verdict(EntryKind::Ack, *commit, "", now),
            Wish::CommitProposals => {
                if !self.may_commit() {
                    return Ok(None);
                }
                self.prepare_commit(&Change::default(), now).map(Some)
            }
        }
    }

    fn not_yet_members(&self, key_packages: &[Vec<u8>]) -> Result<Vec<MlsMessage>, MlsError> {
        let mut add = Vec::new();
        for bytes in key_packages {
            let message = MlsMessage::from_bytes(bytes)?;
            let package = message.as_key_package().ok_or_else(|| fault("not a KeyPackage"))?;
            // To MLS, a member's identity is its client.
            let client = super::view::client_of(package.signing_identity())?.to_string();
            match self.mls.member_with_identity(client.as_bytes()) {
                Ok(_) => {}
                Err(mls_rs::error::MlsError::MemberNotFound) => add.push(message),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(add)
    }

    pub(super) fn prepare_message(&mut self, media_type: &str, content: &[u8]) -> Result<Prepared, MlsError> {
        let frame =
            Frame { position: self.window.position(), media_type: media_type.to_owned(), content: content.to_vec() };
        let plaintext = Zeroizing::new(frame.to_bytes().map_err(fault)?);
        let aad = SafeAad::of_message(self.epoch_tag()?).map_err(fault)?;
        // If this fails, the ratchet may have moved on, which does no harm: a generation is left out.
        let message = self.mls.encrypt_application_message(&plaintext, aad)?;
        self.note_sent()?;
        self.message_entry(EntryKind::Message, &message)
    }

    fn prepare_leave(&mut self) -> Result<Prepared, MlsError> {
        let aad = HandshakeAad { position: self.window.position(), commit: None };
        let aad = aad.in_epoch(self.epoch_tag()?).map_err(fault)?;
        let mut work = self.mls.clone();
        let message = work.propose_remove(work.current_member_index(), aad)?;
        let prepared = self.message_entry(EntryKind::Proposal, &message)?;
        self.mls = work;
        self.dirty = true;
        self.unsaved_proposals = true;
        Ok(prepared)
    }

    fn message_entry(&self, kind: EntryKind, message: &MlsMessage) -> Result<Prepared, MlsError> {
        let (epoch, message) = (self.epoch(), message.to_bytes()?);
        if self.is_visible() && kind == EntryKind::Proposal {
            // Its DS reads handshakes.
            return self.plain_entry(kind, epoch, message);
        }
        self.sealed_entry(kind, epoch, message)
    }

    /// Takes the DS's refusal of a submission. To be called after the channel was read to its end, so that what the
    /// refusal hints at has been seen.
    ///
    /// # Errors
    /// The refusal itself, if the same submission should be sent again later.
    pub fn refused(&mut self, id: IdempotencyKey, refusal: &Refusal, events: &mut Vec<Event>) -> Result<(), Refusal> {
        let (epoch, stands) = (self.epoch(), self.refusal_decides());
        let disputes = |intent: &Intent| matches!(intent.wish, Wish::Nack { .. }) && !intent.ordered;
        let disputed = self.intents.values().any(disputes);
        let Some((order, intent)) = self.intents.iter_mut().find(|(_, intent)| intent.id == id) else {
            // The channel has shown its outcome meanwhile.
            return Ok(());
        };
        let order = *order;
        let current = intent.prepared.as_ref().is_some_and(|prepared| prepared.epoch == epoch);
        if intent.wish == Wish::Rejoin && refusal.retry() != Retry::Later {
            // There will be another GroupInfo, or no way back by one.
            self.drop_rejoin(order);
            return Ok(());
        }
        match refusal.code {
            // What we could not read whether it was annulled.
            // Of the epoch before the present one, messages are still taken: that one is not says as much as of a commit.
            Code::EpochConflict | Code::EpochStale | Code::AccessRefused if current && stands => {
                self.went_on_without_us(events);
                Ok(())
            }
            // Made anew with the whole tree.
            Code::TreeIncomplete => {
                intent.prepared = None;
                self.tree_lost();
                self.save_intent(order);
                Ok(())
            }
            Code::EpochConflict | Code::EpochStale | Code::AccessRefused if current && self.returned.is_some() => {
                self.stay_removed(events);
                Ok(())
            }
            // What it is about was decided meanwhile: the channel tells how.
            Code::VerdictRefused => {
                let (about, disputes) = (intent.wish.about(), matches!(intent.wish, Wish::Nack { .. }));
                self.unable = about;
                self.drop_intent(order);
                if disputes {
                    self.dispute_came_late(events);
                }
                Ok(())
            }
            // After a removal, access needs a key of the new epoch: so what was refused was of an older one.
            Code::EpochConflict | Code::EpochStale | Code::AccessRefused if !current => {
                // Made anew, in the present epoch, by the next submission.
                intent.prepared = None;
                self.save_intent(order);
                Ok(())
            }
            // The channel shows why: a commit that we cannot apply ended our epoch. Our dispute of that goes first.
            Code::EpochConflict | Code::EpochStale | Code::AccessRefused if disputed => Ok(()),
            // The server speaks of an epoch that its channel does not show: its word is a hint only. Ours may be one that time has annulled,
            // which the channel will show or we shall know by ourselves; or what we have read is of another log.
            Code::EpochConflict | Code::EpochStale | Code::AccessRefused => {
                self.suspect_branch();
                Err(refusal.clone())
            }
            // It speaks of our place or our epoch: the server has another log than we, or another branch. What was wished is done once we are back.
            Code::HandshakeRefused if is_about_our_place(refusal) => {
                intent.prepared = None;
                self.save_intent(order);
                self.signs_for_another_log(self.window.position().seq.next(), events);
                Err(refusal.clone())
            }
            _ if refusal.retry() == Retry::Never => {
                let time = self.window.time();
                if let Some(about) = intent.wish.about() {
                    // Others will say it.
                    self.unable = Some(about);
                }
                if let Err(reason) = self.goes_without(order, refusal) {
                    self.give_up(order, id, reason, time, events);
                }
                if refusal.code == Code::EntryInvalid {
                    // As we know the log, it is valid.
                    self.suspect_branch();
                }
                Ok(())
            }
            _ => Err(refusal.clone()),
        }
    }
}

/// Whether the DS refuses a handshake message for what it says of where its sender stands.
fn is_about_our_place(refusal: &Refusal) -> bool {
    refusal.metadata.get("reason").is_some_and(|reason| reason == "authenticated-data")
}

/// Whether it becomes an application message.
pub(super) fn is_message(wish: &Wish) -> bool {
    matches!(wish, Wish::Send { .. } | Wish::Heartbeat | Wish::GapRequest { .. } | Wish::GapAnswer { .. })
}

fn submission(intent: IdempotencyKey, prepared: &Prepared, join: Option<JoinAccess>) -> Result<Submission, MlsError> {
    let body = match &prepared.bundle {
        Some(bundle) => {
            SubmissionBody::Bundle(Box::new(SubmitBundleRequest::decode(bundle.as_slice()).map_err(fault)?))
        }
        None => SubmissionBody::Entry(SubmitRequest {
            idempotency_key: prepared.key.to_vec(),
            entry: prepared.entry.clone(),
        }),
    };
    Ok(Submission { intent, join, blobs: prepared.blobs.clone(), body })
}
