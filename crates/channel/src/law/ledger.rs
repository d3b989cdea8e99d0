//! Which commit stands.
//!
//! The DS orders commits but cannot try them: a commit may be accepted that no member can apply, and then the DS
//! believes the group to be in an epoch that no member is in (RFC 9750, section 5.3). So a commit that was ordered is
//! *open* at first. It is *settled* when a member other than the committer says that it applied it (an Ack), or when
//! [`SETTLED_MS`] went by without a dispute. Members that cannot apply it say so (Nacks); that *disputes* it, and if no
//! Ack comes within the group's [`DisputePause`] of channel time, it is *annulled*, with every commit after it: the group is in the epoch again that
//! it had ended, which takes another commit.
//!
//! Everything that counts stands in the clear: kinds, times, channel keys, and paths to the roots of key trees. So the DS, members that follow, members that cannot, and members that come online later all reach the same
//! end from the same log, in both handshake modes.
//!
//! What one member can do by false words: its Nack alone annuls a commit only if no other member (the committer apart)
//! is online within the window; a member that a commit removes cannot dispute it by itself at all ([`Ledger::admit`]).
//! A false Ack takes a second member beside the committer; who could not follow must rejoin then.
//!
//! Of the members, the law knows what the headers of commits say. A header that has members vanish whom it does not remove is not
//! believed: they count on ([`Ledger::members`]). It is not refused either: the count before may be a false one that
//! stands, and would then shut out every true commit. So who says falsely to leave nobody else has to say that it
//! removes all of them; whom it could remove in truth, with the same effect.

use std::collections::VecDeque;

use conclave_names::{ChannelId, Epoch, Hash, Seq, Timestamp, limits};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};

use super::{DisputePause, PROPOSAL_UNIT, PROPOSALS_MAX, Refused, VerdictError, admit};
use crate::{Body, Entry, EntryError, EntryKind, access::ChannelKey, chain, verdict::Verdict};

/// How long a disputed commit waits for an Ack unless the group has another pause ([`DisputePause`]), in milliseconds of channel time:
/// 15 minutes.
pub const DISPUTE_MS: u64 = 15 * 60 * 1000;

/// How long a commit can be disputed that nobody acknowledged, in milliseconds of channel time: a week. Who comes later
/// and cannot follow must rejoin. Members acknowledge much earlier; this is for those who are alone for long.
pub const SETTLED_MS: u64 = 7 * 24 * 3600 * 1000;

/// How long after the end of an epoch messages of it may follow, in milliseconds of channel time: an hour. They were under
/// way then. Members keep the epoch's keys for that long, and little longer; later ones are sent anew.
pub const LATE_MS: u64 = 3600 * 1000;

/// Most commits that are open at once. More are refused until a member acknowledged one, or a week went by.
pub const OPEN_MAX: usize = 64;

/// Most Nacks that a commit needs to be disputed.
const NACKS_MAX: u64 = 64;

/// A commit that is not settled.
#[derive(Debug, Clone, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
pub struct OpenCommit {
    /// Its place.
    pub seq: Seq,
    /// The DS's time of it.
    pub time: Timestamp,
    /// Hash of its entry.
    pub hash: Hash,
    /// The committer's channel key in the epoch that it ended.
    pub committer: ChannelKey,
    /// Root of the key tree of the epoch that it began.
    pub key_root: Hash,
    /// Members of that epoch, as they are counted ([`Ledger::members`]).
    pub members: u32,
    /// Members that it removed.
    pub removed: u32,
    /// Channel keys of those who could not apply it, until there are enough.
    nacks: Vec<ChannelKey>,
    /// Since when it is disputed.
    disputed: Option<Timestamp>,
    /// What the proposals of the epoch that it ended took of [`PROPOSALS_MAX`].
    proposals: u32,
}

impl OpenCommit {
    /// Since when it is disputed, if it is.
    #[must_use]
    pub fn disputed(&self) -> Option<Timestamp> {
        self.disputed
    }

    /// One more than it removes.
    fn nacks_needed(&self) -> u64 {
        u64::from(self.removed).min(NACKS_MAX - 1) + 1
    }
}

/// What the log has decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A commit was disputed.
    Disputed {
        /// Which.
        commit: Seq,
    },
    /// A commit stands for good.
    Settled {
        /// Which.
        commit: Seq,
        /// The epoch that it began.
        began: Epoch,
    },
    /// A commit, and every commit after it, is void.
    Annulled {
        /// Which, in order.
        commits: Vec<Seq>,
        /// The epoch that the group is in again.
        epoch: Epoch,
    },
}

/// Which commits of a group's channel stand: a pure function of its log.
#[derive(Debug, Clone, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
pub struct Ledger {
    /// The newest settled epoch.
    settled: Epoch,
    /// Root of the key tree of that epoch.
    key_root: Hash,
    /// Members of that epoch.
    members: u32,
    /// When it began.
    since: Timestamp,
    /// How long a disputed commit waits.
    pause: DisputePause,
    /// Commits after it, in order; the first ended it.
    open: Vec<OpenCommit>,
    /// What the proposals of the epoch that the group is in take of [`PROPOSALS_MAX`].
    proposals: u32,
}

