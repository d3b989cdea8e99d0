//! Joining by a Welcome.

use std::collections::{BTreeMap, BTreeSet};

use conclave_channel::{Body, Entry, EntryKind, HashWindow, Position, chain, law::Ledger, size_class};
use conclave_mls::{
    components::{ChannelKeyExtension, GroupProfile, HandshakeMode},
    crypto,
    crypto::SuiteProvider,
    seal::Seed,
    tree_chunks::{Assembly, TreeError},
    welcome::{InboxWelcome, JoinerInfo, JoinerKey, Standing, WelcomeError},
};
use conclave_names::{Epoch, GroupUri, Hash, Timestamp, limits};
use ed25519_dalek::SigningKey;
use mls_rs::{KeyPackageStorage as _, MlsMessage, group::ExportedTree};

use crate::{
    account::Account,
    group::{Group, Heritage, LoadError, Start, Status, fault, row},
    intent::Wish,
    key_packages,
    mls_client::{Mls, MlsError, suite},
    outcome::Event,
    record::RecordError,
    writes::{Room, Rows, Write},
};

/// Why an inbox's entry is no invitation for us. It is permanent: the entry can be trimmed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvitationError {
    /// It is no Welcome.
    #[error("the inbox holds something that is no Welcome")]
    Malformed,
    /// It is for a KeyPackage that we do not have (any more).
    #[error("the Welcome is for a KeyPackage that this device does not have: have it removed and added again")]
    NotForUs,
    /// It is not one of ours, or of a later version.
    #[error(transparent)]
    Welcome(#[from] WelcomeError),
    /// The group is none of ours, or MLS refused.
    #[error(transparent)]
    Mls(#[from] MlsError),
}

/// Why a group could not be joined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError<E> {
    /// The store failed: try again.
    #[error("the profile's store failed: {0}")]
    Store(E),
    /// A row is damaged.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// We are a member already: the Welcome is a copy, or somebody's mistake.
    #[error("this client is a member of the group already")]
    Member,
    /// It leads to an epoch that we have left behind: a Welcome by a last resort that came again. To join there would
    /// use keys twice.
    #[error("the invitation is an old one, to an epoch of the group that this client has left behind")]
    Old,
    /// Transient: we could not apply an earlier commit, and the channel has not decided whether it stands. If it is annulled, so is this
    /// invitation, and what we have of the group is what counts. Or we have not read the channel up to the commit that invites us: the
    /// server may show it late.
    #[error("this client has yet to read, or to see decided, an earlier commit of the group: try again later")]
    Undecided,
    /// The tree is not the one that the Welcome speaks of.
    #[error("the group's tree is not the one that the Welcome speaks of")]
    Tree,
    /// MLS or our own checks refused the group. Permanent.
    #[error(transparent)]
    Refused(#[from] MlsError),
}

impl<E> From<LoadError<E>> for JoinError<E> {
    fn from(error: LoadError<E>) -> Self {
        match error {
            LoadError::Store(error) => Self::Store(error),
            LoadError::Record(error) => Self::Record(error),
            LoadError::Mls(error) => Self::Refused(error),
        }
    }
}

/// The tree of a group that we were invited to, on its way.
pub struct TreeFetch {
    way: Way,
    suite: SuiteProvider,
    apart: Option<Apart>,
}

/// Which commits stood, in a blob of its own.
struct Apart {
    hash: Hash,
    key: JoinerKey,
    ledger: Option<Ledger>,
}

/// How it comes.
enum Way {
    /// In sealed chunks.
    Chunks(Assembly),
    /// As the DS of a visible group exported it, by its hash.
    Whole { hash: Hash, tree: Option<Vec<u8>> },
    /// As the DS of a visible group exported it for who asks for the present one.
    Unnamed { tree: Option<Vec<u8>> },
}

impl std::fmt::Debug for TreeFetch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("TreeFetch").field(&self.wanted()).finish()
    }
}

impl TreeFetch {
    /// Names of the blobs that are wanted now. When there are none, all are there.
    #[must_use]
    pub fn wanted(&self) -> Vec<Hash> {
        let mut wanted: Vec<_> = match &self.way {
            Way::Chunks(assembly) => assembly.wanted().collect(),
            Way::Whole { hash, tree: None } => vec![*hash],
            Way::Whole { .. } | Way::Unnamed { .. } => Vec::new(),
        };
        wanted.extend(self.apart.iter().filter(|apart| apart.ledger.is_none()).map(|apart| apart.hash));
        wanted.sort_unstable();
        wanted.dedup();
        wanted
    }

