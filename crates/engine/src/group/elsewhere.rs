//! Entries that were made with our keys, but not by this profile.
//!
//! Whoever puts an older copy of a profile back, or runs two copies of one, has a client whose leaf has said more than the client knows of;
//! and so has a victim of somebody who stole its keys. In the epoch in which that shows, our ratchets may be behind what was sent with them:
//! the next key may be one that the others have used up, and what it encrypts is read by nobody. So nothing is said in that epoch any more.
//! An own commit begins another, where nobody else has our new leaf's keys. In a private group, it takes a key of
//! the handshake ratchet; if that is behind, too, as what was sent is a proposal, some keys are passed over. And after a commit we come back by
//! one from outside.
//!
//! mls-rs refuses entries of our own leaf by what stands in their sender data, before it looks at the signature. A member could put another
//! one's leaf there; all it brings about is a warning and a commit of ours. To have somebody else's warned by what they said themselves, as
//! anybody could who sends it again, it takes more than that: the names of our entries of the last epochs are remembered.

use std::collections::{BTreeMap, BTreeSet, btree_map};

use conclave_channel::{Entry, EntryKind, chain::entry_hash};
use conclave_names::{Epoch, Hash, Seq, Timestamp};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};

use super::{
    Group, MESSAGES_PER_EPOCH, Status,
    access::own_channel_key,
    journal::skip_handshake_keys,
    process::Incoming,
    row,
    standing::{Branch, COMES_BACK, Lost},
};
use crate::{
    outcome::{Event, Outcome, Rejection},
    record,
    writes::{Room, Rows, Write},
};

/// Prefix of the rows with the names of our entries that were read, without values.
const OWN: &[u8] = b"own/";

/// Key of the row that says what was found.
const ELSEWHERE: &[u8] = b"elsewhere";

/// Names that are remembered at most; the oldest go first.
const MOST: usize = 2 * MESSAGES_PER_EPOCH as usize;

/// Keys of the handshake ratchet that are passed over for each proposal that a copy made: more than a member makes commits and proposals in an
/// epoch, and fewer than the 1,024 that receivers find.
const PASSED: u32 = 64;

/// Most of them in an epoch.
const PASSED_MOST: u32 = 512;

/// How long it takes from one way back on, in milliseconds, until we come back at once again: so that two copies of a profile that run at the
/// same time do not drive each other out of the group all the time. In between the group settles the commit first.
const AGAIN_MS: u64 = 24 * 3_600_000;

/// What there is about entries that were made with our keys elsewhere.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    /// Epochs in which there were any, and how many keys of our handshake ratchet were passed over for it.
    epochs: BTreeMap<Epoch, u32>,
    /// When one last had us look for a way back at once.
    left: Option<Timestamp>,
    /// Our entries that were read.
    own: BTreeSet<(Epoch, Hash)>,
}

#[derive(MlsSize, MlsEncode, MlsDecode)]
struct EpochRow {
    epoch: Epoch,
    passed: u32,
}

#[derive(MlsSize, MlsEncode, MlsDecode)]
struct Row {
    epochs: Vec<EpochRow>,
    left: Option<Timestamp>,
}

impl Group {
    /// Whether our ratchets may be behind what was sent with them in an epoch.
    pub(super) fn is_behind_a_copy(&self, epoch: Epoch) -> bool {
        self.elsewhere.epochs.contains_key(&epoch)
    }

    /// Whether this profile was told since it was opened that there is nothing more to read: an older copy of it would know by then what was
    /// sent with its keys since. Nothing should be said before.
    #[must_use]
    pub fn has_caught_up(&self) -> bool {
        self.read_to_end.is_some()
    }

    /// An entry of ours was read. Who sends it again says nothing new.
    pub(super) fn note_own(&mut self, epoch: Epoch, entry: &[u8]) {
        let name = (epoch, entry_hash(entry));
        self.writes.push(Write::Put { room: Room::GROUP, key: self.own_key(&name), value: Vec::new().into() });
        self.elsewhere.own.insert(name);
        while self.elsewhere.own.len() > MOST {
            self.forget_first_own();
        }
    }

    /// Whether an entry is one of ours that was read before.
    pub(super) fn is_own_again(&self, entry: &Entry, incoming: &Incoming) -> bool {
        !self.elsewhere.own.is_empty() && self.elsewhere.own.contains(&(entry.epoch, entry_hash(&incoming.entry)))
    }

    /// Forgets our entries of epochs of which the DS takes no more, and what was found in them.
    pub(super) fn prune_own(&mut self) {
        let settled = self.ledger.settled();
        while self.elsewhere.own.first().is_some_and(|(epoch, _)| epoch.next() < settled) {
            self.forget_first_own();
        }
        let before = self.elsewhere.epochs.len();
        self.elsewhere.epochs.retain(|epoch, _| epoch.next() >= settled);
        if self.elsewhere.epochs.len() < before {
            self.save_elsewhere();
        }
    }

