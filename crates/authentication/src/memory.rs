//! A store in memory, for tests and simulations. Nothing of it is durable.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use conclave_names::{ClientUri, Timestamp, UserUri};

use crate::store::{ClientRow, InviteRow, LinkRow, StoreError, Tx, UserRow};

/// Everything that a [`MemoryStore`] holds, to compare before and after.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    users: BTreeMap<UserUri, UserRow>,
    clients: BTreeMap<ClientUri, ClientRow>,
    former_keys: BTreeSet<(ClientUri, [u8; 32])>,
    invites: BTreeMap<[u8; 32], InviteRow>,
    links: BTreeMap<[u8; 16], LinkRow>,
    nonces: BTreeMap<([u8; 32], [u8; 16]), Timestamp>,
}

/// A store in memory. Transactions run one after the other.
#[derive(Debug, Default)]
pub struct MemoryStore {
    contents: Mutex<Contents>,
}

impl MemoryStore {
    fn lock(&self) -> MutexGuard<'_, Contents> {
        // A panic in a transaction is a failed test; what others read then is of no matter.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one transaction. If it ends in an error, what it wrote is undone.
    pub fn transaction<T, E>(&self, run: impl FnOnce(&mut dyn Tx) -> Result<T, E>) -> Result<T, E> {
        let mut contents = self.lock();
        let mut tx = MemoryTx { contents: &mut contents, undo: Vec::new() };
        let result = run(&mut tx);
        if result.is_err() {
            let MemoryTx { contents, undo } = tx;
            undo.into_iter().rev().for_each(|step| step(contents));
        }
        result
    }

    /// A copy of everything.
    #[must_use]
    pub fn contents(&self) -> Contents {
        self.lock().clone()
    }
}

/// One step back.
type Undo = Box<dyn FnOnce(&mut Contents)>;

struct MemoryTx<'a> {
    contents: &'a mut Contents,
    undo: Vec<Undo>,
}

impl MemoryTx<'_> {
    /// Sets or deletes one row, and notes how to undo it.
    fn write<K: Ord + Clone + 'static, V: 'static>(
        &mut self,
        table: fn(&mut Contents) -> &mut BTreeMap<K, V>,
        key: K,
        value: Option<V>,
    ) {
        let old = replace(table(self.contents), key.clone(), value);
        self.undo.push(Box::new(move |contents| {
            replace(table(contents), key, old);
        }));
    }
}

