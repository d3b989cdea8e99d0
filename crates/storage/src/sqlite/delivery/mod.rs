//! The rows of the Delivery Service (`migrations/ds_*.sql`): one file for each group of tables, and here the traits
//! that hand on to them.

mod blobs;
mod channels;
mod directory;
mod entries;
mod followed;
mod service;

use conclave_delivery::store::{
    AddressKeyRow, BlobRow, ChannelRow, CheckpointRow, EntryRow, EpochRow, FollowedRow, GroupInfoRow, IdempotencyRow,
    KeyPackageCount, KeyPackageRow, KeyedHash, OutboxKind, OutboxRow, RangeLimit, Read, StagedRow, StagedTotal,
    StoreError, Tx,
};
use conclave_mls::capabilities::Capabilities;
use conclave_names::{ChannelId, ClientUri, Epoch, Hash, IdempotencyKey, Seq, Timestamp, UserUri};

use super::transaction::Transaction;

/// Writes each method of a trait as a call of the function of that name, in the module that has its table.
macro_rules! hand_on {
    ($trait:ident { $($module:ident::$name:ident($($arg:ident: $type:ty),*) -> $reply:ty;)* }) => {
        impl $trait for Transaction<'_> {
            $(fn $name(&mut self, $($arg: $type),*) -> Result<$reply, StoreError> {
                Ok($module::$name(self, $($arg),*)?)
            })*
        }
    };
}

hand_on! {
    Read {
        channels::channel(id: &ChannelId) -> Option<ChannelRow>;
        channels::epoch(channel: &ChannelId, epoch: Epoch) -> Option<EpochRow>;
        channels::group_info(channel: &ChannelId) -> Option<GroupInfoRow>;
        channels::tree_chunks(channel: &ChannelId) -> Vec<Hash>;
        channels::has_tree_chunk(channel: &ChannelId, chunk: &Hash) -> bool;
        followed::followed_tip(channel: &ChannelId) -> Option<(Seq, Hash)>;
        followed::checkpoint(channel: &ChannelId) -> Option<CheckpointRow>;
        followed::checkpoints(channel: &ChannelId) -> Vec<(Epoch, Seq)>;
        followed::followed(channel: &ChannelId, after: Seq) -> Vec<FollowedRow>;
        entries::entries(channel: &ChannelId, after: Seq, until: Option<Seq>, limit: RangeLimit) -> Vec<EntryRow>;
        entries::oldest(channel: &ChannelId) -> Option<(Seq, Timestamp)>;
        channels::channels_after(after: Option<&ChannelId>, limit: u32) -> Vec<ChannelId>;
        entries::first_removal(channel: &ChannelId, from: Epoch) -> Option<Seq>;
        entries::idempotency(scope: &KeyedHash, key: &IdempotencyKey) -> Option<IdempotencyRow>;
        blobs::blob(hash: &Hash) -> Option<BlobRow>;
        blobs::staged(stager: &KeyedHash, hash: &Hash) -> Option<StagedRow>;
        blobs::staged_total(scope: &KeyedHash) -> StagedTotal;
        blobs::chunk(chunks: &KeyedHash, offset: u64) -> Option<(u64, Vec<u8>)>;
        directory::key_package(reference: &Hash) -> Option<KeyPackageRow>;
        directory::next_key_package(client: &ClientUri, cipher_suite: u16, required: &Capabilities, now: Timestamp) -> Option<KeyPackageRow>;
        directory::key_package_capabilities(client: &ClientUri, cipher_suite: u16, now: Timestamp) -> Vec<Capabilities>;
        directory::last_resort(client: &ClientUri, cipher_suite: u16) -> Option<KeyPackageRow>;
        directory::key_package_counts(client: &ClientUri, now: Timestamp) -> Vec<KeyPackageCount>;
        directory::directory_clients(user: &UserUri, now: Timestamp) -> Vec<ClientUri>;
        directory::claimed(reference: &KeyedHash) -> bool;
        service::address_key(id: &[u8; 8]) -> Option<AddressKeyRow>;
        service::newest_address_key() -> Option<AddressKeyRow>;
        service::drop_uses(nonce: &KeyedHash) -> u32;
        service::outbox(limit: u32) -> Vec<OutboxRow>;
        service::server_secret() -> Option<[u8; 32]>;
    }
}

hand_on! {
    Tx {
        service::decided() -> ();
        channels::put_channel(row: &ChannelRow) -> ();
        channels::put_epoch(row: &EpochRow) -> ();
        channels::delete_epochs(channel: &ChannelId, after: Epoch) -> ();
        channels::close_epochs(channel: &ChannelId, up_to: Epoch, removal: Seq) -> ();
        channels::forget_epochs(channel: &ChannelId, before: Epoch) -> ();
        channels::put_group_info(row: &GroupInfoRow) -> ();
        channels::put_tree_chunk(channel: &ChannelId, chunk: &Hash) -> ();
        channels::delete_tree_chunk(channel: &ChannelId, chunk: &Hash) -> ();
        channels::delete_group_info(channel: &ChannelId) -> ();
        followed::put_checkpoint(row: &CheckpointRow) -> ();
        followed::put_followed(row: &FollowedRow) -> ();
        followed::delete_followed_from(channel: &ChannelId, from: Seq) -> ();
        followed::delete_followed_before(channel: &ChannelId, checkpoint: Seq) -> ();
        entries::clear_removes(channel: &ChannelId, seq: Seq) -> ();
        entries::append_entry(row: &EntryRow) -> ();
        entries::delete_entries(channel: &ChannelId, up_to: Seq) -> u64;
        entries::put_idempotency(row: &IdempotencyRow) -> ();
        blobs::put_blob(row: &BlobRow) -> ();
        blobs::put_staged(row: &StagedRow) -> ();
        blobs::delete_staged(stager: &KeyedHash, hash: &Hash) -> ();
        blobs::append_chunk(chunks: &KeyedHash, offset: u64, data: &[u8]) -> ();
        blobs::discard_chunks(chunks: &KeyedHash) -> ();
        directory::put_key_package(row: &KeyPackageRow) -> ();
        directory::delete_key_package(reference: &Hash) -> ();
        directory::delete_key_packages(client: &ClientUri) -> u64;
        directory::put_directory_client(client: &ClientUri, expires: Timestamp) -> ();
        directory::put_claimed(reference: &KeyedHash, expires: Timestamp) -> ();
        service::put_address_key(row: &AddressKeyRow) -> ();
        service::put_drop_uses(nonce: &KeyedHash, uses: u32, expires: Timestamp) -> ();
        service::push_outbox(kind: OutboxKind, payload: &[u8]) -> ();
        service::delete_outbox(id: u64) -> ();
        service::note_nonce(nonce: &KeyedHash, expires: Timestamp) -> bool;
        service::put_server_secret(secret: &[u8; 32]) -> ();
        service::prune(now: Timestamp, limit: u32) -> bool;
    }
}
