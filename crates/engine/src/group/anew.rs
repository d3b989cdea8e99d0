//! A group that was made anew while a member could not follow it.
//!
//! The successor has a leaf for each member, but only who was in the frozen epoch opens the Welcome (`reinit`). Who was locked out then
//! sees an entry with a successor that it cannot read: no commit from outside leads on in the old channel, in which nobody is any
//! more. So it knocks. Members know the successor for what became of the group that the knock names. Which leaf is to be replaced the
//! knocker cannot say: it is the one of its name and identity key, unless that client has shown since that it is there. By the
//! Welcome that follows, the locked-out client leaves the old group for the new one.
//!
//! A group may be made anew again before somebody comes back. So each knows the whole line that it comes from, and who has shown itself where:
//! who was in one of the groups after the one that the knock names has come in since.
//!
//! Rows, one for each client that has shown itself: `present/` and its name under the group's prefix, with the epoch; and `lineage` with the
//! groups before.

use std::collections::{BTreeMap, BTreeSet};

use conclave_channel::EntryKind;
use conclave_names::{ClientUri, Epoch, GroupUri, Hash, Timestamp};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};

use super::{
    Group, Status,
    confirmed::{client_of_key, key_of_client},
    process::Incoming,
    reinit::members_of,
    row,
    standing::{Branch, Lost},
};
use crate::{
    knock::Knocked,
    outcome::Event,
    pieces,
    record::{self, Text},
    writes::{Room, Rows, Write},
};

/// Prefix of the rows.
const PRESENT: &[u8] = b"present/";

/// Key of the row with the groups before.
const LINEAGE: &[u8] = b"lineage";

/// Groups before this one that are remembered: knocks are answered for 30 days.
const ANCESTORS: usize = 16;

/// A group that this one comes from.
#[derive(Debug, Clone)]
struct Ancestor {
    group: GroupUri,
    /// Who had shown itself in it since it went on from another.
    shown: BTreeSet<ClientUri>,
}

#[derive(MlsSize, MlsEncode, MlsDecode)]
struct AncestorRow {
    group: Text,
    shown: Vec<Text>,
}

/// The groups that this one comes from, the oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Lineage(Vec<Ancestor>);

/// Reads the row of a group that is being loaded.
pub(super) fn load_lineage<R: Rows>(rows: &R, name: &GroupUri) -> Result<Lineage, row::LoadError<R::Error>> {
    let row = pieces::get(rows, &row::key(name, b""), Room::GROUP, &row::key(name, LINEAGE))?;
    let Some(row) = row else { return Ok(Lineage::default()) };
    let mut lineage = Lineage::default();
    for row in record::decode::<Vec<AncestorRow>>(&row)? {
        let shown = row.shown.iter().map(Text::parse).collect::<Result<_, _>>()?;
        lineage.0.push(Ancestor { group: row.group.parse()?, shown });
    }
    Ok(lineage)
}

/// Who has shown that it is in a group that goes on from another, and in which epoch first.
pub(super) type Present = BTreeMap<ClientUri, Epoch>;

/// Reads the rows of a group that is being loaded.
pub(super) fn load<R: Rows>(rows: &R, name: &GroupUri) -> Result<Present, row::LoadError<R::Error>> {
    let mut present = BTreeMap::new();
    for (key, value) in rows.scan(Room::GROUP, &row::key(name, PRESENT)).map_err(row::LoadError::Store)? {
        let epoch: Epoch = record::decode(&value)?;
        present.insert(client_of_key(name, PRESENT, &key)?, epoch);
    }
    Ok(present)
}

impl Group {
    /// A client did something in the group, or was added to it, by what began this epoch or in it.
    pub(super) fn note_present(&mut self, client: &ClientUri, epoch: Epoch) {
        if self.predecessor.is_some() && !self.present.contains_key(client) {
            self.present.insert(client.clone(), epoch);
            let (key, value) = (key_of_client(&self.name, PRESENT, client), record::encode(&epoch));
            self.writes.push(Write::Put { room: Room::GROUP, key, value });
        }
    }

    /// The epochs after this one are void.
    pub(super) fn forget_present(&mut self, after: Epoch) {
        let (name, writes) = (&self.name, &mut self.writes);
        self.present.retain(|client, epoch| {
            let kept = *epoch <= after;
            if !kept {
                writes.push(Write::Delete { room: Room::GROUP, key: key_of_client(name, PRESENT, client) });
            }
            kept
        });
    }

    /// Begins as what a group has become.
    pub(super) fn descends_from(&mut self, old: &Self) {
        self.predecessor = Some(old.name.clone());
        self.inherit_beside(old);
        self.lineage = old.lineage.clone();
        self.lineage.0.push(Ancestor { group: old.name.clone(), shown: old.present.keys().cloned().collect() });
        let excess = self.lineage.0.len().saturating_sub(ANCESTORS);
        self.lineage.0.drain(..excess);
        let of = |one: &Ancestor| AncestorRow {
            group: Text::new(&one.group),
            shown: one.shown.iter().map(Text::new).collect(),
        };
        let value = record::encode(&self.lineage.0.iter().map(of).collect::<Vec<_>>());
        self.writes.push(Write::Put { room: Room::GROUP, key: row::key(&self.name, LINEAGE), value });
        self.touched = true;
    }

