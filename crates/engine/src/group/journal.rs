//! Keys that were used since the MLS state was written.
//!
//! A message moves one ratchet by one step, but mls-rs gives out a group's state whole: 7 MB at 10,000 members. So a message's
//! transaction notes which key was used, and the state is written at commits and proposals, after a while, and when the client
//! closes. After a crash the ratchets are moved to where the notes say: no key of ours encrypts twice, and keys of others'
//! messages that were read are gone.
//!
//! A commit of ours takes a key of the handshake ratchet; how many were taken is noted as well. And the commit that began the
//! present epoch is noted, until the state after it is written (`step`).
//!
//! Until the state is written, the store still has what a key can be derived from: for [`STATE_MS`] at most while the client
//! runs, and after a crash until as long after it was opened again.

use conclave_names::{Epoch, Timestamp};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};

use super::{Group, row, step::Step};
use crate::{
    mls_client::{MlsError, MlsGroup},
    record::{self, RecordError},
    writes::{Room, Rows, Write},
};

/// How long the MLS state in the store may lack that message keys were used, in milliseconds.
pub const STATE_MS: u64 = 5_000;

/// Messages that are read at most before the state is written: what is noted of each takes 8 bytes in each transaction.
const NOTES: usize = 1024;

/// Messages that a member sends at most in an epoch, before it begins another: receivers find keys up to 1,024 steps
/// ahead of the last that they saw.
pub const MESSAGES_PER_EPOCH: u32 = 1_000;

/// The key of a message of somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
pub(super) struct Used {
    /// Its leaf.
    pub(super) sender: u32,
    pub(super) generation: u32,
}

impl Used {
    /// Uses it up in a state of its epoch that has it.
    pub(super) fn spend(self, mls: &mut MlsGroup) -> Result<(), mls_rs::error::MlsError> {
        // mls-rs 0.57 wants the node here, which is twice the leaf.
        mls.derive_decryption_key(self.sender.saturating_mul(2), self.generation).map(drop)
    }
}

#[derive(MlsSize, MlsEncode, MlsDecode)]
struct NotesRow {
    /// The epoch of the state in the store.
    epoch: u64,
    next: u32,
    handshakes: u32,
    read: Vec<Used>,
}

/// What the state in the store does not know.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// The next generation of our own ratchet.
    next: u32,
    /// Keys of our handshake ratchet that were used since.
    handshakes: u32,
    /// The commit after it.
    pub(super) step: Option<Step>,
    read: Vec<Used>,
    /// Whether keys were used since the state was written.
    lags: bool,
    /// Since when, as far as we were told the time.
    since: Option<Timestamp>,
    /// Whether the notes in the store lack something.
    unsaved: bool,
    /// Whether there are notes in the store.
    stored: bool,
    /// How often notes were dropped.
    dropped: u64,
}

/// On what notes build: since then, nothing but messages changed the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Basis {
    epoch: Epoch,
    dropped: u64,
    handshakes: u32,
}

impl Journal {
    fn note(&mut self) {
        self.lags = true;
        self.unsaved = true;
    }

    /// Whether the state is to be written after a while.
    fn is_behind(&self) -> bool {
        self.lags || self.handshakes > 0 || self.step.is_some()
    }

    /// Whether the notes in the store lack something.
    pub(super) fn unsaved(&self) -> bool {
        self.unsaved
    }

    /// Moves ratchets on by what was noted, from a note on.
    fn replay(&self, mls: &mut MlsGroup, from: usize) -> Result<(), MlsError> {
        for used in self.read.iter().skip(from) {
            // It was there when the message was read.
            used.spend(mls)?;
        }
        while mls.peek_next_key_generation()? < self.next {
            mls.next_encryption_key()?;
        }
        Ok(())
    }
}

/// Moves our handshake ratchet on, of a group without proposals. mls-rs has no call for that: what is proposed here is
/// forgotten.
pub(super) fn skip_handshake_keys(mls: &mut MlsGroup, count: u32) -> Result<(), MlsError> {
    for _ in 0..count {
        mls.propose_remove(mls.current_member_index(), Vec::new())?;
        mls.clear_proposal_cache();
    }
    Ok(())
}

fn row_key(group: &Group) -> Vec<u8> {
    row::prefix(&group.name)
}

impl Group {
    /// Generation of the key that the next message of ours takes in this epoch (RFC 9420, section 9.1).
    #[must_use]
    pub fn next_generation(&self) -> u32 {
        self.journal.next
    }

    /// Takes note of the time: the state is written with the next writes if the one in the store is too old.
    pub fn note_time(&mut self, now: Timestamp) {
        if !self.journal.is_behind() {
            return;
        }
        // A clock that was set back must not put it off.
        let since = self.journal.since.filter(|since| *since <= now).unwrap_or(now);
        self.journal.since = Some(since);
        if since.plus_ms(STATE_MS) <= now {
            self.dirty = true;
        }
    }

    /// Whether the state in the store lacks for too long what was used, or it is not known for how long.
    #[must_use]
    pub fn state_is_overdue(&self, now: Timestamp) -> bool {
        let since = self.journal.since.filter(|since| *since <= now);
        self.journal.is_behind() && since.is_none_or(|since| since.plus_ms(STATE_MS) <= now)
    }

    /// Has the next writes bring the state in the store up to date: before the client closes.
    pub fn write_state_next(&mut self) {
        self.dirty |= self.journal.is_behind();
    }

    /// When the state in the store gets too old.
    pub(super) fn state_due(&self, now: Timestamp) -> Option<Timestamp> {
        self.journal.is_behind().then(|| self.journal.since.unwrap_or(now).plus_ms(STATE_MS))
    }

