//! Why a configuration is refused.

use std::path::PathBuf;

/// Why a configuration is refused, with the place and the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {path} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is wrong; the text has line and column.
    #[error(
        "the configuration file {path} is wrong:\n{why}\n`conclaved init` writes an example with every setting explained"
    )]
    File {
        /// The file.
        path: PathBuf,
        /// Where and why.
        why: String,
    },
    /// Settings that do not go together; where the file has one of them, with its line.
    #[error("wrong configuration: {0}")]
    Together(String),
}

/// Settings that do not go together: their keys in the file, cause and remedy.
pub(super) struct Contradiction {
    pub(super) keys: &'static [&'static str],
    pub(super) why: String,
}

impl From<Contradiction> for ConfigError {
    fn from(contradiction: Contradiction) -> Self {
        Self::Together(contradiction.why)
    }
}

pub(super) fn together(keys: &'static [&'static str], why: &str) -> Contradiction {
    Contradiction { keys, why: why.to_owned() }
}
