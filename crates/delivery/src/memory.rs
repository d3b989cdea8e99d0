//! A store in memory, for tests and the simulator.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use conclave_mls::capabilities::Capabilities;
use conclave_names::{ChannelId, ClientUri, Epoch, Hash, IdempotencyKey, Seq, Timestamp, UserUri};

use crate::store::{
    AddressKeyRow, BlobRow, ChannelRow, CheckpointRow, EntryRow, EpochRow, FollowedRow, GroupInfoRow, IdempotencyRow,
    KeyPackageCount, KeyPackageRow, KeyedHash, OutboxKind, OutboxRow, PRUNED_CHUNKS, RangeLimit, Read, StagedRow,
    StagedTotal, StoreError, Tx,
};

/// Everything that is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    channels: BTreeMap<ChannelId, ChannelRow>,
    epochs: BTreeMap<(ChannelId, Epoch), EpochRow>,
    group_infos: BTreeMap<ChannelId, GroupInfoRow>,
    tree_chunks: BTreeSet<(ChannelId, Hash)>,
    checkpoints: BTreeMap<(ChannelId, Seq), CheckpointRow>,
    followed: BTreeMap<(ChannelId, Seq), FollowedRow>,
    entries: BTreeMap<(ChannelId, Seq), EntryRow>,
    idempotency: BTreeMap<(KeyedHash, IdempotencyKey), IdempotencyRow>,
    blobs: BTreeMap<Hash, BlobRow>,
    staged: BTreeMap<(KeyedHash, Hash), StagedRow>,
    chunks: BTreeMap<(KeyedHash, u64), Vec<u8>>,
    discarded: BTreeSet<KeyedHash>,
    /// With the place in the order of storing.
    key_packages: BTreeMap<Hash, (u64, KeyPackageRow)>,
    directory: BTreeMap<ClientUri, Timestamp>,
    claimed: BTreeMap<KeyedHash, Timestamp>,
    address_keys: BTreeMap<[u8; 8], AddressKeyRow>,
    drops: BTreeMap<KeyedHash, (u32, Timestamp)>,
    outbox: BTreeMap<u64, OutboxRow>,
    nonces: BTreeMap<KeyedHash, Timestamp>,
    secret: Option<Secret>,
    counter: u64,
}

