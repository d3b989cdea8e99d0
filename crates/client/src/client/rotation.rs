//! Changing this device's signature key, in all of its groups (RFC 9420, sections 5.3.1 and 7.3; RFC 9750, sections 4 and 8.2.2).
//!
//! The new key and the identity key's word for it are stored before the Authentication Service is asked, and take the old one's place in one
//! transaction with the certificate: so there is a key that works at any moment, and a call that was lost on its way is made again by the
//! next [`Client::sync`]. Each group then takes the new key by a commit of its own, when it can: those that are stuck, frozen or busy
//! later, without anybody's doing.

use std::{collections::BTreeSet, fmt};

use conclave_engine::rotation;
use conclave_names::GroupUri;
use conclave_protocol::{Retry, SigningKey};

use super::{
    Client, ClientError, ClientEvent, LinkCode,
    devices::{poll_link, put_link},
    register::{certify, new_key, sign_binding},
    rows::StoreRows,
};

/// What came of a change of the signature key.
#[derive(Debug)]
pub struct Rotated {
    /// Groups in which the others know this device by its old key still: they take the new one with the next syncs, or while listening.
    pub waiting: Vec<GroupUri>,
    /// What else happened meanwhile.
    pub events: Vec<ClientEvent>,
    /// Why the groups were not gone through to the end. The key is changed all the same.
    pub problem: Option<ClientError>,
}

/// A change of the signature key on a device without the identity key, which waits for approval.
pub struct PendingRotation {
    key: SigningKey,
    code: LinkCode,
}

impl fmt::Debug for PendingRotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingRotation").finish_non_exhaustive()
    }
}

impl PendingRotation {
    /// What the person takes to the device where the account was made ([`Client::link_request`], [`Client::approve_link`]).
    #[must_use]
    pub fn code(&self) -> &LinkCode {
        &self.code
    }
}

impl Client {
    /// The public part of this device's signature key.
    #[must_use]
    pub fn signature_key(&self) -> [u8; 32] {
        self.account.signature_key.verifying_key().to_bytes()
    }

    /// How many earlier signature keys are kept, because a group or an invitation under way may need them.
    #[must_use]
    pub fn former_signature_keys(&self) -> usize {
        self.account.rotation.former.len()
    }

    /// Gives this device a new signature key, has it certified, replaces its KeyPackages, and gives it to the groups. Who this device is
    /// stays: its name and its user's identity key. The old key is certified no more from then on, and is forgotten once no group and
    /// no invitation needs it.
    ///
    /// After a failure or a crash the same call goes on with the same key, and so does [`Client::sync`]. Groups that list this client as an
    /// external sender list the old key: see [`Client::signing_identity`].
    ///
    /// # Errors
    /// [`ClientError::NeedsApproval`] on a device that was itself linked: see [`Client::ask_to_rotate`]. A refusal of the Authentication
    /// Service, with which the old key stays; and transient errors. Once the new key is in place, nothing fails any more
    /// ([`Rotated::problem`]).
    pub async fn rotate_keys(&mut self) -> Result<Rotated, ClientError> {
        if self.account.rotation.next.is_none() {
            self.begin_rotation()?;
        }
        self.finish_rotation().await?;
        self.spread_key().await
    }

    /// On a device without the identity key: makes a new signature key, and asks for the identity key's word for it. Show
    /// [`PendingRotation::code`] to the person, who takes it to the device where the account was made.
    ///
    /// # Errors
    /// As the service says; [`ClientError::is_transient`].
    pub async fn ask_to_rotate(&mut self) -> Result<PendingRotation, ClientError> {
        let (key, code) = (new_key()?, LinkCode::new()?);
        put_link(&self.authentication, self.client(), &key, &code).await?;
        Ok(PendingRotation { key, code })
    }

    /// Asks once whether a new signature key was approved, and if so changes to it, as [`Client::rotate_keys`]. None: not yet.
    ///
    /// # Errors
    /// [`ClientError::Answer`] if the approval was not made by who has the code, or by another identity key than this device's; as
    /// [`Client::rotate_keys`].
    pub async fn rotate_if_approved(&mut self, pending: &PendingRotation) -> Result<Option<Rotated>, ClientError> {
        let polled = poll_link(&self.authentication, self.client(), &pending.key, &pending.code).await?;
        let Some(binding) = polled else { return Ok(None) };
        if binding.identity_key != self.identity_key() {
            return Err(ClientError::Answer("the approval is by another identity key than this device's".into()));
        }
        let mut account = self.account.clone();
        account.begin_rotation(pending.key.clone(), binding);
        self.take_account(account)?;
        self.finish_rotation().await?;
        self.spread_key().await.map(Some)
    }