    /// Which commits stood, where the Welcome does not say it itself.
    fn ledger(&self) -> Option<&Ledger> {
        self.apart.as_ref().and_then(|apart| apart.ledger.as_ref())
    }

    /// The largest blob that can be wanted, in bytes.
    #[must_use]
    pub const fn largest(&self) -> u64 {
        match self.way {
            Way::Chunks(_) => limits::BLOB_CHUNK as u64,
            Way::Whole { .. } | Way::Unnamed { .. } => limits::BLOB,
        }
    }

    /// Takes a blob.
    ///
    /// # Errors
    /// [`TreeError`] if it is none of the tree's.
    pub fn give(&mut self, blob: &[u8]) -> Result<(), TreeError> {
        if let Some(apart) = self.apart.as_mut().filter(|apart| apart.ledger.is_none())
            && chain::entry_hash(blob) == apart.hash
        {
            apart.ledger = Some(apart.key.open_ledger(&self.suite, blob).map_err(|_| TreeError::Chunk)?);
            return Ok(());
        }
        match &mut self.way {
            Way::Chunks(assembly) => assembly.give(&self.suite, blob),
            Way::Whole { hash, tree } => {
                if chain::entry_hash(blob) != *hash {
                    return Err(TreeError::Name);
                }
                *tree = Some(blob.to_vec());
                Ok(())
            }
            Way::Unnamed { tree } => {
                *tree = Some(blob.to_vec());
                Ok(())
            }
        }
    }

    /// In sealed chunks.
    pub(crate) fn in_chunks(top: Hash, key: Seed, suite: SuiteProvider) -> Self {
        Self { way: Way::Chunks(Assembly::new(top, key)), suite, apart: None }
    }

    /// One that the DS of a visible group serves by its epoch, with no name to check it by: MLS does.
    pub(crate) fn unnamed(suite: SuiteProvider) -> Self {
        Self { way: Way::Unnamed { tree: None }, suite, apart: None }
    }

    /// Whether the DS of a visible group is to be asked for the whole tree of the present epoch.
    #[must_use]
    pub fn wants_whole(&self) -> bool {
        matches!(self.way, Way::Unnamed { tree: None })
    }

    /// The encoded tree. If it is another group's, MLS finds that its hash is not the one in the Welcome.
    pub(crate) fn finish(&self) -> Result<Vec<u8>, TreeError> {
        match &self.way {
            Way::Chunks(assembly) => assembly.finish(),
            Way::Whole { tree, .. } | Way::Unnamed { tree } => tree.clone().ok_or(TreeError::Missing),
        }
    }
}

/// A Welcome that is ours, before the tree is there.
pub struct Invitation {
    message: MlsMessage,
    cipher_suite: u16,
    info: JoinerInfo,
    key: JoinerKey,
    name: GroupUri,
    profile: GroupProfile,
    epoch: Epoch,
}

impl std::fmt::Debug for Invitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invitation").field("name", &self.name).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// Loads the private parts of our KeyPackages. To be called before [`Invitation::open`].
///
/// # Errors
/// [`LoadError`].
pub fn load_key_packages<R: Rows>(shared: &Mls, rows: &R) -> Result<(), LoadError<R::Error>> {
    for (key, value) in rows.scan(Room::KEY_PACKAGE, b"package/").map_err(LoadError::Store)? {
        let id = key.strip_prefix(b"package/").unwrap_or_default().to_vec();
        shared.key_packages.load(id, key_packages::from_row(&value)?.data);
    }
    Ok(())
}

impl Invitation {
    /// Opens an entry of our inbox.
    ///
    /// # Errors
    /// Any [`InvitationError`], all of them permanent.
    pub fn open(account: &Account, shared: &Mls, entry: &[u8]) -> Result<Self, InvitationError> {
        let entry = Entry::parse(entry).map_err(|_| InvitationError::Malformed)?;
        let Body::Inline(padded) = entry.body else { return Err(InvitationError::Malformed) };
        if entry.kind != EntryKind::Welcome {
            return Err(InvitationError::Malformed);
        }
        let bytes = size_class::unpad(padded).map_err(|_| InvitationError::Malformed)?;
        let welcome = InboxWelcome::parse(&bytes)?;
        let cipher_suite = crypto::suite_by_number(welcome.cipher_suite).map_err(fault)?;
        let message = welcome.to_message()?;
        let info = match shared.client(account, cipher_suite).examine_welcome_message(&message) {
            Ok(info) => info,
            Err(mls_rs::error::MlsError::WelcomeKeyPackageNotFound) => return Err(InvitationError::NotForUs),
            Err(error) => return Err(MlsError::from(error).into()),
        };
        let context = info.group_context();
        let profile = GroupProfile::of(&context.extensions).map_err(fault)?;
        let name = std::str::from_utf8(&context.group_id)
            .ok()
            .and_then(|text| text.parse::<GroupUri>().ok())
            .filter(|name| *name.domain() == profile.hub)
            .ok_or_else(|| fault("the group's name is not one of its hub's"))?;
        let epoch = Epoch(context.epoch);
        let key = JoinerKey::of(info.extensions())?;
        let info = key.open(&suite(cipher_suite)?, &welcome.attachment)?;
        Ok(Self { message, cipher_suite: welcome.cipher_suite, info, key, name, profile, epoch })
    }

