//! The hash tree over the channel keys of an epoch.
//!
//! The keys are sorted as byte strings. Leaf: SHA-256(0x00 ‖ "conclave/v1/channel-key" ‖ key); inner node:
//! SHA-256(0x01 ‖ left ‖ right), the left part the largest power of two smaller than the number of leaves (as in
//! RFC 9162, section 2.1.1). The root that is registered is
//! SHA-256("conclave/v1/key-root" 0x00 ‖ u64(number of leaves) ‖ top node).

use std::fmt;

use conclave_names::{Hash, limits};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};
use subtle::ConstantTimeEq;

use crate::chain::hash;

/// A member's Ed25519 public key of this group's channel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, MlsSize, MlsEncode, MlsDecode)]
pub struct ChannelKey(pub [u8; 32]);

impl fmt::Debug for ChannelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChannelKey({})", Hash::new(self.0))
    }
}

/// Why there is no tree, or no path in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyTreeError {
    /// No keys, or more than a group may have members.
    #[error("a key tree has 1 to {} keys", limits::MEMBERS)]
    Size,
    /// Two members have the same channel key.
    #[error("two members have the same channel key")]
    Duplicate,
    /// The key is not in the tree.
    #[error("the channel key is not of this epoch")]
    Absent,
    /// A path that leads to no root of this size, or to another root.
    #[error("the path of the channel key does not lead to the epoch's root")]
    Path,
}

/// From a key to the root.
#[derive(Debug, Clone, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
pub struct KeyPath {
    /// The key's place among the sorted keys.
    pub index: u64,
    /// How many keys there are.
    pub leaves: u64,
    /// Sibling nodes from the leaf up.
    pub siblings: Vec<Hash>,
}

/// The tree over the channel keys of an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyTree {
    keys: Vec<ChannelKey>,
    /// Hashes of the leaves, and of the nodes above them up to the top.
    levels: Vec<Vec<Hash>>,
}

fn leaf(key: &ChannelKey) -> Hash {
    hash(&[&[0], b"conclave/v1/channel-key", &key.0])
}

fn node(left: &Hash, right: &Hash) -> Hash {
    hash(&[&[1], left.as_bytes(), right.as_bytes()])
}

fn root(leaves: u64, top: &Hash) -> Hash {
    hash(&[b"conclave/v1/key-root\0", &leaves.to_be_bytes(), top.as_bytes()])
}

/// Goes on with the nodes above a level: pairs, and what has no partner goes up as it is. That is the tree whose left
/// parts are the largest powers of two.
fn above(level: &[Hash], into: &mut Vec<Hash>) {
    let rest = level.get(into.len() * 2..).unwrap_or_default();
    into.extend(rest.chunks(2).filter_map(|pair| match pair {
        [left, right] => Some(node(left, right)),
        alone => alone.first().copied(),
    }));
}

impl KeyTree {
    /// Builds the tree of an epoch.
    ///
    /// # Errors
    /// [`KeyTreeError::Size`], [`KeyTreeError::Duplicate`].
    pub fn new(keys: impl IntoIterator<Item = ChannelKey>) -> Result<Self, KeyTreeError> {
        let mut keys: Vec<_> = keys.into_iter().collect();
        keys.sort_unstable();
        let mut tree = Self { keys, levels: Vec::new() };
        tree.check()?;
        tree.levels.push(tree.keys.iter().map(leaf).collect());
        tree.rebuild_above(0);
        Ok(tree)
    }

