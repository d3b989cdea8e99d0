//! Followed groups in memory, up to a number of bytes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use conclave_names::ChannelId;

use super::{Followed, Tip};

/// States of one group: the newest that was seen, and the one before it, which is the right one if the transaction
/// that made the newest was undone.
struct Slot {
    states: Vec<Arc<Followed>>,
    bytes: usize,
    tick: u64,
}

#[derive(Default)]
struct Table {
    slots: HashMap<ChannelId, Slot>,
    /// By last use, least recent first.
    order: BTreeMap<u64, ChannelId>,
    tick: u64,
    bytes: usize,
}

impl Table {
    fn remove(&mut self, channel: &ChannelId) -> Option<Slot> {
        let slot = self.slots.remove(channel)?;
        self.order.remove(&slot.tick);
        self.bytes = self.bytes.saturating_sub(slot.bytes);
        Some(slot)
    }

    fn insert(&mut self, channel: ChannelId, states: Vec<Arc<Followed>>) {
        if states.is_empty() {
            return;
        }
        self.tick += 1;
        let bytes = states.iter().map(|state| state.size()).fold(0, usize::saturating_add);
        self.bytes = self.bytes.saturating_add(bytes);
        self.order.insert(self.tick, channel);
        self.slots.insert(channel, Slot { states, bytes, tick: self.tick });
    }
}

/// The groups that were used last.
pub(crate) struct Cache {
    table: Mutex<Table>,
    max: usize,
}

impl Cache {
    /// For states of so many bytes together, as they are estimated.
    pub(crate) fn new(max: usize) -> Self {
        Self { table: Mutex::default(), max }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it holds the lock half-way through a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state that these handshakes lead to, if it is here.
    pub(crate) fn get(&self, channel: &ChannelId, tip: &Tip) -> Option<Arc<Followed>> {
        let mut table = self.table();
        let slot = table.remove(channel)?;
        let found = slot.states.iter().find(|state| state.tip() == tip).cloned();
        table.insert(*channel, slot.states);
        found
    }

    /// Forgets a group.
    pub(crate) fn forget(&self, channel: &ChannelId) {
        self.table().remove(channel);
    }

    /// Puts a state in, beside the one that it followed on. Groups that were used least recently give way.
    pub(crate) fn put(&self, channel: ChannelId, before: Option<Arc<Followed>>, state: Arc<Followed>) {
        let mut table = self.table();
        table.remove(&channel);
        table.insert(channel, before.into_iter().chain([state]).collect());
        while table.bytes > self.max {
            let Some((_, least)) = table.order.first_key_value() else { break };
            let least = *least;
            table.remove(&least);
        }
    }

    /// Bytes of the states that are here, as they are estimated.
    pub(crate) fn bytes(&self) -> usize {
        self.table().bytes
    }
}
