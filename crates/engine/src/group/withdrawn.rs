//! Commits of ours that were made anew, because another commit won their epoch, but that may be ordered all the same: the
//! winner may be annulled, and then what was on its way for long is the next. MLS gives nobody a commit of its own to read, so what
//! it needs to apply them is kept until their epoch is settled.

use std::collections::BTreeMap;

use conclave_channel::chain::entry_hash;
use conclave_names::{Epoch, GroupUri, Hash};
use zeroize::Zeroizing;

use super::{Group, row};
use crate::{
    intent::Prepared,
    record::RecordError,
    writes::{Room, Write},
};

/// Prefix of the rows.
pub(super) const WITHDRAWN: &[u8] = b"withdrawn/";

/// Most that are kept; the oldest go first.
const MOST: usize = 64;

/// By the epoch that each ends, and its entry's hash: what mls-rs needs to apply it.
#[derive(Default)]
pub(super) struct Withdrawn(BTreeMap<(Epoch, Hash), Zeroizing<Vec<u8>>>);

fn key(group: &GroupUri, epoch: Epoch, entry: &Hash) -> Vec<u8> {
    row::key(group, &[WITHDRAWN, &epoch.0.to_be_bytes(), entry.as_bytes()].concat())
}

impl Withdrawn {
    /// From its rows.
    pub(super) fn load(group: &GroupUri, rows: Vec<(Vec<u8>, Zeroizing<Vec<u8>>)>) -> Result<Self, RecordError> {
        let prefix = row::key(group, WITHDRAWN);
        let mut commits = BTreeMap::new();
        for (key, secrets) in rows {
            let name = row::entry_named(&prefix, &key)?;
            commits.insert(name, secrets);
        }
        Ok(Self(commits))
    }
}

impl Group {
    /// Keeps a commit that is made anew. Without open commits nothing can be annulled.
    pub(super) fn withdraw(&mut self, prepared: &Prepared) {
        if prepared.bundle.is_none() || prepared.secrets.is_empty() || self.parents.is_empty() {
            return;
        }
        let name = (prepared.epoch, entry_hash(&prepared.entry));
        let key = key(&self.name, name.0, &name.1);
        self.writes.push(Write::Put { room: Room::GROUP, key, value: prepared.secrets.clone() });
        self.withdrawn.0.insert(name, prepared.secrets.clone());
        while self.withdrawn.0.len() > MOST {
            self.forget_first();
        }
    }

    /// What applies a commit of ours that was made anew, if the entry is one.
    pub(super) fn withdrawn_commit(&self, epoch: Epoch, entry: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        self.withdrawn.0.get(&(epoch, entry_hash(entry))).cloned()
    }

    /// Forgets those of epochs that the group cannot come back to.
    pub(super) fn forget_withdrawn(&mut self) {
        let settled = self.ledger.settled();
        while self
            .withdrawn
            .0
            .first_key_value()
            .is_some_and(|((epoch, _), _)| *epoch < settled || self.parents.is_empty())
        {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some(((epoch, entry), _)) = self.withdrawn.0.pop_first() {
            self.writes.push(Write::Delete { room: Room::GROUP, key: key(&self.name, epoch, &entry) });
        }
    }
}
