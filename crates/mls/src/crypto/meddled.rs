//! A suite's cryptography with something changed on its way out.

use std::{borrow::Cow, ops::Deref};

use mls_rs_core::crypto::{
    CipherSuite, CipherSuiteProvider, CryptoProvider, HpkeCiphertext, HpkePsk, HpkePublicKey, HpkeSecretKey,
    SignaturePublicKey, SignatureSecretKey,
};
use zeroize::Zeroizing;

use super::library;

type Inner = library::SuiteProvider;
type Error = <Inner as CipherSuiteProvider>::Error;
type Bytes = Zeroizing<Vec<u8>>;
type Result<T> = std::result::Result<T, Error>;

/// What is changed, or only looked at. By default nothing is.
pub trait Meddle: Clone + Send + Sync {
    /// A tag of a MAC.
    fn tag(&self, tag: Vec<u8>) -> Vec<u8> {
        tag
    }

    /// What is about to be sealed by an AEAD.
    fn plaintext<'a>(&self, plaintext: &'a [u8]) -> Cow<'a, [u8]> {
        plaintext.into()
    }

    /// Something was sealed by an AEAD.
    fn sealed(&self, key: &[u8], plaintext: &[u8], ciphertext: &[u8]) {
        let _ = (key, plaintext, ciphertext);
    }

    /// What is about to be sealed to an HPKE key.
    fn hpke_plaintext<'a>(&self, info: &[u8], plaintext: &'a [u8]) -> Cow<'a, [u8]> {
        let _ = info;
        plaintext.into()
    }

    /// A signature.
    fn signature(&self, signature: Vec<u8>) -> Vec<u8> {
        signature
    }

    /// A key is about to be derived.
    fn derived(&self) {}
}

/// The cryptography of one cipher suite, meddled with.
#[derive(Clone)]
pub struct Meddled<M> {
    inner: Inner,
    meddle: M,
}

impl<M> Meddled<M> {
    /// Over the real one, as `library` gives it.
    pub(super) fn over(inner: Inner, meddle: M) -> Self {
        Self { inner, meddle }
    }

    /// Over the real one of a suite, if there is one.
    pub fn new(suite: CipherSuite, meddle: M) -> Option<Self> {
        let library = library::CryptoProvider::with_enabled_cipher_suites(vec![suite]);
        Some(Self::over(library.cipher_suite_provider(suite)?, meddle))
    }
}

impl<M> Deref for Meddled<M> {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

/// As where cryptography of its one suite comes from.
impl<M: Meddle> CryptoProvider for Meddled<M> {
    type CipherSuiteProvider = Self;

    fn supported_cipher_suites(&self) -> Vec<CipherSuite> {
        vec![self.inner.cipher_suite()]
    }

    fn cipher_suite_provider(&self, suite: CipherSuite) -> Option<Self> {
        (suite == self.inner.cipher_suite()).then(|| self.clone())
    }
}

impl<M: Meddle> CipherSuiteProvider for Meddled<M> {
    type Error = Error;
    type HpkeContextS = <Inner as CipherSuiteProvider>::HpkeContextS;
    type HpkeContextR = <Inner as CipherSuiteProvider>::HpkeContextR;

    fn cipher_suite(&self) -> CipherSuite {
        self.inner.cipher_suite()
    }

    fn hash(&self, data: &[u8]) -> Result<Vec<u8>> {
        self.inner.hash(data)
    }

    fn mac(&self, key: &[u8], data: &[u8]) -> Result<Vec<u8>> {
        Ok(self.meddle.tag(self.inner.mac(key, data)?))
    }

    fn aead_seal(&self, key: &[u8], data: &[u8], aad: Option<&[u8]>, nonce: &[u8]) -> Result<Vec<u8>> {
        let plaintext = self.meddle.plaintext(data);
        let sealed = self.inner.aead_seal(key, &plaintext, aad, nonce)?;
        self.meddle.sealed(key, &plaintext, &sealed);
        Ok(sealed)
    }

