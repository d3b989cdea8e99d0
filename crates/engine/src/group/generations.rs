//! Gaps in the generations of a sender's keys (RFC 9750, section 8.1.4).
//!
//! Each message of a member in an epoch takes the next key of its ratchet. A number that never comes is a message that the member made
//! and nobody got: the DS kept it back, or the member's device failed before it was sent. Which of the two cannot be seen, and the
//! event does not say. The end of a sequence is no gap: members' acknowledgements show that (`presence`).

use std::collections::{BTreeMap, BTreeSet};

use conclave_names::{ClientUri, Epoch};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};

use super::{Group, MESSAGES_PER_EPOCH, row};
use crate::{
    outcome::Event,
    record::{self, RecordError},
    writes::{Room, Rows, Write},
};

/// Generations of a member's messages in an epoch, beyond which they are refused: keys that a sender skips are kept until the epoch is
/// over, and one that skips without end must not swell everybody's state (RFC 9420, section 15.3). Members that keep to the rules go on
/// in another epoch after [`MESSAGES_PER_EPOCH`]; the rest is for heartbeats while they cannot.
pub const GENERATIONS_MAX: u32 = 2 * MESSAGES_PER_EPOCH;

/// Prefix of the rows, one for each leaf that has spoken in the epoch.
const PREFIX: &[u8] = b"generation/";

/// In place of a leaf: the beginning of the epoch was not counted.
const UNKNOWN_START: u32 = u32::MAX;

/// What was counted in the present epoch.
#[derive(Debug, Default)]
pub(super) struct Generations {
    /// The next generation, by leaf.
    next: BTreeMap<u32, u32>,
    /// Leaves whose rows in the store are older.
    changed: BTreeSet<u32>,
}

impl Generations {
    /// Whether the store lacks something.
    pub(super) fn unsaved(&self) -> bool {
        !self.changed.is_empty()
    }
}

#[derive(MlsSize, MlsEncode, MlsDecode)]
struct GenerationRow {
    epoch: Epoch,
    next: u32,
}

fn key(group: &Group, leaf: u32) -> Vec<u8> {
    row::key(&group.name, &[PREFIX, leaf.to_be_bytes().as_slice()].concat())
}

impl Group {
    /// A message of the present epoch was decrypted with the key of this generation.
    pub(super) fn count_generation(&mut self, leaf: u32, generation: u32, member: &ClientUri, events: &mut Vec<Event>) {
        let known = self.generations.next.get(&leaf).copied();
        let expected = match known {
            Some(next) => next,
            None if self.generations.next.contains_key(&UNKNOWN_START) => generation,
            None => 0,
        };
        if let Some(last) = generation.checked_sub(1).filter(|last| *last >= expected) {
            let (member, epoch) = (member.clone(), self.epoch());
            events.push(Event::MessagesMissing { member, epoch, from: expected, to: last });
        }
        let next = generation.saturating_add(1);
        // One that comes late fills a gap that was told of.
        if known.is_none_or(|known| known < next) {
            self.set_generation(leaf, next);
        }
    }

    fn set_generation(&mut self, leaf: u32, next: u32) {
        self.generations.next.insert(leaf, next);
        self.generations.changed.insert(leaf);
    }

    /// Adds the rows that have changed: one a speaker, however much was said.
    pub(super) fn save_generations(&mut self) {
        for leaf in std::mem::take(&mut self.generations.changed) {
            let Some(next) = self.generations.next.get(&leaf).copied() else { continue };
            let row = GenerationRow { epoch: self.epoch(), next };
            self.writes.push(Write::Put { room: Room::GROUP, key: key(self, leaf), value: record::encode(&row) });
        }
    }

    /// Another epoch began: everybody counts from zero.
    pub(super) fn forget_generations(&mut self) {
        self.generations.changed.clear();
        for leaf in std::mem::take(&mut self.generations.next).into_keys() {
            self.writes.push(Write::Delete { room: Room::GROUP, key: key(self, leaf) });
        }
    }

    /// An earlier epoch came back, of which the counts are gone.
    pub(super) fn recount_generations(&mut self) {
        self.forget_generations();
        self.set_generation(UNKNOWN_START, 0);
    }

    /// Reads the rows of a group that is being loaded.
    pub(super) fn load_generations<R: Rows>(&mut self, rows: &R) -> Result<(), row::LoadError<R::Error>> {
        for (key, value) in rows.scan(Room::GROUP, &row::key(&self.name, PREFIX)).map_err(row::LoadError::Store)? {
            let leaf = key.last_chunk::<4>().copied().map(u32::from_be_bytes).ok_or(RecordError::Damaged)?;
            let row: GenerationRow = record::decode(&value)?;
            if row.epoch == self.epoch() {
                self.generations.next.insert(leaf, row.next);
            }
        }
        Ok(())
    }
}
