//! The same operations on the Delivery Service's store in memory and on SQLite answer the same.

use conclave_channel::{EntryKind, law::Ledger};
use conclave_delivery::{
    memory::MemoryStore,
    store::{
        AddressKeyRow, BlobRow, ChannelKind, ChannelRow, CheckpointRow, EntryRow, EpochRow, FollowedRow, GroupInfoRow,
        IdempotencyRow, KeyPackageCount, KeyPackageRow, OutboxKind, RangeLimit, Read, StagedRow, StagedTotal,
        StoreError, Tx,
    },
};
use conclave_mls::capabilities::Capabilities;
use conclave_names::{ChannelId, ClientUri, Epoch, Hash, IdempotencyKey, Seq, Timestamp};
use conclave_storage::{Database, Options};
use proptest::{prelude::*, sample::select};

use crate::support::{client, user};

/// One use of the store. Names are drawn from a few, so that uses meet.
#[derive(Debug, Clone)]
enum Op {
    PutChannel(ChannelRow),
    PutEpoch(EpochRow),
    DeleteEpochs(ChannelId, Epoch),
    PutCheckpoint(CheckpointRow),
    PutFollowed(FollowedRow),
    DeleteFollowedFrom(ChannelId, Seq),
    DeleteFollowedBefore(ChannelId, Seq),
    PutGroupInfo(GroupInfoRow),
    PutTreeChunk(ChannelId, Hash),
    DeleteTreeChunk(ChannelId, Hash),
    DeleteGroupInfo(ChannelId),
    ClearRemoves(ChannelId, Seq),
    AppendEntry(EntryRow),
    DeleteEntries(ChannelId, Seq),
    PutIdempotency(IdempotencyRow),
    CloseEpochs(ChannelId, Epoch, Seq),
    ForgetEpochs(ChannelId, Epoch),
    PutBlob(BlobRow),
    PutStaged(StagedRow),
    DeleteStaged([u8; 32], Hash),
    AppendChunk { chunks: [u8; 32], data: Vec<u8> },
    DiscardChunks([u8; 32]),
    PutKeyPackage(KeyPackageRow),
    ClaimKeyPackage { client: ClientUri, suite: u16, required: Capabilities, now: Timestamp },
    DeleteKeyPackage(Hash),
    DeleteKeyPackages(ClientUri),
    PutDirectoryClient(ClientUri, Timestamp),
    PutClaimed([u8; 32], Timestamp),
    PutAddressKey(AddressKeyRow),
    PutDropUses([u8; 32], u32, Timestamp),
    PushOutbox(Vec<u8>),
    DeleteOutbox(usize),
    NoteNonce([u8; 32], Timestamp),
    PutServerSecret([u8; 32]),
    Prune(Timestamp, u32),
    Entries { channel: ChannelId, after: Seq, until: Option<Seq>, limit: RangeLimit },
}

/// What a use answered.
#[derive(Debug, PartialEq)]
enum Answer {
    Done,
    Flag(bool),
    Number(u64),
    KeyPackage(Option<KeyPackageRow>),
    Entries(Vec<EntryRow>),
}

