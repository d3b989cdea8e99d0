//! What a message says: the container of draft-ietf-mimi-content.

use std::fmt;

use conclave_names::{RoomUri, UserUri, limits};
use minicbor::{Decoder, Encoder, data::Type};
use sha2::{Digest, Sha256};

/// Media type of the container.
pub const MEDIA_TYPE: &str = "application/mimi-content";

/// Nested parts are read to this depth.
const DEPTH_MAX: usize = 8;

/// Parts of one multipart.
const PARTS_MAX: u64 = 64;

/// `disposition` of a part that is to be shown.
const RENDER: u64 = 1;

/// Plain text.
const TEXT_PLAIN: &str = "text/plain;charset=utf-8";

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContentError {
    /// They do not follow the container's CBOR.
    #[error("the message does not follow draft-ietf-mimi-content")]
    Malformed,
    /// A text or a nesting is over its bound.
    #[error(
        "the message is over a bound: {} bytes of text, {} in all, {DEPTH_MAX} levels, {PARTS_MAX} parts",
        limits::TEXT,
        limits::INLINE_BODY
    )]
    TooLarge,
}

impl From<minicbor::decode::Error> for ContentError {
    fn from(_: minicbor::decode::Error) -> Self {
        Self::Malformed
    }
}

/// The name of a message: an octet for the hash algorithm (1 is SHA-256) and 31 octets of the hash of sender, room,
/// message and salt.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId([u8; 32]);

impl MessageId {
    /// The name of an encoded message, as sent by a user to a room.
    #[must_use]
    pub fn of(sender: &UserUri, room: &RoomUri, message: &[u8], salt: &[u8; 16]) -> Self {
        let mut hasher = Sha256::new();
        for uri in [sender.to_string(), room.to_string()] {
            // Names are at most 400 bytes long.
            hasher.update(u16::try_from(uri.len()).unwrap_or(u16::MAX).to_be_bytes());
            hasher.update(uri.as_bytes());
        }
        hasher.update(message);
        hasher.update(salt);
        let digest: [u8; 32] = hasher.finalize().into();
        let mut id = [1; 32];
        for (to, from) in id.iter_mut().skip(1).zip(digest) {
            *to = from;
        }
        Self(id)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// From its bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({self})")
    }
}

/// The body of a message.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// Nothing (a deletion).
    Null,
    /// Something said in the message itself.
    Single {
        /// Media type.
        content_type: String,
        /// The content.
        content: Vec<u8>,
    },
    /// Something kept elsewhere, by address. This version shows that it is there.
    External {
        /// Media type.
        content_type: String,
        /// Where it is.
        url: String,
    },
    /// Many parts.
    Multi(Vec<Part>),
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("Null"),
            Self::Single { content_type, content } => write!(f, "Single({content_type}, {} bytes)", content.len()),
            Self::External { content_type, .. } => write!(f, "External({content_type})"),
            Self::Multi(parts) => f.debug_list().entries(parts).finish(),
        }
    }
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Random, so that equal messages have different names.
    pub salt: [u8; 16],
    /// The message that this one edits or deletes.
    pub replaces: Option<MessageId>,
    /// The message that this one answers.
    pub in_reply_to: Option<MessageId>,
    /// What it says.
    pub body: Part,
}

impl Content {
    /// A message of plain text.
    ///
    /// # Errors
    /// [`ContentError::TooLarge`] for more than [`limits::TEXT`] bytes.
    pub fn text(text: &str, salt: [u8; 16]) -> Result<Self, ContentError> {
        if text.len() > limits::TEXT {
            return Err(ContentError::TooLarge);
        }
        let body = Part::Single { content_type: TEXT_PLAIN.to_owned(), content: text.as_bytes().to_vec() };
        Ok(Self { salt, replaces: None, in_reply_to: None, body })
    }

    /// The message as plain text, if some part of it can be shown so.
    #[must_use]
    pub fn as_text(&self) -> Option<String> {
        fn show(part: &Part) -> Option<String> {
            match part {
                Part::Single { content_type, content } if content_type.starts_with("text/") => {
                    String::from_utf8(content.clone()).ok()
                }
                Part::Multi(parts) => parts.iter().find_map(show),
                _ => None,
            }
        }
        show(&self.body)
    }

