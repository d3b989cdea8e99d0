//! What comes from the channel.

use std::sync::Arc;

use conclave_channel::{Claim, Entry, EntryKind, Position, chain, law::SETTLED_MS};
use conclave_mls::{
    components::HandshakeAad,
    content::{Content, MessageId},
    frame::{Frame, HEARTBEAT},
    gap::{GAP_ANSWER, GAP_REQUEST},
};
use conclave_names::{ClientUri, Epoch, Hash, Seq, Timestamp};
use mls_rs::{
    MlsMessage,
    group::{ProposalMessageDescription, ProposalSender, ReceivedMessage, proposal::Proposal},
};

use super::{
    GENERATIONS_MAX, Group, Known, Status,
    journal::{Basis, Used},
    sealed::Opened,
    step::Step,
    submit::is_message,
};
use crate::{
    intent::Wish,
    mls_client::{MlsError, MlsGroup, mls_time},
    outcome::{Event, Outcome, ProcessError, Rejection},
    writes::{StoredMessage, Write},
};

/// `StoredMessage.kind` of a message: the body is the encoded content.
pub const KIND_MESSAGE: u8 = 1;

/// `StoredMessage.kind` of a change of the group: the body is an [`Event`] in JSON.
pub const KIND_EVENT: u8 = 2;

/// An entry as the DS gave it out.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// Its place.
    pub seq: Seq,
    /// The DS's time.
    pub time: Timestamp,
    /// The encoded entry.
    pub entry: Vec<u8>,
    /// The blob that it names, if it names one and the DS gave it out.
    pub blob: Option<Vec<u8>>,
}

/// What became of a batch of entries.
#[derive(Debug, Default)]
pub struct Processed {
    /// Of each entry, in order, up to the fault or the commit that could not be followed.
    pub outcomes: Vec<(Seq, Outcome)>,
    /// What there is to tell.
    pub events: Vec<Event>,
    /// The server's log is not one; what came before counts.
    pub fault: Option<ProcessError>,
}

/// What is known of the entries after the present one.
#[derive(Clone, Copy)]
struct Ahead {
    /// Time of the last one.
    until: Timestamp,
    /// Whether one of them disputes a commit.
    nacks: bool,
}

impl Ahead {
    fn of(batch: &[Incoming]) -> Self {
        let kind = |incoming: &Incoming| incoming.entry.get(1).copied();
        Self {
            until: batch.last().map_or(Timestamp(0), |last| last.time),
            nacks: batch.iter().any(|incoming| kind(incoming) == Some(EntryKind::Nack.code())),
        }
    }

    /// Whether the state before a commit of this time may be needed again. When catching up, most are settled by what
    /// follows, and a copy of each would be dear.
    fn may_annul(self, commit: Timestamp) -> bool {
        self.nacks || commit.plus_ms(SETTLED_MS) >= self.until
    }
}

/// A copy of the group to fall back to: where the store has none, or since it was needed, as making the group anew of
/// the store takes long where members are many.
pub(super) struct Checkpoint {
    mls: MlsGroup,
    /// How many messages had been read.
    notes: usize,
    /// Of which state and handshake keys it is ([`Group::basis`]).
    basis: Basis,
}

impl Group {
    /// Processes entries that follow our place in the channel. Nothing is lost by calling it again with the same ones:
    /// what was processed before is a gap, and changes nothing.
    pub fn process(&mut self, batch: &[Incoming]) -> Processed {
        self.process_with(batch, |_| Known::No)
    }

