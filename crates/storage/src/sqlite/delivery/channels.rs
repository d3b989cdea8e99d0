//! Channels, their epochs, and what members need of the current one.

use conclave_channel::law::Ledger;
use conclave_delivery::store::{ChannelKind, ChannelRow, EpochRow, GroupInfoRow};
use conclave_names::{ChannelId, Epoch, Hash, Seq};

use super::super::{
    failure::Failure,
    transaction::{Transaction, decoded, hash, number, optional_hash, stored, time},
};

pub(super) fn channel(tx: &mut Transaction<'_>, id: &ChannelId) -> Result<Option<ChannelRow>, Failure> {
    let sql = "SELECT head, head_hash, head_time, ledger, owner, drop_key_secret, bytes, head_clock FROM ds_channels WHERE id = ?1";
    tx.first(sql, [id.as_bytes()], |row| {
        let kind = match row.get(4)? {
            Some(owner) => ChannelKind::Inbox { owner, drop_key: row.get(5)? },
            None => ChannelKind::Group { ledger: decoded(row, 3, |bytes| Ledger::parse(bytes).ok())? },
        };
        Ok(ChannelRow {
            id: *id,
            kind,
            head: Seq(number(row, 0)?),
            head_hash: hash(row, 1)?,
            head_time: time(row, 2)?,
            head_clock: time(row, 7)?,
            bytes: number(row, 6)?,
        })
    })
}

pub(super) fn put_channel(tx: &mut Transaction<'_>, row: &ChannelRow) -> Result<(), Failure> {
    let (ledger, owner, drop_key) = match &row.kind {
        ChannelKind::Group { ledger } => {
            (Some(ledger.to_bytes().map_err(|error| Failure::Corrupt(error.to_string()))?), None, None)
        }
        ChannelKind::Inbox { owner, drop_key } => (None, Some(owner), Some(drop_key)),
    };
    tx.execute(
        "INSERT INTO ds_channels (id, head, head_hash, head_time, ledger, owner, drop_key_secret, bytes, head_clock)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (id) DO UPDATE SET
            head = excluded.head,
            head_hash = excluded.head_hash,
            head_time = excluded.head_time,
            ledger = excluded.ledger,
            owner = excluded.owner,
            drop_key_secret = excluded.drop_key_secret,
            bytes = excluded.bytes,
            head_clock = excluded.head_clock",
        (
            row.id.as_bytes(),
            stored(row.head.0),
            row.head_hash.as_bytes(),
            stored(row.head_time.0),
            ledger,
            owner,
            drop_key,
            stored(row.bytes),
            stored(row.head_clock.0),
        ),
    )?;
    Ok(())
}

pub(super) fn channels_after(
    tx: &mut Transaction<'_>,
    after: Option<&ChannelId>,
    limit: u32,
) -> Result<Vec<ChannelId>, Failure> {
    let sql = "SELECT id FROM ds_channels WHERE id > ?1 ORDER BY id LIMIT ?2";
    // No name is as short as no bytes.
    let after: &[u8] = after.map_or(&[], |after| after.as_bytes());
    tx.all(sql, (after, limit), |row| row.get(0).map(ChannelId::new))
}

pub(super) fn epoch(tx: &mut Transaction<'_>, channel: &ChannelId, epoch: Epoch) -> Result<Option<EpochRow>, Failure> {
    let sql = "SELECT key_root, base, started, closed FROM ds_epochs WHERE channel = ?1 AND epoch = ?2";
    tx.first(sql, (channel.as_bytes(), stored(epoch.0)), |row| {
        Ok(EpochRow {
            channel: *channel,
            epoch,
            key_root: hash(row, 0)?,
            base: Seq(number(row, 1)?),
            started: Seq(number(row, 2)?),
            closed: row.get::<_, Option<i64>>(3)?.map(|_| number(row, 3).map(Seq)).transpose()?,
        })
    })
}

pub(super) fn put_epoch(tx: &mut Transaction<'_>, row: &EpochRow) -> Result<(), Failure> {
    tx.execute(
        "INSERT INTO ds_epochs (channel, epoch, key_root, base, started, closed) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (channel, epoch) DO UPDATE SET
            key_root = excluded.key_root,
            base = excluded.base,
            started = excluded.started,
            closed = excluded.closed",
        (
            row.channel.as_bytes(),
            stored(row.epoch.0),
            row.key_root.as_bytes(),
            stored(row.base.0),
            stored(row.started.0),
            row.closed.map(|seq| stored(seq.0)),
        ),
    )?;
    Ok(())
}

