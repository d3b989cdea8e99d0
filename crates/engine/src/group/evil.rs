//! Cryptography of a member that breaks the rules: everything is computed as it should be, but for one thing.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use conclave_mls::crypto::{self, SuiteProvider};
use mls_rs_core::crypto::{
    CipherSuite, CipherSuiteProvider, CryptoProvider, HpkeCiphertext, HpkePsk, HpkePublicKey, HpkeSecretKey,
    SignaturePublicKey, SignatureSecretKey,
};
use zeroize::Zeroizing;

type Bytes = Zeroizing<Vec<u8>>;
type Error = <SuiteProvider as CipherSuiteProvider>::Error;
type Result<T> = std::result::Result<T, Error>;

/// The one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// The signature with this number, counted from zero.
    Signature(usize),
    /// The confirmation tag.
    Mac,
    /// Path secrets.
    PathSecret,
    /// The generation that a message names.
    Generation(u32),
}

#[derive(Clone)]
pub(super) struct Evil {
    inner: SuiteProvider,
    fault: Fault,
    signed: Arc<AtomicUsize>,
    /// How many keys were derived.
    pub(super) derived: Arc<AtomicUsize>,
}

impl Evil {
    pub(super) fn new(suite: CipherSuite, fault: Fault) -> Self {
        let inner = crypto::suite(suite).unwrap();
        Self { inner, fault, signed: Arc::default(), derived: Arc::default() }
    }
}

fn flipped(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    bytes
}

impl CryptoProvider for Evil {
    type CipherSuiteProvider = Self;

    fn supported_cipher_suites(&self) -> Vec<CipherSuite> {
        vec![self.inner.cipher_suite()]
    }

    fn cipher_suite_provider(&self, suite: CipherSuite) -> Option<Self> {
        (suite == self.inner.cipher_suite()).then(|| self.clone())
    }
}

impl CipherSuiteProvider for Evil {
    type Error = Error;
    type HpkeContextS = <SuiteProvider as CipherSuiteProvider>::HpkeContextS;
    type HpkeContextR = <SuiteProvider as CipherSuiteProvider>::HpkeContextR;

    fn cipher_suite(&self) -> CipherSuite {
        self.inner.cipher_suite()
    }

    fn hash(&self, data: &[u8]) -> Result<Vec<u8>> {
        self.inner.hash(data)
    }

    fn mac(&self, key: &[u8], data: &[u8]) -> Result<Vec<u8>> {
        let tag = self.inner.mac(key, data)?;
        Ok(if self.fault == Fault::Mac { flipped(tag) } else { tag })
    }

    fn aead_seal(&self, key: &[u8], data: &[u8], aad: Option<&[u8]>, nonce: &[u8]) -> Result<Vec<u8>> {
        if let (Fault::Generation(generation), 12) = (self.fault, data.len()) {
            // struct { uint32 leaf_index; uint32 generation; opaque reuse_guard[4]; } (RFC 9420, section 6.3.2).
            let changed = [&data[..4], &generation.to_be_bytes(), &data[8..]].concat();
            return self.inner.aead_seal(key, &changed, aad, nonce);
        }
        self.inner.aead_seal(key, data, aad, nonce)
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
        self.derived.fetch_add(1, Ordering::Relaxed);
        self.inner.kdf_expand(prk, info, len)
    }

    fn kdf_extract_size(&self) -> usize {
        self.inner.kdf_extract_size()
    }

    fn hpke_seal(&self, to: &HpkePublicKey, info: &[u8], aad: Option<&[u8]>, pt: &[u8]) -> Result<HpkeCiphertext> {
        if self.fault == Fault::PathSecret {
            return self.inner.hpke_seal(to, info, aad, &flipped(pt.to_vec()));
        }
        self.inner.hpke_seal(to, info, aad, pt)
    }

    fn hpke_seal_psk(
        &self,
        to: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
        pt: &[u8],
        psk: HpkePsk<'_>,
    ) -> Result<HpkeCiphertext> {
        self.inner.hpke_seal_psk(to, info, aad, pt, psk)
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
        let signature = self.inner.sign(secret, data)?;
        let number = self.signed.fetch_add(1, Ordering::Relaxed);
        Ok(if self.fault == Fault::Signature(number) { flipped(signature) } else { signature })
    }

    fn verify(&self, public: &SignaturePublicKey, signature: &[u8], data: &[u8]) -> Result<()> {
        self.inner.verify(public, signature, data)
    }
}