    /// The same; and messages that the history has under their names are [`Outcome::Duplicate`]: whoever sends again what was said, be it
    /// its own, says nothing new by it.
    pub fn process_with(&mut self, batch: &[Incoming], mut known: impl FnMut(&MessageId) -> Known) -> Processed {
        let mut done = Processed::default();
        let next = self.window.position().seq.next();
        if let Some(first) = batch.first().filter(|first| first.seq == next) {
            // If it fails, the keys stay a little longer. What comes out of turn says nothing about the time of what is due.
            let _ = self.prune_past(first.time);
            done.fault = self.ahead_before();
            if done.fault.is_some() {
                return done;
            }
        }
        // Nothing but messages changed the group since.
        let basis = self.basis();
        let mut checkpoint = self.kept.take().filter(|kept| self.is_stored() && kept.basis == basis);
        let ahead = Ahead::of(batch);
        for incoming in batch {
            if self.is_in_wrong_log() {
                break;
            }
            let told = done.events.len();
            self.nothing_told();
            match self.process_one(incoming, ahead, &mut checkpoint, &mut done.events) {
                Ok((kind, hash, mut outcome)) => {
                    self.pass_over_known(&mut outcome, &mut done.events, told, &mut known);
                    self.keep_told(incoming, &mut known, &mut done.events);
                    for event in done.events.iter().skip(told) {
                        self.note(event, incoming.seq, incoming.time);
                    }
                    // It is read once more: it may have been changed on its way.
                    let unread = matches!(outcome, Outcome::NeedsRecovery(_) | Outcome::Rejected(_));
                    if unread && self.wants_refetch() {
                        done.outcomes.push((incoming.seq, outcome));
                        break;
                    }
                    // It was checked that this is the next entry.
                    if self.window.advance_by(incoming.seq, kind, incoming.time, &hash).is_ok() {
                        self.returned = self.returned.filter(|removal| incoming.seq <= *removal);
                        // Somebody else made the channel.
                        self.founding = None;
                        let said = |event: &Event| matches!(event, Event::Message { .. });
                        // Somebody is to commit what we proposed.
                        let proposed = kind == EntryKind::Proposal && outcome == Outcome::Confirmed;
                        let wants_answer =
                            kind == EntryKind::Commit || proposed || done.events.iter().skip(told).any(said);
                        self.note_presence(incoming.seq, incoming.time, &outcome, wants_answer);
                        self.touched = true;
                        self.compare_receipt(&mut done.events);
                    }
                    done.outcomes.push((incoming.seq, outcome));
                    if self.status == Status::Removed && self.removed_at.is_none() {
                        break;
                    }
                }
                Err(fault) if self.doubt_place(&fault) => break,
                Err(fault)
                    if batch.first().is_some_and(|first| first.seq == incoming.seq)
                        && self.begins_ahead(batch, &fault, &mut done.events) =>
                {
                    break;
                }
                Err(fault) => {
                    self.suspect_branch();
                    self.doubt_invitation(incoming, &fault, &mut done.events);
                    done.fault = Some(fault);
                    break;
                }
            }
        }
        self.kept = checkpoint.filter(|kept| self.is_stored() && kept.basis == self.basis());
        done
    }