    fn check(&self) -> Result<(), KeyTreeError> {
        if self.keys.is_empty() || self.keys.len() as u64 > limits::MEMBERS {
            return Err(KeyTreeError::Size);
        }
        if self.keys.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err(KeyTreeError::Duplicate);
        }
        Ok(())
    }

    /// Computes anew what stands above leaves from `from` on.
    fn rebuild_above(&mut self, mut from: usize) {
        let mut done = 1;
        while let Some(level) = self.levels.get(done - 1).filter(|level| level.len() > 1) {
            let mut next = Vec::with_capacity(level.len().div_ceil(2));
            from /= 2;
            next.extend(self.levels.get(done).into_iter().flat_map(|known| known.iter().take(from)));
            above(level, &mut next);
            match self.levels.get_mut(done) {
                Some(known) => *known = next,
                None => self.levels.push(next),
            }
            done += 1;
        }
        self.levels.truncate(done);
    }

    /// The tree with other keys. What comes before the first change in the order of keys is not computed anew.
    ///
    /// # Errors
    /// [`KeyTreeError::Absent`] if a key that is to go is not there; [`KeyTreeError::Size`], [`KeyTreeError::Duplicate`].
    pub fn changed(&self, removed: &[ChannelKey], added: &[ChannelKey]) -> Result<Self, KeyTreeError> {
        let mut removed = removed.to_vec();
        let mut added = added.to_vec();
        removed.sort_unstable();
        added.sort_unstable();
        // One that goes and comes back stays.
        let stays: Vec<_> = removed.iter().filter(|key| added.binary_search(key).is_ok()).copied().collect();
        if removed.iter().any(|key| self.keys.binary_search(key).is_err()) {
            return Err(KeyTreeError::Absent);
        }
        removed.retain(|key| stays.binary_search(key).is_err());
        added.retain(|key| stays.binary_search(key).is_err());
        let Some(first) = removed.first().into_iter().chain(added.first()).min() else { return Ok(self.clone()) };
        let from = self.keys.partition_point(|key| key < first);
        let (before, after) = self.keys.split_at(from);
        let mut keys = Vec::with_capacity(self.keys.len() + added.len());
        keys.extend_from_slice(before);
        let mut added = added.into_iter().peekable();
        for key in after.iter().filter(|key| removed.binary_search(key).is_err()) {
            keys.extend(std::iter::from_fn(|| added.next_if(|new| new < key)));
            keys.push(*key);
        }
        keys.extend(added);
        let mut tree = Self { keys, levels: self.levels.clone() };
        tree.check()?;
        // The hashes of leaves that only moved are known.
        let old = self.levels.first().map(Vec::as_slice).unwrap_or_default();
        if let Some(leaves) = tree.levels.first_mut() {
            leaves.truncate(from);
            let mut at = from;
            for key in tree.keys.get(from..).unwrap_or_default() {
                while self.keys.get(at).is_some_and(|known| known < key) {
                    at += 1;
                }
                let known = old.get(at).filter(|_| self.keys.get(at) == Some(key));
                leaves.push(known.copied().unwrap_or_else(|| leaf(key)));
            }
        }
        tree.rebuild_above(from);
        Ok(tree)
    }

    /// The root to register.
    #[must_use]
    pub fn root(&self) -> Hash {
        let top = self.levels.last().and_then(|top| top.first()).copied().unwrap_or(Hash::new([0; 32]));
        root(self.keys.len() as u64, &top)
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        // Bounded by `limits::MEMBERS`.
        u32::try_from(self.keys.len()).unwrap_or(u32::MAX)
    }

    /// Never: a tree has a key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The path of a key.
    ///
    /// # Errors
    /// [`KeyTreeError::Absent`].
    pub fn path(&self, key: &ChannelKey) -> Result<KeyPath, KeyTreeError> {
        let index = self.keys.binary_search(key).map_err(|_| KeyTreeError::Absent)?;
        let mut at = index;
        let mut path = Vec::new();
        for level in &self.levels {
            // What has no partner goes up by itself.
            path.extend(level.get(at ^ 1).filter(|_| level.len() > 1));
            at /= 2;
        }
        Ok(KeyPath { index: index as u64, leaves: self.keys.len() as u64, siblings: path })
    }
}