    /// Whether it is time for a new epoch, because we said so much in this one.
    pub(super) fn has_said_enough(&self) -> bool {
        self.journal.next >= MESSAGES_PER_EPOCH
    }

    /// A key of ours was used.
    pub(super) fn note_sent(&mut self) -> Result<(), MlsError> {
        self.journal.next = self.mls.peek_next_key_generation()?;
        self.journal.note();
        Ok(())
    }

    /// A key of somebody else's message was used, in the present epoch.
    pub(super) fn note_read(&mut self, used: Used) {
        self.journal.read.push(used);
        self.journal.note();
        self.dirty |= self.journal.read.len() >= NOTES;
    }

    /// A key of our handshake ratchet is used.
    pub(super) fn note_handshake(&mut self) {
        if self.is_visible() {
            // It takes none.
        } else if self.mls.get_cached_proposals().is_empty() {
            self.journal.handshakes = self.journal.handshakes.saturating_add(1);
            self.journal.unsaved = true;
        } else {
            // It could not be skipped without forgetting the proposals.
            self.dirty = true;
        }
    }

    /// Keys of our handshake ratchet that the state in the store does not know to be used.
    pub(super) fn spent_keys(&self) -> u32 {
        self.journal.handshakes
    }

    /// Whether the group can be made of the state in the store, and the notes.
    pub(super) fn is_stored(&self) -> bool {
        (self.saved == Some(self.epoch()) || self.has_step()) && !self.dirty && !self.unsaved_proposals
    }

    /// Whether the state in the store is another than the present one, but for our handshake ratchet.
    pub(super) fn lags(&self) -> bool {
        !self.is_stored() || self.journal.lags || self.has_step()
    }

    /// On what the notes build.
    pub(super) fn basis(&self) -> Basis {
        let Journal { dropped, handshakes, .. } = self.journal;
        Basis { epoch: self.epoch(), dropped, handshakes }
    }

    /// How many messages are noted.
    pub(super) fn notes(&self) -> usize {
        self.journal.read.len()
    }

    /// The group as it was after so many notes, of an earlier copy or of the state that was written last.
    pub(super) fn restored(&self, copy: Option<(&MlsGroup, usize)>) -> Result<MlsGroup, MlsError> {
        let (mut mls, from) = if let Some((mls, notes)) = copy {
            (mls.clone(), notes)
        } else {
            let client = self.shared.client(&self.account, self.mls.cipher_suite());
            let mut mls = client.load_group(self.mls.group_id())?;
            self.journal.step.iter().try_for_each(|step| step.apply(&mut mls))?;
            skip_handshake_keys(&mut mls, self.journal.handshakes)?;
            (mls, 0)
        };
        self.journal.replay(&mut mls, from)?;
        Ok(mls)
    }

    /// Writes the MLS state, to memory; the rows follow with the rest.
    pub(super) fn write_state(&mut self) -> Result<(), MlsError> {
        self.mls.write_to_storage()?;
        self.drain_state(self.epoch());
        self.dirty = false;
        self.drop_notes();
        Ok(())
    }

    /// A new epoch began, whose ratchets nobody has used.
    pub(super) fn first_generation(&mut self) {
        self.drop_notes();
        self.journal.next = 0;
    }

    /// An earlier state has taken the place of the present one: what is noted is not of it.
    pub(super) fn new_ratchets(&mut self) -> Result<(), MlsError> {
        self.drop_notes();
        self.journal.next = self.mls.peek_next_key_generation()?;
        Ok(())
    }

    /// Forgets what is noted: the state in the store has it, or is gone.
    pub(super) fn drop_notes(&mut self) {
        self.drop_step();
        if self.journal.stored {
            self.writes.push(Write::Delete { room: Room::USED, key: row_key(self) });
        }
        let Journal { next, dropped, .. } = self.journal;
        self.journal = Journal { next, dropped: dropped.wrapping_add(1), ..Journal::default() };
        // It has keys that the state has no more.
        self.kept = None;
    }

    /// Adds the notes to what becomes durable.
    pub(super) fn save_notes(&mut self) {
        if self.journal.unsaved {
            let Journal { next, handshakes, read, .. } = &self.journal;
            let notes = NotesRow { epoch: self.epoch().0, next: *next, handshakes: *handshakes, read: read.clone() };
            self.writes.push(Write::Put { room: Room::USED, key: row_key(self), value: record::encode(&notes) });
            self.journal.unsaved = false;
            self.journal.stored = true;
        }
    }

    /// Moves the ratchets of a group that was just loaded to where the notes say.
    pub(super) fn load_notes<R: Rows>(&mut self, rows: &R) -> Result<(), row::LoadError<R::Error>> {
        let notes = rows.get(Room::USED, &row_key(self)).map_err(row::LoadError::Store)?;
        if let Some(notes) = notes {
            let NotesRow { epoch, next, handshakes, read } = record::decode(&notes)?;
            if epoch != self.epoch().0 {
                return Err(RecordError::Damaged.into());
            }
            let lags = next > 0 || !read.is_empty();
            let step = self.journal.step.take();
            self.journal = Journal { next, handshakes, step, read, lags, stored: true, ..Journal::default() };
            skip_handshake_keys(&mut self.mls, handshakes)?;
            self.journal.replay(&mut self.mls, 0)?;
        }
        self.journal.next = self.mls.peek_next_key_generation().map_err(MlsError::from)?;
        Ok(())
    }
}
