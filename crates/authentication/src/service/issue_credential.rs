use conclave_mls::credential::IdentityBinding;
use conclave_names::{Timestamp, limits::CLIENTS_PER_USER};
use conclave_protocol::{
    Code, Refusal, method,
    v1::{IssueCredentialRequest, IssueCredentialResponse, SignedRequest},
};
use sha2::{Digest, Sha256};

use super::{AuthenticationService, own_key, replaced, user_unknown};
use crate::{
    authority::{BACKDATED_MS, first_16},
    binding::{binding_from_proto, invalid},
    store::{ClientRow, Tx, UserRow},
};

impl AuthenticationService {
    /// `IssueCredential`: certifies a client's key, which signs the request, on the identity key's word.
    ///
    /// The certificate starts an hour ago, for clocks that run behind, and ends with the service's lifetime, the
    /// binding or the issuer, whichever is first. Repeating the call renews. Another key for the same client takes the place of the one before:
    /// the client has changed its key, or is set up again, which the identity key allowed. The one before is certified no more, and
    /// signs no request here: who has stolen it does not renew it.
    pub fn issue_credential(
        &self,
        tx: &mut dyn Tx,
        request: &SignedRequest,
        now: Timestamp,
    ) -> Result<IssueCredentialResponse, Refusal> {
        let verified = self.admit(tx, request, method::ISSUE_CREDENTIAL, now)?;
        let body: IssueCredentialRequest = verified.decode()?;
        let client = self.own_client(&body.client)?;
        let signature_key = own_key(&verified, &body.signature_key, "signature_key")?;
        let binding = body
            .binding
            .as_ref()
            .ok_or_else(|| Refusal::new(Code::Malformed, "`binding` is missing"))
            .and_then(binding_from_proto)?;
        let user = tx.user(client.user())?.ok_or_else(|| user_unknown(client.user()))?;
        of_identity(&binding, &user)?;
        binding.verify(&client, &signature_key, Some(now)).map_err(|error| invalid(&error))?;

        if tx.is_former_key(&client, &signature_key)? {
            return Err(replaced(&client));
        }

        let known = tx.client(&client)?;
        if known.is_none() && tx.count_clients(client.user())? >= CLIENTS_PER_USER {
            let message = format!("a user may have {CLIENTS_PER_USER} clients: use the name of one that is not in use");
            return Err(Refusal::new(Code::QuotaExceeded, message).with("limit", CLIENTS_PER_USER));
        }

        let not_after_secs = now
            .as_secs()
            .saturating_add(self.credential_lifetime_secs)
            .min(binding.not_after_secs)
            .min(self.authority.issuer().not_after().as_secs());
        // Unique, since the signature covers a nonce that was never seen before from this key.
        let serial = first_16(
            Sha256::new()
                .chain_update(signature_key)
                .chain_update(&request.signature)
                .chain_update(now.0.to_be_bytes()),
        );
        let certificate = self
            .authority
            .issue(
                &client,
                &signature_key,
                &binding,
                Timestamp(now.0.saturating_sub(BACKDATED_MS)),
                Timestamp::from_secs(not_after_secs),
                serial,
            )
            .map_err(|_| Refusal::new(Code::Internal, "the certificate could not be written; nothing was changed"))?;
        let registered = known.as_ref().map_or(now, |row| row.registered);
        if let Some(before) = known.filter(|row| row.signature_key != signature_key) {
            tx.put_former_key(&client, &before.signature_key)?;
        }
        tx.put_client(&ClientRow { client, signature_key, not_after_secs, registered })?;
        Ok(IssueCredentialResponse { certificate })
    }
}

/// Checks that a binding is by the identity key that the user registered.
pub(super) fn of_identity(binding: &IdentityBinding, user: &UserRow) -> Result<(), Refusal> {
    if binding.identity_key == user.identity_key {
        return Ok(());
    }
    let message = format!(
        "the binding is by another identity key than the one that `{}` registered: sign it on a device that has it",
        user.user
    );
    Err(Refusal::new(Code::IdentityMismatch, message))
}
