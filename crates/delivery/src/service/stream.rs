use conclave_names::{ChannelId, Seq, StreamHandle, Timestamp, limits};
use conclave_protocol::{
    Refusal, method,
    v1::{AttachRequest, DetachRequest, LoggedEntry, SessionRequest},
};

use super::{
    DeliveryService,
    access::{Access, stranger},
    fetch::logged,
    request::field,
};
use crate::{
    session::Place,
    store::{RangeLimit, Read},
};

/// Bytes of entries in one batch of a stream. A reader that takes nothing costs one batch that is sent and one that waits.
const BYTES: usize = 256 * 1024;

/// What a stream carries of a channel: as much as the key may read that attached it, also when the session is
/// forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subscription {
    channel: ChannelId,
    place: Place,
}

impl Subscription {
    /// The channel.
    #[must_use]
    pub fn channel(&self) -> &ChannelId {
        &self.channel
    }
}

/// A stream is to carry a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attached {
    /// The stream.
    pub handle: StreamHandle,
    /// What it is to carry.
    pub subscription: Subscription,
    /// Entries after this one.
    pub after: Seq,
}

/// A stream is to carry a channel no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detached {
    /// The stream.
    pub handle: StreamHandle,
    /// The channel.
    pub channel: ChannelId,
}

/// Why a stream carries a channel no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEnd {
    /// A removal ended the access of the key; the removing commit was the last entry.
    AccessEnded,
    /// The client asked for it.
    Detached,
    /// The channel is gone.
    ChannelGone,
    /// What was to come next is no longer kept.
    PositionGone,
}

impl StreamEnd {
    /// The stable code on the wire (`StreamEnded.reason`).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AccessEnded => "ACCESS_ENDED",
            Self::Detached => "DETACHED",
            Self::ChannelGone => "CHANNEL_GONE",
            Self::PositionGone => "POSITION_GONE",
        }
    }
}

/// The next that a stream carries of a channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// In order, without gaps: at most as many as in one fetch, and 256 KiB of them (or one that is longer). Empty if
    /// there is nothing new.
    pub entries: Vec<LoggedEntry>,
    /// Entries after this one are next.
    pub position: Seq,
    /// Whether more is there already: ask again without waiting.
    pub more: bool,
    /// After these entries the stream carries the channel no longer.
    pub ended: Option<StreamEnd>,
}

impl DeliveryService {
    /// Checks that a session's channel may be attached to a stream. The stream itself is the caller's
    /// (`STREAM_UNKNOWN`, `Code::StreamUnknown`, if there is none of the handle).
    pub fn attach(&self, read: &mut dyn Read, request: &SessionRequest, now: Timestamp) -> Result<Attached, Refusal> {
        let (caller, message) = self.in_session::<AttachRequest>(request, method::ATTACH, now)?;
        let handle = field(&message.handle, "`handle` is not 16 bytes")?;
        let access = Access::of(read, &caller.channel, caller.place)?;
        let oldest = access.oldest(read)?;
        access.check_place(Seq(message.after), oldest)?;
        let subscription = Subscription { channel: caller.channel, place: caller.place };
        Ok(Attached { handle, subscription, after: Seq(message.after) })
    }

    /// Checks that a session's channel may be detached from a stream.
    pub fn detach(&self, request: &SessionRequest, now: Timestamp) -> Result<Detached, Refusal> {
        let (caller, message) = self.in_session::<DetachRequest>(request, method::DETACH, now)?;
        let handle = field(&message.handle, "`handle` is not 16 bytes")?;
        Ok(Detached { handle, channel: caller.channel })
    }

    /// What a stream carries next. Access is judged anew each time, so that a removed member's stream ends after the
    /// commit that removed it.
    pub fn stream_batch(&self, read: &mut dyn Read, subscription: &Subscription, after: Seq) -> Result<Batch, Refusal> {
        let access = match Access::of(read, &subscription.channel, subscription.place) {
            Ok(access) => access,
            Err(refusal) if refusal == stranger() => {
                let ended = Some(StreamEnd::ChannelGone);
                return Ok(Batch { entries: Vec::new(), position: after, more: false, ended });
            }
            Err(refusal) => return Err(refusal),
        };
        let limit = RangeLimit { entries: limits::FETCH_ENTRIES, bytes: BYTES };
        let rows = read.entries(&access.row.id, access.range.start(after), access.range.until, limit)?;
        let start = access.range.start(after);
        // A reader so slow that retention has overtaken it.
        let skipped = rows.first().map_or(start < access.head(), |first| first.seq != start.next());
        if skipped && access.check_place(after, access.oldest(read)?).is_err() {
            let ended = Some(StreamEnd::PositionGone);
            return Ok(Batch { entries: Vec::new(), position: after, more: false, ended });
        }
        let position = rows.last().map_or(access.range.start(after), |row| row.seq);
        let more = position < access.head() && !rows.is_empty();
        let over = access.range.until.is_some_and(|until| position >= until);
        Ok(Batch {
            entries: rows.into_iter().map(logged).collect(),
            position,
            more,
            ended: over.then_some(StreamEnd::AccessEnded),
        })
    }
}