fn apply(tx: &mut dyn Tx, op: &Op) -> Result<Answer, StoreError> {
    match op {
        Op::PutChannel(row) => tx.put_channel(row)?,
        Op::PutEpoch(row) => tx.put_epoch(row)?,
        Op::DeleteEpochs(channel, after) => tx.delete_epochs(channel, *after)?,
        Op::PutCheckpoint(row) => tx.put_checkpoint(row)?,
        Op::PutFollowed(row) => tx.put_followed(row)?,
        Op::DeleteFollowedFrom(channel, from) => tx.delete_followed_from(channel, *from)?,
        Op::DeleteFollowedBefore(channel, checkpoint) => tx.delete_followed_before(channel, *checkpoint)?,
        Op::PutGroupInfo(row) => tx.put_group_info(row)?,
        Op::PutTreeChunk(channel, chunk) => tx.put_tree_chunk(channel, chunk)?,
        Op::DeleteTreeChunk(channel, chunk) => tx.delete_tree_chunk(channel, chunk)?,
        Op::DeleteGroupInfo(channel) => tx.delete_group_info(channel)?,
        Op::ClearRemoves(channel, seq) => tx.clear_removes(channel, *seq)?,
        Op::AppendEntry(row) => tx.append_entry(row)?,
        Op::DeleteEntries(channel, up_to) => return Ok(Answer::Number(tx.delete_entries(channel, *up_to)?)),
        Op::CloseEpochs(channel, up_to, removal) => tx.close_epochs(channel, *up_to, *removal)?,
        Op::ForgetEpochs(channel, before) => tx.forget_epochs(channel, *before)?,
        Op::PutIdempotency(row) => tx.put_idempotency(row)?,
        Op::PutBlob(row) => tx.put_blob(row)?,
        Op::PutStaged(row) => tx.put_staged(row)?,
        Op::DeleteStaged(stager, hash) => tx.delete_staged(stager, hash)?,
        // As the service does: a chunk begins where the one before it ends.
        Op::AppendChunk { chunks, data } => {
            let mut end = 0;
            while let Some((start, chunk)) = tx.chunk(chunks, end)? {
                end = start + chunk.len() as u64;
            }
            tx.append_chunk(chunks, end, data)?;
        }
        Op::DiscardChunks(chunks) => tx.discard_chunks(chunks)?,
        // As the service does: one last resort of a client and cipher suite.
        Op::PutKeyPackage(row) => {
            if row.last_resort
                && let Some(old) = tx.last_resort(&row.client, row.cipher_suite)?
                && old.reference != row.reference
            {
                tx.delete_key_package(&old.reference)?;
            }
            tx.put_key_package(row)?;
        }
        Op::ClaimKeyPackage { client, suite, required, now } => {
            let found = tx.next_key_package(client, *suite, required, *now)?;
            if let Some(row) = &found {
                tx.delete_key_package(&row.reference)?;
            }
            return Ok(Answer::KeyPackage(found));
        }
        Op::DeleteKeyPackage(reference) => tx.delete_key_package(reference)?,
        Op::DeleteKeyPackages(client) => return Ok(Answer::Number(tx.delete_key_packages(client)?)),
        Op::PutDirectoryClient(client, expires) => tx.put_directory_client(client, *expires)?,
        Op::PutClaimed(reference, expires) => tx.put_claimed(reference, *expires)?,
        Op::PutAddressKey(row) => tx.put_address_key(row)?,
        Op::PutDropUses(nonce, uses, expires) => tx.put_drop_uses(nonce, *uses, *expires)?,
        Op::PushOutbox(payload) => tx.push_outbox(OutboxKind::Welcome, payload)?,
        Op::DeleteOutbox(index) => {
            if let Some(row) = tx.outbox(100)?.get(*index) {
                tx.delete_outbox(row.id)?;
            }
        }
        Op::NoteNonce(nonce, expires) => return Ok(Answer::Flag(tx.note_nonce(nonce, *expires)?)),
        Op::PutServerSecret(secret) => tx.put_server_secret(secret)?,
        Op::Prune(now, limit) => return Ok(Answer::Flag(tx.prune(*now, *limit)?)),
        Op::Entries { channel, after, until, limit } => {
            return Ok(Answer::Entries(tx.entries(channel, *after, *until, *limit)?));
        }
    }
    Ok(Answer::Done)
}

/// Everything that can be read. Debug output would leave secrets out, so rows stay rows.
#[derive(Debug, PartialEq, Default)]
struct Dump {
    channels: Vec<Option<ChannelRow>>,
    epochs: Vec<Option<EpochRow>>,
    group_infos: Vec<Option<GroupInfoRow>>,
    chunk_names: Vec<Vec<Hash>>,
    tips: Vec<Option<(Seq, Hash)>>,
    checkpoints: Vec<Option<CheckpointRow>>,
    checkpoint_places: Vec<Vec<(Epoch, Seq)>>,
    followed: Vec<Vec<FollowedRow>>,
    entries: Vec<Vec<EntryRow>>,
    removals: Vec<Option<Seq>>,
    idempotency: Vec<Option<IdempotencyRow>>,
    blobs: Vec<Option<BlobRow>>,
    staged: Vec<Option<StagedRow>>,
    totals: Vec<StagedTotal>,
    oldest: Vec<Option<(Seq, Timestamp)>>,
    ids: Vec<Vec<ChannelId>>,
    capabilities: Vec<Vec<Capabilities>>,
    chunks: Vec<Option<(u64, Vec<u8>)>>,
    key_packages: Vec<Option<KeyPackageRow>>,
    counts: Vec<Vec<KeyPackageCount>>,
    clients: Vec<Vec<ClientUri>>,
    flags: Vec<bool>,
    address_keys: Vec<Option<AddressKeyRow>>,
    uses: Vec<u32>,
    outbox: Vec<(OutboxKind, Vec<u8>)>,
    secret: Option<[u8; 32]>,
}

