use conclave_names::{Timestamp, limits};
use conclave_protocol::{
    Code, Refusal, method,
    v1::{ReadTreeRequest, ReadTreeResponse, SessionRequest},
};

use super::{
    DeliveryService,
    access::{Access, other_kind},
    request::malformed,
};
use crate::store::Read;

impl DeliveryService {
    /// Reads a part of the ratchet tree of a visible group's current epoch.
    pub fn read_tree(
        &self,
        read: &mut dyn Read,
        request: &SessionRequest,
        now: Timestamp,
    ) -> Result<ReadTreeResponse, Refusal> {
        let (caller, message) = self.in_session::<ReadTreeRequest>(request, method::READ_TREE, now)?;
        let epoch = Access::of(read, &caller.channel, caller.place)?.member()?;
        let Some(followed) = self.followed(read, &caller.channel)? else {
            return Err(other_kind("groups with visible handshakes"));
        };
        if message.epoch != epoch.0 || followed.epoch() != epoch {
            let cause = format!("the group is in epoch {epoch}: read that epoch's tree");
            return Err(Refusal::new(Code::EpochStale, cause).with("epoch", epoch));
        }
        let tree = followed.tree().map_err(|error| Refusal::new(Code::Internal, error.to_string()))?;
        let begin = usize::try_from(message.offset).ok().filter(|begin| *begin <= tree.len());
        let Some(rest) = begin.and_then(|begin| tree.get(begin..)) else {
            return Err(malformed("`offset` lies beyond the tree's end"));
        };
        let data = rest.get(..limits::BLOB_CHUNK).unwrap_or(rest).to_vec();
        Ok(ReadTreeResponse { size: tree.len() as u64, data })
    }
}
