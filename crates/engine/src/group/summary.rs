//! What a list of groups shows: one short row a group, in a room of its own, so that listing reads nothing else of a group.

use conclave_names::{Domain, Epoch, GroupUri, RoomUri};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};

use super::{Group, LoadError, Status, row};
use crate::{
    record::{self, RecordError, Text},
    writes::{Room, Rows, Write},
};

/// What a list of groups shows, without any MLS work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSummary {
    /// The group.
    pub name: GroupUri,
    /// Its room.
    pub room: RoomUri,
    /// What people call it.
    pub title: String,
    /// Its hub.
    pub hub: Domain,
    /// The newest epoch seen.
    pub epoch: Epoch,
    /// Members in that epoch.
    pub members: u32,
    /// How we stand to it.
    pub status: Status,
    /// Whether we were removed by a commit that may yet be annulled: it is worth while to read on.
    pub may_return: bool,
    /// The group in which it goes on, if it was made anew.
    pub successor: Option<GroupUri>,
    /// The group that it goes on from.
    pub predecessor: Option<GroupUri>,
}

#[derive(MlsSize, MlsEncode, MlsDecode)]
struct Row {
    group: Text,
    room: Text,
    title: Text,
    hub: Text,
    epoch: Epoch,
    members: u32,
    status: u8,
    reason: Text,
    may_return: bool,
    successor: Option<Text>,
    predecessor: Option<Text>,
}

/// A status as a number, and the reason for it.
pub(super) fn to_code(status: &Status) -> (u8, &str) {
    match status {
        Status::Active => (0, ""),
        Status::Removed => (1, ""),
        Status::Stuck { reason } => (2, reason),
    }
}

pub(super) fn from_code(status: u8, reason: &Text) -> Result<Status, RecordError> {
    match status {
        0 => Ok(Status::Active),
        1 => Ok(Status::Removed),
        2 => Ok(Status::Stuck { reason: reason.parse()? }),
        _ => Err(RecordError::Damaged),
    }
}

/// The groups of a profile, as far as their rows can be read.
#[derive(Debug, Default)]
pub struct Listed {
    /// Those whose rows can be read.
    pub groups: Vec<GroupSummary>,
    /// Those whose rows are damaged or of a later version.
    pub unreadable: Vec<(GroupUri, RecordError)>,
}

fn read(value: &[u8]) -> Result<GroupSummary, RecordError> {
    let row: Row = record::decode(value)?;
    Ok(GroupSummary {
        name: row.group.parse()?,
        room: row.room.parse()?,
        title: row.title.parse()?,
        hub: row.hub.parse()?,
        epoch: row.epoch,
        members: row.members,
        status: from_code(row.status, &row.reason)?,
        may_return: row.may_return,
        successor: row.successor.as_ref().map(Text::parse).transpose()?,
        predecessor: row.predecessor.as_ref().map(Text::parse).transpose()?,
    })
}

/// Lists the groups of a profile, those that we were removed from included.
///
/// # Errors
/// Any [`LoadError`] but those of MLS.
pub fn list<R: Rows>(rows: &R) -> Result<Vec<GroupSummary>, LoadError<R::Error>> {
    let rows = rows.scan(Room::SUMMARY, b"").map_err(LoadError::Store)?;
    Ok(rows.iter().map(|(_, value)| read(value)).collect::<Result<_, _>>()?)
}

/// The same, where one row that cannot be read does not hide the other groups.
///
/// # Errors
/// [`LoadError::Store`], and [`LoadError::Record`] for a row that does not even name a group.
pub fn list_readable<R: Rows>(rows: &R) -> Result<Listed, LoadError<R::Error>> {
    let mut listed = Listed::default();
    for (key, value) in rows.scan(Room::SUMMARY, b"").map_err(LoadError::Store)? {
        match read(&value) {
            Ok(summary) => listed.groups.push(summary),
            Err(error) => {
                let name = key.strip_suffix(&[0]).and_then(|name| std::str::from_utf8(name).ok()?.parse().ok());
                listed.unreadable.push((name.ok_or(RecordError::Damaged)?, error));
            }
        }
    }
    Ok(listed)
}

impl Group {
    /// Adds the row if it says something else than the one in the store.
    pub(super) fn save_summary(&mut self, members: u32) {
        let (status, reason) = to_code(&self.status);
        let value = record::encode(&Row {
            group: Text::new(&self.name),
            room: Text::new(&self.profile.room),
            title: Text::new(&self.profile.title),
            hub: Text::new(&self.profile.hub),
            epoch: self.epoch(),
            members,
            status,
            reason: Text::new(reason),
            may_return: self.removed_at.is_some(),
            successor: self.successor.as_ref().map(Text::new),
            predecessor: self.predecessor.as_ref().map(Text::new),
        });
        if self.summary != *value {
            self.summary.clone_from(&value);
            self.writes.push(Write::Put { room: Room::SUMMARY, key: row::prefix(&self.name), value });
        }
    }
}
