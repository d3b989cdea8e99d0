//! What the engine asks its shell to make durable: rows and messages, as whole transactions.
//!
//! A row's room and key say what it is; the store that keeps it knows neither format nor meaning. All writes that
//! one call of the engine returns belong into one transaction: the state that they leave is the only one that holds
//! together.

use std::fmt;

use zeroize::Zeroizing;

/// Which kind of row a key names. Its number is part of the store's format and never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Room(u8);

impl Room {
    /// The account: identity, device, certificate.
    pub const ACCOUNT: Self = Self(1);
    /// Private parts of KeyPackages that were uploaded.
    pub const KEY_PACKAGE: Self = Self(2);
    /// A group's MLS state, position and settings.
    pub const GROUP: Self = Self(3);
    /// A group's earlier epochs.
    pub const EPOCH: Self = Self(4);
    /// Changes that are on their way.
    pub const INTENT: Self = Self(5);
    /// Hashes of a channel's last entries, and entries that wait.
    pub const LOG: Self = Self(6);
    /// Blobs that are being sent or were fetched.
    pub const BLOB: Self = Self(7);
    /// Of which pieces a long row is made.
    pub const LONG: Self = Self(8);
    /// Pieces of a group's long rows.
    pub const PIECE: Self = Self(9);
    /// Which message keys of a group were used since its MLS state was written.
    pub const USED: Self = Self(10);
    /// Entries of the inbox that could not be taken up when they came.
    pub const WAITING: Self = Self(12);
    /// What a list of groups shows: a short row a group.
    pub const SUMMARY: Self = Self(14);

    /// Whether its rows are short and read all together, so that a store does well to keep them side by side, apart from others.
    #[must_use]
    pub const fn is_listed(self) -> bool {
        self.0 == Self::SUMMARY.0
    }

    /// From the number in the store.
    #[must_use]
    pub const fn new(code: u8) -> Self {
        Self(code)
    }

    /// The number in the store.
    #[must_use]
    pub const fn code(self) -> u8 {
        self.0
    }
}

/// What a shell lets the engine read of its store.
pub trait Rows {
    /// Why it could not be read.
    type Error;

    /// A row.
    fn get(&self, room: Room, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, Self::Error>;

    /// All rows of a room whose keys begin so, ascending by key.
    #[allow(clippy::type_complexity)]
    fn scan(&self, room: Room, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Zeroizing<Vec<u8>>)>, Self::Error>;
}

/// One change of the store.
#[derive(Clone, PartialEq, Eq)]
pub enum Write {
    /// Inserts a row or replaces the one with the same key.
    Put {
        /// Kind of the row.
        room: Room,
        /// Its name in the room.
        key: Vec<u8>,
        /// What it holds, which may be secret.
        value: Zeroizing<Vec<u8>>,
    },
    /// Removes a row, if it is there.
    Delete {
        /// Kind of the row.
        room: Room,
        /// Its name in the room.
        key: Vec<u8>,
    },
    /// Inserts a message or replaces the one with the same group, place and id.
    Message(StoredMessage),
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { room, value, .. } => {
                f.debug_struct("Put").field("room", &room.0).field("bytes", &value.len()).finish_non_exhaustive()
            }
            Self::Delete { room, .. } => f.debug_struct("Delete").field("room", &room.0).finish_non_exhaustive(),
            Self::Message(message) => message.fmt(f),
        }
    }
}

/// A message as people read it, in a group's history.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// The group's name.
    pub group: String,
    /// Its place in the group's channel.
    pub seq: u64,
    /// The epoch that it was sent in, which may be annulled.
    pub epoch: u64,
    /// Names it among the messages of that place.
    pub id: [u8; 32],
    /// Who sent it.
    pub sender: String,
    /// When, in milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// What `body` is.
    pub kind: u8,
    /// The content; the store does not look into it.
    pub body: Vec<u8>,
}

impl fmt::Debug for StoredMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredMessage")
            .field("seq", &self.seq)
            .field("kind", &self.kind)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_prints_no_values() {
        let put = Write::Put { room: Room::GROUP, key: b"key".to_vec(), value: Zeroizing::new(vec![171; 9]) };
        assert_eq!(format!("{put:?}"), "Put { room: 3, bytes: 9, .. }");
        let message = Write::Message(StoredMessage {
            group: "mimi://example.com/g/1".into(),
            seq: 4,
            epoch: 2,
            id: [7; 32],
            sender: "mimi://example.com/d/alice/laptop".into(),
            time_ms: 5,
            kind: 1,
            body: b"hello".to_vec(),
        });
        assert_eq!(format!("{message:?}"), "StoredMessage { seq: 4, kind: 1, bytes: 5, .. }");
    }
}
