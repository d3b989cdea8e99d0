//! Gap fill: what was said while a member could not follow its group, told by another member once it is back (RFC 9750, section 6.6).
//!
//! Who is back asks the group by a [`GapRequest`], which has a fresh HPKE key. A member that wants to answers by [`GapAnswer`]s: messages in the
//! group that are sealed to that key, so that nobody else reads in them. The MLS signatures of what is told are gone with their epochs:
//! who said it is the teller's word alone.

use std::fmt;

use conclave_names::{ClientUri, Seq, Timestamp, limits};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};
use mls_rs_core::crypto::{CipherSuiteProvider, HpkeCiphertext, HpkePublicKey, HpkeSecretKey};
use zeroize::Zeroizing;

use crate::content::MessageId;

/// Media type of a [`GapRequest`] in a frame.
pub const GAP_REQUEST: &str = "application/vnd.conclave.gap-request";

/// Media type of a [`GapAnswer`] in a frame.
pub const GAP_ANSWER: &str = "application/vnd.conclave.gap-answer";

/// Version of request and answer that this code writes and reads.
const VERSION: u8 = 1;

/// Label of the HPKE `info` of an answer.
const INFO: &[u8] = b"conclave/v1/gap\0";

/// Longest encoded [`GapRequest`], in bytes: the places, and a public key of any suite.
const REQUEST_MAX: usize = 1024;

/// Most parts of an answer.
pub const GAP_PARTS: u16 = 64;

/// Longest encoded list of items in one part, in bytes: with everything that is put around it, an entry's inline body.
pub const GAP_ITEMS_BYTES: usize = limits::INLINE_BODY - 4096;

/// Why bytes are no request or answer, or one cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GapError {
    /// The bytes do not decode, go on after the end, or are over a bound.
    #[error("it does not decode")]
    Malformed,
    /// The version is not ours.
    #[error("it is of version {0}; this program reads version 1: upgrade it")]
    Version(u8),
    /// It was sealed to another key or for another place, or changed.
    #[error("it does not open: it was sealed to another key or for another request, or changed")]
    Open,
    /// The cryptographic library refused.
    #[error("the cryptographic library failed")]
    Crypto,
}

impl From<mls_rs_codec::Error> for GapError {
    fn from(_: mls_rs_codec::Error) -> Self {
        Self::Malformed
    }
}

fn decode<T: MlsDecode>(bytes: &[u8], most: usize) -> Result<T, GapError> {
    match bytes.first() {
        _ if bytes.len() > most => return Err(GapError::Malformed),
        Some(&VERSION) => {}
        Some(&other) => return Err(GapError::Version(other)),
        None => return Err(GapError::Malformed),
    }
    let mut rest = bytes;
    let decoded = T::mls_decode(&mut rest)?;
    if rest.is_empty() { Ok(decoded) } else { Err(GapError::Malformed) }
}

/// What somebody asks who is back.
///
/// `struct { uint8 version = 1; uint64 first; uint64 last; opaque key<V>; }`: the first and the last place of the channel that it could not read,
/// and an HPKE public key of the group's cipher suite.
#[derive(Clone, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
pub struct GapRequest {
    version: u8,
    /// The first place that could not be read.
    pub first: Seq,
    /// The last one, not before the first.
    pub last: Seq,
    /// To what the answer is to be sealed.
    pub key: HpkePublicKey,
}

impl fmt::Debug for GapRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GapRequest").field("first", &self.first).field("last", &self.last).finish_non_exhaustive()
    }
}

impl GapRequest {
    /// A request for these places.
    #[must_use]
    pub fn new(first: Seq, last: Seq, key: HpkePublicKey) -> Self {
        Self { version: VERSION, first, last, key }
    }

    /// Encodes it.
    ///
    /// # Errors
    /// [`GapError::Malformed`] for a key of no suite.
    pub fn to_bytes(&self) -> Result<Vec<u8>, GapError> {
        let bytes = self.mls_encode_to_vec()?;
        if bytes.len() > REQUEST_MAX { Err(GapError::Malformed) } else { Ok(bytes) }
    }

