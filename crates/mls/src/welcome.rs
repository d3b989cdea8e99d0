//! Welcomes (RFC 9420, section 12.4.3.1) taken apart for delivery and put together again.
//!
//! A Welcome has the secrets of every joiner; the DS serves each joiner its own only. What joiners need beyond MLS
//! ([`JoinerInfo`]) cannot stand in the Welcome's GroupInfo, as it depends on the commit (the sealed tree's hash, a
//! seed that the commit renews): it is sealed beside, under a random key in the GroupInfo ([`JoinerKey`]).

use conclave_channel::{Position, chain::entry_hash, law::Ledger};
use conclave_names::{Epoch, Hash, code_points};
use mls_rs::{ExtensionList, MlsMessage};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};
use mls_rs_core::crypto::CipherSuiteProvider;
use zeroize::Zeroizing;

use crate::{
    components::AppDataDictionary,
    seal::{Purpose, SealError, Seed},
};

/// MLSMessage header of a Welcome: version mls10 and wire format mls_welcome (RFC 9420, section 6).
const HEADER: [u8; 4] = [0, 1, 0, 3];

/// Why there is no Welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WelcomeError {
    /// The bytes are no Welcome.
    #[error("the Welcome does not decode")]
    Malformed,
    /// The GroupInfo in it lacks the key of what joiners need beyond MLS.
    #[error("the Welcome was not made by Conclave: its GroupInfo has no joiner key")]
    NoJoinerKey,
    /// What joiners need beyond MLS does not open.
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl From<mls_rs_codec::Error> for WelcomeError {
    fn from(_: mls_rs_codec::Error) -> Self {
        Self::Malformed
    }
}

/// `EncryptedGroupSecrets`: for which KeyPackage, and an HPKE ciphertext.
#[derive(Clone, MlsSize, MlsEncode, MlsDecode)]
struct EncryptedGroupSecrets {
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    new_member: Vec<u8>,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    kem_output: Vec<u8>,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    ciphertext: Vec<u8>,
}

#[derive(MlsSize, MlsEncode, MlsDecode)]
struct Welcome {
    cipher_suite: u16,
    secrets: Vec<EncryptedGroupSecrets>,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    encrypted_group_info: Vec<u8>,
}

/// A Welcome taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WelcomeParts {
    /// Cipher suite of the group.
    pub cipher_suite: u16,
    /// The same for all joiners.
    pub encrypted_group_info: Vec<u8>,
    /// For each joiner: the reference of its KeyPackage, and its encoded EncryptedGroupSecrets.
    pub secrets: Vec<(Vec<u8>, Vec<u8>)>,
}

impl WelcomeParts {
    /// Takes a Welcome message apart.
    pub fn split(message: &[u8]) -> Result<Self, WelcomeError> {
        let mut rest = message.strip_prefix(&HEADER).ok_or(WelcomeError::Malformed)?;
        let welcome = Welcome::mls_decode(&mut rest)?;
        if !rest.is_empty() {
            return Err(WelcomeError::Malformed);
        }
        let secrets = welcome
            .secrets
            .iter()
            .map(|secrets| Ok((secrets.new_member.clone(), secrets.mls_encode_to_vec()?)))
            .collect::<Result<_, WelcomeError>>()?;
        Ok(Self { cipher_suite: welcome.cipher_suite, encrypted_group_info: welcome.encrypted_group_info, secrets })
    }
}

/// What lies in a joiner's inbox. The DS puts it together; it learns nothing from it.
#[derive(Clone, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
pub struct InboxWelcome {
    /// Cipher suite of the group.
    pub cipher_suite: u16,
    /// The joiner's EncryptedGroupSecrets.
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    pub secrets: Vec<u8>,
    /// The Welcome's encrypted GroupInfo.
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    pub encrypted_group_info: Vec<u8>,
    /// The sealed [`JoinerInfo`].
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    pub attachment: Vec<u8>,
}

impl std::fmt::Debug for InboxWelcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InboxWelcome").field("cipher_suite", &self.cipher_suite).finish_non_exhaustive()
    }
}

impl InboxWelcome {
    /// Encodes it, without padding.
    pub fn to_bytes(&self) -> Result<Vec<u8>, WelcomeError> {
        Ok(self.mls_encode_to_vec()?)
    }

    /// Decodes it, without padding; nothing may follow.
    pub fn parse(bytes: &[u8]) -> Result<Self, WelcomeError> {
        let mut rest = bytes;
        let welcome = Self::mls_decode(&mut rest)?;
        if rest.is_empty() { Ok(welcome) } else { Err(WelcomeError::Malformed) }
    }

