//! Identifiers that are random or are hashes: fixed lengths of bytes, shown in hexadecimal.

use std::{fmt, str::FromStr};

use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Text or bytes that are no identifier of the expected length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} bytes ({} hexadecimal digits) for a {what}", expected * 2)]
pub struct InvalidHex {
    what: &'static str,
    expected: usize,
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, MlsSize, MlsEncode, MlsDecode)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// From its bytes.
            #[must_use]
            pub const fn new(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// A copy of its bytes, for a field of a message.
            #[must_use]
            pub fn to_vec(&self) -> Vec<u8> {
                self.0.to_vec()
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = InvalidHex;

            fn try_from(bytes: &[u8]) -> Result<Self, InvalidHex> {
                bytes.try_into().map(Self).map_err(|_| InvalidHex { what: $what, expected: $len })
            }
        }

        impl FromStr for $name {
            type Err = InvalidHex;

            fn from_str(text: &str) -> Result<Self, InvalidHex> {
                let mut bytes = [0; $len];
                hex::decode_to_slice(text, &mut bytes)
                    .map_err(|_| InvalidHex { what: $what, expected: $len })?;
                Ok(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hex_id! {
    /// The name of a channel (a group's or an inbox's): random, known to nobody who was not told.
    ChannelId, 16, "channel id"
}

hex_id! {
    /// A SHA-256 hash.
    Hash, 32, "hash"
}

hex_id! {
    /// Chosen at random by the submitter, so that the same submission sent twice takes effect once.
    IdempotencyKey, 16, "idempotency key"
}

hex_id! {
    /// The name of an open session of a client with a DS.
    SessionId, 16, "session id"
}

hex_id! {
    /// The name of an open stream from a DS. Who knows it may change what the stream carries, so it is random.
    StreamHandle, 16, "stream handle"
}
