//! Open sessions, in memory.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use conclave_names::{ChannelId, Epoch, Seq, SessionId, Timestamp};
use conclave_protocol::{
    session::{ReplayWindow, SessionError, SessionKey, session_of},
    v1::SessionRequest,
};

use crate::store::KeyedHash;

/// Whose key opened a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// A member's of a group.
    Member {
        /// The epoch in whose key tree the key stands.
        epoch: Epoch,
        /// The commit that began the epoch: another may, if that is annulled.
        started: Seq,
    },
    /// That of an epoch's join key, which whoever can open the epoch's GroupInfo has: for one commit from outside.
    Joiner {
        /// The epoch.
        epoch: Epoch,
        /// The commit that began it.
        started: Seq,
    },
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

/// Where a call comes from, as far as whoever receives calls tells places apart (by network address, say). An opaque
/// number; equal ones share their bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Origin(pub u64);

struct Session {
    caller: Caller,
    origin: Origin,
    key: SessionKey,
    window: ReplayWindow,
    used: Timestamp,
    /// Its place in the order of use.
    tick: u64,
}

/// How many sessions there may be, and how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) all: usize,
    pub(crate) per_origin: usize,
    pub(crate) per_key: usize,
    pub(crate) idle_ms: u64,
}

/// Places in the order of use.
type Ticks = BTreeSet<u64>;

#[derive(Default)]
struct Table {
    sessions: HashMap<SessionId, Session>,
    /// By last use, least recent first.
    order: BTreeMap<u64, SessionId>,
    by_key: HashMap<KeyedHash, Ticks>,
    by_origin: HashMap<Origin, Ticks>,
    /// Origins by how many sessions they have.
    largest: BTreeSet<(usize, Origin)>,
    tick: u64,
}

impl Table {
    fn insert(&mut self, id: SessionId, session: Session) {
        self.order.insert(session.tick, id);
        self.by_key.entry(session.caller.pseudonym).or_default().insert(session.tick);
        let ticks = self.by_origin.entry(session.origin).or_default();
        ticks.insert(session.tick);
        self.largest.remove(&(ticks.len() - 1, session.origin));
        self.largest.insert((ticks.len(), session.origin));
        self.sessions.insert(id, session);
    }

    /// Forgets the session at a place in the order of use.
    fn remove(&mut self, tick: u64) {
        let Some(session) = self.order.remove(&tick).and_then(|id| self.sessions.remove(&id)) else { return };
        if let Some(ticks) = self.by_key.get_mut(&session.caller.pseudonym) {
            ticks.remove(&tick);
            if ticks.is_empty() {
                self.by_key.remove(&session.caller.pseudonym);
            }
        }
        if let Some(ticks) = self.by_origin.get_mut(&session.origin) {
            self.largest.remove(&(ticks.len(), session.origin));
            ticks.remove(&tick);
            if ticks.is_empty() {
                self.by_origin.remove(&session.origin);
            } else {
                self.largest.insert((ticks.len(), session.origin));
            }
        }
    }

    /// Moves a session to the end of the order of use.
    fn touch(&mut self, id: SessionId) -> Option<&mut Session> {
        self.tick += 1;
        let tick = self.tick;
        let session = self.sessions.get_mut(&id)?;
        let before = std::mem::replace(&mut session.tick, tick);
        self.order.remove(&before);
        self.order.insert(tick, id);
        let by_key = self.by_key.get_mut(&session.caller.pseudonym);
        for ticks in [by_key, self.by_origin.get_mut(&session.origin)].into_iter().flatten() {
            ticks.remove(&before);
            ticks.insert(tick);
        }
        Some(session)
    }

    /// Forgets what was silent for too long.
    fn forget_idle(&mut self, idle_ms: u64, now: Timestamp) {
        while let Some((tick, id)) = self.order.first_key_value().map(|(tick, id)| (*tick, *id)) {
            if self.sessions.get(&id).is_some_and(|session| session.used.plus_ms(idle_ms) > now) {
                break;
            }
            self.remove(tick);
        }
    }

