//! A knock: a client that cannot follow a group any more, and finds no way back by itself, asks a member to let it in again
//! (RFC 9750, sections 5.3 and 6.6).
//!
//! It is posted to the delivery address of a KeyPackage that was claimed of the member, and sealed to that KeyPackage's init key
//! under an `info` of its own: the DS learns that somebody posted into an inbox. In it is a fresh KeyPackage of the knocker, and a
//! signature by the key of that KeyPackage's leaf over the group, the old leaves and the member's KeyPackage: so it is good
//! for this member, this group and these leaves only, and a copy of it leads nowhere once the leaf has been replaced.

use std::fmt;

use conclave_channel::access::ChannelKey;
use conclave_names::{GroupUri, Timestamp};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};
use mls_rs_core::crypto::{CipherSuiteProvider, HpkeCiphertext, HpkePublicKey, HpkeSecretKey};
use sha2::{Digest, Sha256};

/// Version of knock and sealed knock that this code writes and reads.
const VERSION: u8 = 1;

/// HPKE `info` of a sealed knock.
const INFO: &[u8] = b"conclave/v1/knock";

/// Domain separation of the signature.
const LABEL: &[u8] = b"conclave/v1/knock\0";

/// Longest encoded [`SealedKnock`], in bytes: what a KeyPackage needs, and as much again.
pub const KNOCK_MAX: usize = 2 * conclave_names::limits::KEY_PACKAGE;

/// Why bytes are no knock, or one cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KnockError {
    /// The bytes do not decode, or go on after the end.
    #[error("the knock does not decode")]
    Malformed,
    /// The version is not ours.
    #[error("the knock is of version {0}; this program reads version 1: upgrade it")]
    Version(u8),
    /// It was sealed to another key, or changed.
    #[error("the knock does not open: it was sealed to another key or changed")]
    Open,
    /// The cryptographic library refused.
    #[error("the cryptographic library failed")]
    Crypto,
}

impl From<mls_rs_codec::Error> for KnockError {
    fn from(_: mls_rs_codec::Error) -> Self {
        Self::Malformed
    }
}

/// Most old leaves that a knock may name.
pub const OLD_LEAVES_MAX: usize = 16;

/// Most groups that a knock may name in which nothing is to be done.
pub const KEPT_GROUPS_MAX: usize = 512;

/// Domain separation of [`KeptGroup`].
const KEPT_LABEL: &[u8] = b"conclave/v1/kept-group\0";

/// A group that the knocker has not lost: the first 8 bytes of SHA-256 over "conclave/v1/kept-group" 0x00 ‖ the member's
/// `KeyPackageRef` as `opaque<V>` ‖ the group's name as `opaque<V>`. So two knocks cannot be compared by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
pub struct KeptGroup([u8; 8]);

impl KeptGroup {
    /// Of a group, in a knock for the member whose KeyPackage has the reference `to`.
    ///
    /// # Errors
    /// [`KnockError::Malformed`] if something is too long to be encoded.
    pub fn of(to: &[u8], group: &GroupUri) -> Result<Self, KnockError> {
        let mut bytes = KEPT_LABEL.to_vec();
        mls_rs_codec::byte_vec::mls_encode(&to, &mut bytes)?;
        mls_rs_codec::byte_vec::mls_encode(&group.to_string().as_bytes(), &mut bytes)?;
        let mut name = [0; 8];
        name.copy_from_slice(Sha256::digest(&bytes).split_at(8).0);
        Ok(Self(name))
    }
}

/// What a knock is about.
#[derive(Debug, Clone, Default)]
pub struct Names<'a> {
    /// The group; none for all that the knocker is a member of.
    pub group: Option<&'a GroupUri>,
    /// As [`Knock::old_leaves`].
    pub old_leaves: Vec<ChannelKey>,
    /// As [`Knock::kept_groups`].
    pub kept_groups: Vec<KeptGroup>,
}

/// What is asked, and for whom.
///
/// `struct { uint8 version = 1; opaque group<V> (empty: all groups); ChannelKey old_leaves<V>; KeptGroup kept_groups<V>;
/// uint64 time_ms; opaque key_package<V>; opaque signature[64]; }`, where `signature` is Ed25519 over "conclave/v1/knock" 0x00 ‖ the
/// structure `{ opaque to<V>; opaque group<V>; ChannelKey old_leaves<V>; KeptGroup kept_groups<V>; uint64 time_ms;
/// opaque key_package_hash[32]; }`, `ChannelKey` is `opaque[32]`, and [`KeptGroup`] `opaque[8]`.
#[derive(Clone, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
pub struct Knock {
    version: u8,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    group: Vec<u8>,
    /// Channel keys of the leaves that the group may know the knocker by, [`OLD_LEAVES_MAX`] at most: who is in another branch of it
    /// cannot tell which one it is. Empty if it has lost everything, these keys included.
    pub old_leaves: Vec<ChannelKey>,
    /// Groups that the knocker follows, [`KEPT_GROUPS_MAX`] at most: its leaf there is not one that it has lost.
    pub kept_groups: Vec<KeptGroup>,
    /// When it knocked.
    pub time: Timestamp,
    /// What it is to be added by: an MLSMessage with a KeyPackage.
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    pub key_package: Vec<u8>,
    signature: [u8; 64],
}