fn replace<K: Ord, V>(table: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> Option<V> {
    match value {
        Some(value) => table.insert(key, value),
        None => table.remove(&key),
    }
}

/// The keys of the rows that `picked` picks.
fn keys<K: Clone, V>(table: &BTreeMap<K, V>, picked: impl Fn(&V) -> bool) -> Vec<K> {
    table.iter().filter(|(_, row)| picked(row)).map(|(key, _)| key.clone()).collect()
}

impl Tx for MemoryTx<'_> {
    fn user(&mut self, user: &UserUri) -> Result<Option<UserRow>, StoreError> {
        Ok(self.contents.users.get(user).cloned())
    }

    fn put_user(&mut self, row: &UserRow) -> Result<(), StoreError> {
        self.write(|c| &mut c.users, row.user.clone(), Some(row.clone()));
        Ok(())
    }

    fn client(&mut self, client: &ClientUri) -> Result<Option<ClientRow>, StoreError> {
        Ok(self.contents.clients.get(client).cloned())
    }

    fn clients_of(&mut self, user: &UserUri) -> Result<Vec<ClientRow>, StoreError> {
        // Clients sort by user and then device, and no device name sorts before "0".
        let Ok(first) = user.client("0") else { return Ok(Vec::new()) };
        let rows = self.contents.clients.range(first..).take_while(|(client, _)| client.user() == user);
        Ok(rows.map(|(_, row)| row.clone()).collect())
    }

    fn count_clients(&mut self, user: &UserUri) -> Result<u64, StoreError> {
        Ok(self.clients_of(user)?.len() as u64)
    }

    fn put_client(&mut self, row: &ClientRow) -> Result<(), StoreError> {
        self.write(|c| &mut c.clients, row.client.clone(), Some(row.clone()));
        Ok(())
    }

    fn put_former_key(&mut self, client: &ClientUri, key: &[u8; 32]) -> Result<(), StoreError> {
        let row = (client.clone(), *key);
        if self.contents.former_keys.insert(row.clone()) {
            self.undo.push(Box::new(move |contents| {
                contents.former_keys.remove(&row);
            }));
        }
        Ok(())
    }

    fn is_former_key(&mut self, client: &ClientUri, key: &[u8; 32]) -> Result<bool, StoreError> {
        Ok(self.contents.former_keys.contains(&(client.clone(), *key)))
    }

    fn invite(&mut self, token_hash: &[u8; 32]) -> Result<Option<InviteRow>, StoreError> {
        Ok(self.contents.invites.get(token_hash).cloned())
    }

    fn put_invite(&mut self, row: &InviteRow) -> Result<(), StoreError> {
        self.write(|c| &mut c.invites, row.token_hash, Some(row.clone()));
        Ok(())
    }

    fn link(&mut self, link_id: &[u8; 16]) -> Result<Option<LinkRow>, StoreError> {
        Ok(self.contents.links.get(link_id).cloned())
    }

    fn count_links(&mut self, user: &UserUri, now: Timestamp) -> Result<u64, StoreError> {
        let open = |row: &&LinkRow| row.client.user() == user && row.expires > now;
        Ok(self.contents.links.values().filter(open).count() as u64)
    }

    fn put_link(&mut self, row: &LinkRow) -> Result<(), StoreError> {
        self.write(|c| &mut c.links, row.link_id, Some(row.clone()));
        Ok(())
    }

    fn drop_oldest_link(&mut self, user: &UserUri, now: Timestamp) -> Result<bool, StoreError> {
        let waiting = |row: &&LinkRow| row.client.user() == user && row.expires > now && row.approval.is_none();
        let oldest = self.contents.links.values().filter(waiting).min_by_key(|row| (row.expires, row.link_id));
        let Some(link_id) = oldest.map(|row| row.link_id) else { return Ok(false) };
        self.write(|c| &mut c.links, link_id, None);
        Ok(true)
    }

    fn note_nonce(&mut self, key: &[u8; 32], nonce: &[u8; 16], expires: Timestamp) -> Result<bool, StoreError> {
        let name = (*key, *nonce);
        let fresh = !self.contents.nonces.contains_key(&name);
        if fresh {
            self.write(|c| &mut c.nonces, name, Some(expires));
        }
        Ok(fresh)
    }

    fn prune(&mut self, now: Timestamp) -> Result<(), StoreError> {
        for key in keys(&self.contents.nonces, |expires| *expires <= now) {
            self.write(|c| &mut c.nonces, key, None);
        }
        for key in keys(&self.contents.links, |row| row.expires <= now) {
            self.write(|c| &mut c.links, key, None);
        }
        for key in keys(&self.contents.invites, |row| row.expires <= now || row.uses_left == 0) {
            self.write(|c| &mut c.invites, key, None);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, key: u8) -> UserRow {
        let user = format!("mimi://example.com/u/{name}").parse().unwrap();
        UserRow { user, identity_key: [key; 32], registered: Timestamp(1) }
    }

    #[test]
    fn an_error_undoes_inserts_replacements_and_deletions() {
        let store = MemoryStore::default();
        store
            .transaction(|tx| {
                tx.put_user(&row("alice", 1))?;
                tx.note_nonce(&[1; 32], &[1; 16], Timestamp(5)).map(drop)
            })
            .unwrap();
        let before = store.contents();
        let failed: Result<(), StoreError> = store.transaction(|tx| {
            tx.put_user(&row("alice", 2))?;
            tx.put_user(&row("alice", 3))?;
            tx.put_user(&row("bob", 1))?;
            tx.prune(Timestamp(10))?;
            Err(StoreError::Full)
        });
        assert_eq!(failed, Err(StoreError::Full));
        assert_eq!(store.contents(), before);
    }

    #[test]
    fn a_users_clients_are_those_of_the_user_only() {
        let store = MemoryStore::default();
        let put = |name: &str| {
            let client = name.parse().unwrap();
            let row = ClientRow { client, signature_key: [0; 32], not_after_secs: 0, registered: Timestamp(0) };
            store.transaction(|tx| tx.put_client(&row)).unwrap();
        };
        for name in ["alice/z", "alice/0", "alice2/0", "alic/z", "alice/a"] {
            put(&format!("mimi://example.com/d/{name}"));
        }
        let found = store.transaction(|tx| tx.clients_of(&row("alice", 0).user)).unwrap();
        let devices: Vec<_> = found.iter().map(|row| row.client.device()).collect();
        assert_eq!(devices, ["0", "a", "z"]);
    }
}
