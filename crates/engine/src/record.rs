//! Rows of the store: a version byte and the TLS encoding of a structure.

use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};
use zeroize::Zeroizing;

/// Version of every row that this code writes.
const VERSION: u8 = 1;

/// Why a row of the store cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// It was written by a later program.
    #[error("the profile was written by a newer version of Conclave (row version {0}): upgrade this program")]
    Version(u8),
    /// It does not decode.
    #[error("the profile holds a row that does not decode: it is damaged; restore it from a backup")]
    Damaged,
}

pub(crate) fn encode<T: MlsEncode + MlsSize>(value: &T) -> Zeroizing<Vec<u8>> {
    let mut bytes = Vec::with_capacity(value.mls_encoded_len() + 1);
    bytes.push(VERSION);
    // Encoding fails for fields beyond 2^30 bytes only; none of ours comes near.
    if value.mls_encode(&mut bytes).is_err() {
        bytes.clear();
    }
    Zeroizing::new(bytes)
}

/// Whether a row is of a later version than this code knows.
pub(crate) fn is_later(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|version| *version > VERSION)
}

pub(crate) fn decode<T: MlsDecode>(bytes: &[u8]) -> Result<T, RecordError> {
    let (version, mut rest) = bytes.split_first().ok_or(RecordError::Damaged)?;
    if *version != VERSION {
        return Err(RecordError::Version(*version));
    }
    let value = T::mls_decode(&mut rest).map_err(|_| RecordError::Damaged)?;
    if rest.is_empty() { Ok(value) } else { Err(RecordError::Damaged) }
}

/// A text in a row.
#[derive(Clone, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
pub(crate) struct Text(#[mls_codec(with = "mls_rs_codec::byte_vec")] Vec<u8>);

impl Text {
    pub(crate) fn new(text: impl std::fmt::Display) -> Self {
        Self(text.to_string().into_bytes())
    }

    pub(crate) fn parse<T: std::str::FromStr>(&self) -> Result<T, RecordError> {
        std::str::from_utf8(&self.0).ok().and_then(|text| text.parse().ok()).ok_or(RecordError::Damaged)
    }
}
