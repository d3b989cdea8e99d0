//! Groups with visible handshakes, as the server follows them.

use conclave_delivery::store::{CheckpointRow, FollowedRow};
use conclave_names::{ChannelId, Epoch, Hash, Seq};

use super::super::{
    failure::Failure,
    transaction::{Transaction, hash, number, stored, time},
};
use super::entries::kind;

pub(super) fn followed_tip(tx: &mut Transaction<'_>, channel: &ChannelId) -> Result<Option<(Seq, Hash)>, Failure> {
    let sql = "SELECT seq, link FROM (
                   SELECT * FROM (SELECT seq, link, 1 AS rank FROM ds_checkpoints
                                  WHERE channel = ?1 ORDER BY seq DESC LIMIT 1)
                   UNION ALL
                   SELECT * FROM (SELECT seq, link, 2 AS rank FROM ds_followed
                                  WHERE channel = ?1 ORDER BY seq DESC LIMIT 1)
               ) ORDER BY seq DESC, rank LIMIT 1";
    tx.first(sql, [channel.as_bytes()], |row| Ok((Seq(number(row, 0)?), hash(row, 1)?)))
}

pub(super) fn checkpoint(tx: &mut Transaction<'_>, channel: &ChannelId) -> Result<Option<CheckpointRow>, Failure> {
    let sql = "SELECT epoch, seq, link, snapshot FROM ds_checkpoints WHERE channel = ?1 ORDER BY seq DESC LIMIT 1";
    tx.first(sql, [channel.as_bytes()], |row| {
        Ok(CheckpointRow {
            channel: *channel,
            epoch: Epoch(number(row, 0)?),
            seq: Seq(number(row, 1)?),
            link: hash(row, 2)?,
            snapshot: row.get(3)?,
        })
    })
}

pub(super) fn checkpoints(tx: &mut Transaction<'_>, channel: &ChannelId) -> Result<Vec<(Epoch, Seq)>, Failure> {
    let sql = "SELECT epoch, seq FROM ds_checkpoints WHERE channel = ?1 ORDER BY seq";
    tx.all(sql, [channel.as_bytes()], |row| Ok((Epoch(number(row, 0)?), Seq(number(row, 1)?))))
}

pub(super) fn followed(tx: &mut Transaction<'_>, channel: &ChannelId, after: Seq) -> Result<Vec<FollowedRow>, Failure> {
    let sql = "SELECT seq, kind, time, link, message FROM ds_followed WHERE channel = ?1 AND seq > ?2 ORDER BY seq";
    tx.all(sql, (channel.as_bytes(), stored(after.0)), |row| {
        Ok(FollowedRow {
            channel: *channel,
            seq: Seq(number(row, 0)?),
            kind: kind(row, 1)?,
            time: time(row, 2)?,
            link: hash(row, 3)?,
            message: row.get(4)?,
        })
    })
}

pub(super) fn put_checkpoint(tx: &mut Transaction<'_>, row: &CheckpointRow) -> Result<(), Failure> {
    let place = (row.channel.as_bytes(), stored(row.seq.0));
    tx.execute("DELETE FROM ds_checkpoints WHERE channel = ?1 AND seq = ?2", place)?;
    tx.execute(
        "INSERT INTO ds_checkpoints (channel, seq, epoch, link, snapshot) VALUES (?1, ?2, ?3, ?4, ?5)",
        (place.0, place.1, stored(row.epoch.0), row.link.as_bytes(), &row.snapshot),
    )?;
    Ok(())
}

pub(super) fn put_followed(tx: &mut Transaction<'_>, row: &FollowedRow) -> Result<(), Failure> {
    let place = (row.channel.as_bytes(), stored(row.seq.0));
    tx.execute("DELETE FROM ds_followed WHERE channel = ?1 AND seq = ?2", place)?;
    tx.execute(
        "INSERT INTO ds_followed (channel, seq, kind, time, link, message) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        (place.0, place.1, row.kind.code(), stored(row.time.0), row.link.as_bytes(), &row.message),
    )?;
    Ok(())
}

pub(super) fn delete_followed_from(tx: &mut Transaction<'_>, channel: &ChannelId, from: Seq) -> Result<(), Failure> {
    let place = (channel.as_bytes(), stored(from.0));
    tx.execute("DELETE FROM ds_checkpoints WHERE channel = ?1 AND seq >= ?2", place)?;
    tx.execute("DELETE FROM ds_followed WHERE channel = ?1 AND seq >= ?2", place)?;
    Ok(())
}

pub(super) fn delete_followed_before(
    tx: &mut Transaction<'_>,
    channel: &ChannelId,
    checkpoint: Seq,
) -> Result<(), Failure> {
    let place = (channel.as_bytes(), stored(checkpoint.0));
    tx.execute("DELETE FROM ds_checkpoints WHERE channel = ?1 AND seq < ?2", place)?;
    tx.execute("DELETE FROM ds_followed WHERE channel = ?1 AND seq <= ?2", place)?;
    Ok(())
}