    /// The group.
    #[must_use]
    pub fn name(&self) -> &GroupUri {
        &self.name
    }

    /// Where it lives.
    #[must_use]
    pub fn profile(&self) -> &GroupProfile {
        &self.profile
    }

    /// The tree, to be fetched at the hub chunk by chunk.
    ///
    /// # Errors
    /// [`MlsError`] never in practice.
    pub fn tree(&self) -> Result<TreeFetch, MlsError> {
        let key = self.info.tree_key().map_err(fault)?;
        let suite = suite(crypto::suite_by_number(self.cipher_suite).map_err(fault)?)?;
        let way = match self.profile.mode {
            HandshakeMode::Private => Way::Chunks(Assembly::new(self.info.tree, key)),
            HandshakeMode::Visible => Way::Whole { hash: self.info.tree, tree: None },
        };
        let apart = match &self.info.standing {
            Standing::Here(_) => None,
            Standing::Apart(hash) => Some(Apart { hash: *hash, key: self.key.clone(), ledger: None }),
        };
        Ok(TreeFetch { way, suite, apart })
    }

    fn seed(&self) -> Result<Seed, MlsError> {
        self.info.seed().map_err(fault)
    }

    /// Joins, with the whole tree. The group's writes, and with them the end of the used KeyPackage's private part,
    /// must become durable before anything else is done.
    ///
    /// # Errors
    /// Any [`JoinError`]; [`JoinError::Store`] is transient, the others are permanent.
    pub fn join<R: Rows>(
        &self,
        account: &Account,
        shared: &Mls,
        rows: &R,
        tree: &TreeFetch,
        now: Timestamp,
        events: &mut Vec<Event>,
    ) -> Result<Group, JoinError<R::Error>> {
        let mut writes = Vec::new();
        let (mut heritage, mut foreign, mut came_by) = (None, BTreeSet::new(), Vec::new());
        let incarnation = match row::incarnation(rows, &self.name)? {
            None => 0,
            // We may have been removed and added again in what we have yet to read.
            Some(earlier)
                if earlier.status == Status::Active
                    && self.epoch > earlier.epoch
                    && earlier.place <= self.position().seq =>
            {
                return Err(JoinError::Undecided);
            }
            Some(earlier) if earlier.status == Status::Active => return Err(JoinError::Member),
            Some(earlier) if self.epoch <= earlier.epoch || earlier.came_by.contains(&self.info.commit) => {
                return Err(JoinError::Old);
            }
            Some(earlier) if earlier.undecided && earlier.status != Status::Removed => {
                return Err(JoinError::Undecided);
            }
            Some(earlier) => {
                // One that was removed for good has left nothing.
                if matches!(earlier.status, Status::Stuck { .. }) || !earlier.void {
                    heritage = heritage_of(account, shared, rows, &self.name)?;
                }
                foreign = row::delete_rows(rows, &self.name, &mut writes)?;
                came_by = earlier.came_by;
                earlier.number.saturating_add(1)
            }
        };
        let cipher_suite = crypto::suite_by_number(self.cipher_suite).map_err(fault)?;
        let seed = self.seed()?;
        let ledger = match &self.info.standing {
            Standing::Here(ledger) => ledger,
            Standing::Apart(_) => tree.ledger().ok_or(JoinError::Tree)?,
        };
        if ledger.pause() != self.profile.dispute_pause {
            return Err(fault("its ledger has another pause than the group").into());
        }
        let tree = tree.finish().map_err(|_| JoinError::Tree)?;
        let tree = ExportedTree::from_bytes(&tree).map_err(|_| JoinError::Tree)?;
        shared.groups.forget(self.name.to_string().as_bytes());
        // Joiners judge no lifetimes: each leaf was judged when it was admitted.
        let client = shared.client_signing(account, &signer(account, shared, &self.message)?, cipher_suite);
        let (mls, member) = client.join_group(Some(tree), &self.message, None).map_err(MlsError::from)?;
        let _ = shared.key_packages.drain();
        let own = group_channel_key(&mls, rows)?;
        let mut group = Group::start(
            account,
            shared,
            mls,
            Start {
                name: self.name.clone(),
                incarnation,
                profile: self.profile.clone(),
                window: HashWindow::new(self.position(), Timestamp(0)),
                ledger: ledger.clone(),
                commit: Some(self.info.commit),
                epoch: self.epoch,
                seeds: BTreeMap::from([(self.info.seed_epoch, seed)]),
                tree_keys: BTreeMap::from([(self.info.tree_key_epoch, self.info.tree_key().map_err(fault)?)]),
                channel_key: own,
            },
        );
        let by_last_resort = used_key_packages(&self.message, shared, rows, &mut writes)?;
        group.began(writes, member.sender, now, events)?;
        group.spare_places(foreign);
        group.came_before(came_by);
        if let Some(heritage) = heritage {
            group.inherit(heritage, now, events);
        }
        if by_last_resort {
            // Its keys may be in several groups, and those that open the Welcome stay on this device for a while: our
            // leaf takes fresh ones at the first opportunity (RFC 9750, section 5.1).
            group.wish(Wish::Update).map_err(fault)?;
        }
        Ok(group)
    }

