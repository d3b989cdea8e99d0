//! Telling a member that is back what was said while it could not follow the group (RFC 9750, section 6.6).
//!
//! To give past messages to who holds a stolen state weakens post-compromise security, so it is the member's choice ([`GapFill`]). And it gives only
//! what the asker was entitled to, as far as this client knows by itself:
//!
//! - the asker's leaf was replaced lately ([`GAP_MS`]), by its own commit from outside with the group's PSK or by a member's answer to its knock,
//!   and this client applied that commit;
//! - what was said before that commit, within what is asked for, once for each replacement;
//! - of epochs since this client saw the asker added, and itself read without a gap: what is not known is not given;
//! - what this client read itself, not what others told it.
//!
//! Row of a client whose leaf was replaced, `replaced/` and its name under the group's prefix; it goes after [`GAP_MS`], or when the client
//! is removed.

use std::collections::{BTreeMap, VecDeque};

use conclave_mls::{
    content::MessageId,
    gap::{GAP_PARTS, GapAnswer, GapContext, GapItem, GapRequest, share_out},
};
use conclave_names::{ClientUri, Epoch, GroupUri, Seq, Timestamp};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};
use mls_rs_core::crypto::HpkePublicKey;

use super::{
    Group, KIND_EVENT, KIND_MESSAGE, Status, WishError,
    access::fault,
    confirmed::{client_of_key, key_of_client},
    gap::{GAP_MESSAGES, is_over},
    process::Incoming,
    refresh::spread,
    row,
};
use crate::{
    intent::Wish,
    mls_client::{MlsError, suite},
    outcome::{Event, Rejection},
    record,
    writes::{Room, Rows, StoredMessage, Write},
};

/// Prefix of the rows.
const REPLACED: &[u8] = b"replaced/";

/// Most bytes of messages in one answer: 2 MiB. Of more, the oldest are left out, as beyond [`GAP_MESSAGES`].
pub const GAP_BYTES: usize = 2 << 20;

/// How long a member waits for each that stands before it, before it answers by itself, in milliseconds: so that as a rule only one does.
pub const GAP_TURN_MS: u64 = 5_000;

/// Members that are waited for so; those behind them answer at random times within as long again.
const GAP_RANKS: u64 = 30;

/// Stored messages that are looked at together.
const PAGE: usize = 500;

/// Whether this client tells members that are back what they missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GapFill {
    /// It does not, and says nothing of who asks.
    Never,
    /// It tells its user of who asks ([`Event::GapRequested`]), who may do it ([`Group::fill_gap`]).
    #[default]
    Ask,
    /// It does, unless another member has answered first.
    Always,
}

/// Why nothing is told to somebody. `E` is the store's error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FillError<E> {
    /// The store failed.
    #[error("the profile's store failed: {0}")]
    Store(E),
    /// We can say nothing now.
    #[error(
        "this client cannot say anything in the group now: it is no active member, or the group is being made anew"
    )]
    NotActive,
    /// It is not in the group.
    #[error("{0} is no member of the group")]
    NoMember(ClientUri),
    /// Nothing shows that it was a member before.
    #[error(
        "{0} is not entitled to it: this client has not seen it come back within the last seven days, so nothing proves that it was a member \
         before"
    )]
    NotEntitled(ClientUri),
    /// It has not asked.
    #[error("{0} has not asked for what it missed")]
    NobodyAsked(ClientUri),
    /// It was given already.
    #[error("this client has answered {0} already")]
    Answered(ClientUri),
    /// We have nothing that it may have.
    #[error(
        "there is nothing to give to {0}: this client has no messages of that time, or cannot tell that {0} was a member then"
    )]
    Nothing(ClientUri),
    /// MLS refused.
    #[error(transparent)]
    Mls(#[from] MlsError),
    /// The group takes no wishes.
    #[error(transparent)]
    Wish(#[from] WishError),
}

/// What was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GapGiven {
    /// How many messages.
    pub messages: u64,
    /// How many more there were that did not fit.
    pub left_out: u64,
}

