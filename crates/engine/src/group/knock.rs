//! Being let in again by a member: where the way back by a commit from outside is barred, because the group seed was renewed
//! since or what the DS serves is refused.
//!
//! Who is locked out posts a [`Knock`] into the inboxes of a few members that it knew, its user's other devices first, and of others an
//! hour later. A member answers it if a leaf of its group is that of the same client with the same identity key, and has
//! one of the channel keys that the knock names: by one commit that removes that leaf and adds the knocker's KeyPackage. Whoever answers
//! second finds no such leaf any more. But a leaf that was made for it since, and that it has not shown itself in for an hour, is replaced as well:
//! what it was invited by was lost.

use std::collections::{BTreeMap, BTreeSet};

use conclave_channel::access::ChannelKey;
use conclave_mls::{
    address::DeliveryAddress,
    components::ChannelKeyExtension,
    credential::same_client,
    identity,
    knock::{KnockError, OLD_LEAVES_MAX},
};
use conclave_names::{ClientUri, Epoch, GroupUri, Hash, IdempotencyKey, Seq, Timestamp, limits};
use conclave_protocol::SigningKey;
use mls_rs::{MlsMessage, group::proposal::Proposal, mls_rules::ProposalInfo};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};
use zeroize::Zeroizing;

use super::{
    Group, Status, WishError,
    access::{each_member, fault, own_channel_key},
    again::{Beginnings, Done},
    commit::as_add,
    confirmed::key_of_client,
    gap::GapHeritage,
    misled::Ways,
    row,
    standing::{Branch, Lost},
};
use crate::{
    intent::{Intent, Wish},
    knock::{self, About, Asked, Knocked},
    mls_client::MlsError,
    outcome::Event,
    record::{self, RecordError},
    writes::{Room, Write},
};

/// How long somebody who knocked waits before it knocks again, in milliseconds: an hour, and each time twice as long, up to a
/// day.
pub const KNOCK_MS: u64 = 3_600_000;

const KNOCK_MS_MOST: u64 = 24 * KNOCK_MS;

/// How long to wait after a round of knocks before the next, in milliseconds. `rounds` were there before it.
#[must_use]
pub fn knock_pause(rounds: u32) -> u64 {
    KNOCK_MS.saturating_mul(1 << rounds.min(16)).min(KNOCK_MS_MOST)
}

/// When the next round of knocks is due; now, if it is further ahead than any pause is long: the clock was
/// wrong then.
#[must_use]
pub fn plausible(next: Timestamp, now: Timestamp) -> Timestamp {
    if next > now.plus_ms(2 * KNOCK_MS_MOST) { now } else { next }
}

/// A member lets one client in again at most once in this time, in milliseconds: so that who cannot stay in does not have the group
/// commit for ever.
pub const ANSWER_MS: u64 = 3_600_000;

/// Whether a client was let in so lately. What was noted by a clock that was far ahead of time does not count.
fn is_lately(at: Timestamp, now: Timestamp) -> bool {
    at.plus_ms(ANSWER_MS) > now && at <= now.plus_ms(ANSWER_MS)
}

/// Earlier keys of our leaf that are remembered.
const FORMER_LEAVES: usize = 8;

/// Members that are asked at a time.
const KNOCKS: usize = 3;

/// Key of the row that says how often we have knocked.
pub(super) const KNOCKING: &[u8] = b"knocking";

/// Prefix of the rows that say whom we have let in again, one a client.
pub(super) const ANSWERED: &[u8] = b"answered/";

/// How often we have knocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, MlsSize, MlsEncode, MlsDecode)]
pub(super) struct Knocking {
    rounds: u32,
    next: Timestamp,
    /// When the first round was.
    since: Timestamp,
}

/// When a client was let in again, from the value of its row.
pub(super) fn answered_at(row: &[u8]) -> Result<Timestamp, RecordError> {
    record::decode(row)
}

