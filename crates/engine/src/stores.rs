//! What mls-rs stores, kept in memory until the shell makes it durable.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mls_rs::{GroupStateStorage, KeyPackageStorage, PreSharedKeyStorage};
use mls_rs_core::{
    group::{EpochRecord, GroupState},
    key_package::KeyPackageData,
    psk::{ExternalPskId, PreSharedKey},
};
use zeroize::Zeroizing;

/// Most earlier epochs whose messages can still be read. The DS admits messages of one epoch back (RFC 9750, section 7); the
/// others are for a group that goes back to an epoch whose end was annulled. How long: `group::prune`.
pub(crate) const EPOCHS_KEPT: u64 = 3;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Row = Zeroizing<Vec<u8>>;

/// The state of one group as mls-rs writes it.
#[derive(Default, Clone)]
pub(crate) struct GroupRows {
    pub(crate) state: Row,
    pub(crate) epochs: BTreeMap<u64, Row>,
}

/// What changed in a group's rows since they were last drained.
#[derive(Default)]
pub(crate) struct GroupChanges {
    pub(crate) state: Option<Row>,
    pub(crate) epochs: BTreeMap<u64, Row>,
    pub(crate) dropped: BTreeSet<u64>,
}

#[derive(Default)]
struct Inner {
    rows: GroupRows,
    changes: GroupChanges,
}

#[cfg(test)]
thread_local! {
    /// How often a test had a group made of its stored state.
    pub(crate) static LOADED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// mls-rs's group storage: the rows of the groups that are open.
#[derive(Clone, Default)]
pub(crate) struct GroupStates(Arc<Mutex<BTreeMap<Vec<u8>, Inner>>>);

impl std::fmt::Debug for GroupStates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupStates").finish_non_exhaustive()
    }
}

impl GroupStates {
    /// Puts a group's rows where mls-rs will look for them.
    pub(crate) fn load(&self, group_id: &[u8], rows: GroupRows) {
        lock(&self.0).insert(group_id.to_vec(), Inner { rows, changes: GroupChanges::default() });
    }

    /// Forgets a group, so that a new incarnation of it starts from nothing.
    /// Gives the earlier epochs that it had.
    pub(crate) fn forget(&self, group_id: &[u8]) -> Vec<u64> {
        let inner = lock(&self.0).remove(group_id);
        inner.map(|inner| inner.rows.epochs.into_keys().collect()).unwrap_or_default()
    }

    /// Forgets an earlier epoch of a group.
    pub(crate) fn forget_epoch(&self, group_id: &[u8], epoch: u64) {
        if let Some(inner) = lock(&self.0).get_mut(group_id) {
            inner.rows.epochs.remove(&epoch);
            inner.changes.epochs.remove(&epoch);
        }
    }

    /// The state that mls-rs wrote last.
    pub(crate) fn state_of(&self, group_id: &[u8]) -> Option<Row> {
        lock(&self.0).get(group_id).map(|inner| inner.rows.state.clone()).filter(|state| !state.is_empty())
    }

    /// Earlier epochs before this one.
    pub(crate) fn epochs_before(&self, group_id: &[u8], epoch: u64) -> BTreeMap<u64, Row> {
        let groups = lock(&self.0);
        let rows = groups.get(group_id).map(|inner| inner.rows.epochs.range(..epoch));
        rows.into_iter().flatten().map(|(id, row)| (*id, row.clone())).collect()
    }

    /// Takes what changed.
    pub(crate) fn drain(&self, group_id: &[u8]) -> GroupChanges {
        lock(&self.0).get_mut(group_id).map(|inner| std::mem::take(&mut inner.changes)).unwrap_or_default()
    }
}

impl GroupStateStorage for GroupStates {
    type Error = Infallible;

    fn state(&self, group_id: &[u8]) -> Result<Option<Row>, Infallible> {
        #[cfg(test)]
        LOADED.set(LOADED.get() + 1);
        let rows = lock(&self.0);
        Ok(rows.get(group_id).map(|inner| inner.rows.state.clone()).filter(|state| !state.is_empty()))
    }

    fn epoch(&self, group_id: &[u8], epoch_id: u64) -> Result<Option<Row>, Infallible> {
        Ok(lock(&self.0).get(group_id).and_then(|inner| inner.rows.epochs.get(&epoch_id).cloned()))
    }

