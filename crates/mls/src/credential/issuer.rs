//! The certificates by which an Authentication Service certifies clients.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use conclave_names::{Domain, Timestamp};
use der::oid::AssociatedOid;
use ed25519_dalek::VerifyingKey;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, KeyUsage, SubjectAltName, SubjectKeyIdentifier, name::GeneralName,
};

use super::{
    CertificateError, KeyId,
    certificate::{Certificate, value},
};

const NAMES: &str = "subjectAltName";
const USAGE: &str = "keyUsage";
const CONSTRAINTS: &str = "basicConstraints";
const SUBJECT: &str = "subjectKeyIdentifier";
const DOMAIN: &str = "domain";

/// The certificate of an Authentication Service: version 3, Ed25519, `cA`, `keyCertSign`, and one domain (the only
/// `dNSName` of the `subjectAltName`, or else the common name).
///
/// A self-signed one proves itself while it is read. A cross certificate (another key signed it) does not: reading it
/// says nothing about who signed it. Either is believed because somebody put it into [`Issuers`].
#[derive(Clone)]
pub struct Issuer {
    certificate: Certificate,
    domain: Domain,
    key_id: KeyId,
}

impl Issuer {
    /// Reads one certificate; nothing may follow it.
    pub fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        let certificate = Certificate::parse(der)?;
        let key_id = KeyId::of(certificate.key.as_bytes());
        let (mut domain, mut authority, mut usage, mut constraints) = (None, None, false, false);
        certificate.extensions(|extension| {
            match extension.extn_id {
                SubjectAltName::OID => {
                    let names: SubjectAltName = value(extension, NAMES)?;
                    let [GeneralName::DnsName(name)] = names.0.as_slice() else {
                        return Err(CertificateError::BadExtension(NAMES, "exactly one dNSName is expected"));
                    };
                    domain = Some(name.as_str().parse()?);
                }
                KeyUsage::OID => {
                    if !value::<KeyUsage>(extension, USAGE)?.key_cert_sign() {
                        return Err(CertificateError::BadExtension(USAGE, "keyCertSign is expected"));
                    }
                    usage = true;
                }
                BasicConstraints::OID => {
                    if !value::<BasicConstraints>(extension, CONSTRAINTS)?.ca {
                        return Err(CertificateError::BadExtension(CONSTRAINTS, "cA is expected"));
                    }
                    constraints = true;
                }
                SubjectKeyIdentifier::OID => {
                    if value::<SubjectKeyIdentifier>(extension, SUBJECT)?.0.as_bytes() != key_id.0 {
                        return Err(CertificateError::BadExtension(SUBJECT, "it is not that of the key"));
                    }
                }
                AuthorityKeyIdentifier::OID => {
                    let id: AuthorityKeyIdentifier = value(extension, "authorityKeyIdentifier")?;
                    authority = id.key_identifier;
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        if !constraints {
            return Err(CertificateError::MissingExtension(CONSTRAINTS));
        }
        if !usage {
            return Err(CertificateError::MissingExtension(USAGE));
        }
        let domain = match domain {
            Some(domain) => domain,
            None => common_name(&certificate)?,
        };
        let own_authority = authority.is_none_or(|id| id.as_bytes() == key_id.0);
        let self_signed = own_authority && certificate.issuer_name == certificate.subject_name;
        if self_signed && !certificate.signed_by(&certificate.key) {
            return Err(CertificateError::SelfSignature);
        }
        Ok(Self { certificate, domain, key_id })
    }

    /// The domain whose clients it certifies, and no others.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// By which leaves name it.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Its Ed25519 public key.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.certificate.key.to_bytes()
    }

    /// Start of the validity (whole seconds).
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        self.certificate.not_before
    }

    /// End of the validity (whole seconds; that second belongs to it).
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.certificate.not_after
    }

    /// Its name in DER, which its leaves repeat as their issuer's.
    #[must_use]
    pub fn name_der(&self) -> &[u8] {
        &self.certificate.subject_name
    }

    /// The certificate, exactly as received.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.certificate.der
    }

    pub(super) fn verifying_key(&self) -> &VerifyingKey {
        &self.certificate.key
    }

    pub(crate) fn covers(&self, now: Timestamp) -> bool {
        self.certificate.covers(now)
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer")
            .field("domain", &self.domain)
            .field("key_id", &self.key_id)
            .field("not_after", &self.not_after())
            .finish_non_exhaustive()
    }
}

fn common_name(certificate: &Certificate) -> Result<Domain, CertificateError> {
    let missing = CertificateError::MissingExtension(DOMAIN);
    match certificate.tbs.subject().common_name() {
        Ok(Some(name)) => Ok(name.value().parse()?),
        _ => Err(missing),
    }
}

/// The issuers that somebody believes.
#[derive(Clone, Debug, Default)]
pub struct Issuers {
    by_key: BTreeMap<KeyId, Vec<Issuer>>,
}

impl Issuers {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Believes one more. Of two with the same key and domain, the one that ends later is kept.
    pub fn add(&mut self, issuer: Issuer) {
        let same_key = self.by_key.entry(issuer.key_id).or_default();
        match same_key.iter_mut().find(|other| other.domain == issuer.domain) {
            Some(other) if other.not_after() < issuer.not_after() => *other = issuer,
            Some(_) => {}
            None => same_key.push(issuer),
        }
    }

    /// Those with this key; more than one only if one key serves several domains.
    #[must_use]
    pub fn for_key_id(&self, key_id: KeyId) -> &[Issuer] {
        self.by_key.get(&key_id).map(Vec::as_slice).unwrap_or_default()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Issuer> {
        self.by_key.values().flatten()
    }

    /// The domains whose clients can be judged.
    #[must_use]
    pub fn domains(&self) -> BTreeSet<&Domain> {
        self.iter().map(Issuer::domain).collect()
    }
}

impl FromIterator<Issuer> for Issuers {
    fn from_iter<I: IntoIterator<Item = Issuer>>(issuers: I) -> Self {
        let mut all = Self::new();
        issuers.into_iter().for_each(|issuer| all.add(issuer));
        all
    }
}