/// Who asks for what it missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GapAsked {
    /// Who.
    pub member: ClientUri,
    /// Place of its request.
    pub request: Seq,
    /// The first place that it may be told of.
    pub first: Seq,
    /// The last one.
    pub last: Seq,
    /// To what an answer is sealed: an HPKE public key of the group's cipher suite.
    pub key: Vec<u8>,
}

#[derive(Clone, MlsSize, MlsEncode, MlsDecode)]
struct Asked {
    place: Seq,
    first: Seq,
    last: Seq,
    key: HpkePublicKey,
}

/// A client whose leaf was replaced.
#[derive(Clone, MlsSize, MlsEncode, MlsDecode)]
struct Replaced {
    /// By this commit,
    commit: Seq,
    /// which began this epoch,
    epoch: Epoch,
    /// then.
    at: Timestamp,
    request: Option<Asked>,
    /// Whether it is known here what is to become of the request.
    told: bool,
    /// When we answer.
    turn: Option<Timestamp>,
    /// Whether another member has answered.
    answered: bool,
    /// Whether we have.
    given: bool,
}

/// Clients whose leaves were replaced lately.
#[derive(Default)]
pub(super) struct Replacements(BTreeMap<ClientUri, Replaced>);

impl Replacements {
    /// From their rows.
    pub(super) fn load<R: Rows>(rows: &R, name: &GroupUri) -> Result<Self, row::LoadError<R::Error>> {
        let mut replaced = BTreeMap::new();
        for (key, value) in rows.scan(Room::GROUP, &row::key(name, REPLACED)).map_err(row::LoadError::Store)? {
            replaced.insert(client_of_key(name, REPLACED, &key)?, record::decode(&value)?);
        }
        Ok(Self(replaced))
    }
}

/// What a member may be told.
#[derive(Default)]
struct Found {
    items: VecDeque<GapItem>,
    bytes: usize,
    left_out: u64,
    /// Nothing up to this place, and of epochs before this one: who was a member then is not known, or the asker was none.
    after: Seq,
    since: Epoch,
}

impl Found {
    /// Before this, it was another story.
    fn begins_after(&mut self, seq: Seq, since: Epoch) {
        self.after = self.after.max(seq);
        self.since = self.since.max(since);
        let after = self.after;
        self.items.retain(|item| item.seq > after);
        self.bytes = self.items.iter().map(GapItem::encoded_len).sum();
        // Those were older still.
        self.left_out = 0;
    }

    /// What happened in the group bounds what is known of the asker's membership.
    fn bound(&mut self, asker: &ClientUri, row: &StoredMessage) {
        let seq = Seq(row.seq);
        match serde_json::from_slice(&row.body) {
            Ok(Event::Added { members, epoch, .. } | Event::Removed { members, epoch, .. })
                if members.contains(asker) =>
            {
                self.begins_after(seq, epoch);
            }
            Ok(Event::Joined { epoch, .. }) => self.begins_after(seq, epoch),
            Ok(Event::Missed { to, .. }) => self.begins_after(seq.max(to), Epoch(0)),
            // What does not decode a later version has written, which knows what it means.
            Err(_) | Ok(Event::RemovedFromGroup { .. } | Event::InvitationAnnulled {}) => {
                self.begins_after(seq, Epoch(0));
            }
            Ok(_) => {}
        }
    }

    fn push(&mut self, item: GapItem) {
        self.bytes = self.bytes.saturating_add(item.encoded_len());
        self.items.push_back(item);
        while self.items.len() > GAP_MESSAGES || self.bytes > GAP_BYTES {
            let Some(oldest) = self.items.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(oldest.encoded_len());
            self.left_out += 1;
        }
    }
}

impl Group {
    /// A commit has replaced leaves, and added and removed others.
    pub(super) fn note_replacements(
        &mut self,
        (commit, time): (Seq, Timestamp),
        back: impl IntoIterator<Item = ClientUri>,
        others: impl IntoIterator<Item = ClientUri>,
    ) {
        for client in others {
            self.forget_replaced(&client);
        }
        for client in back.into_iter().collect::<Vec<_>>() {
            if client == self.account.client {
                continue;
            }
            let epoch = self.epoch();
            let replaced = Replaced {
                commit,
                epoch,
                at: time,
                request: None,
                told: false,
                turn: None,
                answered: false,
                given: false,
            };
            self.gaps.replaced.0.insert(client.clone(), replaced);
            self.save_replaced(&client);
        }
    }

