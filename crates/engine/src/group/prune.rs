//! Which keys a group keeps, and for how long (RFC 9750, sections 7 and 8.2.2).
//!
//! A key that was used is noted in the transaction that shows what it opened, or seals what it sealed, and no one who keeps to the notes
//! finds it again; the MLS state, from which it could be derived, is written anew within `STATE_MS` (see `journal`). What may still
//! be needed is kept for a stated time:
//!
//! | what | until |
//! |---|---|
//! | unused message keys of the present epoch | it ends: after 8 days in a group of up to 10,000, by our own commit if by no other |
//! | those of an epoch that ended, with its resumption PSK | [`PAST_MS`] later; at most `EPOCHS_KEPT` such epochs |
//! | group seeds | no epoch that counts is sealed under them: the present, the one before it, and those that may come back |
//! | the state before a commit, with its tree key, and channel keys of earlier leaves of ours | the commit is settled |
//! | the key to which what we missed is sealed (`gap`) | one member's answer is complete; `GAP_MS` after our return at most |
//! | all of a group that we are no member of | our removal is settled |

use std::collections::BTreeMap;

use conclave_channel::law::{Change, LATE_MS};
use conclave_names::{Epoch, Timestamp};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};

use super::{Group, Status, standing::Parent};
use crate::{
    mls_client::MlsError,
    writes::{Room, Write},
};

/// How long keys of an epoch are kept after its end, in milliseconds: the hour in which the DS may still order messages of
/// it, and ten minutes for clocks that differ from the DS's.
pub const PAST_MS: u64 = LATE_MS + 10 * 60_000;

/// An epoch that ended, of which keys are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
pub(super) struct Past {
    pub(super) epoch: Epoch,
    pub(super) ended: Timestamp,
}

impl Group {
    /// Notes that a commit ended an epoch.
    pub(super) fn epoch_ended(&mut self, epoch: Epoch, ended: Timestamp) {
        self.past.retain(|past| past.epoch < epoch);
        self.past.push(Past { epoch, ended });
        let excess = self.past.len().saturating_sub(usize::try_from(crate::stores::EPOCHS_KEPT).unwrap_or(usize::MAX));
        // mls-rs's store has dropped them.
        self.past.drain(..excess);
        self.prune_seeds();
    }

    /// Forgets seeds under which nothing is sealed that may still come.
    pub(super) fn prune_seeds(&mut self) {
        // Messages of the epoch before the present one may come, and the present one may be the settled one again.
        let oldest = self.ledger.settled().0.min(self.epoch().0).saturating_sub(1);
        let needed = self.seeds.range(..=Epoch(oldest)).next_back().map(|(since, _)| *since);
        let before = self.seeds.len();
        self.seeds.retain(|since, _| Some(*since) >= needed);
        self.touched |= self.seeds.len() != before;
    }

    /// When keys are to be forgotten.
    pub(super) fn prune_due(&self) -> Option<Timestamp> {
        self.past.iter().map(|past| past.ended.plus_ms(PAST_MS)).min()
    }

    /// Takes note that the channel was read to its end, at a time of the DS's clock. Forgets keys whose time is over. To be called
    /// whenever there was nothing more to read, and when [`Group::due`] says so.
    ///
    /// # Errors
    /// [`MlsError`] if the MLS state cannot be written.
    pub fn caught_up(&mut self, now: Timestamp) -> Result<(), MlsError> {
        // What comes next is no older: so we know what time has decided.
        self.read_to_end = Some(now);
        self.prune_past(now.max(self.window.time()))
    }

    /// Takes note that the channel cannot be read: what comes next is not there any more, or no key of ours opens it. What was sent in epochs
    /// that are past will not come to us, and their keys go when their time is over.
    ///
    /// # Errors
    /// [`MlsError`] if the MLS state cannot be written.
    pub fn shut_out(&mut self, now: Timestamp) -> Result<(), MlsError> {
        self.prune_past(now.max(self.window.time()))
    }

    /// Forgets keys of past epochs of which nothing can come any more. The next entry is of this time or later.
    pub(super) fn prune_past(&mut self, now: Timestamp) -> Result<(), MlsError> {
        let over = |past: &Past| past.ended.plus_ms(PAST_MS) <= now;
        if !self.past.iter().any(over) {
            return Ok(());
        }
        self.kept = None;
        // What mls-rs holds back would bring them back when it is written.
        if self.dirty || self.has_step() {
            self.write_state()?;
        }
        for past in std::mem::take(&mut self.past) {
            if over(&past) {
                // Those before it that an annulment brought back from the store are over, too; and mls-rs takes no gaps.
                let group_id = self.mls.group_id().to_vec();
                for epoch in self.shared.groups.epochs_before(&group_id, past.epoch.0.saturating_add(1)).into_keys() {
                    self.shared.groups.forget_epoch(&group_id, epoch);
                    self.delete_epoch(Epoch(epoch));
                }
            } else {
                self.past.push(past);
            }
        }
        self.touched = true;
        Ok(())
    }

    /// Whether our removal is final: what time has decided is decided, whether or not we could read on.
    pub(super) fn has_ended(&self, now: Timestamp) -> bool {
        if self.status != Status::Removed {
            return false;
        }
        let Some(commit) = self.removed_at else { return true };
        let mut ledger = self.ledger.clone();
        let changes = ledger.advance(now);
        // If time annuls it, we are a member again, as we shall read.
        let void = changes
            .iter()
            .any(|change| matches!(change, Change::Annulled { commits, .. } if commits.contains(&commit)));
        !void && ledger.find(commit).is_none()
    }

    /// Forgets every key of a group that we are no member of. What was read stays.
    pub(super) fn forget_all(&mut self) {
        if std::mem::replace(&mut self.emptied, true) {
            return;
        }
        let parents = std::mem::take(&mut self.parents);
        for epoch in parents.iter().map(|parent| parent.at).chain(self.saved.take()) {
            self.delete_state(epoch);
        }
        let epochs = self.shared.groups.forget(self.mls.group_id());
        for epoch in epochs {
            self.delete_epoch(Epoch(epoch));
        }
        self.drop_notes();
        self.past.clear();
        // Without parents, nothing can be annulled.
        self.forget_withdrawn();
        self.forget_all_done();
        self.forget_gaps();
        self.seeds = BTreeMap::new();
        self.tree_keys = BTreeMap::new();
        self.channel_keys.clear();
        self.removed_at = None;
        self.hasty = None;
        // The MLS state in memory is written no more.
        self.dirty = false;
        self.touched = true;
    }

    /// Forgets states before commits that nobody goes back to.
    pub(super) fn forget_states(&mut self, parents: Vec<Parent>) {
        for parent in parents {
            if self.saved != Some(parent.at) {
                self.delete_state(parent.at);
            }
        }
    }

    pub(super) fn delete_state(&mut self, epoch: Epoch) {
        let key = super::row::state_key(&self.name, self.incarnation, epoch);
        self.writes.push(Write::Delete { room: Room::GROUP, key });
    }

    pub(super) fn delete_epoch(&mut self, epoch: Epoch) {
        let key = super::row::epoch_key(&self.name, self.incarnation, epoch.0);
        self.writes.push(Write::Delete { room: Room::EPOCH, key });
    }
}
