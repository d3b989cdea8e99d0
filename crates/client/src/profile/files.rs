//! Files and directories that are the owner's alone.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
};

use super::ProfileError;

#[cfg(unix)]
fn check(path: &Path, metadata: &fs::Metadata, remedy: &'static str) -> Result<(), ProfileError> {
    use std::os::unix::fs::PermissionsExt;

    let mode = metadata.permissions().mode() & 0o7777;
    let others = mode & 0o077;
    if others == 0 { Ok(()) } else { Err(ProfileError::Permissions { path: path.to_owned(), mode, remedy }) }
}

#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps)]
fn check(_: &Path, _: &fs::Metadata, _: &'static str) -> Result<(), ProfileError> {
    // Elsewhere a user's own directories are closed to others by default.
    Ok(())
}

fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

/// Refuses a directory into which others can look.
pub(super) fn check_private_dir(dir: &Path) -> Result<(), ProfileError> {
    let metadata = fs::metadata(dir).map_err(|e| ProfileError::io(dir, &e))?;
    check(dir, &metadata, "700")
}

/// Makes a directory of mode 0700, or closes an existing one that has nothing in it but `ours`.
pub(super) fn make_private_dir(dir: &Path, ours: &[&str]) -> Result<(), ProfileError> {
    let io = |e: io::Error| ProfileError::io(dir, &e);
    if !dir.exists() {
        if let Some(parent) = dir.parent() {
            fs::create_dir_all(parent).map_err(io)?;
        }
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        return builder.create(dir).map_err(io);
    }
    if super::Profile::exists(dir) {
        return Err(ProfileError::Exists(dir.to_owned()));
    }
    for entry in fs::read_dir(dir).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        if !ours.iter().any(|own| name == **own) {
            let found = name.to_string_lossy().into_owned();
            return Err(ProfileError::Occupied { dir: dir.to_owned(), found });
        }
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(io)?;
    }
    Ok(())
}

/// Opens a file for reading and writing, made with mode 0600 if it is not there.
pub(super) fn open_private(path: &Path) -> Result<File, ProfileError> {
    private(OpenOptions::new().read(true).write(true).create(true).truncate(false))
        .open(path)
        .map_err(|e| ProfileError::io(path, &e))
}

/// Writes a file of mode 0600, durably, over what was there.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), ProfileError> {
    let write = || {
        let mut file = private(OpenOptions::new().write(true).create(true).truncate(true)).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|e: io::Error| ProfileError::io(path, &e))
}

/// Writes a new file of mode 0600, durably. One that is there is left alone, which is an error.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), ProfileError> {
    let write = || {
        let mut file = private(OpenOptions::new().write(true).create_new(true)).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|e: io::Error| ProfileError::io(path, &e))
}

/// Opens a file that must be closed to others. What is judged is the file opened, not whatever has its name later.
pub(super) fn open_secret(path: &Path) -> Result<File, ProfileError> {
    let open = || {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        Ok((file, metadata))
    };
    let (file, metadata) = open().map_err(|e: io::Error| ProfileError::io(path, &e))?;
    check(path, &metadata, "600")?;
    Ok(file)
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), ProfileError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(ProfileError::io(path, &e)),
        _ => Ok(()),
    }
}

/// Makes a rename durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), ProfileError> {
    if cfg!(unix) {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| ProfileError::io(dir, &e))?;
    }
    Ok(())
}
