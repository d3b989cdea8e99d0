//! What was said, as it is kept.

use conclave_engine::{
    group::{KIND_EVENT, KIND_MESSAGE},
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
        KIND_EVENT => HistoryEntry::Change { change: serde_json::from_slice(&stored.body).ok()? },
        // Written by a later version.
        _ => return None,
    };
    Some(HistoryItem { seq: Seq(stored.seq), time: Timestamp(stored.time_ms), entry })
}

impl Client {
    /// The history of a group after a place, oldest first.
    pub fn history(&self, group: &GroupUri, after: Seq, limit: usize) -> Result<Vec<HistoryItem>, ClientError> {
        let stored = self.store.messages(&group.to_string(), after.0, limit)?;
        Ok(stored.into_iter().filter_map(item).collect())
    }

    /// The newest part of the history of a group, oldest first.
    pub fn recent(&self, group: &GroupUri, limit: usize) -> Result<Vec<HistoryItem>, ClientError> {
        let stored = self.store.last_messages(&group.to_string(), limit)?;
        Ok(stored.into_iter().filter_map(item).collect())
    }
}
