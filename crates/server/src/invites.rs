//! Invite tokens: made by the operator's program, taken over by the server, running or not.
//!
//! `conclaved invite create` leaves a file in `<data_dir>/invites/` with the hash of a token, its uses and its end. The
//! server takes such files over when somebody registers with an invite. Who can write there can read the server's keys
//! anyway, so no other channel between the two programs is needed.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, chown},
    path::{Path, PathBuf},
    sync::Arc,
};

use conclave_authentication::{AuthenticationService, store::InviteRow};
use conclave_names::{Hash, Timestamp};
use conclave_protocol::{Code, Refusal};
use conclave_storage::AuthenticationStore;
use serde::{Deserialize, Serialize};
use tokio::{sync::Mutex, task::spawn_blocking};
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
    // Made by root, it is for the user whose the data directory is.
    let owner = fs::metadata(data_dir).map_err(failed)?;
    let hand_over = |path: &Path| -> io::Result<()> {
        let made = fs::metadata(path)?;
        let same = (made.uid(), made.gid()) == (owner.uid(), owner.gid());
        if same || made.uid() != 0 { Ok(()) } else { chown(path, Some(owner.uid()), Some(owner.gid())) }
    };
    hand_over(&directory).map_err(failed)?;
    // Moved into place, so that the server never reads half a file.
    let mut written = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&new).map_err(failed)?;
    written.write_all(&text).and_then(|()| written.sync_all()).map_err(failed)?;
    hand_over(&new).map_err(failed)?;
    fs::rename(&new, &path).map_err(failed)?;
    Ok(token)
}

/// The directory with invites that the server has not taken over yet.
pub(crate) struct Spool {
    directory: PathBuf,
    /// One registration at a time takes over.
    taking: Mutex<()>,
}

/// Ending of a file that is being taken over.
const TAKEN: &str = "taken";

impl Spool {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self { directory: data_dir.join("invites"), taking: Mutex::new(()) }
    }

    /// Takes over what lies there.
    ///
    /// A file is renamed first: one that cannot be removed is not taken over, because later, when the store has
    /// forgotten that the invite was used up, it would be taken over again.
    pub(crate) async fn take_over(
        &self,
        service: &Arc<AuthenticationService>,
        store: &AuthenticationStore,
    ) -> Result<(), Refusal> {
        let _one_at_a_time = self.taking.lock().await;
        let directory = self.directory.clone();
        let (paths, rows): (Vec<_>, Vec<_>) = off_the_runtime(move || claim(&directory)).await?.into_iter().unzip();
        if rows.is_empty() {
            return Ok(());
        }
        let service = Arc::clone(service);
        store.write(move |tx| rows.iter().try_for_each(|row| service.import_invite(tx, row, clock::now()))).await?;
        off_the_runtime(move || remove(&paths)).await
    }
}

async fn off_the_runtime<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "invites were not looked at");
        Refusal::new(Code::Internal, "the server failed: its operator finds the cause in its log")
    })
}

/// What lies there, each file renamed. What is no invite is passed over, with a note in the log.
fn claim(directory: &Path) -> Vec<(PathBuf, InviteRow)> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            let path = directory.display();
            tracing::warn!(%path, %error, "invites cannot be read: give the directory to the server's user");
            return Vec::new();
        }
    };
    entries.flatten().filter_map(|entry| claim_one(entry.path())).collect()
}

fn claim_one(path: PathBuf) -> Option<(PathBuf, InviteRow)> {
    // Half-written files have names with a dot first.
    path.file_name().and_then(|name| name.to_str()).filter(|name| !name.starts_with('.'))?;
    let file = match fs::read(&path).map(|bytes| serde_json::from_slice::<File>(&bytes)) {
        Ok(Ok(file)) => file,
        Ok(Err(_)) => {
            tracing::warn!(path = %path.display(), "a file among the invites is none: remove it");
            return None;
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "an invite cannot be read: give it to the server's user");
            return None;
        }
    };
    let taken = path.with_extension(TAKEN);
    if let Err(error) = fs::rename(&path, &taken) {
        tracing::warn!(path = %path.display(), %error, "an invite cannot be taken over");
        return None;
    }
    let row = InviteRow { token_hash: *file.token_hash.as_bytes(), uses_left: file.uses, expires: file.expires_ms };
    Some((taken, row))
}

/// Removes what was taken over.
fn remove(taken: &[PathBuf]) {
    for path in taken {
        if let Err(error) = fs::remove_file(path) {
            tracing::warn!(path = %path.display(), %error, "an invite that was taken over cannot be removed");
        }
    }
}