    fn forget_first_own(&mut self) {
        if let Some(name) = self.elsewhere.own.pop_first() {
            let key = self.own_key(&name);
            self.writes.push(Write::Delete { room: Room::GROUP, key });
        }
    }

    fn own_key(&self, (epoch, entry): &(Epoch, Hash)) -> Vec<u8> {
        row::key(&self.name, &[OWN, &epoch.0.to_be_bytes(), entry.as_bytes()].concat())
    }

    fn save_elsewhere(&mut self) {
        let row = Row {
            epochs: self
                .elsewhere
                .epochs
                .iter()
                .map(|(epoch, passed)| EpochRow { epoch: *epoch, passed: *passed })
                .collect(),
            left: self.elsewhere.left,
        };
        let key = row::key(&self.name, ELSEWHERE);
        self.writes.push(Write::Put { room: Room::GROUP, key, value: record::encode(&row) });
    }

    /// Reads the rows of a group that is being loaded.
    pub(super) fn load_elsewhere<R: Rows>(&mut self, rows: &R) -> Result<(), row::LoadError<R::Error>> {
        let prefix = row::key(&self.name, OWN);
        for (key, _) in rows.scan(Room::GROUP, &prefix).map_err(row::LoadError::Store)? {
            self.elsewhere.own.insert(row::entry_named(&prefix, &key)?);
        }
        let found = rows.get(Room::GROUP, &row::key(&self.name, ELSEWHERE)).map_err(row::LoadError::Store)?;
        if let Some(found) = found {
            let Row { epochs, left } = record::decode::<Row>(&found)?;
            self.elsewhere.epochs = epochs.into_iter().map(|row| (row.epoch, row.passed)).collect();
            self.elsewhere.left = left;
        }
        Ok(())
    }

    /// Whether a commit is by our leaf. It is asked of none that this profile made.
    pub(super) fn is_by_own_leaf(&self, entry: &Entry) -> bool {
        let own = || own_channel_key(&self.mls).ok();
        entry.kind == EntryKind::Commit
            && entry.epoch == self.epoch()
            && entry.commit.is_some_and(|header| Some(header.committer) == own())
    }

    /// A message or proposal is by our leaf, and this profile did not make it.
    pub(super) fn made_elsewhere(&mut self, entry: &Entry, incoming: &Incoming, events: &mut Vec<Event>) -> Outcome {
        let (seq, epoch) = (incoming.seq, entry.epoch);
        let present = epoch == self.epoch();
        if let btree_map::Entry::Vacant(first) = self.elsewhere.epochs.entry(epoch) {
            first.insert(0);
            self.save_elsewhere();
            events.push(Event::KeysUsedElsewhere { seq });
        }
        if present {
            // What was made with keys that the others know to be used is read by nobody.
            self.unprepare(|prepared| prepared.epoch == epoch && prepared.bundle.is_none());
        }
        if present && entry.kind == EntryKind::Proposal && !self.is_visible() && !self.pass_over_handshakes() {
            let reason = format!("{}: {COMES_BACK}", Rejection::OwnKeys);
            self.lost = Some(Lost::settled(seq, entry_hash(&incoming.entry), reason.clone(), Branch::None));
            self.status = Status::Stuck { reason: reason.clone() };
            self.touched = true;
            events.push(Event::Stuck { seq, reason });
        }
        Outcome::Rejected(Rejection::OwnKeys)
    }

    /// Leaves out keys of our handshake ratchet that the others may know to be used. Says whether we can go on by the next: not where proposals
    /// wait, which would be forgotten with it.
    fn pass_over_handshakes(&mut self) -> bool {
        if !self.mls.get_cached_proposals().is_empty() {
            return false;
        }
        let passed = self.elsewhere.epochs.get(&self.epoch()).copied().unwrap_or_default();
        if passed >= PASSED_MOST {
            return true;
        }
        if skip_handshake_keys(&mut self.mls, PASSED).is_err() {
            self.unusable = true;
            return false;
        }
        for _ in 0..PASSED {
            self.note_handshake();
        }
        self.elsewhere.epochs.insert(self.epoch(), passed + PASSED);
        self.save_elsewhere();
        true
    }

    /// The commit that we have lost was made with our keys elsewhere. Nobody but us can doubt it: so we come back at once.
    pub(super) fn left_by_a_copy(&mut self, seq: Seq, time: Timestamp, events: &mut Vec<Event>) {
        events.push(Event::KeysUsedElsewhere { seq });
        if self.elsewhere.left.is_some_and(|left| left.plus_ms(AGAIN_MS) > time) {
            return;
        }
        self.elsewhere.left = Some(time);
        self.save_elsewhere();
        let Some(lost) = self.lost.as_mut() else { return };
        lost.settled = true;
        let reason = format!("{}: {COMES_BACK}", lost.reason);
        self.status = Status::Stuck { reason };
        self.touched = true;
    }
}
