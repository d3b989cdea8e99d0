use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

/// How many places each key holds of something that there can be so many of at a time. As many keys as held places.
#[derive(Debug)]
pub(crate) struct Places<K: Eq + Hash>(Arc<Mutex<HashMap<K, usize>>>);

/// A place, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Place<K: Eq + Hash> {
    places: Arc<Mutex<HashMap<K, usize>>>,
    key: K,
}

impl<K: Eq + Hash + Copy> Places<K> {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    /// Takes a place, unless the key has `max` of them.
    pub(crate) fn take(&self, key: K, max: usize) -> Option<Place<K>> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.get(&key).copied().unwrap_or_default();
        if count >= max {
            return None;
        }
        held.insert(key, count + 1);
        Some(Place { places: Arc::clone(&self.0), key })
    }

    /// How many keys hold places.
    #[cfg(test)]
    pub(crate) fn keys(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut held = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        match held.get_mut(&self.key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                held.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back_and_keys_are_forgotten() {
        let places = Places::new();
        let (first, second) = (places.take("a", 2).unwrap(), places.take("a", 2).unwrap());
        assert!(places.take("a", 2).is_none());
        let other = places.take("b", 2).unwrap();
        assert_eq!(places.keys(), 2);
        drop(first);
        let third = places.take("a", 2).unwrap();
        assert!(places.take("a", 2).is_none());
        drop((second, third, other));
        assert_eq!(places.keys(), 0);
        assert!(places.take("a", 0).is_none());
    }
}
