//! What brings an account back if every device of it is lost: its identity key, and which groups it was in, sealed with a passphrase.
//!
//! `struct { opaque magic[17] = "conclave/recovery"; uint8 version = 1; uint32 memory_kib; uint32 passes; uint32 lanes;
//! opaque salt[16]; opaque sealed[rest]; }`: sealed as group seeds seal (`conclave_mls::seal`), under 32 bytes of Argon2id from passphrase
//! and salt, with everything before as context. In it: the identity key's 32 bytes, and the rest in JSON.

use std::fmt;

use conclave_engine::{account::Account, writes::Room};
use conclave_mls::{
    crypto,
    seal::{Purpose, Seed},
};
use conclave_names::{ClientUri, Timestamp};
use conclave_protocol::SigningKey;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    Client, ClientError, RegisterError, Services,
    asking::Asking,
    lost::{self, LostGroup},
    register::{account_with, random},
    saved,
};
use crate::{
    profile::{Kdf, ProfileError, derive},
    store::ProfileStore,
};

const MAGIC: &[u8; 17] = b"conclave/recovery";

/// Version of the file that this code writes and reads.
const VERSION: u8 = 1;

/// Bytes before what is sealed.
const HEADER: usize = MAGIC.len() + 1 + 3 * 4 + 16;

/// Largest file that is read, in bytes.
pub const RECOVERY_FILE_MAX: usize = 16 << 20;

/// Why bytes are no recovery file, or one cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecoveryError {
    /// They do not begin like one, or end too early.
    #[error("this is no recovery file: `conclave device save` makes one")]
    Malformed,
    /// A later version of this program made it.
    #[error("the recovery file is of version {0}; this program reads version 1: use a newer version of it")]
    Version(u8),
    /// It does not open.
    #[error("the recovery file does not open: the passphrase is wrong, or the file was changed")]
    Passphrase,
    /// The parameters of the key derivation are out of bounds.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// No randomness, or the cryptographic library failed.
    #[error("the cryptographic library failed")]
    Crypto,
}

/// What brings an account back: whoever has it is the user.
pub struct RecoveryFile {
    identity: SigningKey,
    content: Content,
}

#[derive(Serialize, Deserialize)]
struct Content {
    client: ClientUri,
    saved_ms: u64,
    groups: Vec<LostGroup>,
}

impl fmt::Debug for RecoveryFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecoveryFile").field("client", &self.content.client).finish_non_exhaustive()
    }
}

impl RecoveryFile {
    /// The device that it was made on, under whose name the account comes back.
    #[must_use]
    pub fn client(&self) -> &ClientUri {
        &self.content.client
    }

    /// When it was made.
    #[must_use]
    pub fn saved(&self) -> Timestamp {
        Timestamp(self.content.saved_ms)
    }

    /// The groups that the device was in when it was made.
    #[must_use]
    pub fn groups(&self) -> &[LostGroup] {
        &self.content.groups
    }

    /// Seals it.
    ///
    /// # Errors
    /// [`RecoveryError::Profile`] for parameters out of bounds, [`RecoveryError::Crypto`].
    pub fn seal(&self, passphrase: &str, kdf: Kdf) -> Result<Vec<u8>, RecoveryError> {
        let salt: [u8; 16] = random().map_err(|_| RecoveryError::Crypto)?;
        let mut file = MAGIC.to_vec();
        file.push(VERSION);
        for number in [kdf.memory_kib, kdf.passes, kdf.lanes] {
            file.extend_from_slice(&number.to_be_bytes());
        }
        file.extend_from_slice(&salt);
        let rest = serde_json::to_vec(&self.content).map_err(|_| RecoveryError::Crypto)?;
        // With room for the padding, so that no copy is left behind by growing.
        let mut plain = Vec::with_capacity(2 * rest.len() + 4096);
        let secret = Zeroizing::new(self.identity.to_bytes());
        plain.extend_from_slice(&*secret);
        plain.extend_from_slice(&rest);
        let suite = crypto::suite(crypto::DEFAULT_SUITE).map_err(|_| RecoveryError::Crypto)?;
        let sealed = key(passphrase, kdf, &salt)?.seal(&suite, Purpose::Recovery, &file, plain);
        file.extend(sealed.map_err(|_| RecoveryError::Crypto)?);
        Ok(file)
    }

    /// Opens one.
    ///
    /// # Errors
    /// Any [`RecoveryError`].
    pub fn open(file: &[u8], passphrase: &str) -> Result<Self, RecoveryError> {
        let (header, sealed) = file.split_at_checked(HEADER).ok_or(RecoveryError::Malformed)?;
        let rest = header.strip_prefix(MAGIC.as_slice()).ok_or(RecoveryError::Malformed)?;
        let (version, rest) = rest.split_first().ok_or(RecoveryError::Malformed)?;
        if *version != VERSION {
            return Err(RecoveryError::Version(*version));
        }
        if file.len() > RECOVERY_FILE_MAX {
            return Err(RecoveryError::Malformed);
        }
        let (numbers, salt) = rest.split_first_chunk::<12>().ok_or(RecoveryError::Malformed)?;
        let mut numbers = numbers.as_chunks::<4>().0.iter().map(|number| u32::from_be_bytes(*number));
        let mut next = || numbers.next().ok_or(RecoveryError::Malformed);
        let kdf = Kdf { memory_kib: next()?, passes: next()?, lanes: next()? };
        let salt = salt.try_into().map_err(|_| RecoveryError::Malformed)?;
        let suite = crypto::suite(crypto::DEFAULT_SUITE).map_err(|_| RecoveryError::Crypto)?;
        let plain = key(passphrase, kdf, &salt)?.open(&suite, Purpose::Recovery, header, sealed);
        let plain = Zeroizing::new(plain.map_err(|_| RecoveryError::Passphrase)?);
        let (secret, rest) = plain.split_first_chunk::<32>().ok_or(RecoveryError::Malformed)?;
        let content = serde_json::from_slice(rest).map_err(|_| RecoveryError::Malformed)?;
        Ok(Self { identity: SigningKey::from_bytes(secret), content })
    }
}