    fn save_replaced(&mut self, client: &ClientUri) {
        let key = key_of_client(&self.name, REPLACED, client);
        self.writes.push(match self.gaps.replaced.0.get(client) {
            Some(replaced) => Write::Put { room: Room::GROUP, key, value: record::encode(replaced) },
            None => Write::Delete { room: Room::GROUP, key },
        });
    }

    fn forget_replaced(&mut self, client: &ClientUri) {
        if self.gaps.replaced.0.remove(client).is_some() {
            self.save_replaced(client);
        }
    }

    fn forget_where(&mut self, which: impl Fn(&Replaced) -> bool) {
        let all = self.gaps.replaced.0.iter().filter(|(_, replaced)| which(replaced));
        for client in all.map(|(client, _)| client.clone()).collect::<Vec<_>>() {
            self.forget_replaced(&client);
        }
    }

    pub(super) fn forget_replacements(&mut self) {
        self.forget_where(|_| true);
    }

    pub(super) fn forget_old_replacements(&mut self, now: Timestamp) {
        self.forget_where(|replaced| is_over(replaced.at, now));
    }

    /// Commits are void, and what was replaced and asked since.
    pub(super) fn forget_void_replacements(&mut self, first: Seq) {
        self.forget_where(|replaced| replaced.commit >= first);
        let void = |replaced: &Replaced| replaced.request.as_ref().is_some_and(|asked| asked.place >= first);
        let asked = self.gaps.replaced.0.iter_mut().filter(|(_, replaced)| void(replaced));
        let mut changed = Vec::new();
        for (client, replaced) in asked {
            (replaced.request, replaced.turn) = (None, None);
            (replaced.told, replaced.answered, replaced.given) = (false, false, false);
            changed.push(client.clone());
        }
        for client in changed {
            self.save_replaced(&client);
        }
    }

    /// Takes a request. Of who is not entitled, nothing is kept.
    pub(super) fn take_gap_request(
        &mut self,
        incoming: &Incoming,
        epoch: Epoch,
        asker: &ClientUri,
        content: &[u8],
    ) -> Result<(), Rejection> {
        let request = GapRequest::parse(content).map_err(|_| Rejection::Content)?;
        let Some(replaced) = self.gaps.replaced.0.get_mut(asker) else { return Ok(()) };
        let last = replaced.commit.previous().map_or(Seq(0), |before| before.min(request.last));
        let is_its_own = replaced.commit < incoming.seq && replaced.epoch <= epoch;
        if !is_its_own || replaced.given || is_over(replaced.at, incoming.time) || last < request.first {
            return Ok(());
        }
        // One of several counts, the last; but they are told of once.
        replaced.request = Some(Asked { place: incoming.seq, first: request.first, last, key: request.key });
        self.save_replaced(asker);
        Ok(())
    }

    /// Somebody answers a request.
    pub(super) fn gap_was_answered(&mut self, request: Seq, by: &ClientUri) {
        let is_it = |replaced: &Replaced| replaced.request.as_ref().is_some_and(|asked| asked.place == request);
        let found = self.gaps.replaced.0.iter_mut().find(|(client, replaced)| *client != by && is_it(replaced));
        if let Some((client, replaced)) = found.filter(|(_, replaced)| !replaced.answered) {
            (replaced.answered, replaced.turn) = (true, None);
            let client = client.clone();
            self.save_replaced(&client);
        }
    }

    /// Members that are back, have asked for what they missed, and were not answered by this client.
    pub fn gap_requests(&self) -> impl Iterator<Item = GapAsked> {
        self.gaps.replaced.0.iter().filter(|(_, replaced)| !replaced.given).filter_map(|(member, replaced)| {
            let Asked { place, first, last, key } = replaced.request.as_ref()?;
            Some(GapAsked { member: member.clone(), request: *place, first: *first, last: *last, key: key.to_vec() })
        })
    }

