//! What is told of: events that a failing call must not lose, those that the history would not have without the shell, and groups that
//! fail for good while the others go on.

use std::collections::HashMap;

use conclave_channel::chain::entry_hash;
use conclave_engine::{
    group::{KIND_EVENT, WishError},
    outcome::Event,
    writes::{Room, StoredMessage, Write},
};
use conclave_names::{Epoch, GroupUri, Seq, Timestamp};
use conclave_protocol::Code;

use super::{Client, ClientError, ClientEvent};
use crate::{
    store::{ProfileStore, StoreError},
    transport::CallError,
};

/// Events that are kept for the next call; of more, the oldest go, and the history has them.
const UNTOLD: usize = 10_000;

/// How long a listener waits before it tries a group again that has failed, or that does not go on, in milliseconds: what it lacks
/// may be a member that has to come online.
const PAUSE_MS: u64 = 600_000;

/// Newest rows of a history among which something is looked for that is noted once.
const RECENT: usize = 64;

/// What the keys of the rows in [`Room::ACCOUNT`] begin with that say why a group failed, as it was told.
const FAILED: &[u8] = b"failed/";

/// Why a group fails, or does not go on.
pub(super) struct Trouble {
    /// As it was told.
    reason: String,
    /// When a listener tries again.
    pub(super) again: Timestamp,
    /// Whether it is nothing that goes away by itself.
    pub(super) for_good: bool,
}

impl Trouble {
    /// What keeps a group from going on now.
    pub(super) fn new(error: &ClientError, now: Timestamp) -> Self {
        Self { reason: error.to_string(), again: now.plus_ms(PAUSE_MS), for_good: !error.is_transient() }
    }

    /// The same, told in other words.
    pub(super) fn saying(self, reason: String) -> Self {
        Self { reason, ..self }
    }

    /// As it was told.
    pub(super) fn reason(&self) -> String {
        self.reason.clone()
    }

    /// Whether this was told before.
    pub(super) fn is_news(&self, before: Option<&Self>) -> bool {
        before.is_none_or(|before| gist(&before.reason) != gist(&self.reason))
    }
}

/// What is the same in two texts that tell of the same: numbers may be times, or count attempts.
fn gist(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_ascii_digit()).collect()
}

/// The groups that have failed, from their rows.
pub(super) fn failed(store: &dyn ProfileStore) -> Result<HashMap<GroupUri, Trouble>, StoreError> {
    let read = |(key, value): (Vec<u8>, zeroize::Zeroizing<Vec<u8>>)| {
        let name = std::str::from_utf8(key.strip_prefix(FAILED)?).ok()?.parse().ok()?;
        let reason = String::from_utf8_lossy(&value).into_owned();
        Some((name, Trouble { reason, again: Timestamp(0), for_good: true }))
    };
    Ok(store.scan(Room::ACCOUNT, FAILED)?.into_iter().filter_map(read).collect())
}

fn failed_key(group: &GroupUri) -> Vec<u8> {
    [FAILED, group.to_string().as_bytes()].concat()
}

/// Whether an error says something of the client, its store or its server, and not of one group. A server that refuses for now has
/// answered: if it has no time for anybody, the inbox, which is read first, finds that out.
fn concerns_all(error: &ClientError) -> bool {
    match error.code() {
        Some(code) => code == Code::Unavailable,
        None => {
            error.is_transient() || matches!(error, ClientError::Store(_) | ClientError::Call(CallError::Untrusted(_)))
        }
    }
}

/// Whether the engine, which notes what happens in a group's channel, knows nothing of it.
fn is_noted_here(event: &Event) -> bool {
    matches!(
        event,
        Event::InvitationWaits { .. }
            | Event::InvitationDropped { .. }
            | Event::IdentityChanged { .. }
            | Event::RejoinBlocked { .. }
            | Event::SuccessorWaits { .. }
            | Event::ServerSilent { .. }
            | Event::GroupFailed { .. }
    )
}

impl Client {
    /// What happened and was not returned, as the call that read it failed afterwards. [`Client::sync`] and listeners return it first;
    /// who makes no further call can have it here.
    pub fn take_untold(&mut self) -> Vec<ClientEvent> {
        std::mem::take(&mut self.untold)
    }

    /// Gives out what was collected; if what collected it failed, keeps it.
    pub(super) fn told(
        &mut self,
        done: Result<(), ClientError>,
        events: Vec<ClientEvent>,
    ) -> Result<Vec<ClientEvent>, ClientError> {
        match done {
            Ok(()) => Ok(events),
            Err(error) => Err(self.keep(events, error)),
        }
    }

    /// Both of what was collected before and what was done then.
    pub(super) fn joined(
        &mut self,
        mut events: Vec<ClientEvent>,
        more: Result<Vec<ClientEvent>, ClientError>,
    ) -> Result<Vec<ClientEvent>, ClientError> {
        let done = more.map(|more| events.extend(more));
        self.told(done, events)
    }

