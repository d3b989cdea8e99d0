use conclave_names::Timestamp;
use conclave_protocol::{
    Refusal, method,
    v1::{ReadGroupInfoRequest, ReadGroupInfoResponse, SessionRequest},
};

use super::{DeliveryService, access::Access};
use crate::store::Read;

impl DeliveryService {
    /// Reads the sealed GroupInfo of the current epoch. Epoch 0 has none: its answer is empty.
    pub fn read_group_info(
        &self,
        read: &mut dyn Read,
        request: &SessionRequest,
        now: Timestamp,
    ) -> Result<ReadGroupInfoResponse, Refusal> {
        let (caller, ReadGroupInfoRequest {}) = self.in_session(request, method::READ_GROUP_INFO, now)?;
        let epoch = Access::of(read, &caller.channel, caller.place)?.member()?;
        Ok(match read.group_info(&caller.channel)? {
            Some(row) => ReadGroupInfoResponse {
                epoch: row.epoch.0,
                group_info: row.group_info,
                tree: row.tree.map(|hash| hash.to_vec()).unwrap_or_default(),
            },
            None => ReadGroupInfoResponse { epoch: epoch.0, ..ReadGroupInfoResponse::default() },
        })
    }
}