    /// When a request is to be told of, or answered.
    pub(super) fn fill_due(&self) -> Option<Timestamp> {
        if self.status != Status::Active || self.frozen.is_some() {
            return None;
        }
        let due = |replaced: &Replaced| match replaced {
            Replaced { request: Some(_), told: false, .. } => Some(Timestamp(0)),
            replaced => replaced.turn,
        };
        self.gaps.replaced.0.values().filter_map(due).min()
    }

    /// Tells of requests, or answers them, as `choice` has it. To be called when [`Group::due`] says so, before
    /// [`Group::next_submission`]. `page` reads the history: the first so many stored messages of this group after a place, in order, those of one
    /// place together.
    ///
    /// # Errors
    /// That of `page`; then nothing has changed.
    pub fn tend_gaps<E>(
        &mut self,
        choice: GapFill,
        now: Timestamp,
        mut page: impl FnMut(u64, usize) -> Result<Vec<StoredMessage>, E>,
        events: &mut Vec<Event>,
    ) -> Result<(), E> {
        if self.fill_due().is_none_or(|due| due > now) {
            return Ok(());
        }
        for (asker, replaced) in self.gaps.replaced.0.clone() {
            let Some(asked) = replaced.request.as_ref().filter(|_| !replaced.told) else { continue };
            let mut turn = None;
            match choice {
                // Somebody else has taken care of it.
                _ if replaced.answered => {}
                GapFill::Never => {}
                GapFill::Ask => {
                    let found = self.find(&asker, &replaced, asked, &mut page)?;
                    if !found.items.is_empty() {
                        let (first, last, messages) = (asked.first, asked.last, found.items.len() as u64);
                        self.tell(Event::GapRequested { member: asker.clone(), first, last, messages }, now, events);
                    }
                }
                GapFill::Always => turn = Some(now.plus_ms(self.gap_turn_ms())),
            }
            if let Some(replaced) = self.gaps.replaced.0.get_mut(&asker) {
                (replaced.told, replaced.turn) = (true, turn);
            }
            self.save_replaced(&asker);
        }
        let due = self.gaps.replaced.0.iter().filter(|(_, replaced)| replaced.turn.is_some_and(|turn| turn <= now));
        for asker in due.map(|(client, _)| client.clone()).collect::<Vec<_>>() {
            if choice == GapFill::Always
                && let Err(FillError::Store(error)) = self.fill_gap(&asker, now, &mut page, events)
            {
                return Err(error);
            }
            if let Some(replaced) = self.gaps.replaced.0.get_mut(&asker) {
                replaced.turn = None;
            }
            self.save_replaced(&asker);
        }
        Ok(())
    }

    /// How long we wait for others to answer.
    fn gap_turn_ms(&self) -> u64 {
        let rank = self.rank(GAP_RANKS);
        let random =
            if rank < GAP_RANKS { 0 } else { spread(&self.name, &self.account.client, GAP_RANKS * GAP_TURN_MS) };
        rank * GAP_TURN_MS + random
    }

