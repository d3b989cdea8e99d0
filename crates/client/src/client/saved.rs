//! Whether the recovery file that lies elsewhere would still bring everything back: it names the groups, and people in them, of the day on
//! which it was made.

use std::collections::BTreeMap;

use conclave_engine::{
    account::RecordError,
    group::{GroupSummary, Status},
    writes::{Room, Write},
};
use conclave_names::{GroupUri, Timestamp};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Client, ClientError, RecoveryFile, lost::LostGroup};

/// Key of the row in [`Room::ACCOUNT`] with what the recovery file that was saved last names, in JSON.
const SAVED: &[u8] = b"recovery-saved";

#[derive(Serialize, Deserialize)]
struct Saved {
    saved_ms: u64,
    groups: Vec<LostGroup>,
}

/// How far the recovery file that was saved last holds for the groups of today.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecoveryState {
    /// When it was made, in milliseconds since the Unix epoch; none if none was ever saved.
    pub saved: Option<Timestamp>,
    /// Groups that it does not bring back: those that this client is in since, and those of which nobody that it names is a member any more.
    pub missing: Vec<GroupUri>,
    /// Groups that it names and that this client is in no more. Nobody lets it into them.
    pub left: Vec<GroupUri>,
}

impl RecoveryState {
    /// Whether the loss of everything would cost no group.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.missing.is_empty()
    }
}

/// What a file names, for [`Client::recovery_state`].
pub(super) fn row(file: &RecoveryFile) -> Write {
    let saved = Saved { saved_ms: file.saved().0, groups: file.groups().to_vec() };
    let value = Zeroizing::new(serde_json::to_vec(&saved).unwrap_or_default());
    Write::Put { room: Room::ACCOUNT, key: SAVED.to_vec(), value }
}

/// The group that a file names of which this is what it has become, or which it is.
fn named<'a>(
    saved: &'a [LostGroup],
    groups: &BTreeMap<GroupUri, GroupSummary>,
    group: &GroupSummary,
) -> Option<&'a LostGroup> {
    let mut next = Some(&group.name);
    // Each step goes to another group, unless rows of the store name one another.
    for _ in 0..=groups.len() {
        let name = next?;
        if let Some(found) = saved.iter().find(|lost| lost.group == *name) {
            return Some(found);
        }
        next = groups.get(name).and_then(|of| of.predecessor.as_ref());
    }
    None
}

impl Client {
    /// Notes that a recovery file of this client is kept somewhere from now on: [`Client::recovery_state`] says how far it holds. Call it
    /// once the sealed file is where it stays.
    ///
    /// # Errors
    /// [`ClientError::Store`].
    pub fn recovery_saved(&mut self, file: &RecoveryFile) -> Result<(), ClientError> {
        Ok(self.store.apply(&[row(file)])?)
    }

    /// What the recovery file that was saved last ([`Client::recovery_saved`]), or from which this client was restored, would bring back.
    /// None on a device that was itself linked: it makes none, and is linked again. Loads the groups that the file names.
    ///
    /// # Errors
    /// [`ClientError::Store`], [`ClientError::Record`] for a damaged row.
    pub fn recovery_state(&mut self) -> Result<Option<RecoveryState>, ClientError> {
        if !self.holds_identity() {
            return Ok(None);
        }
        let saved: Option<Saved> = match self.store.get(Room::ACCOUNT, SAVED)? {
            Some(row) => Some(serde_json::from_slice(&row).map_err(|_| RecordError::Damaged)?),
            None => None,
        };
        let groups: BTreeMap<_, _> =
            self.groups()?.into_iter().map(|summary| (summary.name.clone(), summary)).collect();
        let of_file = saved.as_ref().map(|saved| saved.groups.as_slice()).unwrap_or_default();
        let mut left: Vec<_> = of_file.iter().map(|lost| lost.group.clone()).collect();
        let mut missing = Vec::new();
        for summary in groups.values().filter(|group| group.status != Status::Removed) {
            match named(of_file, &groups, summary) {
                Some(lost) => {
                    left.retain(|name| *name != lost.group);
                    if self.knows_nobody_of(lost, &summary.name) {
                        missing.push(summary.name.clone());
                    }
                }
                None => missing.push(summary.name.clone()),
            }
        }
        // Those that this client has lost and is not back in yet, it has not left.
        let lost = self.lost_groups()?;
        left.retain(|name| lost.iter().all(|lost| lost.group != *name));
        Ok(Some(RecoveryState { saved: saved.map(|saved| Timestamp(saved.saved_ms)), missing, left }))
    }

    /// Whether other users are in a group, and none of those that are named of it. Of one that does not load it is not known.
    fn knows_nobody_of(&mut self, lost: &LostGroup, name: &GroupUri) -> bool {
        let own = self.user().clone();
        let Ok(members) = self.group(name).map(|group| group.members()) else { return false };
        let mut others = members.into_iter().flatten().map(|member| member.user).filter(|user| *user != own).peekable();
        others.peek().is_some() && !others.any(|user| lost.users.contains(&user))
    }
}