pub(super) fn close_epochs(
    tx: &mut Transaction<'_>,
    channel: &ChannelId,
    up_to: Epoch,
    removal: Seq,
) -> Result<(), Failure> {
    tx.execute(
        "UPDATE ds_epochs SET closed = ?3 WHERE channel = ?1 AND epoch <= ?2 AND closed IS NULL",
        (channel.as_bytes(), stored(up_to.0), stored(removal.0)),
    )?;
    Ok(())
}

pub(super) fn forget_epochs(tx: &mut Transaction<'_>, channel: &ChannelId, before: Epoch) -> Result<(), Failure> {
    tx.execute("DELETE FROM ds_epochs WHERE channel = ?1 AND epoch < ?2", (channel.as_bytes(), stored(before.0)))?;
    Ok(())
}

pub(super) fn delete_epochs(tx: &mut Transaction<'_>, channel: &ChannelId, after: Epoch) -> Result<(), Failure> {
    tx.execute("DELETE FROM ds_epochs WHERE channel = ?1 AND epoch > ?2", (channel.as_bytes(), stored(after.0)))?;
    Ok(())
}

pub(super) fn tree_chunks(tx: &mut Transaction<'_>, channel: &ChannelId) -> Result<Vec<Hash>, Failure> {
    let sql = "SELECT chunk FROM ds_tree_chunks WHERE channel = ?1 ORDER BY chunk";
    tx.all(sql, [channel.as_bytes()], |row| hash(row, 0))
}

pub(super) fn has_tree_chunk(tx: &mut Transaction<'_>, channel: &ChannelId, chunk: &Hash) -> Result<bool, Failure> {
    let sql = "SELECT 1 FROM ds_tree_chunks WHERE channel = ?1 AND chunk = ?2";
    Ok(tx.first(sql, (channel.as_bytes(), chunk.as_bytes()), |_| Ok(()))?.is_some())
}

pub(super) fn put_tree_chunk(tx: &mut Transaction<'_>, channel: &ChannelId, chunk: &Hash) -> Result<(), Failure> {
    tx.execute(
        "INSERT OR IGNORE INTO ds_tree_chunks (channel, chunk) VALUES (?1, ?2)",
        (channel.as_bytes(), chunk.as_bytes()),
    )?;
    Ok(())
}

pub(super) fn delete_tree_chunk(tx: &mut Transaction<'_>, channel: &ChannelId, chunk: &Hash) -> Result<(), Failure> {
    tx.execute("DELETE FROM ds_tree_chunks WHERE channel = ?1 AND chunk = ?2", (channel.as_bytes(), chunk.as_bytes()))?;
    Ok(())
}

pub(super) fn delete_group_info(tx: &mut Transaction<'_>, channel: &ChannelId) -> Result<(), Failure> {
    tx.execute("DELETE FROM ds_group_infos WHERE channel = ?1", [channel.as_bytes()])?;
    Ok(())
}

pub(super) fn group_info(tx: &mut Transaction<'_>, channel: &ChannelId) -> Result<Option<GroupInfoRow>, Failure> {
    let sql = "SELECT epoch, tree, join_key, group_info FROM ds_group_infos WHERE channel = ?1";
    tx.first(sql, [channel.as_bytes()], |row| {
        Ok(GroupInfoRow {
            channel: *channel,
            epoch: Epoch(number(row, 0)?),
            tree: optional_hash(row, 1)?,
            join_key: row.get(2)?,
            group_info: row.get(3)?,
        })
    })
}

pub(super) fn put_group_info(tx: &mut Transaction<'_>, row: &GroupInfoRow) -> Result<(), Failure> {
    tx.execute(
        "INSERT INTO ds_group_infos (channel, epoch, tree, join_key, group_info) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (channel) DO UPDATE SET
            epoch = excluded.epoch,
            tree = excluded.tree,
            join_key = excluded.join_key,
            group_info = excluded.group_info",
        (
            row.channel.as_bytes(),
            stored(row.epoch.0),
            row.tree.as_ref().map(Hash::as_bytes),
            &row.join_key,
            &row.group_info,
        ),
    )?;
    Ok(())
}