/// Why a knock is not answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KnockRefused {
    /// It is not ours to answer.
    #[error("this client is no active member of the group itself")]
    NotActive,
    /// No leaf is that client's.
    #[error("the knocker is no member of the group")]
    NoMember,
    /// Somebody else has its name.
    #[error("the knocker has another identity key than the member of its name")]
    IdentityKey,
    /// It knocks with a credential that its client has replaced since: it may be somebody who has stolen that.
    #[error("the knocker's credential is older than that of the member of its name")]
    Outdated,
    /// Transient: nothing changes in a group that is being made anew. It is to be answered in its successor.
    #[error("the group is being made anew: the knock is answered in the group that it becomes")]
    Frozen,
    /// It was let in meanwhile, or has its present keys. Nobody needs to tell it: what let it in lies in its inbox; and if it still asks an hour
    /// later, it is let in once more.
    #[error("the knocker's old leaf is not in the group any more: it is back already")]
    Back,
    /// It lay about for too long.
    #[error("the knock is older than an invitation may be")]
    Late,
    /// It was let in a short while ago, or is about to be.
    #[error("the knocker was let in again less than an hour ago")]
    TooSoon,
    /// What it is to be added by does not do.
    #[error("the knocker's KeyPackage cannot be added: {0}")]
    KeyPackage(String),
    /// We can change nothing now.
    #[error(transparent)]
    Wish(#[from] WishError),
    /// MLS refused.
    #[error(transparent)]
    Mls(#[from] MlsError),
}

/// Why a member cannot be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The directory gave the KeyPackage of somebody else, or one that is not valid.
    #[error("the KeyPackage is not a valid one of the member that was to be asked: {0}")]
    KeyPackage(String),
    /// The knock cannot be made.
    #[error(transparent)]
    Knock(#[from] KnockError),
    /// MLS refused.
    #[error(transparent)]
    Mls(#[from] MlsError),
}

/// A knock to be posted.
#[derive(Debug, Clone)]
pub struct KnockPost {
    /// Provider of the member's inbox.
    pub domain: String,
    /// The sealed delivery address.
    pub address: Vec<u8>,
    /// The sealed knock.
    pub knock: Vec<u8>,
}

/// A leaf with what a knock is compared with.
struct Leaf {
    index: u32,
    identity_key: [u8; 32],
    signature_key: Vec<u8>,
    certified: Timestamp,
    vouched_until: u64,
    channel_key: ChannelKey,
}

/// Key of the row with the channel keys of leaves that the group may know us by, besides the present one: of the one that the commit took
/// out by which a member let us in again, and of those that members were asked to put in its place.
pub(super) const OLD_LEAVES: &[u8] = b"old-leaves";

/// What an incarnation of a group that could not be followed leaves to the next.
pub(crate) struct Heritage {
    /// Channel keys of its leaves, if it has asked members to replace them.
    old_leaves: Vec<ChannelKey>,
    /// By which name of it.
    asked_about: Option<GroupUri>,
    members: BTreeSet<(ClientUri, Hash)>,
    /// What was still to be said and changed, in order, and whether members were added since whom its writer did not know.
    wishes: BTreeMap<u64, (Intent, bool)>,
    /// What would have to be said and changed once more if it were annulled, the same.
    done: BTreeMap<u64, (Done, bool)>,
    /// By which commits the epochs began in which that was done.
    beginnings: Beginnings,
    /// The first entry that was not read.
    unread: Seq,
    /// What was asked for and not told.
    gap: GapHeritage,
    /// By whose GroupInfos it did not come back.
    ways: Ways,
}

/// Channel keys out of the row of [`OLD_LEAVES`].
pub(super) fn old_leaves_from(row: &[u8]) -> Result<Vec<ChannelKey>, RecordError> {
    let (leaves, rest) = row.as_chunks();
    if rest.is_empty() { Ok(leaves.iter().copied().map(ChannelKey).collect()) } else { Err(RecordError::Damaged) }
}

fn public(key: &SigningKey) -> ChannelKey {
    ChannelKey(key.verifying_key().to_bytes())
}

/// Each once, and the last of them.
fn newest(leaves: Vec<ChannelKey>, most: usize) -> Vec<ChannelKey> {
    let mut once: Vec<ChannelKey> = Vec::new();
    for leaf in leaves.into_iter().rev() {
        if once.len() < most && !once.contains(&leaf) {
            once.push(leaf);
        }
    }
    once.reverse();
    once
}

impl Group {
    /// When members are to be asked to let us in again, if there is no other way back.
    #[must_use]
    pub fn knock_due(&self, now: Timestamp) -> Option<Timestamp> {
        self.wants_rejoin().then(|| plausible(self.knocking.next, now))
    }

    /// Whom to ask: all that we knew, those first who are best asked now. The first few that can be reached do.
    ///
    /// # Errors
    /// [`MlsError`] if a member's certificate does not parse, which no admitted one does.
    pub fn whom_to_ask(&self) -> Result<Vec<ClientUri>, MlsError> {
        let own = &self.account.client;
        let (mut devices, mut others) = (Vec::new(), Vec::new());
        for member in self.members()?.into_iter().filter(|member| member.client != *own) {
            let list = if member.user == *own.user() { &mut devices } else { &mut others };
            list.push(member.client);
        }
        // Each time others.
        if !others.is_empty() {
            let turn = (self.knocking.rounds as usize).wrapping_mul(KNOCKS) % others.len();
            others.rotate_left(turn);
        }
        devices.extend(others);
        // Each second time, whoever can help for sure, if it is there.
        if let Some(first) = self.ask_first.as_ref().filter(|_| self.knocking.rounds.is_multiple_of(2))
            && let Some(at) = devices.iter().position(|member| member == first)
        {
            let first = devices.remove(at);
            devices.insert(0, first);
        }
        Ok(devices)
    }

    /// How many of them are asked at a time.
    #[must_use]
    pub const fn knocks_at_a_time() -> usize {
        KNOCKS
    }

    /// Makes a knock for a member by a KeyPackage (an MLSMessage) that was claimed of it. `key_package` is one of ours, made for
    /// this knock, whose private part is durable.
    ///
    /// # Errors
    /// Any [`AskError`]: ask another.
    pub fn knock(
        &mut self,
        member: &ClientUri,
        theirs: &[u8],
        key_package: Vec<u8>,
        now: Timestamp,
    ) -> Result<KnockPost, AskError> {
        let known = self.leaf_of(member).ok_or_else(|| AskError::KeyPackage("it was no member".to_owned()))?;
        let leaves = self.leaves_to_replace()?;
        let asked = Asked { member, identity_key: &known.identity_key };
        let leaf = MlsMessage::from_bytes(&key_package).map_err(MlsError::from)?;
        let leaf = leaf.as_key_package().ok_or_else(|| fault("no KeyPackage"))?;
        let leaf = ChannelKeyExtension::of(&as_add(leaf)?.leaf_node_extensions()).map_err(fault)?;
        let about = About::Group(self.knocks_about(), &leaves);
        let post = knock::post((&self.account, &self.shared), asked, theirs, about, key_package, now)?;
        self.asked_with.push(leaf);
        Ok(post)
    }

    /// The channel keys that our leaf in the group may have, that of our own tree last. In a branch that is not the group we may have renewed it,
    /// which the group does not know; what let us in again may have been annulled; and where a Welcome was lost, the group has the leaf that
    /// members were asked for earlier. So of each kind there are the newest.
    pub(super) fn leaves_to_replace(&self) -> Result<Vec<ChannelKey>, MlsError> {
        // Those of commits on their way are among them: one may be in the log where we cannot read it.
        let used = self.channel_keys.iter().map(public).collect();
        let mut kinds = [used, self.old_leaves.clone(), self.former_leaves.clone()];
        let mut leaves = vec![own_channel_key(&self.mls)?];
        while leaves.len() < OLD_LEAVES_MAX && kinds.iter().any(|kind| !kind.is_empty()) {
            for leaf in kinds.iter_mut().filter_map(Vec::pop) {
                if !leaves.contains(&leaf) && leaves.len() < OLD_LEAVES_MAX {
                    leaves.push(leaf);
                }
            }
        }
        leaves.reverse();
        Ok(leaves)
    }

    /// Remembers what keys our leaf had whose private parts were forgotten.
    pub(super) fn remember_former(&mut self, gone: &[SigningKey]) {
        let former = std::mem::take(&mut self.former_leaves).into_iter();
        self.former_leaves = newest(former.chain(gone.iter().map(public)).collect(), FORMER_LEAVES);
    }

    /// The DS took no commit from outside that would have given our leaf this key, for all that it says: of all that are remembered, such keys go
    /// first.
    pub(super) fn remember_refused(&mut self, key: &SigningKey) {
        let refused = public(key);
        self.channel_keys.retain(|own| public(own) != refused);
        let former = std::mem::take(&mut self.former_leaves);
        self.former_leaves = newest(std::iter::once(refused).chain(former).collect(), FORMER_LEAVES);
        self.touched = true;
    }

    fn remember_leaves(&mut self, leaves: impl IntoIterator<Item = ChannelKey>) {
        let leaves = std::mem::take(&mut self.old_leaves).into_iter().chain(leaves).collect();
        self.old_leaves = newest(leaves, OLD_LEAVES_MAX);
        let value = Zeroizing::new(self.old_leaves.iter().flat_map(|leaf| leaf.0).collect());
        self.writes.push(Write::Put { room: Room::GROUP, key: row::key(&self.name, OLD_LEAVES), value });
    }

    /// Members let us in here who asked about a group that this one comes from. If that is annulled, they are asked about that again: our leaf
    /// here is one that others made, of which we know nothing.
    pub(super) fn let_in_from(&mut self, old: &Self) {
        if !old.has_knocked() || self.joined <= self.ledger.settled() {
            return;
        }
        self.asked_about = Some(old.asked_about.clone().unwrap_or_else(|| old.name.clone()));
        self.remember_leaves(old.leaves_to_replace().unwrap_or_default());
        self.touched = true;
    }

    /// Notes that these members were asked, or that none could be.
    pub fn knocked(&mut self, members: Vec<ClientUri>, now: Timestamp, events: &mut Vec<Event>) {
        let next = now.plus_ms(knock_pause(self.knocking.rounds));
        let before = self.knocking;
        // By a clock that was ahead of time, it would never end.
        let since = if before.rounds == 0 || before.since > now { now } else { before.since };
        self.knocking = Knocking { rounds: before.rounds.saturating_add(1), next, since };
        self.save_knocking();
        let asked_with = std::mem::take(&mut self.asked_with);
        if !asked_with.is_empty() {
            self.remember_leaves(asked_with);
        }
        if !members.is_empty() {
            self.tell(Event::Knocked { members, again: next }, now, events);
        }
    }

    /// Members are asked without waiting for the time of the next round.
    pub(super) fn knock_soon(&mut self) {
        self.knocking.next = Timestamp(0);
        if self.has_knocked() {
            self.save_knocking();
        }
    }

    fn save_knocking(&mut self) {
        let value = record::encode(&self.knocking);
        self.writes.push(Write::Put { room: Room::GROUP, key: row::key(&self.name, KNOCKING), value });
    }

    /// Whether members were asked to let us in again.
    pub(super) fn has_knocked(&self) -> bool {
        self.knocking.rounds > 0
    }

    /// How often they were asked, and since when.
    pub(super) fn knocks(&self) -> (u32, Timestamp) {
        (self.knocking.rounds, self.knocking.since)
    }

    /// The identity key that a member of the group has.
    pub(super) fn identity_key_of(&self, member: &ClientUri) -> Option<[u8; 32]> {
        self.leaf_of(member).map(|leaf| leaf.identity_key)
    }

    /// We are back.
    pub(super) fn stop_knocking(&mut self) {
        if self.knocking != Knocking::default() {
            self.knocking = Knocking::default();
            self.writes.push(Write::Delete { room: Room::GROUP, key: row::key(&self.name, KNOCKING) });
        }
    }

    /// Whether a knock is to be answered here, but for its KeyPackage; after the channel was read to its end. Gives the old leaf.
    fn admits(&self, knocked: &Knocked, now: Timestamp) -> Result<Leaf, KnockRefused> {
        if self.status != Status::Active {
            return Err(KnockRefused::NotActive);
        }
        let leaf = self.leaf_of(&knocked.client).ok_or(KnockRefused::NoMember)?;
        if leaf.index == self.mls.current_member_index() {
            return Err(KnockRefused::Back);
        }
        if leaf.identity_key != knocked.identity_key {
            return Err(KnockRefused::IdentityKey);
        }
        if knocked.certified < leaf.certified {
            return Err(KnockRefused::Outdated);
        }
        let same = if self.is_about_predecessor(knocked) && !knocked.old_leaves.is_empty() {
            // Those leaves were of the group before; its leaf here others made for it.
            self.was_left_behind(knocked) || knocked.old_leaves.contains(&leaf.channel_key)
        } else if knocked.old_leaves.is_empty() {
            // Who has lost its leaf has a later word of its identity key than that: so it has what no copy of a leaf's keys has.
            let vouched = leaf.signature_key != knocked.signature_key || knocked.vouched_until > leaf.vouched_until;
            vouched && !self.is_kept_by(knocked)
        } else {
            knocked.old_leaves.contains(&leaf.channel_key) || self.never_came(knocked, &leaf)
        };
        if !same {
            return Err(KnockRefused::Back);
        }
        if self.is_frozen() {
            return Err(KnockRefused::Frozen);
        }
        if knocked.time.plus_ms(limits::INVITATION_MS) < now {
            return Err(KnockRefused::Late);
        }
        let pending = |wish: &Wish| matches!(wish, Wish::Readmit { old_leaf, .. } if *old_leaf == leaf.channel_key);
        let lately = self.answered.get(&knocked.client).is_some_and(|at| is_lately(*at, now));
        if lately || self.intents.values().any(|intent| pending(&intent.wish)) {
            return Err(KnockRefused::TooSoon);
        }
        Ok(leaf)
    }

    /// Whether the knocker's leaf is one that it has not shown itself in, and by which it cannot come any more: it still asks long after that
    /// leaf was made, by the key that signed it, or a later word of its identity key.
    fn never_came(&self, knocked: &Knocked, leaf: &Leaf) -> bool {
        let added = self.unconfirmed.get(&knocked.client);
        let same = leaf.signature_key == knocked.signature_key || knocked.vouched_until > leaf.vouched_until;
        same && added.is_some_and(|added| added.plus_ms(KNOCK_MS) <= knocked.time)
    }

    /// Whether a knock is to be answered here, if the knocker's KeyPackage does. To be asked after the channel was read to its end.
    ///
    /// # Errors
    /// Any [`KnockRefused`].
    pub fn would_answer(&self, knocked: &Knocked, now: Timestamp) -> Result<(), KnockRefused> {
        self.admits(knocked, now).map(drop)
    }

    /// The commit by which a member let us in again is void: the group has our old leaf once more, of which we have nothing left. So
    /// members are asked once more. None if it was an invitation like any other.
    pub(super) fn locked_out_again(&mut self) -> Option<Event> {
        if self.old_leaves.is_empty() {
            return None;
        }
        let reason = "the commit by which a member let this client in again was annulled: members are asked once more";
        self.unprepare(|_| true);
        let seq = self.window.position().seq;
        // What we have is none of the group's states.
        self.lost =
            Some(Lost::settled(self.joined_at.unwrap_or(seq), Hash::new([0; 32]), reason.to_owned(), Branch::Resumed));
        self.status = Status::Stuck { reason: reason.to_owned() };
        self.touched = true;
        let event = Event::Stuck { seq, reason: reason.to_owned() };
        self.note(&event, seq, self.window.time());
        Some(event)
    }

    /// Once the commit that added us is settled, our leaves before it are history.
    pub(super) fn forget_old_leaves(&mut self) {
        if self.joined <= self.ledger.settled() && self.status == Status::Active && !self.old_leaves.is_empty() {
            self.forget_leaves();
        }
    }

    /// Members are not to replace this leaf of ours.
    pub(super) fn forget_leaf(&mut self, leaf: &ChannelKey) {
        self.old_leaves.retain(|old| old != leaf);
        let value = Zeroizing::new(self.old_leaves.iter().flat_map(|leaf| leaf.0).collect());
        self.writes.push(Write::Put { room: Room::GROUP, key: row::key(&self.name, OLD_LEAVES), value });
        self.touched = true;
    }

    /// Members are not to replace any leaf of ours.
    pub(super) fn forget_leaves(&mut self) {
        self.old_leaves.clear();
        self.asked_about = None;
        self.touched = true;
        self.writes.push(Write::Delete { room: Room::GROUP, key: row::key(&self.name, OLD_LEAVES) });
    }

    /// What was answered by a commit that is void may be asked, and answered, again.
    pub(super) fn forget_void_answers(&mut self) {
        for client in std::mem::take(&mut self.answered).into_keys() {
            self.writes.push(Write::Delete { room: Room::GROUP, key: key_of_client(&self.name, ANSWERED, &client) });
        }
    }

    /// Answers a knock, after the channel was read to its end: the knocker is let in again by one of the next commits, unless it is
    /// back by then.
    ///
    /// # Errors
    /// Any [`KnockRefused`]; nothing has changed then.
    pub fn answer(&mut self, knocked: &Knocked, now: Timestamp) -> Result<IdempotencyKey, KnockRefused> {
        let leaf = self.admits(knocked, now)?;
        let unfit = |error: &dyn std::fmt::Display| KnockRefused::KeyPackage(error.to_string());
        let message = MlsMessage::from_bytes(&knocked.key_package).map_err(|error| unfit(&error))?;
        let package = message.as_key_package().ok_or_else(|| unfit(&"it is none"))?;
        if package.cipher_suite != self.mls.cipher_suite() {
            return Err(unfit(&"it is of another cipher suite"));
        }
        if !self.lacking(&knocked.key_package)?.is_empty() {
            return Err(unfit(&"it lacks what the group requires"));
        }
        DeliveryAddress::of(&package.extensions).map_err(|error| unfit(&error))?;
        let wish = Wish::Readmit { old_leaf: leaf.channel_key, key_package: knocked.key_package.clone() };
        let id = self.wish(wish)?;
        self.forget_answers(now);
        self.answered.insert(knocked.client.clone(), now);
        self.writes.push(Write::Put {
            room: Room::GROUP,
            key: key_of_client(&self.name, ANSWERED, &knocked.client),
            value: record::encode(&now),
        });
        Ok(id)
    }

    /// Forgets answers that bar no other any more.
    fn forget_answers(&mut self, now: Timestamp) {
        let (name, writes) = (&self.name, &mut self.writes);
        self.answered.retain(|client, at| {
            let kept = is_lately(*at, now);
            if !kept {
                writes.push(Write::Delete { room: Room::GROUP, key: key_of_client(name, ANSWERED, client) });
            }
            kept
        });
    }

    /// Whether a client is a member, for all that was read.
    #[must_use]
    pub fn has_member(&self, client: &ClientUri) -> bool {
        self.leaf_of(client).is_some()
    }

    fn leaf_of(&self, member: &ClientUri) -> Option<Leaf> {
        let mut found = None;
        each_member(&self.mls.export_tree(), |index, signing_identity, extensions| {
            let (Ok(read), Ok(channel_key)) = (identity::read(signing_identity), ChannelKeyExtension::of(extensions))
            else {
                return true;
            };
            if read.client() == member {
                let signature_key = signing_identity.signature_key.as_bytes().to_vec();
                let (identity_key, certified) = (read.identity_key(), read.not_before());
                let vouched_until = read.binding().not_after_secs;
                found = Some(Leaf { index, identity_key, signature_key, certified, vouched_until, channel_key });
            }
            found.is_none()
        });
        found
    }

    /// The clients that a commit removes and adds again, with the same identity keys. To be asked of the group before it.
    pub(super) fn readmitted(&self, applied: &[ProposalInfo<Proposal>]) -> Vec<ClientUri> {
        let mut before = Vec::new();
        for info in applied {
            if let Proposal::Remove(remove) = &info.proposal
                && let Some(member) = self.mls.member_at_index(remove.to_remove())
                && let Ok(leaf) = identity::read(&member.signing_identity)
            {
                before.push(leaf);
            }
        }
        let added = applied.iter().filter_map(|info| match &info.proposal {
            Proposal::Add(add) => identity::read(add.signing_identity()).ok(),
            _ => None,
        });
        let same = added.filter(|leaf| before.iter().any(|was| same_client(was, leaf)));
        same.map(|leaf| leaf.client().clone()).collect()
    }

    /// What the next incarnation takes over from one that could not be followed.
    pub(crate) fn heritage(mut self) -> Heritage {
        if self.status == Status::Removed {
            return self.heritage_of_removed();
        }
        let members = self.roster();
        // Who was removed and added again without having asked for it has no leaf to come back to.
        let old_leaves = if self.has_knocked() { self.leaves_to_replace().unwrap_or_default() } else { Vec::new() };
        let unread = self.first_unread().unwrap_or_else(|| self.window.position().seq.next());
        let (done, beginnings) = (self.take_done(), self.beginnings());
        let (last_added, gap, asked_about) = (self.last_added, self.gap_heritage(), self.asked_about.take());
        let done = done.into_iter().filter(|(_, done)| done.outlives_incarnation());
        let done = done
            .map(|(order, done)| {
                let unknown = done.was_wished_before(last_added);
                (order, (done, unknown))
            })
            .collect();
        let ways = std::mem::take(&mut *self.ways).outlive();
        let outlives = self.intents.into_iter().filter(|(_, intent)| intent.wish.outlives_incarnation());
        let wishes = outlives.map(|(order, intent)| (order, (intent.clone(), last_added > intent.wished))).collect();
        Heritage { old_leaves, asked_about, members, wishes, done, beginnings, unread, gap, ways }
    }

    /// The same from one that was removed by a commit that may yet be annulled: then the group has its leaf again, whatever added us since
    /// is void with it, and members are asked.
    fn heritage_of_removed(&self) -> Heritage {
        let old_leaves = if self.may_return() { self.leaves_to_replace().unwrap_or_default() } else { Vec::new() };
        Heritage {
            old_leaves,
            asked_about: None,
            members: BTreeSet::new(),
            wishes: BTreeMap::new(),
            done: BTreeMap::new(),
            beginnings: Beginnings::default(),
            unread: Seq(u64::MAX),
            gap: GapHeritage::default(),
            ways: (*self.ways).clone().outlive(),
        }
    }

    /// Takes it over: what was wished is done now, but nothing is said if there are members that its writer does not know.
    pub(crate) fn inherit(&mut self, mut heritage: Heritage, now: Timestamp, events: &mut Vec<Event>) {
        let strangers = self.members().map_or(true, |members| {
            members.into_iter().any(|of| !heritage.members.contains(&(of.client, of.identity_key)))
        });
        let wished = |unknown| if unknown { Epoch(self.joined.0.saturating_sub(1)) } else { self.joined };
        let (before, known) = (wished(true), wished(strangers));
        let orders: BTreeSet<u64> = heritage.wishes.keys().chain(heritage.done.keys()).copied().collect();
        for order in orders {
            if let Some((done, unknown)) = heritage.done.remove(&order) {
                let wished = if unknown { before } else { known };
                // Whom it added itself after that it knows now, and did not when it wrote.
                let adds = heritage.done.values().any(|(later, _)| later.adds());
                self.inherit_or_say(done, &heritage.beginnings, wished, if adds { before } else { wished });
            }
            if let Some((intent, unknown)) = heritage.wishes.remove(&order) {
                self.take_over(self.free_order(false), intent, if unknown { before } else { known });
            }
        }
        let told = events.len();
        self.revive_since(&heritage.beginnings, events);
        for event in events.iter().skip(told) {
            self.note(event, self.window.position().seq, now);
        }
        self.asked_about = heritage.asked_about;
        *self.ways = heritage.ways;
        if !heritage.old_leaves.is_empty() {
            self.remember_leaves(heritage.old_leaves);
        }
        self.inherit_gap(heritage.gap, heritage.unread, now);
        for event in self.tell_meanwhile(&heritage.members) {
            // With that we joined.
            self.note(&event, self.window.position().seq.next(), now);
            events.push(event);
        }
        let to = self.window.position().seq;
        if heritage.unread <= to {
            self.tell(Event::Missed { from: heritage.unread, to }, now, events);
        }
    }
}
