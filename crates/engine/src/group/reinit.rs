//! Making a group anew with another cipher suite or handshake mode: ReInit (RFC 9420, sections 11.2 and 12.1.5; RFC 9750,
//! section 5.2.3).
//!
//! A commit of a ReInit proposal freezes the group: nothing is said in it any more, and what people still want to say waits. Once
//! the commit is settled, so that no annulment can revive the group, any member may make the successor: the first at once, each other a
//! little later, in case those before it are away. Whoever does puts all that others need (the Welcome, the tree, the
//! GroupInfo) as one sealed entry into the old channel. The first such entry that is valid counts, for everybody: so the
//! log itself decides between several, and it does not matter who dies when. The DS learns of the successor's channel from
//! whoever comes first; all would tell it the same.
//!
//! Where members whose KeyPackages are not to be had hold that up, the others may go on without them (`onward`).
//!
//! mls-rs takes no time for the first commit of a successor: it judges the KeyPackages' lifetimes by the system's clock. It is the
//! only place in the engine where one is read.

use std::collections::BTreeMap;

use conclave_channel::{
    Entry, EntryKind, HashWindow, Position,
    access::KeyPath,
    law::{DisputePause, Ledger, SETTLED_MS},
};
use conclave_mls::{
    components::{GroupProfile, HandshakeMode},
    crypto, identity,
    rules::Rules,
    seal::{EXPORTER_LABEL, Seed},
};
use conclave_names::{ChannelId, ClientUri, Epoch, GroupUri, Hash, IdempotencyKey, Seq, Timestamp};
use ed25519_dalek::SigningKey;
use mls_rs::{
    CipherSuite, ExtensionList, MlsMessage, ProtocolVersion,
    extension::ExtensionType,
    external_client::ExternalClient,
    group::{ExportedTree, ReinitClient, proposal::ReInitProposal},
};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize, VarInt};
use zeroize::{Zeroize, Zeroizing};

use super::{
    Group, Status,
    access::{each_member, fault},
    create::Start,
    create::{dated_back, export_key},
    onward::{self, OnwardRow},
    process::Incoming,
    row,
    sealed::body_of,
    standing::{BLIND_MS, Branch, Lost},
    submit::JOINED_SINCE,
    tree::TREE_KEY_LABEL,
};
use crate::{
    intent::{Intent, Wish},
    invitation::{JoinError, group_channel_key, signer, used_key_packages},
    mls_client::{Config, Mls, MlsError, leaf_extensions, mls_time, random, signature_secret, suite},
    outcome::{Event, Outcome, Rejection},
    record::{self, Text},
    stores::GroupRows,
    writes::{Room, Rows, Write},
};

/// How long each member waits for every one that stands before it, before it makes the successor itself, in milliseconds.
const SUCCESSOR_DELAY_MS: u64 = 5000;

/// Members that are waited for.
const SUCCESSOR_RANKS: u64 = 10;

/// What the successor of a group is to be.
#[derive(Debug, Clone)]
pub(super) struct Successor {
    pub(super) name: GroupUri,
    pub(super) suite: CipherSuite,
    pub(super) extensions: ExtensionList,
}

/// A group that was frozen, and what comes after it.
#[derive(Clone, MlsSize, MlsEncode, MlsDecode)]
pub(super) struct Frozen {
    /// The epoch that the commit began.
    pub(super) epoch: Epoch,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    name: Vec<u8>,
    pub(super) suite: u16,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    pub(super) extensions: Vec<u8>,
    /// The entry with the successor that counts, once there is one.
    pub(super) chosen: Option<Seq>,
    /// Whoever made that: it can let in who is not let in by its Welcome.
    maker: Option<Text>,
    /// If it says that members go on without others.
    pub(super) onward: Option<OnwardRow>,
}

impl Frozen {
    pub(super) fn new(epoch: Epoch, proposal: &ReInitProposal) -> Result<Self, MlsError> {
        Ok(Self {
            epoch,
            name: proposal.group_id().to_vec(),
            suite: proposal.new_cipher_suite().into(),
            extensions: proposal.new_group_context_extensions().mls_encode_to_vec().map_err(fault)?,
            chosen: None,
            maker: None,
            onward: None,
        })
    }

