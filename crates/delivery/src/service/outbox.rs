use conclave_names::{ChannelId, Timestamp};
use conclave_protocol::Refusal;

use super::{
    DeliveryService, Done,
    submit::{append, parse},
};
use crate::store::{ChannelKind, OutboxKind, OutboxRow, StoreError, Tx};

/// Rows that one transaction takes from the outbox.
const ROWS: u32 = 256;

impl DeliveryService {
    /// Does what earlier transactions left to be done: posts Welcomes into inboxes. To be called after a call that says
    /// so, and at start; again while [`Done::outbox`] says that more is left. The answer is how much was done.
    pub fn deliver_outbox(&self, tx: &mut dyn Tx, now: Timestamp) -> Result<Done<usize>, Refusal> {
        let rows = tx.outbox(ROWS)?;
        let mut wake = Vec::new();
        for row in &rows {
            match row.kind {
                OutboxKind::Welcome => wake.extend(post(tx, row, now)?),
            }
            tx.delete_outbox(row.id)?;
        }
        wake.sort_unstable();
        wake.dedup();
        let outbox = !tx.outbox(1)?.is_empty();
        Ok(Done { wake, outbox, ..Done::quiet(rows.len()) })
    }
}

/// Appends an entry to an inbox, unless the inbox is gone.
fn post(tx: &mut dyn Tx, row: &OutboxRow, now: Timestamp) -> Result<Option<ChannelId>, Refusal> {
    let corrupt = || StoreError::Corrupt(format!("outbox row {} does not decode", row.id));
    let (inbox, entry) = row.payload.split_at_checked(ChannelId::LEN).ok_or_else(corrupt)?;
    let inbox = ChannelId::try_from(inbox).map_err(|_| corrupt())?;
    let Some(channel) = tx.channel(&inbox)?.filter(|row| matches!(row.kind, ChannelKind::Inbox { .. })) else {
        return Ok(None);
    };
    append(tx, channel, &parse(entry).map_err(|_| corrupt())?, entry.to_vec(), now)?;
    Ok(Some(inbox))
}