    fn write(
        &mut self,
        state: GroupState,
        inserts: Vec<EpochRecord>,
        updates: Vec<EpochRecord>,
    ) -> Result<(), Infallible> {
        let mut groups = lock(&self.0);
        let inner = groups.entry(state.id).or_default();
        inner.rows.state.clone_from(&state.data);
        inner.changes.state = Some(state.data);
        for epoch in inserts.into_iter().chain(updates) {
            inner.rows.epochs.insert(epoch.id, epoch.data.clone());
            inner.changes.epochs.insert(epoch.id, epoch.data);
        }
        let newest = inner.rows.epochs.keys().next_back().copied().unwrap_or_default();
        let keep = newest.saturating_add(1).saturating_sub(EPOCHS_KEPT);
        let kept = inner.rows.epochs.split_off(&keep);
        for dropped in std::mem::replace(&mut inner.rows.epochs, kept).into_keys() {
            inner.changes.epochs.remove(&dropped);
            inner.changes.dropped.insert(dropped);
        }
        Ok(())
    }

    fn max_epoch_id(&self, group_id: &[u8]) -> Result<Option<u64>, Infallible> {
        Ok(lock(&self.0).get(group_id).and_then(|inner| inner.rows.epochs.keys().next_back().copied()))
    }
}

/// KeyPackages that were inserted, and ids of those that were used up.
pub(crate) type Drained = (Vec<(Vec<u8>, KeyPackageData)>, Vec<Vec<u8>>);

#[derive(Default)]
struct KeyPackageInner {
    rows: BTreeMap<Vec<u8>, KeyPackageData>,
    inserted: Vec<(Vec<u8>, KeyPackageData)>,
    deleted: Vec<Vec<u8>>,
}

/// mls-rs's storage of the private parts of KeyPackages.
#[derive(Clone, Default)]
pub(crate) struct KeyPackages(Arc<Mutex<KeyPackageInner>>);

impl std::fmt::Debug for KeyPackages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyPackages").finish_non_exhaustive()
    }
}

impl KeyPackages {
    pub(crate) fn load(&self, id: Vec<u8>, data: KeyPackageData) {
        lock(&self.0).rows.insert(id, data);
    }

    /// Takes what was inserted and what was used up.
    pub(crate) fn drain(&self) -> Drained {
        let mut inner = lock(&self.0);
        (std::mem::take(&mut inner.inserted), std::mem::take(&mut inner.deleted))
    }

    pub(crate) fn remove(&self, id: &[u8]) {
        lock(&self.0).rows.remove(id);
    }
}

impl KeyPackageStorage for KeyPackages {
    type Error = Infallible;

    /// Notes that a KeyPackage was used. Its row stays in memory until the shell has made the join durable: a last
    /// resort is used more than once.
    fn delete(&mut self, id: &[u8]) -> Result<(), Infallible> {
        lock(&self.0).deleted.push(id.to_vec());
        Ok(())
    }

    fn insert(&mut self, id: Vec<u8>, data: KeyPackageData) -> Result<(), Infallible> {
        let mut inner = lock(&self.0);
        inner.rows.insert(id.clone(), data.clone());
        inner.inserted.push((id, data));
        Ok(())
    }

    fn get(&self, id: &[u8]) -> Result<Option<KeyPackageData>, Infallible> {
        Ok(lock(&self.0).rows.get(id).cloned())
    }
}

/// mls-rs's storage of external PSKs: the one that a commit at hand may use, and none otherwise.
#[derive(Clone, Default)]
pub(crate) struct Psks(Arc<Mutex<Option<(ExternalPskId, PreSharedKey)>>>);

impl std::fmt::Debug for Psks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Psks").finish_non_exhaustive()
    }
}

impl Psks {
    /// Offers a PSK while something is done.
    pub(crate) fn during<T>(&self, id: ExternalPskId, psk: PreSharedKey, work: impl FnOnce() -> T) -> T {
        *lock(&self.0) = Some((id, psk));
        let done = work();
        *lock(&self.0) = None;
        done
    }
}

impl PreSharedKeyStorage for Psks {
    type Error = Infallible;

    fn get(&self, id: &ExternalPskId) -> Result<Option<PreSharedKey>, Infallible> {
        Ok(lock(&self.0).as_ref().filter(|(offered, _)| offered == id).map(|(_, psk)| psk.clone()))
    }
}
