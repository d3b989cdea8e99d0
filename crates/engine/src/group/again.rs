//! What is done once more after an annulment.
//!
//! What we said and changed in an epoch that is open may turn out to be void. So each wish that was carried out is kept until the epoch
//! is settled that it is of. If that is annulled, the wish is under way again, under its old name and at its old place: a removal goes
//! before what was said after it. What cannot be done again is told of:
//!
//! - what members disputed, as they could not apply it: doing it again would end the same way;
//! - that somebody was added or let in again, as the KeyPackages were used up by that.
//!
//! Nothing that we say goes to who was no member when it was written. Whom a void commit had removed is a member again: what was written
//! after it is not sent as long as that is so. If the removal was ours, it goes before; if it was somebody else's, the writer is told who
//! is back. To wait until the others have removed them again would hold up all that is to be said after it, and nobody might ever do so.
//!
//! What was said is in the history already, and here a second time. So there are bounds ([`DONE_MESSAGES`], [`DONE_BYTES`]): beyond them, of
//! the oldest only the name is kept, and if their epoch is annulled their writer is told that they are not sent again. Names have a bound
//! by the law: a member says [`super::MESSAGES_PER_EPOCH`] things in an epoch, and no more than 64 commits are open.
//!
//! Row of a wish that was carried out, `done/` and its place under the group's prefix: `struct { Epoch began; optional<Seq> commit; opaque
//! intent<V>; optional<Text> unkept; }`.

use std::collections::{BTreeMap, BTreeSet};

use conclave_names::{ClientUri, Epoch, GroupUri, Hash, Seq};
use mls_rs::MlsMessage;
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};
use zeroize::Zeroize as _;

use super::{GAP_BYTES, Group, row, standing::Parent, submit::TO_ALL, view::client_of};
use crate::{
    intent::{Intent, Wish},
    mls_client::MlsError,
    outcome::Event,
    record::{self, RecordError, Text},
    writes::{Room, Write},
};

/// The commits by which epochs began: their places, and the hashes of their entries.
pub(super) type Beginnings = BTreeMap<Epoch, (Seq, Hash)>;

/// Prefix of the rows.
pub(super) const DONE: &[u8] = b"done/";

/// Messages of ours that can be said again if their epochs are annulled; of more, the oldest are told of.
pub const DONE_MESSAGES: usize = 1024;

/// How many bytes of them, and of KeyPackages of those whom we added, are kept for that: 4 MiB.
pub const DONE_BYTES: usize = 4 << 20;

/// Clients that are named in what is told.
const NAMED: usize = 16;

/// Annulments that are remembered; the oldest go first.
const ANNULMENTS: usize = 64;

/// A wish that was carried out.
pub(super) struct Done {
    intent: Intent,
    /// The epoch that has to stand for it: in which it was said, that its commit began, or in which there was nothing left to do.
    began: Epoch,
    /// Our commit, if it was one.
    commit: Option<Seq>,
    /// What is told if it turns out to be void: what it needs to be done again is not kept.
    unkept: Option<String>,
}

#[derive(MlsSize, MlsEncode, MlsDecode)]
struct Row {
    began: Epoch,
    commit: Option<Seq>,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    intent: Vec<u8>,
    unkept: Option<Text>,
}

impl Drop for Row {
    fn drop(&mut self) {
        // It has what was said.
        self.intent.zeroize();
    }
}

/// That epochs were annulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
pub(super) struct Annulment {
    /// The first void commit.
    commit: Seq,
    /// The epoch that the group was in again.
    epoch: Epoch,
    /// The last entry before it was decided.
    until: Seq,
}

/// Whom void commits had removed, by the epochs that they began: the one in which they were not there, and those after it.
pub(super) struct Gone(BTreeMap<Epoch, BTreeSet<ClientUri>>);