    /// Gives the entry's kind, its hash, and what became of it.
    fn process_one(
        &mut self,
        incoming: &Incoming,
        ahead: Ahead,
        checkpoint: &mut Option<Checkpoint>,
        events: &mut Vec<Event>,
    ) -> Result<(EntryKind, Hash, Outcome), ProcessError> {
        self.window.expect(incoming.seq, incoming.time)?;
        self.rests.saw(incoming.time);
        if matches!(self.status, Status::Stuck { .. }) && self.lost.is_none() {
            // What the server said was gone is here.
            self.status = Status::Active;
            self.touched = true;
            if let Some(from) = self.skipped.take() {
                events.push(Event::Missed { from, to: self.window.position().seq });
            }
        }
        let entry = Entry::parse(&incoming.entry).map_err(|_| ProcessError::Entry(incoming.seq))?;
        let hash = chain::entry_hash(&incoming.entry);
        let state = |error: MlsError| ProcessError::State { seq: incoming.seq, reason: error.to_string() };
        self.check_haste(incoming.time, events);
        // What the log has decided comes first: it says in which epoch the entry finds the group.
        let mut ledger = self.ledger.clone();
        let passed = ledger.advance(incoming.time);
        let mut admitted = ledger.clone();
        let decided = admitted
            .admit(&self.profile.channel, incoming.seq, incoming.time, &entry, hash)
            .map_err(|refused| ProcessError::Law { seq: incoming.seq, refused })?;
        self.ledger = ledger;
        if !passed.is_empty() {
            *checkpoint = None;
            self.take_changes(&passed, None, events).map_err(state)?;
        }
        let stays_open = admitted.find(incoming.seq).is_some() && ahead.may_annul(incoming.time);
        let told = events.len();
        let outcome = self.outcome_of(&entry, incoming, stays_open, checkpoint, events);
        match &outcome {
            Outcome::Rejected(rejection) if self.reads_once_more(&entry, rejection, incoming.seq, hash) => {
                return Ok((entry.kind, hash, outcome));
            }
            // It was told by an event of its own.
            Outcome::Rejected(Rejection::OwnKeys) if events.len() > told => {}
            Outcome::Rejected(rejection) => {
                events.push(Event::Refused { seq: incoming.seq, reason: rejection.to_string() });
            }
            // Without its blob nothing is known of it.
            Outcome::NeedsRecovery(rejection) => {
                let again = self.lose(incoming.seq, hash, &rejection.to_string(), events);
                if !again || *rejection == Rejection::Blob {
                    self.lost.iter_mut().for_each(|lost| lost.certain = false);
                    return Ok((entry.kind, hash, outcome));
                }
                if *rejection == Rejection::OwnKeys {
                    self.left_by_a_copy(incoming.seq, incoming.time, events);
                }
            }
            // What could not be applied as it first came could be now; but not by who is in another branch, and reads that again.
            _ if self.lost.as_ref().is_some_and(|lost| lost.commit == incoming.seq) && !self.is_in_wrong_branch() => {
                self.follow_again(events);
            }
            _ => {}
        }
        let alone = entry.commit.map(|header| self.lost_committer().unwrap_or(header.committer));
        self.ledger = admitted;
        self.time_has_come();
        if self.joined_by == Some(hash) {
            self.joined_at.get_or_insert(incoming.seq);
        }
        // What settles with a commit settles by it: it leaves nobody else.
        self.take_changes(&decided, alone, events).map_err(state)?;
        if matches!(&outcome, Outcome::NeedsRecovery(rejection) if *rejection != Rejection::OwnKeys) {
            self.dispute().map_err(state)?;
        }
        Ok((entry.kind, hash, outcome))
    }