    /// Answers a request: the asker is told by the next submissions. It becomes durable with them as other wishes do. `page` as for
    /// [`Group::tend_gaps`].
    ///
    /// # Errors
    /// Any [`FillError`]; nothing has changed then.
    pub fn fill_gap<E>(
        &mut self,
        asker: &ClientUri,
        now: Timestamp,
        page: impl FnMut(u64, usize) -> Result<Vec<StoredMessage>, E>,
        events: &mut Vec<Event>,
    ) -> Result<GapGiven, FillError<E>> {
        if self.status != Status::Active || self.frozen.is_some() {
            return Err(FillError::NotActive);
        }
        if !self.is_member(asker) {
            return Err(FillError::NoMember(asker.clone()));
        }
        let replaced = self.gaps.replaced.0.get(asker).filter(|replaced| !is_over(replaced.at, now)).cloned();
        let replaced = replaced.ok_or_else(|| FillError::NotEntitled(asker.clone()))?;
        if replaced.given {
            return Err(FillError::Answered(asker.clone()));
        }
        let asked = replaced.request.as_ref().ok_or_else(|| FillError::NobodyAsked(asker.clone()))?;
        let found = self.find(asker, &replaced, asked, page).map_err(FillError::Store)?;
        let (mut parts, too_long) = share_out(found.items.into());
        let excess = parts.len().saturating_sub(usize::from(GAP_PARTS));
        let cut: usize = parts.drain(..excess).map(|part| part.len()).sum();
        let messages: usize = parts.iter().map(Vec::len).sum();
        if messages == 0 {
            return Err(FillError::Nothing(asker.clone()));
        }
        let provider = suite(self.mls.cipher_suite())?;
        let own = self.account.client.clone();
        let context = GapContext { group_id: self.mls.group_id(), teller: &own, request: asked.place };
        let count = u16::try_from(parts.len()).unwrap_or(GAP_PARTS);
        let mut wishes = Vec::new();
        for (part, items) in (0..).zip(&parts) {
            let sealed = GapAnswer::seal(&provider, context, &asked.key, (part, count), items).map_err(fault)?;
            let content = sealed.to_bytes().map_err(fault)?;
            wishes.push(Wish::GapAnswer { asker: asker.clone(), request: asked.place, content });
        }
        for wish in wishes {
            self.wish(wish)?;
        }
        if let Some(replaced) = self.gaps.replaced.0.get_mut(asker) {
            (replaced.given, replaced.told, replaced.turn) = (true, true, None);
        }
        self.save_replaced(asker);
        let given = GapGiven { messages: messages as u64, left_out: found.left_out + (too_long + cut) as u64 };
        let GapGiven { messages, left_out } = given;
        self.tell(Event::GapAnswered { member: asker.clone(), messages, left_out }, now, events);
        Ok(given)
    }

    fn is_member(&self, client: &ClientUri) -> bool {
        self.mls.member_with_identity(client.to_string().as_bytes()).is_ok()
    }

    /// Whether an answer is still of use: who asked is a member, and what it asked is not void.
    pub(super) fn gap_is_open(&self, asker: &ClientUri, request: Seq) -> bool {
        let asked = self.gaps.replaced.0.get(asker).and_then(|replaced| replaced.request.as_ref());
        self.is_member(asker) && asked.is_some_and(|asked| asked.place == request)
    }

    /// What an asker may be told, of what the history has.
    fn find<E>(
        &self,
        asker: &ClientUri,
        replaced: &Replaced,
        asked: &Asked,
        mut page: impl FnMut(u64, usize) -> Result<Vec<StoredMessage>, E>,
    ) -> Result<Found, E> {
        let mut found = Found::default();
        // From the beginning: of the epoch before the one that the asker was added in, messages may stand behind the commit that added it.
        let mut after = 0;
        loop {
            let rows = page(after, PAGE)?;
            let Some(last) = rows.last().map(|row| row.seq) else { break };
            for row in rows.iter().filter(|row| row.seq < replaced.commit.0) {
                match row.kind {
                    KIND_EVENT => found.bound(asker, row),
                    KIND_MESSAGE
                        if (asked.first.0..=asked.last.0).contains(&row.seq) && row.sender != asker.to_string() =>
                    {
                        let (seq, epoch) = (Seq(row.seq), Epoch(row.epoch));
                        let told = seq > found.after && epoch >= found.since && epoch < replaced.epoch;
                        if !told || self.was_annulled(seq, epoch) {
                            continue;
                        }
                        let Ok(sender) = row.sender.parse() else { continue };
                        let (time, id) = (Timestamp(row.time_ms), MessageId::new(row.id));
                        found.push(GapItem { seq, time, sender, id, content: row.body.clone() });
                    }
                    _ => {}
                }
            }
            if last >= replaced.commit.0 || last <= after {
                break;
            }
            after = last;
        }
        Ok(found)
    }
}

#[cfg(test)]
impl Replacements {
    /// As if a client had asked for everything before its return.
    pub(super) fn ask_for_all(&mut self, client: &ClientUri) {
        let replaced = self.0.get_mut(client).unwrap();
        let last = replaced.commit.previous().unwrap();
        let asked = replaced.request.as_mut().unwrap();
        (asked.first, asked.last) = (Seq(1), last);
    }

    /// As if it had come back there.
    pub(super) fn widen(&mut self, client: &ClientUri, last: Seq) {
        let replaced = self.0.get_mut(client).unwrap();
        replaced.commit = last.next();
        replaced.request.as_mut().unwrap().last = last;
    }
}
