//! Open connections: which are idle, which give way to others, and how one is ended from outside.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

use futures::task::AtomicWaker;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use crate::limits::Address;

/// How long a connection with open calls is kept while nothing of any answer is taken. Streams have a heartbeat, and no
/// call takes half as long until its answer begins.
const STUCK: Duration = Duration::from_secs(180);

struct Line {
    address: Address,
    number: u64,
    closed: AtomicBool,
    reader: AtomicWaker,
    /// Its place among those that may be open, until it ends or gives way.
    place: Mutex<Option<OwnedSemaphorePermit>>,
    /// Calls that are not wholly answered.
    calls: AtomicUsize,
    /// When a call began or ended last, or something of an answer was taken.
    moved: Mutex<Instant>,
}

/// Who calls: one connection. Each request of it carries one.
#[derive(Clone)]
pub(crate) struct Peer(Arc<Line>);

/// A call that is not wholly answered, until it is dropped.
pub(crate) struct Call(Peer);

impl Call {
    pub(crate) fn peer(&self) -> &Peer {
        &self.0
    }
}

impl Peer {
    pub(crate) fn address(&self) -> Address {
        self.0.address
    }

    /// Ends the connection, whatever it carries.
    pub(crate) fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.reader.wake();
    }

    /// Whether it is to end. If not yet, the task is woken when it is.
    pub(crate) fn is_closed(&self, cx: &Context<'_>) -> bool {
        let waker: &Waker = cx.waker();
        self.0.reader.register(waker);
        self.0.closed.load(Ordering::Acquire)
    }

    /// Something of an answer was taken.
    pub(crate) fn moved_on(&self) {
        *self.0.moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    pub(crate) fn call(&self) -> Call {
        self.0.calls.fetch_add(1, Ordering::AcqRel);
        self.moved_on();
        Call(self.clone())
    }

    fn take_place(&self) -> Option<OwnedSemaphorePermit> {
        self.0.place.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn is_idle(&self) -> bool {
        self.0.calls.load(Ordering::Acquire) == 0
    }

    fn moved(&self) -> Instant {
        *self.0.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.moved_on();
        self.0.0.calls.fetch_sub(1, Ordering::AcqRel);
    }
}

#[derive(Default)]
struct Registry {
    lines: Mutex<HashMap<u64, Peer>>,
    next: AtomicU64,
}

/// All open connections. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Connections(Arc<Registry>);

/// A connection's entry, until it is dropped.
pub(crate) struct Entry {
    pub(crate) peer: Peer,
    registry: Weak<Registry>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        // Answers may hold the line for longer.
        drop(self.peer.take_place());
        if let Some(registry) = self.registry.upgrade() {
            registry.lines().remove(&self.peer.0.number);
        }
    }
}

impl Registry {
    fn lines(&self) -> MutexGuard<'_, HashMap<u64, Peer>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connections {
    /// Notes a connection that has a place.
    pub(crate) fn enter(&self, address: Address, place: OwnedSemaphorePermit) -> Entry {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let peer = Peer(Arc::new(Line {
            address,
            number,
            closed: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            place: Mutex::new(Some(place)),
            calls: AtomicUsize::new(0),
            moved: Mutex::new(Instant::now()),
        }));
        self.0.lines().insert(number, peer.clone());
        Entry { peer, registry: Arc::downgrade(&self.0) }
    }

    /// How many there are, those that are told to end apart.
    pub(crate) fn count(&self) -> usize {
        self.0.lines().values().filter(|peer| !peer.0.closed.load(Ordering::Acquire)).count()
    }

    /// Ends those without a call for so long, and those that take nothing of any answer for [`STUCK`].
    pub(crate) fn close_idle(&self, after: Duration) {
        let lines = self.0.lines();
        for peer in lines.values() {
            let after = if peer.is_idle() { after } else { STUCK };
            if peer.moved().elapsed() >= after {
                tracing::debug!(idle = peer.is_idle(), "a connection on which nothing moves is closed");
                peer.close();
            }
        }
    }

