//! `profile.toml`.

use std::path::{Path, PathBuf};

use conclave_names::Domain;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::{Kdf, ProfileError};

/// The format that this code writes, and the newest that it reads.
pub(super) const FORMAT: u32 = 1;

/// What `profile.toml` says. Nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ProfileConfig {
    /// Version of this file's format.
    pub version: u32,
    /// The server, e.g. `https://example.com:8443`.
    pub server: String,
    /// The server of the Authentication Service, if it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication_server: Option<String>,
    /// The domain that the server speaks for.
    pub domain: Domain,
    /// File with the certificate authority to which the server is pinned, relative to the profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Whether the server is reached without TLS, which is possible on this machine only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plaintext: bool,
    /// A hash by which a wrong key is told from a damaged store.
    pub key_check: String,
    /// How the store's key comes about.
    pub key: KeySource,
}

/// How the store's key comes about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum KeySource {
    /// From a passphrase through Argon2id.
    Passphrase {
        /// Its parameters.
        kdf: Kdf,
        /// 16 random bytes in hexadecimal.
        salt: String,
    },
    /// From a file of 32 random bytes.
    File {
        /// Where it is; a relative path starts at the profile.
        path: PathBuf,
    },
}

/// What every format of the file has.
#[derive(Deserialize)]
struct AnyFormat {
    version: u32,
}

impl ProfileConfig {
    pub(super) fn from_toml(text: &str, path: &Path) -> Result<Self, ProfileError> {
        let damaged = |e: toml::de::Error| ProfileError::Damaged { path: path.to_owned(), why: e.to_string() };
        let AnyFormat { version } = toml::from_str(text).map_err(damaged)?;
        if version > FORMAT {
            return Err(ProfileError::Newer { path: path.to_owned(), found: version, known: FORMAT });
        }
        toml::from_str(text).map_err(damaged)
    }

    pub(super) fn to_toml(&self) -> String {
        // Numbers, strings and tables only: TOML has them all.
        toml::to_string(self).unwrap_or_default()
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

pub(super) fn unhex(text: &str) -> Option<[u8; 16]> {
    HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}
