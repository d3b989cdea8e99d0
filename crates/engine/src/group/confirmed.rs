//! Who of the new members has shown that it is there.
//!
//! A member counts as such only once it has contributed something that only it could make (RFC 9750, section 3.7): until then its
//! Welcome may have been lost, or not have opened. Those who were members when we joined are taken for confirmed.

use conclave_names::{ClientUri, GroupUri};
use zeroize::Zeroizing;

use super::{Group, row};
use crate::{
    record::RecordError,
    writes::{Room, Write},
};

/// Prefix of the rows, one a member.
pub(super) const UNCONFIRMED: &[u8] = b"unconfirmed/";

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
    /// A commit added and removed members. One that was removed and added again has to show itself anew.
    pub(super) fn members_changed(&mut self, added: &[ClientUri], removed: &[ClientUri]) {
        for client in added {
            self.note_present(client, self.epoch());
        }
        for client in removed {
            self.confirm_member(client);
        }
        for client in added.iter().filter(|client| **client != self.account.client) {
            if self.unconfirmed.insert(client.clone()) {
                let key = key_of_client(&self.name, UNCONFIRMED, client);
                self.writes.push(Write::Put { room: Room::GROUP, key, value: Zeroizing::new(Vec::new()) });
            }
        }
    }

    /// A member sent something that MLS verified to be its own.
    pub(super) fn confirm_member(&mut self, client: &ClientUri) {
        self.note_present(client, self.epoch());
        self.note_beside(client);
        if self.unconfirmed.remove(client) {
            self.writes.push(Write::Delete { room: Room::GROUP, key: key_of_client(&self.name, UNCONFIRMED, client) });
        }
    }
}