fn dump(tx: &mut dyn Read) -> Result<Dump, StoreError> {
    let mut all = Dump::default();
    for n in 0..NAMES {
        let (channel, hash) = (channel(n), hash(n));
        all.channels.push(tx.channel(&channel)?);
        all.group_infos.push(tx.group_info(&channel)?);
        all.chunk_names.push(tx.tree_chunks(&channel)?);
        all.flags.push(tx.has_tree_chunk(&channel, &hash)?);
        all.tips.push(tx.followed_tip(&channel)?);
        all.checkpoints.push(tx.checkpoint(&channel)?);
        all.checkpoint_places.push(tx.checkpoints(&channel)?);
        for after in [0, 3, u64::MAX].map(Seq) {
            all.followed.push(tx.followed(&channel, after)?);
        }
        all.entries.push(tx.entries(&channel, Seq(0), None, RangeLimit { entries: 100, bytes: 100_000 })?);
        for epoch in [0, 1, 2, 3, u64::MAX].map(Epoch) {
            all.epochs.push(tx.epoch(&channel, epoch)?);
            all.removals.push(tx.first_removal(&channel, epoch)?);
        }
        for key in 0..NAMES {
            all.idempotency.push(tx.idempotency(&[n; 32], &IdempotencyKey::new([key; 16]))?);
        }
        all.blobs.push(tx.blob(&hash)?);
        for offset in [0, 1, 7, 8, 30, u64::MAX] {
            all.chunks.push(tx.chunk(&[n; 32], offset)?);
        }
        all.totals.push(tx.staged_total(&[n; 32])?);
        for stager in 0..NAMES {
            all.staged.push(tx.staged(&[stager; 32], &hash)?);
        }
        all.oldest.push(tx.oldest(&channel)?);
        all.ids.push(tx.channels_after(Some(&channel), 2)?);
        all.flags.push(tx.claimed(&[n; 32])?);
        all.address_keys.push(tx.address_key(&[n; 8])?);
        all.uses.push(tx.drop_uses(&[n; 32])?);
    }
    for n in 0..2 * NAMES {
        all.key_packages.push(tx.key_package(&hash(n))?);
    }
    for now in [0, 5, 10, u64::MAX].map(Timestamp) {
        for name in CLIENTS {
            all.counts.push(tx.key_package_counts(&client(name), now)?);
            for suite in 1..=2 {
                for required in [Capabilities::default(), requiring(1), requiring(2)] {
                    all.key_packages.push(tx.next_key_package(&client(name), suite, &required, now)?);
                }
                all.capabilities.push(tx.key_package_capabilities(&client(name), suite, now)?);
                all.key_packages.push(tx.last_resort(&client(name), suite)?);
            }
        }
        all.clients.push(tx.directory_clients(&user("alice"), now)?);
        all.clients.push(tx.directory_clients(&user("bob"), now)?);
    }
    all.ids.push(tx.channels_after(None, 100)?);
    all.address_keys.push(tx.newest_address_key()?);
    all.outbox = tx.outbox(100)?.into_iter().map(|row| (row.kind, row.payload)).collect();
    let ids: Vec<_> = tx.outbox(100)?.into_iter().map(|row| row.id).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "ids ascend: {ids:?}");
    assert!(tx.outbox(2)?.len() <= 2);
    all.secret = tx.server_secret()?;
    Ok(all)
}

