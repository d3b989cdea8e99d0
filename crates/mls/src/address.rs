//! Where a Welcome goes (RFC 9750, section 5.1): the address in a KeyPackage, which only the joiner's DS can read.
//!
//! The owner of an inbox mints a [`DropToken`] and seals it to the HPKE key of the DS; the [`SealedAddress`] stands,
//! with the DS's domain, in the KeyPackage ([`DeliveryAddress`]). Who claims the KeyPackage learns neither inbox nor
//! token, and can post as often as the token says: once, or several times for a last-resort KeyPackage.

use std::fmt;

use conclave_names::{ChannelId, Domain, Timestamp, code_points};
use hmac::{Hmac, KeyInit, Mac};
use mls_rs::extension::{ExtensionType, MlsCodecExtension};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};
use mls_rs_core::crypto::{CipherSuiteProvider, HpkeCiphertext, HpkePublicKey, HpkeSecretKey};
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Version of token and sealed address that this code writes and reads.
const VERSION: u8 = 1;

/// HPKE `info` of a sealed address.
const INFO: &[u8] = b"conclave/v1/delivery-address";

/// Domain separation of a token's MAC.
const TOKEN_LABEL: &[u8] = b"conclave/v1/drop-token\0";

/// Longest encoded sealed address, in bytes.
pub const ADDRESS_MAX: usize = 512;

/// Why there is no address, or a token is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// The bytes do not decode, or go on after the end.
    #[error("the delivery address does not decode")]
    Malformed,
    /// The version is not ours.
    #[error("the delivery address is of version {0}; this program reads version 1: upgrade it")]
    Version(u8),
    /// The domain is not a domain name.
    #[error("the delivery address names no valid domain")]
    Domain,
    /// It was sealed to another key, or changed.
    #[error("the delivery address does not open: it was sealed to another key or changed")]
    Open,
    /// The inbox's owner did not mint the token.
    #[error("the drop token was not minted by the inbox's owner")]
    Mac,
    /// The cryptographic library refused.
    #[error("the cryptographic library failed")]
    Crypto,
}

impl From<mls_rs_codec::Error> for AddressError {
    fn from(_: mls_rs_codec::Error) -> Self {
        Self::Malformed
    }
}

/// A permission to post into an inbox.
///
/// `struct { uint8 version = 1; ChannelId inbox; opaque nonce[16]; uint32 uses; uint64 expires_secs; opaque mac[32]; }`,
/// where `mac` is HMAC-SHA-256 under the inbox's drop key of
/// "conclave/v1/drop-token" 0x00 ‖ inbox ‖ nonce ‖ u32 uses ‖ u64 expires.
#[derive(Clone, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode, Zeroize, ZeroizeOnDrop)]
pub struct DropToken {
    version: u8,
    #[zeroize(skip)]
    inbox: ChannelId,
    nonce: [u8; 16],
    uses: u32,
    expires_secs: u64,
    mac: [u8; 32],
}

impl fmt::Debug for DropToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DropToken")
            .field("uses", &self.uses)
            .field("expires_secs", &self.expires_secs)
            .finish_non_exhaustive()
    }
}

impl DropToken {
    /// Length of its encoding in bytes. It is the same for all, so that sealed addresses look alike.
    pub const LEN: usize = 77;

    /// Permits `uses` posts before `expires` (in whole seconds). The nonce is random and is used for no other token.
    #[must_use]
    pub fn mint(drop_key: &[u8; 32], inbox: ChannelId, nonce: [u8; 16], uses: u32, expires: Timestamp) -> Self {
        let expires_secs = expires.as_secs();
        // HMAC takes keys of any length: the MAC always exists.
        let mac = mac(drop_key, &inbox, &nonce, uses, expires_secs)
            .map(|mac| mac.finalize().into_bytes().into())
            .unwrap_or_default();
        Self { version: VERSION, inbox, nonce, uses, expires_secs, mac }
    }

