//! Open sessions, in memory.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use conclave_names::{ChannelId, Epoch, SessionId, Timestamp};
use conclave_protocol::{
    session::{ReplayWindow, SessionError, SessionKey, session_of},
    v1::SessionRequest,
};

use crate::store::KeyedHash;

/// Whose key opened a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// A member's of a group, of the epoch in whose key tree the key stands.
    Member(Epoch),
    /// An inbox's owner's.
    Owner,
}

/// Who sends requests in a session. The DS knows no more of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The channel that the session is for.
    pub(crate) channel: ChannelId,
    /// Whose key opened it.
    pub(crate) place: Place,
    /// Keyed hash of channel and key: the scope of idempotency keys, the same in every session of the key.
    pub(crate) pseudonym: KeyedHash,
}

struct Session {
    caller: Caller,
    key: SessionKey,
    window: ReplayWindow,
    used: Timestamp,
    /// Its place in the order of use.
    tick: u64,
}

#[derive(Default)]
struct Table {
    sessions: HashMap<SessionId, Session>,
    /// By last use, least recent first.
    order: BTreeMap<u64, SessionId>,
    tick: u64,
}

impl Table {
    /// Forgets what was silent for too long, and the least recently used beyond `max`.
    fn shrink(&mut self, max: usize, idle_ms: u64, now: Timestamp) {
        while let Some(least) = self.order.first_entry() {
            let id = *least.get();
            let idle = self.sessions.get(&id).is_none_or(|session| session.used.plus_ms(idle_ms) <= now);
            if !idle && self.sessions.len() <= max {
                break;
            }
            least.remove();
            self.sessions.remove(&id);
        }
    }
}

/// The open sessions of a server: bounded in number, forgotten after silence.
pub(crate) struct Sessions {
    table: Mutex<Table>,
    max: usize,
    idle_ms: u64,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").field("max", &self.max).field("idle_ms", &self.idle_ms).finish_non_exhaustive()
    }
}

impl Sessions {
    pub(crate) fn new(max: usize, idle_ms: u64) -> Self {
        Self { table: Mutex::default(), max, idle_ms }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it holds the lock half-way through a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a session. Where there are too many, the least recently used is forgotten.
    pub(crate) fn open(&self, id: SessionId, key: SessionKey, caller: Caller, now: Timestamp) {
        let mut table = self.table();
        table.tick += 1;
        let tick = table.tick;
        table.order.insert(tick, id);
        table.sessions.insert(id, Session { caller, key, window: ReplayWindow::default(), used: now, tick });
        table.shrink(self.max, self.idle_ms, now);
    }

    /// Authenticates a request, and notes that it came.
    pub(crate) fn authenticate(
        &self,
        method: &str,
        request: &SessionRequest,
        now: Timestamp,
    ) -> Result<Caller, SessionError> {
        let id = session_of(request)?;
        let key = {
            let table = self.table();
            let session = table.sessions.get(&id).ok_or(SessionError::Unknown)?;
            if session.used.plus_ms(self.idle_ms) <= now {
                return Err(SessionError::Unknown);
            }
            session.key.clone()
        };
        // The HMAC runs over megabytes at times: not under the lock.
        key.verify(method, request)?;
        let mut table = self.table();
        table.tick += 1;
        let tick = table.tick;
        let session = table.sessions.get_mut(&id).ok_or(SessionError::Unknown)?;
        session.window.note(request.counter)?;
        session.used = session.used.max(now);
        let (caller, before) = (session.caller, std::mem::replace(&mut session.tick, tick));
        table.order.remove(&before);
        table.order.insert(tick, id);
        Ok(caller)
    }

    /// Forgets what was silent for too long.
    pub(crate) fn forget_idle(&self, now: Timestamp) {
        self.table().shrink(self.max, self.idle_ms, now);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.table().sessions.len()
    }
}

#[cfg(test)]
mod tests {
    use conclave_protocol::method;

    use super::*;

    const CALLER: Caller = Caller { channel: ChannelId::new([1; 16]), place: Place::Owner, pseudonym: [0; 32] };

    fn key() -> SessionKey {
        SessionKey::new([7; 32])
    }

    fn id(n: u8) -> SessionId {
        SessionId::new([n; 16])
    }

    fn call(sessions: &Sessions, n: u8, counter: u64, now: u64) -> Result<Caller, SessionError> {
        let request = key().seal(method::FETCH, id(n), counter, Vec::new());
        sessions.authenticate(method::FETCH, &request, Timestamp(now))
    }

    #[test]
    fn silence_ends_a_session_and_use_prolongs_it() {
        let sessions = Sessions::new(10, 100);
        sessions.open(id(1), key(), CALLER, Timestamp(0));
        assert_eq!(call(&sessions, 1, 1, 99), Ok(CALLER));
        assert_eq!(call(&sessions, 1, 2, 198), Ok(CALLER));
        assert_eq!(call(&sessions, 1, 3, 298), Err(SessionError::Unknown));
        sessions.forget_idle(Timestamp(298));
        assert_eq!(sessions.len(), 0);
    }

    #[test]
    fn the_least_recently_used_gives_way() {
        let sessions = Sessions::new(2, 100);
        sessions.open(id(1), key(), CALLER, Timestamp(0));
        sessions.open(id(2), key(), CALLER, Timestamp(0));
        call(&sessions, 1, 1, 1).unwrap();
        sessions.open(id(3), key(), CALLER, Timestamp(2));
        assert_eq!(call(&sessions, 2, 1, 3), Err(SessionError::Unknown));
        assert_eq!(call(&sessions, 1, 2, 3), Ok(CALLER));
        assert_eq!(call(&sessions, 3, 1, 3), Ok(CALLER));
        assert_eq!(sessions.len(), 2);
    }

    #[test]
    fn a_counter_is_used_once_and_a_wrong_mac_uses_none() {
        let sessions = Sessions::new(2, 100);
        sessions.open(id(1), key(), CALLER, Timestamp(0));
        let mut forged = key().seal(method::FETCH, id(1), 1, Vec::new());
        forged.mac[0] ^= 1;
        let refused = sessions.authenticate(method::FETCH, &forged, Timestamp(0));
        assert_eq!(refused, Err(SessionError::Unknown));
        assert_eq!(call(&sessions, 1, 1, 0), Ok(CALLER));
        assert_eq!(call(&sessions, 1, 1, 0), Err(SessionError::Replayed));
        assert_eq!(call(&sessions, 9, 1, 0), Err(SessionError::Unknown));
    }
}
