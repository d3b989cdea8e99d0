//! What the Delivery Service keeps, as rows that a store reads and writes.
//!
//! One call of the service is one transaction: it gets a [`Tx`] (or, where it only reads, a [`Read`]), and if it answers
//! with an error, everything that it wrote is undone. Transactions that write run one after the other, each sees what
//! those before it committed. A [`Read`] sees one committed state throughout.
//!
//! Rows hold what delivery needs and no more (RFC 9750, section 5): no row names both a client and a group. What could
//! link them (who submitted, which KeyPackage was claimed, which drop token was used) is kept as a hash under a secret
//! of the server ([`Tx::put_server_secret`]), and only until it expires.

use std::fmt;

use conclave_channel::{EntryKind, law::Ledger};
use conclave_mls::capabilities::Capabilities;
use conclave_names::{ChannelId, ClientUri, Epoch, Hash, IdempotencyKey, Seq, Timestamp, UserUri, limits};
use conclave_protocol::{Code, Refusal};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Why a store did not do what it was asked. The transaction is undone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No room is left.
    #[error("the store is full: free space on its disk or raise its limit")]
    Full,
    /// The store cannot be reached or is stopping.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// What was read is not what was once written.
    #[error("the store holds data that does not decode: {0}")]
    Corrupt(String),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        // Details are for the operator's log, not for callers.
        match error {
            StoreError::Full => Self::new(
                Code::StorageFull,
                "the server cannot store more; nothing was changed: try again when its operator has made room",
            ),
            StoreError::Unavailable(_) => Self::new(
                Code::Unavailable,
                "the server's store is not available; nothing was changed: try again in a moment",
            ),
            StoreError::Corrupt(_) => Self::new(
                Code::Internal,
                "the server failed; nothing was changed: its operator finds the cause in its log",
            ),
        }
    }
}

/// A hash, under the server's secret, of something that must be recognised but not be readable.
pub type KeyedHash = [u8; 32];

/// A log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelRow {
    /// Its name; one row each.
    pub id: ChannelId,
    /// Whose it is.
    pub kind: ChannelKind,
    /// Sequence number of the newest entry, 0 if there is none yet.
    pub head: Seq,
    /// The running hash at the head (`conclave_channel::chain`).
    pub head_hash: Hash,
    /// Time of the newest entry, or of the channel's creation. Times never run backwards.
    pub head_time: Timestamp,
    /// What the clock showed then. The time is ahead of it if the clock was once.
    pub head_clock: Timestamp,
    /// Bytes of the entries that are kept, with the blobs that they name.
    pub bytes: u64,
}

/// How far a channel's time may be ahead of the clock before it moves on with it, in milliseconds: an hour. If it is less, it waits for the clock.
const AHEAD_MS: u64 = 3600 * 1000;

impl ChannelRow {
    /// The time of the entry that comes next, by what the clock shows: that, but never less than the newest entry's. Where a clock that was
    /// wrong has put that far ahead, the channel's time moves on as the clock does, so that what time decides is decided.
    #[must_use]
    pub fn time(&self, now: Timestamp) -> Timestamp {
        let now = Timestamp(now.0.min(limits::TIME_MAX));
        if self.head_time.0.saturating_sub(now.0) <= AHEAD_MS {
            return self.head_time.max(now);
        }
        let passed = now.0.saturating_sub(self.head_clock.0);
        Timestamp(self.head_time.0.saturating_add(passed).min(limits::TIME_MAX))
    }
}

/// Whose a channel is.
#[derive(Clone, PartialEq, Eq)]
pub enum ChannelKind {
    /// A group's.
    Group {
        /// Which commits stand, and so the epoch that the group is in. It has an [`EpochRow`].
        ledger: Ledger,
    },
    /// One client's.
    Inbox {
        /// The Ed25519 public key that owns it.
        owner: [u8; 32],
        /// The key of the owner's drop tokens.
        drop_key: [u8; 32],
    },
}

impl fmt::Debug for ChannelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group { ledger } => f.debug_struct("Group").field("epoch", &ledger.epoch()).finish_non_exhaustive(),
            Self::Inbox { .. } => f.debug_struct("Inbox").finish_non_exhaustive(),
        }
    }
}

