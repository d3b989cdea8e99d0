//! A group's rows in the store.

use conclave_channel::{HashWindow, Position, access::ChannelKey, law::Ledger, receipt::Receipt};
use conclave_mls::{components::GroupProfile, seal::Seed};
use conclave_names::{Epoch, GroupUri, Hash, Seq, Timestamp};
use ed25519_dalek::SigningKey;
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};
use zeroize::Zeroize;

use super::{
    Group, Status,
    again::{self, Annulment, DONE},
    confirmed::{UNCONFIRMED, added_at, client_of_key},
    hashes,
    hasty::{Hasty, HastyRow},
    journal::Journal,
    knock::{self, ANSWERED, KNOCKING, OLD_LEAVES},
    misled::{Ways, WaysRow},
    overtaken::{OVERTAKEN, Overtaken},
    presence::Presence,
    prune::Past,
    refresh::Refreshed,
    reinit::Frozen,
    rest::{Rest, Rests},
    standing::{Branch, Lost, Parent},
    step::{STEP, StepRow},
    summary,
    withdrawn::{WITHDRAWN, Withdrawn},
};
use crate::{
    account::Account,
    intent::Intent,
    mls_client::{Mls, MlsError, suite},
    pieces::{self, Pieces},
    record::{self, RecordError, Text},
    stores::GroupRows,
    writes::{Room, Rows, Write},
};

/// Why a group cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError<E> {
    /// The store failed. The group may be there all the same.
    #[error("the profile's store failed: {0}")]
    Store(E),
    /// A row is damaged or of a later version.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The MLS state does not load.
    #[error(transparent)]
    Mls(#[from] MlsError),
}

#[derive(MlsSize, MlsEncode, MlsDecode)]
struct SeedRow {
    epoch: Epoch,
    seed: [u8; 32],
}

#[derive(MlsSize, MlsEncode, MlsDecode)]
struct ParentRow {
    commit: Seq,
    ended: Epoch,
    at: Epoch,
    astray: bool,
    last_added: Epoch,
    joined: Epoch,
    joined_by: Option<Hash>,
    joined_at: Option<Seq>,
    signs_since: Epoch,
    spent: u32,
    proposed_at: Option<Timestamp>,
    added: Vec<Text>,
    removed: Vec<Text>,
    renews: bool,
}

#[derive(MlsSize, MlsEncode, MlsDecode)]
struct LostRow {
    commit: Seq,
    hash: Hash,
    reason: Text,
    certain: bool,
    told: bool,
    settled: bool,
    nacked: Option<Timestamp>,
    branch: u8,
    anew: Option<Epoch>,
    word: Option<Hash>,
}

#[derive(MlsSize, MlsEncode, MlsDecode)]
struct Row {
    incarnation: u64,
    suite: u16,
    status: u8,
    reason: Text,
    epoch: Epoch,
    /// The epoch of the MLS state in the store: that one, or the one before it.
    state: Epoch,
    step: Option<StepRow>,
    members: u32,
    position: Position,
    time: Timestamp,
    joined: Epoch,
    signs_since: Epoch,
    last_added: Epoch,
    proposed_at: Option<Timestamp>,
    refreshed: Refreshed,
    rests: Vec<Rest>,
    ways: WaysRow,
    presence: Presence,
    seeds: Vec<SeedRow>,
    tree_keys: Vec<SeedRow>,
    offers_whole_tree: bool,
    channel_keys: Vec<[u8; 32]>,
    former_leaves: Vec<ChannelKey>,
    ledger: Ledger,
    parents: Vec<ParentRow>,
    annulments: Vec<Annulment>,
    lost: Option<LostRow>,
    receipts: Vec<Receipt>,
    withheld: Vec<Seq>,
    skipped: Option<Seq>,
    removed_at: Option<Seq>,
    returned: Option<Seq>,
    joined_by: Option<Hash>,
    joined_at: Option<Seq>,
    came_by: Vec<Hash>,
    void: bool,
    past: Vec<Past>,
    emptied: bool,
    frozen: Option<Frozen>,
    hasty: Option<HastyRow>,
    predecessor: Option<Text>,
    ask_first: Option<Text>,
    asked_about: Option<Text>,
    founding: Option<FoundingRow>,
}