    /// Encodes it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Writing to a Vec cannot fail.
        let _: Result<(), minicbor::encode::Error<std::convert::Infallible>> =
            self.encode(&mut Encoder::new(&mut bytes));
        bytes
    }

    fn encode(&self, e: &mut Encoder<&mut Vec<u8>>) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
        e.array(7)?.bytes(&self.salt)?;
        encode_id(e, self.replaces)?;
        e.bytes(&[])?.null()?;
        encode_id(e, self.in_reply_to)?;
        e.map(0)?;
        encode_part(e, &self.body)
    }

    /// Decodes it; nothing may follow. Extensions that it does not know are passed over.
    ///
    /// # Errors
    /// Any [`ContentError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ContentError> {
        if bytes.len() > limits::INLINE_BODY {
            return Err(ContentError::TooLarge);
        }
        let mut d = Decoder::new(bytes);
        expect_array(&mut d, 7)?;
        let salt = d.bytes()?.try_into().map_err(|_| ContentError::Malformed)?;
        let replaces = decode_id(&mut d)?;
        d.bytes()?;
        d.skip()?;
        let in_reply_to = decode_id(&mut d)?;
        if d.datatype()? != Type::Map && d.datatype()? != Type::MapIndef {
            return Err(ContentError::Malformed);
        }
        d.skip()?;
        let body = decode_part(&mut d, 0)?;
        if d.position() != bytes.len() {
            return Err(ContentError::Malformed);
        }
        Ok(Self { salt, replaces, in_reply_to, body })
    }
}

fn encode_id(
    e: &mut Encoder<&mut Vec<u8>>,
    id: Option<MessageId>,
) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
    match id {
        Some(id) => e.bytes(id.as_bytes())?,
        None => e.null()?,
    };
    Ok(())
}

fn encode_part(
    e: &mut Encoder<&mut Vec<u8>>,
    part: &Part,
) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
    match part {
        Part::Null => e.array(3)?.u64(RENDER)?.str("")?.u8(0)?,
        Part::Single { content_type, content } => {
            e.array(5)?.u64(RENDER)?.str("")?.u8(1)?.str(content_type)?.bytes(content)?
        }
        Part::External { content_type, url } => {
            e.array(15)?.u64(RENDER)?.str("")?.u8(2)?.str(content_type)?.str(url)?;
            e.u32(0)?.u64(0)?.u16(0)?.bytes(&[])?.bytes(&[])?.bytes(&[])?.u8(0)?.bytes(&[])?.str("")?.str("")?
        }
        Part::Multi(parts) => {
            e.array(5)?.u64(RENDER)?.str("")?.u8(3)?.u8(2)?.array(parts.len() as u64)?;
            for part in parts {
                encode_part(e, part)?;
            }
            e
        }
    };
    Ok(())
}

fn expect_array(d: &mut Decoder<'_>, len: u64) -> Result<(), ContentError> {
    if d.array()? == Some(len) { Ok(()) } else { Err(ContentError::Malformed) }
}

fn decode_id(d: &mut Decoder<'_>) -> Result<Option<MessageId>, ContentError> {
    if d.datatype()? == Type::Null {
        d.null()?;
        return Ok(None);
    }
    Ok(Some(MessageId(d.bytes()?.try_into().map_err(|_| ContentError::Malformed)?)))
}

