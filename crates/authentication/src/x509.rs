//! Writes certificates. What may stand in them is said where they are read: `conclave_mls::credential`.

use der::{
    Decode, Encode, Sequence,
    asn1::{BitString, Ia5String, ObjectIdentifier, OctetString},
    oid::AssociatedOid,
};
use ed25519_dalek::{Signer, SigningKey};
use x509_cert::{
    AlgorithmIdentifier, SubjectPublicKeyInfo, Version,
    ext::{Extension, Extensions, pkix::name::GeneralName},
    name::Name,
    serial_number::SerialNumber,
    time::{Time, Validity},
};

use conclave_mls::credential::OID_ED25519;
use conclave_names::Timestamp;

const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap(OID_ED25519);

/// TBSCertificate (RFC 5280, section 4.1), without the fields that it forbids.
#[derive(Sequence)]
struct ToBeSigned {
    #[asn1(context_specific = "0", default = "Default::default")]
    version: Version,
    serial_number: SerialNumber,
    signature: AlgorithmIdentifier,
    issuer: Name,
    validity: Validity,
    subject: Name,
    subject_public_key_info: SubjectPublicKeyInfo,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<Extensions>,
}

#[derive(Sequence)]
struct Certificate {
    to_be_signed: ToBeSigned,
    algorithm: AlgorithmIdentifier,
    signature: BitString,
}

/// What varies from one certificate to another.
pub(crate) struct Content {
    pub(crate) serial: [u8; 16],
    /// The issuer's name in DER.
    pub(crate) issuer: Vec<u8>,
    pub(crate) subject: Name,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    pub(crate) public_key: [u8; 32],
    pub(crate) extensions: Extensions,
}

impl Content {
    /// Signs it; the same content and key give the same bytes.
    pub(crate) fn sign(self, key: &SigningKey) -> der::Result<Vec<u8>> {
        let algorithm = AlgorithmIdentifier { oid: ED25519, parameters: None };
        let to_be_signed = ToBeSigned {
            version: Version::V3,
            serial_number: SerialNumber::new(&positive(self.serial))?,
            signature: algorithm.clone(),
            issuer: Name::from_der(&self.issuer)?,
            validity: Validity::new(time(self.not_before)?, time(self.not_after)?),
            subject: self.subject,
            subject_public_key_info: SubjectPublicKeyInfo {
                algorithm: algorithm.clone(),
                subject_public_key: BitString::from_bytes(&self.public_key)?,
            },
            extensions: Some(self.extensions),
        };
        let signature = key.sign(&to_be_signed.to_der()?);
        Certificate { to_be_signed, algorithm, signature: BitString::from_bytes(&signature.to_bytes())? }.to_der()
    }
}

/// Sets the two highest bits to 01: a positive number whose encoding has always 16 bytes.
fn positive(mut serial: [u8; 16]) -> [u8; 16] {
    let [first, ..] = &mut serial;
    *first = *first & 0x3F | 0x40;
    serial
}

fn time(at: Timestamp) -> der::Result<Time> {
    let since = std::time::Duration::from_secs(at.as_secs());
    Ok(der::DateTime::from_unix_duration(since)?.into())
}

/// An extension of a type that knows its object identifier.
pub(crate) fn extension<T: AssociatedOid + Encode>(critical: bool, value: &T) -> der::Result<Extension> {
    wrap(T::OID, critical, value)
}

/// An extension with the value's DER inside.
pub(crate) fn wrap(oid: ObjectIdentifier, critical: bool, value: &impl Encode) -> der::Result<Extension> {
    Ok(Extension { extn_id: oid, critical, extn_value: OctetString::new(value.to_der()?)? })
}

/// A URI as a name in `subjectAltName`.
pub(crate) fn uri(text: &str) -> der::Result<GeneralName> {
    Ok(GeneralName::UniformResourceIdentifier(Ia5String::new(text)?))
}

/// A domain as a name in `subjectAltName`.
pub(crate) fn dns(text: &str) -> der::Result<GeneralName> {
    Ok(GeneralName::DnsName(Ia5String::new(text)?))
}