/// An epoch of a group's channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochRow {
    /// The channel; one row for each of its epochs.
    pub channel: ChannelId,
    /// The epoch.
    pub epoch: Epoch,
    /// Root of the tree over its members' channel keys.
    pub key_root: Hash,
    /// Keys of this epoch read what comes after here.
    pub base: Seq,
    /// Sequence number of the commit that started it (and so ended the one before), 0 for epoch 0.
    pub started: Seq,
    /// The removal that ended what its keys may read, if that entry is no longer kept.
    pub closed: Option<Seq>,
}

/// What members need of the current epoch of a group; one row a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupInfoRow {
    /// The channel.
    pub channel: ChannelId,
    /// The epoch that it is of.
    pub epoch: Epoch,
    /// The sealed GroupInfo.
    pub group_info: Vec<u8>,
    /// Hash of the blob with the chunk at the top of the sealed ratchet tree, if one was offered.
    pub tree: Option<Hash>,
    /// Public half of the epoch's join key.
    pub join_key: Vec<u8>,
}

/// The whole public state of a group whose handshakes the server follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointRow {
    /// The group's channel.
    pub channel: ChannelId,
    /// The epoch that it is of.
    pub epoch: Epoch,
    /// Place of the handshake that led to it, 0 for the beginning; with the channel, one row each.
    pub seq: Seq,
    /// Hash over all handshakes that led to it.
    pub link: Hash,
    /// The state, as mls-rs encodes it.
    pub snapshot: Vec<u8>,
}

/// A handshake of a group that the server follows. It is kept beside the channel's entry, which goes when the channel's
/// retention says so, until a checkpoint stands for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowedRow {
    /// The group's channel.
    pub channel: ChannelId,
    /// Its place there; one row each.
    pub seq: Seq,
    /// Commit or proposal.
    pub kind: EntryKind,
    /// The DS's time of it.
    pub time: Timestamp,
    /// Hash over all handshakes up to this one.
    pub link: Hash,
    /// The MLSMessage.
    pub message: Vec<u8>,
}

/// An entry of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryRow {
    /// The channel.
    pub channel: ChannelId,
    /// Its place there; one row each.
    pub seq: Seq,
    /// What it is for.
    pub kind: EntryKind,
    /// The epoch it belongs to (0 in inboxes).
    pub epoch: Epoch,
    /// Whether it is a commit that removes members, and was not annulled.
    pub removes: bool,
    /// The DS's time of it.
    pub time: Timestamp,
    /// The entry exactly as it was submitted.
    pub bytes: Vec<u8>,
}

/// How much one query may return. The first row comes even if it alone exceeds `bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeLimit {
    /// At most so many entries.
    pub entries: u32,
    /// At most so many bytes of entries.
    pub bytes: usize,
}

/// The answer that a submission got, for when it comes again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyRow {
    /// Who submitted and where; with `key`, one row each.
    pub scope: KeyedHash,
    /// The submitter's key.
    pub key: IdempotencyKey,
    /// Hash of the request, so that the key cannot be used for another one.
    pub request: KeyedHash,
    /// The encoded answer.
    pub reply: Vec<u8>,
    /// From then on the submission is forgotten.
    pub expires: Timestamp,
}

/// A blob that is whole, and whose hash was verified. Its bytes are kept as chunks, in order and without gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobRow {
    /// SHA-256 of the whole; one row each.
    pub hash: Hash,
    /// Under which name its chunks are kept.
    pub chunks: KeyedHash,
    /// Length of the whole, in bytes.
    pub size: u64,
    /// How many entries and epochs name it. While there are any, it does not expire.
    pub pins: u64,
    /// From then on it may be deleted, if nothing names it.
    pub expires: Timestamp,
    /// Whose quota it counts for: the channel that staged it, until something names it.
    pub scope: Option<KeyedHash>,
}

