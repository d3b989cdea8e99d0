//! Rows with keys in them, so laid out that deleting them leaves nothing in the file.
//!
//! SQLite's `secure_delete` overwrites what is deleted where it lies. But when a page of a B-tree is too full or too empty, its cells are moved, and the
//! bytes stay in the space that this frees (`rebuildPage` in its source): what is deleted later is overwritten in its new place only. Pages of a long row's
//! overflow chain are not moved, and overwritten whole when the row goes. So what may be a key begins behind the part of a row that lies in its cell, after
//! zeros, and a row's length is such that this part is as short as SQLite makes it (its file format, "cell payload overflow pages"). That rows have few
//! different lengths lets SQLite overwrite them in place, too.

use std::borrow::Cow;

use conclave_engine::{account::Account, writes::Room};
use zeroize::Zeroizing;

/// Bytes of a page that SQLite uses: 4,096 less what SQLCipher keeps for the initialisation vector and the HMAC.
const USABLE: usize = 4096 - 48;

/// Bytes of a page of an overflow chain: a page number stands before them.
const OVERFLOW: usize = USABLE - 4;

/// Fewest bytes of a long row in its cell.
const LOCAL: usize = (USABLE - 12) * 32 / 255 - 23;

/// Bytes of a row's header and its room, about.
const HEADER: usize = 8;

/// How wrong the estimate of a row's length may be: lengths of lengths.
const SLACK: usize = 32;

/// Where the value begins in what is stored: behind what may lie in the cell, whatever stands before it there.
const FRONT: usize = LOCAL + 2 * SLACK;

/// Shorter values are no keys.
const SHORTEST: usize = 16;

/// Intents that are shorter have no keys: a commit has the state after it with it; what else is prepared is sealed.
const SHORTEST_INTENT: usize = 1024;

/// How a value lies, as the first byte of what is stored says.
const PLAIN: u8 = 0;
const DEEP: u8 = 1;

/// Whether values of a row may have keys in them that are used up.
fn may_hold_keys(room: Room, key: &[u8]) -> bool {
    match room {
        Room::KEY_PACKAGE | Room::GROUP | Room::EPOCH | Room::INTENT | Room::PIECE | Room::BLOB => true,
        Room::ACCOUNT => key == Account::KEY,
        _ => false,
    }
}

/// What is stored of a value.
pub(super) fn stored<'a>(room: Room, key: &[u8], value: &'a Zeroizing<Vec<u8>>) -> Cow<'a, Zeroizing<Vec<u8>>> {
    if !may_hold_keys(room, key) {
        return Cow::Borrowed(value);
    }
    let shortest = if room == Room::INTENT { SHORTEST_INTENT } else { SHORTEST };
    let Some(length) = u32::try_from(value.len()).ok().filter(|_| value.len() >= shortest) else {
        return Cow::Owned(Zeroizing::new([&[PLAIN], value.as_slice()].concat()));
    };
    // The row's header, the room and the key stand before it.
    let before = HEADER + key.len();
    // All but the shortest part in the cell fills pages, but for some bytes by which the estimate may be wrong.
    let least = LOCAL + SLACK;
    let pages = (before + FRONT + value.len()).saturating_sub(least).div_ceil(OVERFLOW);
    let total = (least + pages * OVERFLOW).saturating_sub(before).max(FRONT + value.len());
    let mut bytes = Zeroizing::new(Vec::with_capacity(total));
    bytes.push(DEEP);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.resize(FRONT, 0);
    bytes.extend_from_slice(value);
    bytes.resize(total, 0);
    Cow::Owned(bytes)
}

/// The value of what is stored; none if it is no such thing.
pub(super) fn value<'a>(room: Room, key: &[u8], stored: &'a [u8]) -> Option<&'a [u8]> {
    if !may_hold_keys(room, key) {
        return Some(stored);
    }
    let (kind, rest) = stored.split_first()?;
    match *kind {
        PLAIN => Some(rest),
        DEEP => {
            let length = u32::from_be_bytes(*rest.first_chunk()?);
            stored.get(FRONT..)?.get(..usize::try_from(length).ok()?)
        }
        _ => None,
    }
}
