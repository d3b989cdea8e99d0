//! Tickets: made by the operator's program, under a key in the data directory.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use conclave_delivery::limits::TicketKey;
use zeroize::Zeroizing;

use crate::{authority::private_file, clock};

/// The key's file.
const KEY: &str = "tickets.key";

/// Why there is no ticket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TicketKeyError {
    /// There is no key yet.
    #[error("{} is not there: start the server once with this data directory, then make tickets", .0.display())]
    Absent(PathBuf),
    /// The key cannot be read or made.
    #[error("{}: {source}; run this as the user that runs the server", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no key.
    #[error("{} is damaged: restore it, or remove it, and with it all tickets that were made", .0.display())]
    Damaged(PathBuf),
    /// There are no random bytes.
    #[error("the operating system gave no random bytes: try again")]
    Random,
}

fn random<const N: usize>() -> Result<[u8; N], TicketKeyError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| TicketKeyError::Random)?;
    Ok(bytes)
}

fn read(path: PathBuf) -> Result<TicketKey, TicketKeyError> {
    match fs::read(&path).map(Zeroizing::new) {
        Ok(bytes) => bytes.as_slice().try_into().map(TicketKey::new).map_err(|_| TicketKeyError::Damaged(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(TicketKeyError::Absent(path)),
        Err(source) => Err(TicketKeyError::File { path, source }),
    }
}

/// Reads the key of a data directory, or makes it at first start.
pub(crate) fn load(data_dir: &Path) -> Result<TicketKey, TicketKeyError> {
    match read(data_dir.join(KEY)) {
        Err(TicketKeyError::Absent(path)) => {
            let bytes = Zeroizing::new(random::<32>()?);
            private_file(&path, bytes.as_slice()).map_err(|source| TicketKeyError::File { path, source })?;
            Ok(TicketKey::new(*bytes))
        }
        other => other,
    }
}

/// Makes a ticket: who presents it is admitted for `calls` calls within `days` days beyond what the rates of a network
/// address let through.
///
/// # Errors
/// Any [`TicketKeyError`].
pub fn create_ticket(data_dir: &Path, calls: u32, days: u16) -> Result<Zeroizing<String>, TicketKeyError> {
    let expires = clock::now().plus_ms(u64::from(days) * 24 * 3600 * 1000);
    Ok(read(data_dir.join(KEY))?.issue(random()?, calls, expires))
}
