use conclave_names::Timestamp;
use conclave_protocol::{
    Code, Refusal, method,
    v1::{RegisterUserRequest, RegisterUserResponse, SignedRequest},
};

use super::{AuthenticationService, Registration, own_key};
use crate::store::{Tx, UserRow};

impl AuthenticationService {
    /// `RegisterUser`: a new user with an identity key. Repeating it with the same key changes nothing, and uses up no
    /// invite.
    ///
    /// Who has no good invite where one is needed learns nothing of which names are taken.
    pub fn register_user(
        &self,
        tx: &mut dyn Tx,
        request: &SignedRequest,
        now: Timestamp,
    ) -> Result<RegisterUserResponse, Refusal> {
        let verified = self.admit(tx, request, method::REGISTER_USER, now)?;
        let body: RegisterUserRequest = verified.decode()?;
        let user = self.own_user(&body.user)?;
        let identity_key = own_key(&verified, &body.identity_key, "identity_key")?;
        let existing = tx.user(&user)?;
        if existing.as_ref().is_some_and(|row| row.identity_key == identity_key) {
            return Ok(RegisterUserResponse {});
        }
        if self.registration == Registration::Invite {
            Self::redeem(tx, &body.invite, now)?;
        }
        if existing.is_some() {
            let message = format!("`{user}` is registered with another identity key: choose another name");
            return Err(Refusal::new(Code::NameTaken, message));
        }
        tx.put_user(&UserRow { user, identity_key, registered: now })?;
        Ok(RegisterUserResponse {})
    }
}
