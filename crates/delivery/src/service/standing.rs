//! Which commit stands, as the channel's rows have it (`conclave_channel::law`).

use conclave_channel::{
    Entry, chain,
    law::{Change, Ledger, Refused},
};
use conclave_names::Timestamp;
use conclave_protocol::{Code, Refusal};

use super::{access::other_kind, tree};
use crate::store::{ChannelKind, ChannelRow, Tx};

/// The ledger of a group's channel.
fn ledger(row: &ChannelRow) -> Result<Ledger, Refusal> {
    match &row.kind {
        ChannelKind::Group { ledger } => Ok(ledger.clone()),
        ChannelKind::Inbox { .. } => Err(other_kind("groups' channels")),
    }
}

/// Brings a group's channel to the time of the entry that comes next: what the passing of time has decided takes
/// effect now. Says whether commits were annulled, so that access must be looked up anew.
pub(super) fn advance(tx: &mut dyn Tx, row: &mut ChannelRow, now: Timestamp) -> Result<bool, Refusal> {
    let time = row.time(now);
    let ChannelKind::Group { ledger } = &mut row.kind else { return Ok(false) };
    let changes = ledger.advance(time);
    let annulled = changes.iter().any(|change| matches!(change, Change::Annulled { .. }));
    if annulled {
        let row = row.clone();
        for change in &changes {
            take_back(tx, &row, change, now)?;
        }
        // Access looks at the stored row.
        tx.put_channel(&row)?;
    }
    Ok(annulled)
}

/// Undoes what annulled commits did to the rows: their epochs, their removals and their GroupInfo.
fn take_back(tx: &mut dyn Tx, row: &ChannelRow, change: &Change, now: Timestamp) -> Result<(), Refusal> {
    let Change::Annulled { commits, epoch } = change else { return Ok(()) };
    for commit in commits {
        tx.clear_removes(&row.id, *commit)?;
    }
    if let Some(first) = commits.first() {
        tx.delete_followed_from(&row.id, *first)?;
    }
    tx.delete_epochs(&row.id, *epoch)?;
    // That of the epoch before was replaced: the next commit brings another (a stale one is never served).
    if tx.group_info(&row.id)?.is_some_and(|info| info.epoch > *epoch) {
        tree::forget(tx, &row.id, now)?;
        tx.delete_group_info(&row.id)?;
    }
    Ok(())
}

/// What the ledger says to an entry that is to come next. Gives the channel's row with the ledger after it; nothing is
/// stored.
pub(super) fn admit(row: &ChannelRow, entry: &Entry, bytes: &[u8], now: Timestamp) -> Result<ChannelRow, Refusal> {
    let mut ledger = ledger(row)?;
    let time = row.time(now);
    ledger.admit(&row.id, row.head.next(), time, entry, chain::entry_hash(bytes)).map_err(|refused| {
        if let Refused::Epoch { current, .. } = refused {
            return Refusal::new(Code::EpochStale, refused.to_string()).with("epoch", current);
        }
        let code = match refused {
            Refused::Unsettled | Refused::Proposals => Code::QuotaExceeded,
            Refused::Body => Code::TooLarge,
            Refused::Verdict(_) => Code::VerdictRefused,
            _ => Code::EntryInvalid,
        };
        Refusal::new(code, refused.to_string())
    })?;
    Ok(ChannelRow { kind: ChannelKind::Group { ledger }, ..row.clone() })
}
