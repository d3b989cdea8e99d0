//! A store in memory, for clients that keep nothing: it is gone when it is dropped.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Bound::{Excluded, Included, Unbounded},
};

use conclave_engine::{
    group::KIND_MESSAGE,
    writes::{Room, StoredMessage, Write},
};
use zeroize::Zeroizing;

use super::{ProfileStore, Row, StoreError};

/// A store in memory.
#[derive(Clone, Default)]
pub struct MemoryStore {
    rows: BTreeMap<(Room, Vec<u8>), Zeroizing<Vec<u8>>>,
    messages: BTreeMap<String, BTreeMap<(u64, [u8; 32]), StoredMessage>>,
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("rows", &self.rows.len()).finish_non_exhaustive()
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }
}

impl ProfileStore for MemoryStore {
    fn apply(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        // The same bounds as on the disk, looked at before anything changes.
        let beyond = |write: &Write| match write {
            Write::Message(m) => i64::try_from(m.seq.max(m.time_ms)).is_err(),
            _ => false,
        };
        if writes.iter().any(beyond) {
            return Err(StoreError::OutOfRange);
        }
        for write in writes {
            match write {
                Write::Put { room, key, value } => {
                    self.rows.insert((*room, key.clone()), value.clone());
                }
                Write::Delete { room, key } => {
                    self.rows.remove(&(*room, key.clone()));
                }
                Write::Message(m) => {
                    let of_group = self.messages.entry(m.group.clone()).or_default();
                    let same = |known: &StoredMessage| known.id == m.id && known.seq != m.seq && known.kind == m.kind;
                    if m.kind != KIND_MESSAGE || !of_group.values().any(same) {
                        of_group.insert((m.seq, m.id), m.clone());
                    }
                }
            }
        }
        Ok(())
    }

    fn get(&self, room: Room, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        Ok(self.rows.get(&(room, key.to_vec())).cloned())
    }

    fn scan(&self, room: Room, prefix: &[u8]) -> Result<Vec<Row>, StoreError> {
        let from = self.rows.range((Included((room, prefix.to_vec())), Unbounded));
        let rows = from.take_while(|((at, key), _)| *at == room && key.starts_with(prefix));
        Ok(rows.map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn messages(&self, group: &str, after_seq: u64, limit: usize) -> Result<Vec<StoredMessage>, StoreError> {
        let Some(of_group) = self.messages.get(group).filter(|_| limit > 0) else { return Ok(Vec::new()) };
        let mut page: Vec<StoredMessage> = Vec::new();
        for (_, message) in of_group.range((Excluded((after_seq, [0xFF; 32])), Unbounded)) {
            if page.len() >= limit && page.last().is_some_and(|last| last.seq != message.seq) {
                break;
            }
            page.push(message.clone());
        }
        Ok(page)
    }

    fn last_messages(&self, group: &str, limit: usize) -> Result<Vec<StoredMessage>, StoreError> {
        let of_group = self.messages.get(group).into_iter().flat_map(BTreeMap::values);
        let mut last: Vec<_> = of_group.rev().take(limit).cloned().collect();
        last.reverse();
        Ok(last)
    }

    fn message_place(&self, group: &str, id: &[u8; 32]) -> Result<Option<(u64, u64)>, StoreError> {
        let same = |known: &&StoredMessage| known.id == *id && known.kind == KIND_MESSAGE;
        let found = self.messages.get(group).and_then(|messages| messages.values().find(same));
        Ok(found.map(|message| (message.seq, message.epoch)))
    }

    fn message_count(&self, group: &str) -> Result<u64, StoreError> {
        Ok(self.messages.get(group).map_or(0, |messages| messages.len() as u64))
    }
}
