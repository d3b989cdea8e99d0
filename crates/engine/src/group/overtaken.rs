//! Messages and proposals of ours that were made anew, because their epoch had ended or was annulled, but that may be ordered all
//! the same. MLS gives nobody a message of its own to read, so who must know them again keeps what they say.
//!
//! One of an epoch that stands is what we said: others read it. One of an epoch that is void is read by nobody, whatever epoch
//! has the number now.

use std::collections::BTreeMap;

use conclave_channel::{Entry, chain::entry_hash};
use conclave_mls::content::{Content, MessageId};
use conclave_names::{Epoch, GroupUri, Hash};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};
use zeroize::Zeroizing;

use super::{Group, process::Incoming, row};
use crate::{
    intent::{Prepared, Wish},
    outcome::{Event, Outcome},
    record::{self, RecordError},
    writes::{Room, Write},
};

/// Prefix of the rows.
pub(super) const OVERTAKEN: &[u8] = b"overtaken/";

/// Most that are kept; the oldest go first.
const MOST: usize = 64;

/// What an entry of ours says.
#[derive(Clone, PartialEq, Eq)]
enum Said {
    Message {
        id: MessageId,
        content: Vec<u8>,
    },
    /// Something that no history shows.
    Heartbeat,
    Leave,
    GapRequest {
        content: Vec<u8>,
    },
}

#[derive(Clone)]
struct Own {
    said: Said,
    /// Whether its epoch was annulled.
    void: bool,
}

#[derive(MlsSize, MlsEncode, MlsDecode)]
struct Row {
    kind: u8,
    void: bool,
    id: [u8; 32],
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    content: Vec<u8>,
}

/// By their epochs and their entries' hashes.
#[derive(Default)]
pub(super) struct Overtaken(BTreeMap<(Epoch, Hash), Own>);

fn key(group: &GroupUri, (epoch, entry): &(Epoch, Hash)) -> Vec<u8> {
    row::key(group, &[OVERTAKEN, &epoch.0.to_be_bytes(), entry.as_bytes()].concat())
}

impl Own {
    fn to_row(&self) -> Zeroizing<Vec<u8>> {
        let (kind, id, content) = match &self.said {
            Said::Message { id, content } => (1, *id.as_bytes(), content.clone()),
            Said::Heartbeat => (2, [0; 32], Vec::new()),
            Said::Leave => (3, [0; 32], Vec::new()),
            Said::GapRequest { content } => (4, [0; 32], content.clone()),
        };
        record::encode(&Row { kind, void: self.void, id, content })
    }

    fn from_row(bytes: &[u8]) -> Result<Self, RecordError> {
        let row: Row = record::decode(bytes)?;
        let said = match row.kind {
            1 => Said::Message { id: MessageId::new(row.id), content: row.content },
            2 => Said::Heartbeat,
            3 => Said::Leave,
            4 => Said::GapRequest { content: row.content },
            _ => return Err(RecordError::Damaged),
        };
        Ok(Self { said, void: row.void })
    }
}

impl Overtaken {
    /// From its rows.
    pub(super) fn load(group: &GroupUri, rows: Vec<(Vec<u8>, Zeroizing<Vec<u8>>)>) -> Result<Self, RecordError> {
        let prefix = row::key(group, OVERTAKEN);
        let mut entries = BTreeMap::new();
        for (key, value) in rows {
            let name = row::entry_named(&prefix, &key)?;
            entries.insert(name, Own::from_row(&value)?);
        }
        Ok(Self(entries))
    }
}

impl Group {
    /// Keeps what an entry says that is made anew, or need not be made any more.
    pub(super) fn overtake(&mut self, wish: &Wish, prepared: &Prepared, void: bool) {
        let said = match wish {
            Wish::Send { content, id } => Said::Message { id: *id, content: content.clone() },
            // What an answer says would be said twice, which does no harm.
            Wish::Heartbeat | Wish::GapAnswer { .. } => Said::Heartbeat,
            Wish::GapRequest { content } => Said::GapRequest { content: content.clone() },
            Wish::Leave => Said::Leave,
            _ => return,
        };
        let name = (prepared.epoch, entry_hash(&prepared.entry));
        let own = Own { said, void };
        self.writes.push(Write::Put { room: Room::GROUP, key: key(&self.name, &name), value: own.to_row() });
        self.overtaken.0.insert(name, own);
        while self.overtaken.0.len() > MOST {
            self.forget_overtaken();
        }
    }

    /// What is of epochs after this one is void.
    pub(super) fn overtaken_void(&mut self, after: Epoch) {
        let void = self.overtaken.0.range_mut((after.next(), Hash::new([0; 32]))..);
        for (name, own) in void.filter(|(_, own)| !own.void) {
            own.void = true;
            self.writes.push(Write::Put { room: Room::GROUP, key: key(&self.name, name), value: own.to_row() });
        }
    }

    /// Takes an entry that is ours, though no change under way is made of it; none if it is not.
    pub(super) fn take_overtaken(
        &mut self,
        entry: &Entry,
        incoming: &Incoming,
        events: &mut Vec<Event>,
    ) -> Option<Outcome> {
        let own = self.overtaken.0.get(&(entry.epoch, entry_hash(&incoming.entry)))?.clone();
        if self.is_own_again(entry, incoming) {
            return Some(Outcome::Duplicate);
        }
        self.note_own(entry.epoch, &incoming.entry);
        if own.void || self.is_read_by_none(entry.epoch) || self.is_behind_a_copy(entry.epoch) {
            return Some(Outcome::Stale);
        }
        match own.said {
            Said::Message { id, content } => {
                if let Ok(parsed) = Content::parse(&content) {
                    let sender = self.account.client.clone();
                    self.store_message(incoming, entry.epoch, sender, &parsed, content, events);
                }
                let again = |wish: &Wish| matches!(wish, Wish::Send { id: other, .. } if *other == id);
                let found = self.intents.iter().find(|(_, intent)| again(&intent.wish));
                if let Some((order, intent)) = found.map(|(order, intent)| (*order, intent.clone())) {
                    // It is said. What was made of it anew may be on its way as well.
                    if let Some(prepared) = &intent.prepared {
                        self.overtake(&intent.wish, prepared, false);
                    }
                    self.keep_done(order, &intent, entry.epoch, None);
                    self.drop_intent(order);
                }
            }
            Said::Heartbeat => {}
            Said::GapRequest { content } => self.gap_requested(&content, incoming.seq),
            Said::Leave => {
                self.proposed_at.get_or_insert(incoming.time);
                self.touched = true;
                let found = self.intents.iter_mut().find(|(_, intent)| intent.wish == Wish::Leave);
                if let Some(order) = found.map(|(order, intent)| {
                    intent.ordered = true;
                    *order
                }) {
                    self.save_intent(order);
                }
                events.push(Event::LeaveRequested { member: self.account.client.clone() });
            }
        }
        Some(Outcome::Confirmed)
    }

    /// Forgets those that the DS takes no more: it takes messages of the present epoch and the one before.
    pub(super) fn prune_overtaken(&mut self) {
        let settled = self.ledger.settled();
        while self.overtaken.0.first_key_value().is_some_and(|((epoch, _), _)| epoch.next() < settled) {
            self.forget_overtaken();
        }
    }

    fn forget_overtaken(&mut self) {
        if let Some((name, _)) = self.overtaken.0.pop_first() {
            self.writes.push(Write::Delete { room: Room::GROUP, key: key(&self.name, &name) });
        }
    }
}