/// The server's secret, which `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
struct Secret([u8; 32]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A store in memory. Its size is bounded by what its users put in.
#[derive(Debug, Default, Clone)]
pub struct MemoryStore {
    state: State,
    full: bool,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Has the store answer every write with [`StoreError::Full`], or no longer.
    pub fn set_full(&mut self, full: bool) {
        self.full = full;
    }

    /// Runs a transaction. If it answers with an error, what it wrote is undone.
    pub fn write<R, E>(&mut self, call: impl FnOnce(&mut dyn Tx) -> Result<R, E>) -> Result<R, E> {
        // Copying everything is dear, and simple enough to be right.
        let mut transaction = Transaction { state: self.state.clone(), full: self.full };
        let reply = call(&mut transaction)?;
        self.state = transaction.state;
        Ok(reply)
    }

    /// Runs a call that only reads.
    pub fn read<R>(&mut self, call: impl FnOnce(&mut dyn Read) -> R) -> R {
        call(&mut self.state)
    }
}

/// A copy of the state that replaces it when all went well.
struct Transaction {
    state: State,
    full: bool,
}

impl Transaction {
    fn writable(&mut self) -> Result<&mut State, StoreError> {
        if self.full { Err(StoreError::Full) } else { Ok(&mut self.state) }
    }
}

impl State {
    fn count(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn key_packages_of(&self, client: &ClientUri) -> impl Iterator<Item = &(u64, KeyPackageRow)> {
        self.key_packages.values().filter(move |(_, row)| row.client == *client)
    }
}

impl Read for State {
    fn channel(&mut self, id: &ChannelId) -> Result<Option<ChannelRow>, StoreError> {
        Ok(self.channels.get(id).cloned())
    }

    fn epoch(&mut self, channel: &ChannelId, epoch: Epoch) -> Result<Option<EpochRow>, StoreError> {
        Ok(self.epochs.get(&(*channel, epoch)).cloned())
    }

    fn group_info(&mut self, channel: &ChannelId) -> Result<Option<GroupInfoRow>, StoreError> {
        Ok(self.group_infos.get(channel).cloned())
    }

    fn tree_chunks(&mut self, channel: &ChannelId) -> Result<Vec<Hash>, StoreError> {
        let range = (*channel, Hash::new([0; 32]))..=(*channel, Hash::new([255; 32]));
        Ok(self.tree_chunks.range(range).map(|(_, chunk)| *chunk).collect())
    }

    fn has_tree_chunk(&mut self, channel: &ChannelId, chunk: &Hash) -> Result<bool, StoreError> {
        Ok(self.tree_chunks.contains(&(*channel, *chunk)))
    }

    fn followed_tip(&mut self, channel: &ChannelId) -> Result<Option<(Seq, Hash)>, StoreError> {
        let all = (*channel, Seq(0))..=(*channel, Seq(u64::MAX));
        let checkpoint = self.checkpoints.range(all.clone()).next_back().map(|(_, row)| (row.seq, row.link));
        let followed = self.followed.range(all).next_back().map(|(_, row)| (row.seq, row.link));
        Ok([followed, checkpoint].into_iter().flatten().max_by_key(|(seq, _)| *seq))
    }

    fn checkpoint(&mut self, channel: &ChannelId) -> Result<Option<CheckpointRow>, StoreError> {
        let mut all = self.checkpoints.range((*channel, Seq(0))..=(*channel, Seq(u64::MAX)));
        Ok(all.next_back().map(|(_, row)| row.clone()))
    }

    fn checkpoints(&mut self, channel: &ChannelId) -> Result<Vec<(Epoch, Seq)>, StoreError> {
        let all = self.checkpoints.range((*channel, Seq(0))..=(*channel, Seq(u64::MAX)));
        Ok(all.map(|(_, row)| (row.epoch, row.seq)).collect())
    }

    fn followed(&mut self, channel: &ChannelId, after: Seq) -> Result<Vec<FollowedRow>, StoreError> {
        let after = Bound::Excluded((*channel, after));
        let all = self.followed.range((after, Bound::Included((*channel, Seq(u64::MAX)))));
        Ok(all.map(|(_, row)| row.clone()).collect())
    }

    fn entries(
        &mut self,
        channel: &ChannelId,
        after: Seq,
        until: Option<Seq>,
        limit: RangeLimit,
    ) -> Result<Vec<EntryRow>, StoreError> {
        let mut found = Vec::new();
        let mut bytes = 0_usize;
        for row in self.entries.range((*channel, after.next())..).map(|(_, row)| row) {
            let beyond = row.channel != *channel || until.is_some_and(|until| row.seq > until);
            bytes = bytes.saturating_add(row.bytes.len());
            let over = found.len() as u64 >= u64::from(limit.entries) || (bytes > limit.bytes && !found.is_empty());
            if beyond || over {
                break;
            }
            found.push(row.clone());
        }
        Ok(found)
    }

    fn oldest(&mut self, channel: &ChannelId) -> Result<Option<(Seq, Timestamp)>, StoreError> {
        let mut rows = self.entries.range((*channel, Seq(0))..=(*channel, Seq(u64::MAX)));
        Ok(rows.next().map(|(_, row)| (row.seq, row.time)))
    }

    fn channels_after(&mut self, after: Option<&ChannelId>, limit: u32) -> Result<Vec<ChannelId>, StoreError> {
        let later = self.channels.keys().filter(|id| after.is_none_or(|after| *id > after));
        Ok(later.take(limit as usize).copied().collect())
    }

    fn first_removal(&mut self, channel: &ChannelId, from: Epoch) -> Result<Option<Seq>, StoreError> {
        let mut rows = self.entries.range((*channel, Seq(0))..=(*channel, Seq(u64::MAX)));
        Ok(rows.find(|(_, row)| row.removes && row.epoch >= from).map(|(_, row)| row.seq))
    }

    fn idempotency(&mut self, scope: &KeyedHash, key: &IdempotencyKey) -> Result<Option<IdempotencyRow>, StoreError> {
        Ok(self.idempotency.get(&(*scope, *key)).cloned())
    }

    fn blob(&mut self, hash: &Hash) -> Result<Option<BlobRow>, StoreError> {
        Ok(self.blobs.get(hash).cloned())
    }

    fn staged(&mut self, stager: &KeyedHash, hash: &Hash) -> Result<Option<StagedRow>, StoreError> {
        Ok(self.staged.get(&(*stager, *hash)).cloned())
    }

    fn staged_total(&mut self, scope: &KeyedHash) -> Result<StagedTotal, StoreError> {
        let staged = self.staged.values().filter(|row| row.scope == *scope).map(|row| row.size);
        let whole = self.blobs.values().filter(|row| row.scope == Some(*scope)).map(|row| row.size);
        Ok(staged.chain(whole).fold(StagedTotal::default(), |total, size| StagedTotal {
            blobs: total.blobs + 1,
            bytes: total.bytes.saturating_add(size),
        }))
    }

    fn chunk(&mut self, chunks: &KeyedHash, offset: u64) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        let found = self.chunks.range((*chunks, 0)..=(*chunks, offset)).next_back();
        Ok(found
            .filter(|((_, start), data)| start.saturating_add(data.len() as u64) > offset)
            .map(|((_, start), data)| (*start, data.clone())))
    }

    fn key_package(&mut self, reference: &Hash) -> Result<Option<KeyPackageRow>, StoreError> {
        Ok(self.key_packages.get(reference).map(|(_, row)| row.clone()))
    }

    fn next_key_package(
        &mut self,
        client: &ClientUri,
        cipher_suite: u16,
        required: &Capabilities,
        now: Timestamp,
    ) -> Result<Option<KeyPackageRow>, StoreError> {
        Ok(self
            .key_packages_of(client)
            .filter(|(_, row)| row.cipher_suite == cipher_suite && !row.last_resort && row.expires > now)
            .filter(|(_, row)| row.capabilities.meets(required))
            .min_by_key(|(order, _)| *order)
            .map(|(_, row)| row.clone()))
    }

    fn key_package_capabilities(
        &mut self,
        client: &ClientUri,
        cipher_suite: u16,
        now: Timestamp,
    ) -> Result<Vec<Capabilities>, StoreError> {
        let of_suite =
            self.key_packages_of(client).filter(|(_, row)| row.cipher_suite == cipher_suite && row.expires > now);
        let different: BTreeSet<_> = of_suite.map(|(_, row)| row.capabilities.clone()).collect();
        Ok(different.into_iter().collect())
    }

    fn last_resort(&mut self, client: &ClientUri, cipher_suite: u16) -> Result<Option<KeyPackageRow>, StoreError> {
        Ok(self
            .key_packages_of(client)
            .find(|(_, row)| row.cipher_suite == cipher_suite && row.last_resort)
            .map(|(_, row)| row.clone()))
    }

    fn key_package_counts(&mut self, client: &ClientUri, now: Timestamp) -> Result<Vec<KeyPackageCount>, StoreError> {
        let mut counts = BTreeMap::new();
        for (_, row) in self.key_packages_of(client).filter(|(_, row)| row.expires > now) {
            let count = counts.entry(row.cipher_suite).or_insert(KeyPackageCount {
                cipher_suite: row.cipher_suite,
                available: 0,
                last_resort: false,
                last_resort_used: false,
            });
            if row.last_resort {
                count.last_resort = true;
                count.last_resort_used = row.used;
            } else {
                count.available += 1;
            }
        }
        Ok(counts.into_values().collect())
    }

    fn directory_clients(&mut self, user: &UserUri, now: Timestamp) -> Result<Vec<ClientUri>, StoreError> {
        let known = self.directory.iter().filter(|(client, expires)| client.user() == user && **expires > now);
        Ok(known.map(|(client, _)| client.clone()).collect())
    }

    fn claimed(&mut self, reference: &KeyedHash) -> Result<bool, StoreError> {
        Ok(self.claimed.contains_key(reference))
    }

    fn address_key(&mut self, id: &[u8; 8]) -> Result<Option<AddressKeyRow>, StoreError> {
        Ok(self.address_keys.get(id).cloned())
    }

    fn newest_address_key(&mut self) -> Result<Option<AddressKeyRow>, StoreError> {
        Ok(self.address_keys.values().max_by_key(|row| row.created).cloned())
    }

    fn drop_uses(&mut self, nonce: &KeyedHash) -> Result<u32, StoreError> {
        Ok(self.drops.get(nonce).map_or(0, |(uses, _)| *uses))
    }

    fn outbox(&mut self, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        Ok(self.outbox.values().take(limit as usize).cloned().collect())
    }

    fn server_secret(&mut self) -> Result<Option<[u8; 32]>, StoreError> {
        Ok(self.secret.as_ref().map(|secret| secret.0))
    }
}

/// Hands the methods of [`Read`] on to the transaction's state.
macro_rules! read_through {
    ($($name:ident($($arg:ident: $type:ty),*) -> $reply:ty;)*) => {
        impl Read for Transaction {
            $(fn $name(&mut self, $($arg: $type),*) -> Result<$reply, StoreError> {
                self.state.$name($($arg),*)
            })*
        }
    };
}

read_through! {
    channel(id: &ChannelId) -> Option<ChannelRow>;
    epoch(channel: &ChannelId, epoch: Epoch) -> Option<EpochRow>;
    group_info(channel: &ChannelId) -> Option<GroupInfoRow>;
    tree_chunks(channel: &ChannelId) -> Vec<Hash>;
    has_tree_chunk(channel: &ChannelId, chunk: &Hash) -> bool;
    followed_tip(channel: &ChannelId) -> Option<(Seq, Hash)>;
    checkpoint(channel: &ChannelId) -> Option<CheckpointRow>;
    checkpoints(channel: &ChannelId) -> Vec<(Epoch, Seq)>;
    followed(channel: &ChannelId, after: Seq) -> Vec<FollowedRow>;
    entries(channel: &ChannelId, after: Seq, until: Option<Seq>, limit: RangeLimit) -> Vec<EntryRow>;
    oldest(channel: &ChannelId) -> Option<(Seq, Timestamp)>;
    channels_after(after: Option<&ChannelId>, limit: u32) -> Vec<ChannelId>;
    first_removal(channel: &ChannelId, from: Epoch) -> Option<Seq>;
    idempotency(scope: &KeyedHash, key: &IdempotencyKey) -> Option<IdempotencyRow>;
    blob(hash: &Hash) -> Option<BlobRow>;
    staged(stager: &KeyedHash, hash: &Hash) -> Option<StagedRow>;
    staged_total(scope: &KeyedHash) -> StagedTotal;
    chunk(chunks: &KeyedHash, offset: u64) -> Option<(u64, Vec<u8>)>;
    key_package(reference: &Hash) -> Option<KeyPackageRow>;
    next_key_package(client: &ClientUri, cipher_suite: u16, required: &Capabilities, now: Timestamp) -> Option<KeyPackageRow>;
    key_package_capabilities(client: &ClientUri, cipher_suite: u16, now: Timestamp) -> Vec<Capabilities>;
    last_resort(client: &ClientUri, cipher_suite: u16) -> Option<KeyPackageRow>;
    key_package_counts(client: &ClientUri, now: Timestamp) -> Vec<KeyPackageCount>;
    directory_clients(user: &UserUri, now: Timestamp) -> Vec<ClientUri>;
    claimed(reference: &KeyedHash) -> bool;
    address_key(id: &[u8; 8]) -> Option<AddressKeyRow>;
    newest_address_key() -> Option<AddressKeyRow>;
    drop_uses(nonce: &KeyedHash) -> u32;
    outbox(limit: u32) -> Vec<OutboxRow>;
    server_secret() -> Option<[u8; 32]>;
}

impl Tx for Transaction {
    fn put_channel(&mut self, row: &ChannelRow) -> Result<(), StoreError> {
        self.writable()?.channels.insert(row.id, row.clone());
        Ok(())
    }

    fn put_epoch(&mut self, row: &EpochRow) -> Result<(), StoreError> {
        self.writable()?.epochs.insert((row.channel, row.epoch), row.clone());
        Ok(())
    }

    fn delete_epochs(&mut self, channel: &ChannelId, after: Epoch) -> Result<(), StoreError> {
        self.writable()?.epochs.retain(|(of, epoch), _| of != channel || *epoch <= after);
        Ok(())
    }

    fn put_tree_chunk(&mut self, channel: &ChannelId, chunk: &Hash) -> Result<(), StoreError> {
        self.writable()?.tree_chunks.insert((*channel, *chunk));
        Ok(())
    }

    fn delete_tree_chunk(&mut self, channel: &ChannelId, chunk: &Hash) -> Result<(), StoreError> {
        self.writable()?.tree_chunks.remove(&(*channel, *chunk));
        Ok(())
    }

    fn close_epochs(&mut self, channel: &ChannelId, up_to: Epoch, removal: Seq) -> Result<(), StoreError> {
        for row in self.writable()?.epochs.values_mut() {
            if row.channel == *channel && row.epoch <= up_to {
                row.closed.get_or_insert(removal);
            }
        }
        Ok(())
    }

    fn forget_epochs(&mut self, channel: &ChannelId, before: Epoch) -> Result<(), StoreError> {
        self.writable()?.epochs.retain(|(of, epoch), _| of != channel || *epoch >= before);
        Ok(())
    }

    fn delete_group_info(&mut self, channel: &ChannelId) -> Result<(), StoreError> {
        self.writable()?.group_infos.remove(channel);
        Ok(())
    }

    fn clear_removes(&mut self, channel: &ChannelId, seq: Seq) -> Result<(), StoreError> {
        if let Some(row) = self.writable()?.entries.get_mut(&(*channel, seq)) {
            row.removes = false;
        }
        Ok(())
    }

    fn put_group_info(&mut self, row: &GroupInfoRow) -> Result<(), StoreError> {
        self.writable()?.group_infos.insert(row.channel, row.clone());
        Ok(())
    }

    fn put_checkpoint(&mut self, row: &CheckpointRow) -> Result<(), StoreError> {
        self.writable()?.checkpoints.insert((row.channel, row.seq), row.clone());
        Ok(())
    }

    fn put_followed(&mut self, row: &FollowedRow) -> Result<(), StoreError> {
        self.writable()?.followed.insert((row.channel, row.seq), row.clone());
        Ok(())
    }

    fn delete_followed_from(&mut self, channel: &ChannelId, from: Seq) -> Result<(), StoreError> {
        let state = self.writable()?;
        state.checkpoints.retain(|(of, seq), _| of != channel || *seq < from);
        state.followed.retain(|(of, seq), _| of != channel || *seq < from);
        Ok(())
    }

    fn delete_followed_before(&mut self, channel: &ChannelId, checkpoint: Seq) -> Result<(), StoreError> {
        let state = self.writable()?;
        state.checkpoints.retain(|(of, seq), _| of != channel || *seq >= checkpoint);
        state.followed.retain(|(of, seq), _| of != channel || *seq > checkpoint);
        Ok(())
    }

    fn append_entry(&mut self, row: &EntryRow) -> Result<(), StoreError> {
        match self.writable()?.entries.insert((row.channel, row.seq), row.clone()) {
            None => Ok(()),
            Some(_) => Err(StoreError::Corrupt(format!("two entries at {}", row.seq))),
        }
    }

    fn delete_entries(&mut self, channel: &ChannelId, up_to: Seq) -> Result<u64, StoreError> {
        let mut bytes = 0;
        self.writable()?.entries.retain(|(of, seq), row| {
            let stays = of != channel || *seq > up_to;
            bytes += if stays { 0 } else { row.bytes.len() as u64 };
            stays
        });
        Ok(bytes)
    }

    fn put_idempotency(&mut self, row: &IdempotencyRow) -> Result<(), StoreError> {
        self.writable()?.idempotency.insert((row.scope, row.key), row.clone());
        Ok(())
    }

    fn put_blob(&mut self, row: &BlobRow) -> Result<(), StoreError> {
        self.writable()?.blobs.insert(row.hash, row.clone());
        Ok(())
    }

    fn put_staged(&mut self, row: &StagedRow) -> Result<(), StoreError> {
        self.writable()?.staged.insert((row.stager, row.hash), row.clone());
        Ok(())
    }

    fn delete_staged(&mut self, stager: &KeyedHash, hash: &Hash) -> Result<(), StoreError> {
        self.writable()?.staged.remove(&(*stager, *hash));
        Ok(())
    }

    fn append_chunk(&mut self, chunks: &KeyedHash, offset: u64, data: &[u8]) -> Result<(), StoreError> {
        self.writable()?.chunks.insert((*chunks, offset), data.to_vec());
        Ok(())
    }

    fn discard_chunks(&mut self, chunks: &KeyedHash) -> Result<(), StoreError> {
        self.writable()?.discarded.insert(*chunks);
        Ok(())
    }

    fn put_key_package(&mut self, row: &KeyPackageRow) -> Result<(), StoreError> {
        let state = self.writable()?;
        let order = match state.key_packages.get(&row.reference) {
            Some((order, _)) => *order,
            None => state.count(),
        };
        state.key_packages.insert(row.reference, (order, row.clone()));
        Ok(())
    }

    fn delete_key_package(&mut self, reference: &Hash) -> Result<(), StoreError> {
        self.writable()?.key_packages.remove(reference);
        Ok(())
    }

    fn delete_key_packages(&mut self, client: &ClientUri) -> Result<u64, StoreError> {
        let state = self.writable()?;
        let before = state.key_packages.len();
        state.key_packages.retain(|_, (_, row)| row.client != *client);
        state.directory.remove(client);
        Ok((before - state.key_packages.len()) as u64)
    }

    fn put_directory_client(&mut self, client: &ClientUri, expires: Timestamp) -> Result<(), StoreError> {
        self.writable()?.directory.insert(client.clone(), expires);
        Ok(())
    }

    fn put_claimed(&mut self, reference: &KeyedHash, expires: Timestamp) -> Result<(), StoreError> {
        self.writable()?.claimed.insert(*reference, expires);
        Ok(())
    }

    fn put_address_key(&mut self, row: &AddressKeyRow) -> Result<(), StoreError> {
        self.writable()?.address_keys.insert(row.id, row.clone());
        Ok(())
    }

    fn put_drop_uses(&mut self, nonce: &KeyedHash, uses: u32, expires: Timestamp) -> Result<(), StoreError> {
        self.writable()?.drops.insert(*nonce, (uses, expires));
        Ok(())
    }

    fn push_outbox(&mut self, kind: OutboxKind, payload: &[u8]) -> Result<(), StoreError> {
        let state = self.writable()?;
        let id = state.count();
        state.outbox.insert(id, OutboxRow { id, kind, payload: payload.to_vec() });
        Ok(())
    }

    fn delete_outbox(&mut self, id: u64) -> Result<(), StoreError> {
        self.writable()?.outbox.remove(&id);
        Ok(())
    }

    fn note_nonce(&mut self, nonce: &KeyedHash, expires: Timestamp) -> Result<bool, StoreError> {
        let state = self.writable()?;
        if state.nonces.contains_key(nonce) {
            return Ok(false);
        }
        state.nonces.insert(*nonce, expires);
        Ok(true)
    }

    fn put_server_secret(&mut self, secret: &[u8; 32]) -> Result<(), StoreError> {
        self.writable()?.secret = Some(Secret(*secret));
        Ok(())
    }

    fn prune(&mut self, now: Timestamp, limit: u32) -> Result<bool, StoreError> {
        let state = self.writable()?;
        let blobs = first_expired(&state.blobs, |row| (row.pins == 0).then_some(row.expires), now, limit);
        let staged = first_expired(&state.staged, |row| Some(row.expires), now, limit);
        let full = |count: usize| count as u64 >= u64::from(limit);
        let mut more = full(blobs.len()) || full(staged.len());
        for hash in blobs {
            state.discarded.extend(state.blobs.remove(&hash).map(|row| row.chunks));
        }
        for name in staged {
            state.discarded.extend(state.staged.remove(&name).map(|row| row.chunks));
        }
        more |= drop_expired(&mut state.idempotency, |row| row.expires, now, limit);
        more |= drop_expired(&mut state.key_packages, |(_, row)| row.expires, now, limit);
        more |= drop_expired(&mut state.directory, |expires| *expires, now, limit);
        more |= drop_expired(&mut state.claimed, |expires| *expires, now, limit);
        more |= drop_expired(&mut state.address_keys, |row| row.expires, now, limit);
        more |= drop_expired(&mut state.drops, |(_, expires)| *expires, now, limit);
        more |= drop_expired(&mut state.nonces, |expires| *expires, now, limit);
        if let Some(name) = state.discarded.first().copied() {
            let of_name = state.chunks.range((name, 0)..=(name, u64::MAX)).take(PRUNED_CHUNKS as usize);
            let gone: Vec<_> = of_name.map(|(place, _)| *place).collect();
            for place in &gone {
                state.chunks.remove(place);
            }
            if gone.len() < PRUNED_CHUNKS as usize {
                state.discarded.remove(&name);
            }
            more |= !state.discarded.is_empty();
        }
        Ok(more)
    }
}

/// Names of rows that have expired, at most `limit`, those that expired first before others.
fn first_expired<K: Clone + Ord, V>(
    rows: &BTreeMap<K, V>,
    expires: impl Fn(&V) -> Option<Timestamp>,
    now: Timestamp,
    limit: u32,
) -> Vec<K> {
    let mut expired: Vec<_> =
        rows.iter().filter_map(|(name, row)| Some((expires(row).filter(|expires| *expires <= now)?, name))).collect();
    expired.sort_unstable();
    expired.into_iter().take(limit as usize).map(|(_, name)| name.clone()).collect()
}

/// Deletes them. Tells whether there may be more.
fn drop_expired<K: Clone + Ord, V>(
    rows: &mut BTreeMap<K, V>,
    expires: impl Fn(&V) -> Timestamp,
    now: Timestamp,
    limit: u32,
) -> bool {
    let expired = first_expired(rows, |row| Some(expires(row)), now, limit);
    for name in &expired {
        rows.remove(name);
    }
    expired.len() as u64 >= u64::from(limit)
}
