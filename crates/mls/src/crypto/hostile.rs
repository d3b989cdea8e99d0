//! Cryptography of a member that breaks the rules, for simulations (feature `hostile`): everything is computed as it should be, but
//! path secrets are sealed wrong where a thread asks for it ([`with_bad_path_secrets`]).

use std::{cell::Cell, ops::Deref};

use mls_rs_core::crypto::{
    CipherSuite, CipherSuiteProvider, CryptoProvider as Provider, HpkeCiphertext, HpkePsk, HpkePublicKey,
    HpkeSecretKey, SignaturePublicKey, SignatureSecretKey,
};
use zeroize::Zeroizing;

use super::library;

type Inner = library::SuiteProvider;
type Error = <Inner as CipherSuiteProvider>::Error;
type Bytes = Zeroizing<Vec<u8>>;
type Result<T> = std::result::Result<T, Error>;

/// Label of a path secret's encryption (RFC 9420, section 7.6).
const PATH_LABEL: &[u8] = b"MLS 1.0 UpdatePathNode";

/// Which path secrets are sealed wrong, and how many came so far.
#[derive(Clone, Copy)]
struct Plan {
    mask: u64,
    seen: u32,
    spoilt: u32,
}

thread_local! {
    static PLAN: Cell<Option<Plan>> = const { Cell::new(None) };
}

/// Restores the thread's plan when a call ends, also by a panic.
struct Restore(Option<Plan>);

impl Drop for Restore {
    fn drop(&mut self) {
        PLAN.set(self.0);
    }
}

/// Does something with some of the path secrets that this thread seals meanwhile being wrong: the one with number n, counted from
/// zero, if bit n modulo 64 of the mask is set. Says also how many were wrong.
pub fn with_bad_path_secrets<T>(mask: u64, work: impl FnOnce() -> T) -> (T, u32) {
    let _restore = Restore(PLAN.replace(Some(Plan { mask, seen: 0, spoilt: 0 })));
    let done = work();
    (done, PLAN.get().map_or(0, |plan| plan.spoilt))
}

/// Whether the secret that is sealed now is to be wrong.
fn spoils(info: &[u8]) -> bool {
    let Some(mut plan) = PLAN.get() else { return false };
    if !info.windows(PATH_LABEL.len()).any(|part| part == PATH_LABEL) {
        return false;
    }
    let spoils = plan.mask.rotate_right(plan.seen) & 1 == 1;
    plan.seen = plan.seen.wrapping_add(1);
    plan.spoilt += u32::from(spoils);
    PLAN.set(Some(plan));
    spoils
}

/// Where cryptography comes from.
#[derive(Clone)]
pub struct CryptoProvider(library::CryptoProvider);

impl CryptoProvider {
    /// Limited to suites.
    #[must_use]
    pub fn with_enabled_cipher_suites(suites: Vec<CipherSuite>) -> Self {
        Self(library::CryptoProvider::with_enabled_cipher_suites(suites))
    }
}

impl Provider for CryptoProvider {
    type CipherSuiteProvider = SuiteProvider;

    fn supported_cipher_suites(&self) -> Vec<CipherSuite> {
        self.0.supported_cipher_suites()
    }

    fn cipher_suite_provider(&self, suite: CipherSuite) -> Option<SuiteProvider> {
        self.0.cipher_suite_provider(suite).map(SuiteProvider)
    }
}

/// The cryptography of one cipher suite.
#[derive(Clone)]
pub struct SuiteProvider(Inner);

impl Deref for SuiteProvider {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl CipherSuiteProvider for SuiteProvider {
    type Error = Error;
    type HpkeContextS = <Inner as CipherSuiteProvider>::HpkeContextS;
    type HpkeContextR = <Inner as CipherSuiteProvider>::HpkeContextR;

    fn cipher_suite(&self) -> CipherSuite {
        self.0.cipher_suite()
    }

    fn hash(&self, data: &[u8]) -> Result<Vec<u8>> {
        self.0.hash(data)
    }

    fn mac(&self, key: &[u8], data: &[u8]) -> Result<Vec<u8>> {
        self.0.mac(key, data)
    }

    fn aead_seal(&self, key: &[u8], data: &[u8], aad: Option<&[u8]>, nonce: &[u8]) -> Result<Vec<u8>> {
        self.0.aead_seal(key, data, aad, nonce)
    }

    fn aead_open(&self, key: &[u8], ciphertext: &[u8], aad: Option<&[u8]>, nonce: &[u8]) -> Result<Bytes> {
        self.0.aead_open(key, ciphertext, aad, nonce)
    }

