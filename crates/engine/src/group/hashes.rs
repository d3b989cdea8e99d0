//! The hashes of a channel's last entries, in the store.
//!
//! They are kept in blocks of consecutive places, so that reading a thousand entries writes some thirty rows. Row: under the group's prefix and
//! the block's number, `struct { uint64 first; Hash hashes[32]<V>; }` without lengths: the running hash at each place from
//! `first` on.

use std::collections::BTreeMap;

use conclave_names::{Hash, Seq, limits};
use zeroize::Zeroizing;

use super::{Group, row};
use crate::{
    record::RecordError,
    writes::{Room, Write},
};

/// Places of a block.
const BLOCK: u64 = 32;

/// Blocks that hold what may still be compared.
const BLOCKS: u64 = (limits::HASH_WINDOW as u64).div_ceil(BLOCK) + 1;

/// Reads the hashes of the places before `newest`, oldest first.
pub(super) fn load(newest: Seq, rows: &[(Vec<u8>, Zeroizing<Vec<u8>>)]) -> Result<Vec<Hash>, RecordError> {
    let mut places = BTreeMap::new();
    for (_, value) in rows {
        let (first, hashes) = value.split_first_chunk::<8>().ok_or(RecordError::Damaged)?;
        for (place, hash) in (u64::from_be_bytes(*first)..).zip(hashes.chunks(32)) {
            places.insert(place, Hash::try_from(hash).map_err(|_| RecordError::Damaged)?);
        }
    }
    // What lies before a gap is of no use: the place moved on without reading.
    let mut before = Vec::new();
    let mut expected = newest.0;
    for (place, hash) in places.range(..newest.0).rev() {
        if place.checked_add(1) != Some(expected) {
            break;
        }
        before.push(*hash);
        expected = *place;
    }
    before.reverse();
    Ok(before)
}

impl Group {
    /// Adds the blocks that have changed.
    pub(super) fn save_hashes(&mut self) {
        let newest = self.window.position().seq.0;
        if newest <= self.hashes_saved.0 {
            return;
        }
        let hashes: Vec<Hash> = self.window.history().copied().collect();
        let oldest = newest.saturating_sub(hashes.len() as u64);
        let from = self.hashes_saved.0.max(oldest);
        for block in from / BLOCK..=newest.saturating_sub(1) / BLOCK {
            let first = (block * BLOCK).max(oldest);
            let last = block.saturating_add(1).saturating_mul(BLOCK).min(newest);
            let skipped = usize::try_from(first - oldest).unwrap_or(usize::MAX);
            let count = usize::try_from(last.saturating_sub(first)).unwrap_or_default();
            let mut value = Zeroizing::new(first.to_be_bytes().to_vec());
            for hash in hashes.iter().skip(skipped).take(count) {
                value.extend_from_slice(hash.as_bytes());
            }
            let key = |block: u64| row::key(&self.name, &block.to_be_bytes());
            self.writes.push(Write::Put { room: Room::LOG, key: key(block), value });
            if let Some(old) = block.checked_sub(BLOCKS) {
                self.writes.push(Write::Delete { room: Room::LOG, key: key(old) });
            }
        }
        self.hashes_saved = Seq(newest);
    }

    /// Forgets the hashes of a log that we do not go on with.
    pub(super) fn forget_hashes(&mut self) {
        let last = self.hashes_saved.0.max(self.window.position().seq.0) / BLOCK;
        for block in last.saturating_sub(BLOCKS)..=last {
            let key = row::key(&self.name, &block.to_be_bytes());
            self.writes.push(Write::Delete { room: Room::LOG, key });
        }
        self.hashes_saved = Seq(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(place: u64) -> Hash {
        Hash::new([u8::try_from(place % 251).unwrap_or_default(); 32])
    }

    fn block(first: u64, count: u64) -> (Vec<u8>, Zeroizing<Vec<u8>>) {
        let hashes = (first..first + count).flat_map(|place| hash(place).to_vec());
        (
            (first / BLOCK).to_be_bytes().to_vec(),
            Zeroizing::new(first.to_be_bytes().into_iter().chain(hashes).collect()),
        )
    }

    #[test]
    fn only_what_leads_up_to_the_place_is_read() {
        let places = |from: u64, to: u64| (from..to).map(hash).collect::<Vec<_>>();
        assert_eq!(load(Seq(0), &[]).unwrap(), []);
        assert_eq!(load(Seq(40), &[block(3, 29), block(32, 8)]).unwrap(), places(3, 40));
        // The place moved on without reading.
        assert_eq!(load(Seq(104), &[block(3, 29), block(32, 8), block(100, 4)]).unwrap(), places(100, 104));
        assert_eq!(load(Seq(100), &[block(3, 29), block(32, 8)]).unwrap(), []);
        // What lies at or after the place does not count.
        assert_eq!(load(Seq(36), &[block(32, 8)]).unwrap(), places(32, 36));
    }

    #[test]
    fn what_is_damaged_is_said_to_be() {
        for len in [0, 7, 9, 39, 41] {
            assert!(load(Seq(9), &[(Vec::new(), Zeroizing::new(vec![0; len]))]).is_err(), "{len}");
        }
    }
}
