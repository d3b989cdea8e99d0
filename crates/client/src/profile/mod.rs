//! A profile: the directory in which one device of one user keeps everything.
//!
//! | file | content |
//! |---|---|
//! | `profile.toml` | format version, server, domain, how the store's key comes about: nothing secret |
//! | `ca.pem` | the certificate authority to which the server is pinned, if any |
//! | `store.key` | the store's key, if it is kept in a file and no other place was chosen |
//! | `store.db` | the encrypted store |
//! | `lock` | held by the process that uses the profile |
//!
//! ```no_run
//! use conclave_client::{profile::{NewKey, NewProfile, Profile}, store::Store};
//!
//! let new = NewProfile::new("https://example.com:8443", "example.com".parse()?, NewKey::File(None));
//! let (profile, key) = Profile::create("/home/alice/.config/conclave/default".as_ref(), new)?;
//! let store = Store::open(&profile, &key)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod config;
mod error;
mod files;
mod key;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::Arc,
};

use conclave_names::Domain;
use zeroize::Zeroizing;

pub use config::{KeySource, ProfileConfig};
pub use error::ProfileError;
pub(crate) use key::derive;
pub use key::{Kdf, StoreKey};

use config::FORMAT;

use crate::transport::Ticket;

const CONFIG: &str = "profile.toml";
const LOCK: &str = "lock";
const TICKET: &str = "ticket";
const DATABASE: &str = "store.db";
const KEY_FILE: &str = "store.key";
const CA: &str = "ca.pem";

/// How the key of a new profile's store comes about.
pub enum NewKey {
    /// From a passphrase that is asked for each time. Whoever forgets it loses the profile.
    Passphrase(Zeroizing<String>, Kdf),
    /// From a file: this one if it exists, else one that is made there. `None` stands for `store.key` in the profile,
    /// which protects the store against nobody who can read the profile.
    File(Option<PathBuf>),
}

/// What a new profile is made of.
pub struct NewProfile {
    /// The server, e.g. `https://example.com:8443`.
    pub server: String,
    /// The server of the Authentication Service, if it is another.
    pub authentication_server: Option<String>,
    /// The domain that the server speaks for.
    pub domain: Domain,
    /// PEM of the certificate authority that must have issued the server's certificate. `None` trusts those of the
    /// operating system.
    pub ca_pem: Option<Vec<u8>>,
    /// Whether the server is reached without TLS, which is possible on this machine only.
    pub plaintext: bool,
    /// How the store's key comes about.
    pub key: NewKey,
}

impl NewProfile {
    /// Over TLS, with the operating system's certificate authorities.
    pub fn new(server: impl Into<String>, domain: Domain, key: NewKey) -> Self {
        Self { server: server.into(), authentication_server: None, domain, ca_pem: None, plaintext: false, key }
    }
}

/// A profile that this process holds: as long as it, or a store that was opened from it, lives, no other process
/// can open it.
#[derive(Debug)]
pub struct Profile {
    dir: PathBuf,
    config: ProfileConfig,
    lock: Arc<File>,
}

impl Profile {
    /// Whether there is a profile in a directory.
    pub fn exists(dir: &Path) -> bool {
        dir.join(CONFIG).exists()
    }

    /// Makes a profile and the key of its store. The directory must be absent or empty; what an interrupted attempt
    /// left there does not matter.
    ///
    /// # Errors
    /// [`ProfileError::Exists`], [`ProfileError::InUse`], [`ProfileError::Occupied`], [`ProfileError::Permissions`] of
    /// an existing key file, [`ProfileError::Io`].
    pub fn create(dir: &Path, new: NewProfile) -> Result<(Self, StoreKey), ProfileError> {
        files::make_private_dir(dir, &[LOCK, KEY_FILE, CA, CONFIG_NEW])?;
        let lock = take_lock(dir)?;
        if Self::exists(dir) {
            return Err(ProfileError::Exists(dir.to_owned()));
        }
        let (source, key) = match new.key {
            NewKey::Passphrase(passphrase, kdf) => {
                let salt = key::random::<16>()?;
                let key = StoreKey::derive(&passphrase, &kdf, &salt)?;
                (KeySource::Passphrase { kdf, salt: config::hex(&*salt) }, key)
            }
            NewKey::File(None) => {
                // Without a profile.toml, a key that lies there has locked nothing.
                files::remove(&dir.join(KEY_FILE))?;
                let key = StoreKey::create_file(&dir.join(KEY_FILE))?;
                (KeySource::File { path: KEY_FILE.into() }, key)
            }
            NewKey::File(Some(path)) => {
                let path = std::path::absolute(&path).map_err(|e| ProfileError::io(&path, &e))?;
                let key = if path.exists() { StoreKey::read_file(&path)? } else { StoreKey::create_file(&path)? };
                (KeySource::File { path }, key)
            }
        };
        let ca = match &new.ca_pem {
            Some(pem) => {
                files::write_private(&dir.join(CA), pem)?;
                Some(PathBuf::from(CA))
            }
            None => None,
        };
        let config = ProfileConfig {
            version: FORMAT,
            server: new.server,
            authentication_server: new.authentication_server,
            domain: new.domain,
            ca,
            plaintext: new.plaintext,
            key: source,
            key_check: key.check(),
        };
        // Written last and moved into place: a profile is there whole or not at all.
        files::write_private(&dir.join(CONFIG_NEW), config.to_toml().as_bytes())?;
        fs::rename(dir.join(CONFIG_NEW), dir.join(CONFIG)).map_err(|e| ProfileError::io(&dir.join(CONFIG), &e))?;
        files::sync_dir(dir)?;
        Ok((Self { dir: dir.to_owned(), config, lock: Arc::new(lock) }, key))
    }