    fn outcome_of(
        &mut self,
        entry: &Entry,
        incoming: &Incoming,
        stays_open: bool,
        checkpoint: &mut Option<Checkpoint>,
        events: &mut Vec<Event>,
    ) -> Outcome {
        if self.has_successor() && !entry.kind.is_verdict() {
            // Some have gone on and read no more. What is ours and came too late goes on with us.
            return Outcome::Stale;
        }
        let own = self
            .intents
            .iter()
            .find(|(_, intent)| intent.prepared.as_ref().is_some_and(|prepared| prepared.entry == incoming.entry))
            .map(|(order, _)| *order);
        if let Some(order) = own.filter(|_| entry.kind != EntryKind::Successor) {
            return self.confirm(order, entry, incoming, stays_open, checkpoint, events);
        }
        if entry.kind.is_verdict() {
            self.tell_verdict(incoming.seq, entry, events);
            return Outcome::Counted;
        }
        if entry.kind == EntryKind::Commit
            && entry.epoch == self.epoch()
            && let Some(secrets) = self.withdrawn_commit(entry.epoch, &incoming.entry)
        {
            *checkpoint = None;
            return match self.apply_own(&secrets, None, entry, incoming, stays_open, events) {
                Ok(()) => Outcome::Confirmed,
                Err(rejection) => Outcome::NeedsRecovery(rejection),
            };
        }
        if let Some(outcome) = self.take_overtaken(entry, incoming, events) {
            return outcome;
        }
        if self.is_own_again(entry, incoming) {
            return Outcome::Duplicate;
        }
        if self.status == Status::Removed || entry.epoch < self.joined {
            if self.status == Status::Active && entry.kind == EntryKind::Message && self.was_away() {
                // It was on its way when we came back, and we were a member when it was sent.
                events.push(Event::Missed { from: incoming.seq, to: incoming.seq });
            }
            return Outcome::Stale;
        }
        // Of an epoch that we cannot be in: it began by a commit that we could not apply.
        if self.is_in_wrong_branch() || entry.epoch > self.epoch() {
            self.unfollowed(entry.kind, entry.epoch, incoming, events);
            return Outcome::Unfollowed;
        }
        if entry.kind == EntryKind::Successor {
            return self.choose_successor(entry, incoming, events);
        }
        match self.open(entry, incoming) {
            Opened::Refused(rejection) if entry.kind == EntryKind::Commit => Outcome::NeedsRecovery(rejection),
            Opened::Refused(rejection) => Outcome::Rejected(rejection),
            Opened::Message(..) if self.is_by_own_leaf(entry) => Outcome::NeedsRecovery(Rejection::OwnKeys),
            Opened::Message(message, said) => {
                let other = said.is_some_and(|said| self.is_of_another_branch(entry.epoch, said));
                if other && self.reads_before_joining(entry.epoch) {
                    // Of a void epoch with the number of the one that we joined in.
                    return Outcome::Stale;
                }
                let outcome = match entry.kind {
                    EntryKind::Commit => self.follow(entry, *message, incoming, stays_open, checkpoint, events),
                    EntryKind::Message => self.read(entry, *message, incoming, checkpoint, events),
                    EntryKind::Proposal => self.consider(entry, *message, incoming, checkpoint, events),
                    EntryKind::Welcome | EntryKind::Knock | EntryKind::Nack | EntryKind::Ack | EntryKind::Successor => {
                        Outcome::Rejected(Rejection::Mismatch)
                    }
                };
                if other { self.of_another_branch(outcome, entry, incoming.seq, events) } else { outcome }
            }
        }
    }

    /// Decrypts and processes without a trace if that fails: the group is made anew of the state in the store and the notes of
    /// what was read since, or of a copy where the store's is another.
    fn receive(
        &mut self,
        message: MlsMessage,
        time: Timestamp,
        checkpoint: &mut Option<Checkpoint>,
    ) -> Result<ReceivedMessage, mls_rs::error::MlsError> {
        if checkpoint.is_none() && !self.is_stored() {
            *checkpoint = Some(self.checkpoint());
        }
        let epoch = message.epoch().map(Epoch);
        let received = self.mls.process_incoming_message_with_time(message, mls_time(time)).and_then(|received| {
            let key = match &received {
                ReceivedMessage::ApplicationMessage(message) => message
                    .unauthenticated_key_generation
                    .map(|generation| Used { sender: message.sender_index, generation }),
                _ => None,
            };
            match key.map(|key| key.generation).filter(|generation| *generation >= GENERATIONS_MAX) {
                Some(generation) => Err(mls_rs::error::MlsError::InvalidFutureGeneration(generation)),
                None => Ok((received, key)),
            }
        });
        match received {
            Ok((received, key)) => {
                if let Some(used) = key.filter(|_| epoch == Some(self.epoch())) {
                    self.note_read(used);
                } else {
                    if let Some((epoch, used)) = epoch.zip(key) {
                        self.note_late(epoch, used);
                    }
                    // No note says what else it changed.
                    self.dirty = true;
                    *checkpoint = None;
                }
                Ok(received)
            }
            Err(error) => {
                self.fall_back(checkpoint.as_ref());
                // Who sends one such message sends more.
                if checkpoint.is_none() && !self.unusable {
                    *checkpoint = Some(self.checkpoint());
                }
                Err(error)
            }
        }
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint { mls: self.mls.clone(), notes: self.notes(), basis: self.basis() }
    }