    /// Decodes it; nothing may follow.
    ///
    /// # Errors
    /// [`GapError::Malformed`], also for places in the wrong order; [`GapError::Version`].
    pub fn parse(bytes: &[u8]) -> Result<Self, GapError> {
        let request: Self = decode(bytes, REQUEST_MAX)?;
        if request.first > request.last || request.first == Seq(0) { Err(GapError::Malformed) } else { Ok(request) }
    }
}

/// A message as a member tells it.
///
/// `struct { uint64 seq; uint64 time_ms; opaque sender<V>; opaque id[32]; opaque content<V>; }`.
#[derive(Clone, PartialEq, Eq)]
pub struct GapItem {
    /// Its place in the channel.
    pub seq: Seq,
    /// The DS's time.
    pub time: Timestamp,
    /// Who is said to have sent it.
    pub sender: ClientUri,
    /// Its name.
    pub id: MessageId,
    /// The encoded [`crate::content::Content`].
    pub content: Vec<u8>,
}

impl fmt::Debug for GapItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GapItem").field("seq", &self.seq).field("id", &self.id).finish_non_exhaustive()
    }
}

#[derive(MlsSize, MlsEncode, MlsDecode)]
struct Item {
    seq: Seq,
    time: Timestamp,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    sender: Vec<u8>,
    id: [u8; 32],
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    content: Vec<u8>,
}

impl From<&GapItem> for Item {
    fn from(item: &GapItem) -> Self {
        Self {
            seq: item.seq,
            time: item.time,
            sender: item.sender.to_string().into_bytes(),
            id: *item.id.as_bytes(),
            content: item.content.clone(),
        }
    }
}

impl TryFrom<Item> for GapItem {
    type Error = GapError;

    fn try_from(item: Item) -> Result<Self, GapError> {
        let sender = std::str::from_utf8(&item.sender).ok().and_then(|text| text.parse().ok());
        Ok(Self {
            seq: item.seq,
            time: item.time,
            sender: sender.ok_or(GapError::Malformed)?,
            id: MessageId::new(item.id),
            content: item.content,
        })
    }
}

impl GapItem {
    /// How long it is in a list of items, in bytes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        Item::from(self).mls_encoded_len()
    }
}

/// Shares items out to parts, in order. What does not fit into a part alone is left out; gives how many that were.
#[must_use]
pub fn share_out(items: Vec<GapItem>) -> (Vec<Vec<GapItem>>, usize) {
    // The length of the list before it takes up to four bytes.
    const ROOM: usize = GAP_ITEMS_BYTES - 4;
    let (mut parts, mut left_out, mut free) = (Vec::new(), 0, 0);
    for item in items {
        let len = item.encoded_len();
        if len > ROOM {
            left_out += 1;
            continue;
        }
        match parts.last_mut() {
            Some(last) if len <= free => {
                free -= len;
                let last: &mut Vec<GapItem> = last;
                last.push(item);
            }
            _ => {
                free = ROOM - len;
                parts.push(vec![item]);
            }
        }
    }
    (parts, left_out)
}

/// What an answer is bound to.
#[derive(Debug, Clone, Copy)]
pub struct GapContext<'a> {
    /// The MLS group id.
    pub group_id: &'a [u8],
    /// Who tells it.
    pub teller: &'a ClientUri,
    /// Place of the request in the channel.
    pub request: Seq,
}

#[derive(MlsSize, MlsEncode)]
struct Info<'a> {
    version: u8,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    group_id: &'a [u8],
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    teller: &'a [u8],
    request: Seq,
    part: u16,
    parts: u16,
}

impl GapContext<'_> {
    fn info(&self, part: u16, parts: u16) -> Result<Vec<u8>, GapError> {
        let teller = self.teller.to_string();
        let mut info = INFO.to_vec();
        let (version, group_id, request) = (VERSION, self.group_id, self.request);
        Info { version, group_id, teller: teller.as_bytes(), request, part, parts }.mls_encode(&mut info)?;
        Ok(info)
    }
}