    /// Makes room for a connection from an address: ends one of the address that has most of them, an idle one if
    /// possible, the longest idle first, and gives its place. None if nobody has at least two more than the newcomer.
    pub(crate) fn make_room(&self, newcomer: Address) -> Option<OwnedSemaphorePermit> {
        let lines = self.0.lines();
        let mut counts: HashMap<Address, usize> = HashMap::new();
        for peer in lines.values().filter(|peer| !peer.0.closed.load(Ordering::Acquire)) {
            *counts.entry(peer.0.address).or_default() += 1;
        }
        let own = counts.get(&newcomer).copied().unwrap_or_default();
        let (largest, most) = counts.into_iter().max_by_key(|(address, count)| (*count, *address))?;
        if most < own + 2 {
            return None;
        }
        let victim = lines
            .values()
            .filter(|peer| peer.0.address == largest && !peer.0.closed.load(Ordering::Acquire))
            .min_by_key(|peer| (!peer.is_idle(), peer.moved(), peer.0.number))?;
        tracing::info!("all connections are taken: one of the address with most of them gives way");
        victim.close();
        victim.take_place()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A connection of somebody's.
    pub(crate) fn line(connections: &Connections) -> Entry {
        enter(connections, 1)
    }

    fn address(n: u8) -> Address {
        Address::V4([192, 0, 2, n])
    }

    fn closed(entry: &Entry) -> bool {
        entry.peer.0.closed.load(Ordering::Acquire)
    }

    fn enter(connections: &Connections, n: u8) -> Entry {
        let places = Arc::new(tokio::sync::Semaphore::new(1));
        connections.enter(address(n), places.try_acquire_owned().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_idle_are_closed_for_idleness() {
        let connections = Connections::default();
        let (idle, busy) = (enter(&connections, 1), enter(&connections, 1));
        let call = busy.peer.call();
        tokio::time::advance(Duration::from_secs(100)).await;
        connections.close_idle(Duration::from_secs(60));
        assert!(closed(&idle) && !closed(&busy));
        drop(call);
        connections.close_idle(Duration::from_secs(60));
        assert!(!closed(&busy));
        tokio::time::advance(Duration::from_secs(60)).await;
        connections.close_idle(Duration::from_secs(60));
        assert!(closed(&busy));
        drop((idle, busy));
        // Open calls, of whose answers nothing is taken.
        let (stuck, slow) = (enter(&connections, 1), enter(&connections, 1));
        let _calls = (stuck.peer.call(), stuck.peer.call(), slow.peer.call());
        tokio::time::advance(STUCK / 2).await;
        slow.peer.moved_on();
        tokio::time::advance(STUCK / 2).await;
        connections.close_idle(Duration::from_secs(3600));
        assert!(closed(&stuck) && !closed(&slow));
        drop((stuck, slow));
        assert_eq!(connections.count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_most_gives_way_and_nobody_to_his_equal() {
        let connections = Connections::default();
        let busy = enter(&connections, 1);
        let _call = busy.peer.call();
        let (older, newer) = (enter(&connections, 1), enter(&connections, 1));
        let other = enter(&connections, 2);
        assert!(connections.make_room(address(1)).is_none(), "none for who has most");
        assert!(connections.make_room(address(3)).is_some());
        assert!(closed(&older) && !closed(&newer) && !closed(&busy) && !closed(&other));
        assert!(connections.make_room(address(3)).is_some());
        assert!(closed(&newer) && !closed(&busy));
        assert!(connections.make_room(address(3)).is_none(), "one each");
    }

    #[tokio::test]
    async fn a_place_comes_back_once_though_an_answer_outlives_its_connection() {
        let places = Arc::new(tokio::sync::Semaphore::new(1));
        let connections = Connections::default();
        let entry = connections.enter(address(1), Arc::clone(&places).try_acquire_owned().unwrap());
        let call = entry.peer.call();
        assert_eq!(places.available_permits(), 0);
        drop(entry);
        assert_eq!((places.available_permits(), connections.count()), (1, 0));
        drop(call);
        assert_eq!(places.available_permits(), 1);
    }
}
