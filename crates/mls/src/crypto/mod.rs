//! Cipher suites and their provider.
//!
//! The cryptography comes from AWS-LC (feature `awslc`, the default) or, where C does not go, from the RustCrypto crates
//! (feature `rustcrypto`: WebAssembly). Both give the same results. A build with both features uses AWS-LC; a test of how
//! they work together can have a thread use the other (`with_library`). With the feature `hostile`, which the simulator needs and no
//! program for people has, a thread can make commits that some members cannot apply (`hostile::with_bad_path_secrets`).

#[cfg(not(any(feature = "awslc", feature = "rustcrypto")))]
compile_error!("conclave-mls needs a cryptographic library: feature `awslc` (the default) or `rustcrypto`");

#[cfg(all(feature = "awslc", feature = "rustcrypto"))]
mod either;
#[cfg(feature = "hostile")]
pub mod hostile;
#[cfg(feature = "hostile")]
mod meddled;

use mls_rs::CipherSuite;
use mls_rs_core::crypto::CryptoProvider as _;

#[cfg(all(feature = "awslc", feature = "rustcrypto"))]
pub use either::{EitherError, Library, with_library};
#[cfg(feature = "hostile")]
pub use hostile::{CryptoProvider, SuiteProvider};
#[cfg(not(feature = "hostile"))]
pub use library::{CryptoProvider, SuiteProvider};

// Behind `hostile`, they are nobody else's.
#[cfg_attr(feature = "hostile", allow(unreachable_pub))]
mod library {
    #[cfg(all(feature = "awslc", feature = "rustcrypto"))]
    pub use super::either::{CryptoProvider, SuiteProvider};

    /// Where cryptography comes from.
    #[cfg(all(feature = "awslc", not(feature = "rustcrypto")))]
    pub type CryptoProvider = mls_rs_crypto_awslc::AwsLcCryptoProvider;

    /// Where cryptography comes from.
    #[cfg(all(feature = "rustcrypto", not(feature = "awslc")))]
    pub type CryptoProvider = mls_rs_crypto_rustcrypto::RustCryptoProvider;

    /// The cryptography of one cipher suite.
    #[cfg(not(all(feature = "awslc", feature = "rustcrypto")))]
    pub type SuiteProvider = <CryptoProvider as mls_rs_core::crypto::CryptoProvider>::CipherSuiteProvider;
}

/// Cipher suites that Conclave speaks, best first. All of them sign with Ed25519, as identities do.
pub const SUITES: [CipherSuite; 2] = [CipherSuite::CURVE25519_AES128, CipherSuite::CURVE25519_CHACHA];

/// The suite of new groups: MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519, which every MLS implementation has
/// (RFC 9420, section 17.1).
pub const DEFAULT_SUITE: CipherSuite = CipherSuite::CURVE25519_AES128;

/// A cipher suite that Conclave does not speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cipher suite {0} is not supported: use 1 or 3, which sign with Ed25519, as all identity keys do")]
pub struct UnsupportedSuite(pub u16);

/// The provider, limited to our suites.
#[must_use]
pub fn provider() -> CryptoProvider {
    CryptoProvider::with_enabled_cipher_suites(SUITES.to_vec())
}

/// The cryptography of one suite.
pub fn suite(suite: CipherSuite) -> Result<SuiteProvider, UnsupportedSuite> {
    provider().cipher_suite_provider(suite).ok_or(UnsupportedSuite(suite.into()))
}

/// A suite by its number, if it is one of ours.
pub fn suite_by_number(number: u16) -> Result<CipherSuite, UnsupportedSuite> {
    let suite = CipherSuite::from(number);
    if SUITES.contains(&suite) { Ok(suite) } else { Err(UnsupportedSuite(number)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_suites_exist_and_others_are_refused() {
        for number in [1, 3] {
            assert!(suite(suite_by_number(number).unwrap()).is_ok());
        }
        for number in [0, 2, 7, 0xF001] {
            assert_eq!(suite_by_number(number), Err(UnsupportedSuite(number)));
        }
    }
}
