//! The chunks of the tree that a group's current epoch offers.
//!
//! Each is pinned once for each channel that has it. A commit says what changes, against the tree of the epoch that it
//! ends; where that is not here (the first epoch, or one that came back when others were annulled), it says all.

use conclave_names::{ChannelId, Epoch, Hash, Timestamp, limits};
use conclave_protocol::{Code, Refusal, v1::SubmitBundleRequest};

use super::{
    blobs,
    request::{field, malformed},
};
use crate::store::Tx;

/// What a bundle says of its tree.
pub(super) struct Offer {
    pub(super) root: Option<Hash>,
    added: Vec<Hash>,
    dropped: Vec<Hash>,
    whole: bool,
}

impl Offer {
    /// A tree in one blob, as the server keeps that of a visible group.
    pub(super) fn in_one(tree: Hash) -> Self {
        Self { root: Some(tree), added: vec![tree], dropped: Vec::new(), whole: true }
    }

    /// Reads it, without looking at the store.
    pub(super) fn of(message: &SubmitBundleRequest) -> Result<Self, Refusal> {
        let hashes = |list: &[Vec<u8>]| -> Result<Vec<Hash>, Refusal> {
            list.iter().map(|hash| field(hash, "a tree chunk's hash is not 32 bytes")).collect()
        };
        let (added, dropped) = (hashes(&message.tree_added)?, hashes(&message.tree_dropped)?);
        let whole = message.tree_whole;
        if message.tree.is_empty() {
            if !added.is_empty() || !dropped.is_empty() {
                return Err(malformed("there are chunks of a tree, but `tree` is empty"));
            }
            return Ok(Self { root: None, added, dropped, whole });
        }
        Ok(Self { root: Some(field(&message.tree, "`tree` is not 32 bytes")?), added, dropped, whole })
    }
}

/// The new epoch takes the place of the one that ended: its chunks are pinned, and the others stay for those who were
/// invited and have yet to come.
pub(super) fn replace(
    tx: &mut dyn Tx,
    channel: &ChannelId,
    ended: Epoch,
    offer: &Offer,
    now: Timestamp,
) -> Result<(), Refusal> {
    let Some(root) = &offer.root else { return forget(tx, channel, now) };
    if offer.whole {
        forget(tx, channel, now)?;
    } else if tx.group_info(channel)?.is_none_or(|row| row.epoch != ended || row.tree.is_none()) {
        return Err(Refusal::new(
            Code::TreeIncomplete,
            "the server has no tree of the epoch that the commit ends: offer all chunks of the new one",
        ));
    }
    for chunk in &offer.added {
        if !tx.has_tree_chunk(channel, chunk)? {
            blobs::pin(tx, chunk, None)?;
            tx.put_tree_chunk(channel, chunk)?;
        }
    }
    for chunk in &offer.dropped {
        drop_chunk(tx, channel, chunk, now)?;
    }
    if tx.has_tree_chunk(channel, root)? {
        return Ok(());
    }
    Err(malformed("`tree` is none of the tree's chunks"))
}

/// The epoch that the group is in offers no tree any more.
pub(super) fn forget(tx: &mut dyn Tx, channel: &ChannelId, now: Timestamp) -> Result<(), Refusal> {
    for chunk in tx.tree_chunks(channel)? {
        drop_chunk(tx, channel, &chunk, now)?;
    }
    Ok(())
}

fn drop_chunk(tx: &mut dyn Tx, channel: &ChannelId, chunk: &Hash, now: Timestamp) -> Result<(), Refusal> {
    if tx.has_tree_chunk(channel, chunk)? {
        tx.delete_tree_chunk(channel, chunk)?;
        blobs::unpin(tx, chunk, now)?;
        blobs::keep(tx, chunk, now.plus_ms(limits::INVITATION_MS))?;
    }
    Ok(())
}
