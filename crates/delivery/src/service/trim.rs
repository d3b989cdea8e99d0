use conclave_names::{Seq, Timestamp};
use conclave_protocol::{
    Refusal, method,
    v1::{SessionRequest, TrimRequest, TrimResponse},
};

use super::{
    DeliveryService, Done, Incoming,
    access::{Access, other_kind},
    request::malformed,
};
use crate::{
    session::Place,
    store::{ChannelRow, Tx},
};

impl DeliveryService {
    /// Removes an inbox's entries up to a position. Sequence numbers and running hash go on as they were.
    pub fn trim(
        &self,
        tx: &mut dyn Tx,
        request: &impl Incoming<SessionRequest>,
        now: Timestamp,
    ) -> Result<Done<TrimResponse>, Refusal> {
        let (caller, message) = self.in_session::<TrimRequest>(request, method::TRIM, now)?;
        let access = Access::of(tx, &caller.channel, caller.place)?;
        if caller.place != Place::Owner {
            return Err(other_kind("inboxes"));
        }
        let up_to = Seq(message.up_to);
        if up_to > access.row.head {
            return Err(malformed("`up_to` lies beyond the inbox's newest entry"));
        }
        let deleted = tx.delete_entries(&caller.channel, up_to)?;
        if deleted > 0 {
            let bytes = access.row.bytes.saturating_sub(deleted);
            tx.put_channel(&ChannelRow { bytes, ..access.row })?;
        }
        Ok(Done::quiet(TrimResponse {}))
    }
}