/// A blob that somebody is staging. Two who stage the same are nothing to each other until one of them has it whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedRow {
    /// Who stages it.
    pub stager: KeyedHash,
    /// SHA-256 that the whole is announced to have; with `stager`, one row each.
    pub hash: Hash,
    /// Under which name its chunks are kept.
    pub chunks: KeyedHash,
    /// Whose quota it counts for: the channel's.
    pub scope: KeyedHash,
    /// Length that the whole is announced to have, in bytes.
    pub size: u64,
    /// How many bytes are there, from the start.
    pub received: u64,
    /// State of SHA-256 over these, so that they need not be read again.
    pub digest: Vec<u8>,
    /// From then on it may be deleted.
    pub expires: Timestamp,
}

/// What a channel has staged that nothing names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StagedTotal {
    /// How many blobs, whole or not.
    pub blobs: u64,
    /// Their bytes, as announced.
    pub bytes: u64,
}

/// A KeyPackage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPackageRow {
    /// Its KeyPackageRef (RFC 9420, section 5.2); one row each.
    pub reference: Hash,
    /// Whose it is.
    pub client: ClientUri,
    /// Its cipher suite.
    pub cipher_suite: u16,
    /// What its leaf is capable of.
    pub capabilities: Capabilities,
    /// The MLSMessage as it was uploaded.
    pub bytes: Vec<u8>,
    /// Whether it may be served many times. At most one of each client and cipher suite is so.
    pub last_resort: bool,
    /// Whether it was served (last resort only: others are deleted when served).
    pub used: bool,
    /// From then on it is not served.
    pub expires: Timestamp,
}

/// How many KeyPackages of one cipher suite a client has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyPackageCount {
    /// The cipher suite.
    pub cipher_suite: u16,
    /// Unexpired ones, the last resort apart.
    pub available: u64,
    /// Whether there is an unexpired last resort.
    pub last_resort: bool,
    /// Whether that was served.
    pub last_resort_used: bool,
}

/// An HPKE key pair to which delivery addresses are sealed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct AddressKeyRow {
    /// Its name; one row each.
    #[zeroize(skip)]
    pub id: [u8; 8],
    /// The secret key.
    pub secret: Vec<u8>,
    /// The public key.
    #[zeroize(skip)]
    pub public: Vec<u8>,
    /// When it was made. The newest is the one that is offered.
    #[zeroize(skip)]
    pub created: Timestamp,
    /// From then on another is to be offered.
    #[zeroize(skip)]
    pub rotates: Timestamp,
    /// From then on it opens nothing.
    #[zeroize(skip)]
    pub expires: Timestamp,
}

impl fmt::Debug for AddressKeyRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddressKeyRow")
            .field("id", &self.id)
            .field("created", &self.created)
            .field("rotates", &self.rotates)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// What is to be done after a transaction, and must not be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    /// Given by the store, ascending; one row each.
    pub id: u64,
    /// What is to be done.
    pub kind: OutboxKind,
    /// What it is to be done with; its form depends on the kind.
    pub payload: Vec<u8>,
}

/// What an [`OutboxRow`] asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum OutboxKind {
    /// Append a Welcome to a local inbox. Payload: the inbox's id (16 bytes), then the entry.
    Welcome = 1,
}

impl OutboxKind {
    /// The number in the store.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// From the number in the store.
    pub fn from_code(code: u8) -> Result<Self, StoreError> {
        match code {
            1 => Ok(Self::Welcome),
            _ => Err(StoreError::Corrupt(format!("outbox kind {code}"))),
        }
    }
}

/// A consistent view of what is stored.
pub trait Read {
    /// The channel of this name.
    fn channel(&mut self, id: &ChannelId) -> Result<Option<ChannelRow>, StoreError>;

    /// An epoch of a group's channel.
    fn epoch(&mut self, channel: &ChannelId, epoch: Epoch) -> Result<Option<EpochRow>, StoreError>;

    /// What members need of the current epoch.
    fn group_info(&mut self, channel: &ChannelId) -> Result<Option<GroupInfoRow>, StoreError>;

