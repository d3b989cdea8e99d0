//! Carrying out what was wished.

use std::convert::Infallible;

use conclave_channel::{Entry, EntryKind, law::OPEN_MAX};
use conclave_engine::{
    group::{GapFill, Group, Status, Submission, SubmissionBody},
    intent::Wish,
    outcome::Event,
};
use conclave_mls::crypto::hostile::with_bad_path_secrets;
use conclave_names::{IdempotencyKey, Seq, Timestamp};
use conclave_protocol::{Code, Retry, v1::SubmitResponse};

use super::{Actor, Surroundings};
use crate::{
    hostile::{Offence, Tamper},
    ledger::{Alarm, Deed},
    network::{NetworkFault, Stop},
    sabotage::Sabotage,
    server::Opener,
};

/// Submissions of one call, before the rest is left to the next.
const ROUNDS: usize = 24;

/// After so long without having read the channel, it is read before anything is submitted. The service remembers what
/// it took for 24 hours.
const UNREAD_MS: u64 = 12 * 3600 * 1000;

/// What became of one submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Submitted {
    /// There is nothing to submit.
    Nothing,
    /// The service took it.
    Taken,
    /// The service refused it, or the engine dropped the wish.
    Refused,
}

impl Actor {
    /// Submits until nothing is left, reading in between.
    pub(crate) fn drive(&mut self, around: &mut Surroundings, slot: usize) -> Result<(), Stop> {
        self.found(around, slot)?;
        for _ in 0..ROUNDS {
            match self.submit(around, slot)? {
                Submitted::Nothing => break,
                Submitted::Taken => self.read_group(around, slot)?,
                Submitted::Refused => {}
            }
        }
        around.ledger.has_judged(self.index, slot, around.server.now);
        self.go_on(around, slot)
    }