impl Gone {
    /// By the open commits since an epoch.
    pub(super) fn since(parents: &[Parent], epoch: Epoch) -> Self {
        let (mut by_epoch, mut gone) = (BTreeMap::new(), BTreeSet::new());
        for parent in parents.iter().filter(|parent| parent.ended >= epoch) {
            gone.extend(parent.removed.iter().cloned());
            gone.retain(|client| !parent.added.contains(client));
            by_epoch.insert(parent.ended.next(), gone.clone());
        }
        Self(by_epoch)
    }

    fn in_epoch(&self, epoch: Epoch) -> impl Iterator<Item = &ClientUri> {
        self.0.range(..=epoch).next_back().into_iter().flat_map(|(_, gone)| gone)
    }
}

fn key(group: &GroupUri, order: u64) -> Vec<u8> {
    row::key(group, &[DONE, &order.to_be_bytes()].concat())
}

/// From its row: the place of the wish, and the wish, if its kind is known.
pub(super) fn load(key: &[u8], value: &[u8]) -> Result<(u64, Option<Done>), RecordError> {
    let order = key.last_chunk().copied().map(u64::from_be_bytes).ok_or(RecordError::Damaged)?;
    let row: Row = record::decode(value)?;
    let intent = Intent::from_row(&row.intent)?;
    let unkept = row.unkept.as_ref().map(Text::parse).transpose()?;
    Ok((order, intent.map(|intent| Done { intent, began: row.began, commit: row.commit, unkept })))
}

/// Clients by their KeyPackages.
fn clients_of<'a>(key_packages: impl IntoIterator<Item = &'a Vec<u8>>) -> impl Iterator<Item = ClientUri> {
    key_packages.into_iter().filter_map(|bytes| {
        let message = MlsMessage::from_bytes(bytes).ok()?;
        client_of(message.as_key_package()?.signing_identity()).ok()
    })
}

/// The same for people.
fn clients_in<'a>(key_packages: impl IntoIterator<Item = &'a Vec<u8>>) -> String {
    names(clients_of(key_packages))
}

fn names(clients: impl IntoIterator<Item = ClientUri>) -> String {
    let names: Vec<_> = clients.into_iter().map(|client| client.to_string()).collect();
    let more = names.len().saturating_sub(NAMED);
    let mut text = names.get(..names.len() - more).unwrap_or_default().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} others"));
    }
    text
}

impl Done {
    fn to_write(&self, group: &GroupUri, order: u64) -> Write {
        let unkept = self.unkept.as_ref().map(Text::new);
        let row = Row { began: self.began, commit: self.commit, intent: self.intent.to_row().to_vec(), unkept };
        Write::Put { room: Room::GROUP, key: key(group, order), value: record::encode(&row) }
    }

    /// Whether it is of concern to who was let in again.
    pub(super) fn outlives_incarnation(&self) -> bool {
        self.intent.wish.outlives_incarnation()
    }

    /// Whether it was said in an epoch that was open, of which nothing is told any more where all until this one is settled. It may have been
    /// annulled, or not.
    fn is_unsure(&self, before: &Beginnings, settled: Epoch) -> bool {
        let said = matches!(self.intent.wish, Wish::Send { .. }) && self.unkept.is_none();
        said && self.began <= settled && before.contains_key(&self.began)
    }

    /// Whether it adds members.
    pub(super) const fn adds(&self) -> bool {
        matches!(self.intent.wish, Wish::Add { .. })
    }

    /// Whether it was wished before this epoch.
    pub(super) fn was_wished_before(&self, epoch: Epoch) -> bool {
        self.intent.wished < epoch
    }

    /// Bytes that are kept to do it again, or to tell whom it was about.
    fn weight(&self) -> usize {
        match &self.intent.wish {
            Wish::Send { content, .. } => content.len(),
            Wish::Add { key_packages } => key_packages.iter().map(Vec::len).sum(),
            Wish::Readmit { key_package, .. } => key_package.len(),
            _ => 0,
        }
    }

