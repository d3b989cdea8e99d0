//! The Authentication Service of RFC 9750, section 4: who holds which signature key.
//!
//! [`AuthenticationService`] has one method for each call of `conclave.v1.AuthenticationService`. It does no I/O: what
//! it keeps goes through a [`store::Tx`], what time it is is a parameter, and a [`CertificateAuthority`] holds its
//! signing key. It sees public keys only (RFC 9750, section 8.4.3): no call can carry a private one.
//!
//! A client's key is certified on two proofs: the request is signed by that key (possession), and it holds the user's
//! identity key's word for it ([`IdentityBinding`](conclave_mls::credential::IdentityBinding)), which anybody who sees
//! the certificate checks again. So the service alone can add no device to a user.
//!
//! ```
//! use conclave_authentication::{AuthenticationService, CertificateAuthority, Registration, memory::MemoryStore};
//! use conclave_mls::credential::{IdentityBinding, Issuers, validate};
//! use conclave_names::{ClientUri, Timestamp};
//! use conclave_protocol::{SigningKey, method, signed, v1};
//! use prost::Message;
//!
//! // The server.
//! let now = Timestamp(1_700_000_000_000);
//! let domain = "example.com".parse()?;
//! let authority = CertificateAuthority::generate(&domain, now)?;
//! let issuers: Issuers = [authority.issuer().clone()].into_iter().collect();
//! let service = AuthenticationService::new(authority, Registration::Open);
//! let store = MemoryStore::default();
//!
//! // A client: two keys of its own, a user and a first device.
//! let (identity, device) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
//! let client: ClientUri = "mimi://example.com/d/alice/laptop".parse()?;
//! let register = v1::RegisterUserRequest {
//!     user: client.user().to_string(),
//!     identity_key: identity.verifying_key().to_bytes().to_vec(),
//!     invite: String::new(),
//! };
//! let request = signed::sign(
//!     &identity, method::REGISTER_USER, &domain, now, [1; 16], register.encode_to_vec(), Vec::new(),
//! );
//! store.transaction(|tx| service.register_user(tx, &request, now))?;
//!
//! let signature_key = device.verifying_key().to_bytes();
//! let year = now.plus_ms(365 * 24 * 3600 * 1000);
//! let binding = IdentityBinding::sign(&identity, &client, &signature_key, year);
//! let issue = v1::IssueCredentialRequest {
//!     client: client.to_string(),
//!     signature_key: signature_key.to_vec(),
//!     binding: Some(conclave_authentication::binding_to_proto(&binding)),
//! };
//! let request = signed::sign(
//!     &device, method::ISSUE_CREDENTIAL, &domain, now, [2; 16], issue.encode_to_vec(), Vec::new(),
//! );
//! let issued = store.transaction(|tx| service.issue_credential(tx, &request, now))?;
//!
//! let who = validate(&issued.certificate, &issuers, Some(now))?;
//! assert_eq!(who.client, client);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod authority;
mod binding;
pub mod memory;
mod service;
pub mod store;
mod x509;

pub use authority::{AuthorityError, CertificateAuthority};
pub use binding::{binding_from_proto, binding_to_proto};
pub use service::{AuthenticationService, CREDENTIAL_LIFETIME_SECS, LINK_LIFETIME_MS, LINKS_PER_USER, Registration};
