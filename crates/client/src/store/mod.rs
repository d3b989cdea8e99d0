//! What a client keeps: rows and messages, in one encrypted file or in memory.
//!
//! Only whole transactions are written ([`ProfileStore::apply`]): MLS state, position and messages change together
//! or not at all. Once `apply` returns, the transaction is on the disk.

mod deep;
mod error;
mod memory;
mod schema;
mod sqlite;
#[cfg(test)]
mod tests;

use conclave_engine::writes::{Room, StoredMessage, Write};
use zeroize::Zeroizing;

pub use error::StoreError;
pub use memory::MemoryStore;
pub use sqlite::Store;

/// A row's key and its value.
pub type Row = (Vec<u8>, Zeroizing<Vec<u8>>);

/// Where a client's state is kept.
pub trait ProfileStore: Send {
    /// Writes all of it, durably, or nothing.
    ///
    /// # Errors
    /// Whatever the error, the store is as it was before.
    fn apply(&mut self, writes: &[Write]) -> Result<(), StoreError>;

    /// Overwrites what was deleted wherever the store still has a copy of it, such as in a journal. Called after each catching
    /// up, and once a minute while listening.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is lost.
    fn tidy(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// The value of a row.
    fn get(&self, room: Room, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError>;

    /// The rows of a room whose keys start with `prefix`, in the order of their keys.
    fn scan(&self, room: Room, prefix: &[u8]) -> Result<Vec<Row>, StoreError>;

    /// The first `limit` messages of a group after a place, in order. Messages of one place stay together, even if
    /// that makes more than `limit`, so that the next page may start after the last place of this one.
    fn messages(&self, group: &str, after_seq: u64, limit: usize) -> Result<Vec<StoredMessage>, StoreError>;

    /// The last `limit` messages of a group, in order.
    fn last_messages(&self, group: &str, limit: usize) -> Result<Vec<StoredMessage>, StoreError>;

    /// Whether a message of this name is kept. One that comes again, in whatever place, is not kept twice.
    fn has_message(&self, group: &str, id: &[u8; 32]) -> Result<bool, StoreError> {
        Ok(self.message_place(group, id)?.is_some())
    }

    /// The place and the epoch of the message of this name, if there is one.
    ///
    /// # Errors
    /// Any [`StoreError`].
    fn message_place(&self, group: &str, id: &[u8; 32]) -> Result<Option<(u64, u64)>, StoreError>;

    /// How many messages of a group there are.
    fn message_count(&self, group: &str) -> Result<u64, StoreError>;
}