    fn position(&self) -> Position {
        self.info.position
    }
}

/// What the incarnation that could not be followed leaves to the next; none if it does not load.
fn heritage_of<R: Rows>(
    account: &Account,
    shared: &Mls,
    rows: &R,
    name: &GroupUri,
) -> Result<Option<Heritage>, JoinError<R::Error>> {
    match Group::load(account, shared, rows, name) {
        Ok(group) => Ok(group.map(Group::heritage)),
        Err(LoadError::Store(error)) => Err(JoinError::Store(error)),
        Err(_) => Ok(None),
    }
}

/// Finds the private half of the channel key in our leaf. It was stored with the KeyPackage.
pub(crate) fn group_channel_key<R: Rows>(
    mls: &crate::mls_client::MlsGroup,
    rows: &R,
) -> Result<SigningKey, JoinError<R::Error>> {
    let own = mls.member_at_index(mls.current_member_index()).ok_or_else(|| fault("we are no member"))?;
    let public = ChannelKeyExtension::of(&own.extensions).map_err(fault)?;
    let key = [b"channel-key/".as_slice(), &public.0].concat();
    let row = rows
        .get(Room::KEY_PACKAGE, &key)
        .map_err(JoinError::Store)?
        .ok_or_else(|| fault("the channel key of our leaf is not in the profile"))?;
    let bytes: [u8; 32] = row.as_slice().try_into().map_err(|_| RecordError::Damaged)?;
    Ok(SigningKey::from_bytes(&bytes))
}

/// The signature key of the leaf by which a Welcome adds us: that of the KeyPackage, which may be a former one.
pub(crate) fn signer(account: &Account, shared: &Mls, welcome: &MlsMessage) -> Result<SigningKey, MlsError> {
    for reference in welcome.welcome_key_package_references() {
        let Ok(stored) = shared.key_packages.get(reference);
        if let Some(stored) = stored {
            let found = account.signature_key_of(&key_packages::signature_key(&stored)?).cloned();
            return found.ok_or_else(|| {
                fault("this device has forgotten the signature key of the KeyPackage: have it removed and added again")
            });
        }
    }
    Err(fault("the Welcome is for a KeyPackage that this device does not have: have it removed and added again"))
}

/// Ends the private parts of the KeyPackages that a Welcome used. Says whether one is a last resort, which serves again.
pub(crate) fn used_key_packages<R: Rows>(
    welcome: &MlsMessage,
    shared: &Mls,
    rows: &R,
    writes: &mut Vec<Write>,
) -> Result<bool, JoinError<R::Error>> {
    let mut by_last_resort = false;
    for reference in welcome.welcome_key_package_references() {
        let key = [b"package/".as_slice(), reference].concat();
        let stored = rows.get(Room::KEY_PACKAGE, &key).map_err(JoinError::Store)?;
        let stored = stored.map(|row| key_packages::from_row(&row)).transpose()?;
        let last_resort = stored.as_ref().is_some_and(|stored| stored.last_resort);
        // A last resort serves again until it is replaced.
        by_last_resort |= last_resort;
        if !last_resort {
            // The group has its copy.
            let channel_key = stored.map(|stored| [b"channel-key/".as_slice(), &stored.channel_key].concat());
            writes.extend(channel_key.map(|key| Write::Delete { room: Room::KEY_PACKAGE, key }));
            writes.push(Write::Delete { room: Room::KEY_PACKAGE, key });
            shared.key_packages.remove(reference);
        }
    }
    Ok(by_last_resort)
}