    /// Whether a knock is about a group that this one comes from.
    pub(super) fn is_about_predecessor(&self, knocked: &Knocked) -> bool {
        knocked.group().is_some_and(|group| self.lineage.0.iter().any(|one| one.group == *group))
    }

    /// Whether the knocker says that it follows this group, or one that this comes from.
    pub(super) fn is_kept_by(&self, knocked: &Knocked) -> bool {
        knocked.keeps(&self.name) || self.lineage.0.iter().any(|one| knocked.keeps(&one.group))
    }

    /// Whether it is by who has been seen neither here nor in any group between.
    pub(super) fn was_left_behind(&self, knocked: &Knocked) -> bool {
        let between = self.lineage.0.iter().rev().take_while(|one| Some(&one.group) != knocked.group());
        !self.present.contains_key(&knocked.client)
            && !between.into_iter().any(|one| one.shown.contains(&knocked.client))
    }

    /// An entry of an epoch that we could not follow into. If it holds a successor, the group went on without us.
    pub(super) fn unfollowed(&mut self, kind: EntryKind, epoch: Epoch, incoming: &Incoming, events: &mut Vec<Event>) {
        // The law admits it in the present epoch only.
        if kind != EntryKind::Successor {
            return;
        }
        let Some(lost) = self.lost.as_mut() else { return };
        if lost.anew == Some(epoch) {
            return;
        }
        lost.anew = Some(epoch);
        let reason = "the group was made anew while this client could not follow it: it asks members to let it into the \
                      group that it has become; if none does within a day, have a member remove this client and add it again";
        reason.clone_into(&mut lost.reason);
        self.status = Status::Stuck { reason: reason.to_owned() };
        // Whoever was asked before could not help.
        self.knock_soon();
        events.push(Event::Stuck { seq: incoming.seq, reason: reason.to_owned() });
    }

    /// Takes the DS's word that it has another group's channel by the id of this one ([`Group::founding`],
    /// [`conclave_protocol::Code::ChannelExists`]). All who go on from one group would tell it the same: so the others went on in another
    /// successor than this client, who read another log of the group before, or was away for longer than the DS remembers how the
    /// channel began. Members are asked to let it in, as after a succession that it could not follow. If the DS takes the channel after
    /// all, it goes on.
    pub fn not_founded(&mut self, events: &mut Vec<Event>) {
        if self.founding.is_none() || self.status != Status::Active {
            return;
        }
        let reason = "the server has another channel in place of this group's: the others went on in another group than this client, which was \
                      shown another log of the group before, or was away for too long; it asks members to let it in; if none does \
                      within a day, have a member remove this client and add it again";
        let seq = self.window.position().seq.next();
        self.lost = Some(Lost::settled(seq, Hash::new([0; 32]), reason.to_owned(), Branch::Wrong));
        self.status = Status::Stuck { reason: reason.to_owned() };
        self.touched = true;
        self.knock_soon();
        self.tell(Event::Stuck { seq, reason: reason.to_owned() }, self.window.time(), events);
    }

    /// What a knock of ours is about: where this group never began, the one before it, which is what its members know us by; and where
    /// members let us in by that, the same.
    pub(super) fn knocks_about(&self) -> &GroupUri {
        let before = self.predecessor.as_ref().filter(|_| self.founding.is_some());
        before.or(self.asked_about.as_ref()).unwrap_or(&self.name)
    }

    /// Whether, for all that we know, nobody is in the group any more, because it was made anew without us. Another commit in its
    /// channel shows that it was not.
    pub(super) fn was_made_anew(&self) -> bool {
        self.lost.as_ref().is_some_and(|lost| lost.anew == Some(self.ledger.epoch()))
    }

    /// Leaves this group for what it has become ([`Group::is_continued_by`], [`Group::is_continued_beside`]): what waits goes over, but nothing is said if there
    /// are members that its writer did not know. The writes of both groups belong into one transaction.
    pub fn continued_by(&mut self, next: &mut Self, now: Timestamp, events: &mut Vec<Event>) {
        let before = members_of(&self.mls.export_tree()).unwrap_or_default();
        let known = |(client, key): (&ClientUri, &[u8; 32])| before.get(client) == Some(key);
        let strangers = members_of(&next.mls.export_tree()).map_or(true, |members| !members.iter().all(known));
        let wished = if strangers { Epoch(next.joined.0.saturating_sub(1)) } else { next.joined };
        let (suite, mut told) = (next.mls.cipher_suite(), Vec::new());
        for intent in self.intents.values() {
            if let Err(stays) = self.goes_over(intent, suite) {
                told.extend(stays.map(|reason| Event::IntentFailed { intent: intent.id, reason }));
                continue;
            }
            next.take_over(next.free_order(false), intent.clone(), wished);
        }
        if strangers {
            next.last_added = next.last_added.max(next.joined);
        }
        next.let_in_from(self);
        next.end_beside();
        told.push(Event::Succeeded { group: next.name.clone() });
        for event in told {
            self.tell(event, now, events);
        }
        self.stop_knocking();
        self.lost = None;
        self.succeeded_by(next.name.clone());
    }
}