    /// Keeps what was collected before an error. It happened before what the call that failed has kept itself.
    pub(super) fn keep(&mut self, events: Vec<ClientEvent>, error: ClientError) -> ClientError {
        self.untold.splice(..0, events);
        let excess = self.untold.len().saturating_sub(UNTOLD);
        self.untold.drain(..excess);
        error
    }

    /// What the history has of events that the engine does not note.
    pub(super) fn notes(&self, events: &[ClientEvent]) -> Result<Vec<Write>, ClientError> {
        let mut notes = Vec::new();
        for ClientEvent { group, event } in events.iter().filter(|happened| is_noted_here(&happened.event)) {
            let Some(group) = group else { continue };
            let Ok(body) = serde_json::to_vec(event) else { continue };
            let recent = self.store.last_messages(&group.to_string(), RECENT)?;
            // A client that is opened for each command finds out anew each time.
            let blocked = matches!(event, Event::RejoinBlocked { .. } | Event::SuccessorWaits { .. });
            let told = gist(&String::from_utf8_lossy(&body));
            let same = |stored: &StoredMessage| gist(&String::from_utf8_lossy(&stored.body)) == told;
            if blocked && recent.iter().any(|stored| stored.kind == KIND_EVENT && same(stored)) {
                continue;
            }
            let last = recent.last().map_or((Seq(0), Epoch(0)), |last| (Seq(last.seq), Epoch(last.epoch)));
            let loaded = self.groups.get(group).map(|group| (group.position().seq, group.epoch()));
            let (seq, epoch) = loaded.unwrap_or(last);
            notes.push(Write::Message(StoredMessage {
                group: group.to_string(),
                // Histories begin with the first entry.
                seq: seq.0.max(1),
                epoch: epoch.0,
                id: *entry_hash(&body).as_bytes(),
                sender: String::new(),
                time_ms: self.delivery.now().0,
                kind: KIND_EVENT,
                body,
            }));
        }
        Ok(notes)
    }

    /// Puts into the history what the engine does not note.
    pub(super) fn note(&mut self, events: &[ClientEvent]) -> Result<(), ClientError> {
        let notes = self.notes(events)?;
        if notes.is_empty() { Ok(()) } else { Ok(self.store.apply(&notes)?) }
    }

    /// Whether this client is no member of a group any more, and its keys are gone.
    pub(super) fn is_over(&mut self, name: &GroupUri) -> Result<bool, ClientError> {
        match self.group(name) {
            Ok(_) => Ok(false),
            Err(ClientError::Wish(WishError::Removed)) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// As [`Client::confine`], after calls: what does not come of one group, such as a blob whose transfer breaks off each time, is its own trouble
    /// while the server answers others.
    pub(super) async fn confine_call(
        &mut self,
        name: &GroupUri,
        done: Result<(), ClientError>,
        events: &mut Vec<ClientEvent>,
    ) -> Result<(), ClientError> {
        match done {
            Err(error)
                if matches!(&error, ClientError::Call(CallError::Unreachable { .. }))
                    && self.delivery.get_server_info().await.is_ok() =>
            {
                self.fails(name, &error, events)
            }
            done => self.confine(name, done, events),
        }
    }

    /// Takes what became of a group's turn. What fails in one group alone is told once, and the others go on; it is tried again with
    /// each sync.
    ///
    /// # Errors
    /// What concerns the client as a whole.
    pub(super) fn confine(
        &mut self,
        name: &GroupUri,
        done: Result<(), ClientError>,
        events: &mut Vec<ClientEvent>,
    ) -> Result<(), ClientError> {
        let error = match done {
            // Its end is told by an event of its own.
            Ok(()) | Err(ClientError::Wish(WishError::Removed)) => return self.mended(name),
            Err(error) => error,
        };
        if concerns_all(&error) {
            return Err(error);
        }
        self.fails(name, &error, events)
    }

    fn fails(
        &mut self,
        name: &GroupUri,
        error: &ClientError,
        events: &mut Vec<ClientEvent>,
    ) -> Result<(), ClientError> {
        // What was read before it failed.
        events.extend(self.take_untold());
        let name = self.current(name)?;
        tracing::warn!(%error, group = %name, "a group fails, and the others go on");
        let failed = Trouble::new(error, self.delivery.now());
        if failed.is_news(self.failed.get(&name)) {
            let event = ClientEvent::of(&name, Event::GroupFailed { reason: failed.reason() });
            let mut writes = self.notes(std::slice::from_ref(&event))?;
            let value = failed.reason.clone().into_bytes().into();
            writes.push(Write::Put { room: Room::ACCOUNT, key: failed_key(&name), value });
            self.store.apply(&writes)?;
            events.push(event);
        }
        self.failed.insert(name.clone(), failed);
        // What was half done is undone: what is stored holds together.
        self.groups.remove(&name);
        self.sessions.remove(&name);
        Ok(())
    }

    /// A group has not failed: if it does so again, that is told again.
    fn mended(&mut self, name: &GroupUri) -> Result<(), ClientError> {
        if self.failed.contains_key(name) {
            self.store.apply(&[Write::Delete { room: Room::ACCOUNT, key: failed_key(name) }])?;
            self.failed.remove(name);
        }
        Ok(())
    }
}
