use conclave_names::Timestamp;
use conclave_protocol::{
    Refusal, method,
    v1::{PollLinkRequest, PollLinkResponse, SignedRequest},
};

use super::{AuthenticationService, link_unknown, open_link};
use crate::{binding::binding_to_proto, store::Tx};

impl AuthenticationService {
    /// `PollLink`: whether a link was approved, for the device that made it. Whether the MAC is right only the client
    /// can tell.
    pub fn poll_link(
        &self,
        tx: &mut dyn Tx,
        request: &SignedRequest,
        now: Timestamp,
    ) -> Result<PollLinkResponse, Refusal> {
        let verified = self.admit(tx, request, method::POLL_LINK, now)?;
        let body: PollLinkRequest = verified.decode()?;
        let row = open_link(tx, &body.link_id, now)?;
        if row.signature_key != *verified.key.as_bytes() {
            return Err(link_unknown());
        }
        Ok(row.approval.map_or_else(PollLinkResponse::default, |approval| PollLinkResponse {
            binding: Some(binding_to_proto(&approval.binding)),
            mac: approval.mac.to_vec(),
        }))
    }
}
