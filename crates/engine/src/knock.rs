//! Knocks, apart from any group: the one that is posted to a member, and what came into the inbox from somebody who asks to be
//! let in again.
//!
//! Who has lost groups does not know them, and knocks at all of them ([`for_all_groups`]). It is known by its identity key: its certified
//! name is that of a member, and it has a later word of its user's identity key than the member's leaf, for the same signature key or
//! another. In groups that it follows, which it names, its leaf stays. A KeyPackage serves one group, so
//! whoever answers claims another of the knocker for each ([`Knocked::with_key_package`]).

use conclave_channel::{Body, Entry, EntryKind, access::ChannelKey, size_class};
use conclave_mls::{
    address::DeliveryAddress,
    credential::{OfClient, same_client},
    crypto, identity,
    knock::{KEPT_GROUPS_MAX, KeptGroup, Knock, KnockError, Names, SealedKnock},
};
use conclave_names::{ClientUri, GroupUri, Timestamp};
use mls_rs::{KeyPackage, KeyPackageStorage as _, MlsMessage};
use mls_rs_codec::MlsDecode as _;

use crate::{
    account::Account,
    group::{AskError, KnockPost, LoadError, fault},
    key_packages,
    mls_client::{Mls, MlsError, suite},
    writes::{Rows, Write},
};

/// Why an entry of the inbox is no knock for us. It is permanent: the entry can be trimmed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KnockedError {
    /// It is no knock.
    #[error(transparent)]
    Knock(#[from] KnockError),
    /// It is sealed to a KeyPackage that we do not have (any more): it may be a copy.
    #[error("the knock is sealed to a KeyPackage that this device does not have")]
    NotForUs,
    /// Whoever made it is not who it says.
    #[error("the knocker's credential is not valid: {0}")]
    Credential(String),
    /// Another KeyPackage is not one of the knocker's.
    #[error("the KeyPackage is not one of the client that knocked")]
    Another,
    /// The signature is not by the key of the KeyPackage in it, or not over this.
    #[error("the knock is not signed by the key of the KeyPackage in it")]
    Signature,
    /// MLS refused.
    #[error(transparent)]
    Mls(#[from] MlsError),
}

/// A member that is asked, and the user's identity key that it must have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) member: &'a ClientUri,
    pub(crate) identity_key: &'a [u8; 32],
}

impl OfClient for Asked<'_> {
    fn client(&self) -> &ClientUri {
        self.member
    }

    fn identity_key(&self) -> [u8; 32] {
        *self.identity_key
    }
}

/// What a knock is about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum About<'a> {
    /// One group, and our leaves there that are to be replaced.
    Group(&'a GroupUri, &'a [ChannelKey]),
    /// All groups but these.
    AllBut(&'a [GroupUri]),
}

/// Makes a knock by a KeyPackage (an MLSMessage) that was claimed of a member.
pub(crate) fn post(
    (account, shared): (&Account, &Mls),
    asked: Asked<'_>,
    theirs: &[u8],
    about: About<'_>,
    key_package: Vec<u8>,
    now: Timestamp,
) -> Result<KnockPost, AskError> {
    let message = MlsMessage::from_bytes(theirs).map_err(MlsError::from)?;
    let package = message.as_key_package().ok_or_else(|| fault("no KeyPackage"))?;
    let identity = shared.identities.identify(package.signing_identity(), Some(now));
    let identity = identity.map_err(|error| AskError::KeyPackage(error.to_string()))?;
    // The directory is not believed: it is the member that we knew, or nobody.
    if !same_client(&identity, &asked) {
        return Err(AskError::KeyPackage("it has another name or identity key".to_owned()));
    }
    let provider = suite(package.cipher_suite)?;
    let to = package.to_reference(&provider).map_err(MlsError::from)?;
    let address = DeliveryAddress::of(&package.extensions).map_err(fault)?;
    let names = match about {
        About::Group(group, leaves) => {
            Names { group: Some(group), old_leaves: leaves.to_vec(), kept_groups: Vec::new() }
        }
        About::AllBut(kept) => {
            let kept = kept.iter().take(KEPT_GROUPS_MAX).map(|group| KeptGroup::of(&to, group));
            Names { kept_groups: kept.collect::<Result<_, _>>()?, ..Names::default() }
        }
    };
    let knock = Knock::sign(&account.signature_key, &to, names, key_package, now)?;
    Ok(KnockPost {
        domain: address.domain().map_err(fault)?.to_string(),
        knock: knock.seal(&provider, &to, &package.hpke_init_key)?.to_bytes()?,
        address: address.sealed,
    })
}

/// Makes a knock of a client that has lost groups, about all that it shares with another but those in `kept`, by a KeyPackage (an
/// MLSMessage) that was claimed of that one. `identity_key` is the one that the other's user is known to have. `key_package` is one
/// of ours, whose private part is durable: it says who knocks, and adds us nowhere.
///
/// # Errors
/// Any [`AskError`]: ask another.
pub fn for_all_groups(
    account: &Account,
    shared: &Mls,
    member: (&ClientUri, &[u8; 32]),
    theirs: &[u8],
    kept: &[GroupUri],
    key_package: Vec<u8>,
    now: Timestamp,
) -> Result<KnockPost, AskError> {
    let asked = Asked { member: member.0, identity_key: member.1 };
    post((account, shared), asked, theirs, About::AllBut(kept), key_package, now)
}

