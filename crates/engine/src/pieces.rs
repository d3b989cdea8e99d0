//! Long rows in pieces, of which a change writes what is new.
//!
//! mls-rs gives out a group's state as one value, 7 MB for 10,000 members, of which a commit changes some kilobytes here and
//! there; the intent of an own commit holds nearly the same once more. So long values are cut where their content says
//! (a rolling hash), which an insertion moves along but does not change; equal pieces of one group are kept once. What
//! stands in the row's place is a list of pieces in [`Room::LONG`]. A piece goes when no list names it any more.
//!
//! List: `struct { uint8 version = 1; Id pieces[20]<V>; }`, under the room's number and the row's key. Piece: its bytes, under
//! the group's prefix and the first 20 bytes of their SHA-256.

use std::collections::{BTreeMap, HashMap};

use conclave_channel::chain::entry_hash;
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};
use zeroize::Zeroizing;

use crate::{
    group::{LoadError, row::META_END},
    record::{self, RecordError},
    writes::{Room, Rows, Write},
};

/// Values from this length on are cut, in bytes.
const LONG: usize = 48 * 1024;

/// Shortest piece but for the last, and longest, in bytes. On average a piece has the shortest and 8 KiB.
const SHORTEST: usize = 4 * 1024;
const LONGEST: usize = 64 * 1024;

/// Bits of the rolling hash that are zero where a piece ends.
const ENDS: u64 = ((1 << 13) - 1) << 51;

/// Bytes that the rolling hash looks back on: each moves its bits up by one.
const WINDOW: usize = 64;

/// The numbers of the rolling hash, one a byte value: `SplitMix64`, from 1 on.
const GEAR: [u64; 256] = gear();

// The index is below the length, and beyond it compiling would fail.
#[allow(clippy::indexing_slicing)]
const fn gear() -> [u64; 256] {
    let mut table = [0; 256];
    let mut state = 1_u64;
    let mut index = 0;
    while index < table.len() {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        table[index] = mixed ^ (mixed >> 31);
        index += 1;
    }
    table
}

/// Names a piece.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, MlsSize, MlsEncode, MlsDecode)]
struct Id([u8; 20]);

impl Id {
    fn of(piece: &[u8]) -> Self {
        let mut id = [0; 20];
        id.iter_mut().zip(entry_hash(piece).as_bytes()).for_each(|(to, from)| *to = *from);
        Self(id)
    }
}

#[derive(MlsSize, MlsEncode, MlsDecode)]
struct List {
    pieces: Vec<Id>,
}

/// Length of the first piece.
fn first(bytes: &[u8]) -> usize {
    let longest = bytes.len().min(LONGEST);
    let Some(looked_at) = bytes.get(SHORTEST - WINDOW..longest) else { return longest };
    let (before, looked_at) = looked_at.split_at(WINDOW.min(looked_at.len()));
    // There is a number for each value of a byte.
    #[allow(clippy::indexing_slicing)]
    let step = |hash: u64, byte: &u8| (hash << 1).wrapping_add(GEAR[usize::from(*byte)]);
    let mut hash = before.iter().fold(0, step);
    let end = looked_at.iter().position(|byte| {
        hash = step(hash, byte);
        hash & ENDS == 0
    });
    end.map_or(longest, |end| SHORTEST + end)
}

/// The value in pieces that was written last, to find its pieces in another without hashing: most of a group's state stays where it is.
#[derive(Default)]
struct Known {
    value: Zeroizing<Vec<u8>>,
    /// By their first bytes: where pieces stand in it, how long they are, and their names. Which of several with the same
    /// beginning does not matter.
    pieces: HashMap<[u8; KNOWN_BY], (usize, usize, Id)>,
}

/// Bytes by which a piece is looked up.
const KNOWN_BY: usize = 16;

impl Known {
    /// The known piece with which these bytes begin, and its length. It ends where cutting them would end it: that depends on
    /// the bytes of the piece only (but for a value's last piece, which is not known).
    fn first(&self, bytes: &[u8]) -> Option<(usize, Id)> {
        let (start, length, id) = self.pieces.get(bytes.first_chunk()?)?;
        let known = self.value.get(*start..start.checked_add(*length)?)?;
        bytes.starts_with(known).then_some((*length, *id))
    }

