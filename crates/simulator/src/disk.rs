//! What survives a client's death.

use std::{collections::BTreeMap, convert::Infallible};

use conclave_engine::{
    group::{KIND_EVENT, KIND_MESSAGE, KIND_TOLD},
    outcome::Event,
    writes::{Room, Rows, StoredMessage, Write},
};
use conclave_names::{Epoch, Seq};
use zeroize::Zeroizing;

/// Rows and messages, as a client's store keeps them.
#[derive(Default, Clone)]
pub(crate) struct Disk {
    rows: BTreeMap<(Room, Vec<u8>), Zeroizing<Vec<u8>>>,
    messages: BTreeMap<(String, u64, [u8; 32]), StoredMessage>,
}

impl Disk {
    /// One transaction.
    pub(crate) fn apply(&mut self, writes: impl IntoIterator<Item = Write>) {
        for write in writes {
            match write {
                Write::Put { room, key, value } => {
                    self.rows.insert((room, key), value);
                }
                Write::Delete { room, key } => {
                    self.rows.remove(&(room, key));
                }
                // As the client's store: a message that came again under its name is there already.
                Write::Message(message) => {
                    let known = message.kind == KIND_MESSAGE
                        && self.messages(&message.group).any(|old| old.id == message.id && old.seq != message.seq);
                    if !known {
                        self.messages.insert((message.group.clone(), message.seq, message.id), message);
                    }
                }
            }
        }
    }

    /// A group's messages by their places.
    pub(crate) fn messages(&self, group: &str) -> impl Iterator<Item = &StoredMessage> {
        self.messages.values().filter(move |message| message.group == group && message.kind == KIND_MESSAGE)
    }

    /// What a group's members have told of, by its places.
    pub(crate) fn told(&self, group: &str) -> impl Iterator<Item = &StoredMessage> {
        self.messages.values().filter(move |message| message.group == group && message.kind == KIND_TOLD)
    }

    /// All that is kept of a group's history after a place, as the client's store pages it.
    pub(crate) fn page(&self, group: &str, after: u64, limit: usize) -> Vec<StoredMessage> {
        let all = self.messages.range((group.to_owned(), after.saturating_add(1), [0; 32])..);
        let mut page: Vec<StoredMessage> = Vec::new();
        for (_, message) in all.take_while(|((of, ..), _)| of == group) {
            if page.len() >= limit && page.last().is_some_and(|last| last.seq != message.seq) {
                break;
            }
            page.push(message.clone());
        }
        page
    }

    /// What a group's history says that happened, besides messages, with its places.
    pub(crate) fn events(&self, group: &str) -> impl Iterator<Item = (Seq, Event)> {
        let of = self.messages.values().filter(move |row| row.group == group && row.kind == KIND_EVENT);
        of.filter_map(|row| Some((Seq(row.seq), serde_json::from_slice(&row.body).ok()?)))
    }

    /// Whether a message is there under this name, from another place.
    pub(crate) fn has_message(&self, id: &[u8; 32], other_than: Seq) -> bool {
        let same = |message: &StoredMessage| message.kind == KIND_MESSAGE && message.id == *id;
        self.messages.values().any(|message| same(message) && message.seq != other_than.0)
    }

    /// The place and the epoch of a message of a group, by its name.
    pub(crate) fn place_of(&self, group: &str, id: &[u8; 32]) -> Option<(Seq, Epoch)> {
        let found = self.messages(group).find(|message| message.id == *id)?;
        Some((Seq(found.seq), Epoch(found.epoch)))
    }

    /// For planted faults only.
    pub(crate) fn forget(&mut self, room: Room) {
        self.rows.retain(|(in_room, _), _| *in_room != room);
    }
}

impl Rows for Disk {
    type Error = Infallible;

    fn get(&self, room: Room, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, Infallible> {
        Ok(self.rows.get(&(room, key.to_vec())).cloned())
    }

    fn scan(&self, room: Room, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Zeroizing<Vec<u8>>)>, Infallible> {
        let rows = self.rows.range((room, prefix.to_vec())..);
        let rows = rows.take_while(|((in_room, key), _)| *in_room == room && key.starts_with(prefix));
        Ok(rows.map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }
}
