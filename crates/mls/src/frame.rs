//! The frame inside an encrypted application message: what is said, and what its sender had seen.

use conclave_channel::Position;
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};

/// Version of the frame that this code writes and reads.
const VERSION: u8 = 1;

/// Media type of a heartbeat: no content, but where its sender stands.
pub const HEARTBEAT: &str = "application/vnd.conclave.heartbeat";

/// Why a decrypted message has no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// It does not decode.
    #[error("the message's frame does not decode")]
    Malformed,
    /// Its version is not ours.
    #[error("the message's frame is of version {0}; this program reads version 1: upgrade it")]
    Version(u8),
}

#[derive(MlsSize, MlsEncode, MlsDecode)]
struct Wire {
    version: u8,
    position: Position,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    media_type: Vec<u8>,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    content: Vec<u8>,
}

/// The plaintext of an application message:
/// `struct { uint8 version = 1; uint64 seq; opaque hash[32]; opaque media_type<V>; opaque content<V>; }`.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// Where in the channel the sender stood, and the running hash there.
    pub position: Position,
    /// Media type of the content ([`crate::content::MEDIA_TYPE`]).
    pub media_type: String,
    /// The content.
    pub content: Vec<u8>,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frame")
            .field("position", &self.position)
            .field("media_type", &self.media_type)
            .finish_non_exhaustive()
    }
}

impl Frame {
    /// Encodes it.
    pub fn to_bytes(&self) -> Result<Vec<u8>, mls_rs_codec::Error> {
        Wire {
            version: VERSION,
            position: self.position,
            media_type: self.media_type.clone().into_bytes(),
            content: self.content.clone(),
        }
        .mls_encode_to_vec()
    }

    /// Decodes it; nothing may follow.
    pub fn parse(bytes: &[u8]) -> Result<Self, FrameError> {
        match bytes.first() {
            Some(&VERSION) => {}
            Some(&other) => return Err(FrameError::Version(other)),
            None => return Err(FrameError::Malformed),
        }
        let mut rest = bytes;
        let wire = Wire::mls_decode(&mut rest).map_err(|_| FrameError::Malformed)?;
        if !rest.is_empty() {
            return Err(FrameError::Malformed);
        }
        let media_type = String::from_utf8(wire.media_type).map_err(|_| FrameError::Malformed)?;
        Ok(Self { position: wire.position, media_type, content: wire.content })
    }
}

#[cfg(test)]
mod tests {
    use conclave_names::{Hash, Seq};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_round_trip(seq: u64, hash: [u8; 32], media_type in ".{0,40}", content in prop::collection::vec(any::<u8>(), 0..200)) {
            let frame = Frame { position: Position { seq: Seq(seq), hash: Hash::new(hash) }, media_type, content };
            let mut bytes = frame.to_bytes().unwrap();
            prop_assert_eq!(Frame::parse(&bytes).unwrap(), frame);
            bytes.push(0);
            prop_assert_eq!(Frame::parse(&bytes), Err(FrameError::Malformed));
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Frame::parse(&bytes);
        }
    }

    #[test]
    fn a_later_version_is_named() {
        assert_eq!(Frame::parse(&[2, 0]), Err(FrameError::Version(2)));
        assert_eq!(Frame::parse(&[]), Err(FrameError::Malformed));
    }
}