impl Ledger {
    /// Of a channel whose epoch began beyond all doubt: a group's first, with its creator alone.
    #[must_use]
    pub fn new(epoch: Epoch, key_root: Hash, members: u32) -> Self {
        let (since, pause) = (Timestamp(0), DisputePause::DEFAULT);
        Self { settled: epoch, key_root, members, since, pause, open: Vec::new(), proposals: 0 }
    }

    /// The same in a group with this pause.
    #[must_use]
    pub fn with_pause(self, pause: DisputePause) -> Self {
        Self { pause, ..self }
    }

    /// How long a disputed commit waits for an Ack.
    #[must_use]
    pub fn pause(&self) -> DisputePause {
        self.pause
    }

    /// Encodes it, for a store.
    ///
    /// # Errors
    /// [`EntryError`] never in practice: all is bounded.
    pub fn to_bytes(&self) -> Result<Vec<u8>, EntryError> {
        Ok(self.mls_encode_to_vec()?)
    }

    /// SHA-256 of the encoding: equal for who reads the same log to the same place.
    ///
    /// # Errors
    /// As [`Ledger::to_bytes`].
    pub fn hash(&self) -> Result<Hash, EntryError> {
        Ok(chain::entry_hash(&self.to_bytes()?))
    }

    /// Decodes it; nothing may follow.
    ///
    /// # Errors
    /// [`EntryError::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, EntryError> {
        let mut rest = bytes;
        let ledger = Self::mls_decode(&mut rest)?;
        if !rest.is_empty() || ledger.open.len() > OPEN_MAX {
            return Err(EntryError::Malformed);
        }
        Ok(ledger)
    }

    /// The epoch that the group is in.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch(self.settled.0.saturating_add(self.open.len() as u64))
    }

    /// When the epoch began that the group is in.
    #[must_use]
    pub fn began(&self) -> Timestamp {
        self.open.last().map_or(self.since, |commit| commit.time)
    }

    /// The newest settled epoch. Verdicts are proven by a key of it.
    #[must_use]
    pub fn settled(&self) -> Epoch {
        self.settled
    }

    /// Root of the key tree of the newest settled epoch.
    #[must_use]
    pub fn settled_root(&self) -> &Hash {
        &self.key_root
    }

    /// Members of the epoch that the group is in, by the word of who committed it; but no fewer than those before it
    /// whom that commit does not say to remove.
    #[must_use]
    pub fn members(&self) -> u32 {
        self.open.last().map_or(self.members, |commit| commit.members)
    }

    /// Commits that are not settled, in order.
    #[must_use]
    pub fn open(&self) -> &[OpenCommit] {
        &self.open
    }

    /// An open commit, with the epoch that it ended.
    #[must_use]
    pub fn find(&self, commit: Seq) -> Option<(Epoch, &OpenCommit)> {
        let index = self.open.iter().position(|open| open.seq == commit)?;
        Some((self.ended(index), self.open.get(index)?))
    }

    fn ended(&self, index: usize) -> Epoch {
        Epoch(self.settled.0.saturating_add(index as u64))
    }

    /// What the passing of time decides. To be called with the time of an entry before it is admitted.
    pub fn advance(&mut self, now: Timestamp) -> Vec<Change> {
        let mut changes = Vec::new();
        let pause = self.pause.ms();
        let lost = |open: &OpenCommit| open.disputed.is_some_and(|since| since.plus_ms(pause) < now);
        if let Some(index) = self.open.iter().position(lost) {
            let epoch = self.ended(index);
            self.proposals = self.open.get(index).map_or(0, |open| open.proposals);
            let commits = self.open.drain(index..).map(|open| open.seq).collect();
            changes.push(Change::Annulled { commits, epoch });
        }
        let old = |open: &OpenCommit| open.disputed.is_none() && open.time.plus_ms(SETTLED_MS) < now;
        while self.open.first().is_some_and(old) {
            changes.extend(self.settle());
        }
        changes
    }

    /// Settles the oldest open commit.
    fn settle(&mut self) -> Option<Change> {
        let mut open: VecDeque<_> = std::mem::take(&mut self.open).into();
        let commit = open.pop_front()?;
        self.open = open.into();
        self.settled = self.settled.next();
        self.key_root = commit.key_root;
        self.members = commit.members;
        self.since = commit.time;
        Some(Change::Settled { commit: commit.seq, began: self.settled })
    }

    /// Admits an entry, or says why it may not follow; nothing has changed then. [`Ledger::advance`] comes before.
    ///
    /// A Nack is about any open commit, and is proven by a key of the epoch that the commit ended. A commit that removes
    /// members is disputed only by more Nacks than it removes: so the removed cannot dispute their removal by themselves.
    /// An Ack is about the oldest open commit, and is proven by a key of the newest settled epoch: only that is beyond
    /// the committer's reach. Neither may be the committer's own.
    ///
    /// # Errors
    /// Any [`Refused`].
    pub fn admit(
        &mut self,
        channel: &ChannelId,
        seq: Seq,
        time: Timestamp,
        entry: &Entry,
        hash: Hash,
    ) -> Result<Vec<Change>, Refused> {
        admit(entry.kind, entry.epoch, self.epoch())?;
        if entry.body.staged() > entry.kind.body_max(self.members()) {
            return Err(Refused::Body);
        }
        match (entry.kind, &entry.commit, &entry.verdict) {
            (EntryKind::Commit, Some(header), _) => {
                if header.members == 0 || u64::from(header.members) > limits::MEMBERS {
                    return Err(Refused::Counts);
                }
                let members = self.members().saturating_sub(header.removed).max(header.members);
                // Who is alone, or is left alone, has nobody to dispute it.
                let alone = (self.members == 1 && self.open.is_empty()) || members == 1;
                if self.open.len() >= OPEN_MAX {
                    return Err(Refused::Unsettled);
                }
                self.open.push(OpenCommit {
                    seq,
                    time,
                    hash,
                    committer: header.committer,
                    key_root: header.key_root,
                    members,
                    removed: header.removed,
                    nacks: Vec::new(),
                    disputed: None,
                    proposals: std::mem::take(&mut self.proposals),
                });
                let mut changes = Vec::new();
                while alone && !self.open.is_empty() {
                    changes.extend(self.settle());
                }
                Ok(changes)
            }
            (EntryKind::Nack, _, Some(verdict)) => {
                let index = self.check(channel, entry, verdict)?;
                Ok(self.nack(index, verdict.key, time)?.into_iter().collect())
            }
            (EntryKind::Ack, _, Some(verdict)) => {
                if self.check(channel, entry, verdict)? != 0 {
                    return Err(VerdictError::NotOldest.into());
                }
                Ok(self.settle().into_iter().collect())
            }
            (EntryKind::Message, ..) if entry.epoch < self.epoch() && self.began().plus_ms(LATE_MS) < time => {
                Err(Refused::Epoch { found: entry.epoch, current: self.epoch() })
            }
            (EntryKind::Proposal, ..) => {
                let units = entry.body.size().div_ceil(PROPOSAL_UNIT).max(1);
                let proposals = u64::from(self.proposals).saturating_add(units);
                self.proposals = u32::try_from(proposals)
                    .ok()
                    .filter(|proposals| *proposals <= PROPOSALS_MAX)
                    .ok_or(Refused::Proposals)?;
                Ok(Vec::new())
            }
            (EntryKind::Message | EntryKind::Successor, ..) => Ok(Vec::new()),
            _ => Err(Refused::Kind),
        }
    }

    /// Checks a verdict. Gives the place among the open commits of the one that it is about.
    fn check(&self, channel: &ChannelId, entry: &Entry, verdict: &Verdict) -> Result<usize, VerdictError> {
        let index = self.open.iter().position(|open| open.seq == verdict.commit).ok_or(VerdictError::NotOpen)?;
        let commit = self.open.get(index).ok_or(VerdictError::NotOpen)?;
        if entry.epoch != self.ended(index) {
            return Err(VerdictError::NotOpen);
        }
        if verdict.key == commit.committer {
            return Err(VerdictError::Own);
        }
        let before = index.checked_sub(1).and_then(|before| self.open.get(before));
        let root = before.map_or(&self.key_root, |before| &before.key_root);
        verdict.path.verify(&verdict.key, root).map_err(|_| VerdictError::Key)?;
        let Body::Inline(body) = &entry.body else { return Err(VerdictError::Signature) };
        if !verdict.is_signed(channel, entry.kind, &commit.hash, body) {
            return Err(VerdictError::Signature);
        }
        Ok(index)
    }

    fn nack(&mut self, index: usize, key: ChannelKey, time: Timestamp) -> Result<Option<Change>, VerdictError> {
        let commit = self.open.get_mut(index).ok_or(VerdictError::NotOpen)?;
        if commit.disputed.is_some() || commit.nacks.contains(&key) {
            return Err(VerdictError::Repeated);
        }
        commit.nacks.push(key);
        if (commit.nacks.len() as u64) < commit.nacks_needed() {
            return Ok(None);
        }
        commit.disputed = Some(time);
        commit.nacks.clear();
        Ok(Some(Change::Disputed { commit: commit.seq }))
    }

    /// How many more Nacks dispute a commit; none if it is disputed or not open.
    #[must_use]
    pub fn nacks_missing(&self, commit: Seq) -> Option<u64> {
        let found = self.open.iter().find(|open| open.seq == commit && open.disputed.is_none())?;
        Some(found.nacks_needed().saturating_sub(found.nacks.len() as u64))
    }

    /// The ledger as it will be for an entry of this time.
    #[must_use]
    pub fn at(&self, now: Timestamp) -> Self {
        let mut ledger = self.clone();
        ledger.advance(now);
        ledger
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
