//! Both libraries in one program, so that a test can show that they work together.

use std::cell::Cell;

use mls_rs_core::{
    crypto::{
        CipherSuite, CipherSuiteProvider, CryptoProvider as Provider, HpkeCiphertext, HpkeContextR, HpkeContextS,
        HpkePsk, HpkePublicKey, HpkeSecretKey, SignaturePublicKey, SignatureSecretKey,
    },
    error::IntoAnyError,
};
use mls_rs_crypto_awslc::{AwsLcCipherSuite, AwsLcCryptoProvider};
use mls_rs_crypto_rustcrypto::RustCryptoProvider;
use zeroize::Zeroizing;

type RustCryptoSuite = <RustCryptoProvider as Provider>::CipherSuiteProvider;
type Bytes = Zeroizing<Vec<u8>>;
type Result<T> = std::result::Result<T, EitherError>;

/// A library of cryptography.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// AWS-LC.
    AwsLc,
    /// The RustCrypto crates.
    RustCrypto,
}

thread_local! {
    static LIBRARY: Cell<Library> = const { Cell::new(Library::AwsLc) };
}

/// Restores the thread's library when a call ends, also by a panic.
struct Restore(Library);

impl Drop for Restore {
    fn drop(&mut self) {
        LIBRARY.set(self.0);
    }
}

/// Does something with what [`super::provider`] and [`super::suite`] give on this thread being of a library. Providers
/// that were made before keep theirs.
pub fn with_library<T>(library: Library, work: impl FnOnce() -> T) -> T {
    let _restore = Restore(LIBRARY.replace(library));
    work()
}

/// What one of the libraries refused. Neither says secrets in its errors.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct EitherError(String);

impl IntoAnyError for EitherError {
    fn into_dyn_error(self) -> std::result::Result<Box<dyn std::error::Error + Send + Sync>, Self> {
        Ok(self.into())
    }
}

fn named(error: impl std::fmt::Debug) -> EitherError {
    EitherError(format!("{error:?}"))
}

/// One library's value or the other's.
#[derive(Clone)]
enum Either<A, B> {
    AwsLc(A),
    RustCrypto(B),
}

/// Calls the same method of whichever it is.
macro_rules! delegate {
    ($self:expr, $method:ident ( $($argument:expr),* )) => {
        match $self {
            Either::AwsLc(inner) => inner.$method($($argument),*).map_err(named),
            Either::RustCrypto(inner) => inner.$method($($argument),*).map_err(named),
        }
    };
}

/// Where cryptography comes from: the library in force when it was made.
#[derive(Clone)]
pub struct CryptoProvider(Either<AwsLcCryptoProvider, RustCryptoProvider>);

impl CryptoProvider {
    /// Limited to suites.
    #[must_use]
    pub fn with_enabled_cipher_suites(suites: Vec<CipherSuite>) -> Self {
        Self(match LIBRARY.get() {
            Library::AwsLc => Either::AwsLc(AwsLcCryptoProvider::with_enabled_cipher_suites(suites)),
            Library::RustCrypto => Either::RustCrypto(RustCryptoProvider::with_enabled_cipher_suites(suites)),
        })
    }
}

impl Provider for CryptoProvider {
    type CipherSuiteProvider = SuiteProvider;

    fn supported_cipher_suites(&self) -> Vec<CipherSuite> {
        match &self.0 {
            Either::AwsLc(inner) => inner.supported_cipher_suites(),
            Either::RustCrypto(inner) => inner.supported_cipher_suites(),
        }
    }

    fn cipher_suite_provider(&self, suite: CipherSuite) -> Option<SuiteProvider> {
        Some(SuiteProvider(match &self.0 {
            Either::AwsLc(inner) => Either::AwsLc(inner.cipher_suite_provider(suite)?),
            Either::RustCrypto(inner) => Either::RustCrypto(inner.cipher_suite_provider(suite)?),
        }))
    }
}

