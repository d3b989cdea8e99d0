//! The group seed, and what is sealed under it for the DS to keep.
//!
//! The seed is derived from the MLS exporter of the epoch in which it was renewed (each removal renews it), and given
//! to joiners with their Welcome. It seals entries, GroupInfo and trees, so that the DS and whoever reads its disk see
//! kinds, epochs and size classes. It opens no door: access is a matter of channel keys.
//!
//! Sealed bytes: `struct { uint8 version = 1; opaque salt[16]; opaque ciphertext[rest]; }` with
//! key ‖ nonce = KDF.Expand(seed, "conclave/v1/seal" 0x00 ‖ u8(purpose) ‖ salt, Nk + Nn) of the group's cipher suite, and
//! the caller's context as associated data. The salt is random, so no key and nonce come twice (of tree chunks it is
//! derived from the content, so that they come twice for the same content only).

use conclave_channel::size_class;
use conclave_names::{ChannelId, Epoch};
use mls_rs_core::crypto::CipherSuiteProvider;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Version of the seal that this code writes and reads.
const VERSION: u8 = 1;

/// Length of the salt in bytes.
const SALT: usize = 16;

/// Version, salt and AEAD tag.
const OVERHEAD: usize = 1 + SALT + 16;

/// Label of the exporter from which a seed is derived; the context is the channel id.
pub const EXPORTER_LABEL: &[u8] = b"conclave/v1/group-seed";

/// Length of a seed in bytes.
pub const SEED_LEN: usize = 32;

/// Why nothing was sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The bytes are too short or their padding is wrong.
    #[error("what was sealed does not decode")]
    Malformed,
    /// Their version is not ours.
    #[error("what was sealed is of version {0}; this program reads version 1: upgrade it")]
    Version(u8),
    /// Another seed, context or purpose, or the bytes were changed.
    #[error("what was sealed does not open: it is of another epoch or was changed")]
    Open,
    /// The cryptographic library refused.
    #[error("the cryptographic library failed")]
    Crypto,
}

/// What is sealed. Each purpose has keys of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// The body of an entry.
    Entry = 1,
    /// A GroupInfo.
    GroupInfo = 2,
    /// A ratchet tree.
    Tree = 3,
    /// What joiners get beyond MLS; sealed under a key of its own instead of the seed.
    Joiner = 4,
    /// What brings an account back, under a key of a passphrase instead of the seed.
    Recovery = 5,
}

/// AEAD key and nonce of one sealing.
type KeyAndNonce = (Zeroizing<Vec<u8>>, Zeroizing<Vec<u8>>);

/// A key of 32 bytes that seals: the group seed, or the one-time key of a Welcome's attachment.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Seed([u8; SEED_LEN]);

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// Context of an entry's seal: it binds the body to its place outside.
#[must_use]
pub fn entry_context(channel: &ChannelId, kind: u8, epoch: Epoch) -> Vec<u8> {
    let mut context = channel.to_vec();
    context.push(kind);
    context.extend_from_slice(&epoch.0.to_be_bytes());
    context
}

/// Context of what belongs to an epoch as a whole (GroupInfo, tree).
#[must_use]
pub fn epoch_context(channel: &ChannelId, epoch: Epoch) -> Vec<u8> {
    entry_context(channel, 0, epoch)
}