    /// Hashes of the chunks of the tree that a channel's current epoch offers, in their order.
    fn tree_chunks(&mut self, channel: &ChannelId) -> Result<Vec<Hash>, StoreError>;

    /// Whether that tree has a chunk.
    fn has_tree_chunk(&mut self, channel: &ChannelId, chunk: &Hash) -> Result<bool, StoreError>;

    /// Place and link of the newest handshake or checkpoint (the checkpoint's, of two at one place) of a group that the
    /// server follows. None: it does not.
    fn followed_tip(&mut self, channel: &ChannelId) -> Result<Option<(Seq, Hash)>, StoreError>;

    /// The newest checkpoint of a followed group.
    fn checkpoint(&mut self, channel: &ChannelId) -> Result<Option<CheckpointRow>, StoreError>;

    /// Epoch and place of each checkpoint of a followed group, ascending by place.
    fn checkpoints(&mut self, channel: &ChannelId) -> Result<Vec<(Epoch, Seq)>, StoreError>;

    /// Handshakes of a followed group with `after < seq`, ascending.
    fn followed(&mut self, channel: &ChannelId, after: Seq) -> Result<Vec<FollowedRow>, StoreError>;

    /// Entries with `after < seq`, and `seq <= until` if given, ascending, up to the limits.
    fn entries(
        &mut self,
        channel: &ChannelId,
        after: Seq,
        until: Option<Seq>,
        limit: RangeLimit,
    ) -> Result<Vec<EntryRow>, StoreError>;

    /// Place and time of a channel's oldest entry.
    fn oldest(&mut self, channel: &ChannelId) -> Result<Option<(Seq, Timestamp)>, StoreError>;

    /// Names of channels after this one (by bytes), ascending, at most `limit`.
    fn channels_after(&mut self, after: Option<&ChannelId>, limit: u32) -> Result<Vec<ChannelId>, StoreError>;

    /// Sequence number of the first entry with `removes` whose epoch is `from` or later.
    fn first_removal(&mut self, channel: &ChannelId, from: Epoch) -> Result<Option<Seq>, StoreError>;

    /// A remembered submission, be it expired or not.
    fn idempotency(&mut self, scope: &KeyedHash, key: &IdempotencyKey) -> Result<Option<IdempotencyRow>, StoreError>;

    /// The whole blob of this hash.
    fn blob(&mut self, hash: &Hash) -> Result<Option<BlobRow>, StoreError>;

    /// What somebody has staged of a blob.
    fn staged(&mut self, stager: &KeyedHash, hash: &Hash) -> Result<Option<StagedRow>, StoreError>;

    /// What counts for a quota: staged blobs, and whole ones that nothing names yet.
    fn staged_total(&mut self, scope: &KeyedHash) -> Result<StagedTotal, StoreError>;

    /// The chunk that holds the byte at `offset`, with the offset of its first byte.
    fn chunk(&mut self, chunks: &KeyedHash, offset: u64) -> Result<Option<(u64, Vec<u8>)>, StoreError>;

    /// The KeyPackage of this reference, be it expired or not.
    fn key_package(&mut self, reference: &Hash) -> Result<Option<KeyPackageRow>, StoreError>;

    /// The KeyPackage that was stored first of a client's one-time ones of a cipher suite that expire after `now` and
    /// have all that is `required`.
    fn next_key_package(
        &mut self,
        client: &ClientUri,
        cipher_suite: u16,
        required: &Capabilities,
        now: Timestamp,
    ) -> Result<Option<KeyPackageRow>, StoreError>;

    /// What a client's KeyPackages of a cipher suite that expire after `now` are capable of, the last resort included:
    /// each different answer once, in any order.
    fn key_package_capabilities(
        &mut self,
        client: &ClientUri,
        cipher_suite: u16,
        now: Timestamp,
    ) -> Result<Vec<Capabilities>, StoreError>;

    /// The last resort of a client and cipher suite, be it expired or not.
    fn last_resort(&mut self, client: &ClientUri, cipher_suite: u16) -> Result<Option<KeyPackageRow>, StoreError>;

