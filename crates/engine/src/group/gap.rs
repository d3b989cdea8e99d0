//! What this client could not read while it could not follow the group, and how members tell it once it is back (RFC 9750, section 6.6).
//!
//! Who comes back, by its own commit or let in by a member, knows which places of the channel it has passed over. It asks for them once, by
//! a message with a fresh HPKE key; who answers, and with what, is for the members to decide (`gap_fill`). The MLS signatures of those
//! messages are gone for it, so who said them is the teller's word: it is marked as such in the history ([`KIND_TOLD`]), and held against what
//! can be checked: the places, and that a message's name is the hash of what its sender is said to have said.
//!
//! Rows under the group's prefix: `gap` (places, key, who has answered what), and one for each part that was told, `gap-told/` and the part's
//! place, with the names of its messages; and `away`, for as long as the group is there. The others go once one member's answer is complete, after [`GAP_MS`], or with the membership.

use std::collections::BTreeSet;

use conclave_mls::{
    content::{Content, MessageId},
    gap::{GAP_PARTS, GapAnswer, GapContext, GapItem, GapRequest},
};
use conclave_names::{ClientUri, GroupUri, Seq, Timestamp, limits};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};
use mls_rs_core::crypto::{CipherSuiteProvider as _, HpkePublicKey, HpkeSecretKey};
use zeroize::Zeroizing;

use super::{Group, Known, Status, access::fault, gap_fill::Replacements, process::Incoming, row};
use crate::{
    intent::Wish,
    mls_client::{MlsError, suite},
    outcome::{Event, Rejection},
    record::{self, RecordError, Text},
    writes::{Room, Rows, StoredMessage, Write},
};

/// `StoredMessage.kind` of a message that a member has told of: the body is a [`Told`].
pub const KIND_TOLD: u8 = 3;

/// How long this client waits for an answer, and members give one, in milliseconds: 7 days. Then the key is wiped.
pub const GAP_MS: u64 = 7 * 86_400_000;

/// Most messages in one member's answer.
pub const GAP_MESSAGES: usize = 10_000;

/// Key of the row with what is asked for.
const GAP: &[u8] = b"gap";

/// Prefix of the rows with what was told.
const TOLD: &[u8] = b"gap-told/";

/// Key of the row that says that this client came back.
const AWAY: &[u8] = b"away";

/// Members whose answers are taken, of one gap.
const TELLERS: usize = 8;

/// Stretches of the channel that are asked for together; of more, the oldest is given up.
const SPANS: usize = 8;

/// Places at which one request may stand: it may be ordered more than once.
const PLACES: usize = 4;

/// The body of a stored message that a member has told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Whose word it is.
    pub teller: ClientUri,
    /// The encoded [`Content`].
    pub content: Vec<u8>,
}

#[derive(MlsSize, MlsEncode, MlsDecode)]
struct ToldRow {
    teller: Text,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    content: Vec<u8>,
}

impl Told {
    fn to_body(&self) -> Vec<u8> {
        record::encode(&ToldRow { teller: Text::new(&self.teller), content: self.content.clone() }).to_vec()
    }

    /// From the body of a stored message of [`KIND_TOLD`].
    ///
    /// # Errors
    /// [`RecordError`] if it does not decode, or was written by a later version.
    pub fn parse(body: &[u8]) -> Result<Self, RecordError> {
        let row: ToldRow = record::decode(body)?;
        Ok(Self { teller: row.teller.parse()?, content: row.content })
    }
}

/// A stretch of the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
struct Span {
    first: Seq,
    /// None: up to the commit by which a member let us in, whose place we have yet to read.
    last: Option<Seq>,
}

#[derive(Clone, MlsSize, MlsEncode, MlsDecode)]
struct Key {
    secret: HpkeSecretKey,
    public: HpkePublicKey,
}

/// A part that was told, and from which place to which.
#[derive(Clone, Copy, MlsSize, MlsEncode, MlsDecode)]
struct Part {
    number: u16,
    first: Seq,
    last: Seq,
}

#[derive(Clone, MlsSize, MlsEncode, MlsDecode)]
struct Teller {
    client: Text,
    parts: u16,
    told: Vec<Part>,
    items: u32,
}

