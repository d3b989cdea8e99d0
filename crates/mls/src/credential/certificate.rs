//! What leaves and issuers have in common: X.509 (RFC 5280) version 3 with Ed25519 (RFC 8410), and no more of it.

use std::fmt;

use conclave_names::{NameError, Timestamp};
use der::{AnyRef, Decode, Encode, Reader, SliceReader, asn1::BitStringRef};
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest, Sha256};
use x509_cert::{
    AlgorithmIdentifier, TbsCertificate, Version,
    der::asn1::{BitString, ObjectIdentifier},
    ext::Extension,
};

use super::BindingError;

/// Largest certificate that is read, in bytes.
pub const CERTIFICATE_MAX: usize = 4096;

/// Ed25519, as key and as signature algorithm (RFC 8410, section 3).
pub const OID_ED25519: &str = "1.3.101.112";

const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap(OID_ED25519);

/// Why a certificate is not of our profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// Over [`CERTIFICATE_MAX`].
    #[error("the certificate has {0} bytes; at most 4096 are read")]
    TooLong(usize),
    /// Not an X.509 certificate in DER.
    #[error("this is not an X.509 certificate in DER: {0}")]
    Der(String),
    /// Something follows the certificate.
    #[error("bytes follow the certificate: send it alone, without its chain")]
    TrailingBytes,
    /// Not version 3.
    #[error("the certificate is not of version 3")]
    Version,
    /// It has unique identifiers, which RFC 5280 forbids.
    #[error("the certificate has unique identifiers, which RFC 5280 forbids")]
    UniqueId,
    /// The key is of another algorithm.
    #[error("the certificate's key is not Ed25519 without parameters but {0}")]
    KeyAlgorithm(String),
    /// The bytes of the key are not a key that can be used.
    #[error("the certificate's key is not a usable Ed25519 public key")]
    Key,
    /// The signature is of another algorithm, or the two places that name it disagree.
    #[error("the certificate's signature is not Ed25519 without parameters but {0}")]
    SignatureAlgorithm(String),
    /// The signature is not 64 bytes.
    #[error("the certificate's signature is not 64 bytes")]
    SignatureLength,
    /// It ends before it begins.
    #[error("the certificate's validity ends before it begins")]
    Validity,
    /// An extension comes twice.
    #[error("the certificate has the extension {0} twice")]
    RepeatedExtension(String),
    /// A critical extension that is not understood.
    #[error("the certificate has the critical extension {0}, which is not understood here")]
    CriticalExtension(String),
    /// An extension that the profile demands is missing.
    #[error("the certificate has no {0}")]
    MissingExtension(&'static str),
    /// An extension does not decode, or says what the profile does not allow.
    #[error("the certificate's {0} is not as the profile demands: {1}")]
    BadExtension(&'static str, &'static str),
    /// A name in it is not a name.
    #[error("a name in the certificate is not good: {0}")]
    Name(#[from] NameError),
    /// The client's name is not one of the user's.
    #[error("the certificate names a client that is not the user's it names")]
    ClientOfAnotherUser,
    /// The identity binding in it does not decode.
    #[error("the certificate's identity binding is not good: {0}")]
    Binding(#[from] BindingError),
    /// A self-signed certificate's signature is not its key's.
    #[error("the certificate says that it is self-signed, but its own key did not sign it")]
    SelfSignature,
}

impl From<der::Error> for CertificateError {
    fn from(error: der::Error) -> Self {
        Self::Der(error.to_string())
    }
}

/// By which key an issuer is found: the first 20 bytes of the SHA-256 of its raw Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 20]);

impl KeyId {
    /// The id of a raw Ed25519 public key.
    #[must_use]
    pub fn of(public_key: &[u8; 32]) -> Self {
        let mut id = [0; 20];
        id.iter_mut().zip(Sha256::digest(public_key)).for_each(|(to, from)| *to = from);
        Self(id)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// A certificate whose outer form is ours. Its extensions are not judged yet.
#[derive(Clone)]
pub(super) struct Certificate {
    pub(super) der: Vec<u8>,
    /// The signed bytes, exactly as received.
    pub(super) tbs_der: Vec<u8>,
    pub(super) tbs: TbsCertificate,
    pub(super) key: VerifyingKey,
    pub(super) signature: Signature,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    /// The issuer's name in DER.
    pub(super) issuer_name: Vec<u8>,
    /// The subject's name in DER.
    pub(super) subject_name: Vec<u8>,
}

impl Certificate {
    pub(super) fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        if der.len() > CERTIFICATE_MAX {
            return Err(CertificateError::TooLong(der.len()));
        }
        let mut reader = SliceReader::new(der)?;
        let outer = AnyRef::decode(&mut reader)?;
        if !reader.is_finished() {
            return Err(CertificateError::TrailingBytes);
        }
        let (tbs_der, algorithm, signature) = outer.sequence(|inner| {
            let tbs = inner.tlv_bytes()?;
            Ok::<_, der::Error>((tbs, AlgorithmIdentifier::decode(inner)?, BitStringRef::decode(inner)?))
        })?;
        let tbs = TbsCertificate::from_der(tbs_der)?;

        if tbs.version() != Version::V3 {
            return Err(CertificateError::Version);
        }
        if tbs.issuer_unique_id().is_some() || tbs.subject_unique_id().is_some() {
            return Err(CertificateError::UniqueId);
        }
        for found in [tbs.signature(), &algorithm] {
            if !is_ed25519(found) {
                return Err(CertificateError::SignatureAlgorithm(found.oid.to_string()));
            }
        }
        let signature = signature
            .as_bytes()
            .and_then(|bytes| Signature::from_slice(bytes).ok())
            .ok_or(CertificateError::SignatureLength)?;
        let key_info = tbs.subject_public_key_info();
        if !is_ed25519(&key_info.algorithm) {
            return Err(CertificateError::KeyAlgorithm(key_info.algorithm.oid.to_string()));
        }
        let key = public_key(&key_info.subject_public_key).ok_or(CertificateError::Key)?;
        let seconds = |time: x509_cert::time::Time| Timestamp::from_secs(time.to_unix_duration().as_secs());
        let not_before = seconds(tbs.validity().not_before);
        let not_after = seconds(tbs.validity().not_after);
        if not_after < not_before {
            return Err(CertificateError::Validity);
        }
        Ok(Self {
            der: der.to_vec(),
            tbs_der: tbs_der.to_vec(),
            issuer_name: tbs.issuer().to_der()?,
            subject_name: tbs.subject().to_der()?,
            tbs,
            key,
            signature,
            not_before,
            not_after,
        })
    }

    /// The extensions, each at most once, with a function that knows some of them: it says whether it knew one.
    pub(super) fn extensions(
        &self,
        mut read: impl FnMut(&Extension) -> Result<bool, CertificateError>,
    ) -> Result<(), CertificateError> {
        let extensions = self.tbs.extensions().map(Vec::as_slice).unwrap_or_default();
        for (place, extension) in extensions.iter().enumerate() {
            if extensions.iter().take(place).any(|earlier| earlier.extn_id == extension.extn_id) {
                return Err(CertificateError::RepeatedExtension(extension.extn_id.to_string()));
            }
            if !read(extension)? && extension.critical {
                return Err(CertificateError::CriticalExtension(extension.extn_id.to_string()));
            }
        }
        Ok(())
    }

    /// Whether `key` signed it.
    pub(super) fn signed_by(&self, key: &VerifyingKey) -> bool {
        key.verify_strict(&self.tbs_der, &self.signature).is_ok()
    }

    /// Whether its validity covers a time; both ends belong to it (RFC 5280, section 4.1.2.5).
    pub(super) fn covers(&self, now: Timestamp) -> bool {
        (self.not_before.as_secs()..=self.not_after.as_secs()).contains(&now.as_secs())
    }
}

/// Decodes an extension's value, or says which did not decode.
pub(super) fn value<'a, T: Decode<'a>>(extension: &'a Extension, name: &'static str) -> Result<T, CertificateError> {
    T::from_der(extension.extn_value.as_bytes()).map_err(|_| CertificateError::BadExtension(name, "it does not decode"))
}

fn is_ed25519(algorithm: &AlgorithmIdentifier) -> bool {
    algorithm.oid == ED25519 && algorithm.parameters.is_none()
}

fn public_key(bits: &BitString) -> Option<VerifyingKey> {
    let bytes: &[u8; 32] = bits.as_bytes()?.try_into().ok()?;
    VerifyingKey::from_bytes(bytes).ok().filter(|key| !key.is_weak())
}
