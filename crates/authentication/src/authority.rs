//! The signing half of the service.

use std::fmt;

use conclave_mls::credential::{CertificateError, IdentityBinding, Issuer, KeyId};
use conclave_names::{ClientUri, Domain, Timestamp, code_points::OID_IDENTITY_BINDING};
use der::{
    Encode,
    asn1::{ObjectIdentifier, OctetString},
};
use ed25519_dalek::SigningKey;
use sha2::{Digest, Sha256};
use x509_cert::{
    ext::pkix::{AuthorityKeyIdentifier, BasicConstraints, KeyUsage, KeyUsages, SubjectAltName, SubjectKeyIdentifier},
    name::Name,
};
use zeroize::Zeroizing;

use crate::x509::{Content, dns, extension, uri, wrap};

/// Life of the authority's own certificate: ten years, in milliseconds.
const LIFETIME_MS: u64 = 10 * 365 * 24 * 3600 * 1000;

/// By how much certificates are dated back, for clocks that run behind, in milliseconds.
pub(crate) const BACKDATED_MS: u64 = 3600 * 1000;

const IDENTITY_BINDING: ObjectIdentifier = ObjectIdentifier::new_unwrap(OID_IDENTITY_BINDING);

/// Longest common name (RFC 5280, appendix A: `ub-common-name`), in characters.
const COMMON_NAME_MAX: usize = 64;

/// Why an authority cannot be made, loaded, or sign.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// The operating system gave no randomness.
    #[error("the operating system gave no random bytes: {0}")]
    Randomness(#[from] getrandom::Error),
    /// A certificate could not be written.
    #[error("a certificate could not be written: {0}")]
    Encoding(String),
    /// The stored certificate is not an issuer's.
    #[error("the stored certificate is not good for an authority: {0}")]
    Certificate(#[from] CertificateError),
    /// The stored key is another than the certificate's.
    #[error("the stored key does not belong to the stored certificate: restore both from the same backup")]
    KeyMismatch,
}

impl From<der::Error> for AuthorityError {
    fn from(error: der::Error) -> Self {
        Self::Encoding(error.to_string())
    }
}

/// The key by which a domain's clients are certified, and its certificate.
pub struct CertificateAuthority {
    key: SigningKey,
    issuer: Issuer,
}

impl CertificateAuthority {
    /// Makes a new key, with a self-signed certificate of ten years.
    pub fn generate(domain: &Domain, now: Timestamp) -> Result<Self, AuthorityError> {
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(secret.as_mut())?;
        Self::self_signed(domain, &secret, now)
    }

    /// Makes the self-signed certificate of ten years for a secret key that exists. Deterministic, for simulations.
    pub fn self_signed(domain: &Domain, secret: &[u8; 32], now: Timestamp) -> Result<Self, AuthorityError> {
        let key = SigningKey::from_bytes(secret);
        let public_key = key.verifying_key().to_bytes();
        let not_before = Timestamp(now.0.saturating_sub(BACKDATED_MS));
        let common_name = if domain.as_str().len() <= COMMON_NAME_MAX { domain.as_str() } else { "Conclave" };
        let name: Name = format!("CN={common_name}").parse()?;
        let key_id = OctetString::new(KeyId::of(&public_key).0)?;
        let der = Content {
            serial: first_16(Sha256::new().chain_update(public_key).chain_update(not_before.0.to_be_bytes())),
            issuer: name.to_der()?,
            subject: name,
            not_before,
            not_after: now.plus_ms(LIFETIME_MS),
            public_key,
            extensions: vec![
                extension(true, &BasicConstraints { ca: true, path_len_constraint: Some(0) })?,
                extension(true, &KeyUsage(KeyUsages::KeyCertSign.into()))?,
                extension(false, &SubjectKeyIdentifier(key_id))?,
                extension(false, &SubjectAltName(vec![dns(domain.as_str())?]))?,
            ],
        }
        .sign(&key)?;
        Self::from_parts(secret, &der)
    }

    /// Loads an authority: the secret key and the certificate as [`secret`](Self::secret) and
    /// [`certificate`](Self::certificate) gave them.
    pub fn from_parts(secret: &[u8; 32], certificate: &[u8]) -> Result<Self, AuthorityError> {
        let key = SigningKey::from_bytes(secret);
        let issuer = Issuer::parse(certificate)?;
        if issuer.public_key() != key.verifying_key().to_bytes() {
            return Err(AuthorityError::KeyMismatch);
        }
        Ok(Self { key, issuer })
    }

    /// The secret key, for the one file that keeps it.
    #[must_use]
    pub fn secret(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.key.to_bytes())
    }

    /// The authority's certificate in DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        self.issuer.der()
    }

    /// The authority as validators know it.
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// The domain whose clients it certifies.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        self.issuer.domain()
    }

    /// Writes and signs a client's certificate in DER. Whether the client should have it is the caller's to judge.
    /// The same inputs give the same bytes; two different certificates need two serials (of which 126 bits count).
    pub fn issue(
        &self,
        client: &ClientUri,
        signature_key: &[u8; 32],
        binding: &IdentityBinding,
        not_before: Timestamp,
        not_after: Timestamp,
        serial: [u8; 16],
    ) -> Result<Vec<u8>, AuthorityError> {
        let authority = AuthorityKeyIdentifier {
            key_identifier: Some(OctetString::new(self.issuer.key_id().0)?),
            ..AuthorityKeyIdentifier::default()
        };
        let names = SubjectAltName(vec![uri(&client.user().to_string())?, uri(&client.to_string())?]);
        let der = Content {
            serial,
            issuer: self.issuer.name_der().to_vec(),
            // Empty: the names are in subjectAltName, which is critical then (RFC 5280, section 4.2.1.6).
            subject: Name::default(),
            not_before,
            not_after,
            public_key: *signature_key,
            extensions: vec![
                extension(false, &authority)?,
                extension(true, &KeyUsage(KeyUsages::DigitalSignature.into()))?,
                extension(true, &names)?,
                wrap(IDENTITY_BINDING, false, &OctetString::new(binding.to_bytes())?)?,
            ],
        }
        .sign(&self.key)?;
        Ok(der)
    }
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAuthority").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

