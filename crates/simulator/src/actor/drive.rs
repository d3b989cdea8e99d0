//! Carrying out what was wished.

use conclave_channel::{Entry, chain};
use conclave_engine::{
    group::{Group, Status, SubmissionBody},
    intent::Wish,
    outcome::Event,
};
use conclave_names::Seq;
use conclave_protocol::{Code, Retry, v1::SubmitResponse};

use super::{Actor, Surroundings};
use crate::{
    network::{NetworkFault, Stop},
    sabotage::Sabotage,
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
        for _ in 0..ROUNDS {
            match self.submit(around, slot)? {
                Submitted::Nothing => break,
                Submitted::Taken => self.read_group(around, slot)?,
                Submitted::Refused => {}
            }
        }
        Ok(())
    }

    /// Submits the next thing.
    pub(crate) fn submit(&mut self, around: &mut Surroundings, slot: usize) -> Result<Submitted, Stop> {
        let long_ago = self.caught_up.get(slot).is_some_and(|at| at.plus_ms(UNREAD_MS) < around.server.now);
        if long_ago && self.member(slot).is_some() && self.sabotage != Sabotage::SubmitUnread {
            // What was submitted before may stand in the channel, and the service have forgotten that it took it.
            self.read_group(around, slot)?;
        }
        let now = self.now(&around.server);
        let persist = self.sabotage != Sabotage::SkipPersist;
        let lazy = self.sabotage == Sabotage::NeverCommit;
        let Some(group) = self.member(slot) else { return Ok(Submitted::Nothing) };
        let mut events: Vec<Event> = Vec::new();
        let key = group.next_generation();
        let next = group.next_submission(now, &mut events);
        // The epoch's own name: one that was annulled has another than the one in its place.
        let used = (group.next_generation() > key).then(|| group.epoch_authenticator().map(|epoch| (epoch, key)));
        let used = used.transpose().map_err(Stop::violation)?;
        let ended = *group.status() == Status::Removed;
        if lazy && let Ok(Some(submission)) = &next {
            let id = submission.intent;
            if group.intents().any(|intent| intent.id == id && intent.wish == Wish::CommitProposals) {
                return Ok(Submitted::Nothing);
            }
        }
        self.hear(around, slot, &events)?;
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
        if let (Some(key), SubmissionBody::Entry(request)) = (used, &submission.body) {
            around.ledger.encrypted(&self.client, key, &request.entry)?;
        }
        let beats = self.group(slot).is_some_and(|group| {
            group.intents().any(|intent| intent.id == submission.intent && intent.wish == Wish::Heartbeat)
        });
        if let (true, SubmissionBody::Entry(request)) = (beats, &submission.body) {
            around.ledger.heartbeats.insert(request.entry.clone());
        }
        let sent = self.send(around, slot, &submission.blobs, &submission.body);
        match sent {
            Ok(reply) => {
                let seq = Seq(reply.seq);
                let told = self.member(slot).map(|group| group.accepted(&reply)).unwrap_or_default();
                self.hear(around, slot, &told)?;
                around.ledger.tell(format!("    {} submits entry {seq} of group {slot}", self.name()));
                around.ledger.acknowledged(submission.intent, seq);
                Ok(Submitted::Taken)
            }
            Err(Stop::Refused(refusal)) if refusal.retry() == Retry::Later => Err(Stop::Refused(refusal)),
            Err(Stop::Refused(refusal)) => {
                around.ledger.tell(format!("    {} is refused in group {slot}: {}", self.name(), refusal.code));
                self.close_session(slot);
                self.read_group(around, slot)?;
                let Some(group) = self.member(slot) else { return Ok(Submitted::Refused) };
                let mut events = Vec::new();
                // If the channel does not show why, the same is sent again.
                let _hint = group.refused(submission.intent, &refusal, &mut events);
                self.hear(around, slot, &events)?;
                self.save(around, slot)?;
                Ok(Submitted::Refused)
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

    fn send(
        &mut self,
        around: &mut Surroundings,
        slot: usize,
        blobs: &[Vec<u8>],
        body: &SubmissionBody,
    ) -> Result<SubmitResponse, Stop> {
        let mut again = true;
        loop {
            match self.try_send(around, slot, blobs, body) {
                Err(Stop::Refused(refusal)) if refusal.code == Code::SessionUnknown && again => {
                    again = false;
                    self.close_session(slot);
                }
                sent => return sent,
            }
        }
    }

    /// A commit in place of ours that nobody can apply, ourselves included: it promises channel keys that nobody has.
    /// Not of somebody who is alone (nobody could dispute it), nor a removal (the removed would be counted out).
    fn break_commit(&self, slot: usize, body: &SubmissionBody) -> Option<SubmissionBody> {
        let SubmissionBody::Bundle(bundle) = body else { return None };
        let mut entry = Entry::parse(&bundle.entry).ok()?;
        let header = entry.commit.as_mut().filter(|header| header.removed == 0)?;
        if self.group(slot)?.members().ok()?.len() < 2 {
            return None;
        }
        header.key_root = chain::entry_hash(&bundle.entry);
        let mut broken = bundle.clone();
        broken.entry = entry.to_bytes().ok()?;
        broken.idempotency_key.iter_mut().for_each(|byte| *byte = !*byte);
        Some(SubmissionBody::Bundle(broken))
    }

    fn try_send(
        &mut self,
        around: &mut Surroundings,
        slot: usize,
        blobs: &[Vec<u8>],
        body: &SubmissionBody,
    ) -> Result<SubmitResponse, Stop> {
        let mut session = self.session(around, slot)?;
        let staged = blobs.iter().try_for_each(|blob| around.call(|server| server.stage(&mut session, blob)));
        let fault = around.weather.fault();
        let bundle = matches!(body, SubmissionBody::Bundle(_));
        let broken = (bundle && around.weather.breaks()).then(|| self.break_commit(slot, body)).flatten();
        let submission = session.submission(broken.as_ref().unwrap_or(body));
        if let Some(epoch) = self.group(slot).map(Group::epoch) {
            self.keep_session(slot, epoch, session);
        }
        staged?;
        let server = &mut around.server;
        if broken.is_some() {
            around.ledger.tell(format!("    {} breaks its commit", self.name()));
            around.ledger.broken.extend(server.submit(&submission).map(|reply| (slot, Seq(reply.seq))));
            return Err(Stop::Unreachable);
        }
        if fault == Some(NetworkFault::Delayed) {
            server.delay(submission.clone());
        }
        around.weather.call(fault, || {
            let reply = server.submit(&submission);
            if fault == Some(NetworkFault::Doubled) {
                let _copy = server.submit(&submission);
            }
            reply
        })
    }
}
