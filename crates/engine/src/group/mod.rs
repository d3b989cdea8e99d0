//! A group as one of its members sees it.

mod access;
mod again;
mod anew;
mod apply;
mod beside;
#[cfg(test)]
mod beside_tests;
mod commit;
mod confirmed;
mod create;
mod early;
mod elsewhere;
#[cfg(test)]
mod evil;
mod fork;
mod gap;
mod gap_fill;
mod generations;
mod given_up;
mod group_info;
mod hashes;
mod hasty;
mod journal;
mod knock;
mod late;
mod left_out;
mod meanwhile;
mod misled;
mod onward;
mod overtaken;
mod place;
mod presence;
mod process;
mod proposals;
mod prune;
mod rebase;
mod receipts;
mod refresh;
#[cfg(test)]
mod refused_tests;
mod reinit;
mod rejoin;
mod rekeyed;
mod repeated;
mod rest;
pub(crate) mod row;
mod sealed;
#[cfg(test)]
mod secrecy_tests;
mod speakers;
mod standing;
mod step;
mod submit;
mod summary;
mod tree;
mod verdicts;
mod vet;
mod view;
mod visible;
mod withdrawn;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
};

use conclave_channel::{HashWindow, access::ChannelKey, law::Ledger, receipt::Receipt};
use conclave_mls::{components::GroupProfile, content::MessageId, seal::Seed};
use conclave_names::{ClientUri, Epoch, GroupUri, Hash, Seq, Timestamp};
use ed25519_dalek::SigningKey;

pub use access::Access;
pub(crate) use access::fault;
pub use again::{DONE_BYTES, DONE_MESSAGES};
pub use beside::{Beside, beside};
pub use create::NewGroup;
pub(crate) use create::Start;
pub(crate) use early::EarlyRoom;
pub use early::{EARLY_BYTES, EARLY_BYTES_OF_CLIENT, EARLY_ENTRIES, EARLY_ENTRIES_OF_CLIENT, EARLY_MS};
pub use gap::{GAP_MESSAGES, GAP_MS, KIND_TOLD, Told};
pub use gap_fill::{FillError, GAP_BYTES, GAP_TURN_MS, GapAsked, GapFill, GapGiven};
pub use generations::GENERATIONS_MAX;
pub use given_up::UNANSWERED_MS;
pub use journal::{MESSAGES_PER_EPOCH, STATE_MS};
pub(crate) use knock::Heritage;
pub use knock::{ANSWER_MS, AskError, KNOCK_MS, KnockPost, KnockRefused, knock_pause, plausible as plausible_knock};
pub use misled::MISLED_MS;
pub use onward::{INVITED_MS, ONWARD_MS, Onward};
pub use place::ChannelEnd;
pub use presence::{HEARTBEAT_MS, HEARTBEAT_MS_A_MEMBER, UNSEEN_MS};
pub use process::{Incoming, KIND_EVENT, KIND_MESSAGE, Processed};
pub use prune::PAST_MS;
pub use refresh::{REFRESH_MS, REFRESH_MS_A_MEMBER, REFRESH_SPREAD_MS};
pub use reinit::Founding;
pub use rejoin::{JoinAccess, RejoinError, WayBack};
pub use repeated::Known;
pub use rest::{REST_MS, REST_MS_MOST};
pub use row::LoadError;
pub use submit::{Submission, SubmissionBody, WishError};
pub use summary::{GroupSummary, Listed, list, list_readable};
pub use view::Member;
pub use visible::Handshakes;

use crate::{
    account::Account,
    intent::Intent,
    mls_client::{Mls, MlsError, MlsGroup},
    pieces::Pieces,
    writes::{StoredMessage, Write},
};

/// How this client stands to a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// A member.
    Active,
    /// Removed; what was read stays readable.
    Removed,
    /// A commit could not be applied: either it is annulled, and the group goes on, or this client must rejoin. Or
    /// entries that this client has not read are gone from the server: it must rejoin.
    Stuck {
        /// Why.
        reason: String,
    },
}