    /// Opens a profile for this process alone.
    ///
    /// # Errors
    /// [`ProfileError::Absent`], [`ProfileError::InUse`], [`ProfileError::Newer`], [`ProfileError::Damaged`],
    /// [`ProfileError::Permissions`], [`ProfileError::Io`].
    pub fn open(dir: &Path) -> Result<Self, ProfileError> {
        if !Self::exists(dir) {
            return Err(ProfileError::Absent(dir.to_owned()));
        }
        files::check_private_dir(dir)?;
        let lock = take_lock(dir)?;
        let path = dir.join(CONFIG);
        let text = fs::read_to_string(&path).map_err(|e| ProfileError::io(&path, &e))?;
        let config = ProfileConfig::from_toml(&text, &path)?;
        Ok(Self { dir: dir.to_owned(), config, lock: Arc::new(lock) })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What `profile.toml` says.
    pub fn config(&self) -> &ProfileConfig {
        &self.config
    }

    /// Whether the key comes from a passphrase, so that one must be asked for.
    pub fn needs_passphrase(&self) -> bool {
        matches!(self.config.key, KeySource::Passphrase { .. })
    }

    /// The key of the store. From a passphrase this takes a moment by design (64 MiB and about half a second).
    ///
    /// # Errors
    /// [`ProfileError::PassphraseNeeded`], [`ProfileError::WrongPassphrase`], [`ProfileError::WrongKeyFile`],
    /// [`ProfileError::Permissions`], [`ProfileError::Io`].
    pub fn unlock(&self, passphrase: Option<&str>) -> Result<StoreKey, ProfileError> {
        match &self.config.key {
            KeySource::Passphrase { kdf, salt } => {
                let passphrase = passphrase.ok_or(ProfileError::PassphraseNeeded)?;
                let salt = config::unhex(salt).ok_or_else(|| self.damaged("`salt` is not 16 bytes in hexadecimal"))?;
                let key = StoreKey::derive(passphrase, kdf, &salt)?;
                if self.admits(&key) { Ok(key) } else { Err(ProfileError::WrongPassphrase) }
            }
            KeySource::File { path } => {
                let path = self.dir.join(path);
                let key = StoreKey::read_file(&path)?;
                if self.admits(&key) { Ok(key) } else { Err(ProfileError::WrongKeyFile(path)) }
            }
        }
    }

    /// PEM of the certificate authority to which the server is pinned.
    pub fn ca_pem(&self) -> Result<Option<Vec<u8>>, ProfileError> {
        let Some(ca) = &self.config.ca else { return Ok(None) };
        let path = self.dir.join(ca);
        fs::read(&path).map(Some).map_err(|e| ProfileError::io(&path, &e))
    }

    /// The ticket of the server's operator that somebody left in the profile's directory, if any.
    ///
    /// # Errors
    /// A file that cannot be read, or holds no ticket.
    pub fn ticket(&self) -> Result<Option<Ticket>, ProfileError> {
        let path = self.dir.join(TICKET);
        let text = match fs::read_to_string(&path).map(Zeroizing::new) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ProfileError::io(&path, &error)),
        };
        Ticket::new(&text).map(Some).map_err(|error| ProfileError::Damaged { path, why: error.to_string() })
    }

    /// Whether a key is this profile's.
    pub(crate) fn admits(&self, key: &StoreKey) -> bool {
        key.check() == self.config.key_check
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.dir.join(DATABASE)
    }

    /// Keeps the profile locked for as long as the answer lives.
    pub(crate) fn lock(&self) -> Arc<File> {
        Arc::clone(&self.lock)
    }

    fn damaged(&self, why: &str) -> ProfileError {
        ProfileError::Damaged { path: self.dir.join(CONFIG), why: why.to_owned() }
    }
}

const CONFIG_NEW: &str = "profile.toml.new";

fn take_lock(dir: &Path) -> Result<File, ProfileError> {
    let path = dir.join(LOCK);
    let file = files::open_private(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ProfileError::InUse(dir.to_owned())),
        Err(TryLockError::Error(e)) => Err(ProfileError::io(&path, &e)),
    }
}