fn key(passphrase: &str, kdf: Kdf, salt: &[u8; 16]) -> Result<Seed, RecoveryError> {
    let key = derive(passphrase, &kdf, salt)?;
    Seed::from_slice(&*key).map_err(|_| RecoveryError::Crypto)
}

impl Client {
    /// What brings this account back if its devices are lost. Seal it ([`RecoveryFile::seal`]), keep it elsewhere, note that
    /// ([`Client::recovery_saved`]), and make a new one when [`Client::recovery_state`] says so: it names the groups of today.
    ///
    /// # Errors
    /// [`ClientError::NoIdentityKey`] on a device that was itself linked.
    pub fn recovery_file(&mut self) -> Result<RecoveryFile, ClientError> {
        let identity = self.account.identity_secret.clone().ok_or(ClientError::NoIdentityKey)?;
        let groups = self.groups_to_lose()?;
        let (client, saved_ms) = (self.account.client.clone(), self.delivery.now().0);
        Ok(RecoveryFile { identity, content: Content { client, saved_ms, groups } })
    }

    /// Takes an account up again on a device that has nothing but a recovery file: the same name and identity key, everything else new.
    /// After that, [`Client::ask_for_groups`] asks others to let it into its groups again; what was said there before the loss does not
    /// come back, and neither do invitations that waited for the lost device.
    ///
    /// What was made is stored before it is told to the server: after a failure, the same call on the same store goes on where it
    /// stopped.
    ///
    /// # Errors
    /// [`RegisterError::Step`] with the server's refusal if the account has another identity key by now; as [`Client::register`].
    pub async fn restore(
        mut store: Box<dyn ProfileStore>,
        services: &Services,
        file: &RecoveryFile,
    ) -> Result<Self, RegisterError> {
        let (delivery, authentication) = services.connect()?;
        let account = if let Some(row) = store.get(Room::ACCOUNT, Account::KEY)? {
            let account = Account::from_row(&row)?;
            let identity = account.identity_secret.as_ref().map(SigningKey::to_bytes).map(Zeroizing::new);
            let same = identity.is_some_and(|key| *key == file.identity.to_bytes());
            if account.client != *file.client() || !same {
                return Err(RegisterError::Other(account.client));
            }
            if !account.certificate.is_empty() {
                return Err(RegisterError::Complete(account.client));
            }
            account
        } else {
            let account = account_with(file.identity.clone(), file.client().clone(), authentication.now())?;
            // Should this client end before its application has anybody asked, the first sync does.
            let asking = Asking::begun_anew(authentication.now());
            store.apply(&[account.to_write(), lost::row(file.groups()), saved::row(file), asking.to_write()])?;
            account
        };
        Self::complete(store, account, delivery, authentication).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KDF: Kdf = Kdf { memory_kib: 1024, passes: 1, lanes: 1 };

    fn file() -> RecoveryFile {
        let group = LostGroup {
            group: "mimi://example.com/g/club".parse().unwrap(),
            room: "mimi://example.com/r/club".parse().unwrap(),
            title: "The Club".into(),
            users: vec!["mimi://example.com/u/bob".parse().unwrap()],
        };
        let client = "mimi://example.com/d/alice/laptop".parse().unwrap();
        let content = Content { client, saved_ms: 7, groups: vec![group] };
        RecoveryFile { identity: SigningKey::from_bytes(&[3; 32]), content }
    }

    #[test]
    fn it_opens_with_its_passphrase_only_and_unchanged_only() {
        let sealed = file().seal("correct horse", KDF).unwrap();
        let opened = RecoveryFile::open(&sealed, "correct horse").unwrap();
        assert_eq!(opened.identity.to_bytes(), [3; 32]);
        assert_eq!((opened.client(), opened.saved()), (file().client(), Timestamp(7)));
        assert_eq!(opened.groups(), file().groups());
        assert_eq!(RecoveryFile::open(&sealed, "battery").unwrap_err(), RecoveryError::Passphrase);
        for place in [HEADER - 1, HEADER + 3, sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            assert!(RecoveryFile::open(&changed, "correct horse").is_err(), "byte {place}");
        }
        for len in 0..HEADER {
            assert_eq!(RecoveryFile::open(&sealed[..len], "correct horse").unwrap_err(), RecoveryError::Malformed);
        }
        let mut later = sealed.clone();
        later[MAGIC.len()] = 2;
        assert_eq!(RecoveryFile::open(&later, "correct horse").unwrap_err(), RecoveryError::Version(2));
        // 4 TiB of memory are not taken at the word of a file.
        let mut greedy = sealed;
        greedy[MAGIC.len() + 1] = 0xff;
        assert!(matches!(RecoveryFile::open(&greedy, "x"), Err(RecoveryError::Profile(ProfileError::Kdf))));
    }

    #[test]
    fn neither_the_file_nor_debug_shows_what_is_in_it() {
        let sealed = file().seal("correct horse", KDF).unwrap();
        for secret in [[3; 32].as_slice(), b"alice", b"The Club", b"bob"] {
            assert!(!sealed.windows(secret.len()).any(|window| window == secret));
        }
        assert!(!format!("{:?}", file()).contains("Club"));
        assert_ne!(sealed, file().seal("correct horse", KDF).unwrap());
    }
}
