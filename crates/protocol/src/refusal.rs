//! A refusal as it crosses the wire.

use std::{collections::BTreeMap, fmt};

use crate::{Code, Retry};

/// A service's answer to a request that it did not carry out: a stable code, a sentence for people, and values for
/// programs. It never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The stable code.
    pub code: Code,
    /// Cause and remedy, for people. Not stable.
    pub message: String,
    /// Values that the code promises (e.g. `epoch`).
    pub metadata: BTreeMap<String, String>,
}

impl Refusal {
    /// A refusal with a code and a sentence that names cause and remedy.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), metadata: BTreeMap::new() }
    }

    /// Adds a value for programs.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl fmt::Display) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }

    /// A number that the code promises in its metadata.
    #[must_use]
    pub fn number(&self, key: &str) -> Option<u64> {
        self.metadata.get(key)?.parse().ok()
    }

    /// What a caller should do about it.
    #[must_use]
    pub fn retry(&self) -> Retry {
        self.code.retry()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for Refusal {}