/// A group as one of its members sees it: the MLS state, the place in the channel, and the changes under way.
///
/// Calls collect what must become durable; [`Group::take_writes`] hands it over, for one transaction, before anything
/// that follows from it leaves the device. If that transaction fails, the group must be loaded anew.
pub struct Group {
    name: GroupUri,
    incarnation: u64,
    profile: GroupProfile,
    status: Status,
    mls: MlsGroup,
    window: HashWindow,
    /// Up to where the store has its hashes.
    hashes_saved: Seq,
    /// Which commits stand.
    ledger: Ledger,
    /// What was before time alone decided something that the log has yet to show.
    hasty: Option<Box<hasty::Hasty>>,
    /// Epochs that ended of which keys are kept, in order.
    past: Vec<prune::Past>,
    /// If it goes on in a successor.
    frozen: Option<reinit::Frozen>,
    successor: Option<GroupUri>,
    predecessor: Option<GroupUri>,
    /// Whether the DS may not have the channel yet, and what it has to be told then.
    founding: Option<Vec<u8>>,
    /// Whether every key is gone, because we are no member any more.
    emptied: bool,
    /// States before open commits, in order.
    parents: Vec<standing::Parent>,
    /// The commit that we could not apply.
    lost: Option<standing::Lost>,
    /// The first of the entries before our place that are gone unread, until that is told.
    skipped: Option<Seq>,
    /// What the DS signed of submissions of ours: the newest few.
    receipts: BTreeMap<Seq, Receipt>,
    /// Those of them of which it was told that the DS does not show what it has signed for.
    withheld: BTreeSet<Seq>,
    /// The commit that removed us, while it may be annulled.
    removed_at: Option<Seq>,
    /// Hash of the commit's entry that added us, and its place once it was read.
    joined_by: Option<Hash>,
    joined_at: Option<Seq>,
    /// Hashes of all commits by which we came, as far as they are remembered, the newest last.
    came_by: Vec<Hash>,
    /// Whether we were members by an invitation that is void.
    void: bool,
    /// The epoch of the MLS state in the store.
    saved: Option<Epoch>,
    /// The commit that we cannot acknowledge, though it is our turn.
    unable: Option<Seq>,
    /// Whether proposals came since, which the group must not lose if it goes back to this epoch.
    unsaved_proposals: bool,
    /// The first epoch that we can read.
    joined: Epoch,
    /// Since which epoch our leaf has its signature key: what we sent before is refused by everybody in it or a later one (`rekeyed`).
    signs_since: Epoch,
    /// The newest epoch that began with members whom others added.
    last_added: Epoch,
    /// By the epoch since which each is in force.
    seeds: BTreeMap<Epoch, Seed>,
    /// Keys under which the chunks of the tree are sealed, by the epoch since which each is in force.
    tree_keys: BTreeMap<Epoch, Seed>,
    tree_names: tree::Known,
    /// The channel keys of the present epoch, once they were needed.
    keys: OnceLock<Arc<access::Keys>>,
    /// Whether the server has no tree that a commit could build on.
    offers_whole_tree: bool,
    /// Channel keys of ours: the leaf's, and those of leaves under way.
    channel_keys: Vec<SigningKey>,
    /// The public parts of those that were forgotten last: in another branch, the group may know us by one of them.
    former_leaves: Vec<ChannelKey>,
    /// In the order in which they were wished.
    intents: BTreeMap<u64, Intent>,
    generations: generations::Generations,
    branches: fork::Branches,
    early: early::Early,
    /// What was made with our keys, but not by this profile.
    elsewhere: elsewhere::Elsewhere,
    /// What refused messages are undone by, if one came since the state was written.
    kept: Option<process::Checkpoint>,
    /// Places of those whose kind this version does not know.
    foreign_intents: BTreeSet<u64>,
    /// Wishes that were carried out in epochs that are open, by their places among the others.
    done: BTreeMap<u64, again::Done>,
    /// The newest ones.
    annulments: Vec<again::Annulment>,
    /// Commits of ours that were made anew but may be ordered yet.
    withdrawn: withdrawn::Withdrawn,
    /// The same of messages and proposals.
    overtaken: overtaken::Overtaken,
    /// What there is about proposals that we could not read.
    unread: proposals::Unread,
    /// When somebody's proposal was ordered that nobody has committed.
    proposed_at: Option<Timestamp>,
    /// What others proposed and commits of ours leave out.
    left_out: left_out::LeftOut,
    /// When our keys here were made.
    refreshed: refresh::Refreshed,
    /// What failed that nobody wished, and is not tried again for a while.
    rests: rest::Rests,
    /// By whose GroupInfos we came back, or did not.
    ways: Box<misled::Ways>,
    /// What is still to be acknowledged.
    presence: presence::Presence,
    /// Members that others added and of whom we have heard nothing yet.
    unconfirmed: BTreeMap<ClientUri, Timestamp>,
    /// How often we have asked members to let us in again, and when we ask next.
    knocking: knock::Knocking,
    /// Our removal, if by time alone it is annulled and nothing has shown yet that it is.
    returned: Option<Seq>,
    /// Channel keys of leaves of ours that the group may have in place of the present one, since we asked members to let us in again and
    /// until that is settled.
    old_leaves: Vec<ChannelKey>,
    /// Those in the KeyPackages of the present round of knocks.
    asked_with: Vec<ChannelKey>,
    /// If it goes on from another: who has shown itself since.
    present: anew::Present,
    /// The groups before it.
    lineage: anew::Lineage,
    /// If members of what this group has become are asked: who is asked first, as it made that.
    ask_first: Option<ClientUri>,
    /// If members let us into it while we knew another name of it: that name, until it is settled.
    asked_about: Option<GroupUri>,
    /// If it may be what has become of another group: who vouches for that.
    beside: Option<Beside>,
    /// Whom we have let in again, and when.
    answered: BTreeMap<ClientUri, Timestamp>,
    /// What we missed and asked for, and who else did.
    gaps: gap::Gaps,
    account: Account,
    shared: Mls,
    writes: Vec<Write>,
    /// Names of the messages among them.
    heard: BTreeSet<MessageId>,
    /// The row for lists of groups as the store has it; empty: not known.
    summary: Vec<u8>,
    speakers: speakers::Speakers,
    /// What the store has of the group's long rows.
    pieces: Pieces,
    /// What the MLS state in the store does not know.
    journal: journal::Journal,
    /// How many members an epoch has.
    counted: Option<(Epoch, u32)>,
    /// Whether what the newest commit left for who comes back is to be looked at (`vet`).
    vets: bool,
    /// When the DS last had nothing more for us.
    read_to_end: Option<Timestamp>,
    /// Whether the MLS state has changed since it was last written.
    dirty: bool,
    /// Whether the MLS state in memory is none of the group's: nothing of it may be written.
    unusable: bool,
    /// Whether something else has that stands in the group's own row.
    touched: bool,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group")
            .field("name", &self.name)
            .field("epoch", &self.epoch())
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl Group {
    /// The group's name; its text is the MLS group id.
    #[must_use]
    pub fn name(&self) -> &GroupUri {
        &self.name
    }

    /// Where it lives, and in which formats.
    #[must_use]
    pub fn profile(&self) -> &GroupProfile {
        &self.profile
    }

    /// How we stand to it.
    #[must_use]
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// The epoch of our MLS state.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch(self.mls.current_epoch())
    }