/// One part of an answer.
///
/// `struct { uint8 version = 1; uint64 request; uint16 part; uint16 parts; HPKECiphertext sealed; }`: the request's place, which part it is of how
/// many, counted from zero, and the items (`Item items<V>`), sealed to the request's key with `info` =
/// "conclave/v1/gap" 0x00 ‖ `struct { uint8 version = 1; opaque group_id<V>; opaque teller<V>; uint64 request; uint16 part; uint16 parts; }` and no
/// associated data.
#[derive(Debug, Clone, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
pub struct GapAnswer {
    version: u8,
    /// Place of the request in the channel.
    pub request: Seq,
    /// Which part it is, counted from zero.
    pub part: u16,
    /// How many parts there are, [`GAP_PARTS`] at most.
    pub parts: u16,
    sealed: HpkeCiphertext,
}

impl GapAnswer {
    /// Seals a part. `part` of `parts`, counted from zero.
    ///
    /// # Errors
    /// [`GapError::Malformed`] over [`GAP_ITEMS_BYTES`] or [`GAP_PARTS`], [`GapError::Crypto`] if the key is none of the suite's.
    pub fn seal<P: CipherSuiteProvider>(
        provider: &P,
        context: GapContext<'_>,
        key: &HpkePublicKey,
        (part, parts): (u16, u16),
        items: &[GapItem],
    ) -> Result<Self, GapError> {
        let plain: Vec<Item> = items.iter().map(Item::from).collect();
        let plain = Zeroizing::new(plain.mls_encode_to_vec()?);
        if part >= parts || parts > GAP_PARTS || plain.len() > GAP_ITEMS_BYTES {
            return Err(GapError::Malformed);
        }
        let info = context.info(part, parts)?;
        let sealed = provider.hpke_seal(key, &info, None, &plain).map_err(|_| GapError::Crypto)?;
        Ok(Self { version: VERSION, request: context.request, part, parts, sealed })
    }

    /// Encodes it.
    ///
    /// # Errors
    /// [`GapError::Malformed`] never in practice.
    pub fn to_bytes(&self) -> Result<Vec<u8>, GapError> {
        Ok(self.mls_encode_to_vec()?)
    }

    /// Decodes it; nothing may follow.
    ///
    /// # Errors
    /// [`GapError::Malformed`], also beyond [`limits::INLINE_BODY`] bytes or [`GAP_PARTS`] parts; [`GapError::Version`].
    pub fn parse(bytes: &[u8]) -> Result<Self, GapError> {
        let answer: Self = decode(bytes, limits::INLINE_BODY)?;
        if answer.part >= answer.parts || answer.parts > GAP_PARTS { Err(GapError::Malformed) } else { Ok(answer) }
    }

