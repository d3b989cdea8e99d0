use conclave_names::{Seq, Timestamp, limits};
use conclave_protocol::{
    Refusal, method,
    v1::{FetchRequest, FetchResponse, LoggedEntry, SessionRequest},
};

use super::{DeliveryService, access::Access};
use crate::store::{EntryRow, RangeLimit, Read, StoreError};

impl DeliveryService {
    /// Reads entries after a position, as far as the session's key may read.
    ///
    /// # Errors
    /// [`conclave_protocol::Code::PositionGone`] if entries right after it are no longer kept.
    pub fn fetch(
        &self,
        read: &mut dyn Read,
        request: &SessionRequest,
        now: Timestamp,
    ) -> Result<FetchResponse, Refusal> {
        let (caller, message) = self.in_session::<FetchRequest>(request, method::FETCH, now)?;
        let access = Access::of(read, &caller.channel, caller.place)?.at(now);
        let limit = match message.limit {
            0 => limits::FETCH_ENTRIES,
            asked => asked.min(limits::FETCH_ENTRIES),
        };
        let after = Seq(message.after);
        let oldest = access.oldest(read)?;
        access.check_place(after, oldest)?;
        let rows = readable(read, &access, after, limit)?;
        Ok(FetchResponse { entries: rows.into_iter().map(logged).collect(), head: access.head().0, oldest: oldest.0 })
    }
}

/// Entries after a position, as far as access goes.
pub(super) fn readable(
    read: &mut dyn Read,
    access: &Access,
    after: Seq,
    entries: u32,
) -> Result<Vec<EntryRow>, StoreError> {
    let limit = RangeLimit { entries, bytes: limits::FETCH_BYTES };
    read.entries(&access.row.id, access.range.start(after), access.range.until, limit)
}

/// An entry as it goes to readers.
pub(super) fn logged(row: EntryRow) -> LoggedEntry {
    LoggedEntry { seq: row.seq.0, time_ms: row.time.0, entry: row.bytes }
}