    /// This client.
    #[must_use]
    pub fn own_client(&self) -> &ClientUri {
        &self.account.client
    }

    /// Takes over a renewed account (certificate, issuers).
    pub fn set_account(&mut self, account: Account) {
        self.account = account;
    }

    /// What must become durable now, in one transaction.
    ///
    /// # Errors
    /// [`MlsError`] if the MLS state cannot be written.
    pub fn take_writes(&mut self) -> Result<Vec<Write>, MlsError> {
        self.save()?;
        self.heard.clear();
        Ok(self.pieces.split(std::mem::take(&mut self.writes)))
    }

    /// Messages that became ours to keep and are not stored yet: what [`Group::take_writes`] will hand over of them.
    pub fn unsaved_messages(&self) -> impl Iterator<Item = &StoredMessage> {
        self.writes.iter().filter_map(|write| match write {
            Write::Message(message) if message.kind == KIND_MESSAGE => Some(message),
            _ => None,
        })
    }

    /// The seed in force in an epoch.
    fn seed(&self, epoch: Epoch) -> Option<&Seed> {
        self.seeds.range(..=epoch).next_back().map(|(_, seed)| seed)
    }

    fn add_seed(&mut self, epoch: Epoch, seed: Seed) {
        self.seeds.insert(epoch, seed);
        self.prune_seeds();
    }
}
