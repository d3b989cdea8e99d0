//! Conclave's wire contract.
//!
//! [`v1`] holds the messages and, with the feature `grpc`, the clients and servers generated from `proto/`. The rest
//! is what the messages cannot say by themselves: how a request is signed ([`signed`]), how a request in a session is
//! authenticated ([`session`]), how a new device proves its link code ([`link`]), and which stable [`Code`] a refusal
//! carries. Nothing here does I/O. `docs/protocol.md` tells the same to writers of other clients.
//!
//! ```
//! use conclave_names::Timestamp;
//! use conclave_protocol::{SigningKey, method, signed};
//!
//! let key = SigningKey::from_bytes(&[7; 32]);
//! let domain = "example.com".parse()?;
//! let now = Timestamp(1_700_000_000_000);
//! let request = signed::sign(&key, method::CLAIM, &domain, now, [1; 16], b"body".to_vec(), Vec::new());
//! let verified = signed::verify(&request, method::CLAIM, &domain, now)?;
//! assert_eq!(verified.body, b"body");
//! assert!(signed::verify(&request, method::COUNT, &domain, now).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod code;
#[cfg(feature = "grpc")]
mod grpc;
pub mod link;
pub mod method;
mod refusal;
pub mod session;
pub mod signed;

pub use code::{Code, Retry, UnknownCode};
pub use ed25519_dalek::{Signature, SigningKey, VerifyingKey};
pub use refusal::Refusal;

/// The encoded file descriptor set of `proto/`, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Messages, and with the feature `grpc` clients and servers, of version 1.
// Comments of the `.proto` files are written for readers of any language, not for rustdoc.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::pedantic, rustdoc::all)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/conclave.v1.rs"));

    impl std::fmt::Debug for OpenSessionResponse {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("OpenSessionResponse").field("head", &self.head).finish_non_exhaustive()
        }
    }

    impl std::fmt::Debug for CreateInboxRequest {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("CreateInboxRequest").field("inbox", &self.inbox).finish_non_exhaustive()
        }
    }

    impl std::fmt::Debug for RegisterUserRequest {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("RegisterUserRequest").field("user", &self.user).finish_non_exhaustive()
        }
    }
}