/// What we ask for.
#[derive(Clone, MlsSize, MlsEncode, MlsDecode)]
pub(super) struct Gap {
    spans: Vec<Span>,
    /// When we came back.
    since: Timestamp,
    /// Of the request, once it was made.
    key: Option<Key>,
    /// Where the request stands.
    places: Vec<Seq>,
    tellers: Vec<Teller>,
}

/// A part of an answer that was opened and believed.
struct Arrived {
    teller: ClientUri,
    parts: u16,
    part: u16,
    items: Vec<GapItem>,
}

/// Gaps of ours and of others.
#[derive(Default)]
pub(super) struct Gaps {
    own: Option<Gap>,
    /// Names of what was told of the present gap, so that the first word counts.
    told: BTreeSet<MessageId>,
    /// The entries that told it, by which its rows are named.
    told_at: BTreeSet<Seq>,
    arrived: Option<Arrived>,
    /// Whether we came back since we joined first: then we were a member all the time.
    away: bool,
    /// Others that are back.
    pub(super) replaced: Replacements,
}

/// What an incarnation of the group leaves to the next.
#[derive(Default)]
pub(crate) struct GapHeritage(Option<Gap>, BTreeSet<MessageId>);

fn told_key(group: &GroupUri, at: Seq) -> Vec<u8> {
    row::key(group, &[TOLD, &at.0.to_be_bytes()].concat())
}

/// Reads the rows of a group that is being loaded.
pub(super) fn load<R: Rows>(rows: &R, name: &GroupUri) -> Result<Gaps, row::LoadError<R::Error>> {
    let pieced = |key: &[u8]| crate::pieces::scan(rows, &row::prefix(name), Room::GROUP, key);
    let own = crate::pieces::get(rows, &row::prefix(name), Room::GROUP, &row::key(name, GAP))?;
    let own = own.map(|row| record::decode(&row)).transpose()?;
    let (mut told, mut told_at) = (BTreeSet::new(), BTreeSet::new());
    for (key, value) in pieced(&row::key(name, TOLD))? {
        let names: Vec<[u8; 32]> = record::decode(&value)?;
        told.extend(names.into_iter().map(MessageId::new));
        told_at.insert(Seq(u64::from_be_bytes(*key.last_chunk().ok_or(RecordError::Damaged)?)));
    }
    let replaced = Replacements::load(rows, name)?;
    let away = rows.get(Room::GROUP, &row::key(name, AWAY)).map_err(row::LoadError::Store)?.is_some();
    Ok(Gaps { own, told, told_at, arrived: None, away, replaced })
}

impl Gap {
    /// Asks for one stretch more, and for all of them anew.
    fn open(&mut self, span: Span, now: Timestamp) {
        (self.since, self.key, self.places, self.tellers) = (now, None, Vec::new(), Vec::new());
        match self.spans.last_mut() {
            // It reaches up to what we have yet to read.
            Some(before) if before.last.is_none() => before.last = span.last,
            Some(before) if before.last.is_some_and(|last| last.next() >= span.first) => {
                before.last = span.last.map(|last| before.last.map_or(last, |before| before.max(last)));
            }
            _ => self.spans.push(span),
        }
        let excess = self.spans.len().saturating_sub(SPANS);
        self.spans.drain(..excess);
    }

    /// Leaves out what has no places.
    fn close_up(&mut self, joined_at: Option<Seq>) {
        let end = joined_at.and_then(Seq::previous);
        for span in &mut self.spans {
            span.last = span.last.or(end);
        }
        self.spans.retain(|span| span.last.is_none_or(|last| span.first <= last));
    }

    /// Whether a place is one that the request names: from the first that is asked for to the last.
    fn spans_over(&self, seq: Seq) -> bool {
        let (first, last) = (self.spans.first(), self.spans.last());
        first.is_some_and(|span| span.first <= seq) && last.and_then(|span| span.last).is_some_and(|last| seq <= last)
    }

    /// Whether it is one that we missed. Between two stretches are others, of which the teller does not know.
    fn has(&self, seq: Seq) -> bool {
        self.spans.iter().any(|span| seq >= span.first && span.last.is_some_and(|last| seq <= last))
    }
}