    /// Undoes what a message or commit that was refused did to the group.
    pub(super) fn fall_back(&mut self, checkpoint: Option<&Checkpoint>) {
        match self.restored(checkpoint.map(|copy| (&copy.mls, copy.notes))) {
            Ok(before) => self.mls = before,
            Err(_) => self.unusable = true,
        }
    }

    fn read(
        &mut self,
        entry: &Entry,
        message: MlsMessage,
        incoming: &Incoming,
        checkpoint: &mut Option<Checkpoint>,
        events: &mut Vec<Event>,
    ) -> Outcome {
        let epoch = message.epoch().map_or_else(|| self.epoch(), Epoch);
        let present = message.epoch() == Some(self.epoch().0);
        let description = match self.receive(message, incoming.time, checkpoint) {
            Ok(ReceivedMessage::ApplicationMessage(description)) => description,
            Ok(_) => return Outcome::Rejected(Rejection::Mismatch),
            // Its sender has changed its signature key since: it says it again.
            Err(mls_rs::error::MlsError::MemberNotFound) if !present => return Outcome::Stale,
            // We were a member then, and have its keys no more: we had come back by a commit that was annulled, or it is long past.
            Err(mls_rs::error::MlsError::EpochNotFound) if !present => {
                events.push(Event::Missed { from: incoming.seq, to: incoming.seq });
                return Outcome::Stale;
            }
            Err(mls_rs::error::MlsError::CantProcessMessageFromSelf) => {
                return self.made_elsewhere(entry, incoming, events);
            }
            Err(error) => return Outcome::Rejected(Rejection::Mls(error.to_string())),
        };
        let Ok(sender) = self.speaker(description.sender_index) else {
            return Outcome::Rejected(Rejection::Mismatch);
        };
        self.confirm_member(&sender);
        if let Some(generation) = description.unauthenticated_key_generation.filter(|_| present) {
            self.count_generation(description.sender_index, generation, &sender, events);
        }
        let Ok(frame) = Frame::parse(description.data()) else { return Outcome::Rejected(Rejection::Content) };
        if frame.media_type == HEARTBEAT {
            self.compare(&frame.position, &sender, incoming.time, events);
            return Outcome::Applied;
        }
        if frame.media_type == GAP_REQUEST || frame.media_type == GAP_ANSWER {
            self.compare(&frame.position, &sender, incoming.time, events);
            let taken = if frame.media_type == GAP_REQUEST {
                self.take_gap_request(incoming, epoch, &sender, &frame.content)
            } else {
                self.take_gap_answer(incoming, &sender, &frame.content, events)
            };
            return taken.map_or_else(Outcome::Rejected, |()| Outcome::Applied);
        }
        let Ok(content) = Content::parse(&frame.content) else { return Outcome::Rejected(Rejection::Content) };
        self.compare(&frame.position, &sender, incoming.time, events);
        self.store_message(incoming, epoch, sender, &content, frame.content, events);
        Outcome::Applied
    }

    pub(super) fn store_message(
        &mut self,
        incoming: &Incoming,
        epoch: Epoch,
        sender: ClientUri,
        content: &Content,
        encoded: Vec<u8>,
        events: &mut Vec<Event>,
    ) {
        let (seq, time) = (incoming.seq, incoming.time);
        let id = MessageId::of(sender.user(), &self.profile.room, &encoded, &content.salt);
        self.writes.push(Write::Message(StoredMessage {
            group: self.name.to_string(),
            seq: seq.0,
            epoch: epoch.0,
            id: *id.as_bytes(),
            sender: sender.to_string(),
            time_ms: time.0,
            kind: KIND_MESSAGE,
            body: encoded,
        }));
        events.push(Event::Message { seq, time, sender, id, text: content.as_text() });
    }

