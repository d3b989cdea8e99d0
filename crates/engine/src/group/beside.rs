//! A group that may be what has become of another.
//!
//! Who could not follow a group, and has asked members to let it in, may be invited to another group of the same room. That may be what the
//! group has become: it was made anew meanwhile. Or a member lures: the room is a name that whoever makes a group writes into it, and
//! whom else it lists only those show who do something there. So unless the log of the old group, or a device of our own user, speaks for the new one,
//! both stand beside each other: the old one is left when another user who was known there has done something in the new one, and most who were known
//! are in it. Until then, what waits in the old one waits, and members of it are asked.
//!
//! Row: `beside` under the new group's prefix.

use std::collections::{BTreeMap, BTreeSet};

use conclave_names::{ClientUri, GroupUri, UserUri};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};

use super::{Group, Status, access::own_channel_key, reinit::members_of, row};
use crate::{
    pieces,
    record::{self, Text},
    writes::{Room, Rows, Write},
};

/// Key of the row.
const BESIDE: &[u8] = b"beside";

/// Clients that are remembered, of those that did something.
const HEARD: usize = 64;

/// By whom this client was invited to a group that may be what has become of another, and who else has done something in it since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beside {
    by: ClientUri,
    heard: BTreeSet<ClientUri>,
}

#[derive(MlsSize, MlsEncode, MlsDecode)]
struct BesideRow {
    by: Text,
    heard: Vec<Text>,
}

impl Beside {
    /// Whether it is shown to be what it may be, where `users` are those who were known in the other group: another of them than the user
    /// who has invited us did something. Where there is no other, nobody can lure.
    #[must_use]
    pub fn is_shown_by(&self, users: &BTreeSet<UserUri>) -> bool {
        let other = |user: &UserUri| user != self.by.user();
        !users.iter().any(other)
            || self.heard.iter().any(|client| users.contains(client.user()) && other(client.user()))
    }
}

/// Reads the row of a group; none if it stands beside no other.
///
/// # Errors
/// [`row::LoadError`].
pub fn beside<R: Rows>(rows: &R, name: &GroupUri) -> Result<Option<Beside>, row::LoadError<R::Error>> {
    let Some(row) = pieces::get(rows, &row::key(name, b""), Room::GROUP, &row::key(name, BESIDE))? else {
        return Ok(None);
    };
    let row: BesideRow = record::decode(&row)?;
    let heard = row.heard.iter().map(Text::parse).collect::<Result<_, _>>()?;
    Ok(Some(Beside { by: row.by.parse()?, heard }))
}

/// The identity keys of users.
type Keys = BTreeMap<UserUri, [u8; 32]>;

impl Group {
    /// Whether a group to which `by` has just invited this client may be what has become of this one, which it could not follow: it is the
    /// same room, this client has asked members to be let in, and one that it knew did so.
    #[must_use]
    pub fn may_be_continued_by(&self, next: &Self, by: &ClientUri) -> bool {
        let known = self.identity_key_of(by);
        self.may_go_on_in(next) && known.is_some() && known == next.identity_key_of(by)
    }

    fn may_go_on_in(&self, next: &Self) -> bool {
        matches!(self.status, Status::Stuck { .. })
            && self.name != next.name
            && (&self.profile.room, &self.profile.hub) == (&next.profile.room, &next.profile.hub)
            && (self.was_made_anew() || self.has_knocked())
    }

    /// Whether it is that for sure: by the word of this group's log, by that of another device of our user, or as nobody else was known; and
    /// most who were known are in it.
    #[must_use]
    pub fn is_continued_by(&self, next: &Self, by: &ClientUri) -> bool {
        let known = self.others();
        let word = self.was_made_anew() || by.user() == self.account.client.user();
        let nobody_else = known.keys().all(|user| user == by.user());
        self.may_be_continued_by(next, by) && (word || nobody_else) && most(&known, next)
    }

    /// Whether a group beside this one is that by what was done there since.
    #[must_use]
    pub fn is_continued_beside(&self, next: &Self) -> bool {
        let (Some(beside), known) = (&next.beside, self.others()) else { return false };
        // A device of theirs may have come since.
        let known_there = |client: &ClientUri| {
            let key = known.get(client.user());
            key.is_some() && next.identity_key_of(client).as_ref() == key
        };
        self.may_go_on_in(next) && most(&known, next) && beside.heard.iter().any(known_there)
    }

    /// The users who were members, but for our own.
    fn others(&self) -> Keys {
        let members = members_of(&self.mls.export_tree()).unwrap_or_default().into_iter();
        let members = members.map(|(client, key)| (client.user().clone(), key));
        members.filter(|(user, _)| user != self.account.client.user()).collect()
    }

    /// This group stays as it is, and asks on, beside one that may be what has become of it: our leaf there is none to be replaced. To be followed
    /// by [`Group::stand_beside`] of that one.
    pub fn stay_beside(&mut self, next: &Self) {
        if let Ok(leaf) = own_channel_key(&next.mls) {
            self.forget_leaf(&leaf);
        }
    }

    /// From now on it is noted who does something here.
    pub fn stand_beside(&mut self, by: &ClientUri) {
        self.beside = Some(Beside { by: by.clone(), heard: BTreeSet::new() });
        self.save_beside();
    }

    /// Whether this group may be what has become of another that this client was in.
    #[must_use]
    pub fn stands_beside(&self) -> bool {
        self.beside.is_some()
    }

    /// It is what has become of it.
    pub(super) fn end_beside(&mut self) {
        if self.beside.take().is_some() {
            self.writes.push(Write::Delete { room: Room::GROUP, key: row::key(&self.name, BESIDE) });
        }
    }

    /// Begins as a successor of a group: who has invited us to that may have made this one, too.
    pub(super) fn inherit_beside(&mut self, old: &Self) {
        if let Some(beside) = &old.beside {
            self.beside = Some(beside.clone());
            self.save_beside();
        }
    }

    /// A member sent something that MLS verified to be its own.
    pub(super) fn note_beside(&mut self, client: &ClientUri) {
        let Some(beside) = self.beside.as_mut() else { return };
        let other = *client != self.account.client && client.user() != beside.by.user();
        if other && beside.heard.len() < HEARD && beside.heard.insert(client.clone()) {
            self.save_beside();
        }
    }

    fn save_beside(&mut self) {
        let Some(beside) = &self.beside else { return };
        let heard = beside.heard.iter().map(Text::new).collect();
        let value = record::encode(&BesideRow { by: Text::new(&beside.by), heard });
        self.touched = true;
        self.writes.push(Write::Put { room: Room::GROUP, key: row::key(&self.name, BESIDE), value });
    }
}

/// Whether most of them are members, with the same identity keys.
fn most(known: &Keys, group: &Group) -> bool {
    let there = group.others();
    known.is_empty() || 2 * known.iter().filter(|(user, key)| there.get(*user) == Some(*key)).count() > known.len()
}