    /// Verifies, in constant time, that the owner of the inbox minted it. Whether it expired or is used up is for the
    /// caller to judge.
    ///
    /// # Errors
    /// [`AddressError::Mac`].
    pub fn verify(&self, drop_key: &[u8; 32]) -> Result<(), AddressError> {
        mac(drop_key, &self.inbox, &self.nonce, self.uses, self.expires_secs)
            .and_then(|mac| mac.verify_slice(&self.mac).ok())
            .ok_or(AddressError::Mac)
    }

    /// Where it permits to post.
    #[must_use]
    pub fn inbox(&self) -> &ChannelId {
        &self.inbox
    }

    /// By which its uses are counted.
    #[must_use]
    pub fn nonce(&self) -> &[u8; 16] {
        &self.nonce
    }

    /// How many posts it permits.
    #[must_use]
    pub fn uses(&self) -> u32 {
        self.uses
    }

    /// From then on it permits none.
    #[must_use]
    pub fn expires(&self) -> Timestamp {
        Timestamp::from_secs(self.expires_secs)
    }

    fn parse(bytes: &[u8]) -> Result<Self, AddressError> {
        match bytes.first() {
            Some(&VERSION) if bytes.len() == Self::LEN => Ok(Self::mls_decode(&mut &*bytes)?),
            Some(&other) if other != VERSION => Err(AddressError::Version(other)),
            _ => Err(AddressError::Malformed),
        }
    }
}

fn mac(drop_key: &[u8; 32], inbox: &ChannelId, nonce: &[u8; 16], uses: u32, expires: u64) -> Option<Hmac<Sha256>> {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(drop_key).ok()?;
    mac.update(TOKEN_LABEL);
    mac.update(inbox.as_bytes());
    mac.update(nonce);
    mac.update(&uses.to_be_bytes());
    mac.update(&expires.to_be_bytes());
    Some(mac)
}

/// A [`DropToken`], sealed to an HPKE key of the inbox's DS with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and
/// AES-128-GCM (the HPKE of cipher suite 1), `info` = "conclave/v1/delivery-address", no associated data.
///
/// `struct { uint8 version = 1; opaque key_id[8]; opaque kem_output<V>; opaque ciphertext<V>; }`
#[derive(Debug, Clone, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
pub struct SealedAddress {
    version: u8,
    key_id: [u8; 8],
    sealed: HpkeCiphertext,
}

impl SealedAddress {
    /// Seals a token to the key that the DS offers under `key_id`.
    ///
    /// # Errors
    /// [`AddressError::Crypto`] if the public key is none.
    pub fn seal<P: CipherSuiteProvider>(
        provider: &P,
        public_key: &HpkePublicKey,
        key_id: [u8; 8],
        token: &DropToken,
    ) -> Result<Self, AddressError> {
        let plain = zeroize::Zeroizing::new(token.mls_encode_to_vec()?);
        let sealed = provider.hpke_seal(public_key, INFO, None, &plain).map_err(|_| AddressError::Crypto)?;
        Ok(Self { version: VERSION, key_id, sealed })
    }

    /// Opens it. The token is not verified here ([`DropToken::verify`]).
    ///
    /// # Errors
    /// [`AddressError::Open`], or as the token in it does not decode.
    pub fn open<P: CipherSuiteProvider>(
        &self,
        provider: &P,
        secret: &HpkeSecretKey,
        public: &HpkePublicKey,
    ) -> Result<DropToken, AddressError> {
        let plain = provider.hpke_open(&self.sealed, secret, public, INFO, None).map_err(|_| AddressError::Open)?;
        DropToken::parse(&plain)
    }

    /// Names the key that opens it.
    #[must_use]
    pub fn key_id(&self) -> &[u8; 8] {
        &self.key_id
    }

    /// Encodes it.
    pub fn to_bytes(&self) -> Result<Vec<u8>, AddressError> {
        Ok(self.mls_encode_to_vec()?)
    }