    /// Keeps only what is to be told of it.
    fn unkeep(&mut self) {
        self.unkept = match &self.intent.wish {
            Wish::Send { id, .. } => Some(format!(
                "message {id} was said in an epoch that was annulled, and is not sent again: more was said meanwhile than is kept for that. \
                 Send it again if it is still to be said"
            )),
            _ => self.stays_undone(None),
        };
        match &mut self.intent.wish {
            Wish::Send { content, .. } => {
                content.zeroize();
                *content = Vec::new();
            }
            Wish::Add { key_packages } => key_packages.clear(),
            Wish::Readmit { key_package, .. } => key_package.clear(),
            _ => {}
        }
    }

    /// Why it is not done once more, for people; none if it is.
    fn stays_undone(&self, disputed: Option<Seq>) -> Option<String> {
        if self.unkept.is_some() {
            return self.unkept.clone();
        }
        let annulled = "the commit that did it was annulled";
        let what = match &self.intent.wish {
            Wish::Add { key_packages } => {
                let who = clients_in(key_packages);
                return Some(format!("{annulled}: {who} must be added again, as what it was added by is used up"));
            }
            Wish::Readmit { key_package, .. } => {
                let who = clients_in([key_package]);
                return Some(format!("{annulled}: {who}, which was let in again by it, asks once more by itself"));
            }
            Wish::Remove { users } => {
                let users: Vec<_> = users.iter().map(ToString::to_string).collect();
                format!("{} not removed", users.join(", "))
            }
            Wish::Update => "keys were not renewed".to_owned(),
            Wish::ReInit { .. } => "the group was not made anew".to_owned(),
            _ => return None,
        };
        let is_disputed = self.commit.is_some() && self.commit == disputed;
        is_disputed.then(|| {
            format!("{annulled}, as members could not apply it: {what}; look at who is there, and do it again")
        })
    }
}

impl Group {
    /// Commits are void: the group is in an epoch again, and what we did since is to be done again.
    pub(super) fn annulled(&mut self, commits: &[Seq], epoch: Epoch, events: &mut Vec<Event>) -> Result<(), MlsError> {
        let (disputed, gone) = (commits.first().copied(), Gone::since(&self.parents, epoch));
        let went_back = self.go_back(commits, epoch, events)?;
        self.revive(disputed, epoch, events);
        if went_back {
            self.wished_in_void(epoch, &gone);
        }
        Ok(())
    }

    /// Keeps a wish that was carried out, as long as the epoch is open that has to stand for it.
    pub(super) fn keep_done(&mut self, order: u64, intent: &Intent, began: Epoch, commit: Option<Seq>) {
        let again = match &intent.wish {
            Wish::Send { .. } | Wish::Leave => true,
            Wish::GapAnswer { content, .. } => self.keeps_answer(content.len()),
            // What the group needs is found out anew.
            wish => wish.is_a_change() && !intent.automatic,
        };
        if !again || began <= self.ledger.settled() {
            return;
        }
        let intent = Intent { prepared: None, ordered: false, ..intent.clone() };
        let done = Done { intent, began, commit, unkept: None };
        self.writes.push(done.to_write(&self.name, order));
        self.done.insert(order, done);
        self.bound_done();
    }

    /// Whether there is room for a part of an answer to who missed something. What is not kept is not told again.
    fn keeps_answer(&self, len: usize) -> bool {
        let length = |done: &Done| match &done.intent.wish {
            Wish::GapAnswer { content, .. } => content.len(),
            _ => 0,
        };
        self.done.values().map(length).sum::<usize>().saturating_add(len) <= 2 * GAP_BYTES
    }

