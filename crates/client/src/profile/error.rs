//! Why there is no profile.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why a profile was not made, opened or unlocked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// No profile is there.
    #[error("there is no profile in {}: make one with `conclave register`, or name another", .0.display())]
    Absent(PathBuf),
    /// A profile is there already.
    #[error("there is a profile in {} already: choose another place for a new one", .0.display())]
    Exists(PathBuf),
    /// Other files are where a new profile was to be.
    #[error("{} has other files in it (e.g. `{found}`): choose an empty or new directory for a profile", .dir.display())]
    Occupied {
        /// Where the profile was to be.
        dir: PathBuf,
        /// One of the files.
        found: String,
    },
    /// Another process uses the profile.
    #[error("the profile in {} is used by another process: end that one first, or choose another profile", .0.display())]
    InUse(PathBuf),
    /// A later version of this program made it.
    #[error("{} is of format {found}, this program knows formats up to {known}: use a newer version of it", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// A file does not say what it must.
    #[error("{} is damaged: {why}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Others than the owner can get at a secret.
    #[error("{} is open to other users of this machine (mode {mode:03o}): run `chmod {remedy} {}` and try again", .path.display(), .path.display())]
    Permissions {
        /// The file or directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// The permissions it should have.
        remedy: &'static str,
    },
    /// The key comes from a passphrase, and none was given.
    #[error("the profile is protected by a passphrase: give it")]
    PassphraseNeeded,
    /// Not the passphrase that the profile was made with.
    #[error("the passphrase is wrong: nothing was opened")]
    WrongPassphrase,
    /// The file holds another key.
    #[error("{} holds the key of another profile: name the key file that this profile was made with", .0.display())]
    WrongKeyFile(PathBuf),
    /// The parameters of the key derivation are out of bounds.
    #[error("the parameters of the key derivation are out of bounds: 1 MiB to 4 GiB, 1 to 64 passes, 1 to 16 lanes")]
    Kdf,
    /// The operating system gave no randomness.
    #[error("the operating system gives no random numbers: {0}")]
    Randomness(String),
    /// The file system refused.
    #[error("{}: {why}", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
}

impl ProfileError {
    pub(crate) fn io(path: &Path, error: &io::Error) -> Self {
        Self::Io { path: path.to_owned(), why: error.to_string() }
    }
}
