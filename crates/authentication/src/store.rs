//! What the Authentication Service keeps, as rows that a store reads and writes.
//!
//! One call of the service is one transaction: it gets a [`Tx`], and if it answers with an error, everything that it
//! wrote is undone. Transactions on one store run one after the other, each sees what those before it committed.

use std::fmt;

use conclave_mls::credential::IdentityBinding;
use conclave_names::{ClientUri, Timestamp, UserUri};
use conclave_protocol::{Code, Refusal};

/// Why a store did not do what it was asked. The transaction is undone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No room is left.
    #[error("the store is full: free space on its disk or raise its limit")]
    Full,
    /// The store cannot be reached or is stopping.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// What was read is not what was once written.
    #[error("the store holds data that does not decode: {0}")]
    Corrupt(String),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        // Details are for the operator's log, not for callers.
        match error {
            StoreError::Full => Self::new(
                Code::StorageFull,
                "the server cannot store more; nothing was changed: try again when its operator has made room",
            ),
            StoreError::Unavailable(_) => Self::new(
                Code::Unavailable,
                "the server's store is not available; nothing was changed: try again in a moment",
            ),
            StoreError::Corrupt(_) => Self::new(
                Code::Internal,
                "the server failed; nothing was changed: its operator finds the cause in its log",
            ),
        }
    }
}

/// A registered user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRow {
    /// The name; one row each.
    pub user: UserUri,
    /// The Ed25519 public identity key.
    pub identity_key: [u8; 32],
    /// When the user registered.
    pub registered: Timestamp,
}

/// A client (device) of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientRow {
    /// The name; one row each. Its user has a [`UserRow`].
    pub client: ClientUri,
    /// The Ed25519 public key that was certified last.
    pub signature_key: [u8; 32],
    /// End of the newest certificate, in seconds since the Unix epoch.
    pub not_after_secs: u64,
    /// When the client's first certificate was issued.
    pub registered: Timestamp,
}

/// An operator's permission to register. The token itself is kept nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct InviteRow {
    /// SHA-256 of the token; one row each.
    pub token_hash: [u8; 32],
    /// How many users may still register with it.
    pub uses_left: u32,
    /// From then on it is worth nothing.
    pub expires: Timestamp,
}

impl fmt::Debug for InviteRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InviteRow")
            .field("uses_left", &self.uses_left)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// A new device that asks to be linked to a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkRow {
    /// Random, from the link code; one row each.
    pub link_id: [u8; 16],
    /// What the new device wants to be. Its user has a [`UserRow`].
    pub client: ClientUri,
    /// The new device's Ed25519 public signature key.
    pub signature_key: [u8; 32],
    /// The new device's HMAC under the link code's secret, which the service cannot check.
    pub mac: [u8; 32],
    /// What another device of the user answered.
    pub approval: Option<LinkApproval>,
    /// From then on nobody finds it.
    pub expires: Timestamp,
}

/// An existing device's answer to a [`LinkRow`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkApproval {
    /// The identity key's word for the new device's key. A store keeps it as [`IdentityBinding::to_bytes`].
    pub binding: IdentityBinding,
    /// The approver's HMAC under the link code's secret, which the service cannot check.
    pub mac: [u8; 32],
}

/// One transaction. `put_…` inserts a row or replaces the one with the same name.
pub trait Tx {
    /// The user of this name.
    fn user(&mut self, user: &UserUri) -> Result<Option<UserRow>, StoreError>;

    /// Inserts or replaces a user.
    fn put_user(&mut self, row: &UserRow) -> Result<(), StoreError>;

    /// The client of this name.
    fn client(&mut self, client: &ClientUri) -> Result<Option<ClientRow>, StoreError>;

    /// A user's clients, in the order of their device names (by bytes).
    fn clients_of(&mut self, user: &UserUri) -> Result<Vec<ClientRow>, StoreError>;

    /// How many clients a user has.
    fn count_clients(&mut self, user: &UserUri) -> Result<u64, StoreError>;

    /// Inserts or replaces a client.
    fn put_client(&mut self, row: &ClientRow) -> Result<(), StoreError>;

    /// Notes that a client, which there is, has replaced a signature key.
    fn put_former_key(&mut self, client: &ClientUri, key: &[u8; 32]) -> Result<(), StoreError>;

    /// Whether a client has replaced a signature key.
    fn is_former_key(&mut self, client: &ClientUri, key: &[u8; 32]) -> Result<bool, StoreError>;

    /// The invite whose token has this SHA-256, be it good or not.
    fn invite(&mut self, token_hash: &[u8; 32]) -> Result<Option<InviteRow>, StoreError>;

    /// Inserts or replaces an invite.
    fn put_invite(&mut self, row: &InviteRow) -> Result<(), StoreError>;

    /// The link of this id, be it expired or not.
    fn link(&mut self, link_id: &[u8; 16]) -> Result<Option<LinkRow>, StoreError>;

    /// How many links of a user expire after `now`.
    fn count_links(&mut self, user: &UserUri, now: Timestamp) -> Result<u64, StoreError>;

    /// Inserts or replaces a link.
    fn put_link(&mut self, row: &LinkRow) -> Result<(), StoreError>;

    /// Deletes, of a user's links that expire after `now` and that nobody approved, the one that expires first (of
    /// several the one with the least id). False if there is none.
    fn drop_oldest_link(&mut self, user: &UserUri, now: Timestamp) -> Result<bool, StoreError>;

    /// Notes that a key used a nonce, until `expires`. False if it was noted before and is not pruned yet.
    fn note_nonce(&mut self, key: &[u8; 32], nonce: &[u8; 16], expires: Timestamp) -> Result<bool, StoreError>;

    /// Deletes nonces, links and invites whose `expires` is at or before `now`, and invites without uses left.
    fn prune(&mut self, now: Timestamp) -> Result<(), StoreError>;
}