    /// Compares where another member stood with what we saw there (RFC 9750, section 5.2: a DS that reorders).
    pub(super) fn compare(&mut self, claim: &Position, member: &ClientUri, time: Timestamp, events: &mut Vec<Event>) {
        // Nobody has seen a place that is not before its own entry's: a server that left something out is caught by that.
        let impossible = claim.seq > self.window.position().seq;
        if impossible || self.window.check(claim) == Claim::Different {
            events.push(Event::LogsDiffer { member: member.clone(), seq: claim.seq });
            self.suspect_branch();
        } else if *member != self.account.client {
            self.seen_by_others(claim.seq, time);
        }
    }

    fn consider(
        &mut self,
        entry: &Entry,
        message: MlsMessage,
        incoming: &Incoming,
        checkpoint: &mut Option<Checkpoint>,
        events: &mut Vec<Event>,
    ) -> Outcome {
        let before = (!self.is_stored()).then(|| self.checkpoint());
        let description: ProposalMessageDescription = match self.receive(message, incoming.time, checkpoint) {
            Ok(ReceivedMessage::Proposal(description)) => description,
            Ok(_) => return Outcome::Rejected(Rejection::Mismatch),
            Err(mls_rs::error::MlsError::CantProcessMessageFromSelf) => {
                // It may not have the keys that are passed over now.
                *checkpoint = None;
                return self.made_elsewhere(entry, incoming, events);
            }
            Err(error) => return Outcome::Rejected(Rejection::Mls(error.to_string())),
        };
        let proposer = match description.sender {
            ProposalSender::Member(index) => Some(index),
            ProposalSender::External(_) | ProposalSender::NewMember => None,
        };
        if let Err(refused) = self.judge(&description.proposal, proposer) {
            self.fall_back(before.as_ref());
            return Outcome::Rejected(Rejection::Policy(refused.to_string()));
        }
        self.proposed_at.get_or_insert(incoming.time);
        self.unsaved_proposals = true;
        let index = match description.sender {
            ProposalSender::Member(index) => index,
            ProposalSender::External(index) => {
                let senders = self.external_senders();
                let sender = usize::try_from(index).ok().and_then(|index| senders.get(index).cloned());
                events.push(Event::ExternalProposal { sender, proposal: self.describe(&description.proposal) });
                return Outcome::Applied;
            }
            ProposalSender::NewMember => return Outcome::Applied,
        };
        let Ok(sender) = self.client_at(index) else { return Outcome::Rejected(Rejection::Mismatch) };
        self.confirm_member(&sender);
        if let Ok(aad) = HandshakeAad::of_proposal(&description.authenticated_data) {
            self.compare(&aad.position, &sender, incoming.time, events);
        }
        if matches!(&description.proposal, Proposal::Remove(remove) if remove.to_remove() == index) {
            events.push(Event::LeaveRequested { member: sender });
        }
        Outcome::Applied
    }