    /// Groups in which this device has another signature key than its own newest.
    ///
    /// # Errors
    /// [`ClientError::Store`].
    pub fn groups_without_new_key(&mut self) -> Result<Vec<GroupUri>, ClientError> {
        let mut waiting = Vec::new();
        for name in self.groups_read()? {
            // One that does not load is told of when its turn comes.
            if self.group(&name).is_ok_and(|group| group.owes_rotation()) {
                waiting.push(name);
            }
        }
        Ok(waiting)
    }

    /// The groups that this client follows.
    fn groups_read(&self) -> Result<Vec<GroupUri>, ClientError> {
        use conclave_engine::group::Status;
        let read = self.groups()?.into_iter().filter(|group| group.status != Status::Removed || group.may_return);
        Ok(read.map(|group| group.name).collect())
    }

    /// Stores a new key and the identity key's word for it.
    pub(super) fn begin_rotation(&mut self) -> Result<(), ClientError> {
        let mut account = self.account.clone();
        let identity = account.identity_secret.as_ref().ok_or(ClientError::NeedsApproval)?;
        let key = new_key()?;
        let public = key.verifying_key().to_bytes();
        let binding = sign_binding(identity, &account.client, &public, self.authentication.now());
        account.begin_rotation(key, binding);
        self.take_account(account)
    }

    /// Has the next key certified, and puts it in the place of the present one, if there is one.
    pub(super) async fn finish_rotation(&mut self) -> Result<(), ClientError> {
        let Some(mut account) = self.account.as_next() else { return Ok(()) };
        match certify(&mut account, &self.authentication).await {
            Ok(()) => self.take_account(account),
            Err(error) => {
                if error.code().is_some_and(|code| code.retry() == Retry::Never) {
                    // It will never be certified: another is made by the next call.
                    let mut account = self.account.clone();
                    account.give_rotation_up();
                    self.take_account(account)?;
                }
                Err(error)
            }
        }
    }

    /// Goes on with a rotation that was begun. One that cannot go on now keeps nobody from reading.
    ///
    /// # Errors
    /// [`ClientError::Store`] alone.
    pub(super) async fn resume_rotation(&mut self) -> Result<(), ClientError> {
        match self.finish_rotation().await {
            Err(error @ ClientError::Store(_)) => Err(error),
            Err(error) => {
                tracing::warn!(%error, "the new signature key has no certificate yet");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Stores an account that has changed, and has everything work with it.
    pub(super) fn take_account(&mut self, account: conclave_engine::account::Account) -> Result<(), ClientError> {
        self.store.apply(&[account.to_write()])?;
        self.mls.identities().set_issuers(account.parsed_issuers());
        for group in self.groups.values_mut() {
            group.set_account(account.clone());
        }
        self.account = account;
        Ok(())
    }

    /// Goes through the groups with a new key.
    async fn spread_key(&mut self) -> Result<Rotated, ClientError> {
        // What others claim from now on is of the new key.
        let replaced = self.refill_key_packages().await;
        let synced = match replaced {
            Ok(()) => Box::pin(self.sync()).await,
            Err(error) => Err(error),
        };
        let (events, problem) = match synced {
            Ok(events) => (events, None),
            Err(error) => (self.take_untold(), Some(error)),
        };
        Ok(Rotated { waiting: self.groups_without_new_key()?, events, problem })
    }

    /// Forgets signature keys that neither a group nor an invitation needs.
    pub(super) fn forget_old_keys(&mut self) -> Result<(), ClientError> {
        let former: Vec<_> = self.account.rotation.former.iter().map(|key| key.verifying_key().to_bytes()).collect();
        if former.is_empty() {
            return Ok(());
        }
        let mut in_groups = BTreeSet::new();
        for name in self.groups_read()? {
            // Of one that does not load it is not known.
            let group = self.group(&name);
            let uses = |key: &[u8; 32]| group.as_ref().map_or(true, |group| group.may_sign_with(key));
            in_groups.extend(former.iter().copied().filter(uses));
        }
        let mut account = self.account.clone();
        let rows = StoreRows(&*self.store);
        if rotation::forget_old_keys(&mut account, &rows, |key| in_groups.contains(key))?.is_some() {
            self.take_account(account)?;
        }
        Ok(())
    }
}