    /// Keeps no more of what was carried out than the bounds say: of the oldest, only what is to be told.
    fn bound_done(&mut self) {
        let whole = |done: &&Done| done.weight() > 0;
        let (mut count, mut bytes) = (0_usize, 0_usize);
        for done in self.done.values().filter(whole) {
            count += 1;
            bytes = bytes.saturating_add(done.weight());
        }
        for (order, done) in &mut self.done {
            if count <= DONE_MESSAGES && bytes <= DONE_BYTES {
                break;
            }
            let weight = done.weight();
            if weight > 0 {
                done.unkeep();
                self.writes.push(done.to_write(&self.name, *order));
                count -= 1;
                bytes = bytes.saturating_sub(weight);
            }
        }
    }

    /// Forgets what is settled.
    pub(super) fn forget_settled(&mut self) {
        let settled = self.ledger.settled();
        drop(self.remove_done(|done| done.began <= settled));
    }

    /// Forgets all, as nothing comes back any more.
    pub(super) fn forget_all_done(&mut self) {
        drop(self.remove_done(|_| true));
    }

    /// Takes them out of the store, too.
    fn remove_done(&mut self, which: impl Fn(&Done) -> bool) -> BTreeMap<u64, Done> {
        let (removed, kept) = std::mem::take(&mut self.done).into_iter().partition(|(_, done)| which(done));
        self.done = kept;
        let removed: BTreeMap<u64, Done> = removed;
        for order in removed.keys() {
            self.writes.push(Write::Delete { room: Room::GROUP, key: key(&self.name, *order) });
        }
        removed
    }

    /// What was carried out in epochs after this one is void: it is to be done once more, or told of. `disputed` is the commit that members
    /// could not apply.
    pub(super) fn revive(&mut self, disputed: Option<Seq>, epoch: Epoch, events: &mut Vec<Event>) {
        let proposed = self.own_removal_proposed();
        let void = self.remove_done(|done| done.began > epoch);
        let added: Vec<(u64, Vec<ClientUri>)> = void
            .iter()
            .filter_map(|(order, done)| match &done.intent.wish {
                Wish::Add { key_packages } => Some((*order, clients_of(key_packages).collect())),
                _ => None,
            })
            .collect();
        for (order, done) in void {
            if let Some(reason) = done.stays_undone(disputed) {
                events.push(Event::IntentFailed { intent: done.intent.id, reason });
                continue;
            }
            // That we asked to leave may have been said in the epoch that stands. One that MLS knows of there without that was never
            // sent: the epoch had ended meanwhile.
            let ordered = done.intent.wish == Wish::Leave && proposed && done.began == epoch.next();
            let mut intent = Intent { ordered, ..done.intent };
            // Whom we added after we had said it was not there to read it.
            for client in added.iter().filter(|(later, _)| *later > order).flat_map(|(_, clients)| clients) {
                if !intent.not_to.contains(client) {
                    intent.not_to.push(client.clone());
                }
            }
            self.intents.insert(order, intent);
            self.save_intent(order);
        }
    }

    /// The group has gone back to an epoch, or we to an earlier one: what was wished in void ones was wished by somebody who saw others.
    pub(super) fn wished_in_void(&mut self, epoch: Epoch, gone: &Gone) {
        let known = epoch.min(self.epoch());
        let mut changed = Vec::new();
        for (order, intent) in self.intents.iter_mut().filter(|(_, intent)| intent.wished > epoch) {
            for client in gone.in_epoch(intent.wished) {
                if !intent.not_to.contains(client) {
                    intent.not_to.push(client.clone());
                }
            }
            // Who wanted it to be read by whoever is there wanted it to be read by those who join, not by those who are gone.
            if intent.wished != TO_ALL {
                intent.wished = known;
            }
            changed.push(*order);
        }
        for order in changed {
            self.save_intent(order);
        }
    }

    /// Why a message cannot be said now: who was no member any more when it was written is one again, or who was none yet.
    pub(super) fn is_back(&self, intent: &Intent) -> Option<String> {
        let member = |client: &&ClientUri| self.mls.member_with_identity(client.to_string().as_bytes()).is_ok();
        let Wish::Send { id, .. } = &intent.wish else { return None };
        let back = names(intent.not_to.iter().filter(member).cloned());
        (!back.is_empty()).then(|| {
            format!(
                "message {id} was written when {back} were not in the group. That was annulled, and they are in it now: remove who is to go, and \
                 send it again"
            )
        })
    }