impl KeyPath {
    /// Checks that the key is in the tree with this root. Costs one hash a level.
    ///
    /// # Errors
    /// [`KeyTreeError::Path`].
    pub fn verify(&self, key: &ChannelKey, expected: &Hash) -> Result<(), KeyTreeError> {
        if self.leaves == 0 || self.leaves > limits::MEMBERS || self.index >= self.leaves {
            return Err(KeyTreeError::Path);
        }
        // Sides from the leaf up: found from the root down, then reversed.
        let (mut index, mut size) = (self.index, self.leaves);
        let mut on_left = Vec::new();
        while size > 1 {
            let middle = size.next_power_of_two() / 2;
            let left = index < middle;
            on_left.push(left);
            (index, size) = if left { (index, middle) } else { (index - middle, size - middle) };
        }
        if on_left.len() != self.siblings.len() {
            return Err(KeyTreeError::Path);
        }
        let mut hash = leaf(key);
        for (left, sibling) in on_left.iter().rev().zip(&self.siblings) {
            hash = if *left { node(&hash, sibling) } else { node(sibling, &hash) };
        }
        let found = root(self.leaves, &hash);
        if found.as_bytes().ct_eq(expected.as_bytes()).into() { Ok(()) } else { Err(KeyTreeError::Path) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn keys(n: u64) -> Vec<ChannelKey> {
        (0..n).map(|i| ChannelKey(*hash(&[&i.to_be_bytes()]).as_bytes())).collect()
    }

    #[test]
    fn no_keys_and_equal_keys_make_no_tree() {
        assert_eq!(KeyTree::new([]).unwrap_err(), KeyTreeError::Size);
        let key = ChannelKey([1; 32]);
        assert_eq!(KeyTree::new([key, key]).unwrap_err(), KeyTreeError::Duplicate);
    }

    #[test]
    fn an_inner_node_is_no_key() {
        // Without the prefixes, the concatenation of two leaves could pass as a key of a smaller tree.
        let tree = KeyTree::new(keys(2)).unwrap();
        let path = KeyPath { index: 0, leaves: 1, siblings: Vec::new() };
        for key in keys(2) {
            assert_eq!(path.verify(&key, &tree.root()), Err(KeyTreeError::Path));
        }
    }

    proptest! {
        #[test]
        fn every_member_has_a_path_and_nobody_else(n in 1..70u64, change in 0..4u8, at in any::<prop::sample::Index>()) {
            let keys = keys(n);
            let tree = KeyTree::new(keys.clone()).unwrap();
            let root = tree.root();
            for key in &keys {
                let path = tree.path(key).unwrap();
                prop_assert_eq!(path.verify(key, &root), Ok(()));
                prop_assert!(path.siblings.len() <= 7);
            }
            let stranger = ChannelKey([9; 32]);
            prop_assert_eq!(tree.path(&stranger), Err(KeyTreeError::Absent));
            let key = keys[at.index(keys.len())];
            let mut path = tree.path(&key).unwrap();
            prop_assert_eq!(path.verify(&stranger, &root), Err(KeyTreeError::Path));
            match change {
                0 => path.index += 1,
                1 => path.leaves += 1,
                2 => path.siblings.push(root),
                _ => { if path.siblings.pop().is_none() { path.index = u64::MAX } }
            }
            prop_assert_eq!(path.verify(&key, &root), Err(KeyTreeError::Path));
        }

        #[test]
        fn a_changed_tree_is_the_tree_of_the_changed_set(
            n in 1..70u64, gone in prop::collection::btree_set(0..70u64, 0..8), come in prop::collection::btree_set(0..90u64, 0..8),
        ) {
            let of = |set: &BTreeSet<u64>| {
                set.iter().map(|i| ChannelKey(*hash(&[&i.to_be_bytes()]).as_bytes())).collect::<Vec<_>>()
            };
            let before: BTreeSet<_> = (0..n).collect();
            let tree = KeyTree::new(of(&before)).unwrap();
            let left: BTreeSet<_> = before.difference(&gone).copied().collect();
            let after: BTreeSet<_> = left.union(&come).copied().collect();
            let changed = tree.changed(&of(&gone), &of(&come));
            if !gone.is_subset(&before) {
                prop_assert_eq!(changed, Err(KeyTreeError::Absent));
            } else if !left.is_disjoint(&come) {
                prop_assert_eq!(changed, Err(KeyTreeError::Duplicate));
            } else if after.is_empty() {
                prop_assert_eq!(changed, Err(KeyTreeError::Size));
            } else {
                prop_assert_eq!(changed, KeyTree::new(of(&after)));
            }
        }

        /// The definition of RFC 9162, section 2.1.1, word for word.
        #[test]
        fn the_root_is_that_of_the_definition(n in 1..200u64) {
            fn top(keys: &[ChannelKey]) -> Hash {
                if let [key] = keys {
                    return leaf(key);
                }
                let (left, right) = keys.split_at(keys.len().next_power_of_two() / 2);
                node(&top(left), &top(right))
            }
            let mut keys = keys(n);
            let tree = KeyTree::new(keys.clone()).unwrap();
            keys.sort_unstable();
            prop_assert_eq!(tree.root(), root(n, &top(&keys)));
        }

        #[test]
        fn the_root_names_the_set(a in prop::collection::btree_set(0..40u64, 1..20), b in prop::collection::btree_set(0..40u64, 1..20)) {
            let of = |set: &BTreeSet<u64>| {
                KeyTree::new(set.iter().map(|i| ChannelKey(*hash(&[&i.to_be_bytes()]).as_bytes()))).unwrap().root()
            };
            prop_assert_eq!(of(&a) == of(&b), a == b);
        }
    }
}