    fn aead_open(&self, key: &[u8], ciphertext: &[u8], aad: Option<&[u8]>, nonce: &[u8]) -> Result<Bytes> {
        self.inner.aead_open(key, ciphertext, aad, nonce)
    }

    fn aead_key_size(&self) -> usize {
        self.inner.aead_key_size()
    }

    fn aead_nonce_size(&self) -> usize {
        self.inner.aead_nonce_size()
    }

    fn kdf_extract(&self, salt: &[u8], ikm: &[u8]) -> Result<Bytes> {
        self.inner.kdf_extract(salt, ikm)
    }

    fn kdf_expand(&self, prk: &[u8], info: &[u8], len: usize) -> Result<Bytes> {
        self.meddle.derived();
        self.inner.kdf_expand(prk, info, len)
    }

    fn kdf_extract_size(&self) -> usize {
        self.inner.kdf_extract_size()
    }

    fn hpke_seal(&self, to: &HpkePublicKey, info: &[u8], aad: Option<&[u8]>, secret: &[u8]) -> Result<HpkeCiphertext> {
        self.inner.hpke_seal(to, info, aad, &self.meddle.hpke_plaintext(info, secret))
    }

    fn hpke_seal_psk(
        &self,
        to: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
        secret: &[u8],
        psk: HpkePsk<'_>,
    ) -> Result<HpkeCiphertext> {
        self.inner.hpke_seal_psk(to, info, aad, secret, psk)
    }

    fn hpke_open(
        &self,
        ciphertext: &HpkeCiphertext,
        secret: &HpkeSecretKey,
        public: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
    ) -> Result<Bytes> {
        self.inner.hpke_open(ciphertext, secret, public, info, aad)
    }

    fn hpke_open_psk(
        &self,
        ciphertext: &HpkeCiphertext,
        secret: &HpkeSecretKey,
        public: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
        psk: HpkePsk<'_>,
    ) -> Result<Bytes> {
        self.inner.hpke_open_psk(ciphertext, secret, public, info, aad, psk)
    }

    fn hpke_setup_s(&self, to: &HpkePublicKey, info: &[u8]) -> Result<(Vec<u8>, Self::HpkeContextS)> {
        self.inner.hpke_setup_s(to, info)
    }

    fn hpke_setup_r(
        &self,
        kem_output: &[u8],
        secret: &HpkeSecretKey,
        public: &HpkePublicKey,
        info: &[u8],
    ) -> Result<Self::HpkeContextR> {
        self.inner.hpke_setup_r(kem_output, secret, public, info)
    }

    fn kem_derive(&self, ikm: &[u8]) -> Result<(HpkeSecretKey, HpkePublicKey)> {
        self.inner.kem_derive(ikm)
    }

    fn kem_generate(&self) -> Result<(HpkeSecretKey, HpkePublicKey)> {
        self.inner.kem_generate()
    }

    fn kem_public_key_validate(&self, key: &HpkePublicKey) -> Result<()> {
        self.inner.kem_public_key_validate(key)
    }

    fn random_bytes(&self, out: &mut [u8]) -> Result<()> {
        CipherSuiteProvider::random_bytes(&self.inner, out)
    }

    fn signature_key_generate(&self) -> Result<(SignatureSecretKey, SignaturePublicKey)> {
        self.inner.signature_key_generate()
    }

    fn signature_key_derive_public(&self, secret: &SignatureSecretKey) -> Result<SignaturePublicKey> {
        self.inner.signature_key_derive_public(secret)
    }

    fn sign(&self, secret: &SignatureSecretKey, data: &[u8]) -> Result<Vec<u8>> {
        Ok(self.meddle.signature(self.inner.sign(secret, data)?))
    }

    fn verify(&self, public: &SignaturePublicKey, signature: &[u8], data: &[u8]) -> Result<()> {
        self.inner.verify(public, signature, data)
    }
}