fn decode_part(d: &mut Decoder<'_>, depth: usize) -> Result<Part, ContentError> {
    if depth >= DEPTH_MAX {
        return Err(ContentError::TooLarge);
    }
    let len = d.array()?.ok_or(ContentError::Malformed)?;
    d.u64()?;
    d.str()?;
    match (d.u8()?, len) {
        (0, 3) => Ok(Part::Null),
        (1, 5) => Ok(Part::Single { content_type: d.str()?.to_owned(), content: d.bytes()?.to_vec() }),
        (2, 15) => {
            let part = Part::External { content_type: d.str()?.to_owned(), url: d.str()?.to_owned() };
            for _ in 0..10 {
                d.skip()?;
            }
            Ok(part)
        }
        (3, 5) => {
            d.u8()?;
            let parts = d.array()?.ok_or(ContentError::Malformed)?;
            if parts > PARTS_MAX {
                return Err(ContentError::TooLarge);
            }
            (0..parts).map(|_| decode_part(d, depth + 1)).collect::<Result<_, _>>().map(Part::Multi)
        }
        _ => Err(ContentError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The draft's first example ("Original Message"): its bytes and its message id, typed from the draft's appendix
    /// of examples would be data of others; so the structure is checked by hand instead.
    #[test]
    fn the_encoding_is_the_container_of_the_draft() {
        let content = Content::text("hi", [0xAA; 16]).unwrap();
        let mut expected = vec![0x87, 0x50];
        expected.extend([0xAA; 16]);
        expected.extend([0xF6, 0x40, 0xF6, 0xF6, 0xA0, 0x85, 0x01, 0x60, 0x01, 0x78, 24]);
        expected.extend(b"text/plain;charset=utf-8");
        expected.extend([0x42, b'h', b'i']);
        assert_eq!(content.to_bytes(), expected);
    }

    #[test]
    fn a_message_id_depends_on_sender_room_message_and_salt() {
        let alice: UserUri = "mimi://example.com/u/alice".parse().unwrap();
        let bob: UserUri = "mimi://example.com/u/bob".parse().unwrap();
        let room: RoomUri = "mimi://example.com/r/club".parse().unwrap();
        let other: RoomUri = "mimi://example.com/r/pub".parse().unwrap();
        let base = MessageId::of(&alice, &room, b"m", &[0; 16]);
        assert_eq!(base.as_bytes()[0], 1);
        assert_ne!(base, MessageId::of(&bob, &room, b"m", &[0; 16]));
        assert_ne!(base, MessageId::of(&alice, &other, b"m", &[0; 16]));
        assert_ne!(base, MessageId::of(&alice, &room, b"n", &[0; 16]));
        assert_ne!(base, MessageId::of(&alice, &room, b"m", &[1; 16]));
    }

    #[test]
    fn deep_or_broad_nesting_is_refused() {
        let nest = |depth| {
            let mut part = Part::Null;
            for _ in 0..depth {
                part = Part::Multi(vec![part]);
            }
            Content { salt: [0; 16], replaces: None, in_reply_to: None, body: part }.to_bytes()
        };
        assert!(Content::parse(&nest(7)).is_ok());
        assert_eq!(Content::parse(&nest(8)), Err(ContentError::TooLarge));
        let mut deep = nest(0);
        let leaf = deep.split_off(deep.len() - 4);
        // Ten thousand levels, written without building them.
        for _ in 0..10_000 {
            deep.extend([0x85, 0x01, 0x60, 0x03, 0x02, 0x81]);
        }
        deep.extend(leaf);
        assert_eq!(Content::parse(&deep), Err(ContentError::TooLarge));
        let broad =
            Content { salt: [0; 16], replaces: None, in_reply_to: None, body: Part::Multi(vec![Part::Null; 65]) };
        assert_eq!(Content::parse(&broad.to_bytes()), Err(ContentError::TooLarge));
        assert_eq!(Content::text(&"x".repeat(limits::TEXT + 1), [0; 16]), Err(ContentError::TooLarge));
    }

    fn any_part() -> impl Strategy<Value = Part> {
        let leaf = prop_oneof![
            Just(Part::Null),
            (".{0,20}", prop::collection::vec(any::<u8>(), 0..50))
                .prop_map(|(content_type, content)| Part::Single { content_type, content }),
            (".{0,20}", ".{0,20}").prop_map(|(content_type, url)| Part::External { content_type, url }),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| prop::collection::vec(inner, 1..4).prop_map(Part::Multi))
    }

    proptest! {
        #[test]
        fn messages_round_trip(body in any_part(), salt in any::<[u8; 16]>(), reply in any::<Option<[u8; 32]>>()) {
            let content = Content { salt, replaces: reply.map(MessageId), in_reply_to: reply.map(MessageId), body };
            prop_assert_eq!(Content::parse(&content.to_bytes()).unwrap(), content);
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Content::parse(&bytes);
        }

        #[test]
        fn a_cut_message_is_refused(text in ".{0,100}", cut in any::<prop::sample::Index>()) {
            let bytes = Content::text(&text, [1; 16]).unwrap().to_bytes();
            prop_assert!(Content::parse(&bytes[..cut.index(bytes.len())]).is_err());
        }
    }
}