/// The first 16 bytes of a hash.
pub(crate) fn first_16(hash: Sha256) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
    bytes
}

#[cfg(test)]
mod tests {
    use conclave_mls::credential::{Issuers, LeafCertificate, validate};

    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);
    const DAY: u64 = 24 * 3600 * 1000;

    fn authority() -> CertificateAuthority {
        CertificateAuthority::self_signed(&"example.com".parse().unwrap(), &[7; 32], NOW).unwrap()
    }

    #[test]
    fn what_is_issued_is_believed() {
        let authority = authority();
        let identity = SigningKey::from_bytes(&[1; 32]);
        let signature_key = SigningKey::from_bytes(&[2; 32]).verifying_key().to_bytes();
        let client: ClientUri = "mimi://example.com/d/alice/laptop".parse().unwrap();
        let binding = IdentityBinding::sign(&identity, &client, &signature_key, NOW.plus_ms(90 * DAY));
        let issue =
            || authority.issue(&client, &signature_key, &binding, NOW, NOW.plus_ms(30 * DAY), [0xFF; 16]).unwrap();
        let der = issue();
        assert_eq!(der, issue());
        assert!(der.len() < 600, "{} bytes", der.len());
        let issuers: Issuers = [authority.issuer().clone()].into_iter().collect();
        let who = validate(&der, &issuers, Some(NOW)).unwrap();
        assert_eq!(who.client, client);
        assert_eq!(who.signature_key, signature_key);
        assert_eq!(who.identity_key, identity.verifying_key().to_bytes());
        assert_eq!(who.not_after, NOW.plus_ms(30 * DAY));
        let leaf = LeafCertificate::parse(&der).unwrap();
        assert_eq!(leaf.der(), der);
        assert_eq!(leaf.binding(), &binding);
    }

    #[test]
    fn it_is_loaded_from_its_parts() {
        let made = CertificateAuthority::generate(&"example.com".parse().unwrap(), NOW).unwrap();
        let loaded = CertificateAuthority::from_parts(&made.secret(), made.certificate()).unwrap();
        assert_eq!(loaded.certificate(), made.certificate());
        assert_eq!(loaded.domain().as_str(), "example.com");
        assert!(matches!(
            CertificateAuthority::from_parts(&[9; 32], made.certificate()),
            Err(AuthorityError::KeyMismatch)
        ));
        assert!(matches!(
            CertificateAuthority::from_parts(&made.secret(), b"nothing"),
            Err(AuthorityError::Certificate(_))
        ));
    }

    #[test]
    fn the_longest_domain_is_good() {
        let label = "a".repeat(63);
        let domain: Domain = [label.as_str(); 3].join(".").parse().unwrap();
        let authority = CertificateAuthority::self_signed(&domain, &[7; 32], NOW).unwrap();
        assert_eq!(authority.domain(), &domain);
    }

    #[test]
    fn debug_prints_no_key() {
        let shown = format!("{:?}", authority());
        assert!(!shown.contains("7, 7") && !shown.contains("0707"), "{shown}");
    }
}