    /// Decodes it; nothing may follow.
    ///
    /// # Errors
    /// [`AddressError::Malformed`], also beyond [`ADDRESS_MAX`] bytes; [`AddressError::Version`].
    pub fn parse(bytes: &[u8]) -> Result<Self, AddressError> {
        match bytes.first() {
            Some(&VERSION) if bytes.len() <= ADDRESS_MAX => {}
            Some(&other) if other != VERSION => return Err(AddressError::Version(other)),
            _ => return Err(AddressError::Malformed),
        }
        let mut rest = bytes;
        let address = Self::mls_decode(&mut rest)?;
        if rest.is_empty() { Ok(address) } else { Err(AddressError::Malformed) }
    }
}

/// The KeyPackage extension that says where its Welcome goes:
/// `struct { opaque domain<V>; opaque sealed_address<V>; }`.
#[derive(Debug, Clone, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
pub struct DeliveryAddress {
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    domain: Vec<u8>,
    /// The encoded [`SealedAddress`], to be passed on as it is.
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    pub sealed: Vec<u8>,
}

impl MlsCodecExtension for DeliveryAddress {
    fn extension_type() -> ExtensionType {
        ExtensionType::new(code_points::EXTENSION_DELIVERY_ADDRESS)
    }
}

impl DeliveryAddress {
    /// An address at a provider.
    pub fn new(domain: &Domain, address: &SealedAddress) -> Result<Self, AddressError> {
        Ok(Self { domain: domain.as_str().as_bytes().to_vec(), sealed: address.to_bytes()? })
    }

    /// Reads it from a KeyPackage's extensions.
    ///
    /// # Errors
    /// [`AddressError::Malformed`], also if there is none.
    pub fn of(extensions: &mls_rs::ExtensionList) -> Result<Self, AddressError> {
        let address =
            extensions.get_as::<Self>().map_err(|_| AddressError::Malformed)?.ok_or(AddressError::Malformed)?;
        if address.sealed.len() > ADDRESS_MAX { Err(AddressError::Malformed) } else { Ok(address) }
    }

