//! Making a group.

use std::collections::{BTreeMap, BTreeSet};

use conclave_channel::{
    HashWindow, Position,
    law::{DisputePause, Ledger},
    receipt::ReceiptKey,
};
use conclave_mls::{
    components::GroupProfile,
    credential::LeafCertificate,
    crypto,
    seal::{EXPORTER_LABEL, SEED_LEN, Seed},
};
use conclave_names::{ChannelId, Domain, Epoch, GroupUri, Hash, RoomUri, Timestamp, code_points};
use ed25519_dalek::SigningKey;
use mls_rs::{
    CipherSuite,
    extension::{ExtensionType, built_in::RequiredCapabilitiesExt},
    identity::CredentialType,
};

use super::{
    Group, Handshakes, Status,
    access::{Keys, fault},
    journal::Journal,
    knock::Knocking,
    presence::Presence,
    refresh::Refreshed,
    row,
    tree::{Known, TREE_KEY_LABEL},
    withdrawn::Withdrawn,
};
use crate::{
    account::Account,
    mls_client::{Mls, MlsError, MlsGroup, leaf_extensions, mls_time, random, suite},
    outcome::Event,
    pieces::Pieces,
    writes::Write,
};

/// What a new group is to be.
#[derive(Debug, Clone)]
pub struct NewGroup {
    /// The provider whose DS will order its messages.
    pub hub: Domain,
    /// The key by which that DS signs receipts, as it says itself.
    pub receipt_key: ReceiptKey,
    /// What people call it.
    pub title: String,
    /// Its cipher suite; [`crypto::DEFAULT_SUITE`] unless there is a reason.
    pub cipher_suite: CipherSuite,
    /// Whether its DS reads commits and proposals; [`Handshakes::Private`] unless there is a reason.
    pub handshakes: Handshakes,
    /// How long a disputed commit waits until it is annulled.
    pub dispute_pause: DisputePause,
}

/// The group seed of an epoch that renews it.
pub(crate) fn export_seed(mls: &MlsGroup, channel: &ChannelId) -> Result<Seed, MlsError> {
    export_key(mls, EXPORTER_LABEL, channel)
}

/// A key of the group that is derived from an epoch.
pub(super) fn export_key(mls: &MlsGroup, label: &[u8], channel: &ChannelId) -> Result<Seed, MlsError> {
    let secret = mls.export_secret(label, channel.as_ref(), SEED_LEN)?;
    Seed::from_slice(secret.as_bytes()).map_err(fault)
}

/// An hour ago, for clocks of others that run behind (the DS of a visible group judges the leaf), but not before the
/// certificate began.
pub(super) fn dated_back(account: &Account, now: Timestamp) -> Result<Timestamp, MlsError> {
    let certificate = LeafCertificate::parse(&account.certificate).map_err(fault)?;
    Ok(Timestamp(now.0.saturating_sub(3_600_000)).max(certificate.not_before()))
}

/// What a group starts from.
pub(crate) struct Start {
    pub(crate) name: GroupUri,
    pub(crate) incarnation: u64,
    pub(crate) profile: GroupProfile,
    pub(crate) window: HashWindow,
    pub(crate) ledger: Ledger,
    /// The commit that added us; none in a group that is founded.
    pub(crate) commit: Option<Hash>,
    pub(crate) epoch: Epoch,
    pub(crate) seeds: BTreeMap<Epoch, Seed>,
    pub(crate) tree_keys: BTreeMap<Epoch, Seed>,
    pub(crate) channel_key: SigningKey,
}

impl Group {
    /// Makes a group with this client as its only member. The channel does not exist until the shell has created it
    /// with [`Group::key_root`] (and [`Group::first_group_info`]); only then should the group be made durable.
    ///
    /// # Errors
    /// [`MlsError`] for an unsupported suite or an over-long title.
    pub fn create(account: &Account, shared: &Mls, new: NewGroup, now: Timestamp) -> Result<Self, MlsError> {
        let id = random(&suite(new.cipher_suite)?)?;
        Self::create_as(account, shared, new, id, now)
    }

