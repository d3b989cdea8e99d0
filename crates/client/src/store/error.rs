//! Why a store did not do what it was asked.

use rusqlite::ErrorCode;

/// Why a store did not do what it was asked. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No room is left. Goes away once there is.
    #[error("the disk is full, nothing was changed: free some space and try again")]
    Full,
    /// Something else has the store's file open. Goes away by itself.
    #[error("the store's file is in use by another program, nothing was changed: end it and try again")]
    Busy,
    /// The key opens another store.
    #[error("the key is not the one of this profile")]
    WrongKey,
    /// A later version of this program wrote it.
    #[error("the store is of format {found}, this program knows formats up to {known}: use a newer version of it")]
    Newer {
        /// Its format.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// What is read is not what was written.
    #[error("the store is damaged ({0}): restore the profile from a copy, or link this device anew")]
    Corrupt(String),
    /// A number beyond 2^63, which no counter of Conclave comes near.
    #[error("a sequence number or time is beyond 2^63")]
    OutOfRange,
    /// The file system or the machine refused.
    #[error("the store's file cannot be used: {0}")]
    Io(String),
}

impl StoreError {
    /// Whether the same call may succeed later, with no change but time and room on the disk.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Full | Self::Busy)
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        // SQLite's messages name tables and columns, never values.
        let text = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            // None: a column of another type than it was written with.
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) | None => Self::Corrupt(text),
            Some(_) => Self::Io(text),
        }
    }
}
