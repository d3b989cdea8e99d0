//! Who may do what in a channel, looked up anew for every request.

use conclave_channel::{
    access::ReadRange,
    law::{self, Refused},
};
use conclave_names::{ChannelId, Epoch, Seq, Timestamp};
use conclave_protocol::{Code, Refusal};

use super::standing;
use crate::{
    session::Place,
    store::{ChannelKind, ChannelRow, RangeLimit, Read, StoreError, Tx},
};

/// The one answer to strangers. It must not tell whether the channel exists.
pub(super) fn stranger() -> Refusal {
    Refusal::new(
        Code::AccessRefused,
        "there is no such channel, or this key may not use it: check channel, epoch and path of the key",
    )
}

/// The answer to a member whose key's time has ended.
fn ended() -> Refusal {
    Refusal::new(
        Code::AccessRefused,
        "a removal has ended what this session's key may do: read up to it, and if you are still a member, open a \
         session with your key of the current epoch",
    )
}

/// The answer to calls that are for the other kind of channel.
pub(super) fn other_kind(wanted: &str) -> Refusal {
    Refusal::new(Code::AccessRefused, format!("this call is for {wanted} only"))
}

/// What a session may see of its channel at this moment.
pub(super) struct Access {
    pub(super) row: ChannelRow,
    pub(super) range: ReadRange,
    /// The group's current epoch; none for an inbox.
    epoch: Option<Epoch>,
}

impl Access {
    /// Looks it up.
    pub(super) fn of(read: &mut dyn Read, channel: &ChannelId, place: Place) -> Result<Self, Refusal> {
        let row = read.channel(channel)?.ok_or_else(stranger)?;
        match (&row.kind, place) {
            (ChannelKind::Group { ledger }, Place::Member { epoch, started }) => {
                // Another commit may have begun the epoch since, if the first was annulled.
                let of = read.epoch(channel, epoch)?.filter(|row| row.started == started).ok_or_else(stranger)?;
                let range = ReadRange { after: of.base, until: read.first_removal(channel, epoch)? };
                Ok(Self { epoch: Some(ledger.epoch()), range, row })
            }
            (ChannelKind::Inbox { .. }, Place::Owner) => Ok(Self { epoch: None, range: ReadRange::ALL, row }),
            _ => Err(stranger()),
        }
    }

    /// Brings the channel to the time of the entry that comes next, and looks access up anew if that annulled commits.
    pub(super) fn advanced(mut self, tx: &mut dyn Tx, place: Place, now: Timestamp) -> Result<Self, Refusal> {
        let id = self.row.id;
        if standing::advance(tx, &mut self.row, now)? { Self::of(tx, &id, place) } else { Ok(self) }
    }

    /// The newest entry that may be read.
    pub(super) fn head(&self) -> Seq {
        self.range.head(self.row.head)
    }

    /// The group's current epoch, for who is a member in it for all that is known.
    pub(super) fn member(&self) -> Result<Epoch, Refusal> {
        let epoch = self.epoch.ok_or_else(|| other_kind("groups' channels"))?;
        if self.range.is_open() { Ok(epoch) } else { Err(ended()) }
    }

    /// Whether an entry of this kind and epoch may be written. A member whose access has ended is told what it can see
    /// for itself, and no later epoch.
    pub(super) fn admit(
        &self,
        read: &mut dyn Read,
        kind: conclave_channel::EntryKind,
        epoch: Epoch,
    ) -> Result<Epoch, Refusal> {
        let current = self.epoch.ok_or_else(|| other_kind("groups' channels"))?;
        let visible = match self.range.until {
            Some(until) => epoch_after(read, &self.row.id, until)?,
            None => current,
        };
        match law::admit(kind, epoch, visible) {
            Ok(()) => self.member(),
            Err(refused @ Refused::Conflict { ended, current }) => {
                let refusal = Refusal::new(Code::EpochConflict, refused.to_string()).with("epoch", current);
                Err(match read.epoch(&self.row.id, ended.next())? {
                    Some(row) => refusal.with("winner", row.started),
                    None => refusal,
                })
            }
            Err(refused @ Refused::Epoch { current, .. }) => {
                Err(Refusal::new(Code::EpochStale, refused.to_string()).with("epoch", current))
            }
            Err(refused) => Err(Refusal::new(Code::EntryInvalid, refused.to_string())),
        }
    }
}

/// The epoch that the commit at `seq` started.
fn epoch_after(read: &mut dyn Read, channel: &ChannelId, seq: Seq) -> Result<Epoch, Refusal> {
    let before = seq.previous().unwrap_or_default();
    let found = read.entries(channel, before, Some(seq), RangeLimit { entries: 1, bytes: 0 })?;
    match found.first() {
        Some(row) => Ok(row.epoch.next()),
        None => Err(StoreError::Corrupt(format!("no entry at {seq}, where a removal was")).into()),
    }
}
