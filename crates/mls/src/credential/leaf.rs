//! The certificate of a client's signature key.

use std::fmt;

use conclave_names::{ClientUri, Timestamp, UserUri, code_points::OID_IDENTITY_BINDING};
use der::{
    Decode,
    asn1::{ObjectIdentifier, OctetStringRef},
    oid::AssociatedOid,
};
use x509_cert::ext::{
    Extension,
    pkix::{AuthorityKeyIdentifier, BasicConstraints, KeyUsage, KeyUsages, SubjectAltName, name::GeneralName},
};

use super::{
    CertificateError, IdentityBinding, KeyId,
    certificate::{Certificate, value},
};

const BINDING: ObjectIdentifier = ObjectIdentifier::new_unwrap(OID_IDENTITY_BINDING);

const NAMES: &str = "subjectAltName";
const AUTHORITY: &str = "authorityKeyIdentifier";
const USAGE: &str = "keyUsage";
const CONSTRAINTS: &str = "basicConstraints";
const IDENTITY_BINDING: &str = "identity binding";

/// A certificate of our profile for a client. Whether it is to be believed is for [`validate`](super::validate) to
/// say: nothing that is said here is verified yet.
///
/// The profile: version 3; Ed25519 key and signature; `subjectAltName` with exactly two URIs, the user's and then the
/// client's; `authorityKeyIdentifier` with 20 bytes (a [`KeyId`]) and nothing else; `keyUsage` digitalSignature alone;
/// `basicConstraints` absent or without `cA`; the identity binding as a non-critical extension, an OCTET STRING with
/// [`IdentityBinding::to_bytes`] inside. Other extensions are passed over unless they are critical.
#[derive(Clone)]
pub struct LeafCertificate {
    certificate: Certificate,
    user: UserUri,
    client: ClientUri,
    authority_key_id: KeyId,
    binding: IdentityBinding,
}

impl LeafCertificate {
    /// Reads one certificate; nothing may follow it.
    pub fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        let certificate = Certificate::parse(der)?;
        let (mut names, mut authority, mut usage, mut binding) = (None, None, false, None);
        certificate.extensions(|extension| {
            match extension.extn_id {
                SubjectAltName::OID => names = Some(read_names(extension)?),
                AuthorityKeyIdentifier::OID => authority = Some(read_authority(extension)?),
                KeyUsage::OID => {
                    if value::<KeyUsage>(extension, USAGE)?.0 != KeyUsages::DigitalSignature {
                        return Err(CertificateError::BadExtension(USAGE, "digitalSignature alone is allowed"));
                    }
                    usage = true;
                }
                BasicConstraints::OID => {
                    if value::<BasicConstraints>(extension, CONSTRAINTS)?.ca {
                        return Err(CertificateError::BadExtension(CONSTRAINTS, "a client is no authority"));
                    }
                }
                BINDING => binding = Some(read_binding(extension)?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let (user, client) = names.ok_or(CertificateError::MissingExtension(NAMES))?;
        if !usage {
            return Err(CertificateError::MissingExtension(USAGE));
        }
        Ok(Self {
            user,
            client,
            authority_key_id: authority.ok_or(CertificateError::MissingExtension(AUTHORITY))?,
            binding: binding.ok_or(CertificateError::MissingExtension(IDENTITY_BINDING))?,
            certificate,
        })
    }

    /// The user that the client is said to belong to.
    #[must_use]
    pub fn user(&self) -> &UserUri {
        &self.user
    }

    /// The client that the key is said to be of.
    #[must_use]
    pub fn client(&self) -> &ClientUri {
        &self.client
    }

    /// The certified Ed25519 public key.
    #[must_use]
    pub fn signature_key(&self) -> [u8; 32] {
        self.certificate.key.to_bytes()
    }

    /// The user's Ed25519 public identity key, as the binding names it.
    #[must_use]
    pub fn identity_key(&self) -> [u8; 32] {
        self.binding.identity_key
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

    /// By which the issuer is found.
    #[must_use]
    pub fn authority_key_id(&self) -> KeyId {
        self.authority_key_id
    }

    /// The identity key's word.
    #[must_use]
    pub fn binding(&self) -> &IdentityBinding {
        &self.binding
    }

    /// The certificate, exactly as received.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.certificate.der
    }

    pub(super) fn certificate(&self) -> &Certificate {
        &self.certificate
    }
}

impl fmt::Debug for LeafCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeafCertificate")
            .field("client", &self.client)
            .field("authority_key_id", &self.authority_key_id)
            .field("not_before", &self.not_before())
            .field("not_after", &self.not_after())
            .finish_non_exhaustive()
    }
}

fn read_names(extension: &Extension) -> Result<(UserUri, ClientUri), CertificateError> {
    let names: SubjectAltName = value(extension, NAMES)?;
    let [GeneralName::UniformResourceIdentifier(user), GeneralName::UniformResourceIdentifier(client)] =
        names.0.as_slice()
    else {
        return Err(CertificateError::BadExtension(
            NAMES,
            "exactly two URIs are expected, the user and then the client",
        ));
    };
    let user: UserUri = user.as_str().parse()?;
    let client: ClientUri = client.as_str().parse()?;
    if *client.user() != user {
        return Err(CertificateError::ClientOfAnotherUser);
    }
    Ok((user, client))
}

fn read_authority(extension: &Extension) -> Result<KeyId, CertificateError> {
    let authority: AuthorityKeyIdentifier = value(extension, AUTHORITY)?;
    let alone = authority.authority_cert_issuer.is_none() && authority.authority_cert_serial_number.is_none();
    authority
        .key_identifier
        .filter(|_| alone)
        .and_then(|id| id.as_bytes().try_into().ok())
        .map(KeyId)
        .ok_or(CertificateError::BadExtension(AUTHORITY, "a key identifier of 20 bytes alone is expected"))
}

fn read_binding(extension: &Extension) -> Result<IdentityBinding, CertificateError> {
    if extension.critical {
        return Err(CertificateError::BadExtension(IDENTITY_BINDING, "it must not be critical"));
    }
    let bytes = <&OctetStringRef>::from_der(extension.extn_value.as_bytes())
        .map_err(|_| CertificateError::BadExtension(IDENTITY_BINDING, "an OCTET STRING is expected"))?;
    Ok(IdentityBinding::from_bytes(bytes.as_bytes())?)
}
