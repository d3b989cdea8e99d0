//! Rotation of the signature key (RFC 9420, sections 5.3.1 and 7.3; RFC 9750, sections 4 and 8.2.2): who the client is stays, by its URI and
//! its user's identity key; what it signs with changes.
//!
//! 1. The new key and the identity key's word for it are stored ([`Account::begin_rotation`]), then the Authentication Service is asked.
//! 2. With its certificate the new key takes the place of the old one, in one row ([`Account::as_next`]). From then on KeyPackages and
//!    requests are signed with it, and every group whose leaf has another key owes a commit that changes that
//!    ([`crate::group::Group::refresh_due`]). Until that commit stands, the group signs with the key that its own MLS state holds.
//! 3. The old key stays for Welcomes by KeyPackages that were made with it, and is forgotten once there are none
//!    ([`forget_old_keys`]).

use std::fmt;

use conclave_mls::credential::IdentityBinding;
use ed25519_dalek::SigningKey;

use crate::{
    account::Account,
    group::LoadError,
    key_packages,
    writes::{Rows, Write},
};

/// Most former keys that are kept. Of more, the oldest go: a Welcome by a KeyPackage of theirs comes to nothing.
const FORMER: usize = 16;

/// Signature keys before and after the present one.
#[derive(Debug, Clone, Default)]
pub struct Rotation {
    /// The key that is to take its place, until it is certified.
    pub next: Option<NextKey>,
    /// Those before it of which KeyPackages are under way, oldest first.
    pub former: Vec<SigningKey>,
}

/// A signature key that is not certified yet.
#[derive(Clone)]
pub struct NextKey {
    /// The key.
    pub key: SigningKey,
    /// The identity key's word for it.
    pub binding: IdentityBinding,
}

impl fmt::Debug for NextKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NextKey").finish_non_exhaustive()
    }
}

impl Account {
    /// Begins a rotation to a key that the identity key has signed. To be stored before the Authentication Service is asked. One that was
    /// begun before is given up.
    pub fn begin_rotation(&mut self, key: SigningKey, binding: IdentityBinding) {
        self.rotation.next = Some(NextKey { key, binding });
    }

    /// The account as it asks for a certificate of the next key.
    #[must_use]
    pub fn as_next(&self) -> Option<Self> {
        let NextKey { key, binding } = self.rotation.next.clone()?;
        let mut account = self.clone();
        account.rotation.next = None;
        let old = std::mem::replace(&mut account.signature_key, key);
        account.binding = binding;
        account.rotation.former.push(old);
        let excess = account.rotation.former.len().saturating_sub(FORMER);
        account.rotation.former.drain(..excess);
        Some(account)
    }

    /// Gives the rotation up that was begun: the present key stays.
    pub fn give_rotation_up(&mut self) {
        self.rotation.next = None;
    }

    /// The private part of a signature key of ours, present or former.
    #[must_use]
    pub fn signature_key_of(&self, public: &[u8]) -> Option<&SigningKey> {
        let mut keys = std::iter::once(&self.signature_key).chain(&self.rotation.former);
        keys.find(|key| key.verifying_key().as_bytes() == public)
    }
}

/// Forgets former keys that neither a group has ([`crate::group::Group::may_sign_with`]: `in_group`) nor a KeyPackage of which a Welcome may come. To be
/// called after [`key_packages::sweep`] was stored. Gives what is to be stored, if anything.
///
/// # Errors
/// [`LoadError`].
pub fn forget_old_keys<R: Rows>(
    account: &mut Account,
    rows: &R,
    in_group: impl Fn(&[u8; 32]) -> bool,
) -> Result<Option<Write>, LoadError<R::Error>> {
    if account.rotation.former.is_empty() {
        return Ok(None);
    }
    let made_with = key_packages::signature_keys(rows)?;
    let before = account.rotation.former.len();
    account.rotation.former.retain(|key| {
        let public = key.verifying_key().to_bytes();
        made_with.contains(public.as_slice()) || in_group(&public)
    });
    Ok((account.rotation.former.len() < before).then(|| account.to_write()))
}