/// The cryptography of one cipher suite.
#[derive(Clone)]
pub struct SuiteProvider(Either<AwsLcCipherSuite, RustCryptoSuite>);

impl SuiteProvider {
    /// Which library it is of.
    #[must_use]
    pub fn library(&self) -> Library {
        match &self.0 {
            Either::AwsLc(_) => Library::AwsLc,
            Either::RustCrypto(_) => Library::RustCrypto,
        }
    }
}

/// A sender's HPKE context.
pub struct ContextS(
    Either<
        <AwsLcCipherSuite as CipherSuiteProvider>::HpkeContextS,
        <RustCryptoSuite as CipherSuiteProvider>::HpkeContextS,
    >,
);

/// A receiver's HPKE context.
pub struct ContextR(
    Either<
        <AwsLcCipherSuite as CipherSuiteProvider>::HpkeContextR,
        <RustCryptoSuite as CipherSuiteProvider>::HpkeContextR,
    >,
);

impl HpkeContextS for ContextS {
    type Error = EitherError;

    fn seal(&mut self, aad: Option<&[u8]>, data: &[u8]) -> Result<Vec<u8>> {
        delegate!(&mut self.0, seal(aad, data))
    }

    fn export(&self, exporter_context: &[u8], len: usize) -> Result<Bytes> {
        delegate!(&self.0, export(exporter_context, len))
    }
}

impl HpkeContextR for ContextR {
    type Error = EitherError;

    fn open(&mut self, aad: Option<&[u8]>, ciphertext: &[u8]) -> Result<Bytes> {
        delegate!(&mut self.0, open(aad, ciphertext))
    }

    fn export(&self, exporter_context: &[u8], len: usize) -> Result<Bytes> {
        delegate!(&self.0, export(exporter_context, len))
    }
}

impl CipherSuiteProvider for SuiteProvider {
    type Error = EitherError;
    type HpkeContextS = ContextS;
    type HpkeContextR = ContextR;

    fn cipher_suite(&self) -> CipherSuite {
        match &self.0 {
            Either::AwsLc(inner) => inner.cipher_suite(),
            Either::RustCrypto(inner) => inner.cipher_suite(),
        }
    }

    fn hash(&self, data: &[u8]) -> Result<Vec<u8>> {
        delegate!(&self.0, hash(data))
    }

    fn mac(&self, key: &[u8], data: &[u8]) -> Result<Vec<u8>> {
        delegate!(&self.0, mac(key, data))
    }

    fn aead_seal(&self, key: &[u8], data: &[u8], aad: Option<&[u8]>, nonce: &[u8]) -> Result<Vec<u8>> {
        delegate!(&self.0, aead_seal(key, data, aad, nonce))
    }

    fn aead_open(&self, key: &[u8], ciphertext: &[u8], aad: Option<&[u8]>, nonce: &[u8]) -> Result<Bytes> {
        delegate!(&self.0, aead_open(key, ciphertext, aad, nonce))
    }

    fn aead_key_size(&self) -> usize {
        match &self.0 {
            Either::AwsLc(inner) => inner.aead_key_size(),
            Either::RustCrypto(inner) => inner.aead_key_size(),
        }
    }

    fn aead_nonce_size(&self) -> usize {
        match &self.0 {
            Either::AwsLc(inner) => inner.aead_nonce_size(),
            Either::RustCrypto(inner) => inner.aead_nonce_size(),
        }
    }

    fn kdf_extract(&self, salt: &[u8], ikm: &[u8]) -> Result<Bytes> {
        delegate!(&self.0, kdf_extract(salt, ikm))
    }

    fn kdf_expand(&self, prk: &[u8], info: &[u8], len: usize) -> Result<Bytes> {
        delegate!(&self.0, kdf_expand(prk, info, len))
    }

    fn kdf_extract_size(&self) -> usize {
        match &self.0 {
            Either::AwsLc(inner) => inner.kdf_extract_size(),
            Either::RustCrypto(inner) => inner.kdf_extract_size(),
        }
    }

