//! What went wrong inside the store, before a service's own error type says it.

use conclave_authentication::store::StoreError as AuthenticationError;
use conclave_delivery::store::StoreError as DeliveryError;
use rusqlite::{Error, ErrorCode};

/// Why a transaction was undone by the store and not by its caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// SQLITE_FULL: the disk is full, or the database has reached its limit.
    #[error("the store is full: free space on its disk or raise its limit")]
    Full,
    /// Busy, I/O errors, closed, a write in a transaction that only reads, a panic.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// The file or a row does not decode, or rows contradict each other.
    #[error("the store holds data that does not decode: {0}")]
    Corrupt(String),
}

impl Failure {
    /// The store was closed before the transaction ran.
    pub(super) fn closed() -> Self {
        Self::Unavailable("the database is closed".to_owned())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        // SQLite's messages name tables and columns, never values, so that they may be logged.
        match &error {
            Error::SqliteFailure(cause, _) => match cause.code {
                ErrorCode::DiskFull => Self::Full,
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::ConstraintViolation => {
                    Self::Corrupt(error.to_string())
                }
                ErrorCode::ReadOnly => Self::Unavailable("a transaction that only reads tried to write".to_owned()),
                _ => Self::Unavailable(error.to_string()),
            },
            Error::FromSqlConversionFailure(..)
            | Error::IntegralValueOutOfRange(..)
            | Error::InvalidColumnType(..)
            | Error::Utf8Error(..) => Self::Corrupt(error.to_string()),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<Failure> for AuthenticationError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Full => Self::Full,
            Failure::Unavailable(cause) => Self::Unavailable(cause),
            Failure::Corrupt(cause) => Self::Corrupt(cause),
        }
    }
}

impl From<Failure> for DeliveryError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Full => Self::Full,
            Failure::Unavailable(cause) => Self::Unavailable(cause),
            Failure::Corrupt(cause) => Self::Corrupt(cause),
        }
    }
}
