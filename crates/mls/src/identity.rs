//! What mls-rs asks about identities, answered by the one validator.

use std::sync::{Arc, PoisonError, RwLock};

use conclave_names::{ClientUri, Timestamp};
use mls_rs::{
    ExtensionList, IdentityProvider,
    identity::{Credential, CredentialType, SigningIdentity},
    time::MlsTime,
};
use mls_rs_core::{error::IntoAnyError, identity::MemberValidationContext};

use crate::{
    credential::{ClientIdentity, InvalidCredential, Issuer, Issuers, KeyId, LeafCertificate, same_client, validate},
    validated::{Validated, name_of},
};

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

/// The certificate of a signing identity, in DER.
fn leaf_of(signing_identity: &SigningIdentity) -> Result<&[u8], IdentityError> {
    let Credential::X509(chain) = &signing_identity.credential else { return Err(IdentityError::Type) };
    let [leaf] = chain.as_slice() else { return Err(IdentityError::Type) };
    Ok(leaf)
}

/// Who a leaf's signing identity is, at a time (none: lifetimes are not judged).
pub fn identify(
    signing_identity: &SigningIdentity,
    issuers: &Issuers,
    time: Option<Timestamp>,
) -> Result<ClientIdentity, IdentityError> {
    let identity = validate(leaf_of(signing_identity)?, issuers, time)?;
    if signing_identity.signature_key.as_bytes() != identity.signature_key {
        return Err(IdentityError::Key);
    }
    Ok(identity)
}

/// Reads a member's certificate without judging it: it was judged when the member was admitted.
pub fn read(signing_identity: &SigningIdentity) -> Result<LeafCertificate, IdentityError> {
    Ok(LeafCertificate::parse(leaf_of(signing_identity)?).map_err(InvalidCredential::from)?)
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
    believed: Arc<RwLock<Believed>>,
}

#[derive(Debug, Default)]
struct Believed {
    issuers: Issuers,
    /// How often they were replaced.
    replaced: u64,
    /// What these issuers certified.
    validated: Validated,
    /// The issuer of the last certificate that was refused because nobody here believes it.
    missing: Option<KeyId>,
}

impl Identities {
    /// With these issuers.
    #[must_use]
    pub fn new(issuers: Issuers) -> Self {
        Self { believed: Arc::new(RwLock::new(Believed { issuers, ..Believed::default() })) }
    }

    /// Replaces the issuers.
    pub fn set_issuers(&self, issuers: Issuers) {
        let mut believed = self.believed.write().unwrap_or_else(PoisonError::into_inner);
        believed.issuers = issuers;
        believed.replaced = believed.replaced.wrapping_add(1);
        believed.validated.clear();
        believed.missing = None;
    }

    /// The issuer that the last certificate named which was refused for that alone: it is not known here, and may be learnt. None if there
    /// was no such certificate since this was asked.
    #[must_use]
    pub fn take_missing(&self) -> Option<KeyId> {
        self.believed.write().unwrap_or_else(PoisonError::into_inner).missing.take()
    }

    /// Whether there was such a certificate.
    #[must_use]
    pub fn is_missing_an_issuer(&self) -> bool {
        self.believed.read().unwrap_or_else(PoisonError::into_inner).missing.is_some()
    }

    /// Who a leaf's signing identity is.
    pub fn identify(
        &self,
        signing_identity: &SigningIdentity,
        time: Option<Timestamp>,
    ) -> Result<ClientIdentity, IdentityError> {
        let name = name_of(leaf_of(signing_identity)?);
        let believed = self.believed.read().unwrap_or_else(PoisonError::into_inner);
        let known = believed.validated.get(&name).filter(|known| time.is_none_or(|time| believed.covers(known, time)));
        if let Some(known) = known.filter(|known| signing_identity.signature_key.as_bytes() == known.signature_key) {
            return Ok(known.clone());
        }
        // A refusal is told with its reason, each time anew.
        let identity = identify(signing_identity, &believed.issuers, time);
        let judged_by = believed.replaced;
        drop(believed);
        if let Err(IdentityError::Invalid(InvalidCredential::UnknownIssuer(issuer))) = &identity {
            self.believed.write().unwrap_or_else(PoisonError::into_inner).missing = Some(*issuer);
        }
        let identity = identity?;
        let mut believed = self.believed.write().unwrap_or_else(PoisonError::into_inner);
        // The issuers may be others by now.
        if believed.replaced == judged_by {
            believed.validated.insert(name, identity.clone());
        }
        Ok(identity)
    }

    /// The client of an identity that was validated before, if that is remembered.
    fn known_client(&self, signing_identity: &SigningIdentity) -> Option<ClientUri> {
        let name = name_of(leaf_of(signing_identity).ok()?);
        let believed = self.believed.read().unwrap_or_else(PoisonError::into_inner);
        believed.validated.get(&name).map(|known| known.client.clone())
    }
}

impl Believed {
    fn issuer_of(&self, identity: &ClientIdentity) -> Option<&Issuer> {
        let domain = identity.client.domain();
        self.issuers.for_key_id(identity.issuer).iter().find(|issuer| issuer.domain() == domain)
    }

    /// Whether certificate and issuer are valid at a time. The binding lasts at least as long as the certificate.
    fn covers(&self, identity: &ClientIdentity, time: Timestamp) -> bool {
        let certificate = identity.not_before <= time && time.as_secs() <= identity.not_after.as_secs();
        certificate && self.issuer_of(identity).is_some_and(|issuer| issuer.covers(time))
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
        if let Some(client) = self.known_client(signing_identity) {
            return Ok(client.to_string().into_bytes());
        }
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
        Ok(same_client(&before, &after))
    }

    fn supported_types(&self) -> Vec<CredentialType> {
        vec![CredentialType::X509]
    }
}