    fn name(&self) -> Result<GroupUri, MlsError> {
        std::str::from_utf8(&self.name).ok().and_then(|name| name.parse().ok()).ok_or_else(|| fault("no group's name"))
    }
}

/// What others need to go on in the successor: the plaintext of the entry.
#[derive(MlsSize, MlsEncode, MlsDecode)]
struct Continuation {
    version: u8,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    welcome: Vec<u8>,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    tree: Vec<u8>,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    group_info: Vec<u8>,
}

/// A successor that we made: ours if its entry is the first.
#[derive(MlsSize, MlsEncode, MlsDecode)]
struct Attempt {
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    state: Vec<u8>,
    channel_key: [u8; 32],
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.state.zeroize();
        self.channel_key.zeroize();
    }
}

/// By which the DS makes the channel of a group that goes on in it.
#[derive(Clone)]
pub struct Founding {
    /// The channel.
    pub channel: ChannelId,
    /// The epoch in which it begins.
    pub epoch: Epoch,
    /// Root of the key tree of that epoch.
    pub key_root: Hash,
    /// A member's key, and its path to the root.
    pub key: SigningKey,
    /// The path.
    pub path: KeyPath,
    /// Of a group with visible handshakes: the GroupInfo, with the tree.
    pub group_info: Vec<u8>,
    /// How long a disputed commit waits there.
    pub dispute_pause: DisputePause,
}

impl std::fmt::Debug for Founding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Founding").field("channel", &self.channel).finish_non_exhaustive()
    }
}

/// Keys of the rows that wait for the succession, in [`Room::BLOB`].
const CONTINUATION: &[u8] = b"continuation";
const ATTEMPT: &[u8] = b"attempt";

/// Identity keys by client.
pub(super) fn members_of(tree: &ExportedTree<'_>) -> Result<BTreeMap<ClientUri, [u8; 32]>, MlsError> {
    let (mut members, mut read) = (BTreeMap::new(), Ok(()));
    each_member(tree, |_, signing_identity, _| {
        read = identity::read(signing_identity).map_err(fault).map(|leaf| {
            members.insert(leaf.client().clone(), leaf.identity_key());
        });
        read.is_ok()
    });
    read.map(|()| members)
}

/// How a frozen group goes on, by a valid entry.
pub(super) struct Way {
    /// Whoever says so.
    pub(super) maker: Option<ClientUri>,
    /// If it is without some of its members.
    pub(super) onward: Option<OnwardRow>,
    pub(super) event: Option<Event>,
}

impl Way {
    fn to_successor(frozen: &Frozen, successor: &Continuation) -> Self {
        let event = frozen.name().ok().map(|group| Event::Succeeded { group });
        Self { maker: maker_of(successor), onward: None, event }
    }
}

/// Who made a successor: whoever signed its GroupInfo.
fn maker_of(successor: &Continuation) -> Option<ClientUri> {
    let info = MlsMessage::from_bytes(&successor.group_info).ok()?;
    let (sender, tree) = (info.as_group_info()?.sender(), ExportedTree::from_bytes(&successor.tree).ok()?);
    let leaf = tree.get_leaf(sender.try_into().ok()?).ok()??;
    Some(identity::read(&leaf.signing_identity).ok()?.client().clone())
}

impl Group {
    /// What the group is to become. The ReInit proposal fixes all of it.
    pub(super) fn plan_successor(&self, cipher_suite: u16, visible: bool) -> Result<Successor, MlsError> {
        let new = crypto::suite_by_number(cipher_suite).map_err(fault)?;
        let unable = self.mls.roster().members_iter().find(|member| !member.capabilities.cipher_suites.contains(&new));
        if let Some(unable) = unable {
            let client = super::view::client_of(&unable.signing_identity)?;
            return Err(fault(format!("{client} does not speak cipher suite {cipher_suite}")));
        }
        let provider = suite(self.mls.cipher_suite())?;
        let mode = if visible { HandshakeMode::Visible } else { HandshakeMode::Private };
        let profile = GroupProfile { channel: ChannelId::new(random(&provider)?), mode, ..self.profile.clone() };
        let mut extensions = self.mls.context().extensions.clone();
        extensions.set(profile.to_dictionary().and_then(|dictionary| dictionary.to_extension()).map_err(fault)?);
        if !visible {
            extensions.remove(ExtensionType::EXTERNAL_SENDERS);
        }
        let name = ChannelId::new(random(&provider)?).to_string();
        let name = GroupUri::new(self.profile.hub.clone(), &name).map_err(fault)?;
        Ok(Successor { name, suite: new, extensions })
    }

