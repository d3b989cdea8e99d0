//! Which epoch a message is of, said so that members of another branch of the group see it.
//!
//! A group whose members applied different commits at the same epoch goes on in branches that cannot read each other. All that
//! a member sends says in its authenticated data which epoch it takes the present one for, by a hash of the epoch's
//! authenticator (RFC 9420, section 8.7). Within the group seal that can be read without a key of the epoch: so who cannot decrypt
//! a message learns whether it was corrupted or is of another branch.

use conclave_channel::chain::entry_hash;
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};

use super::SafeAad;

const LABEL: &[u8] = b"conclave/v1/epoch-tag\0";

/// The first 16 bytes of SHA-256("conclave/v1/epoch-tag" 0x00 ‖ `epoch_authenticator`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, MlsSize, MlsEncode, MlsDecode)]
pub struct EpochTag([u8; 16]);

impl EpochTag {
    /// Of an epoch with this authenticator.
    #[must_use]
    pub fn of(authenticator: &[u8]) -> Self {
        let hash = entry_hash(&[LABEL, authenticator].concat());
        Self(hash.as_bytes().first_chunk().copied().unwrap_or_default())
    }

    /// What the authenticated data of a PrivateMessage says, by the encoded MLSMessage (RFC 9420, section 6.3). None if it says
    /// nothing, or this is no PrivateMessage.
    #[must_use]
    pub fn said_by(message: &[u8]) -> Option<Self> {
        let head = PrivateHead::read(message)?;
        SafeAad::parse(&head.authenticated_data).ok()?.epoch()
    }
}

const MLS10: u16 = 1;
const PRIVATE_MESSAGE: u16 = 2;

/// How a PrivateMessage begins.
#[derive(MlsSize, MlsDecode)]
struct PrivateHead {
    version: u16,
    wire_format: u16,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    group_id: Vec<u8>,
    epoch: u64,
    content_type: u8,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    authenticated_data: Vec<u8>,
}

impl PrivateHead {
    fn read(mut message: &[u8]) -> Option<Self> {
        let head = Self::mls_decode(&mut message).ok()?;
        (head.version == MLS10 && head.wire_format == PRIVATE_MESSAGE).then_some(head)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::components::HandshakeAad;

    fn message(wire_format: u16, aad: &[u8]) -> Vec<u8> {
        let mut bytes = [MLS10.to_be_bytes(), wire_format.to_be_bytes()].concat();
        mls_rs_codec::byte_vec::mls_encode(&b"group".to_vec(), &mut bytes).unwrap();
        bytes.extend(7_u64.to_be_bytes());
        bytes.push(1);
        mls_rs_codec::byte_vec::mls_encode(&aad.to_vec(), &mut bytes).unwrap();
        bytes.extend(b"what is encrypted");
        bytes
    }

    #[test]
    fn a_private_message_says_its_epoch_in_the_clear() {
        let tag = EpochTag::of(b"authenticator");
        assert_ne!(tag, EpochTag::of(b"another"));
        let aad = SafeAad::of_message(tag).unwrap();
        assert_eq!(EpochTag::said_by(&message(PRIVATE_MESSAGE, &aad)), Some(tag));
        assert_eq!(EpochTag::said_by(&message(1, &aad)), None, "a PublicMessage is laid out otherwise");
        let position = conclave_channel::Position::start(&conclave_names::ChannelId::new([1; 16]));
        let handshake = HandshakeAad { position, commit: None };
        let said = |aad: &[u8]| EpochTag::said_by(&message(PRIVATE_MESSAGE, aad));
        assert_eq!(said(&handshake.in_epoch(tag).unwrap()), Some(tag));
        assert_eq!(said(&handshake.to_bytes().unwrap()), None);
        assert_eq!(HandshakeAad::of_proposal(&handshake.in_epoch(tag).unwrap()), Ok(handshake));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = EpochTag::said_by(&bytes);
        }
    }
}
