use conclave_names::Timestamp;
use conclave_protocol::{
    Refusal, method,
    v1::{GetLinkRequest, GetLinkResponse, SignedRequest},
};

use super::{AuthenticationService, link_unknown, open_link};
use crate::store::Tx;

impl AuthenticationService {
    /// `GetLink`: what a new device asks, for a certified client of the same user. To others there is no such link.
    /// Whether the MAC is right only the client can tell.
    pub fn get_link(
        &self,
        tx: &mut dyn Tx,
        request: &SignedRequest,
        now: Timestamp,
    ) -> Result<GetLinkResponse, Refusal> {
        let verified = self.admit(tx, request, method::GET_LINK, now)?;
        let who = self.certified(tx, &verified, now)?;
        let body: GetLinkRequest = verified.decode()?;
        let row = open_link(tx, &body.link_id, now)?;
        if *row.client.user() != who.user {
            return Err(link_unknown());
        }
        Ok(GetLinkResponse {
            client: row.client.to_string(),
            signature_key: row.signature_key.to_vec(),
            mac: row.mac.to_vec(),
        })
    }
}
