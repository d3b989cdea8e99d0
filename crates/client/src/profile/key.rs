//! The key of the store.

use std::{fmt, io::Read, path::Path};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use super::{ProfileError, config, files};

/// Parameters of Argon2id (RFC 9106). The default has the memory and passes of its
/// second recommended choice, in one lane: 64 MiB, 3 passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kdf {
    /// Memory in KiB: 1024 (1 MiB) to 4,194,304 (4 GiB).
    pub memory_kib: u32,
    /// Passes over the memory: 1 to 64.
    pub passes: u32,
    /// Lanes: 1 to 16.
    pub lanes: u32,
}

impl Default for Kdf {
    fn default() -> Self {
        Self { memory_kib: 64 * 1024, passes: 3, lanes: 1 }
    }
}

impl Kdf {
    fn argon2(self) -> Result<Argon2<'static>, ProfileError> {
        let good = (1024..=4 << 20).contains(&self.memory_kib)
            && (1..=64).contains(&self.passes)
            && (1..=16).contains(&self.lanes);
        if !good {
            return Err(ProfileError::Kdf);
        }
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(32)).map_err(|_| ProfileError::Kdf)?;
        Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
    }
}

/// The key of a store: 32 bytes, wiped when dropped, never shown.
#[derive(Clone)]
pub struct StoreKey(Zeroizing<[u8; 32]>);

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreKey(..)")
    }
}

/// Random bytes of the operating system.
pub(super) fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, ProfileError> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(&mut *bytes).map_err(|e| ProfileError::Randomness(e.to_string()))?;
    Ok(bytes)
}

/// 32 bytes from a passphrase.
pub(crate) fn derive(passphrase: &str, kdf: &Kdf, salt: &[u8; 16]) -> Result<Zeroizing<[u8; 32]>, ProfileError> {
    let argon2 = kdf.argon2()?;
    let mut key = Zeroizing::new([0; 32]);
    let mut memory = vec![Block::default(); argon2.params().block_count()];
    let derived = argon2.hash_password_into_with_memory(passphrase.as_bytes(), salt, &mut *key, &mut memory);
    memory.zeroize();
    derived.map_err(|_| ProfileError::Kdf)?;
    Ok(key)
}

impl StoreKey {
    /// From a passphrase.
    pub(super) fn derive(passphrase: &str, kdf: &Kdf, salt: &[u8; 16]) -> Result<Self, ProfileError> {
        derive(passphrase, kdf, salt).map(Self)
    }

    /// A new random key, kept in a new file of mode 0600.
    pub(super) fn create_file(path: &Path) -> Result<Self, ProfileError> {
        let key = random()?;
        files::write_new(path, &*key)?;
        Ok(Self(key))
    }

    /// From a file of 32 bytes that is its owner's alone.
    pub(super) fn read_file(path: &Path) -> Result<Self, ProfileError> {
        let mut file = files::open_secret(path)?;
        let mut key = Zeroizing::new([0; 32]);
        let wrong = || ProfileError::Damaged {
            path: path.to_owned(),
            why: "a key file has 32 bytes: restore it from a copy".to_owned(),
        };
        file.read_exact(&mut *key).map_err(|_| wrong())?;
        if file.read(&mut [0]).map_err(|e| ProfileError::io(path, &e))? != 0 {
            return Err(wrong());
        }
        Ok(Self(key))
    }

    /// A hash that tells this key from others and nothing about it: it is random, or as costly to guess as the
    /// passphrase behind Argon2id.
    pub(super) fn check(&self) -> String {
        let hash = Sha256::new().chain_update(b"conclave/v1/store-key-check\0").chain_update(*self.0).finalize();
        config::hex(hash.get(..16).unwrap_or_default())
    }

    /// The statement that gives SQLCipher the key as it is, without a derivation of its own.
    pub(crate) fn pragma(&self) -> Zeroizing<String> {
        // Made at its final length, so that no copy is left behind by growing.
        let mut text = Zeroizing::new(String::with_capacity(96));
        text.push_str("PRAGMA key = \"x'");
        for byte in *self.0 {
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from_digit(digit.into(), 16).unwrap_or_default());
            }
        }
        text.push_str("'\"");
        text
    }
}