    /// Submits the next thing.
    pub(crate) fn submit(&mut self, around: &mut Surroundings, slot: usize) -> Result<Submitted, Stop> {
        let long_ago = self.caught_up.get(slot).is_some_and(|at| at.plus_ms(UNREAD_MS) < around.server.now);
        if long_ago && self.member(slot).is_some() && self.sabotage != Sabotage::SubmitUnread {
            // What was submitted before may stand in the channel, and the service have forgotten that it took it.
            self.read_group(around, slot)?;
        }
        let before = matches!(self.sabotage, Sabotage::ReuseKey | Sabotage::ReuseCommitKey).then(|| self.disk.clone());
        let now = self.now(&around.server);
        let persist = self.sabotage != Sabotage::SkipPersist;
        let mask = self.offence.and_then(Offence::bad_path_secrets).unwrap_or(0);
        let mut events: Vec<Event> = Vec::new();
        self.tend_gaps(slot, now, &mut events);
        let Some(group) = self.member(slot) else { return Ok(Submitted::Nothing) };
        let mls = |error| Stop::violation(error);
        let last = (group.epoch_authenticator().map_err(mls)?, group.next_generation());
        let (next, spoilt) = with_bad_path_secrets(mask, || group.next_submission(now, &mut events));
        // The epoch's own name: one that was annulled has another than the one in its place. Time may have annulled it in this very call.
        let epoch = group.epoch_authenticator().map_err(mls)?;
        let key = group.next_generation().checked_sub(1);
        let used = key.filter(|key| last.0 != epoch || *key >= last.1).map(|key| (epoch, key));
        let ended = *group.status() == Status::Removed;
        if let (1.., Ok(Some(submission))) = (spoilt, &next) {
            // It may become durable, whatever comes now.
            let body = submission.body.clone();
            self.commit_is_partial(around, slot, &body);
        }
        // Who is alone has left by this.
        let Some(group) = self.groups.get_mut(slot).and_then(Option::as_mut) else { return Ok(Submitted::Nothing) };
        let left_undone = match self.sabotage {
            Sabotage::NeverCommit => Some(Wish::CommitProposals),
            Sabotage::NeverRenew => Some(Wish::Update),
            _ => None,
        };
        if let (Some(wish), Ok(Some(submission))) = (left_undone, &next) {
            let id = submission.intent;
            if group.intents().any(|intent| intent.id == id && intent.wish == wish) {
                return Ok(Submitted::Nothing);
            }
        }
        if self.sabotage == Sabotage::NeverDispute && self.is_nack(slot, &next) {
            return Ok(Submitted::Nothing);
        }
        self.hear(around, slot, &events, &[])?;
        self.say_again(around, slot, &events);
        if ended {
            let actor = self.index;
            around.ledger.excuse(|said| said.actor == actor && said.slot == slot);
        }
        if persist {
            self.save(around, slot)?;
        } else if let Some(group) = self.member(slot) {
            let _lost = group.take_writes().map_err(Stop::violation)?;
        }
        // The wish was dropped; the event told why.
        let Ok(next) = next else { return Ok(Submitted::Refused) };
        let Some(submission) = next else { return Ok(Submitted::Nothing) };
        if let (Some(key), SubmissionBody::Entry(request)) = (used, &submission.body)
            && Entry::parse(&request.entry).is_ok_and(|entry| entry.kind == EntryKind::Message)
            && !around.ledger.has_seen(&self.client, &request.entry)
        {
            around.ledger.encrypted(&self.client, key, &request.entry)?;
        }
        let wish = self.wish_of(slot, submission.intent);
        match self.send(around, slot, &submission) {
            Ok(reply) => {
                let seq = Seq(reply.seq);
                let told = match self.sabotage {
                    Sabotage::Trusting => Vec::new(),
                    _ => self.member(slot).map(|group| group.accepted(&reply)).unwrap_or_default(),
                };
                if !told.iter().any(|event| matches!(event, Event::ReceiptInvalid { .. }))
                    && self.sabotage != Sabotage::Trusting
                {
                    around.ledger.signed_for(self.index, slot, seq);
                }
                self.hear(around, slot, &told, &[])?;
                around.ledger.tell(format!("    {} submits entry {seq} of group {slot}: {wish}", self.name()));
                around.ledger.acknowledged(submission.intent, seq);
                Ok(Submitted::Taken)
            }
            // So many commits wait for another member: the wish waits for that, too.
            Err(Stop::Refused(refusal))
                if refusal.code == Code::QuotaExceeded
                    && self.group(slot).is_some_and(|group| group.open_commits() >= OPEN_MAX) =>
            {
                Ok(Submitted::Nothing)
            }
            Err(Stop::Refused(refusal)) if refusal.retry() == Retry::Later => Err(Stop::Refused(refusal)),
            Err(Stop::Refused(refusal)) => {
                around.ledger.tell(format!(
                    "    {} is refused in group {slot}: {} ({wish})",
                    self.name(),
                    refusal.code
                ));
                self.close_session(slot);
                self.read_group(around, slot)?;
                let Some(group) = self.member(slot) else { return Ok(Submitted::Refused) };
                let mut events = Vec::new();
                let taken = group.refused(submission.intent, &refusal, &mut events);
                self.hear(around, slot, &events, &[])?;
                self.save(around, slot)?;
                if taken.is_ok() {
                    return Ok(Submitted::Refused);
                }
                // The channel does not show why: the same is sent again another time, and people see that it waits.
                if around.ledger.is_lied_to(self.index, slot) {
                    self.notice(around, slot, Alarm::Refusal, &format!("the service refuses: {}", refusal.code))?;
                }
                Ok(Submitted::Nothing)
            }
            Err(Stop::Unreachable)
                if before.is_some()
                    && matches!(submission.body, SubmissionBody::Entry(_)) == (self.sabotage == Sabotage::ReuseKey) =>
            {
                self.disk = before.unwrap_or_default();
                self.die(&around.ledger)?;
                Err(Stop::Unreachable)
            }
            Err(Stop::Unreachable) if self.sabotage == Sabotage::SayAgain => {
                let pending = self.group(slot).and_then(|group| {
                    group.intents().find(|intent| intent.id == submission.intent).map(|intent| intent.wish.clone())
                });
                if let (Some(group), Some(wish @ Wish::Send { .. })) = (self.member(slot), pending) {
                    group.wish(wish).map_err(Stop::violation)?;
                    self.save(around, slot)?;
                }
                Err(Stop::Unreachable)
            }
            Err(stop) => Err(stop),
        }
    }

