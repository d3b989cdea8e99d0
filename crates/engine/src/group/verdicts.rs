//! Our word about commits, and that of others: who cannot apply one disputes it, who applied it says so (`conclave_channel::verdict`).

use conclave_channel::{Entry, EntryKind, Position, access::ChannelKey, law::SETTLED_MS, verdict::Verdict};
use conclave_names::{IdempotencyKey, Seq, Timestamp};
use zeroize::Zeroizing;

use super::{
    Group, Status,
    access::fault,
    standing::{BLIND_MS, COMES_BACK},
};
use crate::{
    intent::{Intent, Prepared, Wish},
    mls_client::{MlsError, random, suite},
    outcome::Event,
};

/// Open commits from which on a member acknowledges the oldest without being asked.
const CROWDED: usize = 8;

/// Age of an open commit from which on a member does so, in milliseconds: the state before it is of no use any more.
const AGED_MS: u64 = 3600 * 1000;

/// How long a member that could answer a dispute waits for each one that stands before it, in milliseconds.
const ACK_DELAY_MS: u64 = 1000;

/// Members that are waited for.
const ACK_DELAY_RANKS: u64 = 10;

impl Group {
    /// Has us dispute the commit that we lost. The committer's own word would not count.
    pub(super) fn dispute(&mut self) -> Result<(), MlsError> {
        let Some(lost) = self.lost.clone() else { return Ok(()) };
        let own = |key: &ChannelKey| self.secret_of(key).is_ok();
        let open = self.ledger.find(lost.commit).is_some_and(|(_, open)| !own(&open.committer));
        if open {
            self.wish_first(Wish::Nack { commit: lost.commit, reason: lost.reason })?;
        }
        Ok(())
    }

    /// The commit that we are to acknowledge now, if there is one: the oldest open one, when one that we applied is
    /// disputed, many are open, or it is old.
    pub(super) fn ack_due(&self, now: Timestamp) -> Option<(Seq, Timestamp)> {
        // What time has decided needs no word of ours.
        let ledger = self.ledger.at(now);
        let front = ledger.open().first()?;
        let applied = |index: usize| self.epoch().0 > ledger.settled().0.saturating_add(index as u64);
        let mut open = ledger.open().iter().enumerate();
        let disputed = open.find_map(|(index, open)| open.disputed().filter(|_| applied(index)));
        let crowded = ledger.open().get(CROWDED - 1).map(|open| open.time);
        // A frozen group goes on once the commit that froze it is settled.
        let frozen = self.frozen.as_ref().map(|_| front.time);
        let since = disputed.or(crowded).or(frozen).unwrap_or_else(|| front.time.plus_ms(AGED_MS));
        let said = self.intents.values().any(|intent| matches!(intent.wish, Wish::Ack { .. }));
        let able = applied(0) && self.joined <= ledger.settled() && self.secret_of(&front.committer).is_err();
        // Who cannot follow a later commit has applied this one all the same.
        if said || !able || self.status == Status::Removed || self.unable == Some(front.seq) {
            return None;
        }
        Some((front.seq, since.plus_ms(self.rank(ACK_DELAY_RANKS) * ACK_DELAY_MS)))
    }

    /// When the commit that we could not apply will be annulled, if nobody acknowledges it. Our place among the members
    /// says who goes first.
    pub(super) fn revival_due(&self) -> Option<Timestamp> {
        let lost = self.lost.as_ref().filter(|lost| !lost.settled)?;
        let (_, open) = self.ledger.find(lost.commit)?;
        Some(open.disputed()?.plus_ms(self.ledger.pause().ms() + 1 + self.rank(ACK_DELAY_RANKS) * ACK_DELAY_MS))
    }

    /// Whether we cannot read how it is decided whether the commit that we could not apply stands: by its own word it removes members,
    /// or one that came after it does, and so ends what keys of our epoch may read.
    fn is_shut_out(&self) -> bool {
        let lost = self.lost.as_ref().filter(|lost| lost.certain && !lost.settled);
        let Some(lost) = lost.filter(|lost| self.ledger.find(lost.commit).is_some()) else { return false };
        self.ledger.open().iter().any(|open| open.seq >= lost.commit && open.removed > 0)
    }