    /// A client's KeyPackages that expire after `now`, counted by cipher suite (ascending; none that has neither).
    fn key_package_counts(&mut self, client: &ClientUri, now: Timestamp) -> Result<Vec<KeyPackageCount>, StoreError>;

    /// The clients of a user that the directory knows after `now`, in the order of their names (by bytes).
    fn directory_clients(&mut self, user: &UserUri, now: Timestamp) -> Result<Vec<ClientUri>, StoreError>;

    /// Whether a KeyPackage with this keyed reference was served and must not come back.
    fn claimed(&mut self, reference: &KeyedHash) -> Result<bool, StoreError>;

    /// The address key of this name, be it expired or not.
    fn address_key(&mut self, id: &[u8; 8]) -> Result<Option<AddressKeyRow>, StoreError>;

    /// The address key that was created last.
    fn newest_address_key(&mut self) -> Result<Option<AddressKeyRow>, StoreError>;

    /// How often a drop token was used.
    fn drop_uses(&mut self, nonce: &KeyedHash) -> Result<u32, StoreError>;

    /// The oldest rows of the outbox, at most `limit`.
    fn outbox(&mut self, limit: u32) -> Result<Vec<OutboxRow>, StoreError>;

    /// The server's secret, if it was made.
    fn server_secret(&mut self) -> Result<Option<[u8; 32]>, StoreError>;
}

