//! Who may do what in a channel, looked up anew for every request.

use conclave_channel::{
    access::ReadRange,
    law::{self, Change, Refused},
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

/// The answer to who wanted to commit from outside in an epoch that is over.
fn passed() -> Refusal {
    Refusal::new(
        Code::AccessRefused,
        "the epoch of this join key is over: read the GroupInfo of the present one, and make the commit anew",
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
    /// Looks it up, for who may read what it may see.
    pub(super) fn of(read: &mut dyn Read, channel: &ChannelId, place: Place) -> Result<Self, Refusal> {
        if matches!(place, Place::Joiner { .. }) {
            return Err(other_kind("members: a join key admits to one commit, and to no more"));
        }
        Self::of_any(read, channel, place)
    }

    /// Looks it up, for who may only commit as well.
    pub(super) fn of_any(read: &mut dyn Read, channel: &ChannelId, place: Place) -> Result<Self, Refusal> {
        let row = read.channel(channel)?.ok_or_else(stranger)?;
        match (&row.kind, place) {
            (ChannelKind::Group { ledger }, Place::Member { epoch, started }) => {
                // Another commit may have begun the epoch since, if the first was annulled.
                let of = read.epoch(channel, epoch)?.filter(|row| row.started == started).ok_or_else(stranger)?;
                let until = match of.closed {
                    Some(removal) => Some(removal),
                    None => read.first_removal(channel, epoch)?,
                };
                let range = ReadRange { after: of.base, until };
                Ok(Self { epoch: Some(ledger.epoch()), range, row })
            }
            (ChannelKind::Group { ledger }, Place::Joiner { epoch, started }) => {
                let of = read.epoch(channel, epoch)?.filter(|row| row.started == started).ok_or_else(stranger)?;
                if ledger.epoch() != epoch {
                    return Err(passed());
                }
                let range = ReadRange { after: of.base, until: None };
                Ok(Self { epoch: Some(epoch), range, row })
            }
            (ChannelKind::Inbox { .. }, Place::Owner) => Ok(Self { epoch: None, range: ReadRange::ALL, row }),
            _ => Err(stranger()),
        }
    }

    /// Brings the channel to the time of the entry that comes next, and looks access up anew if that annulled commits.
    pub(super) fn advanced(mut self, tx: &mut dyn Tx, place: Place, now: Timestamp) -> Result<Self, Refusal> {
        let id = self.row.id;
        if standing::advance(tx, &mut self.row, now)? { Self::of_any(tx, &id, place) } else { Ok(self) }
    }

    /// The newest entry that may be read.
    pub(super) fn head(&self) -> Seq {
        self.range.head(self.row.head)
    }

    /// The oldest entry that is kept for this session, or the place after its newest if there is none.
    pub(super) fn oldest(&self, read: &mut dyn Read) -> Result<Seq, StoreError> {
        let kept = read.oldest(&self.row.id)?.map_or(self.row.head.next(), |(seq, _)| seq).max(self.range.after.next());
        // Of what comes after its removal a former member is not to learn how much of it there is.
        Ok(self.range.until.map_or(kept, |until| kept.min(until.next())))
    }

    /// Refuses to go on where entries are missing right after a place. An inbox is no log of which every entry must be
    /// read: there, what was trimmed or has expired is passed over.
    pub(super) fn check_place(&self, after: Seq, oldest: Seq) -> Result<(), Refusal> {
        let next = self.range.start(after).next();
        if self.epoch.is_none() || next >= oldest {
            return Ok(());
        }
        Err(Refusal::new(
            Code::PositionGone,
            format!(
                "entries from {next} to {} of this channel are no longer kept: this client has missed them; it has to come \
                 back by the group's present state, or be let in by a member",
                Seq(oldest.0.saturating_sub(1))
            ),
        )
        .with("oldest", oldest))
    }

    /// The group's current epoch, for who is a member in it for all that is known.
    pub(super) fn member(&self) -> Result<Epoch, Refusal> {
        let epoch = self.epoch.ok_or_else(|| other_kind("groups' channels"))?;
        if self.range.is_open() { Ok(epoch) } else { Err(ended()) }
    }

    /// The same for what goes before an entry, at its time: a removal that is annulled by then ends nothing. The channel itself
    /// comes to that time with the entry.
    pub(super) fn member_at(&self, now: Timestamp) -> Result<Epoch, Refusal> {
        match &self.row.kind {
            ChannelKind::Group { ledger } if self.is_back(now) => Ok(ledger.epoch()),
            _ => self.member(),
        }
    }

    /// What may be read at a time: who is a member again because time has annulled the removal reads what came after it, before an entry
    /// shows that.
    pub(super) fn at(mut self, now: Timestamp) -> Self {
        if self.is_back(now) {
            // All commits after it are void with it.
            self.range.until = None;
        }
        self
    }

    /// Whether the removal that ends access is annulled at a time.
    fn is_back(&self, now: Timestamp) -> bool {
        let (Some(until), ChannelKind::Group { ledger }) = (self.range.until, &self.row.kind) else { return false };
        let void = |change: &Change| matches!(change, Change::Annulled { commits, .. } if commits.contains(&until));
        ledger.clone().advance(self.row.time(now)).iter().any(void)
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
            Some(until) => epoch_after(read, &self.row.id, until)?.ok_or_else(ended)?,
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

/// The epoch that the commit at `seq` started, if that is still kept.
fn epoch_after(read: &mut dyn Read, channel: &ChannelId, seq: Seq) -> Result<Option<Epoch>, Refusal> {
    let before = seq.previous().unwrap_or_default();
    let found = read.entries(channel, before, Some(seq), RangeLimit { entries: 1, bytes: 0 })?;
    Ok(found.first().map(|row| row.epoch.next()))
}
