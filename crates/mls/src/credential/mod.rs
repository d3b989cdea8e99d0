//! Who a leaf of a group is, and the one place where that is decided (RFC 9420, section 5.3; RFC 9750, section 6.5).
//!
//! A credential is one X.509 certificate in a narrow profile ([`LeafCertificate`]), issued by the Authentication
//! Service of the client's domain ([`Issuer`]), with the user's own word for the same key in it
//! ([`IdentityBinding`]). [`validate`] believes it only if both agree, so that neither an Authentication Service nor
//! a thief of a device list adds a device alone. What two people compare to know that no other identity key stands
//! between them is a [`SafetyNumber`].

mod binding;
mod certificate;
mod issuer;
mod leaf;
mod safety_number;
mod validator;

pub use binding::{BindingError, IdentityBinding, Purpose};
pub use certificate::{CERTIFICATE_MAX, CertificateError, KeyId, OID_ED25519};
pub use issuer::{Issuer, Issuers};
pub use leaf::LeafCertificate;
pub use safety_number::{QrMismatch, SafetyNumber};
pub use validator::{ClientIdentity, InvalidCredential, OfClient, same_client, validate};