impl Group {
    /// We are back, and have not read what stands from one place to another; none: up to the commit that let us in.
    pub(super) fn open_gap(&mut self, first: Seq, last: Option<Seq>, now: Timestamp) {
        self.gaps.away = true;
        let key = row::key(&self.name, AWAY);
        self.writes.push(Write::Put { room: Room::GROUP, key, value: Zeroizing::new(Vec::new()) });
        let is_empty = last.is_some_and(|last| last < first);
        if is_empty && self.gaps.own.is_none() {
            return;
        }
        let gap = self.gaps.own.get_or_insert_with(|| Gap {
            spans: Vec::new(),
            since: now,
            key: None,
            places: Vec::new(),
            tellers: Vec::new(),
        });
        gap.open(Span { first, last }, now);
        // What was asked was asked by the leaf that is replaced.
        let asking = self.intents.iter().filter(|(_, intent)| matches!(intent.wish, Wish::GapRequest { .. }));
        for order in asking.map(|(order, _)| *order).collect::<Vec<_>>() {
            self.drop_intent(order);
        }
        self.save_gap();
    }

    fn save_gap(&mut self) {
        let key = row::key(&self.name, GAP);
        self.writes.push(match &self.gaps.own {
            Some(gap) => Write::Put { room: Room::GROUP, key, value: record::encode(gap) },
            None => Write::Delete { room: Room::GROUP, key },
        });
    }

    /// What the next incarnation asks for as well.
    pub(super) fn gap_heritage(&mut self) -> GapHeritage {
        GapHeritage(self.gaps.own.take(), std::mem::take(&mut self.gaps.told))
    }

    /// A member let us in again; nothing was read since this place.
    pub(super) fn inherit_gap(&mut self, heritage: GapHeritage, unread: Seq, now: Timestamp) {
        if unread == Seq(u64::MAX) {
            // It was removed in between, and nobody tells it anything.
            return;
        }
        let GapHeritage(own, told) = heritage;
        self.gaps.own = own;
        if !told.is_empty() {
            self.save_told(Seq(0), told.iter());
            self.gaps.told = told;
        }
        self.open_gap(unread, None, now);
    }