    /// From a value, and the lengths and names of its pieces.
    fn new(value: Zeroizing<Vec<u8>>, cut: &[(usize, Id)]) -> Self {
        let mut pieces = HashMap::with_capacity(cut.len());
        let mut start = 0;
        // The last one ends where the value does, wherever that is.
        for (length, id) in cut.iter().take(cut.len().saturating_sub(1)) {
            let begin = value.get(start..).and_then(<[u8]>::first_chunk::<KNOWN_BY>);
            pieces.extend(begin.map(|begin| (*begin, (start, *length, *id))));
            start += length;
        }
        Self { value, pieces }
    }
}

/// Key of a row's list.
fn list_key(room: Room, key: &[u8]) -> Vec<u8> {
    [&[room.code()], key].concat()
}

/// What the store has of one group in pieces.
pub(crate) struct Pieces {
    /// What the keys of the group's rows begin with.
    prefix: Vec<u8>,
    lists: BTreeMap<(Room, Vec<u8>), Vec<Id>>,
    uses: BTreeMap<Id, u32>,
    known: Known,
}

impl Pieces {
    /// Of a group that has none.
    pub(crate) fn none(prefix: Vec<u8>) -> Self {
        Self { prefix, lists: BTreeMap::new(), uses: BTreeMap::new(), known: Known::default() }
    }

    /// Reads which pieces there are; values come with [`get`] and [`scan`].
    pub(crate) fn load<R: Rows>(rows: &R, prefix: Vec<u8>, rooms: &[Room]) -> Result<Self, LoadError<R::Error>> {
        let mut pieces = Self::none(prefix);
        for room in rooms {
            for (key, list) in rows.scan(Room::LONG, &list_key(*room, &pieces.prefix)).map_err(LoadError::Store)? {
                let ids = record::decode::<List>(&list)?.pieces;
                pieces.count(&ids);
                pieces.lists.insert((*room, key.get(1..).unwrap_or_default().to_vec()), ids);
            }
        }
        Ok(pieces)
    }

    fn count(&mut self, ids: &[Id]) {
        for id in ids {
            *self.uses.entry(*id).or_default() += 1;
        }
    }

    fn key(&self, id: Id) -> Vec<u8> {
        [self.prefix.as_slice(), &id.0].concat()
    }

    /// Makes of a group's writes what is to be written: long values become pieces.
    pub(crate) fn split(&mut self, writes: Vec<Write>) -> Vec<Write> {
        let mut out = Vec::with_capacity(writes.len());
        for write in writes {
            match write {
                // What lists of groups are made of stays as it is.
                Write::Put { room, key, value } if value.len() >= LONG && !key.ends_with(META_END) => {
                    self.put(room, key, value, &mut out);
                }
                Write::Put { room, key, value } => {
                    self.forget(room, &key, &mut out);
                    out.push(Write::Put { room, key, value });
                }
                Write::Delete { room, key } => {
                    self.forget(room, &key, &mut out);
                    out.push(Write::Delete { room, key });
                }
                write @ Write::Message(_) => out.push(write),
            }
        }
        out
    }

    fn put(&mut self, room: Room, key: Vec<u8>, value: Zeroizing<Vec<u8>>, out: &mut Vec<Write>) {
        let (mut ids, mut cut) = (Vec::new(), Vec::new());
        let mut rest = value.as_slice();
        while !rest.is_empty() {
            let known = self.known.first(rest);
            let (length, id) = known.unwrap_or_else(|| {
                let length = first(rest);
                (length, Id::of(rest.split_at(length).0))
            });
            let (piece, after) = rest.split_at(length);
            rest = after;
            ids.push(id);
            cut.push((length, id));
            let uses = self.uses.entry(id).or_default();
            *uses += 1;
            if *uses == 1 {
                let value = Zeroizing::new(piece.to_vec());
                out.push(Write::Put { room: Room::PIECE, key: self.key(id), value });
            }
        }
        if !self.lists.contains_key(&(room, key.clone())) {
            // It may have been short before.
            out.push(Write::Delete { room, key: key.clone() });
        }
        let list = record::encode(&List { pieces: ids.clone() });
        out.push(Write::Put { room: Room::LONG, key: list_key(room, &key), value: list });
        // Commits are shorter, and go.
        if room == Room::GROUP && value.len() >= self.known.value.len() / 2 {
            self.known = Known::new(value, &cut);
        }
        if let Some(before) = self.lists.insert((room, key), ids) {
            self.release(&before, out);
        }
    }

