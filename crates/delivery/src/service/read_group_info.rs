use conclave_names::Timestamp;
use conclave_protocol::{
    Refusal, method,
    v1::{ReadGroupInfoRequest, ReadGroupInfoResponse, SessionRequest},
};

use super::{DeliveryService, access::Access};
use crate::store::{ChannelKind, Read, StoreError};

impl DeliveryService {
    /// Reads the sealed GroupInfo of the current epoch. Epoch 0 has none: its answer says how the channel ends only.
    pub fn read_group_info(
        &self,
        read: &mut dyn Read,
        request: &SessionRequest,
        now: Timestamp,
    ) -> Result<ReadGroupInfoResponse, Refusal> {
        let (caller, ReadGroupInfoRequest {}) = self.in_session(request, method::READ_GROUP_INFO, now)?;
        let access = Access::of(read, &caller.channel, caller.place)?;
        let epoch = access.member()?;
        let mut end = ReadGroupInfoResponse {
            epoch: epoch.0,
            head: access.row.head.0,
            chain: access.row.head_hash.to_vec(),
            ..ReadGroupInfoResponse::default()
        };
        if let ChannelKind::Group { ledger } = &access.row.kind {
            end.ledger = ledger.hash().map_err(|error| StoreError::Corrupt(error.to_string()))?.to_vec();
        }
        Ok(match read.group_info(&caller.channel)? {
            Some(row) => ReadGroupInfoResponse {
                epoch: row.epoch.0,
                group_info: row.group_info,
                tree: row.tree.map(|hash| hash.to_vec()).unwrap_or_default(),
                ..end
            },
            None => end,
        })
    }
}
