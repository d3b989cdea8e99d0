//! What was said, as it is kept.

use conclave_engine::{
    group::{KIND_EVENT, KIND_MESSAGE, KIND_TOLD, Told},
    writes::StoredMessage,
};
use conclave_mls::content::{Content, MessageId};
use conclave_names::{ClientUri, GroupUri, Seq, Timestamp};
use serde::Serialize;

use super::{Client, ClientError};

/// One item of a group's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HistoryItem {
    /// Its place in the channel.
    pub seq: Seq,
    /// The DS's time, in milliseconds since the Unix epoch.
    pub time: Timestamp,
    /// What it is.
    #[serde(flatten)]
    pub entry: HistoryEntry,
}

/// What an item of a history is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum HistoryEntry {
    /// A message.
    Message {
        /// Who said it.
        sender: ClientUri,
        /// Its name, in hexadecimal.
        id: String,
        /// Its text, if it can be shown as text.
        text: Option<String>,
    },
    /// A message that this client could not read, as a member has told it since: who said it, and what, is that member's word.
    Told {
        /// Who is said to have said it.
        sender: ClientUri,
        /// Its name, in hexadecimal.
        id: String,
        /// Its text, if it can be shown as text.
        text: Option<String>,
        /// Whose word it is.
        teller: ClientUri,
    },
    /// A change of the group: a [`conclave_engine::outcome::Event`] in JSON.
    Change {
        /// The change.
        change: serde_json::Value,
    },
}

fn item(stored: StoredMessage) -> Option<HistoryItem> {
    let entry = match stored.kind {
        KIND_MESSAGE => HistoryEntry::Message {
            sender: stored.sender.parse().ok()?,
            id: MessageId::new(stored.id).to_string(),
            text: Content::parse(&stored.body).ok()?.as_text(),
        },
        KIND_TOLD => {
            let told = Told::parse(&stored.body).ok()?;
            HistoryEntry::Told {
                sender: stored.sender.parse().ok()?,
                id: MessageId::new(stored.id).to_string(),
                text: Content::parse(&told.content).ok()?.as_text(),
                teller: told.teller,
            }
        }
        KIND_EVENT => HistoryEntry::Change { change: serde_json::from_slice(&stored.body).ok()? },
        // Written by a later version.
        _ => return None,
    };
    Some(HistoryItem { seq: Seq(stored.seq), time: Timestamp(stored.time_ms), entry })
}

/// Where a page of a history ended ([`Client::history_page`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HistoryCursor {
    /// In the group itself, or in one that it goes on from.
    group: GroupUri,
    after: Seq,
}

/// A page of a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HistoryPage {
    /// What is on it, oldest first. It may be empty, where a later version wrote what this one does not know.
    pub items: Vec<HistoryItem>,
    /// What gives the next one; none if this is the last.
    pub next: Option<HistoryCursor>,
}

impl Client {
    /// A page of the whole history of a group, from its beginning if there is no cursor: also of what was said before the group was made
    /// anew. Pages have about `limit` items.
    ///
    /// # Errors
    /// Those of the store.
    pub fn history_page(
        &self,
        group: &GroupUri,
        cursor: Option<&HistoryCursor>,
        limit: usize,
    ) -> Result<HistoryPage, ClientError> {
        let lineage = self.lineage(group)?;
        let mut after = cursor.map_or(Seq(0), |cursor| cursor.after);
        let passed = |of: &&GroupUri| cursor.is_some_and(|cursor| cursor.group != **of);
        for group in lineage.iter().rev().skip_while(passed) {
            let stored = self.store.messages(&group.to_string(), after.0, limit.max(1))?;
            if let Some(last) = stored.last() {
                let next = Some(HistoryCursor { group: group.clone(), after: Seq(last.seq) });
                return Ok(HistoryPage { items: stored.into_iter().filter_map(item).collect(), next });
            }
            after = Seq(0);
        }
        Ok(HistoryPage { items: Vec::new(), next: None })
    }

    /// The history of a group after a place, oldest first: of itself, or after 0 also of those that it goes on from. To go through all of
    /// a long one, see [`Client::history_page`].
    pub fn history(&self, group: &GroupUri, after: Seq, limit: usize) -> Result<Vec<HistoryItem>, ClientError> {
        let mut stored = Vec::new();
        // From the beginning, also what was said before the group was made anew.
        let lineage = if after == Seq(0) { self.lineage(group)? } else { vec![group.clone()] };
        for group in lineage.iter().rev() {
            let left = limit.saturating_sub(stored.len());
            stored.extend(self.store.messages(&group.to_string(), after.0, left)?);
        }
        Ok(stored.into_iter().filter_map(item).collect())
    }

    /// A group and those that it goes on from, newest first.
    pub(super) fn lineage(&self, group: &GroupUri) -> Result<Vec<GroupUri>, ClientError> {
        let groups = self.groups()?;
        let mut lineage = vec![group.clone()];
        // Who was removed from a successor and added again came to it by an invitation, which does not say what it goes on from.
        while let Some(before) =
            groups.iter().find(|of| of.successor.is_some() && of.successor.as_ref() == lineage.last())
        {
            if lineage.contains(&before.name) {
                break;
            }
            lineage.push(before.name.clone());
        }
        Ok(lineage)
    }

    /// The newest part of the history of a group, oldest first.
    pub fn recent(&self, group: &GroupUri, limit: usize) -> Result<Vec<HistoryItem>, ClientError> {
        let mut stored = Vec::new();
        for group in self.lineage(group)? {
            let mut earlier = self.store.last_messages(&group.to_string(), limit.saturating_sub(stored.len()))?;
            earlier.append(&mut stored);
            stored = earlier;
        }
        Ok(stored.into_iter().filter_map(item).collect())
    }
}