    /// Makes room after a session was opened: at the cost of the same key, then of the same origin, then of the origin
    /// that has most, so that who opens many sessions pushes out his own.
    fn shrink(&mut self, opened: &Caller, origin: Origin, bounds: &Bounds, now: Timestamp) {
        self.forget_idle(bounds.idle_ms, now);
        while let Some(ticks) = self.by_key.get(&opened.pseudonym).filter(|ticks| ticks.len() > bounds.per_key.max(1)) {
            let Some(tick) = ticks.first().copied() else { break };
            self.remove(tick);
        }
        while let Some(ticks) = self.by_origin.get(&origin).filter(|ticks| ticks.len() > bounds.per_origin.max(1)) {
            let Some(tick) = ticks.first().copied() else { break };
            self.remove(tick);
        }
        while self.sessions.len() > bounds.all {
            let most = self.largest.last().and_then(|(_, origin)| self.by_origin.get(origin));
            let Some(tick) = most.and_then(|ticks| ticks.first().copied()) else { break };
            self.remove(tick);
        }
    }
}

/// The open sessions of a server: bounded in number, forgotten after silence.
pub(crate) struct Sessions {
    table: Mutex<Table>,
    bounds: Bounds,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

impl Sessions {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { table: Mutex::default(), bounds }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it holds the lock half-way through a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a session. Where there are too many, one of the same key or place, or of the place with most, is forgotten.
    pub(crate) fn open(&self, id: SessionId, key: SessionKey, caller: Caller, origin: Origin, now: Timestamp) {
        let mut table = self.table();
        table.tick += 1;
        let tick = table.tick;
        table.insert(id, Session { caller, origin, key, window: ReplayWindow::default(), used: now, tick });
        table.shrink(&caller, origin, &self.bounds, now);
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
            if session.used.plus_ms(self.bounds.idle_ms) <= now {
                return Err(SessionError::Unknown);
            }
            session.key.clone()
        };
        // The HMAC runs over megabytes at times: not under the lock.
        key.verify(method, request)?;
        let mut table = self.table();
        table.sessions.get_mut(&id).ok_or(SessionError::Unknown)?.window.note(request.counter)?;
        let session = table.touch(id).ok_or(SessionError::Unknown)?;
        session.used = session.used.max(now);
        Ok(session.caller)
    }