    fn aead_key_size(&self) -> usize {
        self.0.aead_key_size()
    }

    fn aead_nonce_size(&self) -> usize {
        self.0.aead_nonce_size()
    }

    fn kdf_extract(&self, salt: &[u8], ikm: &[u8]) -> Result<Bytes> {
        self.0.kdf_extract(salt, ikm)
    }

    fn kdf_expand(&self, prk: &[u8], info: &[u8], len: usize) -> Result<Bytes> {
        self.0.kdf_expand(prk, info, len)
    }

    fn kdf_extract_size(&self) -> usize {
        self.0.kdf_extract_size()
    }

    fn hpke_seal(&self, to: &HpkePublicKey, info: &[u8], aad: Option<&[u8]>, secret: &[u8]) -> Result<HpkeCiphertext> {
        if !spoils(info) {
            return self.0.hpke_seal(to, info, aad, secret);
        }
        let mut wrong = Zeroizing::new(secret.to_vec());
        wrong.iter_mut().take(1).for_each(|byte| *byte ^= 1);
        self.0.hpke_seal(to, info, aad, &wrong)
    }

    fn hpke_seal_psk(
        &self,
        to: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
        secret: &[u8],
        psk: HpkePsk<'_>,
    ) -> Result<HpkeCiphertext> {
        self.0.hpke_seal_psk(to, info, aad, secret, psk)
    }

    fn hpke_open(
        &self,
        ciphertext: &HpkeCiphertext,
        secret: &HpkeSecretKey,
        public: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
    ) -> Result<Bytes> {
        self.0.hpke_open(ciphertext, secret, public, info, aad)
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
        self.0.hpke_open_psk(ciphertext, secret, public, info, aad, psk)
    }

    fn hpke_setup_s(&self, to: &HpkePublicKey, info: &[u8]) -> Result<(Vec<u8>, Self::HpkeContextS)> {
        self.0.hpke_setup_s(to, info)
    }

    fn hpke_setup_r(
        &self,
        kem_output: &[u8],
        secret: &HpkeSecretKey,
        public: &HpkePublicKey,
        info: &[u8],
    ) -> Result<Self::HpkeContextR> {
        self.0.hpke_setup_r(kem_output, secret, public, info)
    }

    fn kem_derive(&self, ikm: &[u8]) -> Result<(HpkeSecretKey, HpkePublicKey)> {
        self.0.kem_derive(ikm)
    }

    fn kem_generate(&self) -> Result<(HpkeSecretKey, HpkePublicKey)> {
        self.0.kem_generate()
    }

    fn kem_public_key_validate(&self, key: &HpkePublicKey) -> Result<()> {
        self.0.kem_public_key_validate(key)
    }

    fn random_bytes(&self, out: &mut [u8]) -> Result<()> {
        CipherSuiteProvider::random_bytes(&self.0, out)
    }

    fn signature_key_generate(&self) -> Result<(SignatureSecretKey, SignaturePublicKey)> {
        self.0.signature_key_generate()
    }

    fn signature_key_derive_public(&self, secret: &SignatureSecretKey) -> Result<SignaturePublicKey> {
        self.0.signature_key_derive_public(secret)
    }

    fn sign(&self, secret: &SignatureSecretKey, data: &[u8]) -> Result<Vec<u8>> {
        self.0.sign(secret, data)
    }

    fn verify(&self, public: &SignaturePublicKey, signature: &[u8], data: &[u8]) -> Result<()> {
        self.0.verify(public, signature, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{DEFAULT_SUITE, suite};

    #[test]
    fn only_the_path_secrets_asked_for_are_wrong() {
        let suite = suite(DEFAULT_SUITE).unwrap();
        let (secret, public) = suite.kem_generate().unwrap();
        let seal = |label: &[u8]| suite.hpke_seal(&public, label, None, b"path secret").unwrap();
        let open = |label: &[u8], sealed| suite.hpke_open(&sealed, &secret, &public, label, None).unwrap();
        let is_good = |label: &[u8], sealed| open(label, sealed).as_slice() == b"path secret";
        let (seals, wrong) = with_bad_path_secrets(0b10, || [0, 1].map(|_| seal(PATH_LABEL)));
        assert_eq!((seals.map(|sealed| is_good(PATH_LABEL, sealed)), wrong), ([true, false], 1));
        let (sealed, wrong) = with_bad_path_secrets(u64::MAX, || seal(b"MLS 1.0 Welcome"));
        assert_eq!((is_good(b"MLS 1.0 Welcome", sealed), wrong), (true, 0));
        assert!(is_good(PATH_LABEL, seal(PATH_LABEL)), "the plan ends with the call");
    }
}