    /// Something of ours came back from the channel: it is final.
    fn confirm(
        &mut self,
        order: u64,
        entry: &Entry,
        incoming: &Incoming,
        stays_open: bool,
        checkpoint: &mut Option<Checkpoint>,
        events: &mut Vec<Event>,
    ) -> Outcome {
        let Some(intent) = self.intents.get(&order).cloned() else { return Outcome::Stale };
        if is_message(&intent.wish) || intent.wish == Wish::Leave {
            self.note_own(entry.epoch, &incoming.entry);
        }
        match &intent.wish {
            // Others refuse it, too.
            wish if is_message(wish) && (self.is_read_by_none(entry.epoch) || self.is_behind_a_copy(entry.epoch)) => {
                if let Some(intent) = self.intents.get_mut(&order) {
                    intent.prepared = None;
                }
                self.save_intent(order);
                Outcome::Stale
            }
            Wish::Send { content, .. } => {
                if let Ok(parsed) = Content::parse(content) {
                    let sender = self.account.client.clone();
                    self.store_message(incoming, entry.epoch, sender, &parsed, content.clone(), events);
                }
                self.keep_done(order, &intent, entry.epoch, None);
                self.drop_intent(order);
                Outcome::Confirmed
            }
            Wish::Heartbeat => {
                self.rested(&intent.wish);
                self.drop_intent(order);
                Outcome::Confirmed
            }
            Wish::GapRequest { content } => {
                self.gap_requested(content, incoming.seq);
                self.drop_intent(order);
                Outcome::Confirmed
            }
            Wish::GapAnswer { .. } => {
                self.keep_done(order, &intent, entry.epoch, None);
                self.drop_intent(order);
                Outcome::Confirmed
            }
            Wish::Rejoin => {
                let Some(prepared) = intent.prepared else { return Outcome::Stale };
                let hash = chain::entry_hash(&incoming.entry);
                match self.come_back(&prepared, incoming.seq, incoming.time, hash, stays_open, events) {
                    Ok(()) => {
                        *checkpoint = None;
                        self.drop_intent(order);
                        self.rebase();
                        Outcome::Confirmed
                    }
                    // Nothing has changed: another way back is looked for.
                    Err(rejection) => {
                        self.drop_rejoin(order);
                        Outcome::Rejected(rejection)
                    }
                }
            }
            wish if wish.is_verdict() => {
                self.vets |= matches!(wish, Wish::Ack { .. });
                self.tell_verdict(incoming.seq, entry, events);
                self.drop_intent(order);
                Outcome::Confirmed
            }
            Wish::Leave => {
                self.proposed_at.get_or_insert(incoming.time);
                if let Some(intent) = self.intents.get_mut(&order) {
                    intent.ordered = true;
                }
                self.save_intent(order);
                events.push(Event::LeaveRequested { member: self.account.client.clone() });
                Outcome::Confirmed
            }
            _ => {
                let Some(prepared) = intent.prepared.clone() else { return Outcome::Stale };
                *checkpoint = None;
                // It is not withdrawn with what was prepared in the epoch that it ends.
                self.intents.remove(&order);
                let step = Step::Own(order, Arc::clone(&prepared));
                match self.apply_own(&prepared.secrets, Some(step), entry, incoming, stays_open, events) {
                    Ok(()) => {
                        if !self.has_step() {
                            self.drop_intent(order);
                        }
                        self.keep_done(order, &intent, entry.epoch.next(), Some(incoming.seq));
                        self.rested(&intent.wish);
                        Outcome::Confirmed
                    }
                    Err(rejection) => {
                        self.intents.insert(order, intent);
                        Outcome::NeedsRecovery(rejection)
                    }
                }
            }
        }
    }

    /// Notes what happened beside the entries of the channel, at our place.
    pub(super) fn note_here(&mut self, events: &[Event]) {
        let (seq, time) = (self.window.position().seq, self.window.time());
        for event in events {
            self.note(event, seq, time);
        }
    }

    /// Tells of something that happened beside the entries of the channel, and notes it at our place.
    pub(super) fn tell(&mut self, event: Event, time: Timestamp, events: &mut Vec<Event>) {
        self.note(&event, self.window.position().seq, time);
        events.push(event);
    }

    /// Keeps what changed the group in its history, for people to read.
    pub(super) fn note(&mut self, event: &Event, seq: Seq, time: Timestamp) {
        if matches!(event, Event::Message { .. } | Event::LeaveRequested { .. } | Event::ExternalProposal { .. }) {
            return;
        }
        let Ok(body) = serde_json::to_vec(event) else { return };
        self.writes.push(Write::Message(StoredMessage {
            group: self.name.to_string(),
            seq: seq.0,
            epoch: self.epoch().0,
            id: *chain::entry_hash(&body).as_bytes(),
            sender: String::new(),
            time_ms: time.0,
            kind: KIND_EVENT,
            body,
        }));
    }
}

#[cfg(test)]
#[path = "audit_tests.rs"]
pub(super) mod audit_tests;