impl Seed {
    /// From its bytes.
    ///
    /// # Errors
    /// [`SealError::Malformed`] if they are not 32.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, SealError> {
        bytes.try_into().map(Self).map_err(|_| SealError::Malformed)
    }

    /// Its bytes, for the store and for joiners.
    #[must_use]
    pub fn expose(&self) -> &[u8; SEED_LEN] {
        &self.0
    }

    fn key<P: CipherSuiteProvider>(&self, suite: &P, purpose: Purpose, salt: &[u8]) -> Result<KeyAndNonce, SealError> {
        let mut info = b"conclave/v1/seal\0".to_vec();
        info.push(purpose as u8);
        info.extend_from_slice(salt);
        let (key_len, nonce_len) = (suite.aead_key_size(), suite.aead_nonce_size());
        let mut key = suite.kdf_expand(&self.0, &info, key_len + nonce_len).map_err(|_| SealError::Crypto)?;
        if key.len() != key_len + nonce_len {
            return Err(SealError::Crypto);
        }
        let nonce = Zeroizing::new(key.split_off(key_len));
        Ok((key, nonce))
    }

    /// Pads to a size class (but for [`Purpose::Joiner`]) and seals.
    ///
    /// # Errors
    /// [`SealError::Crypto`].
    pub fn seal<P: CipherSuiteProvider>(
        &self,
        suite: &P,
        purpose: Purpose,
        context: &[u8],
        plaintext: Vec<u8>,
    ) -> Result<Vec<u8>, SealError> {
        let salt = suite.random_bytes_vec(SALT).map_err(|_| SealError::Crypto)?;
        self.seal_with(suite, purpose, context, plaintext, &salt)
    }

    /// The same for what has to have the same sealed bytes whoever seals it. The salt is derived from `content`, which
    /// must stand for the plaintext (its hash): then key and nonce come twice for the same plaintext only.
    ///
    /// # Errors
    /// [`SealError::Crypto`].
    pub fn seal_again<P: CipherSuiteProvider>(
        &self,
        suite: &P,
        purpose: Purpose,
        context: &[u8],
        plaintext: Vec<u8>,
        content: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        let mut info = b"conclave/v1/seal-salt\0".to_vec();
        info.push(purpose as u8);
        info.extend_from_slice(content);
        let salt = suite.kdf_expand(&self.0, &info, SALT).map_err(|_| SealError::Crypto)?;
        self.seal_with(suite, purpose, context, plaintext, &salt)
    }

    fn seal_with<P: CipherSuiteProvider>(
        &self,
        suite: &P,
        purpose: Purpose,
        context: &[u8],
        plaintext: Vec<u8>,
        salt: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        let (key, nonce) = self.key(suite, purpose, salt)?;
        let padded = Zeroizing::new(match purpose {
            // It goes into an inbox with the rest of a Welcome, and is padded with that.
            Purpose::Joiner => size_class::mark(plaintext),
            // Chunks of a tree are many and of like size.
            Purpose::Tree => size_class::pad_blob(plaintext, OVERHEAD),
            Purpose::Entry | Purpose::GroupInfo | Purpose::Recovery => size_class::pad(plaintext, OVERHEAD),
        });
        let ciphertext = suite.aead_seal(&key, &padded, Some(context), &nonce).map_err(|_| SealError::Crypto)?;
        let mut sealed = Vec::with_capacity(1 + SALT + ciphertext.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(salt);
        sealed.extend_from_slice(&ciphertext);
        Ok(sealed)
    }

    /// Opens and takes the padding off.
    ///
    /// # Errors
    /// Any [`SealError`].
    pub fn open<P: CipherSuiteProvider>(
        &self,
        suite: &P,
        purpose: Purpose,
        context: &[u8],
        sealed: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        let (version, rest) = sealed.split_first().ok_or(SealError::Malformed)?;
        if *version != VERSION {
            return Err(SealError::Version(*version));
        }
        let (salt, ciphertext) = rest.split_at_checked(SALT).ok_or(SealError::Malformed)?;
        let (key, nonce) = self.key(suite, purpose, salt)?;
        let mut padded = suite.aead_open(&key, ciphertext, Some(context), &nonce).map_err(|_| SealError::Open)?;
        size_class::unpad(std::mem::take(&mut *padded)).map_err(|_| SealError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto;

    fn seed(byte: u8) -> Seed {
        Seed::from_slice(&[byte; 32]).unwrap()
    }

    #[test]
    fn another_seed_purpose_context_or_suite_opens_nothing() {
        for suite in crypto::SUITES.map(|suite| crypto::suite(suite).unwrap()) {
            let sealed = seed(1).seal(&suite, Purpose::Entry, b"here", b"text".to_vec()).unwrap();
            assert_eq!(seed(1).open(&suite, Purpose::Entry, b"here", &sealed).unwrap(), b"text");
            assert_eq!(seed(2).open(&suite, Purpose::Entry, b"here", &sealed), Err(SealError::Open));
            assert_eq!(seed(1).open(&suite, Purpose::Tree, b"here", &sealed), Err(SealError::Open));
            assert_eq!(seed(1).open(&suite, Purpose::Entry, b"there", &sealed), Err(SealError::Open));
        }
    }

    #[test]
    fn sealing_twice_gives_two_ciphertexts_of_one_class() {
        let suite = crypto::suite(crypto::DEFAULT_SUITE).unwrap();
        let seal = |text: &str| seed(1).seal(&suite, Purpose::Entry, b"", text.as_bytes().to_vec()).unwrap();
        assert_ne!(seal("a"), seal("a"));
        assert_eq!(seal("a").len(), 256);
        assert_eq!(seal(&"a".repeat(200)).len(), 256);
        assert_eq!(seal(&"a".repeat(256)).len(), 512);
    }

    #[test]
    fn debug_prints_no_seed() {
        assert_eq!(format!("{:?}", seed(0xAB)), "Seed(..)");
    }

    proptest! {
        #[test]
        fn any_change_is_noticed(byte in any::<prop::sample::Index>(), bit in 0..8u8, cut in any::<prop::sample::Index>()) {
            let suite = crypto::suite(crypto::DEFAULT_SUITE).unwrap();
            let mut sealed = seed(1).seal(&suite, Purpose::Entry, b"", b"text".to_vec()).unwrap();
            prop_assert!(seed(1).open(&suite, Purpose::Entry, b"", &sealed[..cut.index(sealed.len())]).is_err());
            let index = byte.index(sealed.len());
            sealed[index] ^= 1 << bit;
            prop_assert!(seed(1).open(&suite, Purpose::Entry, b"", &sealed).is_err());
        }
    }
}
