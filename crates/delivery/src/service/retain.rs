//! Carries out how long channels keep what was ordered ([`Retention`]).

use std::sync::PoisonError;

use conclave_channel::{Body, Entry, EntryKind};
use conclave_names::{ChannelId, Epoch, Seq, Timestamp, limits};
use conclave_protocol::Refusal;

use super::{DeliveryService, blobs};
use crate::{
    retention::{Retention, unsettled},
    store::{ChannelKind, ChannelRow, EntryRow, RangeLimit, Tx},
};

/// Channels that one step looks at.
const CHANNELS: u32 = 256;

/// Entries that one step deletes of one channel.
const ENTRIES: u32 = 256;

/// Bytes of entries that one step deletes of one channel, and after which it goes to no other.
const BYTES: usize = 1024 * 1024;

impl DeliveryService {
    /// One step through the channels: deletes what is not kept any more of some. Tells whether it has more to do before
    /// it has been through all of them.
    pub(super) fn retain(&self, tx: &mut dyn Tx, now: Timestamp) -> Result<bool, Refusal> {
        let after = *self.sweep.lock().unwrap_or_else(PoisonError::into_inner);
        let channels = tx.channels_after(after.as_ref(), CHANNELS)?;
        let mut place = after;
        let mut deleted = 0;
        let mut through = (channels.len() as u64) < u64::from(CHANNELS);
        for id in &channels {
            let (bytes, more) = self.retain_channel(tx, id, now)?;
            deleted += bytes;
            if more || deleted >= BYTES as u64 {
                // The rest of this channel, or the next, in another step.
                place = if more { place } else { Some(*id) };
                through = false;
                break;
            }
            place = Some(*id);
        }
        // A transaction that is undone goes through these channels again in the next round.
        *self.sweep.lock().unwrap_or_else(PoisonError::into_inner) = if through { None } else { place };
        Ok(!through)
    }

    /// Deletes what one channel does not keep any more, to some amount. Tells how many bytes that was, and whether more
    /// is to be deleted.
    fn retain_channel(&self, tx: &mut dyn Tx, id: &ChannelId, now: Timestamp) -> Result<(u64, bool), Refusal> {
        let Some((_, time)) = tx.oldest(id)? else { return Ok((0, false)) };
        let Some(row) = tx.channel(id)? else { return Ok((0, false)) };
        let (retention, bound) = match &row.kind {
            ChannelKind::Inbox { .. } => (Retention::INBOX, None),
            ChannelKind::Group { ledger } => (self.config.retention, unsettled(ledger, now)),
        };
        if !retention.ends(time, row.bytes, now) {
            return Ok((0, false));
        }
        let until = bound.and_then(Seq::previous);
        if bound.is_some() && until.is_none() {
            return Ok((0, false));
        }
        let limit = RangeLimit { entries: ENTRIES, bytes: BYTES };
        let oldest = tx.entries(id, Seq(0), until, limit)?;
        let mut cut = Cut { bytes: row.bytes, ..Cut::default() };
        let mut more = !oldest.is_empty();
        for entry in &oldest {
            if !retention.ends(entry.time, cut.bytes, now) {
                more = false;
                break;
            }
            cut.take(tx, entry, now)?;
        }
        let freed = row.bytes.saturating_sub(cut.bytes);
        cut.carry_out(tx, row)?;
        Ok((freed, more))
    }
}

/// Entries of one channel that go.
#[derive(Default)]
struct Cut {
    /// Bytes that the channel has without them.
    bytes: u64,
    /// The last one.
    up_to: Option<Seq>,
    /// The removals among them, with the epochs that they ended.
    removals: Vec<(Epoch, Seq)>,
    /// The newest epoch that a commit among them ended.
    ended: Option<Epoch>,
}

impl Cut {
    fn take(&mut self, tx: &mut dyn Tx, entry: &EntryRow, now: Timestamp) -> Result<(), Refusal> {
        self.bytes = self.bytes.saturating_sub(entry.bytes.len() as u64);
        if let Ok(Entry { body: Body::Staged { hash, size }, .. }) = Entry::parse(&entry.bytes) {
            self.bytes = self.bytes.saturating_sub(size);
            blobs::unpin(tx, &hash, now)?;
        }
        if entry.removes {
            self.removals.push((entry.epoch, entry.seq));
        }
        if entry.kind == EntryKind::Commit {
            self.ended = self.ended.max(Some(entry.epoch));
        }
        self.up_to = Some(entry.seq);
        Ok(())
    }

    fn carry_out(self, tx: &mut dyn Tx, row: ChannelRow) -> Result<(), Refusal> {
        let Some(up_to) = self.up_to else { return Ok(()) };
        for (epoch, removal) in &self.removals {
            // Without it, keys of those whom it removed would read on for ever.
            tx.close_epochs(&row.id, *epoch, *removal)?;
        }
        if let Some(before) = self.ended.and_then(|ended| ended.0.checked_sub(limits::SPENT_EPOCHS)) {
            tx.forget_epochs(&row.id, Epoch(before))?;
        }
        tx.delete_entries(&row.id, up_to)?;
        tx.put_channel(&ChannelRow { bytes: self.bytes, ..row })?;
        Ok(())
    }
}
