use conclave_names::Timestamp;
use conclave_protocol::{
    Refusal, method,
    v1::{ClientRecord, GetUserRequest, GetUserResponse, SignedRequest},
};

use super::{AuthenticationService, user_unknown};
use crate::store::Tx;

impl AuthenticationService {
    /// `GetUser`: a user's identity key and clients, for any certified client.
    pub fn get_user(
        &self,
        tx: &mut dyn Tx,
        request: &SignedRequest,
        now: Timestamp,
    ) -> Result<GetUserResponse, Refusal> {
        let verified = self.admit(tx, request, method::GET_USER, now)?;
        self.certified(tx, &verified, now)?;
        let body: GetUserRequest = verified.decode()?;
        let user = self.own_user(&body.user)?;
        let row = tx.user(&user)?.ok_or_else(|| user_unknown(&user))?;
        let clients = tx.clients_of(&user)?.into_iter().map(|row| ClientRecord {
            client: row.client.to_string(),
            signature_key: row.signature_key.to_vec(),
            not_after: row.not_after_secs,
            registered_ms: row.registered.0,
        });
        Ok(GetUserResponse { identity_key: row.identity_key.to_vec(), clients: clients.collect() })
    }
}
