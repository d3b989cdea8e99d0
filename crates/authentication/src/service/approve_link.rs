use conclave_names::Timestamp;
use conclave_protocol::{
    Code, Refusal, method,
    v1::{ApproveLinkRequest, ApproveLinkResponse, SignedRequest},
};

use super::{AuthenticationService, fixed, issue_credential::of_identity, link_unknown, open_link};
use crate::{
    binding::{binding_from_proto, invalid},
    store::{LinkApproval, LinkRow, Tx},
};

impl AuthenticationService {
    /// `ApproveLink`: the identity key's word for the new device. The last approval stands.
    pub fn approve_link(
        &self,
        tx: &mut dyn Tx,
        request: &SignedRequest,
        now: Timestamp,
    ) -> Result<ApproveLinkResponse, Refusal> {
        let verified = self.admit(tx, request, method::APPROVE_LINK, now)?;
        let body: ApproveLinkRequest = verified.decode()?;
        let mac = fixed(&body.mac, "mac")?;
        let binding = body
            .binding
            .as_ref()
            .ok_or_else(|| Refusal::new(Code::Malformed, "`binding` is missing"))
            .and_then(binding_from_proto)?;
        let row = open_link(tx, &body.link_id, now)?;
        let user = tx.user(row.client.user())?.ok_or_else(link_unknown)?;
        if user.identity_key != *verified.key.as_bytes() {
            return Err(link_unknown());
        }
        of_identity(&binding, &user)?;
        binding.verify(&row.client, &row.signature_key, Some(now)).map_err(|error| invalid(&error))?;
        tx.put_link(&LinkRow { approval: Some(LinkApproval { binding, mac }), ..row })?;
        Ok(ApproveLinkResponse {})
    }
}