const NAMES: u8 = 3;
const CLIENTS: [&str; 4] = ["alice/laptop", "alice/phone", "alice/a-b", "bob/laptop"];

fn channel(n: u8) -> ChannelId {
    ChannelId::new([n; 16])
}

fn hash(n: u8) -> Hash {
    Hash::new([n; 32])
}

fn any_channel() -> impl Strategy<Value = ChannelId> {
    (0..NAMES).prop_map(channel)
}

/// One extension type that few have.
fn requiring(kind: u16) -> Capabilities {
    Capabilities::new([1], [0xF000 + kind], [], [])
}

fn any_capabilities() -> impl Strategy<Value = Capabilities> {
    prop::collection::vec(1..3_u16, 0..2)
        .prop_map(|kinds| Capabilities::new([1], kinds.into_iter().map(|kind| 0xF000 + kind), [], [2]))
}

fn any_hash() -> impl Strategy<Value = Hash> {
    (0..NAMES).prop_map(hash)
}

fn any_keyed() -> impl Strategy<Value = [u8; 32]> {
    (0..NAMES).prop_map(|n| [n; 32])
}

fn any_client() -> impl Strategy<Value = ClientUri> {
    select(&CLIENTS[..]).prop_map(client)
}

fn any_time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![9 => (0..12_u64).prop_map(Timestamp), 1 => Just(Timestamp(u64::MAX))]
}

fn any_seq() -> impl Strategy<Value = Seq> {
    prop_oneof![9 => (0..8_u64).prop_map(Seq), 1 => Just(Seq(u64::MAX))]
}

fn any_epoch() -> impl Strategy<Value = Epoch> {
    (0..4_u64).prop_map(Epoch)
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..20)
}

fn channel_row() -> impl Strategy<Value = ChannelRow> {
    let kind = prop_oneof![
        (any_epoch(), any_hash(), any::<u32>())
            .prop_map(|(epoch, root, members)| ChannelKind::Group { ledger: Ledger::new(epoch, root, members) }),
        (any_keyed(), any_keyed()).prop_map(|(owner, drop_key)| ChannelKind::Inbox { owner, drop_key }),
    ];
    (any_channel(), kind, any_seq(), any_hash(), any_time(), any_time(), 0..100_u64).prop_map(
        |(id, kind, head, head_hash, head_time, head_clock, bytes)| ChannelRow {
            id,
            kind,
            head,
            head_hash,
            head_time,
            head_clock,
            bytes,
        },
    )
}

fn epoch_row() -> impl Strategy<Value = EpochRow> {
    (any_channel(), any_epoch(), any_hash(), any_seq(), any_seq(), prop::option::weighted(0.2, any_seq())).prop_map(
        |(channel, epoch, key_root, base, started, closed)| EpochRow {
            channel,
            epoch,
            key_root,
            base,
            started,
            closed,
        },
    )
}

/// Each blob's chunks have a name of their own.
fn blob_row() -> impl Strategy<Value = BlobRow> {
    (0..NAMES, 0..100_u64, 0..2_u64, any_time(), prop::option::of(any_keyed())).prop_map(
        |(n, size, pins, expires, scope)| BlobRow { hash: hash(n), chunks: [n; 32], size, pins, expires, scope },
    )
}

fn staged_row() -> impl Strategy<Value = StagedRow> {
    (any_keyed(), any_hash(), any_keyed(), any_keyed(), 0..100_u64, 0..100_u64, any_bytes(), any_time()).prop_map(
        |(stager, hash, chunks, scope, size, received, digest, expires)| StagedRow {
            stager,
            hash,
            chunks,
            scope,
            size,
            received,
            digest,
            expires,
        },
    )
}

fn group_info_row() -> impl Strategy<Value = GroupInfoRow> {
    (any_channel(), any_epoch(), any_bytes(), prop::option::of(any_hash()), any_bytes()).prop_map(
        |(channel, epoch, group_info, tree, join_key)| GroupInfoRow { channel, epoch, group_info, tree, join_key },
    )
}

fn checkpoint_row() -> impl Strategy<Value = CheckpointRow> {
    (any_channel(), any_epoch(), any_seq(), any_hash(), any_bytes())
        .prop_map(|(channel, epoch, seq, link, snapshot)| CheckpointRow { channel, epoch, seq, link, snapshot })
}