impl fmt::Debug for Knock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Knock").field("time", &self.time).finish_non_exhaustive()
    }
}

/// What the signature is over.
#[derive(MlsSize, MlsEncode)]
struct ToBeSigned<'a> {
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    to: &'a [u8],
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    group: &'a [u8],
    old_leaves: &'a [ChannelKey],
    kept_groups: &'a [KeptGroup],
    time: Timestamp,
    key_package_hash: [u8; 32],
}

/// A knock sealed to a member's KeyPackage.
///
/// `struct { uint8 version = 1; uint16 cipher_suite; opaque to<V>; HPKECiphertext sealed; }`: the KeyPackage's suite, its
/// KeyPackageRef, and an HPKE ciphertext with `info` = "conclave/v1/knock" and no associated data.
#[derive(Debug, Clone, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
pub struct SealedKnock {
    version: u8,
    /// Suite of the KeyPackage.
    pub cipher_suite: u16,
    /// Reference of the KeyPackage.
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    pub to: Vec<u8>,
    sealed: HpkeCiphertext,
}

fn decode<T: MlsDecode>(bytes: &[u8]) -> Result<T, KnockError> {
    match bytes.first() {
        Some(&VERSION) => {}
        Some(&other) => return Err(KnockError::Version(other)),
        None => return Err(KnockError::Malformed),
    }
    let mut rest = bytes;
    let decoded = T::mls_decode(&mut rest)?;
    if rest.is_empty() { Ok(decoded) } else { Err(KnockError::Malformed) }
}

impl Knock {
    /// Signs a knock for the member whose KeyPackage has the reference `to`. `key` is that of the leaf in `key_package`.
    ///
    /// # Errors
    /// [`KnockError::Malformed`] beyond [`OLD_LEAVES_MAX`] or [`KEPT_GROUPS_MAX`], or if something is too long to be encoded.
    pub fn sign(
        key: &SigningKey,
        to: &[u8],
        names: Names<'_>,
        key_package: Vec<u8>,
        time: Timestamp,
    ) -> Result<Self, KnockError> {
        let Names { group, old_leaves, kept_groups } = names;
        if old_leaves.len() > OLD_LEAVES_MAX || kept_groups.len() > KEPT_GROUPS_MAX {
            return Err(KnockError::Malformed);
        }
        let group = group.map(|group| group.to_string().into_bytes()).unwrap_or_default();
        let mut knock =
            Self { version: VERSION, group, old_leaves, kept_groups, time, key_package, signature: [0; 64] };
        knock.signature = key.sign(&knock.to_be_signed(to)?).to_bytes();
        Ok(knock)
    }

    /// Whether this key signed it for the member whose KeyPackage has the reference `to`.
    #[must_use]
    pub fn is_signed(&self, to: &[u8], key: &[u8; 32]) -> bool {
        let signature = Signature::from_bytes(&self.signature);
        let verified = |key: VerifyingKey| {
            self.to_be_signed(to).is_ok_and(|signed| key.verify_strict(&signed, &signature).is_ok())
        };
        VerifyingKey::from_bytes(key).is_ok_and(verified)
    }

    fn to_be_signed(&self, to: &[u8]) -> Result<Vec<u8>, KnockError> {
        let mut bytes = LABEL.to_vec();
        ToBeSigned {
            to,
            group: &self.group,
            old_leaves: &self.old_leaves,
            kept_groups: &self.kept_groups,
            time: self.time,
            key_package_hash: Sha256::digest(&self.key_package).into(),
        }
        .mls_encode(&mut bytes)?;
        Ok(bytes)
    }

    /// The group; none for all that the knocker is a member of.
    ///
    /// # Errors
    /// [`KnockError::Malformed`] if it is no name.
    pub fn group(&self) -> Result<Option<GroupUri>, KnockError> {
        if self.group.is_empty() {
            return Ok(None);
        }
        let name = std::str::from_utf8(&self.group).ok().and_then(|text| text.parse().ok());
        name.map(Some).ok_or(KnockError::Malformed)
    }

