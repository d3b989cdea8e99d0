//! The one validator of credentials: clients, services and auditors all ask it (RFC 9750, section 6.5).

use conclave_names::{ClientUri, Domain, Timestamp, UserUri};

use super::{BindingError, CertificateError, Issuers, KeyId, LeafCertificate};

/// Why a credential is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidCredential {
    /// Not a certificate of our profile.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Nobody here believes an issuer with that key.
    #[error("the certificate's issuer (key {0}) is not known here: its domain's issuers must be added first")]
    UnknownIssuer(KeyId),
    /// The issuer certifies clients of another domain only.
    #[error("the issuer of `{issuer}` may not certify clients of `{client}`")]
    ForeignDomain {
        /// The issuer's domain.
        issuer: Domain,
        /// The client's domain.
        client: Domain,
    },
    /// The name of the issuer in the leaf is not the issuer's.
    #[error("the certificate calls its issuer by another name than the issuer's own")]
    IssuerName,
    /// The issuer did not sign it.
    #[error("the issuer's signature of the certificate does not verify")]
    Signature,
    /// The identity key's word is missing, or is for another client or key, or has ended.
    #[error("the user's identity key does not vouch for this key: {0}")]
    Binding(#[from] BindingError),
    /// The certificate lasts longer than the identity key's word.
    #[error("the certificate lasts longer than the identity key allowed")]
    OutlivesBinding,
    /// Its time has not begun.
    #[error("the certificate is not valid before {not_before} (ms since 1970): compare the clocks")]
    NotYetValid {
        /// The start.
        not_before: Timestamp,
    },
    /// Its time is over.
    #[error("the certificate expired at {not_after} (ms since 1970): the client must renew it")]
    Expired {
        /// The end.
        not_after: Timestamp,
    },
    /// The issuer's own time has not begun or is over.
    #[error("the issuer's own certificate is not valid at this time")]
    IssuerNotValid,
}

/// Who a validated credential is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The user.
    pub user: UserUri,
    /// The client, one device of that user.
    pub client: ClientUri,
    /// The user's Ed25519 public identity key.
    pub identity_key: [u8; 32],
    /// The client's Ed25519 public signature key that was certified.
    pub signature_key: [u8; 32],
    /// Start of the certificate's validity.
    pub not_before: Timestamp,
    /// End of the certificate's validity. The binding lasts at least as long.
    pub not_after: Timestamp,
    /// The key of the issuer.
    pub issuer: KeyId,
}

/// Judges a credential: the DER of a leaf certificate.
///
/// With a time, certificate, issuer and binding must be valid then. Without one, lifetimes are not judged: a
/// credential is judged by time once, when its leaf is admitted, and so a joiner does not judge again those who are
/// members already.
///
/// # Errors
/// The first reason found, in the order of [`InvalidCredential`]'s variants.
pub fn validate(der: &[u8], issuers: &Issuers, now: Option<Timestamp>) -> Result<ClientIdentity, InvalidCredential> {
    use InvalidCredential as E;
    let leaf = LeafCertificate::parse(der)?;
    let key_id = leaf.authority_key_id();
    let with_key = issuers.for_key_id(key_id);
    let client_domain = leaf.client().domain();
    let Some(issuer) = with_key.iter().find(|issuer| issuer.domain() == client_domain) else {
        return Err(with_key.first().map_or(E::UnknownIssuer(key_id), |other| E::ForeignDomain {
            issuer: other.domain().clone(),
            client: client_domain.clone(),
        }));
    };
    if leaf.certificate().issuer_name != issuer.name_der() {
        return Err(E::IssuerName);
    }
    if !leaf.certificate().signed_by(issuer.verifying_key()) {
        return Err(E::Signature);
    }
    let binding = leaf.binding();
    binding.verify(leaf.client(), &leaf.signature_key(), now)?;
    if leaf.not_after().as_secs() > binding.not_after_secs {
        return Err(E::OutlivesBinding);
    }
    if let Some(now) = now {
        if now < leaf.not_before() {
            return Err(E::NotYetValid { not_before: leaf.not_before() });
        }
        if !leaf.certificate().covers(now) {
            return Err(E::Expired { not_after: leaf.not_after() });
        }
        if !issuer.covers(now) {
            return Err(E::IssuerNotValid);
        }
    }
    Ok(ClientIdentity {
        user: leaf.user().clone(),
        client: leaf.client().clone(),
        identity_key: leaf.identity_key(),
        signature_key: leaf.signature_key(),
        not_before: leaf.not_before(),
        not_after: leaf.not_after(),
        issuer: key_id,
    })
}

/// What says which client somebody is.
pub trait OfClient {
    /// The client's name.
    fn client(&self) -> &ClientUri;
    /// Its user's identity key.
    fn identity_key(&self) -> [u8; 32];
}

impl OfClient for ClientIdentity {
    fn client(&self) -> &ClientUri {
        &self.client
    }

    fn identity_key(&self) -> [u8; 32] {
        self.identity_key
    }
}

impl OfClient for LeafCertificate {
    fn client(&self) -> &ClientUri {
        self.client()
    }

    fn identity_key(&self) -> [u8; 32] {
        self.identity_key()
    }
}

/// Whether two credentials are of the same client: the same name and the same identity key, whatever the signature
/// key (RFC 9750, section 4). A client whose user has a new identity key is another one. That decides who may update a leaf, come back in
/// its place, or be let into it again (RFC 9420, section 5.3.1).
#[must_use]
pub fn same_client(a: &impl OfClient, b: &impl OfClient) -> bool {
    a.client() == b.client() && a.identity_key() == b.identity_key()
}
