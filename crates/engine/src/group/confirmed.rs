//! Who of the new members has shown that it is there.
//!
//! A member counts as such only once it has contributed something that only it could make (RFC 9750, section 3.7): until then its
//! Welcome may have been lost, or not have opened. Those who were members when we joined are taken for confirmed. Of who was added and has not
//! shown itself, a member that we know may have lost its way before: it is let in once more if it asks later (`knock`).

use conclave_names::{ClientUri, GroupUri, Timestamp};

use super::{Group, row};
use crate::{
    record::{self, RecordError},
    writes::{Room, Write},
};

/// Prefix of the rows, one a member, with the time at which it was added.
pub(super) const UNCONFIRMED: &[u8] = b"unconfirmed/";

/// When a member was added, from the value of its row. Earlier versions have not noted it.
pub(super) fn added_at(value: &[u8]) -> Result<Timestamp, RecordError> {
    if value.is_empty() { Ok(Timestamp(0)) } else { record::decode(value) }
}

/// Key of a row about a client: what those of its kind begin with, and the client's name.
pub(super) fn key_of_client(group: &GroupUri, kind: &[u8], client: &ClientUri) -> Vec<u8> {
    row::key(group, &[kind, client.to_string().as_bytes()].concat())
}

/// Whom a row is about, of those whose keys begin like this.
pub(super) fn client_of_key(group: &GroupUri, kind: &[u8], key: &[u8]) -> Result<ClientUri, RecordError> {
    let text = key.strip_prefix(row::key(group, kind).as_slice()).ok_or(RecordError::Damaged)?;
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(RecordError::Damaged)
}

impl Group {
    /// A commit added and removed members at this time. One that was removed and added again has to show itself anew.
    pub(super) fn members_changed(&mut self, added: &[ClientUri], removed: &[ClientUri], time: Timestamp) {
        for client in added {
            self.note_present(client, self.epoch());
        }
        for client in removed {
            self.confirm_member(client);
        }
        for client in added.iter().filter(|client| **client != self.account.client) {
            self.unconfirmed.insert(client.clone(), time);
            let key = key_of_client(&self.name, UNCONFIRMED, client);
            self.writes.push(Write::Put { room: Room::GROUP, key, value: record::encode(&time) });
        }
    }

    /// A member sent something that MLS verified to be its own.
    pub(super) fn confirm_member(&mut self, client: &ClientUri) {
        self.note_present(client, self.epoch());
        self.note_beside(client);
        if self.unconfirmed.remove(client).is_some() {
            self.writes.push(Write::Delete { room: Room::GROUP, key: key_of_client(&self.name, UNCONFIRMED, client) });
        }
    }
}
