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

    /// What the authenticated data of a PrivateMessage or of a member's PublicMessage says, by the encoded MLSMessage (RFC 9420, sections
    /// 6.2 and 6.3). None if it says nothing, or comes from outside the group.
    #[must_use]
    pub fn said_by(message: &[u8]) -> Option<Self> {
        SafeAad::parse(&authenticated_data(message)?).ok()?.epoch()
    }
}

const MLS10: u16 = 1;
const PUBLIC_MESSAGE: u16 = 1;
const PRIVATE_MESSAGE: u16 = 2;
const MEMBER: u8 = 1;

/// How both begin.
#[derive(MlsSize, MlsDecode)]
struct Head {
    version: u16,
    wire_format: u16,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    group_id: Vec<u8>,
    epoch: u64,
}

/// What follows in a PrivateMessage.
#[derive(MlsSize, MlsDecode)]
struct PrivateHead {
    content_type: u8,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    authenticated_data: Vec<u8>,
}

/// What follows in a member's PublicMessage.
#[derive(MlsSize, MlsDecode)]
struct PublicHead {
    sender_type: u8,
    leaf_index: u32,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    authenticated_data: Vec<u8>,
}

fn authenticated_data(message: &[u8]) -> Option<Vec<u8>> {
    let mut rest = message;
    let head = Head::mls_decode(&mut rest).ok()?;
    match (head.version, head.wire_format) {
        (MLS10, PRIVATE_MESSAGE) => Some(PrivateHead::mls_decode(&mut rest).ok()?.authenticated_data),
        (MLS10, PUBLIC_MESSAGE) => {
            let head = PublicHead::mls_decode(&mut rest).ok()?;
            (head.sender_type == MEMBER).then_some(head.authenticated_data)
        }
        _ => None,
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
        if wire_format == PRIVATE_MESSAGE {
            bytes.push(1);
        } else {
            bytes.extend([MEMBER, 0, 0, 0, 9]);
        }
        mls_rs_codec::byte_vec::mls_encode(&aad.to_vec(), &mut bytes).unwrap();
        bytes.extend(b"what follows");
        bytes
    }

    #[test]
    fn so_does_the_public_message_of_a_member_and_of_nobody_else() {
        let tag = EpochTag::of(b"authenticator");
        let aad = SafeAad::of_message(tag).unwrap();
        let member = message(PUBLIC_MESSAGE, &aad);
        assert_eq!(EpochTag::said_by(&member), Some(tag));
        // Version, wire format, the group id with its length, and the epoch come before.
        let at = 2 + 2 + 6 + 8;
        for other in [0, 2, 3, 4, 255] {
            let mut outside = member.clone();
            outside[at] = other;
            assert_eq!(EpochTag::said_by(&outside), None, "sender type {other}");
        }
        for wire_format in [0, 3, 4, 5] {
            assert_eq!(EpochTag::said_by(&message(wire_format, &aad)), None, "a Welcome, a GroupInfo, a KeyPackage");
        }
        assert_eq!(EpochTag::said_by(&member[..at + 7]), None);
    }

    #[test]
    fn a_private_message_says_its_epoch_in_the_clear() {
        let tag = EpochTag::of(b"authenticator");
        assert_ne!(tag, EpochTag::of(b"another"));
        let aad = SafeAad::of_message(tag).unwrap();
        assert_eq!(EpochTag::said_by(&message(PRIVATE_MESSAGE, &aad)), Some(tag));
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
