//! What requests have in common.

use conclave_mls::{credential::ClientIdentity, identity::signing_identity};
use conclave_names::{ChannelId, IdempotencyKey, InvalidHex, Timestamp, limits};
use conclave_protocol::{
    Code, Refusal, session,
    signed::{self, SignedRequestError, Verified},
    v1::{SessionRequest, SignedRequest},
};
use prost::Message;

use super::{
    DeliveryService,
    authenticated::{Found, Incoming, Proof},
};
use crate::{
    keyed::{Keyed, Purpose},
    session::Caller,
    store::Tx,
};

/// A request whose signer and freshness were verified.
pub(super) struct Signed<M> {
    pub(super) verified: Verified,
    pub(super) message: M,
    pub(super) keyed: Keyed,
}

impl DeliveryService {
    /// Verifies a signed request as far as that needs no store.
    pub(super) fn verified(&self, request: &SignedRequest, method: &str, now: Timestamp) -> Result<Verified, Refusal> {
        Ok(signed::verify(request, method, &self.domain, now)?)
    }

    /// Who signed, by the certificate.
    pub(super) fn identified(&self, verified: &Verified, now: Timestamp) -> Result<ClientIdentity, Refusal> {
        let identity = signing_identity(verified.certificate.clone(), verified.key.as_bytes());
        let judged = self.identities.identify(&identity, Some(now));
        judged.map_err(|error| Refusal::new(Code::CredentialInvalid, error.to_string()))
    }

    /// Verifies a signed request, and notes that it was seen.
    pub(super) fn signed<M: Message + Default>(
        &self,
        tx: &mut dyn Tx,
        request: &impl Incoming<SignedRequest>,
        method: &str,
        now: Timestamp,
    ) -> Result<Signed<M>, Refusal> {
        let verified = match request.proof(method) {
            Some(Found(Proof::Signed { verified, .. })) => Verified::clone(verified),
            _ => self.verified(request.request(), method, now)?,
        };
        let message = verified.decode()?;
        let keyed = Keyed::of(tx)?;
        let nonce = keyed.hash(Purpose::Nonce, &[verified.key.as_bytes(), &verified.nonce]);
        // Beyond this, the request is too old to be accepted anyway.
        let expires = verified.time.max(now).plus_ms(2 * limits::REQUEST_CLOCK_SKEW_MS);
        if !tx.note_nonce(&nonce, expires)? {
            return Err(Refusal::new(
                Code::RequestReplayed,
                "a request with this nonce was seen before: sign the request anew, with a fresh nonce",
            ));
        }
        Ok(Signed { verified, message, keyed })
    }

    /// Verifies a request signed by a certified client. Who it is is judged now.
    pub(super) fn certified<M: Message + Default>(
        &self,
        tx: &mut dyn Tx,
        request: &impl Incoming<SignedRequest>,
        method: &str,
        now: Timestamp,
    ) -> Result<(ClientIdentity, Signed<M>), Refusal> {
        let signed = self.signed(tx, request, method, now)?;
        if signed.verified.certificate.is_empty() {
            return Err(Refusal::new(
                Code::CredentialInvalid,
                "this call needs the client's certificate: send it in `certificate`",
            ));
        }
        let client = match request.proof(method) {
            Some(Found(Proof::Signed { client: Some(client), .. })) => client.clone()?,
            _ => self.identified(&signed.verified, now)?,
        };
        self.limiter.certified(method, &client, now)?;
        Ok((client, signed))
    }

    /// Refuses clients of other domains where the call is for our own.
    pub(super) fn own_client(&self, client: &ClientIdentity) -> Result<(), Refusal> {
        if *client.client.domain() == self.domain {
            return Ok(());
        }
        Err(Refusal::new(
            Code::NameInvalid,
            format!("`{}` is not a client of {}: keep KeyPackages at its own provider", client.client, self.domain),
        ))
    }

    /// Whose session a request is in, within what that one may do.
    pub(super) fn caller(&self, request: &SessionRequest, method: &str, now: Timestamp) -> Result<Caller, Refusal> {
        let caller = self.sessions.authenticate(method, request, now)?;
        self.limiter.in_session(method, &caller.pseudonym, request.body.len(), now)?;
        Ok(caller)
    }

    /// Authenticates a request in a session.
    pub(super) fn in_session<M: Message + Default>(
        &self,
        request: &impl Incoming<SessionRequest>,
        method: &str,
        now: Timestamp,
    ) -> Result<(Caller, M), Refusal> {
        let caller = match request.proof(method) {
            Some(Found(Proof::Session { caller, .. })) => *caller,
            _ => self.caller(request.request(), method, now)?,
        };
        Ok((caller, session::decode(request.request())?))
    }
}

/// A field that does not have the form that the contract says.
pub(super) fn malformed(what: &'static str) -> Refusal {
    SignedRequestError::Malformed(what).into()
}

/// A field that is over its bound.
pub(super) fn too_large(what: &str, bound: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::TooLarge, format!("{what} is over its bound of {bound}: send less"))
}

/// A field of fixed length.
pub(super) fn field<'a, T>(bytes: &'a [u8], what: &'static str) -> Result<T, Refusal>
where
    T: TryFrom<&'a [u8], Error = InvalidHex>,
{
    bytes.try_into().map_err(|_| malformed(what))
}

/// A field with a channel id.
pub(super) fn channel_id(bytes: &[u8]) -> Result<ChannelId, Refusal> {
    field(bytes, "a channel id has 16 bytes")
}

/// A field with an idempotency key.
pub(super) fn idempotency_key(bytes: &[u8]) -> Result<IdempotencyKey, Refusal> {
    field(bytes, "`idempotency_key` is not 16 bytes")
}