    /// [`create`](Self::create) with an id that the caller has chosen. When members do what can wait depends on it, so
    /// that a simulation repeats itself only with the same ids. No two groups may have the same.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_as(
        account: &Account,
        shared: &Mls,
        new: NewGroup,
        id: [u8; 16],
        now: Timestamp,
    ) -> Result<Self, MlsError> {
        if new.title.len() > GroupProfile::TITLE_MAX {
            return Err(fault(format!("a title has at most {} bytes", GroupProfile::TITLE_MAX)));
        }
        crypto::suite_by_number(new.cipher_suite.into()).map_err(fault)?;
        let provider = suite(new.cipher_suite)?;
        let hex = |bytes: [u8; 16]| ChannelId::new(bytes).to_string();
        let name = GroupUri::new(new.hub.clone(), &hex(id)).map_err(fault)?;
        let profile = GroupProfile {
            room: RoomUri::new(new.hub.clone(), &hex(random(&provider)?)).map_err(fault)?,
            hub: new.hub,
            channel: ChannelId::new(random(&provider)?),
            receipt_key: new.receipt_key,
            mode: new.handshakes.mode(),
            title: new.title,
            dispute_pause: new.dispute_pause,
        };
        let mut context = mls_rs::ExtensionList::new();
        context.set(profile.to_dictionary().and_then(|dictionary| dictionary.to_extension()).map_err(fault)?);
        context
            .set_from(RequiredCapabilitiesExt::new(
                vec![
                    ExtensionType::new(code_points::EXTENSION_APP_DATA_DICTIONARY),
                    ExtensionType::new(code_points::EXTENSION_CHANNEL_KEY),
                ],
                Vec::new(),
                vec![CredentialType::X509],
            ))
            .map_err(fault)?;
        new.handshakes.extend(&mut context, &shared.identities, now)?;
        Self::create_with((account, shared), name, profile, context, new.cipher_suite, now)
    }

    /// The same by a profile, and a GroupContext that has it.
    pub(super) fn create_with(
        (account, shared): (&Account, &Mls),
        name: GroupUri,
        profile: GroupProfile,
        context: mls_rs::ExtensionList,
        cipher_suite: CipherSuite,
        now: Timestamp,
    ) -> Result<Self, MlsError> {
        let channel_key = SigningKey::from_bytes(&random(&suite(cipher_suite)?)?);
        let mls = shared.client(account, cipher_suite).create_group_with_id(
            name.to_string().into_bytes(),
            context,
            leaf_extensions(&channel_key)?,
            Some(mls_time(dated_back(account, now)?)),
        )?;
        let seed = export_seed(&mls, &profile.channel)?;
        let tree_key = export_key(&mls, TREE_KEY_LABEL, &profile.channel)?;
        let tree = Keys::of(&mls)?.tree;
        let start = Start {
            name,
            incarnation: 0,
            window: HashWindow::new(Position::start(&profile.channel), Timestamp(0)),
            ledger: Ledger::new(Epoch(0), tree.root(), tree.len()).with_pause(profile.dispute_pause),
            profile,
            commit: None,
            epoch: Epoch(0),
            seeds: BTreeMap::from([(Epoch(0), seed)]),
            tree_keys: BTreeMap::from([(Epoch(0), tree_key)]),
            channel_key,
        };
        let mut group = Self::start(account, shared, mls, start);
        group.refreshed = Refreshed::new(now);
        Ok(group)
    }

    /// The root of the key tree of the present epoch.
    ///
    /// # Errors
    /// [`MlsError`] if a leaf has no channel key, which no admitted leaf lacks.
    pub fn key_root(&self) -> Result<Hash, MlsError> {
        Ok(self.keys()?.tree.root())
    }

    /// A group that was just made or joined.
    pub(crate) fn start(account: &Account, shared: &Mls, mls: MlsGroup, start: Start) -> Self {
        let pieces = Pieces::none(row::prefix(&start.name));
        Self {
            name: start.name,
            incarnation: start.incarnation,
            profile: start.profile,
            status: Status::Active,
            mls,
            hashes_saved: start.window.position().seq,
            window: start.window,
            ledger: start.ledger,
            past: Vec::new(),
            emptied: false,
            frozen: None,
            hasty: None,
            successor: None,
            predecessor: None,
            founding: None,
            parents: Vec::new(),
            lost: None,
            removed_at: None,
            skipped: None,
            receipts: BTreeMap::new(),
            withheld: BTreeSet::new(),
            joined_by: start.commit,
            joined_at: None,
            came_by: start.commit.into_iter().collect(),
            void: false,
            saved: None,
            unsaved_proposals: false,
            vets: false,
            read_to_end: None,
            unable: None,
            joined: start.epoch,
            signs_since: start.epoch,
            last_added: start.epoch,
            seeds: start.seeds,
            tree_keys: start.tree_keys,
            tree_names: Known::default(),
            keys: std::sync::OnceLock::new(),
            // Whoever joins another's group finds its tree at the DS.
            offers_whole_tree: start.commit.is_none(),
            channel_keys: vec![start.channel_key],
            former_leaves: Vec::new(),
            intents: BTreeMap::new(),
            generations: super::generations::Generations::default(),
            branches: super::fork::Branches::default(),
            early: super::early::Early::new(shared.early.clone()),
            elsewhere: super::elsewhere::Elsewhere::default(),
            kept: None,
            foreign_intents: BTreeSet::new(),
            summary: Vec::new(),
            heard: BTreeSet::new(),
            speakers: super::speakers::Speakers::default(),
            left_out: super::left_out::LeftOut::default(),
            done: BTreeMap::new(),
            annulments: Vec::new(),
            withdrawn: Withdrawn::default(),
            overtaken: super::overtaken::Overtaken::default(),
            unread: super::proposals::Unread::default(),
            proposed_at: None,
            refreshed: Refreshed::new(Timestamp(0)),
            rests: super::rest::Rests::default(),
            ways: Box::default(),
            presence: Presence::default(),
            unconfirmed: BTreeMap::new(),
            knocking: Knocking::default(),
            returned: None,
            old_leaves: Vec::new(),
            asked_with: Vec::new(),
            answered: BTreeMap::new(),
            present: BTreeMap::new(),
            lineage: super::anew::Lineage::default(),
            ask_first: None,
            asked_about: None,
            beside: None,
            gaps: super::gap::Gaps::default(),
            account: account.clone(),
            shared: shared.clone(),
            writes: Vec::new(),
            pieces,
            journal: Journal::default(),
            counted: None,
            dirty: true,
            touched: false,
            unusable: false,
        }
    }

    /// Notes the beginning of a joined group, and what else must become durable with it.
    pub(crate) fn began(
        &mut self,
        writes: Vec<Write>,
        sender: u32,
        now: Timestamp,
        events: &mut Vec<Event>,
    ) -> Result<(), MlsError> {
        self.writes = writes;
        self.refreshed = Refreshed::new(now);
        self.presence = Presence::of_joiner(self.window.position().seq.next(), now);
        let event = Event::Joined { by: self.client_at(sender)?, epoch: self.epoch() };
        // Where the committer stood; the commit that added us came next, or soon after.
        self.note(&event, self.window.position().seq.next(), now);
        events.push(event);
        Ok(())
    }
}