    fn save_told<'a>(&mut self, at: Seq, names: impl Iterator<Item = &'a MessageId>) {
        let names: Vec<[u8; 32]> = names.map(|name| *name.as_bytes()).collect();
        let (key, value) = (told_key(&self.name, at), record::encode(&names));
        self.gaps.told_at.insert(at);
        self.writes.push(Write::Put { room: Room::GROUP, key, value });
    }

    /// What this client could not read and waits to be told of: from the first place to the last. None: nothing, or not known yet.
    #[must_use]
    pub fn gap(&self) -> Option<(Seq, Seq)> {
        let gap = self.gaps.own.as_ref()?;
        Some((gap.spans.first()?.first, gap.spans.last()?.last?))
    }

    /// Whether we came back into a group of which we were a member all the time.
    pub(super) fn was_away(&self) -> bool {
        self.gaps.away
    }

    /// Whether it is time to ask.
    fn asks_for_gap(&self) -> bool {
        let place = |gap: &Gap| self.joined_at.is_some() || gap.spans.iter().all(|span| span.last.is_some());
        self.gaps.own.as_ref().is_some_and(|gap| gap.key.is_none() && place(gap))
            && self.status == Status::Active
            && self.lost.is_none()
            && self.frozen.is_none()
            && self.intents.is_empty()
            && self.ledger.members() > 1
            && !self.mls.commit_required()
    }

    /// When something is to be done about gaps: ours, to ask or to give up; those of others, to tell of them or to answer.
    pub(super) fn gap_due(&self) -> Option<Timestamp> {
        let asks = self.asks_for_gap().then_some(Timestamp(0));
        let over = self.gaps.own.as_ref().map(|gap| gap.since.plus_ms(GAP_MS));
        asks.into_iter().chain(over).chain(self.fill_due()).min()
    }

    /// The wish to ask for what was missed, once. Its key becomes durable with it.
    pub(super) fn gap_wish(&mut self) -> Result<Option<Wish>, MlsError> {
        if !self.asks_for_gap() {
            return Ok(None);
        }
        let joined_at = self.joined_at;
        let Some(gap) = &mut self.gaps.own else { return Ok(None) };
        gap.close_up(joined_at);
        let ends = gap.spans.first().zip(gap.spans.last());
        let Some((first, last)) = ends.and_then(|(first, last)| Some((first.first, last.last?))) else {
            self.forget_own_gap();
            return Ok(None);
        };
        let provider = suite(self.mls.cipher_suite())?;
        let (secret, public) = provider.kem_generate().map_err(fault)?;
        let content = GapRequest::new(first, last, public.clone()).to_bytes().map_err(fault)?;
        gap.key = Some(Key { secret, public });
        self.save_gap();
        Ok(Some(Wish::GapRequest { content }))
    }

    /// Whether a request is still of use.
    pub(super) fn asks_by(&self, content: &[u8]) -> bool {
        let key = self.gaps.own.as_ref().and_then(|gap| gap.key.as_ref());
        GapRequest::parse(content).is_ok_and(|request| key.is_some_and(|key| key.public == request.key))
    }

    /// A request of ours stands in the channel.
    pub(super) fn gap_requested(&mut self, content: &[u8], at: Seq) {
        if !self.asks_by(content) {
            return;
        }
        if let Some(gap) = &mut self.gaps.own {
            gap.places.push(at);
            let excess = gap.places.len().saturating_sub(PLACES);
            gap.places.drain(..excess);
            self.save_gap();
        }
    }

    /// Commits are void, and what was asked since: it is asked anew.
    pub(super) fn gap_annulled(&mut self, first: Seq) {
        self.forget_void_replacements(first);
        let Some(gap) = &mut self.gaps.own else { return };
        let before = gap.places.len();
        gap.places.retain(|place| *place < first);
        // What is still under way keeps its key.
        if before > 0 && gap.places.is_empty() {
            gap.key = None;
            self.save_gap();
        } else if gap.places.len() < before {
            self.save_gap();
        }
    }

    /// Nothing more is asked for: the key goes.
    fn forget_own_gap(&mut self) {
        if self.gaps.own.take().is_none() && self.gaps.told.is_empty() {
            return;
        }
        self.save_gap();
        self.gaps.told.clear();
        for at in std::mem::take(&mut self.gaps.told_at) {
            self.writes.push(Write::Delete { room: Room::GROUP, key: told_key(&self.name, at) });
        }
    }

    /// Gives up what nobody told of in time, or may be asked for too late.
    pub(super) fn forget_old_gaps(&mut self, now: Timestamp) {
        if self.gaps.own.as_ref().is_some_and(|gap| is_over(gap.since, now)) {
            self.forget_own_gap();
        }
        self.forget_old_replacements(now);
    }

    /// We are no member any more.
    pub(super) fn forget_gaps(&mut self) {
        self.forget_own_gap();
        self.forget_replacements();
    }

    /// Takes a part of an answer, to whomever.
    pub(super) fn take_gap_answer(
        &mut self,
        incoming: &Incoming,
        teller: &ClientUri,
        content: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), Rejection> {
        let answer = GapAnswer::parse(content).map_err(|_| Rejection::Content)?;
        self.gap_was_answered(answer.request, teller);
        let Some(gap) = self.gaps.own.as_ref().filter(|gap| gap.places.contains(&answer.request)) else {
            return Ok(());
        };
        let is_it = |known: &&Teller| known.client == Text::new(teller);
        let known = gap.tellers.iter().find(is_it);
        if known.is_some_and(|known| known.told.iter().any(|part| part.number == answer.part)) {
            return Ok(());
        }
        match self.believe(gap, known, &answer, teller, incoming.time) {
            Ok(items) => {
                let (parts, part) = (answer.parts, answer.part);
                self.gaps.arrived = Some(Arrived { teller: teller.clone(), parts, part, items });
            }
            Err(reason) => {
                let reason = format!("what {teller} tells of what was missed is not believed: {reason}");
                events.push(Event::Refused { seq: incoming.seq, reason });
            }
        }
        Ok(())
    }

    /// Opens a part and checks all that can be checked. One item that does not pass, and none of them counts.
    fn believe(
        &self,
        gap: &Gap,
        known: Option<&Teller>,
        answer: &GapAnswer,
        teller: &ClientUri,
        now: Timestamp,
    ) -> Result<Vec<GapItem>, String> {
        if known.is_none() && gap.tellers.len() >= TELLERS {
            return Err("too many others have told of it".to_owned());
        }
        if known.is_some_and(|known| known.parts != answer.parts) {
            return Err("its parts are of two answers".to_owned());
        }
        let key = gap.key.as_ref().ok_or("nothing is asked for")?;
        let provider = suite(self.mls.cipher_suite()).map_err(|error| error.to_string())?;
        let context = GapContext { group_id: self.mls.group_id(), teller, request: answer.request };
        let opened = answer.open(&provider, context, &key.secret, &key.public);
        let items = opened.map_err(|error| error.to_string())?;
        let before = known.map_or(0, |known| known.items as usize);
        if items.is_empty() || before.saturating_add(items.len()) > GAP_MESSAGES {
            return Err(format!("an answer has between one message and {GAP_MESSAGES}"));
        }
        if !items.is_sorted_by(|one, next| one.seq < next.seq) {
            return Err("its messages are not in order, one at each place".to_owned());
        }
        let (first, last) = (items.first().map(|item| item.seq), items.last().map(|item| item.seq));
        let meets = |part: &Part| Some(part.last) >= first && Some(part.first) <= last;
        if known.is_some_and(|known| known.told.iter().any(meets)) {
            return Err("two of its parts are about the same places".to_owned());
        }
        for item in &items {
            if !gap.spans_over(item.seq) {
                return Err(format!("entry {} is none that was missed", item.seq));
            }
            if item.time > now || item.time.0 > limits::TIME_MAX {
                return Err(format!("entry {} is of a time to come", item.seq));
            }
            if item.sender == self.account.client {
                return Err(format!("entry {} is said to be this client's own", item.seq));
            }
            let content = Content::parse(&item.content).map_err(|error| error.to_string())?;
            if item.id != MessageId::of(item.sender.user(), &self.profile.room, &item.content, &content.salt) {
                return Err(format!("entry {} has another name than its content", item.seq));
            }
        }
        Ok(items)
    }

    /// Forgets what the entry before may have brought.
    pub(super) fn nothing_told(&mut self) {
        self.gaps.arrived = None;
    }

    /// Puts what the present entry has told into the history, but for what is there already.
    pub(super) fn keep_told(
        &mut self,
        incoming: &Incoming,
        known: &mut impl FnMut(&MessageId) -> Known,
        events: &mut Vec<Event>,
    ) {
        let Some(Arrived { teller, parts, part, items }) = self.gaps.arrived.take() else { return };
        let (first, last) = (items.first().map(|item| item.seq), items.last().map(|item| item.seq));
        let (Some(first), Some(last), count) = (first, last, items.len()) else { return };
        let mut fresh = Vec::new();
        for item in items {
            let missed = self.gaps.own.as_ref().is_some_and(|gap| gap.has(item.seq));
            let here = self.heard.contains(&item.id) || known(&item.id) != Known::No;
            if here || !missed || !self.gaps.told.insert(item.id) {
                continue;
            }
            fresh.push(item.id);
            self.writes.push(Write::Message(StoredMessage {
                group: self.name.to_string(),
                seq: item.seq.0,
                epoch: self.epoch().0,
                id: *item.id.as_bytes(),
                sender: item.sender.to_string(),
                time_ms: item.time.0,
                kind: KIND_TOLD,
                body: Told { teller: teller.clone(), content: item.content }.to_body(),
            }));
        }
        self.save_told(incoming.seq, fresh.iter());
        let Some(gap) = &mut self.gaps.own else { return };
        let client = Text::new(&teller);
        let at = gap.tellers.iter().position(|known| known.client == client).unwrap_or_else(|| {
            gap.tellers.push(Teller { client, parts, told: Vec::new(), items: 0 });
            gap.tellers.len() - 1
        });
        let Some(known) = gap.tellers.get_mut(at) else { return };
        known.told.push(Part { number: part, first, last });
        known.items = known.items.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        let complete = known.told.len() >= usize::from(known.parts.min(GAP_PARTS));
        if complete {
            self.forget_own_gap();
        } else {
            self.save_gap();
        }
        events.push(Event::GapFilled { by: teller, messages: fresh.len() as u64, complete });
    }
}

/// Whether what began then lasts no longer. What was noted by a clock that was far ahead does not count.
pub(super) fn is_over(since: Timestamp, now: Timestamp) -> bool {
    since.plus_ms(GAP_MS) <= now || since > now.plus_ms(GAP_MS)
}

#[cfg(test)]
#[path = "gap_tests.rs"]
mod tests;
