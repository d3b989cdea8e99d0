//! The service: one method for each call, one file each.

mod approve_link;
mod get_issuers;
mod get_link;
mod get_user;
mod invite;
mod issue_credential;
mod poll_link;
mod put_link;
mod register_user;
#[cfg(test)]
mod tests;

use conclave_mls::credential::{CERTIFICATE_MAX, ClientIdentity, Issuers, validate};
use conclave_names::{ClientUri, Domain, NameError, Timestamp, UserUri, limits::REQUEST_CLOCK_SKEW_MS};
use conclave_protocol::{
    Code, Refusal,
    signed::{self, Verified},
    v1::SignedRequest,
};

use crate::{
    CertificateAuthority,
    store::{LinkRow, Tx},
};

/// Life of a certificate unless the operator says otherwise, in seconds: 30 days.
pub const CREDENTIAL_LIFETIME_SECS: u64 = 30 * 24 * 3600;

/// Life of a link, in milliseconds: 10 minutes.
pub const LINK_LIFETIME_MS: u64 = 10 * 60 * 1000;

/// Links of one user that may be open at a time. Beyond, the oldest that nobody approved gives way.
pub const LINKS_PER_USER: u64 = 128;

/// Largest context or body of a signed request that is read here, in bytes.
const REQUEST_MAX: usize = 4096;

/// Who may register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// Everybody.
    Open,
    /// Who has an invite token of the operator.
    Invite,
}

/// The Authentication Service of one domain.
///
/// Each method takes one transaction: its caller commits it if the answer is `Ok`, and undoes it otherwise.
#[derive(Debug)]
pub struct AuthenticationService {
    authority: CertificateAuthority,
    issuers: Issuers,
    registration: Registration,
    credential_lifetime_secs: u64,
}

impl AuthenticationService {
    /// The service of the authority's domain.
    #[must_use]
    pub fn new(authority: CertificateAuthority, registration: Registration) -> Self {
        let issuers = [authority.issuer().clone()].into_iter().collect();
        Self { authority, issuers, registration, credential_lifetime_secs: CREDENTIAL_LIFETIME_SECS }
    }

    /// Sets the life of certificates, in seconds.
    #[must_use]
    pub fn with_credential_lifetime(mut self, secs: u64) -> Self {
        self.credential_lifetime_secs = secs;
        self
    }

    /// The domain that it serves.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        self.authority.domain()
    }

    /// The issuers that it believes.
    #[must_use]
    pub fn issuers(&self) -> &Issuers {
        &self.issuers
    }

    /// Forgets what has expired. To be called now and then.
    pub fn prune(&self, tx: &mut dyn Tx, now: Timestamp) -> Result<(), Refusal> {
        Ok(tx.prune(now)?)
    }

    /// Verifies a request and notes that it was used. Who may sign is the call's to check.
    fn admit(
        &self,
        tx: &mut dyn Tx,
        request: &SignedRequest,
        method: &str,
        now: Timestamp,
    ) -> Result<Verified, Refusal> {
        for (what, len, bound) in [
            ("`context`", request.context.len(), REQUEST_MAX),
            ("`body`", request.body.len(), REQUEST_MAX),
            ("`certificate`", request.certificate.len(), CERTIFICATE_MAX),
        ] {
            if len > bound {
                let message = format!("{what} of the request has {len} bytes; at most {bound} are read");
                return Err(Refusal::new(Code::TooLarge, message));
            }
        }
        let verified = signed::verify(request, method, self.domain(), now)?;
        // A request may be dated ahead by the skew, and is accepted until the skew after its date.
        let expires = now.plus_ms(2 * REQUEST_CLOCK_SKEW_MS).next();
        if !tx.note_nonce(verified.key.as_bytes(), &verified.nonce, expires)? {
            let message = "this request was sent before: sign it again with a new nonce";
            return Err(Refusal::new(Code::RequestReplayed, message));
        }
        Ok(verified)
    }

    /// Who signed a request, where the call asks for a certified client.
    fn certified(&self, tx: &mut dyn Tx, verified: &Verified, now: Timestamp) -> Result<ClientIdentity, Refusal> {
        let invalid = |why: String| Refusal::new(Code::CredentialInvalid, why);
        if verified.certificate.is_empty() {
            return Err(invalid("this call needs the signer's certificate: send it along".into()));
        }
        let who =
            validate(&verified.certificate, &self.issuers, Some(now)).map_err(|error| invalid(error.to_string()))?;
        if who.signature_key != *verified.key.as_bytes() {
            return Err(invalid("the certificate is of another key than the one that signed".into()));
        }
        if tx.is_former_key(&who.client, &who.signature_key)? {
            return Err(replaced(&who.client));
        }
        // All issuers known here are of this domain, so that the user is registered here or was.
        match tx.user(&who.user)? {
            Some(row) if row.identity_key == who.identity_key => Ok(who),
            _ => Err(invalid("the certificate's identity key is not the one that the user has registered".into())),
        }
    }

    fn own_user(&self, text: &str) -> Result<UserUri, Refusal> {
        let user: UserUri = text.parse().map_err(|error| not_a_name(&error))?;
        self.own(user.domain())?;
        Ok(user)
    }

    fn own_client(&self, text: &str) -> Result<ClientUri, Refusal> {
        let client: ClientUri = text.parse().map_err(|error| not_a_name(&error))?;
        self.own(client.domain())?;
        Ok(client)
    }

    fn own(&self, domain: &Domain) -> Result<(), Refusal> {
        if domain == self.domain() {
            return Ok(());
        }
        let message =
            format!("the name is of `{domain}`; this service is that of `{}`: ask the other one", self.domain());
        Err(Refusal::new(Code::NameInvalid, message))
    }
}

fn not_a_name(error: &NameError) -> Refusal {
    Refusal::new(Code::NameInvalid, error.to_string())
}

/// What is said to who signs with a key that its client has replaced.
fn replaced(client: &ClientUri) -> Refusal {
    let message = format!(
        "`{client}` has replaced this signature key by another, and it is good no more. If this device is an older copy, give it a new \
         one (`conclave keys rotate`); if you did not do this, somebody else has your identity key or is linked under this device's name"
    );
    Refusal::new(Code::KeyReplaced, message)
}

fn user_unknown(user: &UserUri) -> Refusal {
    Refusal::new(Code::UserUnknown, format!("no user `{user}` is registered here"))
}

/// A field of fixed length.
fn fixed<const N: usize>(bytes: &[u8], field: &str) -> Result<[u8; N], Refusal> {
    bytes
        .try_into()
        .map_err(|_| Refusal::new(Code::Malformed, format!("`{field}` has {} bytes; {N} are expected", bytes.len())))
}

/// A public key in a request that the same key must sign.
fn own_key(verified: &Verified, bytes: &[u8], field: &str) -> Result<[u8; 32], Refusal> {
    let key = fixed(bytes, field)?;
    if key == *verified.key.as_bytes() {
        return Ok(key);
    }
    let message = format!("the request must be signed by the key in `{field}`, and was signed by another");
    Err(Refusal::new(Code::SignatureInvalid, message))
}

/// What is said of a link that does not exist, and of one that is none of the caller's business.
fn link_unknown() -> Refusal {
    let message = "no such link, or it has expired: make a new link code on the new device";
    Refusal::new(Code::LinkUnknown, message)
}

/// A link that is open.
fn open_link(tx: &mut dyn Tx, link_id: &[u8], now: Timestamp) -> Result<LinkRow, Refusal> {
    let link_id = fixed(link_id, "link_id")?;
    tx.link(&link_id)?.filter(|row| row.expires > now).ok_or_else(link_unknown)
}