fn followed_row() -> impl Strategy<Value = FollowedRow> {
    let kind = select(&[EntryKind::Commit, EntryKind::Proposal][..]);
    (any_channel(), any_seq(), kind, any_time(), any_hash(), any_bytes())
        .prop_map(|(channel, seq, kind, time, link, message)| FollowedRow { channel, seq, kind, time, link, message })
}

fn entry_row() -> impl Strategy<Value = EntryRow> {
    (any_channel(), (1..8_u64).prop_map(Seq), 1..=6_u8, any_epoch(), any::<bool>(), any_time(), any_bytes()).prop_map(
        |(channel, seq, kind, epoch, removes, time, bytes)| {
            let kind = EntryKind::from_code(kind).unwrap();
            EntryRow { channel, seq, kind, epoch, removes, time, bytes }
        },
    )
}

fn key_package_row() -> impl Strategy<Value = KeyPackageRow> {
    let reference = (0..2 * NAMES).prop_map(hash);
    let marks = (prop::bool::weighted(0.3), any::<bool>());
    (reference, any_client(), 1..3_u16, any_capabilities(), any_bytes(), marks, any_time()).prop_map(
        |(reference, client, cipher_suite, capabilities, bytes, (last_resort, used), expires)| KeyPackageRow {
            reference,
            client,
            cipher_suite,
            capabilities,
            bytes,
            last_resort,
            used,
            expires,
        },
    )
}

fn address_key_row() -> impl Strategy<Value = AddressKeyRow> {
    (0..NAMES, any_bytes(), any_bytes(), any_time(), any_time(), any_time()).prop_map(
        |(id, secret, public, created, rotates, expires)| AddressKeyRow {
            id: [id; 8],
            secret,
            public,
            created,
            rotates,
            expires,
        },
    )
}

fn idempotency_row() -> impl Strategy<Value = IdempotencyRow> {
    (any_keyed(), 0..NAMES, any_keyed(), any_bytes(), any_time()).prop_map(|(scope, key, request, reply, expires)| {
        IdempotencyRow { scope, key: IdempotencyKey::new([key; 16]), request, reply, expires }
    })
}

