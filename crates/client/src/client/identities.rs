//! Whose identity key is whose, as this profile has seen it: trust on first use, and what people compared.

use conclave_engine::writes::{Room, Write};
use conclave_mls::credential::SafetyNumber;
use conclave_names::{ClientUri, Timestamp, UserUri};
use conclave_protocol::v1;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Client, ClientError};

/// What the directory says of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRecord {
    /// The public identity key.
    pub identity_key: [u8; 32],
    /// Its clients, with the ends of their certificates.
    pub clients: Vec<(ClientUri, Timestamp)>,
}

/// What this profile remembers of a user's identity key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinned {
    /// The key, in hexadecimal.
    pub identity_key: conclave_names::Hash,
    /// Whether people have compared the safety number.
    pub verified: bool,
}

fn key(user: &UserUri) -> Vec<u8> {
    format!("identity/{user}").into_bytes()
}

impl Client {
    /// Asks the Authentication Service for a user's identity key and clients.
    ///
    /// # Errors
    /// [`ClientError::Call`] with `USER_UNKNOWN` if there is none.
    pub async fn user_record(&mut self, user: &UserUri) -> Result<UserRecord, ClientError> {
        let answer = self
            .authentication
            .get_user(&Self::signer(&self.account), &v1::GetUserRequest { user: user.to_string() })
            .await?;
        let wrong = |what: &str| ClientError::Answer(what.to_owned());
        let clients = answer
            .clients
            .iter()
            .map(|client| {
                let name: ClientUri = client.client.parse().map_err(|_| wrong("a client's name is none"))?;
                if name.user() == user {
                    Ok((name, Timestamp::from_secs(client.not_after)))
                } else {
                    Err(wrong("it names another user's client"))
                }
            })
            .collect::<Result<_, _>>()?;
        let identity_key =
            answer.identity_key.as_slice().try_into().map_err(|_| wrong("`identity_key` is not 32 bytes"))?;
        Ok(UserRecord { identity_key, clients })
    }

    /// What this profile remembers of a user's identity key.
    pub fn pinned(&self, user: &UserUri) -> Result<Option<Pinned>, ClientError> {
        let Some(row) = self.store.get(Room::ACCOUNT, &key(user))? else { return Ok(None) };
        serde_json::from_slice(&row).map(Some).map_err(|_| conclave_engine::account::RecordError::Damaged.into())
    }

    fn pin(&mut self, user: &UserUri, pinned: &Pinned) -> Result<(), ClientError> {
        let value = Zeroizing::new(serde_json::to_vec(pinned).unwrap_or_default());
        Ok(self.store.apply(&[Write::Put { room: Room::ACCOUNT, key: key(user), value }])?)
    }

    /// Remembers an identity key at first sight, and compares it later.
    ///
    /// # Errors
    /// [`ClientError::IdentityChanged`] if it is another than before.
    pub fn check_identity(&mut self, user: &UserUri, identity_key: &[u8; 32]) -> Result<(), ClientError> {
        let found = conclave_names::Hash::new(*identity_key);
        match self.pinned(user)? {
            Some(pinned) if pinned.identity_key == found => Ok(()),
            Some(_) => Err(ClientError::IdentityChanged(user.clone())),
            None => self.pin(user, &Pinned { identity_key: found, verified: false }),
        }
    }

    /// Notes that people compared the safety number with this key, or accepted a changed one.
    pub fn accept_identity(
        &mut self,
        user: &UserUri,
        identity_key: &[u8; 32],
        verified: bool,
    ) -> Result<(), ClientError> {
        self.pin(user, &Pinned { identity_key: conclave_names::Hash::new(*identity_key), verified })
    }

    /// The safety number between this user and another with that identity key.
    pub fn safety_number(&self, user: &UserUri, identity_key: &[u8; 32]) -> SafetyNumber {
        SafetyNumber::between((self.user(), &self.account.identity_key()), (user, identity_key))
    }
}
