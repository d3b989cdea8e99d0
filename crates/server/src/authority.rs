//! The Authentication Service's certificate authority: its key is a file of the data directory.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use conclave_authentication::CertificateAuthority;
use conclave_names::Domain;
use zeroize::Zeroizing;

use crate::clock;

/// Why there is no certificate authority.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Key and certificate are none, or not of one another.
    #[error("the certificate authority in {path} is damaged ({why}): restore it from a backup")]
    Damaged {
        /// Where.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The data directory is of another domain.
    #[error(
        "the data directory is of the domain {found}, but the configuration says {expected}: a domain cannot be renamed"
    )]
    Domain {
        /// Whose it is.
        found: Domain,
        /// What is configured.
        expected: Domain,
    },
}

/// Makes a directory that only this user can enter.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file that only this user can read, durably, whole or not at all.
pub(crate) fn private_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |parent| fs::File::open(parent)?.sync_all())
}

/// Loads the authority of a data directory, or makes it at first start.
pub(crate) fn load(data_dir: &Path, domain: &Domain) -> Result<CertificateAuthority, AuthorityError> {
    let directory = data_dir.join("authority");
    let (key_path, certificate_path) = (directory.join("key"), directory.join("certificate.der"));
    let file = |path: &Path| {
        let path = path.to_owned();
        move |source| AuthorityError::File { path, source }
    };
    let damaged = |why: String| AuthorityError::Damaged { path: directory.clone(), why };
    // The certificate is written last: with it, the key is there.
    if !certificate_path.try_exists().map_err(file(&certificate_path))? {
        tracing::info!(path = %directory.display(), "making a new certificate authority");
        private_dir(&directory).map_err(file(&directory))?;
        let authority = CertificateAuthority::generate(domain, clock::now()).map_err(|e| damaged(e.to_string()))?;
        private_file(&key_path, authority.secret().as_ref()).map_err(file(&key_path))?;
        private_file(&certificate_path, authority.certificate()).map_err(file(&certificate_path))?;
        return Ok(authority);
    }
    let key = Zeroizing::new(fs::read(&key_path).map_err(file(&key_path))?);
    let key: Zeroizing<[u8; 32]> =
        Zeroizing::new(key.as_slice().try_into().map_err(|_| damaged("the key is not 32 bytes".into()))?);
    let certificate = fs::read(&certificate_path).map_err(file(&certificate_path))?;
    let authority = CertificateAuthority::from_parts(&key, &certificate).map_err(|e| damaged(e.to_string()))?;
    if authority.domain() != domain {
        return Err(AuthorityError::Domain { found: authority.domain().clone(), expected: domain.clone() });
    }
    Ok(authority)
}
