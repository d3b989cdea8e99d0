//! Invite tokens: made by the operator's program, taken over by the server, running or not.
//!
//! `conclaved invite create` leaves a file in `<data_dir>/invites/` with the hash of a token, its uses and its end. The
//! server takes such files over when somebody registers with an invite. Who can write there can read the server's keys
//! anyway, so no other channel between the two programs is needed.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use conclave_authentication::{AuthenticationService, store::InviteRow};
use conclave_names::{Hash, Timestamp};
use conclave_protocol::Refusal;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::clock;

/// Why no invite was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InviteError {
    /// The directory cannot be written.
    #[error("the invite cannot be left in {path}: {source}; run this as the user that runs the server")]
    Write {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The Authentication Service refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    token_hash: Hash,
    uses: u32,
    expires_ms: Timestamp,
}

/// Makes an invite token for `uses` registrations within `days` days, and leaves it for the server in `data_dir`.
///
/// # Errors
/// Any [`InviteError`].
pub fn create_invite(data_dir: &Path, uses: u32, days: u16) -> Result<Zeroizing<String>, InviteError> {
    let expires = clock::now().plus_ms(u64::from(days) * 24 * 3600 * 1000);
    let (token, row) = AuthenticationService::new_invite(uses, expires)?;
    let directory = data_dir.join("invites");
    let failed = |source| InviteError::Write { path: directory.clone(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(failed)?;
    let hash = Hash::new(row.token_hash);
    let file = File { token_hash: hash, uses: row.uses_left, expires_ms: row.expires };
    let text = serde_json::to_vec(&file).map_err(|error| failed(error.into()))?;
    let (new, path) = (directory.join(format!(".{hash}")), directory.join(hash.to_string()));
    // Moved into place, so that the server never reads half a file.
    let mut written = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&new).map_err(failed)?;
    written.write_all(&text).and_then(|()| written.sync_all()).map_err(failed)?;
    fs::rename(&new, &path).map_err(failed)?;
    Ok(token)
}

/// The directory with invites that the server has not taken over yet.
pub(crate) struct Spool(PathBuf);

impl Spool {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self(data_dir.join("invites"))
    }

    /// What lies there. A file that is no invite is passed over, with a note in the log.
    pub(crate) fn waiting(&self) -> Vec<(PathBuf, InviteRow)> {
        let Ok(entries) = fs::read_dir(&self.0) else { return Vec::new() };
        let named =
            |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).is_some_and(|name| !name.starts_with('.'));
        let read = |path: PathBuf| {
            let Ok(Ok(file)) = fs::read(&path).map(|bytes| serde_json::from_slice::<File>(&bytes)) else {
                tracing::warn!(path = %path.display(), "a file among the invites is none: remove it");
                return None;
            };
            let token_hash = *file.token_hash.as_bytes();
            Some((path, InviteRow { token_hash, uses_left: file.uses, expires: file.expires_ms }))
        };
        entries.flatten().map(|entry| entry.path()).filter(named).filter_map(read).collect()
    }

    /// Removes what was taken over.
    pub(crate) fn remove(taken: &[PathBuf]) {
        for path in taken {
            if let Err(error) = fs::remove_file(path) {
                tracing::warn!(path = %path.display(), %error, "an invite that was taken over cannot be removed");
            }
        }
    }
}