    /// Seals it to the init key of the member's KeyPackage.
    ///
    /// # Errors
    /// [`KnockError::Crypto`] if the key is none of the suite's.
    pub fn seal<P: CipherSuiteProvider>(
        &self,
        provider: &P,
        to: &[u8],
        init_key: &HpkePublicKey,
    ) -> Result<SealedKnock, KnockError> {
        let plain = self.mls_encode_to_vec()?;
        let sealed = provider.hpke_seal(init_key, INFO, None, &plain).map_err(|_| KnockError::Crypto)?;
        Ok(SealedKnock { version: VERSION, cipher_suite: provider.cipher_suite().into(), to: to.to_vec(), sealed })
    }
}

impl SealedKnock {
    /// Encodes it.
    ///
    /// # Errors
    /// [`KnockError::Malformed`] beyond [`KNOCK_MAX`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, KnockError> {
        let bytes = self.mls_encode_to_vec()?;
        if bytes.len() > KNOCK_MAX { Err(KnockError::Malformed) } else { Ok(bytes) }
    }

    /// Decodes it; nothing may follow.
    ///
    /// # Errors
    /// [`KnockError::Malformed`], also beyond [`KNOCK_MAX`] bytes; [`KnockError::Version`].
    pub fn parse(bytes: &[u8]) -> Result<Self, KnockError> {
        if bytes.len() > KNOCK_MAX {
            return Err(KnockError::Malformed);
        }
        decode(bytes)
    }

    /// Opens it. The signature is not verified here ([`Knock::is_signed`]).
    ///
    /// # Errors
    /// [`KnockError::Open`], or as what is in it does not decode.
    pub fn open<P: CipherSuiteProvider>(
        &self,
        provider: &P,
        secret: &HpkeSecretKey,
        public: &HpkePublicKey,
    ) -> Result<Knock, KnockError> {
        let plain = provider.hpke_open(&self.sealed, secret, public, INFO, None).map_err(|_| KnockError::Open)?;
        let knock: Knock = decode(&plain)?;
        let bounded = knock.old_leaves.len() <= OLD_LEAVES_MAX && knock.kept_groups.len() <= KEPT_GROUPS_MAX;
        if bounded { Ok(knock) } else { Err(KnockError::Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto;

    const TO: &[u8] = b"reference";

    fn group(text: &str) -> GroupUri {
        text.parse().unwrap()
    }

    fn kept(number: u8) -> KeptGroup {
        KeptGroup::of(TO, &group(&format!("mimi://example.com/g/kept{number}"))).unwrap()
    }

    fn knock(key: &SigningKey) -> Knock {
        let group = group("mimi://example.com/g/club");
        let names = Names { group: Some(&group), old_leaves: vec![ChannelKey([4; 32])], kept_groups: vec![kept(7)] };
        Knock::sign(key, TO, names, vec![5; 300], Timestamp(6)).unwrap()
    }

    #[test]
    fn it_is_good_for_its_member_group_leaf_and_package_only() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let public = key.verifying_key().to_bytes();
        let good = knock(&key);
        assert!(good.is_signed(TO, &public));
        assert!(!good.is_signed(b"another", &public));
        assert!(!good.is_signed(TO, &SigningKey::from_bytes(&[2; 32]).verifying_key().to_bytes()));
        for change in [
            |knock: &mut Knock| knock.group = b"mimi://example.com/g/other".to_vec(),
            |knock: &mut Knock| knock.group.clear(),
            |knock: &mut Knock| knock.old_leaves.clear(),
            |knock: &mut Knock| knock.old_leaves[0] = ChannelKey([5; 32]),
            |knock: &mut Knock| knock.old_leaves.push(ChannelKey([5; 32])),
            |knock: &mut Knock| knock.kept_groups.clear(),
            |knock: &mut Knock| knock.kept_groups[0] = kept(8),
            |knock: &mut Knock| knock.time = Timestamp(7),
            |knock: &mut Knock| knock.key_package[0] ^= 1,
            |knock: &mut Knock| knock.signature[9] ^= 1,
        ] {
            let mut changed = knock(&key);
            change(&mut changed);
            assert!(!changed.is_signed(TO, &public));
        }
    }

    #[test]
    fn it_opens_with_the_init_key_only_and_unchanged_only() {
        let suite = crypto::suite(crypto::DEFAULT_SUITE).unwrap();
        let (secret, public) = suite.kem_generate().unwrap();
        let sent = knock(&SigningKey::from_bytes(&[1; 32]));
        let bytes = sent.seal(&suite, TO, &public).unwrap().to_bytes().unwrap();
        let sealed = SealedKnock::parse(&bytes).unwrap();
        assert_eq!((sealed.to.as_slice(), sealed.cipher_suite), (TO, crypto::DEFAULT_SUITE.into()));
        let opened = sealed.open(&suite, &secret, &public).unwrap();
        assert_eq!(opened, sent);
        assert_eq!(opened.group().unwrap(), Some(group("mimi://example.com/g/club")));
        let (other_secret, other_public) = suite.kem_generate().unwrap();
        assert_eq!(sealed.open(&suite, &other_secret, &other_public), Err(KnockError::Open));
        let mut changed = bytes.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert_eq!(SealedKnock::parse(&changed).unwrap().open(&suite, &secret, &public), Err(KnockError::Open));
        assert_eq!(SealedKnock::parse(&[bytes.as_slice(), &[0]].concat()), Err(KnockError::Malformed));
        assert_eq!(SealedKnock::parse(&bytes[..bytes.len() - 1]), Err(KnockError::Malformed));
        assert_eq!(SealedKnock::parse(&[2]), Err(KnockError::Version(2)));
        assert_eq!(SealedKnock::parse(&[]), Err(KnockError::Malformed));
        assert_eq!(SealedKnock::parse(&vec![1; KNOCK_MAX + 1]), Err(KnockError::Malformed));
        // What is sealed to the same key for another purpose is none.
        let elsewhere = suite.hpke_seal(&public, b"conclave/v1/delivery-address", None, &[1; 100]).unwrap();
        let elsewhere = SealedKnock { sealed: elsewhere, ..sealed };
        assert_eq!(elsewhere.open(&suite, &secret, &public), Err(KnockError::Open));
    }

    #[test]
    fn a_group_that_is_kept_has_another_name_in_each_knock() {
        let (club, other) = (group("mimi://example.com/g/club"), group("mimi://example.com/g/club2"));
        assert_eq!(KeptGroup::of(TO, &club), KeptGroup::of(TO, &club));
        assert_ne!(KeptGroup::of(TO, &club), KeptGroup::of(TO, &other));
        assert_ne!(KeptGroup::of(TO, &club), KeptGroup::of(b"another", &club));
    }

    #[test]
    fn who_names_too_much_is_not_heard() {
        let suite = crypto::suite(crypto::DEFAULT_SUITE).unwrap();
        let (secret, public) = suite.kem_generate().unwrap();
        let key = SigningKey::from_bytes(&[1; 32]);
        let names = |kept, old| Names {
            group: None,
            old_leaves: vec![ChannelKey([4; 32]); old],
            kept_groups: vec![self::kept(1); kept],
        };
        let sign = |kept, old| Knock::sign(&key, TO, names(kept, old), vec![5; 300], Timestamp(6));
        let most = sign(KEPT_GROUPS_MAX, OLD_LEAVES_MAX).unwrap();
        let sealed = most.seal(&suite, TO, &public).unwrap();
        assert_eq!(SealedKnock::parse(&sealed.to_bytes().unwrap()).unwrap().open(&suite, &secret, &public), Ok(most));
        for (kept, old) in [(KEPT_GROUPS_MAX + 1, 0), (0, OLD_LEAVES_MAX + 1)] {
            assert_eq!(sign(kept, old), Err(KnockError::Malformed));
            let mut long = sign(0, 0).unwrap();
            (long.kept_groups, long.old_leaves) = (vec![self::kept(1); kept], vec![ChannelKey([4; 32]); old]);
            let sealed = long.seal(&suite, TO, &public).unwrap();
            assert_eq!(sealed.open(&suite, &secret, &public), Err(KnockError::Malformed));
        }
    }

    #[test]
    fn what_is_too_long_is_not_sent() {
        let suite = crypto::suite(crypto::DEFAULT_SUITE).unwrap();
        let (_, public) = suite.kem_generate().unwrap();
        let key = SigningKey::from_bytes(&[1; 32]);
        let long = Knock::sign(&key, TO, Names::default(), vec![0; KNOCK_MAX], Timestamp(0)).unwrap();
        assert_eq!(long.group().unwrap(), None);
        assert_eq!(long.seal(&suite, TO, &public).unwrap().to_bytes(), Err(KnockError::Malformed));
    }

    #[test]
    fn debug_shows_neither_group_nor_keys() {
        assert_eq!(format!("{:?}", knock(&SigningKey::from_bytes(&[1; 32]))), "Knock { time: Timestamp(6), .. }");
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = SealedKnock::parse(&bytes);
            let _ = decode::<Knock>(&bytes);
        }
    }
}