    /// What was carried out was wished before this epoch.
    pub(super) fn done_before(&mut self, epoch: Epoch) {
        for (order, done) in &mut self.done {
            if done.intent.wished >= epoch && done.intent.wished != TO_ALL {
                done.intent.wished = Epoch(epoch.0.saturating_sub(1));
                self.writes.push(done.to_write(&self.name, *order));
            }
        }
    }

    /// What the next incarnation of the group takes over.
    pub(super) fn take_done(&mut self) -> BTreeMap<u64, Done> {
        std::mem::take(&mut self.done)
    }

    /// Takes it over, as wished by somebody who saw the members of an epoch.
    fn inherit_done(&mut self, done: Done, wished: Epoch) {
        let wished = if done.intent.wished == TO_ALL { TO_ALL } else { wished };
        let (order, intent) = (self.free_order(false), Intent { wished, ..done.intent });
        self.keep_done(order, &intent, done.began, done.commit);
        if let Some(kept) = self.done.get_mut(&order).filter(|_| done.unkept.is_some()) {
            kept.unkept = done.unkept;
            self.writes.push(kept.to_write(&self.name, order));
        }
    }

    /// The same, if it can be told whether it was annulled. Else it is said again, as by somebody who saw the members of the second epoch: who
    /// has read it passes over it by its name.
    pub(super) fn inherit_or_say(&mut self, done: Done, before: &Beginnings, wished: Epoch, again: Epoch) {
        if done.is_unsure(before, self.ledger.settled()) {
            self.take_over(self.free_order(false), done.intent, again);
        } else {
            self.inherit_done(done, wished);
        }
    }

    /// By which commit each epoch began that is not settled. Of a branch that is not the group, nothing is known.
    pub(super) fn beginnings(&self) -> Beginnings {
        if self.is_in_wrong_branch() {
            return Beginnings::new();
        }
        let open = self.ledger.open().iter();
        open.filter_map(|open| Some((self.ledger.find(open.seq)?.0.next(), (open.seq, open.hash)))).collect()
    }

    /// Our ledger is another member's now, who has read what we missed. What we did in epochs that began by other commits than there, or by
    /// none yet, was annulled meanwhile. Of what is settled there, it cannot be told: what we have said is said again.
    pub(super) fn revive_since(&mut self, before: &Beginnings, events: &mut Vec<Event>) {
        let now = self.beginnings();
        let void =
            |(epoch, began): &(&Epoch, &(Seq, Hash))| **epoch > self.ledger.settled() && now.get(epoch) != Some(*began);
        if let Some((first, (commit, _))) = before.iter().find(void) {
            let epoch = Epoch(first.0.saturating_sub(1));
            events.push(Event::Annulled { commit: *commit, epoch });
            self.revive(None, epoch, events);
        }
        let settled = self.ledger.settled();
        for (order, done) in self.remove_done(|done| done.is_unsure(before, settled)) {
            self.intents.insert(order, Intent { ordered: false, ..done.intent });
            self.save_intent(order);
        }
    }

    /// Notes that commits are void.
    pub(super) fn note_annulment(&mut self, commit: Seq, epoch: Epoch) {
        self.annulments.push(Annulment { commit, epoch, until: self.window.position().seq });
        let excess = self.annulments.len().saturating_sub(ANNULMENTS);
        self.annulments.drain(..excess);
    }

    /// Whether the entry at a place, of an epoch, is void, as far as is known.
    pub(super) fn was_annulled(&self, seq: Seq, epoch: Epoch) -> bool {
        let void = |of: &Annulment| seq > of.commit && seq <= of.until && epoch > of.epoch;
        self.annulments.iter().any(void)
    }
}