    /// When we go on as if the commit that we could not apply were annulled, if we can read neither that nor a dispute. If others could
    /// apply it, the DS refuses.
    pub(super) fn blind_due(&self) -> Option<Timestamp> {
        let lost = self.lost.as_ref().filter(|_| self.is_shut_out())?;
        self.ledger.find(lost.commit).filter(|(_, open)| open.disputed().is_none())?;
        let own = self.mls.current_member_index();
        let before = self.mls.roster().members_iter().take_while(|member| member.index < own).count() as u64;
        Some(lost.nacked?.plus_ms(self.ledger.pause().ms() + BLIND_MS + before.min(ACK_DELAY_RANKS) * ACK_DELAY_MS))
    }

    /// Whether a refusal in the epoch before a commit that we could not apply says that others have acknowledged it: if we cannot read
    /// on, and the time is over that a dispute takes.
    pub(super) fn refusal_decides(&self) -> bool {
        if !self.is_shut_out() {
            return false;
        }
        match self.lost.as_ref().and_then(|lost| self.ledger.find(lost.commit)?.1.disputed()) {
            Some(since) => self.read_to_end >= Some(since.plus_ms(self.ledger.pause().ms() + BLIND_MS)),
            None => self.blind_due().is_some(),
        }
    }

    /// The DS took something of ours: if it is our word about a commit, it may be that we cannot read it, as what we could not apply or a removal
    /// since has ended what our key may read. It is not sent again.
    pub(super) fn verdict_taken(&mut self, time: Timestamp) {
        // Verdicts go before everything else: the first of them is what was taken.
        let first = self.intents.iter_mut().find(|(_, intent)| intent.wish.is_verdict() && !intent.ordered);
        let Some((order, intent)) = first.filter(|(_, intent)| intent.prepared.is_some()) else { return };
        if let Wish::Nack { commit, .. } = intent.wish {
            let Some(lost) = self.lost.as_mut().filter(|lost| lost.nacked.is_none() && lost.commit == commit) else {
                return;
            };
            lost.nacked = Some(time);
            self.dirty = true;
        }
        intent.ordered = true;
        let order = *order;
        self.save_intent(order);
    }

    /// The DS takes no word about the commit that we could not apply any more, after the log was read as far as it is given to us. Where
    /// that does not tell how it was decided, a removal since has ended what our key may read: so it stands.
    pub(super) fn dispute_came_late(&mut self, events: &mut Vec<Event>) {
        let Some(lost) = self.lost.as_ref().filter(|lost| lost.certain && !lost.settled) else { return };
        if self.ledger.find(lost.commit).is_some_and(|(_, open)| open.disputed().is_none()) {
            self.went_on_without_us(events);
        }
    }

    /// What there is to tell if the commit that we could not apply is open, and not disputed for all that we can read, and why we cannot
    /// follow: others may have applied it, or too few have disputed it.
    fn undecided(&self) -> Option<(Event, String)> {
        let lost = self.lost.as_ref()?;
        let (_, open) = self.ledger.find(lost.commit).filter(|(_, open)| open.disputed().is_none())?;
        let about = |intent: &Intent| matches!(intent.wish, Wish::Nack { commit, .. } if commit == lost.commit);
        // Ours was taken, and is not for us to read.
        let unread = self.intents.values().any(|intent| about(intent) && intent.ordered);
        let missing = self.ledger.nacks_missing(lost.commit)?.saturating_sub(u64::from(unread));
        let (by, until) = (self.member_with(&open.committer), open.time.plus_ms(SETTLED_MS));
        let who = by.as_ref().map_or_else(|| "a member".to_owned(), ToString::to_string);
        let reason = format!(
            "{who} says that it removed {} members, by a commit that this client could not apply ({}). Either others \
             could apply it: {COMES_BACK}. Or it is a false one, which is taken back if {missing} more members at most \
             come online within a week of it and cannot apply it either; else make a new group without {who}",
            open.removed, lost.reason
        );
        let (removed, commit) = (open.removed, lost.commit);
        Some((Event::Undecided { commit, by, removed, missing, until, reason: lost.reason.clone() }, reason))
    }