    fn hpke_seal(
        &self,
        remote_key: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
        pt: &[u8],
    ) -> Result<HpkeCiphertext> {
        delegate!(&self.0, hpke_seal(remote_key, info, aad, pt))
    }

    fn hpke_seal_psk(
        &self,
        remote_key: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
        pt: &[u8],
        psk: HpkePsk<'_>,
    ) -> Result<HpkeCiphertext> {
        delegate!(&self.0, hpke_seal_psk(remote_key, info, aad, pt, psk))
    }

    fn hpke_open(
        &self,
        ciphertext: &HpkeCiphertext,
        local_secret: &HpkeSecretKey,
        local_public: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
    ) -> Result<Bytes> {
        delegate!(&self.0, hpke_open(ciphertext, local_secret, local_public, info, aad))
    }

    fn hpke_open_psk(
        &self,
        ciphertext: &HpkeCiphertext,
        local_secret: &HpkeSecretKey,
        local_public: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
        psk: HpkePsk<'_>,
    ) -> Result<Bytes> {
        delegate!(&self.0, hpke_open_psk(ciphertext, local_secret, local_public, info, aad, psk))
    }

    fn hpke_setup_s(&self, remote_key: &HpkePublicKey, info: &[u8]) -> Result<(Vec<u8>, ContextS)> {
        match &self.0 {
            Either::AwsLc(inner) => {
                let (output, context) = inner.hpke_setup_s(remote_key, info).map_err(named)?;
                Ok((output, ContextS(Either::AwsLc(context))))
            }
            Either::RustCrypto(inner) => {
                let (output, context) = inner.hpke_setup_s(remote_key, info).map_err(named)?;
                Ok((output, ContextS(Either::RustCrypto(context))))
            }
        }
    }

    fn hpke_setup_r(
        &self,
        kem_output: &[u8],
        local_secret: &HpkeSecretKey,
        local_public: &HpkePublicKey,
        info: &[u8],
    ) -> Result<ContextR> {
        Ok(ContextR(match &self.0 {
            Either::AwsLc(inner) => {
                Either::AwsLc(inner.hpke_setup_r(kem_output, local_secret, local_public, info).map_err(named)?)
            }
            Either::RustCrypto(inner) => {
                Either::RustCrypto(inner.hpke_setup_r(kem_output, local_secret, local_public, info).map_err(named)?)
            }
        }))
    }

    fn kem_derive(&self, ikm: &[u8]) -> Result<(HpkeSecretKey, HpkePublicKey)> {
        delegate!(&self.0, kem_derive(ikm))
    }

    fn kem_generate(&self) -> Result<(HpkeSecretKey, HpkePublicKey)> {
        delegate!(&self.0, kem_generate())
    }

    fn kem_public_key_validate(&self, key: &HpkePublicKey) -> Result<()> {
        delegate!(&self.0, kem_public_key_validate(key))
    }

    fn random_bytes(&self, out: &mut [u8]) -> Result<()> {
        match &self.0 {
            Either::AwsLc(inner) => CipherSuiteProvider::random_bytes(inner, out).map_err(named),
            Either::RustCrypto(inner) => CipherSuiteProvider::random_bytes(inner, out).map_err(named),
        }
    }

    fn signature_key_generate(&self) -> Result<(SignatureSecretKey, SignaturePublicKey)> {
        delegate!(&self.0, signature_key_generate())
    }

    fn signature_key_derive_public(&self, secret_key: &SignatureSecretKey) -> Result<SignaturePublicKey> {
        delegate!(&self.0, signature_key_derive_public(secret_key))
    }

    fn sign(&self, secret_key: &SignatureSecretKey, data: &[u8]) -> Result<Vec<u8>> {
        delegate!(&self.0, sign(secret_key, data))
    }

    fn verify(&self, public_key: &SignaturePublicKey, signature: &[u8], data: &[u8]) -> Result<()> {
        delegate!(&self.0, verify(public_key, signature, data))
    }
}