fn any_op() -> impl Strategy<Value = Op> {
    let limit = (0..6_u32, 0..60_usize).prop_map(|(entries, bytes)| RangeLimit { entries, bytes });
    prop_oneof![
        3 => channel_row().prop_map(Op::PutChannel),
        3 => epoch_row().prop_map(Op::PutEpoch),
        1 => (any_channel(), any_epoch()).prop_map(|(channel, after)| Op::DeleteEpochs(channel, after)),
        2 => group_info_row().prop_map(Op::PutGroupInfo),
        2 => checkpoint_row().prop_map(Op::PutCheckpoint),
        4 => followed_row().prop_map(Op::PutFollowed),
        1 => (any_channel(), any_seq()).prop_map(|(channel, from)| Op::DeleteFollowedFrom(channel, from)),
        1 => (any_channel(), any_seq()).prop_map(|(channel, seq)| Op::DeleteFollowedBefore(channel, seq)),
        2 => (any_channel(), any_hash()).prop_map(|(channel, chunk)| Op::PutTreeChunk(channel, chunk)),
        1 => (any_channel(), any_hash()).prop_map(|(channel, chunk)| Op::DeleteTreeChunk(channel, chunk)),
        1 => any_channel().prop_map(Op::DeleteGroupInfo),
        1 => (any_channel(), any_seq()).prop_map(|(channel, seq)| Op::ClearRemoves(channel, seq)),
        8 => entry_row().prop_map(Op::AppendEntry),
        1 => (any_channel(), any_seq()).prop_map(|(channel, up_to)| Op::DeleteEntries(channel, up_to)),
        2 => idempotency_row().prop_map(Op::PutIdempotency),
        1 => (any_channel(), any_epoch(), any_seq()).prop_map(|(channel, epoch, seq)| Op::CloseEpochs(channel, epoch, seq)),
        1 => (any_channel(), any_epoch()).prop_map(|(channel, epoch)| Op::ForgetEpochs(channel, epoch)),
        3 => blob_row().prop_map(Op::PutBlob),
        3 => staged_row().prop_map(Op::PutStaged),
        1 => (any_keyed(), any_hash()).prop_map(|(stager, hash)| Op::DeleteStaged(stager, hash)),
        5 => (any_keyed(), prop::collection::vec(any::<u8>(), 1..10))
            .prop_map(|(chunks, data)| Op::AppendChunk { chunks, data }),
        1 => any_keyed().prop_map(Op::DiscardChunks),
        8 => key_package_row().prop_map(Op::PutKeyPackage),
        4 => (any_client(), 1..3_u16, prop::option::of(1..3_u16), any_time()).prop_map(|(client, suite, kind, now)| {
            Op::ClaimKeyPackage { client, suite, required: kind.map(requiring).unwrap_or_default(), now }
        }),
        1 => (0..2 * NAMES).prop_map(|n| Op::DeleteKeyPackage(hash(n))),
        1 => any_client().prop_map(Op::DeleteKeyPackages),
        3 => (any_client(), any_time()).prop_map(|(client, expires)| Op::PutDirectoryClient(client, expires)),
        2 => (any_keyed(), any_time()).prop_map(|(reference, expires)| Op::PutClaimed(reference, expires)),
        2 => address_key_row().prop_map(Op::PutAddressKey),
        2 => (any_keyed(), any::<u32>(), any_time()).prop_map(|(nonce, uses, expires)| Op::PutDropUses(nonce, uses, expires)),
        3 => any_bytes().prop_map(Op::PushOutbox),
        1 => (0..4_usize).prop_map(Op::DeleteOutbox),
        2 => (any_keyed(), any_time()).prop_map(|(nonce, expires)| Op::NoteNonce(nonce, expires)),
        1 => any_keyed().prop_map(Op::PutServerSecret),
        2 => (any_time(), prop_oneof![1..3_u32, Just(1000)]).prop_map(|(now, limit)| Op::Prune(now, limit)),
        4 => (any_channel(), any_seq(), prop::option::of(any_seq()), limit)
            .prop_map(|(channel, after, until, limit)| Op::Entries { channel, after, until, limit }),
    ]
}

/// Operations, and whether the service then keeps them.
fn any_transactions() -> impl Strategy<Value = Vec<(Vec<Op>, bool)>> {
    prop::collection::vec((prop::collection::vec(any_op(), 1..12), prop::bool::weighted(0.85)), 1..10)
}

/// How a transaction ended: its answers, the service's refusal (after these answers), or the kind of store error.
#[derive(Debug, PartialEq)]
enum Ended {
    Kept(Vec<Answer>),
    Refused(Vec<Answer>),
    Corrupt,
    Other(StoreError),
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Self {
        // Wordings may differ.
        if matches!(error, StoreError::Corrupt(_)) { Self::Corrupt } else { Self::Other(error) }
    }
}

fn run(tx: &mut dyn Tx, ops: &[Op], keep: bool) -> Result<Ended, Ended> {
    let answers = ops.iter().map(|op| apply(tx, op)).collect::<Result<Vec<_>, _>>()?;
    if keep { Ok(Ended::Kept(answers)) } else { Err(Ended::Refused(answers)) }
}

fn compare(database: &Database, transactions: Vec<(Vec<Op>, bool)>) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut memory = MemoryStore::new();
    for (ops, keep) in transactions {
        let expected = memory.write(|tx| run(tx, &ops, keep));
        let found = runtime.block_on(database.delivery().write(move |tx| run(tx, &ops, keep)));
        prop_assert_eq!(expected, found);
        let expected = memory.read(dump).unwrap();
        let found = runtime.block_on(database.delivery().read(dump)).unwrap();
        prop_assert_eq!(expected, found);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_in_memory_answers_as_the_memory_store_does(transactions in any_transactions()) {
        compare(&Database::in_memory().unwrap(), transactions)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_on_disk_answers_as_the_memory_store_does(transactions in any_transactions()) {
        let directory = tempfile::tempdir().unwrap();
        compare(&Database::open(directory.path(), Options::default()).unwrap(), transactions)?;
    }
}