    /// Forgets what was silent for too long.
    pub(crate) fn forget_idle(&self, now: Timestamp) {
        self.table().forget_idle(self.bounds.idle_ms, now);
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

    const HOME: Origin = Origin(1);

    /// Whose key has this number.
    fn caller(key: u8) -> Caller {
        Caller { channel: ChannelId::new([1; 16]), place: Place::Owner, pseudonym: [key; 32] }
    }

    fn sessions(all: usize, per_origin: usize, per_key: usize) -> Sessions {
        Sessions::new(Bounds { all, per_origin, per_key, idle_ms: 100 })
    }

    fn key() -> SessionKey {
        SessionKey::new([7; 32])
    }

    fn id(n: u32) -> SessionId {
        SessionId::new(u128::from(n).to_be_bytes())
    }

    fn open(sessions: &Sessions, n: u32, by: u8, origin: Origin, now: u64) {
        sessions.open(id(n), key(), caller(by), origin, Timestamp(now));
        sessions.table().check();
    }

    fn call(sessions: &Sessions, n: u32, counter: u64, now: u64) -> Result<Caller, SessionError> {
        let request = key().seal(method::FETCH, id(n), counter, Vec::new());
        let called = sessions.authenticate(method::FETCH, &request, Timestamp(now));
        sessions.table().check();
        called
    }

    impl Table {
        /// The indexes say the same.
        fn check(&self) {
            assert_eq!(self.order.len(), self.sessions.len());
            assert_eq!(self.by_key.values().map(BTreeSet::len).sum::<usize>(), self.sessions.len());
            assert_eq!(self.by_origin.values().map(BTreeSet::len).sum::<usize>(), self.sessions.len());
            let sizes: BTreeSet<_> = self.by_origin.iter().map(|(origin, ticks)| (ticks.len(), *origin)).collect();
            assert_eq!(self.largest, sizes);
            for (id, session) in &self.sessions {
                assert_eq!(self.order.get(&session.tick), Some(id));
                assert!(self.by_key[&session.caller.pseudonym].contains(&session.tick));
                assert!(self.by_origin[&session.origin].contains(&session.tick));
            }
        }
    }

    #[test]
    fn silence_ends_a_session_and_use_prolongs_it() {
        let sessions = sessions(10, 10, 10);
        open(&sessions, 1, 1, HOME, 0);
        assert_eq!(call(&sessions, 1, 1, 99), Ok(caller(1)));
        assert_eq!(call(&sessions, 1, 2, 198), Ok(caller(1)));
        assert_eq!(call(&sessions, 1, 3, 298), Err(SessionError::Unknown));
        sessions.forget_idle(Timestamp(298));
        assert_eq!(sessions.len(), 0);
        sessions.table().check();
    }

    #[test]
    fn the_least_recently_used_gives_way() {
        for bounds in [(2, 9, 9), (9, 2, 9), (9, 9, 2)] {
            let sessions = sessions(bounds.0, bounds.1, bounds.2);
            open(&sessions, 1, 1, HOME, 0);
            open(&sessions, 2, 1, HOME, 0);
            call(&sessions, 1, 1, 1).unwrap();
            open(&sessions, 3, 1, HOME, 2);
            assert_eq!(call(&sessions, 2, 1, 3), Err(SessionError::Unknown));
            assert_eq!(call(&sessions, 1, 2, 3), Ok(caller(1)));
            assert_eq!(call(&sessions, 3, 1, 3), Ok(caller(1)));
            assert_eq!(sessions.len(), 2);
        }
    }

    #[test]
    fn who_opens_many_pushes_out_nobody_else() {
        let sessions = sessions(100, 40, 4);
        for n in 0..10 {
            open(&sessions, n, 1 + u8::try_from(n % 5).unwrap(), Origin(10 + u64::from(n / 5)), 0);
        }
        // One key, from everywhere.
        for n in 1000..1500 {
            open(&sessions, n, 200, Origin(u64::from(n)), 1);
        }
        assert_eq!(sessions.len(), 14);
        // Many keys, from one place; then from places enough to fill the table.
        for n in 2000..2500 {
            open(&sessions, n, u8::try_from(n % 100 + 100).unwrap(), Origin(5), 1);
        }
        assert_eq!(sessions.len(), 54);
        for n in 3000..4000 {
            open(&sessions, n, u8::try_from(n % 100 + 100).unwrap(), Origin(u64::from(n % 4) + 100), 1);
        }
        assert_eq!(sessions.len(), 100);
        for n in 0..10 {
            assert!(call(&sessions, n, 1, 2).is_ok(), "{n}");
        }
    }

    #[test]
    fn a_counter_is_used_once_and_a_wrong_mac_uses_none() {
        let sessions = sessions(2, 2, 2);
        open(&sessions, 1, 1, HOME, 0);
        let mut forged = key().seal(method::FETCH, id(1), 1, Vec::new());
        forged.mac[0] ^= 1;
        let refused = sessions.authenticate(method::FETCH, &forged, Timestamp(0));
        assert_eq!(refused, Err(SessionError::Unknown));
        assert_eq!(call(&sessions, 1, 1, 0), Ok(caller(1)));
        assert_eq!(call(&sessions, 1, 1, 0), Err(SessionError::Replayed));
        assert_eq!(call(&sessions, 9, 1, 0), Err(SessionError::Unknown));
    }
}