    /// Puts the joiner's Welcome message together again.
    pub fn to_message(&self) -> Result<MlsMessage, WelcomeError> {
        let mut rest = self.secrets.as_slice();
        let secrets = EncryptedGroupSecrets::mls_decode(&mut rest)?;
        if !rest.is_empty() {
            return Err(WelcomeError::Malformed);
        }
        let welcome = Welcome {
            cipher_suite: self.cipher_suite,
            secrets: vec![secrets],
            encrypted_group_info: self.encrypted_group_info.clone(),
        };
        let mut message = HEADER.to_vec();
        welcome.mls_encode(&mut message)?;
        MlsMessage::from_bytes(&message).map_err(|_| WelcomeError::Malformed)
    }
}

/// Context of the blob that says which commits stand.
const LEDGER: &[u8] = b"ledger";

/// The key of a Welcome's attachment: random, in the GroupInfo's `app_data_dictionary`.
#[derive(Clone)]
pub struct JoinerKey(Seed);

impl std::fmt::Debug for JoinerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JoinerKey(..)")
    }
}

impl JoinerKey {
    /// Makes one.
    pub fn generate<P: CipherSuiteProvider>(suite: &P) -> Result<Self, WelcomeError> {
        let bytes = Zeroizing::new(suite.random_bytes_vec(32).map_err(|_| SealError::Crypto)?);
        Ok(Self(Seed::from_slice(&bytes)?))
    }

    /// The GroupInfo extensions that carry it.
    pub fn to_extensions(&self) -> Result<ExtensionList, WelcomeError> {
        let mut dictionary = AppDataDictionary::default();
        dictionary.set(code_points::COMPONENT_JOINER_INFO, self.0.expose().to_vec());
        let mut extensions = ExtensionList::new();
        extensions.set(dictionary.to_extension()?);
        Ok(extensions)
    }

    /// Reads it from a GroupInfo's extensions.
    pub fn of(extensions: &ExtensionList) -> Result<Self, WelcomeError> {
        let dictionary = AppDataDictionary::of(extensions).map_err(|_| WelcomeError::Malformed)?;
        let key = dictionary.get(code_points::COMPONENT_JOINER_INFO).ok_or(WelcomeError::NoJoinerKey)?;
        Ok(Self(Seed::from_slice(key)?))
    }

    /// Seals what joiners need.
    pub fn seal<P: CipherSuiteProvider>(&self, suite: &P, info: &JoinerInfo) -> Result<Vec<u8>, WelcomeError> {
        Ok(self.0.seal(suite, Purpose::Joiner, b"", info.mls_encode_to_vec()?)?)
    }

    /// Says which commits stand; with the sealed blob that has them, if they are many.
    pub fn standing<P: CipherSuiteProvider>(
        &self,
        suite: &P,
        ledger: &Ledger,
    ) -> Result<(Standing, Option<Vec<u8>>), WelcomeError> {
        if ledger.open().len() <= OPEN_HERE {
            return Ok((Standing::Here(ledger.clone()), None));
        }
        let sealed = self.0.seal(suite, Purpose::Joiner, LEDGER, ledger.mls_encode_to_vec()?)?;
        Ok((Standing::Apart(entry_hash(&sealed)), Some(sealed)))
    }

    /// Opens the blob that says which commits stand.
    pub fn open_ledger<P: CipherSuiteProvider>(&self, suite: &P, sealed: &[u8]) -> Result<Ledger, WelcomeError> {
        let bytes = self.0.open(suite, Purpose::Joiner, LEDGER, sealed)?;
        Ledger::parse(&bytes).map_err(|_| WelcomeError::Malformed)
    }

    /// Opens what joiners need.
    pub fn open<P: CipherSuiteProvider>(&self, suite: &P, sealed: &[u8]) -> Result<JoinerInfo, WelcomeError> {
        let bytes = Zeroizing::new(self.0.open(suite, Purpose::Joiner, b"", sealed)?);
        let mut rest = bytes.as_slice();
        let info = JoinerInfo::mls_decode(&mut rest)?;
        if rest.is_empty() && info.version == 1 { Ok(info) } else { Err(WelcomeError::Malformed) }
    }
}

/// Most open commits that stand in each Welcome; each takes 126 bytes, and a Welcome is not to be longer than 1,024. More are in
/// a blob that the joiners share.
const OPEN_HERE: usize = 1;

