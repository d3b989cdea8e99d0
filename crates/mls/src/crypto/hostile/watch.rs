//! Watching over AEAD keys, for simulations: what a thread seals, by the hash of the key.

use std::cell::RefCell;

use sha2::{Digest as _, Sha256};

/// Something that was sealed. It holds plaintexts of simulated members, and is neither printed nor compared.
pub struct Sealed {
    /// SHA-256 of the key.
    pub key: [u8; 32],
    /// What was sealed.
    pub plaintext: Vec<u8>,
    /// What came of it.
    pub ciphertext: Vec<u8>,
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealed").field("bytes", &self.ciphertext.len()).finish_non_exhaustive()
    }
}

thread_local! {
    static SEALS: RefCell<Option<Vec<Sealed>>> = const { RefCell::new(None) };
}

/// Keeps what this thread seals until it is dropped. One at a time.
#[derive(Debug)]
pub struct SealWatch(());

impl SealWatch {
    /// Begins.
    #[must_use]
    pub fn begin() -> Self {
        SEALS.set(Some(Vec::new()));
        Self(())
    }

    /// What was sealed since it was asked last.
    #[must_use]
    pub fn take(&self) -> Vec<Sealed> {
        SEALS.with_borrow_mut(|seals| seals.as_mut().map(std::mem::take).unwrap_or_default())
    }
}

impl Drop for SealWatch {
    fn drop(&mut self) {
        SEALS.set(None);
    }
}

pub(super) fn note(key: &[u8], plaintext: &[u8], ciphertext: &[u8]) {
    SEALS.with_borrow_mut(|seals| {
        if let Some(seals) = seals {
            let (plaintext, ciphertext) = (plaintext.to_vec(), ciphertext.to_vec());
            seals.push(Sealed { key: Sha256::digest(key).into(), plaintext, ciphertext });
        }
    });
}

#[cfg(test)]
mod tests {
    use mls_rs_core::crypto::CipherSuiteProvider as _;

    use super::*;
    use crate::crypto::{DEFAULT_SUITE, suite};

    #[test]
    fn what_is_sealed_is_seen_while_somebody_watches() {
        let suite = suite(DEFAULT_SUITE).unwrap();
        let seal = |key: u8, text: &[u8]| suite.aead_seal(&[key; 16], text, None, &[0; 12]).unwrap();
        seal(1, b"before");
        let watch = SealWatch::begin();
        let sealed = [seal(1, b"a"), seal(1, b"b"), seal(2, b"a")];
        let seen = watch.take();
        assert_eq!(seen.iter().map(|seal| seal.ciphertext.clone()).collect::<Vec<_>>(), sealed);
        assert_eq!(seen[1].plaintext, b"b");
        assert!(seen[0].key == seen[1].key && seen[0].key != seen[2].key);
        assert!(watch.take().is_empty());
        drop(watch);
        seal(1, b"after");
        assert!(SealWatch::begin().take().is_empty());
    }
}