    /// Removes a row's list, if it has one.
    fn forget(&mut self, room: Room, key: &[u8], out: &mut Vec<Write>) {
        if let Some(before) = self.lists.remove(&(room, key.to_vec())) {
            out.push(Write::Delete { room: Room::LONG, key: list_key(room, key) });
            self.release(&before, out);
        }
    }

    fn release(&mut self, ids: &[Id], out: &mut Vec<Write>) {
        for id in ids {
            let Some(uses) = self.uses.get_mut(id) else { continue };
            *uses -= 1;
            if *uses == 0 {
                self.uses.remove(id);
                out.push(Write::Delete { room: Room::PIECE, key: self.key(*id) });
            }
        }
    }
}

fn assemble<R: Rows>(rows: &R, prefix: &[u8], list: &[u8]) -> Result<Zeroizing<Vec<u8>>, LoadError<R::Error>> {
    let ids = record::decode::<List>(list)?.pieces;
    let mut pieces = Vec::with_capacity(ids.len());
    for id in ids {
        let piece = rows.get(Room::PIECE, &[prefix, &id.0].concat()).map_err(LoadError::Store)?;
        pieces.push(piece.ok_or(RecordError::Damaged)?);
    }
    // With room for all from the start: no copy is left behind.
    let mut value = Zeroizing::new(Vec::with_capacity(pieces.iter().map(|piece| piece.len()).sum()));
    for piece in pieces {
        value.extend_from_slice(&piece);
    }
    Ok(value)
}

/// A row of a group, whether it is in pieces or not.
pub(crate) fn get<R: Rows>(
    rows: &R,
    prefix: &[u8],
    room: Room,
    key: &[u8],
) -> Result<Option<Zeroizing<Vec<u8>>>, LoadError<R::Error>> {
    if let Some(value) = rows.get(room, key).map_err(LoadError::Store)? {
        return Ok(Some(value));
    }
    let list = rows.get(Room::LONG, &list_key(room, key)).map_err(LoadError::Store)?;
    list.map(|list| assemble(rows, prefix, &list)).transpose()
}

/// All rows of a room whose keys begin so, of one group, whether they are in pieces or not.
#[allow(clippy::type_complexity)]
pub(crate) fn scan<R: Rows>(
    rows: &R,
    prefix: &[u8],
    room: Room,
    begin: &[u8],
) -> Result<Vec<(Vec<u8>, Zeroizing<Vec<u8>>)>, LoadError<R::Error>> {
    let mut found = rows.scan(room, begin).map_err(LoadError::Store)?;
    for (key, list) in rows.scan(Room::LONG, &list_key(room, begin)).map_err(LoadError::Store)? {
        found.push((key.get(1..).unwrap_or_default().to_vec(), assemble(rows, prefix, &list)?));
    }
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(found)
}

/// Deletes what a group has in pieces.
pub(crate) fn delete<R: Rows>(
    rows: &R,
    prefix: &[u8],
    rooms: &[Room],
    writes: &mut Vec<Write>,
) -> Result<(), LoadError<R::Error>> {
    for room in rooms {
        for (key, _) in rows.scan(Room::LONG, &list_key(*room, prefix)).map_err(LoadError::Store)? {
            writes.push(Write::Delete { room: Room::LONG, key });
        }
    }
    for (key, _) in rows.scan(Room::PIECE, prefix).map_err(LoadError::Store)? {
        writes.push(Write::Delete { room: Room::PIECE, key });
    }
    Ok(())
}

#[cfg(test)]
#[path = "pieces_tests.rs"]
mod tests;