    /// Whether the group is frozen: it goes on in a successor.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.frozen.is_some() && self.status != Status::Removed
    }

    /// When it is our turn to make the successor, if nobody else does before.
    #[must_use]
    pub fn successor_due(&self) -> Option<Timestamp> {
        let frozen = self.frozen.as_ref().filter(|_| self.status == Status::Active)?;
        let under_way = self.intents.values().any(|intent| intent.wish == Wish::Succeed);
        if under_way || frozen.chosen.is_some() {
            return None;
        }
        let settled = self.settled_from(frozen.epoch)?;
        let turn = settled.plus_ms(self.rank(SUCCESSOR_RANKS) * SUCCESSOR_DELAY_MS);
        Some(self.rests.after(&Wish::Succeed, turn))
    }

    /// From when on an epoch is settled, as far as is known: by the log, or by time alone, where nobody is left who could say that
    /// it applied the commits before. None while one of them is disputed.
    fn settled_from(&self, epoch: Epoch) -> Option<Timestamp> {
        let open = usize::try_from(epoch.0.checked_sub(self.ledger.settled().0)?).ok()?;
        let mut settled = self.window.time();
        for commit in self.ledger.open().get(..open)? {
            if commit.disputed().is_some() {
                return None;
            }
            // Clocks differ.
            settled = settled.max(commit.time.plus_ms(SETTLED_MS + 1 + BLIND_MS));
        }
        Some(settled)
    }

    /// Whose KeyPackages the successor takes, and of which cipher suite: one each.
    ///
    /// # Errors
    /// [`MlsError`] if the group is not frozen.
    pub fn successor_needs(&self) -> Result<(u16, Vec<ClientUri>), MlsError> {
        let frozen = self.frozen.as_ref().ok_or_else(|| fault("the group is not frozen"))?;
        let others = members_of(&self.mls.export_tree())?.into_keys();
        Ok((frozen.suite, others.filter(|client| *client != self.account.client).collect()))
    }

    /// Makes the successor, with KeyPackages of all other members, as an intent: the next submission carries it out.
    ///
    /// # Errors
    /// [`MlsError`] if it is not our turn, or the KeyPackages are not those of the members.
    pub fn make_successor(&mut self, key_packages: &[Vec<u8>], now: Timestamp) -> Result<IdempotencyKey, MlsError> {
        if self.successor_due().is_none_or(|due| due > now) {
            return Err(fault("there is no successor to be made, or not yet"));
        }
        let frozen = self.frozen.clone().ok_or_else(|| fault("the group is not frozen"))?;
        let provider = suite(self.mls.cipher_suite())?;
        let packages = key_packages.iter().map(|bytes| MlsMessage::from_bytes(bytes)).collect::<Result<Vec<_>, _>>()?;
        let channel_key = SigningKey::from_bytes(&random(&provider)?);
        self.write_state()?;
        let apart = self.apart();
        let time = mls_time(dated_back(&self.account, now)?);
        let (mut next, welcomes) = self.reinit_client(&apart, &self.account.signature_key)?.commit(
            packages,
            leaf_extensions(&channel_key)?,
            Some(time),
        )?;
        next.write_to_storage()?;
        let state = apart.groups.state_of(next.group_id()).ok_or_else(|| fault("the state was not written"))?;
        let welcome = match welcomes.first() {
            Some(welcome) => welcome.to_bytes()?,
            // Who is alone needs none.
            None => Vec::new(),
        };
        let visible = GroupProfile::of(&next.context().extensions).map_err(fault)?.mode == HandshakeMode::Visible;
        let continuation = Continuation {
            version: 1,
            welcome,
            tree: next.export_tree().to_bytes()?,
            group_info: next.group_info_message_allowing_ext_commit(visible)?.to_bytes()?,
        };
        let continuation = Zeroizing::new(continuation.mls_encode_to_vec().map_err(fault)?);
        self.check_continuation(&frozen, &continuation)?;
        let mut prepared = self.sealed_entry(EntryKind::Successor, frozen.epoch, continuation.to_vec())?;
        let attempt = Attempt { state: state.to_vec(), channel_key: channel_key.to_bytes() };
        prepared.secrets = record::encode(&attempt);
        self.wish_prepared(Wish::Succeed, prepared)
    }

    /// mls-rs's client for the successor.
    ///
    /// It compares how long the arrays of the two trees are, where the number of members counts (RFC 9420, section 11.2): a group
    /// that has blank leaves could not be made anew. So it gets the old group with its leaves moved together. For nothing else
    /// is that group good.
    fn reinit_client(&self, apart: &Mls, signer: &SigningKey) -> Result<ReinitClient<Config>, MlsError> {
        let group_id = self.mls.group_id().to_vec();
        let state = self.shared.groups.state_of(&group_id).ok_or_else(|| fault("the state was not written"))?;
        let tree = self.mls.export_tree();
        let exported = tree.to_bytes()?;
        let mut nodes = Vec::new();
        for index in 0..tree.total_leaf_count() {
            let Some(leaf) = tree.get_leaf(index.try_into()?)? else { continue };
            if !nodes.is_empty() {
                nodes.push(0);
            }
            nodes.extend([1, 1]);
            leaf.mls_encode(&mut nodes).map_err(fault)?;
        }
        let mut compact = VarInt::try_from(nodes.len()).map_err(fault)?.mls_encode_to_vec().map_err(fault)?;
        compact.append(&mut nodes);
        let mut places = state.windows(exported.len()).enumerate().filter(|(_, window)| *window == exported.as_slice());
        let (Some((place, _)), None) = (places.next(), places.next()) else {
            return Err(fault("the group's tree is not where mls-rs keeps it"));
        };
        let (before, rest) = state.split_at(place);
        let after = rest.get(exported.len()..).unwrap_or_default();
        let state = Zeroizing::new([before, compact.as_slice(), after].concat());
        apart.groups.load(&group_id, GroupRows { state, ..GroupRows::default() });
        let old = apart.client(&self.account, self.mls.cipher_suite()).load_group(&group_id)?;
        Ok(old.get_reinit_client(Some(signature_secret(signer)), Some(self.account.signing_identity()))?)
    }

    /// Stores of its own for groups, so that those that are open stay as they are.
    fn apart(&self) -> Mls {
        Mls { key_packages: self.shared.key_packages.clone(), ..self.shared.apart() }
    }

    /// What everybody can check of a successor, with the same result.
    fn check_continuation(&self, frozen: &Frozen, bytes: &[u8]) -> Result<Continuation, MlsError> {
        let mut rest = bytes;
        let continuation = Continuation::mls_decode(&mut rest).map_err(fault)?;
        if !rest.is_empty() || continuation.version != 1 {
            return Err(fault("it is of another version, or something follows it"));
        }
        let info = MlsMessage::from_bytes(&continuation.group_info)?;
        let of = info.as_group_info().ok_or_else(|| fault("it has no GroupInfo"))?.group_context();
        let extensions = of.extensions().mls_encode_to_vec().map_err(fault)?;
        let suite: u16 = of.cipher_suite().into();
        if of.group_id() != frozen.name || of.epoch() != 1 || suite != frozen.suite || extensions != frozen.extensions {
            return Err(fault("it is not the group that the ReInit announced"));
        }
        let tree = || ExportedTree::from_bytes(&continuation.tree);
        // Each leaf's credential was judged when its KeyPackage was taken; lifetimes are not judged again.
        ExternalClient::builder()
            .crypto_provider(crypto::provider())
            .identity_provider(self.shared.identities.clone())
            .mls_rules(Rules)
            .build()
            .observe_group(info, Some(tree()?), None)?;
        if members_of(&tree()?)? != members_of(&self.mls.export_tree())? {
            return Err(fault("its members are not those of this group"));
        }
        Ok(continuation)
    }

    /// An entry with a successor. The first valid one counts.
    pub(super) fn choose_successor(&mut self, entry: &Entry, incoming: &Incoming, events: &mut Vec<Event>) -> Outcome {
        let Some(frozen) = self.frozen.clone() else { return Outcome::Rejected(Rejection::Mismatch) };
        let own = self.intents.iter().find(|(_, intent)| {
            intent.wish == Wish::Succeed
                && intent.prepared.as_ref().is_some_and(|prepared| prepared.entry == incoming.entry)
        });
        let attempt = own.and_then(|(_, intent)| intent.prepared.as_ref()).map(|prepared| prepared.secrets.clone());
        let own = own.map(|(order, _)| *order);
        let opened = body_of(entry, incoming).and_then(|sealed| self.unseal(entry, sealed));
        let checked = opened.and_then(|bytes| {
            let checked = if onward::is_one(&bytes) {
                self.check_onward(&frozen, &bytes, incoming.time)
            } else {
                self.check_continuation(&frozen, &bytes).map(|successor| Way::to_successor(&frozen, &successor))
            };
            checked.map(|way| (bytes, way)).map_err(|error| Rejection::Mls(error.to_string()))
        });
        let (bytes, way) = match checked {
            Ok(checked) => checked,
            Err(rejection) => return Outcome::Rejected(rejection),
        };
        if self.ledger.settled() < frozen.epoch {
            // The commit that froze the group may yet be annulled. If it is ours, our clock is far ahead.
            if let Some(order) = own {
                self.drop_intent(order);
            }
            return Outcome::Rejected(Rejection::Early);
        }
        let mut keep = |key: &[u8], value| {
            self.writes.push(Write::Put { room: Room::BLOB, key: row::key(&self.name, key), value });
        };
        let confirmed = attempt.is_some();
        if way.onward.is_none() {
            keep(CONTINUATION, Zeroizing::new(bytes));
            if let Some(attempt) = attempt {
                keep(ATTEMPT, attempt);
            }
        }
        let ours: Vec<u64> =
            self.intents.iter().filter(|(_, of)| of.wish == Wish::Succeed).map(|(order, _)| *order).collect();
        for order in ours {
            self.drop_intent(order);
        }
        events.extend(way.event);
        let maker = way.maker.map(Text::new);
        self.frozen = Some(Frozen { chosen: Some(incoming.seq), maker, onward: way.onward, ..frozen });
        self.touched = true;
        if confirmed { Outcome::Confirmed } else { Outcome::Applied }
    }

    /// Whether there is a successor to go on in, by [`Group::succeed`].
    #[must_use]
    pub fn has_successor(&self) -> bool {
        self.status == Status::Active && self.frozen.as_ref().is_some_and(|frozen| frozen.chosen.is_some())
    }

    /// Goes on in the successor: history and what is still wished go over, every key of this group goes. The writes of
    /// both groups belong into one transaction. Events tell of wishes that cannot go over. None if this client is in the successor
    /// already: it was removed from it meanwhile and added again. This group has ended then.
    ///
    /// # Errors
    /// [`JoinError::Store`] is transient. By any other this client does not get into the successor by itself ([`Group::left_out`]).
    pub fn succeed<R: Rows>(
        &mut self,
        rows: &R,
        now: Timestamp,
        events: &mut Vec<Event>,
    ) -> Result<Option<Self>, JoinError<R::Error>> {
        let frozen = self.frozen.clone().filter(|frozen| frozen.chosen.is_some());
        let frozen = frozen.ok_or_else(|| fault("there is no successor"))?;
        let blob =
            |key: &[u8]| crate::pieces::get(rows, &row::key(&self.name, b""), Room::BLOB, &row::key(&self.name, key));
        let continuation = blob(CONTINUATION)?.ok_or_else(|| fault("the successor's Welcome is not in the profile"))?;
        let continuation = self.check_continuation(&frozen, &continuation)?;
        let (name, new_suite) = (frozen.name()?, crypto::suite_by_number(frozen.suite).map_err(fault)?);
        let mut writes = Vec::new();
        let incarnation = match row::incarnation(rows, &name)? {
            None => 0,
            Some(earlier) if earlier.void => {
                row::delete_rows(rows, &name, &mut writes)?;
                earlier.number.saturating_add(1)
            }
            Some(_) => {
                for event in self.end() {
                    self.tell(event, now, events);
                }
                self.succeeded_by(name);
                return Ok(None);
            }
        };
        let (state, own) = if let Some(attempt) = blob(ATTEMPT)? {
            let attempt: Attempt = record::decode(&attempt)?;
            (Zeroizing::new(attempt.state.clone()), Some(SigningKey::from_bytes(&attempt.channel_key)))
        } else {
            self.write_state()?;
            let apart = self.apart();
            let welcome = MlsMessage::from_bytes(&continuation.welcome).map_err(MlsError::from)?;
            let tree = ExportedTree::from_bytes(&continuation.tree).map_err(MlsError::from)?;
            let signer = signer(&self.account, &self.shared, &welcome)?;
            let joined = self.reinit_client(&apart, &signer)?.join(&welcome, Some(tree), None);
            let (mut next, _) = joined.map_err(MlsError::from)?;
            next.write_to_storage().map_err(MlsError::from)?;
            let _ = self.shared.key_packages.drain();
            used_key_packages(&welcome, &self.shared, rows, &mut writes)?;
            let state = apart.groups.state_of(next.group_id()).ok_or_else(|| fault("the state was not written"))?;
            (state, None)
        };
        let group_id = name.to_string().into_bytes();
        self.shared.groups.load(&group_id, GroupRows { state, ..GroupRows::default() });
        let client = self.shared.client(&self.account, new_suite);
        let mls = client.load_group(&group_id).map_err(MlsError::from)?;
        let own = own.map_or_else(|| group_channel_key(&mls, rows), Ok)?;
        let profile = GroupProfile::of(&mls.context().extensions).map_err(fault)?;
        let export = |label| -> Result<BTreeMap<Epoch, Seed>, MlsError> {
            Ok(BTreeMap::from([(Epoch(1), export_key(&mls, label, &profile.channel)?)]))
        };
        let (seeds, tree_keys) = (export(EXPORTER_LABEL)?, export(TREE_KEY_LABEL)?);
        let tree = super::access::Keys::of(&mls)?.tree;
        let start = Start {
            name: name.clone(),
            incarnation,
            window: HashWindow::new(Position::start(&profile.channel), Timestamp(0)),
            ledger: Ledger::new(Epoch(1), tree.root(), tree.len()).with_pause(profile.dispute_pause),
            profile,
            commit: None,
            epoch: Epoch(1),
            seeds,
            tree_keys,
            channel_key: own,
        };
        let mut next = Self::start(&self.account, &self.shared, mls, start);
        next.succeeds(self, continuation.group_info, writes, now);
        self.tell_what_stays(now, events);
        self.succeeded_by(name);
        Ok(Some(next))
    }

    /// Begins as a successor.
    fn succeeds(&mut self, old: &Self, group_info: Vec<u8>, writes: Vec<Write>, now: Timestamp) {
        self.writes = writes;
        self.refreshed = super::refresh::Refreshed::new(now);
        self.descends_from(old);
        self.founding = Some(if self.is_visible() { group_info } else { Vec::new() });
        let suite = self.mls.cipher_suite();
        for (order, intent) in old.intents.iter().filter(|(_, intent)| old.goes_over(intent, suite).is_ok()) {
            self.take_over(*order, intent.clone(), Epoch(1));
        }
    }

    /// Whether a wish goes over to the successor, or else what its user is to be told, if anything.
    pub(super) fn goes_over(&self, intent: &Intent, suite: CipherSuite) -> Result<(), Option<String>> {
        match &intent.wish {
            Wish::Send { .. } if self.last_added > intent.wished => Err(Some(JOINED_SINCE.to_owned())),
            Wish::Send { .. } | Wish::Remove { .. } | Wish::Leave => Ok(()),
            Wish::Add { .. } if suite == self.mls.cipher_suite() => Ok(()),
            Wish::Add { .. } => Err(Some(format!(
                "the group was made anew with cipher suite {}, of which the new members' keys are not: add them again",
                u16::from(suite)
            ))),
            Wish::ReInit { .. } => {
                Err(Some("another member has made the group anew meanwhile: look at what it is now".to_owned()))
            }
            // What is about the old group's keys is done, or makes no sense.
            _ => Err(None),
        }
    }

    /// Tells of wishes that do not go over.
    fn tell_what_stays(&mut self, now: Timestamp, events: &mut Vec<Event>) {
        let Some(suite) = self.frozen.as_ref().and_then(|frozen| crypto::suite_by_number(frozen.suite).ok()) else {
            return;
        };
        let stays = |intent: &Intent| Some((intent.id, self.goes_over(intent, suite).err()??));
        let told: Vec<_> = self.intents.values().filter_map(stays).collect();
        for (intent, reason) in told {
            self.tell(Event::IntentFailed { intent, reason }, now, events);
        }
    }

    /// Ends, as the group goes on under another name.
    pub(super) fn succeeded_by(&mut self, name: GroupUri) {
        for order in self.intents.keys().copied().collect::<Vec<_>>() {
            self.drop_intent(order);
        }
        self.drop_continuation();
        self.successor = Some(name);
        self.frozen = None;
        self.status = Status::Removed;
        self.forget_all();
    }

    /// Takes note that we cannot go on in the successor: by what whoever made it sent, we do not get in. Its tree has a leaf for us, of
    /// which we have no key: as after a succession that we could not follow, its members are asked to replace it (`anew`).
    pub fn left_out(&mut self, reason: &str) -> Vec<Event> {
        let reason = format!(
            "the group goes on without this client ({reason}): it asks members to let it into the group that it has become; if none does \
             within a day, have a member remove this client there and add it again"
        );
        let seq = self.window.position().seq;
        let frozen = self.frozen.take();
        let maker = frozen.as_ref().and_then(|frozen| frozen.maker.as_ref()?.parse().ok());
        self.ask_first = maker;
        let chosen = frozen.and_then(|frozen| frozen.chosen).unwrap_or(seq);
        let lost = Lost::settled(chosen, Hash::new([0; 32]), reason.clone(), Branch::None);
        self.lost = Some(Lost { anew: Some(self.ledger.epoch()), ..lost });
        self.status = Status::Stuck { reason: reason.clone() };
        self.touched = true;
        self.drop_continuation();
        self.knock_soon();
        let stuck = Event::Stuck { seq, reason };
        self.note(&stuck, seq, self.window.time());
        vec![stuck]
    }

    /// Deletes what waited for the succession.
    pub(super) fn drop_continuation(&mut self) {
        for key in [CONTINUATION, ATTEMPT] {
            self.writes.push(Write::Delete { room: Room::BLOB, key: row::key(&self.name, key) });
        }
    }

    /// By what the DS makes this group's channel, if it may not have done so yet. All members say the same.
    ///
    /// # Errors
    /// [`MlsError`] never in practice.
    pub fn founding(&self) -> Result<Option<Founding>, MlsError> {
        let Some(group_info) = self.founding.as_ref().filter(|_| self.status != Status::Removed) else {
            return Ok(None);
        };
        let access = self.access()?;
        let key_root = self.keys()?.tree.root();
        let (channel, epoch, group_info) = (access.channel, access.epoch, group_info.clone());
        let dispute_pause = self.profile.dispute_pause;
        Ok(Some(Founding { channel, epoch, key_root, key: access.key, path: access.path, group_info, dispute_pause }))
    }

    /// Takes note that the DS has the channel.
    pub fn founded(&mut self) {
        self.founding = None;
        self.touched = true;
        if self.lost.take().is_some() {
            // It said otherwise before.
            self.status = Status::Active;
        }
    }

    /// The group that this one goes on from.
    #[must_use]
    pub fn predecessor(&self) -> Option<&GroupUri> {
        self.predecessor.as_ref()
    }

    /// The version of MLS that successors have.
    pub(super) const fn successor_version() -> ProtocolVersion {
        ProtocolVersion::MLS_10
    }
}