#[derive(MlsSize, MlsEncode, MlsDecode)]
struct FoundingRow(#[mls_codec(with = "mls_rs_codec::byte_vec")] Vec<u8>);

impl Drop for Row {
    fn drop(&mut self) {
        self.seeds.iter_mut().chain(&mut self.tree_keys).for_each(|seed| seed.seed.zeroize());
        self.channel_keys.iter_mut().for_each(Zeroize::zeroize);
    }
}

fn seed_rows(keys: &std::collections::BTreeMap<Epoch, Seed>) -> Vec<SeedRow> {
    keys.iter().map(|(epoch, seed)| SeedRow { epoch: *epoch, seed: *seed.expose() }).collect()
}

/// Key of a row of one group: the group's name, a zero byte (which no name has), and what follows.
pub(super) fn key(group: &GroupUri, rest: &[u8]) -> Vec<u8> {
    let mut key = group.to_string().into_bytes();
    key.push(0);
    key.extend_from_slice(rest);
    key
}

const META: &[u8] = b"meta";

/// How the keys of these rows end.
pub(crate) const META_END: &[u8] = b"\0meta";

/// Rooms with rows that may be long.
const PIECED: [Room; 4] = [Room::GROUP, Room::EPOCH, Room::INTENT, Room::BLOB];

/// What the keys of a group's rows begin with.
pub(super) fn prefix(group: &GroupUri) -> Vec<u8> {
    key(group, b"")
}

/// The row of an MLS state. Those of earlier epochs stay while the commit that ended them is open.
pub(super) fn state_key(group: &GroupUri, incarnation: u64, epoch: Epoch) -> Vec<u8> {
    key(group, &[b"state".as_slice(), &incarnation.to_be_bytes(), &epoch.0.to_be_bytes()].concat())
}

pub(super) fn epoch_key(group: &GroupUri, incarnation: u64, epoch: u64) -> Vec<u8> {
    key(group, &[incarnation.to_be_bytes(), epoch.to_be_bytes()].concat())
}

/// The entry that the key of a row names after a prefix: the epoch that it is of, and its hash.
pub(super) fn entry_named(prefix: &[u8], key: &[u8]) -> Result<(Epoch, Hash), RecordError> {
    let name = key.strip_prefix(prefix).and_then(<[u8]>::split_first_chunk);
    let (epoch, hash) = name.ok_or(RecordError::Damaged)?;
    Ok((Epoch(u64::from_be_bytes(*epoch)), Hash::try_from(hash).map_err(|_| RecordError::Damaged)?))
}

/// A group that is in the store.
pub(crate) struct Incarnation {
    pub(crate) number: u64,
    pub(crate) status: Status,
    /// How far its channel was read.
    pub(crate) place: Seq,
    /// The commits by which it was come to: no invitation of theirs is taken up again.
    pub(crate) came_by: Vec<Hash>,
    /// The epoch that an invitation must be newer than.
    pub(crate) epoch: Epoch,
    /// Whether it could not apply a commit of which it is not decided yet whether it stands.
    pub(crate) undecided: bool,
    /// Whether it came of an invitation that was annulled.
    pub(crate) void: bool,
}

/// The incarnation of a group that is in the store, if it is.
pub(crate) fn incarnation<R: Rows>(rows: &R, name: &GroupUri) -> Result<Option<Incarnation>, LoadError<R::Error>> {
    let Some(meta) = rows.get(Room::GROUP, &key(name, META)).map_err(LoadError::Store)? else { return Ok(None) };
    let row: Row = record::decode(&meta)?;
    // The epochs of a void invitation may begin anew, by another commit: that which added us, and those before it that were
    // annulled with it.
    // Whose place is in another branch of the group, or whose epoch is void without its knowing, is let in again in an epoch that it may have
    // been in; also in the one in which it joined, or one before that, if what added it may have been annulled.
    let status = summary::from_code(row.status, &row.reason)?;
    let epoch = match &status {
        _ if row.void => row.ledger.settled(),
        // So may who gave that up.
        Status::Active => row.epoch,
        Status::Removed if row.lost.is_none() => row.epoch,
        _ if row.joined_by.is_some() => row.joined.min(row.ledger.settled()),
        _ => row.joined,
    };
    let open = |lost: &LostRow| {
        matches!(status, Status::Stuck { .. })
            && lost.certain
            && !lost.settled
            && row.ledger.find(lost.commit).is_some()
    };
    let undecided = row.lost.as_ref().is_some_and(open);
    let (place, came_by) = (row.position.seq, row.came_by.clone());
    Ok(Some(Incarnation { number: row.incarnation, status, place, came_by, epoch, undecided, void: row.void }))
}

/// Commits by which we came that are remembered: an invitation of an earlier one is too old by its epoch.
const WAYS_REMEMBERED: usize = 32;

impl Group {
    /// Remembers by which commits earlier incarnations came.
    pub(crate) fn came_before(&mut self, mut earlier: Vec<Hash>) {
        earlier.append(&mut self.came_by);
        self.came_by = earlier;
        self.forget_ways();
    }

    /// Keeps the newest ways only.
    pub(super) fn forget_ways(&mut self) {
        let over = self.came_by.len().saturating_sub(WAYS_REMEMBERED);
        self.came_by.drain(..over);
    }
}

/// Deletes every row of an earlier incarnation, whose keys are of no use any more, but for changes under way of kinds that this version
/// does not know: a later version began them. Gives their places.
pub(crate) fn delete_rows<R: Rows>(
    rows: &R,
    name: &GroupUri,
    writes: &mut Vec<Write>,
) -> Result<std::collections::BTreeSet<u64>, LoadError<R::Error>> {
    let intents = match pieces::scan(rows, &key(name, b""), Room::INTENT, &key(name, b"")) {
        Err(LoadError::Store(error)) => return Err(LoadError::Store(error)),
        // What is damaged goes with the rest.
        found => found.unwrap_or_default(),
    };
    for room in [Room::GROUP, Room::EPOCH, Room::LOG, Room::INTENT, Room::USED, Room::SUMMARY, Room::BLOB] {
        for (key, _) in rows.scan(room, &key(name, b"")).map_err(LoadError::Store)? {
            writes.push(Write::Delete { room, key });
        }
    }
    pieces::delete(rows, &key(name, b""), &PIECED, writes)?;
    let mut foreign = std::collections::BTreeSet::new();
    for (key, value) in intents {
        if let (Ok(None), Some(order)) = (Intent::from_row(&value), key.last_chunk()) {
            foreign.insert(u64::from_be_bytes(*order));
            writes.push(Write::Put { room: Room::INTENT, key, value });
        }
    }
    Ok(foreign)
}

impl Group {
    /// Opens a group of the profile. None: there is no such group, or we are no member any more and its keys are gone; then
    /// [`super::list`] has it.
    ///
    /// # Errors
    /// Any [`LoadError`]; a store that fails is never taken for a group that is not there.
    pub fn load<R: Rows>(
        account: &Account,
        shared: &Mls,
        rows: &R,
        name: &GroupUri,
    ) -> Result<Option<Self>, LoadError<R::Error>> {
        let prefix = key(name, b"");
        let get = |room, key: &[u8]| pieces::get(rows, &prefix, room, key);
        let scan = |room, key: &[u8]| pieces::scan(rows, &prefix, room, key);
        let Some(meta) = get(Room::GROUP, &key(name, META))? else { return Ok(None) };
        let row: Row = record::decode(&meta)?;
        if row.emptied {
            return Ok(None);
        }
        let state_of = |epoch| {
            let found = get(Room::GROUP, &state_key(name, row.incarnation, epoch))?;
            Ok::<_, LoadError<R::Error>>(found.ok_or(RecordError::Damaged)?)
        };
        let state = state_of(row.state)?;
        let mut parents = Vec::new();
        for parent in &row.parents {
            let clients = |rows: &[Text]| rows.iter().map(Text::parse).collect::<Result<_, _>>();
            parents.push(Parent {
                commit: parent.commit,
                ended: parent.ended,
                at: parent.at,
                astray: parent.astray,
                state: state_of(parent.at)?,
                last_added: parent.last_added,
                joined: parent.joined,
                joined_by: parent.joined_by,
                joined_at: parent.joined_at,
                signs_since: parent.signs_since,
                spent: parent.spent,
                late: Vec::new(),
                proposed_at: parent.proposed_at,
                added: clients(&parent.added)?,
                removed: clients(&parent.removed)?,
                renews: parent.renews,
            });
        }
        let mut group_rows = GroupRows { state, ..GroupRows::default() };
        for (key, value) in scan(Room::EPOCH, &key(name, &row.incarnation.to_be_bytes()))? {
            let epoch = key.last_chunk::<8>().ok_or(RecordError::Damaged)?;
            group_rows.epochs.insert(u64::from_be_bytes(*epoch), value);
        }
        let group_id = name.to_string().into_bytes();
        shared.groups.load(&group_id, group_rows);
        let mls = shared.client(account, row.suite.into()).load_group(&group_id).map_err(MlsError::from)?;
        let history = hashes::load(row.position.seq, &scan(Room::LOG, &key(name, b""))?)?;
        let mut intents = std::collections::BTreeMap::new();
        let mut foreign_intents = std::collections::BTreeSet::new();
        let withdrawn = Withdrawn::load(name, scan(Room::GROUP, &key(name, WITHDRAWN))?)?;
        let overtaken = Overtaken::load(name, scan(Room::GROUP, &key(name, OVERTAKEN))?)?;
        for (key, value) in scan(Room::INTENT, &key(name, b""))? {
            let order = key.last_chunk::<8>().ok_or(RecordError::Damaged)?;
            let order = u64::from_be_bytes(*order);
            match Intent::from_row(&value)? {
                Some(intent) => {
                    intents.insert(order, intent);
                }
                // It stays in the store, and its place is not given to another.
                None => {
                    foreign_intents.insert(order);
                }
            }
        }
        let mut done = std::collections::BTreeMap::new();
        for (key, value) in scan(Room::GROUP, &key(name, DONE))? {
            let (order, wish) = again::load(&key, &value)?;
            match wish {
                Some(wish) => drop(done.insert(order, wish)),
                None => drop(foreign_intents.insert(order)),
            }
        }
        let mut unconfirmed = std::collections::BTreeMap::new();
        for (key, value) in scan(Room::GROUP, &key(name, UNCONFIRMED))? {
            unconfirmed.insert(client_of_key(name, UNCONFIRMED, &key)?, added_at(&value)?);
        }
        let knocking = get(Room::GROUP, &key(name, KNOCKING))?;
        let old_leaves = get(Room::GROUP, &key(name, OLD_LEAVES))?;
        let old_leaves = old_leaves.map(|row| knock::old_leaves_from(&row)).transpose()?.unwrap_or_default();
        let mut answered = std::collections::BTreeMap::new();
        for (key, value) in scan(Room::GROUP, &key(name, ANSWERED))? {
            answered.insert(client_of_key(name, ANSWERED, &key)?, knock::answered_at(&value)?);
        }
        let lost = match &row.lost {
            Some(lost) => Some(Lost {
                commit: lost.commit,
                hash: lost.hash,
                reason: lost.reason.parse()?,
                certain: lost.certain,
                told: lost.told,
                settled: lost.settled,
                nacked: lost.nacked,
                branch: match lost.branch {
                    0 => Branch::None,
                    1 => Branch::Wrong,
                    2 => Branch::Resumed,
                    _ => return Err(RecordError::Damaged.into()),
                },
                anew: lost.anew,
                word: lost.word,
            }),
            None => None,
        };
        let profile = GroupProfile::of(&mls.context().extensions).map_err(|error| MlsError(error.to_string()))?;
        let keys = |rows: &[SeedRow]| -> Result<std::collections::BTreeMap<_, _>, RecordError> {
            let key = |row: &SeedRow| Ok((row.epoch, Seed::from_slice(&row.seed).map_err(|_| RecordError::Damaged)?));
            rows.iter().map(key).collect()
        };
        let (seeds, tree_keys) = (keys(&row.seeds)?, keys(&row.tree_keys)?);
        let mut group = Self {
            name: name.clone(),
            incarnation: row.incarnation,
            profile,
            status: summary::from_code(row.status, &row.reason)?,
            mls,
            window: HashWindow::with_history(row.position, row.time, history),
            hashes_saved: row.position.seq,
            ledger: row.ledger.clone(),
            parents,
            lost,
            receipts: row.receipts.iter().map(|receipt| (receipt.position.seq, *receipt)).collect(),
            withheld: row.withheld.iter().copied().collect(),
            removed_at: row.removed_at,
            joined_by: row.joined_by,
            joined_at: row.joined_at,
            came_by: row.came_by.clone(),
            void: row.void,
            past: row.past.clone(),
            emptied: false,
            frozen: row.frozen.clone(),
            hasty: row.hasty.as_ref().map(|row| Hasty::of(row).map(Box::new)).transpose()?,
            successor: None,
            predecessor: row.predecessor.as_ref().map(Text::parse).transpose()?,
            founding: row.founding.as_ref().map(|founding| founding.0.clone()),
            saved: Some(row.state),
            unsaved_proposals: false,
            vets: false,
            read_to_end: None,
            skipped: row.skipped,
            unable: None,
            joined: row.joined,
            signs_since: row.signs_since,
            last_added: row.last_added,
            seeds,
            tree_keys,
            tree_names: super::tree::Known::default(),
            keys: std::sync::OnceLock::new(),
            offers_whole_tree: row.offers_whole_tree,
            channel_keys: row.channel_keys.iter().map(SigningKey::from_bytes).collect(),
            former_leaves: row.former_leaves.clone(),
            intents,
            generations: super::generations::Generations::default(),
            branches: super::fork::Branches::default(),
            early: super::early::Early::new(shared.early.clone()),
            elsewhere: super::elsewhere::Elsewhere::default(),
            kept: None,
            foreign_intents,
            done,
            annulments: row.annulments.clone(),
            withdrawn,
            summary: Vec::new(),
            heard: std::collections::BTreeSet::new(),
            speakers: super::speakers::Speakers::default(),
            left_out: super::left_out::LeftOut::default(),
            overtaken,
            unread: super::proposals::Unread::default(),
            proposed_at: row.proposed_at,
            refreshed: row.refreshed,
            rests: Rests::of(&row.rests),
            ways: Box::new(Ways::of(&row.ways)?),
            presence: row.presence,
            unconfirmed,
            knocking: knocking.map(|row| record::decode(&row)).transpose()?.unwrap_or_default(),
            returned: row.returned,
            old_leaves,
            asked_with: Vec::new(),
            // Only a group that goes on from another has any.
            present: if row.predecessor.is_some() {
                super::anew::load(rows, name)?
            } else {
                super::anew::Present::default()
            },
            lineage: super::anew::load_lineage(rows, name)?,
            ask_first: row.ask_first.as_ref().map(Text::parse).transpose()?,
            asked_about: row.asked_about.as_ref().map(Text::parse).transpose()?,
            beside: super::beside::beside(rows, name)?,
            answered,
            gaps: super::gap::load(rows, name)?,
            account: account.clone(),
            shared: shared.clone(),
            writes: Vec::new(),
            pieces: Pieces::load(rows, prefix.clone(), &PIECED)?,
            journal: Journal::default(),
            counted: Some((row.epoch, row.members)),
            dirty: false,
            touched: false,
            unusable: false,
        };
        if let Some(step) = &row.step {
            group.load_step(*step, get(Room::GROUP, &key(name, STEP))?)?;
        }
        if group.epoch() != row.epoch {
            return Err(RecordError::Damaged.into());
        }
        group.load_notes(rows)?;
        group.load_generations(rows)?;
        group.load_elsewhere(rows)?;
        Ok(Some(group))
    }

    /// Lets go of a group that was looked at only: what is in the store is as it was.
    pub fn unload(self) {
        self.shared.groups.forget(self.mls.group_id());
    }

    /// Adds the rows that describe the group as it is now.
    pub(super) fn save(&mut self) -> Result<(), MlsError> {
        if self.unusable {
            return Err(super::fault("the group's state could not be restored: open the group again"));
        }
        if self.status == Status::Removed && self.removed_at.is_none() {
            self.forget_all();
        }
        if self.dirty && !self.emptied {
            self.write_state()?;
        } else if self.writes.is_empty() && !self.touched && !self.journal.unsaved() && !self.generations.unsaved() {
            return Ok(());
        }
        self.spend_late()?;
        self.touched = false;
        self.save_notes();
        self.save_generations();
        self.save_hashes();
        let meta = self.meta()?;
        self.writes.push(meta);
        Ok(())
    }

    /// Takes over what mls-rs wrote in an epoch.
    pub(super) fn drain_state(&mut self, epoch: Epoch) {
        let changes = self.shared.groups.drain(self.mls.group_id());
        if let Some(value) = changes.state {
            self.unsaved_proposals = false;
            let key = state_key(&self.name, self.incarnation, epoch);
            self.writes.push(Write::Put { room: Room::GROUP, key, value });
            // That of the epoch before stays only while the group may go back to it.
            if let Some(before) = self.saved.replace(epoch).filter(|before| *before != epoch)
                && !self.parents.iter().any(|parent| parent.at == before)
            {
                let key = state_key(&self.name, self.incarnation, before);
                self.writes.push(Write::Delete { room: Room::GROUP, key });
            }
        }
        for (epoch, value) in changes.epochs {
            let key = epoch_key(&self.name, self.incarnation, epoch);
            self.writes.push(Write::Put { room: Room::EPOCH, key, value });
        }
        for epoch in changes.dropped {
            let key = epoch_key(&self.name, self.incarnation, epoch);
            self.writes.push(Write::Delete { room: Room::EPOCH, key });
        }
    }

    fn meta(&mut self) -> Result<Write, MlsError> {
        let epoch = self.epoch();
        let members = match self.counted {
            Some((of, members)) if of == epoch => members,
            _ => self.member_count(),
        };
        self.counted = Some((epoch, members));
        self.save_summary(members);
        let (status, reason) = summary::to_code(&self.status);
        let row = Row {
            incarnation: self.incarnation,
            suite: suite(self.mls.cipher_suite()).map(|_| self.mls.cipher_suite().into())?,
            status,
            reason: Text::new(reason),
            epoch: self.epoch(),
            state: self.saved.unwrap_or_else(|| self.epoch()),
            step: self.step_row(),
            members,
            position: self.window.position(),
            time: self.window.time(),
            joined: self.joined,
            signs_since: self.signs_since,
            last_added: self.last_added,
            proposed_at: self.proposed_at,
            refreshed: self.refreshed,
            rests: self.rests.to_rows(),
            ways: self.ways.to_row(),
            presence: self.presence,
            seeds: seed_rows(&self.seeds),
            tree_keys: seed_rows(&self.tree_keys),
            offers_whole_tree: self.offers_whole_tree,
            channel_keys: self.channel_keys.iter().map(SigningKey::to_bytes).collect(),
            former_leaves: self.former_leaves.clone(),
            ledger: self.ledger.clone(),
            parents: self
                .parents
                .iter()
                .map(|parent| ParentRow {
                    commit: parent.commit,
                    ended: parent.ended,
                    at: parent.at,
                    astray: parent.astray,
                    last_added: parent.last_added,
                    joined: parent.joined,
                    joined_by: parent.joined_by,
                    joined_at: parent.joined_at,
                    signs_since: parent.signs_since,
                    spent: parent.spent,
                    proposed_at: parent.proposed_at,
                    added: parent.added.iter().map(Text::new).collect(),
                    removed: parent.removed.iter().map(Text::new).collect(),
                    renews: parent.renews,
                })
                .collect(),
            annulments: self.annulments.clone(),
            lost: self.lost.as_ref().map(|lost| LostRow {
                commit: lost.commit,
                hash: lost.hash,
                reason: Text::new(&lost.reason),
                certain: lost.certain,
                told: lost.told,
                settled: lost.settled,
                nacked: lost.nacked,
                branch: match lost.branch {
                    Branch::None => 0,
                    Branch::Wrong => 1,
                    Branch::Resumed => 2,
                },
                anew: lost.anew,
                word: lost.word,
            }),
            receipts: self.receipts.values().copied().collect(),
            withheld: self.withheld.iter().copied().collect(),
            skipped: self.skipped,
            removed_at: self.removed_at,
            returned: self.returned,
            joined_by: self.joined_by,
            joined_at: self.joined_at,
            came_by: self.came_by.clone(),
            void: self.void,
            past: self.past.clone(),
            emptied: self.emptied,
            frozen: self.frozen.clone(),
            hasty: self.hasty.as_deref().map(Hasty::to_row),
            predecessor: self.predecessor.as_ref().map(Text::new),
            ask_first: self.ask_first.as_ref().map(Text::new),
            asked_about: self.asked_about.as_ref().map(Text::new),
            founding: self.founding.clone().map(FoundingRow),
        };
        Ok(Write::Put { room: Room::GROUP, key: key(&self.name, META), value: record::encode(&row) })
    }

    pub(super) fn save_intent(&mut self, order: u64) {
        if let Some(intent) = self.intents.get(&order) {
            self.writes.push(Write::Put {
                room: Room::INTENT,
                key: key(&self.name, &order.to_be_bytes()),
                value: intent.to_row(),
            });
        }
    }

    pub(super) fn drop_intent(&mut self, order: u64) {
        self.intents.remove(&order);
        self.writes.push(Write::Delete { room: Room::INTENT, key: key(&self.name, &order.to_be_bytes()) });
    }
}