    /// Opens it, as told by the member in `context`. What the items say is not checked but for their form.
    ///
    /// # Errors
    /// [`GapError::Open`], or [`GapError::Malformed`] if what is in it does not decode.
    pub fn open<P: CipherSuiteProvider>(
        &self,
        provider: &P,
        context: GapContext<'_>,
        secret: &HpkeSecretKey,
        public: &HpkePublicKey,
    ) -> Result<Vec<GapItem>, GapError> {
        let info = context.info(self.part, self.parts)?;
        let plain = provider.hpke_open(&self.sealed, secret, public, &info, None).map_err(|_| GapError::Open)?;
        let plain = Zeroizing::new(plain);
        let mut rest = plain.as_slice();
        let items = Vec::<Item>::mls_decode(&mut rest)?;
        if !rest.is_empty() {
            return Err(GapError::Malformed);
        }
        items.into_iter().map(GapItem::try_from).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto;

    fn client(name: &str) -> ClientUri {
        format!("mimi://example.com/d/{name}/laptop").parse().unwrap()
    }

    fn item(seq: u64, content: Vec<u8>) -> GapItem {
        GapItem { seq: Seq(seq), time: Timestamp(9), sender: client("bob"), id: MessageId::new([1; 32]), content }
    }

    #[test]
    fn a_part_opens_for_its_request_teller_group_and_number_only() {
        for suite in crypto::SUITES.map(|suite| crypto::suite(suite).unwrap()) {
            let (secret, public) = suite.kem_generate().unwrap();
            let (alice, carol) = (client("alice"), client("carol"));
            let context = GapContext { group_id: b"group", teller: &alice, request: Seq(7) };
            let items = vec![item(3, b"three".to_vec()), item(4, b"four".to_vec())];
            let sealed = GapAnswer::seal(&suite, context, &public, (1, 3), &items).unwrap();
            let bytes = sealed.to_bytes().unwrap();
            let parsed = GapAnswer::parse(&bytes).unwrap();
            assert_eq!((parsed.request, parsed.part, parsed.parts), (Seq(7), 1, 3));
            assert_eq!(parsed.open(&suite, context, &secret, &public).unwrap(), items);
            for other in [
                GapContext { group_id: b"other", ..context },
                GapContext { teller: &carol, ..context },
                GapContext { request: Seq(8), ..context },
            ] {
                assert_eq!(parsed.open(&suite, other, &secret, &public), Err(GapError::Open));
            }
            for other in [GapAnswer { part: 0, ..parsed.clone() }, GapAnswer { parts: 4, ..parsed.clone() }] {
                assert_eq!(other.open(&suite, context, &secret, &public), Err(GapError::Open));
            }
            let (other_secret, other_public) = suite.kem_generate().unwrap();
            assert_eq!(parsed.open(&suite, context, &other_secret, &other_public), Err(GapError::Open));
            // What is sealed to the same key for another purpose is none, and what is no list neither.
            let info = context.info(0, 1).unwrap();
            let seal = |info: &[u8], plain: &[u8]| GapAnswer {
                version: VERSION,
                request: Seq(7),
                part: 0,
                parts: 1,
                sealed: suite.hpke_seal(&public, info, None, plain).unwrap(),
            };
            let open = |answer: GapAnswer| answer.open(&suite, context, &secret, &public);
            assert_eq!(open(seal(b"conclave/v1/knock", &[0])), Err(GapError::Open));
            assert_eq!(open(seal(&info, &[0])), Ok(Vec::new()));
            assert_eq!(open(seal(&info, &[0, 0])), Err(GapError::Malformed), "something follows");
            assert_eq!(open(seal(&info, &[1, 0])), Err(GapError::Malformed));
        }
    }

    #[test]
    fn bounds_are_kept() {
        let suite = crypto::suite(crypto::DEFAULT_SUITE).unwrap();
        let (_, public) = suite.kem_generate().unwrap();
        let alice = client("alice");
        let context = GapContext { group_id: b"group", teller: &alice, request: Seq(7) };
        let seal = |part, items: &[GapItem]| GapAnswer::seal(&suite, context, &public, part, items);
        for part in [(0, 0), (1, 1), (0, GAP_PARTS + 1)] {
            assert_eq!(seal(part, &[]), Err(GapError::Malformed));
        }
        assert_eq!(seal((0, 1), &[item(1, vec![0; GAP_ITEMS_BYTES])]), Err(GapError::Malformed));
        // The largest part is a message that needs no blob.
        let (parts, left_out) = share_out((0..40).map(|seq| item(seq, vec![7; 6000])).collect());
        assert_eq!((parts.iter().map(Vec::len).sum::<usize>(), left_out), (40, 0));
        for part in &parts {
            let bytes = seal((0, 1), part).unwrap().to_bytes().unwrap();
            assert!(bytes.len() + 1024 < limits::INLINE_BODY);
        }
        assert_eq!(share_out(vec![item(1, vec![0; GAP_ITEMS_BYTES])]), (Vec::new(), 1));
        let request = GapRequest::new(Seq(2), Seq(5), public.clone()).to_bytes().unwrap();
        assert_eq!(GapRequest::parse(&request).unwrap().last, Seq(5));
        for (first, last) in [(5, 2), (0, 2)] {
            let wrong = GapRequest::new(Seq(first), Seq(last), public.clone()).to_bytes().unwrap();
            assert_eq!(GapRequest::parse(&wrong), Err(GapError::Malformed));
        }
        assert_eq!(GapRequest::parse(&[2]), Err(GapError::Version(2)));
        assert_eq!(GapAnswer::parse(&[2]), Err(GapError::Version(2)));
        assert_eq!(GapRequest::parse(&[]), Err(GapError::Malformed));
        let long = HpkePublicKey::from(vec![0; REQUEST_MAX]);
        assert_eq!(GapRequest::new(Seq(1), Seq(1), long).to_bytes(), Err(GapError::Malformed));
    }

    fn any_item() -> impl Strategy<Value = GapItem> {
        let name = "[a-z]{1,12}";
        (any::<u64>(), any::<u64>(), name, any::<[u8; 32]>(), prop::collection::vec(any::<u8>(), 0..3000)).prop_map(
            |(seq, time, name, id, content)| GapItem {
                seq: Seq(seq),
                time: Timestamp(time),
                sender: client(&name),
                id: MessageId::new(id),
                content,
            },
        )
    }

    proptest! {
        #[test]
        fn items_round_trip_in_their_parts(items in prop::collection::vec(any_item(), 0..60)) {
            let suite = crypto::suite(crypto::DEFAULT_SUITE).unwrap();
            let (secret, public) = suite.kem_generate().unwrap();
            let alice = client("alice");
            let context = GapContext { group_id: b"group", teller: &alice, request: Seq(7) };
            let (parts, left_out) = share_out(items.clone());
            prop_assert_eq!(left_out, 0);
            let count = u16::try_from(parts.len()).unwrap();
            let mut told = Vec::new();
            for (part, items) in (0..).zip(&parts) {
                let sealed = GapAnswer::seal(&suite, context, &public, (part, count), items).unwrap();
                let mut bytes = sealed.to_bytes().unwrap();
                told.extend(GapAnswer::parse(&bytes).unwrap().open(&suite, context, &secret, &public).unwrap());
                bytes.push(0);
                prop_assert_eq!(GapAnswer::parse(&bytes), Err(GapError::Malformed));
            }
            prop_assert_eq!(told, items);
        }

        #[test]
        fn requests_round_trip_and_cut_ones_are_refused(first in 1..u64::MAX, more in 0..1000u64, key in prop::collection::vec(any::<u8>(), 0..100), cut: prop::sample::Index) {
            let request = GapRequest::new(Seq(first), Seq(first.saturating_add(more)), HpkePublicKey::from(key));
            let bytes = request.to_bytes().unwrap();
            prop_assert_eq!(GapRequest::parse(&bytes).unwrap(), request);
            prop_assert!(GapRequest::parse(&bytes[..cut.index(bytes.len())]).is_err());
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = GapRequest::parse(&bytes);
            let _ = GapAnswer::parse(&bytes);
            let _ = Vec::<Item>::mls_decode(&mut bytes.as_slice()).map(|items| items.into_iter().map(GapItem::try_from).count());
        }

        #[test]
        fn any_change_of_a_part_is_noticed(byte: prop::sample::Index, bit in 0..8u8) {
            let suite = crypto::suite(crypto::DEFAULT_SUITE).unwrap();
            let (secret, public) = suite.kem_generate().unwrap();
            let alice = client("alice");
            let context = GapContext { group_id: b"group", teller: &alice, request: Seq(7) };
            let sealed = GapAnswer::seal(&suite, context, &public, (0, 2), &[item(3, b"three".to_vec())]).unwrap();
            let mut bytes = sealed.to_bytes().unwrap();
            let index = byte.index(bytes.len());
            bytes[index] ^= 1 << bit;
            // The place of the request is not sealed but bound: who reads it asks for that of its own request.
            let changed = GapAnswer::parse(&bytes).map(|answer| {
                answer.request != Seq(7) || answer.open(&suite, context, &secret, &public).is_err()
            });
            prop_assert_ne!(changed, Ok(false));
        }
    }
}
