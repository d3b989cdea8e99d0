//! The store as the engine reads it.

use conclave_engine::writes::{Room, Rows};
use zeroize::Zeroizing;

use crate::store::{ProfileStore, Row, StoreError};

pub(super) struct StoreRows<'a>(pub(super) &'a dyn ProfileStore);

impl Rows for StoreRows<'_> {
    type Error = StoreError;

    fn get(&self, room: Room, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        self.0.get(room, key)
    }

    fn scan(&self, room: Room, prefix: &[u8]) -> Result<Vec<Row>, StoreError> {
        self.0.scan(room, prefix)
    }
}