    /// The provider of the inbox.
    ///
    /// # Errors
    /// [`AddressError::Domain`].
    pub fn domain(&self) -> Result<Domain, AddressError> {
        let text = std::str::from_utf8(&self.domain).map_err(|_| AddressError::Domain)?;
        text.parse().map_err(|_| AddressError::Domain)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto;

    const INBOX: ChannelId = ChannelId::new([5; 16]);

    fn token() -> DropToken {
        DropToken::mint(&[1; 32], INBOX, [2; 16], 3, Timestamp::from_secs(1_800_000_000))
    }

    #[test]
    fn a_token_is_good_under_its_key_and_with_its_fields_only() {
        let good = token();
        assert_eq!(good.verify(&[1; 32]), Ok(()));
        assert_eq!(good.verify(&[2; 32]), Err(AddressError::Mac));
        for change in [
            |t: &mut DropToken| t.inbox = ChannelId::new([6; 16]),
            |t: &mut DropToken| t.nonce[0] ^= 1,
            |t: &mut DropToken| t.uses += 1,
            |t: &mut DropToken| t.expires_secs += 1,
            |t: &mut DropToken| t.mac[31] ^= 1,
        ] {
            let mut changed = token();
            change(&mut changed);
            assert_eq!(changed.verify(&[1; 32]), Err(AddressError::Mac));
        }
    }

    #[test]
    fn the_mac_covers_the_documented_bytes() {
        let mut expected = <Hmac<Sha256> as KeyInit>::new_from_slice(&[1; 32]).unwrap();
        let mut bytes = b"conclave/v1/drop-token\0".to_vec();
        bytes.extend([5; 16]);
        bytes.extend([2; 16]);
        bytes.extend(3u32.to_be_bytes());
        bytes.extend(1_800_000_000u64.to_be_bytes());
        expected.update(&bytes);
        expected.verify_slice(&token().mac).unwrap();
        assert_eq!(token().mls_encode_to_vec().unwrap().len(), DropToken::LEN);
    }

    #[test]
    fn an_address_opens_with_its_key_only_and_unchanged_only() {
        let suite = crypto::suite(crypto::DEFAULT_SUITE).unwrap();
        let (secret, public) = suite.kem_generate().unwrap();
        let address = SealedAddress::seal(&suite, &public, [9; 8], &token()).unwrap();
        let bytes = address.to_bytes().unwrap();
        let parsed = SealedAddress::parse(&bytes).unwrap();
        assert_eq!(parsed.key_id(), &[9; 8]);
        assert_eq!(parsed.open(&suite, &secret, &public).unwrap(), token());
        let (other_secret, other_public) = suite.kem_generate().unwrap();
        assert_eq!(parsed.open(&suite, &other_secret, &other_public), Err(AddressError::Open));
        let mut changed = bytes.clone();
        let last = changed.len() - 1;
        changed[last] ^= 1;
        let changed = SealedAddress::parse(&changed).unwrap();
        assert_eq!(changed.open(&suite, &secret, &public), Err(AddressError::Open));
        assert!(SealedAddress::parse(&bytes[..last]).is_err());
        assert_eq!(SealedAddress::parse(&[2, 0]), Err(AddressError::Version(2)));
        assert_eq!(SealedAddress::parse(&[]), Err(AddressError::Malformed));
        assert_eq!(SealedAddress::parse(&[1; ADDRESS_MAX + 1]), Err(AddressError::Malformed));
    }

    #[test]
    fn a_sealed_text_that_is_no_token_is_refused() {
        let suite = crypto::suite(crypto::DEFAULT_SUITE).unwrap();
        let (secret, public) = suite.kem_generate().unwrap();
        for (plain, error) in [
            (vec![1], AddressError::Malformed),
            (vec![1; DropToken::LEN - 1], AddressError::Malformed),
            (vec![1; DropToken::LEN + 1], AddressError::Malformed),
            (vec![2; DropToken::LEN], AddressError::Version(2)),
        ] {
            let sealed = suite.hpke_seal(&public, INFO, None, &plain).unwrap();
            let address = SealedAddress { version: VERSION, key_id: [0; 8], sealed };
            assert_eq!(address.open(&suite, &secret, &public), Err(error));
        }
        let elsewhere = suite.hpke_seal(&public, b"other", None, &[1; DropToken::LEN]).unwrap();
        let address = SealedAddress { version: VERSION, key_id: [0; 8], sealed: elsewhere };
        assert_eq!(address.open(&suite, &secret, &public), Err(AddressError::Open));
    }

    #[test]
    fn the_extension_carries_domain_and_address() {
        let suite = crypto::suite(crypto::DEFAULT_SUITE).unwrap();
        let (_, public) = suite.kem_generate().unwrap();
        let address = SealedAddress::seal(&suite, &public, [9; 8], &token()).unwrap();
        let domain: Domain = "example.com".parse().unwrap();
        let mut extensions = mls_rs::ExtensionList::new();
        assert_eq!(DeliveryAddress::of(&extensions), Err(AddressError::Malformed));
        extensions.set_from(DeliveryAddress::new(&domain, &address).unwrap()).unwrap();
        let read = DeliveryAddress::of(&extensions).unwrap();
        assert_eq!(read.domain().unwrap(), domain);
        assert_eq!(SealedAddress::parse(&read.sealed).unwrap(), address);
        let bad = DeliveryAddress { domain: b"No Domain".to_vec(), sealed: vec![] };
        assert_eq!(bad.domain(), Err(AddressError::Domain));
    }

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(format!("{:?}", token()), "DropToken { uses: 3, expires_secs: 1800000000, .. }");
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = SealedAddress::parse(&bytes);
            let _ = DropToken::parse(&bytes);
        }
    }
}
