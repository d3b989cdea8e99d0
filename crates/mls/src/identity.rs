//! What mls-rs asks about identities, answered by the one validator.

use std::sync::{Arc, PoisonError, RwLock};

use conclave_names::Timestamp;
use mls_rs::{
    ExtensionList, IdentityProvider,
    identity::{CredentialType, SigningIdentity},
    time::MlsTime,
};
use mls_rs_core::{error::IntoAnyError, identity::MemberValidationContext};

use crate::credential::{ClientIdentity, InvalidCredential, Issuers, LeafCertificate, validate};

/// Why a member is not admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The credential is not one X.509 certificate.
    #[error("the credential is not a single X.509 leaf certificate")]
    Type,
    /// The validator refused.
    #[error(transparent)]
    Invalid(#[from] InvalidCredential),
    /// The leaf signs with another key than the certificate's.
    #[error("the leaf's signature key is not the certificate's")]
    Key,
}

impl IntoAnyError for IdentityError {
    fn into_dyn_error(self) -> Result<Box<dyn std::error::Error + Send + Sync>, Self> {
        Ok(Box::new(self))
    }
}

/// Who a leaf's signing identity is, at a time (none: lifetimes are not judged).
pub fn identify(
    signing_identity: &SigningIdentity,
    issuers: &Issuers,
    time: Option<Timestamp>,
) -> Result<ClientIdentity, IdentityError> {
    let chain = signing_identity.credential.as_x509().ok_or(IdentityError::Type)?;
    let [leaf] = chain.as_slice() else { return Err(IdentityError::Type) };
    let identity = validate(leaf, issuers, time)?;
    if signing_identity.signature_key.as_bytes() != identity.signature_key {
        return Err(IdentityError::Key);
    }
    Ok(identity)
}

/// Reads a member's certificate without judging it: it was judged when the member was admitted.
pub fn read(signing_identity: &SigningIdentity) -> Result<LeafCertificate, IdentityError> {
    let chain = signing_identity.credential.as_x509().ok_or(IdentityError::Type)?;
    let [leaf] = chain.as_slice() else { return Err(IdentityError::Type) };
    Ok(LeafCertificate::parse(leaf).map_err(InvalidCredential::from)?)
}

/// A signing identity from a leaf certificate.
#[must_use]
pub fn signing_identity(certificate: Vec<u8>, signature_key: &[u8; 32]) -> SigningIdentity {
    let chain = mls_rs_core::identity::CertificateChain::from(vec![certificate]);
    SigningIdentity::new(chain.into_credential(), signature_key.to_vec().into())
}

/// The provider for mls-rs. Clones share the issuers, which may be added to while groups are open.
#[derive(Debug, Clone, Default)]
pub struct Identities {
    issuers: Arc<RwLock<Issuers>>,
}

impl Identities {
    /// With these issuers.
    #[must_use]
    pub fn new(issuers: Issuers) -> Self {
        Self { issuers: Arc::new(RwLock::new(issuers)) }
    }

    /// Replaces the issuers.
    pub fn set_issuers(&self, issuers: Issuers) {
        *self.issuers.write().unwrap_or_else(PoisonError::into_inner) = issuers;
    }

    /// Who a leaf's signing identity is.
    pub fn identify(
        &self,
        signing_identity: &SigningIdentity,
        time: Option<Timestamp>,
    ) -> Result<ClientIdentity, IdentityError> {
        identify(signing_identity, &self.issuers.read().unwrap_or_else(PoisonError::into_inner), time)
    }
}

fn timestamp(time: MlsTime) -> Timestamp {
    Timestamp::from_secs(time.seconds_since_epoch())
}

impl IdentityProvider for Identities {
    type Error = IdentityError;

    fn validate_member(
        &self,
        signing_identity: &SigningIdentity,
        time: Option<MlsTime>,
        _context: MemberValidationContext<'_>,
    ) -> Result<(), IdentityError> {
        self.identify(signing_identity, time.map(timestamp)).map(drop)
    }

    /// External senders are certified clients like members (RFC 9750, section 6.4: which ones, the group's context says).
    fn validate_external_sender(
        &self,
        signing_identity: &SigningIdentity,
        time: Option<MlsTime>,
        _extensions: Option<&ExtensionList>,
    ) -> Result<(), IdentityError> {
        self.identify(signing_identity, time.map(timestamp)).map(drop)
    }

    /// The client's URI: a client is in a group once. What is asked about here was or will be validated as a member,
    /// so the certificate is only read: mls-rs asks for every leaf of a tree.
    fn identity(&self, signing_identity: &SigningIdentity, _: &ExtensionList) -> Result<Vec<u8>, IdentityError> {
        Ok(read(signing_identity)?.client().to_string().into_bytes())
    }

    /// Keys rotate within a client: same URI and same identity key (R17, R31).
    fn valid_successor(
        &self,
        predecessor: &SigningIdentity,
        successor: &SigningIdentity,
        _: &ExtensionList,
    ) -> Result<bool, IdentityError> {
        let (before, after) = (read(predecessor)?, read(successor)?);
        Ok(before.client() == after.client() && before.identity_key() == after.identity_key())
    }

    fn supported_types(&self) -> Vec<CredentialType> {
        vec![CredentialType::X509]
    }
}