/// Until when the identity key vouches for the signature key of a KeyPackage whose credential is good.
fn vouched_until(package: &KeyPackage) -> Result<u64, MlsError> {
    Ok(identity::read(package.signing_identity()).map_err(fault)?.binding().not_after_secs)
}

/// A knock whose signature and credential are good. Whether it is to be answered is for the group to say
/// ([`crate::group::Group::answer`]).
pub struct Knocked {
    to: Vec<u8>,
    group: Option<GroupUri>,
    pub(crate) client: ClientUri,
    pub(crate) identity_key: [u8; 32],
    pub(crate) signature_key: [u8; 32],
    /// When its certificate began.
    pub(crate) certified: Timestamp,
    /// Until when the identity key vouches for its signature key, in seconds since the Unix epoch: its newest word says the latest.
    pub(crate) vouched_until: u64,
    kept_groups: Vec<KeptGroup>,
    pub(crate) old_leaves: Vec<ChannelKey>,
    pub(crate) time: Timestamp,
    pub(crate) key_package: Vec<u8>,
}

impl std::fmt::Debug for Knocked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Knocked").field("client", &self.client).finish_non_exhaustive()
    }
}

impl OfClient for Knocked {
    fn client(&self) -> &ClientUri {
        &self.client
    }

    fn identity_key(&self) -> [u8; 32] {
        self.identity_key
    }
}

impl Knocked {
    /// Whether an entry of the inbox is one.
    #[must_use]
    pub fn is_one(entry: &[u8]) -> bool {
        Entry::parse(entry).is_ok_and(|entry| entry.kind == EntryKind::Knock)
    }

    /// Opens an entry of our inbox.
    ///
    /// # Errors
    /// Any [`KnockedError`], all of them permanent.
    pub fn open(shared: &Mls, entry: &[u8], now: Timestamp) -> Result<Self, KnockedError> {
        let entry = Entry::parse(entry).map_err(|_| KnockError::Malformed)?;
        let (EntryKind::Knock, Body::Inline(padded)) = (entry.kind, entry.body) else {
            return Err(KnockError::Malformed.into());
        };
        let sealed = SealedKnock::parse(&size_class::unpad(padded).map_err(|_| KnockError::Malformed)?)?;
        let Ok(stored) = shared.key_packages.get(&sealed.to);
        let stored = stored.ok_or(KnockedError::NotForUs)?;
        let provider = suite(crypto::suite_by_number(sealed.cipher_suite).map_err(fault)?)?;
        let ours = KeyPackage::mls_decode(&mut stored.key_package_bytes.as_slice()).map_err(fault)?;
        let knock = sealed.open(&provider, &stored.init_key, &ours.hpke_init_key)?;
        let message = MlsMessage::from_bytes(&knock.key_package).map_err(MlsError::from)?;
        let package = message.as_key_package().ok_or_else(|| fault("no KeyPackage"))?;
        let identity = shared.identities.identify(package.signing_identity(), Some(now));
        let identity = identity.map_err(|error| KnockedError::Credential(error.to_string()))?;
        if !knock.is_signed(&sealed.to, &identity.signature_key) {
            return Err(KnockedError::Signature);
        }
        Ok(Self {
            group: knock.group()?,
            old_leaves: knock.old_leaves,
            time: knock.time,
            to: sealed.to,
            client: identity.client,
            identity_key: identity.identity_key,
            signature_key: identity.signature_key,
            certified: identity.not_before,
            vouched_until: vouched_until(package)?,
            kept_groups: knock.kept_groups,
            key_package: knock.key_package,
        })
    }

    /// Whether the knocker says that it follows this group.
    pub(crate) fn keeps(&self, group: &GroupUri) -> bool {
        KeptGroup::of(&self.to, group).is_ok_and(|group| self.kept_groups.contains(&group))
    }

    /// The group that it is about; none for all that the knocker is a member of.
    #[must_use]
    pub fn group(&self) -> Option<&GroupUri> {
        self.group.as_ref()
    }

    /// The same knock, to be answered by another KeyPackage (an MLSMessage), which was claimed of the knocker.
    ///
    /// # Errors
    /// [`KnockedError::Another`] unless it is of the same client and identity key, and of the same signature key or one that was certified
    /// later: it may have changed its key since it knocked.
    pub fn with_key_package(&self, shared: &Mls, key_package: Vec<u8>, now: Timestamp) -> Result<Self, KnockedError> {
        let message = MlsMessage::from_bytes(&key_package).map_err(MlsError::from)?;
        let package = message.as_key_package().ok_or_else(|| fault("no KeyPackage"))?;
        let identity = shared.identities.identify(package.signing_identity(), Some(now));
        let identity = identity.map_err(|error| KnockedError::Credential(error.to_string()))?;
        let same = same_client(&identity, self)
            && (identity.signature_key == self.signature_key || identity.not_before > self.certified);
        if !same {
            return Err(KnockedError::Another);
        }
        Ok(Self {
            to: self.to.clone(),
            group: self.group.clone(),
            client: self.client.clone(),
            kept_groups: self.kept_groups.clone(),
            old_leaves: self.old_leaves.clone(),
            key_package,
            ..*self
        })
    }

    /// Who knocks.
    #[must_use]
    pub fn client(&self) -> &ClientUri {
        &self.client
    }

    /// What becomes durable once it was dealt with: the KeyPackage that it was sealed to is used up, so that a copy of it opens no
    /// more.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn used<R: Rows>(&self, shared: &Mls, rows: &R) -> Result<Vec<Write>, LoadError<R::Error>> {
        key_packages::spent(shared, rows, &self.to)
    }
}
