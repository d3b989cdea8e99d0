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

#[cfg(test)]
mod tests {
    use conclave_names::{Hash, Seq};

    use super::*;
    use crate::visible::follower::tests::empty;

    fn channel(n: u8) -> ChannelId {
        ChannelId::new([n; 16])
    }

    fn tip(n: u8) -> Tip {
        Tip { seq: Seq(n.into()), link: Hash::new([n; 32]) }
    }

    #[test]
    fn a_state_is_found_by_what_led_to_it_and_the_one_before_stays() {
        let cache = Cache::new(usize::MAX);
        let [first, second, third] = [1, 2, 3].map(|n| Arc::new(empty(tip(n))));
        cache.put(channel(1), None, Arc::clone(&first));
        assert!(cache.get(&channel(1), &tip(1)).is_some());
        assert!(cache.get(&channel(1), &tip(2)).is_none() && cache.get(&channel(2), &tip(1)).is_none());
        cache.put(channel(1), Some(first), Arc::clone(&second));
        assert!(cache.get(&channel(1), &tip(1)).is_some() && cache.get(&channel(1), &tip(2)).is_some());
        // What the second was undone for.
        cache.put(channel(1), cache.get(&channel(1), &tip(1)), third);
        assert!(cache.get(&channel(1), &tip(2)).is_none() && cache.get(&channel(1), &tip(3)).is_some());
        cache.forget(&channel(1));
        assert!(cache.get(&channel(1), &tip(3)).is_none());
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn the_least_recently_used_gives_way_to_bytes() {
        let one = empty(tip(1)).size();
        let cache = Cache::new(2 * one);
        for n in 1..=2 {
            cache.put(channel(n), None, Arc::new(empty(tip(n))));
        }
        assert!(cache.get(&channel(1), &tip(1)).is_some());
        cache.put(channel(3), None, Arc::new(empty(tip(3))));
        assert!(cache.get(&channel(2), &tip(2)).is_none());
        assert!(cache.get(&channel(1), &tip(1)).is_some() && cache.get(&channel(3), &tip(3)).is_some());
        assert_eq!(cache.bytes(), 2 * one);
        // What is larger than everything is not kept at all.
        let small = Cache::new(one - 1);
        small.put(channel(1), None, Arc::new(empty(tip(1))));
        assert_eq!(small.bytes(), 0);
        assert!(small.get(&channel(1), &tip(1)).is_none());
    }
}
