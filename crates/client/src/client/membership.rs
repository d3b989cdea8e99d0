//! Who came and went: every change of a group's members and of their keys, as this client saw it (RFC 9750, section 8.4.3.1: members
//! that a server or a member adds unnoticed).

use conclave_engine::{group::KIND_EVENT, writes::StoredMessage};
use conclave_names::{ClientUri, Epoch, GroupUri, Seq, Timestamp};
use serde::Serialize;
use serde_json::Value;

use super::{Client, ClientError};

/// Rows that are read at a time.
const PAGE: usize = 1000;

/// One change of a group's members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MembershipChange {
    /// In which group: that which was asked for, or one that it goes on from.
    pub group: GroupUri,
    /// Place in its channel.
    pub seq: Seq,
    /// The DS's time, in milliseconds since the Unix epoch.
    pub time: Timestamp,
    /// What happened.
    pub change: Membership,
    /// Who did it, if that is known.
    pub by: Option<ClientUri>,
    /// To whom; nobody else where somebody renewed its own keys.
    pub members: Vec<ClientUri>,
    /// The epoch that began with it, if this client was in it.
    pub epoch: Option<Epoch>,
    /// Whether it was annulled later: then it never was.
    pub annulled: bool,
}

/// What a change of membership is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Membership {
    /// This client joined.
    Joined,
    /// Members were added.
    Added,
    /// Members were removed.
    Removed,
    /// A member renewed its keys.
    Renewed,
    /// A member signs with another key from then on; it is the same client, with the same identity key.
    KeyChanged,
    /// A member came back by a commit of its own.
    Rejoined,
    /// A member let others in again that had asked for it.
    Readmitted,
    /// Who was a member when this client was back, and was none when it lost the group. By whom they were added is not known.
    CameMeanwhile,
    /// Who was a member when this client lost the group, and was none, or another one by its identity key, when it was back. By whom they were
    /// removed is not known.
    WentMeanwhile,
    /// This client was removed.
    RemovedHere,
    /// This client's membership was annulled.
    Void,
    /// The group was made anew, with the same members: places and epochs begin again.
    MadeAnew,
}

fn client(value: &Value) -> Option<ClientUri> {
    value.as_str()?.parse().ok()
}

/// What a stored event says of the members; none if nothing.
fn change(group: &GroupUri, stored: &StoredMessage, event: &Value) -> Option<MembershipChange> {
    let change = match event.get("event")?.as_str()? {
        "joined" => Membership::Joined,
        "added" => Membership::Added,
        "removed" => Membership::Removed,
        "updated" => Membership::Renewed,
        "key_changed" => Membership::KeyChanged,
        "rejoined" => Membership::Rejoined,
        "readmitted" => Membership::Readmitted,
        "came_meanwhile" => Membership::CameMeanwhile,
        "went_meanwhile" => Membership::WentMeanwhile,
        "removed_from_group" => Membership::RemovedHere,
        "invitation_annulled" => Membership::Void,
        "succeeded" => Membership::MadeAnew,
        _ => return None,
    };
    let by = event.get("by").or_else(|| event.get("member")).and_then(client);
    let members = event.get("members").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let members: Vec<_> = members.iter().filter_map(client).collect();
    let epoch = event.get("epoch").and_then(Value::as_u64).map(Epoch);
    Some(MembershipChange {
        group: group.clone(),
        seq: Seq(stored.seq),
        time: Timestamp(stored.time_ms),
        change,
        by,
        members,
        epoch,
        annulled: false,
    })
}

/// What took changes back.
struct Annulment {
    /// Place of the first commit that it took back.
    first: u64,
    /// Our place in the channel when it was known, and the time: that of an entry, if an entry annulled it, and else a later one.
    known: (u64, u64),
}

impl Annulment {
    /// Whether a change was there before, and is void with it. The commit that an annulment makes room for may be at the same place: it
    /// has the same time.
    fn concerns(&self, change: &MembershipChange) -> bool {
        change.seq.0 >= self.first && (change.seq.0, change.time.0) < self.known
    }
}

impl Client {
    /// Every change of a group's members since this client is in it, oldest first: by whom, in which epoch, where in the
    /// channel; also of the groups that it goes on from. It outlives removals and new joins. What was annulled is in it, and marked.
    ///
    /// # Errors
    /// [`ClientError`] if the store fails.
    pub fn membership_log(&self, group: &GroupUri) -> Result<Vec<MembershipChange>, ClientError> {
        let mut log = Vec::new();
        for group in self.lineage(group)?.iter().rev() {
            log.extend(self.changes_of(group)?);
        }
        Ok(log)
    }

    /// The same of one group alone.
    fn changes_of(&self, group: &GroupUri) -> Result<Vec<MembershipChange>, ClientError> {
        let (mut log, mut annulments) = (Vec::new(), Vec::new());
        let mut after = 0;
        loop {
            let page = self.store.messages(&group.to_string(), after, PAGE)?;
            let Some(last) = page.last().map(|row| row.seq) else { break };
            let full = page.len() == PAGE;
            for stored in page.iter().filter(|row| row.kind == KIND_EVENT) {
                // Of a later version, or nothing of members.
                let Ok(event) = serde_json::from_slice::<Value>(&stored.body) else { continue };
                if event.get("event").and_then(Value::as_str) == Some("annulled") {
                    let first = event.get("commit").and_then(Value::as_u64).unwrap_or(u64::MAX);
                    annulments.push(Annulment { first, known: (stored.seq, stored.time_ms) });
                }
                if event.get("event").and_then(Value::as_str) == Some("not_annulled") {
                    let commit = event.get("commit").and_then(Value::as_u64);
                    annulments.retain(|annulment: &Annulment| Some(annulment.first) != commit);
                }
                log.extend(change(group, stored, &event));
            }
            if !full {
                break;
            }
            // A place may have several rows, of which the page had some only.
            after = if page.first().is_some_and(|first| first.seq < last) { last - 1 } else { last };
            log.retain(|change: &MembershipChange| change.seq.0 <= after);
            annulments.retain(|annulment: &Annulment| annulment.known.0 <= after);
        }
        for change in &mut log {
            change.annulled = annulments.iter().any(|annulment| annulment.concerns(change));
        }
        Ok(log)
    }
}