/// Which commits stood where a Welcome was made.
#[derive(Clone, Debug, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
#[repr(u8)]
pub enum Standing {
    /// These.
    Here(Ledger) = 0,
    /// Those in a blob at the group's hub, by its hash.
    Apart(Hash) = 1,
}

/// What a joiner needs beyond MLS.
#[derive(Clone, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
pub struct JoinerInfo {
    version: u8,
    /// Since which epoch the group seed is in force.
    pub seed_epoch: Epoch,
    seed: [u8; 32],
    /// Where the committer stood, just before the commit's place: the joiner reads from here.
    pub position: Position,
    /// Since which epoch the tree key is in force.
    pub tree_key_epoch: Epoch,
    tree_key: [u8; 32],
    /// Name of the sealed ratchet tree: the chunk at its top, a blob at the group's hub.
    pub tree: Hash,
    /// Which commits stood there: what the commit's place in the channel is judged by.
    pub standing: Standing,
    /// Hash of the commit's entry, by which the joiner knows it in the channel.
    pub commit: Hash,
}

impl std::fmt::Debug for JoinerInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinerInfo").field("position", &self.position).finish_non_exhaustive()
    }
}

impl Drop for JoinerInfo {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.seed);
        zeroize::Zeroize::zeroize(&mut self.tree_key);
    }
}

impl JoinerInfo {
    /// From its parts; seed and tree key with the epoch since which each is in force.
    #[must_use]
    pub fn new(
        (seed_epoch, seed): (Epoch, &Seed),
        (tree_key_epoch, tree_key): (Epoch, &Seed),
        tree: Hash,
        position: Position,
        standing: Standing,
        commit: Hash,
    ) -> Self {
        let (seed, tree_key) = (*seed.expose(), *tree_key.expose());
        Self { version: 1, seed_epoch, seed, position, tree_key_epoch, tree_key, tree, standing, commit }
    }

    /// The group seed.
    pub fn seed(&self) -> Result<Seed, SealError> {
        Seed::from_slice(&self.seed)
    }

    /// The tree key.
    pub fn tree_key(&self) -> Result<Seed, SealError> {
        Seed::from_slice(&self.tree_key)
    }
}

#[cfg(test)]
mod tests {
    use conclave_names::Seq;
    use proptest::prelude::*;

    use super::*;
    use crate::crypto;

    #[test]
    fn an_attachment_opens_under_its_key_only() {
        let suite = crypto::suite(crypto::DEFAULT_SUITE).unwrap();
        let seed = Seed::from_slice(&[7; 32]).unwrap();
        let position = Position { seq: Seq(3), hash: Hash::new([1; 32]) };
        let standing = Standing::Here(Ledger::new(Epoch(3), Hash::new([3; 32]), 2));
        let info = JoinerInfo::new(
            (Epoch(4), &seed),
            (Epoch(2), &seed),
            Hash::new([2; 32]),
            position,
            standing,
            Hash::new([5; 32]),
        );
        let key = JoinerKey::generate(&suite).unwrap();
        let sealed = key.seal(&suite, &info).unwrap();
        let again = JoinerKey::of(&key.to_extensions().unwrap()).unwrap();
        assert_eq!(again.open(&suite, &sealed).unwrap(), info);
        let ledger = Ledger::new(Epoch(3), Hash::new([3; 32]), 2);
        assert_eq!(key.standing(&suite, &ledger).unwrap(), (Standing::Here(ledger.clone()), None));
        let apart = key.0.seal(&suite, Purpose::Joiner, LEDGER, ledger.to_bytes().unwrap()).unwrap();
        assert_eq!(again.open_ledger(&suite, &apart).unwrap(), ledger);
        assert_eq!(key.open(&suite, &apart).unwrap_err(), WelcomeError::Seal(SealError::Open), "one is not the other");
        let other = JoinerKey::generate(&suite).unwrap();
        assert_eq!(other.open_ledger(&suite, &apart).unwrap_err(), WelcomeError::Seal(SealError::Open));
        assert_eq!(other.open(&suite, &sealed).unwrap_err(), WelcomeError::Seal(SealError::Open));
        assert_eq!(JoinerKey::of(&ExtensionList::new()).unwrap_err(), WelcomeError::NoJoinerKey);
        assert!(!format!("{info:?}{key:?}").contains("7, 7"));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = InboxWelcome::parse(&bytes).and_then(|welcome| welcome.to_message());
            let mut message = HEADER.to_vec();
            message.extend(bytes);
            let _ = WelcomeParts::split(&message);
        }
    }
}