    /// Tells members that are back what they missed: some by themselves, others as their users would have it.
    fn tend_gaps(&mut self, slot: usize, now: Timestamp, events: &mut Vec<Event>) {
        let (always, disk) = (self.index.is_multiple_of(2), &self.disk);
        let Some(group) = self.groups.get_mut(slot).and_then(Option::as_mut) else { return };
        let name = group.name().to_string();
        let page = |after, limit| Ok::<_, Infallible>(disk.page(&name, after, limit));
        let choice = if always { GapFill::Always } else { GapFill::Ask };
        let told = events.len();
        let Ok(()) = group.tend_gaps(choice, now, page, events);
        let asked = events.iter().skip(told).filter_map(|event| match event {
            Event::GapRequested { member, .. } => Some(member.clone()),
            _ => None,
        });
        for asker in asked.collect::<Vec<_>>() {
            let _given = group.fill_gap(&asker, now, page, events);
        }
    }

    /// What somebody wished, for people to read.
    fn wish_of(&self, slot: usize, intent: IdempotencyKey) -> String {
        let wish = self.group(slot).and_then(|group| group.intents().find(|of| of.id == intent));
        match wish.map(|of| &of.wish) {
            // Its name is random, and what a seed does is told in the same words each time.
            Some(Wish::Send { .. }) => "Send".to_owned(),
            Some(wish) => format!("{wish:?}"),
            None => "nothing any more".to_owned(),
        }
    }

    fn is_nack<E>(&self, slot: usize, next: &Result<Option<Submission>, E>) -> bool {
        let Ok(Some(submission)) = next else { return false };
        let is_nack = |intent: &conclave_engine::intent::Intent| {
            intent.id == submission.intent && matches!(intent.wish, Wish::Nack { .. })
        };
        self.group(slot).is_some_and(|group| group.intents().any(is_nack))
    }

    fn send(
        &mut self,
        around: &mut Surroundings,
        slot: usize,
        submission: &Submission,
    ) -> Result<SubmitResponse, Stop> {
        let mut again = true;
        loop {
            match self.try_send(around, slot, submission) {
                Err(Stop::Refused(refusal)) if refusal.code == Code::SessionUnknown && again => {
                    again = false;
                    self.close_session(slot);
                }
                sent => return sent,
            }
        }
    }

    fn try_send(
        &mut self,
        around: &mut Surroundings,
        slot: usize,
        submission: &Submission,
    ) -> Result<SubmitResponse, Stop> {
        let Submission { blobs, body, join, .. } = submission;
        let mut session = match join {
            Some(join) => {
                let (skew, opener) = (self.skew, Opener::Outsider(join.clone()));
                around.call(|server| server.open(skew, &opener))?
            }
            None => self.session(around, slot)?,
        };
        around.keys.leaves(self.index, body, blobs)?;
        let staged = blobs.iter().try_for_each(|blob| around.call(|server| server.stage(&mut session, blob)));
        let fault = around.weather.fault();
        if let (Ok(()), Some(spoilt)) = (&staged, self.spoil(slot, body)) {
            return self.send_spoilt(around, slot, session, spoilt);
        }
        let request = session.submission(body);
        if let SubmissionBody::Bundle(bundle) = body {
            around.server.keep_group_info(session.channel(), bundle);
        }
        if let Some(epoch) = self.group(slot).map(Group::epoch).filter(|_| join.is_none()) {
            self.keep_session(slot, epoch, session);
        }
        staged?;
        if !around.ledger.is_victim(self.index, slot) {
            let epochs = &self.epochs;
            around.witnesses.hear(self.index, |epoch| epochs.get(&(slot, epoch)).cloned(), body, blobs)?;
        }
        if fault == Some(NetworkFault::Delayed) {
            around.server.delay(request.clone());
        }
        let tamper = around.weather.tamper(Tamper::is_about_receipts);
        let reply = around.call_with(fault, |server| {
            let reply = server.submit_signed(&request, |reply| {
                if let (Some(Tamper::FalseReceipt), Some(byte)) = (tamper, reply.chain.first_mut()) {
                    *byte ^= 1;
                }
            });
            if fault == Some(NetworkFault::Doubled) {
                let _copy = server.submit(&request);
            }
            reply
        });
        let mut reply = reply?;
        if let Some(tamper) = tamper {
            if tamper == Tamper::Unsigned {
                reply.receipt.clear();
            }
            around.ledger.misdeed(Deed::Tampered(tamper), slot, self.index, Some(Seq(reply.seq)));
        }
        Ok(reply)
    }
}
