//! Cryptography of a member that breaks the rules, for simulations and tests (feature `hostile`): everything is computed as it should
//! be, but for what a [`Meddle`] changes. The provider that all of Conclave uses then seals path secrets wrong where a thread asks for it
//! ([`with_bad_path_secrets`]), and tells who watches over keys what is sealed ([`SealWatch`]).

mod watch;

use std::{borrow::Cow, cell::Cell};

use mls_rs_core::crypto::{CipherSuite, CryptoProvider as Provider};

use super::library;
pub use super::meddled::{Meddle, Meddled};
pub use watch::{SealWatch, Sealed};

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

/// Spoils the path secrets that the thread asks for.
#[derive(Debug, Clone, Copy)]
pub struct BadPathSecrets;

impl Meddle for BadPathSecrets {
    fn hpke_plaintext<'a>(&self, info: &[u8], plaintext: &'a [u8]) -> Cow<'a, [u8]> {
        if !spoils(info) {
            return plaintext.into();
        }
        let mut wrong = plaintext.to_vec();
        wrong.iter_mut().take(1).for_each(|byte| *byte ^= 1);
        wrong.into()
    }

    fn sealed(&self, key: &[u8], plaintext: &[u8], ciphertext: &[u8]) {
        watch::note(key, plaintext, ciphertext);
    }
}

/// The cryptography of one cipher suite.
pub type SuiteProvider = Meddled<BadPathSecrets>;

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
        self.0.cipher_suite_provider(suite).map(|inner| Meddled::over(inner, BadPathSecrets))
    }
}

#[cfg(test)]
mod tests {
    use mls_rs_core::crypto::CipherSuiteProvider as _;

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