/// One transaction. `put_…` inserts a row or replaces the one with the same name.
pub trait Tx: Read {
    /// What this transaction writes from here on will not be refused by its service: only the store can undo it. That
    /// spares a store the means to undo it by itself. One that refuses all the same undoes what was to become durable
    /// with it. It says so before it writes for the first time, or for nothing.
    fn decided(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Inserts or replaces a channel.
    fn put_channel(&mut self, row: &ChannelRow) -> Result<(), StoreError>;

    /// Inserts or replaces an epoch.
    fn put_epoch(&mut self, row: &EpochRow) -> Result<(), StoreError>;

    /// Deletes a channel's epochs after this one.
    fn delete_epochs(&mut self, channel: &ChannelId, after: Epoch) -> Result<(), StoreError>;

    /// Notes that a removal, which is about to be deleted, ended what the keys of a channel's epochs up to this one may
    /// read. Epochs that an earlier one closed stay as they are.
    fn close_epochs(&mut self, channel: &ChannelId, up_to: Epoch, removal: Seq) -> Result<(), StoreError>;

    /// Deletes a channel's epochs before this one.
    fn forget_epochs(&mut self, channel: &ChannelId, before: Epoch) -> Result<(), StoreError>;

    /// Inserts or replaces what members need of a channel's current epoch.
    fn put_group_info(&mut self, row: &GroupInfoRow) -> Result<(), StoreError>;

    /// Notes that the tree of a channel's current epoch has a chunk.
    fn put_tree_chunk(&mut self, channel: &ChannelId, chunk: &Hash) -> Result<(), StoreError>;

    /// Notes that it has it no longer.
    fn delete_tree_chunk(&mut self, channel: &ChannelId, chunk: &Hash) -> Result<(), StoreError>;

    /// Deletes what members need of a channel's current epoch.
    fn delete_group_info(&mut self, channel: &ChannelId) -> Result<(), StoreError>;

    /// Notes that an entry removes nobody: it was annulled.
    fn clear_removes(&mut self, channel: &ChannelId, seq: Seq) -> Result<(), StoreError>;

    /// Inserts or replaces a checkpoint.
    fn put_checkpoint(&mut self, row: &CheckpointRow) -> Result<(), StoreError>;

    /// Inserts or replaces a handshake of a followed group.
    fn put_followed(&mut self, row: &FollowedRow) -> Result<(), StoreError>;

    /// Deletes checkpoints and handshakes of a followed group with `seq >= from`: they were annulled.
    fn delete_followed_from(&mut self, channel: &ChannelId, from: Seq) -> Result<(), StoreError>;

    /// Deletes what the checkpoint at a place stands for: checkpoints with `seq < checkpoint`, handshakes with
    /// `seq <= checkpoint`.
    fn delete_followed_before(&mut self, channel: &ChannelId, checkpoint: Seq) -> Result<(), StoreError>;

    /// Inserts an entry. Its place is free.
    fn append_entry(&mut self, row: &EntryRow) -> Result<(), StoreError>;

    /// Deletes a channel's entries with `seq <= up_to`. Tells how many bytes they had.
    fn delete_entries(&mut self, channel: &ChannelId, up_to: Seq) -> Result<u64, StoreError>;

    /// Inserts or replaces a remembered submission.
    fn put_idempotency(&mut self, row: &IdempotencyRow) -> Result<(), StoreError>;

    /// Inserts or replaces a blob's row; its chunks stay.
    fn put_blob(&mut self, row: &BlobRow) -> Result<(), StoreError>;

    /// Inserts or replaces what somebody has staged; its chunks stay.
    fn put_staged(&mut self, row: &StagedRow) -> Result<(), StoreError>;

    /// Deletes the row of what somebody has staged; its chunks stay.
    fn delete_staged(&mut self, stager: &KeyedHash, hash: &Hash) -> Result<(), StoreError>;

    /// Inserts a chunk. It starts where the one before it ends.
    fn append_chunk(&mut self, chunks: &KeyedHash, offset: u64, data: &[u8]) -> Result<(), StoreError>;

    /// Has all chunks of this name deleted, by and by ([`Tx::prune`]). The name is not used again.
    fn discard_chunks(&mut self, chunks: &KeyedHash) -> Result<(), StoreError>;

    /// Inserts or replaces a KeyPackage. A replaced one keeps its place in the order of storing.
    fn put_key_package(&mut self, row: &KeyPackageRow) -> Result<(), StoreError>;

    /// Deletes a KeyPackage.
    fn delete_key_package(&mut self, reference: &Hash) -> Result<(), StoreError>;

    /// Deletes all KeyPackages of a client, and the client from the directory. Tells how many KeyPackages there were.
    fn delete_key_packages(&mut self, client: &ClientUri) -> Result<u64, StoreError>;

    /// Notes that the directory knows a client, until `expires`.
    fn put_directory_client(&mut self, client: &ClientUri, expires: Timestamp) -> Result<(), StoreError>;

    /// Notes that a KeyPackage was served and must not come back before `expires`.
    fn put_claimed(&mut self, reference: &KeyedHash, expires: Timestamp) -> Result<(), StoreError>;

    /// Inserts or replaces an address key.
    fn put_address_key(&mut self, row: &AddressKeyRow) -> Result<(), StoreError>;

    /// Notes how often a drop token was used, until `expires`.
    fn put_drop_uses(&mut self, nonce: &KeyedHash, uses: u32, expires: Timestamp) -> Result<(), StoreError>;

    /// Adds a row to the outbox, after all others.
    fn push_outbox(&mut self, kind: OutboxKind, payload: &[u8]) -> Result<(), StoreError>;

    /// Deletes a row of the outbox.
    fn delete_outbox(&mut self, id: u64) -> Result<(), StoreError>;

    /// Notes that the nonce of a signed request was used, until `expires`. False if it was noted before and is not
    /// pruned yet.
    fn note_nonce(&mut self, nonce: &KeyedHash, expires: Timestamp) -> Result<bool, StoreError>;

    /// Stores the server's secret.
    fn put_server_secret(&mut self, secret: &[u8; 32]) -> Result<(), StoreError>;

    /// Deletes what has `expires` at or before `now`: submissions, blobs without pins and staged ones (their chunks are
    /// discarded), KeyPackages, directory clients, claimed references, address keys, drop tokens and nonces. Of each at
    /// most `limit` rows, those that expired first, so that nobody waits for long; then up to [`PRUNED_CHUNKS`] of the
    /// discarded chunks with the least name, those of lower offsets first. Tells whether there may be more.
    fn prune(&mut self, now: Timestamp, limit: u32) -> Result<bool, StoreError>;
}

/// Discarded chunks that one [`Tx::prune`] deletes; each has up to 1 MiB.
pub const PRUNED_CHUNKS: u32 = 4;