    /// The DS refused to go on without the commit that we could not apply: it stands for now, and we must rejoin.
    pub(super) fn went_on_without_us(&mut self, events: &mut Vec<Event>) {
        let unproven = self.undecided();
        let Some(lost) = self.lost.as_mut() else { return };
        lost.settled = true;
        let seq = lost.commit;
        if let Some((event, reason)) = unproven {
            self.status = Status::Stuck { reason };
            self.dirty = true;
            self.tell(event, self.window.time(), events);
            return;
        }
        let reason = format!(
            "the group went on with the commit that this client could not apply ({}): {COMES_BACK}",
            lost.reason
        );
        self.status = Status::Stuck { reason: reason.clone() };
        self.dirty = true;
        self.tell(Event::Stuck { seq, reason }, self.window.time(), events);
    }

    /// Makes the entry of a verdict. None if the commit is open no more.
    pub(super) fn prepare_verdict(
        &self,
        kind: EntryKind,
        commit: Seq,
        reason: &str,
        now: Timestamp,
    ) -> Result<Option<Prepared>, MlsError> {
        // By then some may be settled that are open now. Whether it is too late for a dispute the DS says by its own clock: else who can read
        // no further would never learn that the commit stands.
        let ledger = self.ledger.at(now);
        let late =
            || self.ledger.find(commit).filter(|(ended, _)| kind == EntryKind::Nack && *ended < ledger.settled());
        let Some((epoch, open)) = ledger.find(commit).or_else(late) else { return Ok(None) };
        let provider = suite(self.mls.cipher_suite())?;
        let (keys, public) = self.keys_of(epoch)?;
        let path = keys.tree.path(&public).map_err(fault)?;
        let body = self.seal(kind, epoch, reason.as_bytes().to_vec())?;
        let about = Position { seq: commit, hash: open.hash };
        let entry = Verdict::sign(&self.profile.channel, kind, epoch, &about, self.secret_of(&public)?, path, body);
        Ok(Some(Prepared {
            key: IdempotencyKey::new(random(&provider)?),
            epoch,
            entry: entry.to_bytes().map_err(fault)?,
            bundle: None,
            blobs: Vec::new(),
            secrets: Zeroizing::default(),
        }))
    }

    /// Tells of a verdict that counted: whose it is, and the reason if we can read it.
    pub(super) fn tell_verdict(&self, seq: Seq, entry: &Entry, events: &mut Vec<Event>) {
        let Some(verdict) = &entry.verdict else { return };
        let by = self.member_with(&verdict.key);
        let reason = match &entry.body {
            conclave_channel::Body::Inline(sealed) if entry.kind == EntryKind::Nack => {
                self.unseal(entry, sealed).ok().and_then(|reason| String::from_utf8(reason).ok())
            }
            _ => None,
        };
        let commit = verdict.commit;
        events.push(match entry.kind {
            EntryKind::Ack => Event::Acknowledged { seq, commit, by },
            _ => Event::NotApplied { seq, commit, by, reason },
        });
    }

    /// Forgets what was to be said about commits that are decided.
    pub(super) fn drop_verdicts(&mut self, commits: &[Seq]) {
        let about = |wish: &Wish| match wish {
            Wish::Nack { commit, .. } | Wish::Ack { commit } => commits.contains(commit),
            _ => false,
        };
        let done: Vec<_> =
            self.intents.iter().filter(|(_, intent)| about(&intent.wish)).map(|(order, _)| *order).collect();
        for order in done {
            self.drop_intent(order);
        }
    }
}
