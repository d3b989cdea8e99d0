//! Servers in this process, and clients in memory.

#![allow(dead_code, unreachable_pub)]

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use conclave_client::{
    Client, ClientEvent, Event, HistoryEntry, HistoryItem, Registration, Services,
    store::{MemoryStore, ProfileStore, Row, StoreError},
    transport::Endpoint,
};
use conclave_engine::writes::{Room, StoredMessage, Write};
use conclave_names::{Domain, GroupUri, Seq, UserUri};
use conclave_server::{Config, IssuerSource, Running, Server};
use tempfile::TempDir;
use zeroize::Zeroizing;

pub fn domain() -> Domain {
    "example.com".parse().unwrap()
}

/// One server with both services, or one for each (R5).
pub struct World {
    pub delivery: Option<Running>,
    pub authentication: Option<Running>,
    pub directories: Vec<TempDir>,
}

fn endpoint(running: &Running) -> Endpoint {
    let mut endpoint = Endpoint::new(format!("https://{}", running.addr()), running.domain().clone());
    endpoint.ca_pem = running.ca_pem().map(|pem| pem.as_bytes().to_vec());
    endpoint
}

impl World {
    pub async fn whole() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let running = Server::start(Config::for_tests(directory.path(), domain())).await.unwrap();
        Self { delivery: Some(running), authentication: None, directories: vec![directory] }
    }

    pub async fn split() -> Self {
        Self::split_with(|_| {}).await
    }

    /// One for each, where something is changed about the Authentication Service.
    pub async fn split_with(change: impl FnOnce(&mut Config)) -> Self {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut config = Config { delivery: false, ..Config::for_tests(first.path(), domain()) };
        change(&mut config);
        let authentication = Server::start(config).await.unwrap();
        let issuers = IssuerSource::Url {
            url: format!("https://{}", authentication.addr()),
            ca: Some(first.path().join("tls/ca.pem")),
        };
        let config =
            Config { authentication: false, issuers: Some(issuers), ..Config::for_tests(second.path(), domain()) };
        let delivery = Server::start(config).await.unwrap();
        Self { delivery: Some(delivery), authentication: Some(authentication), directories: vec![first, second] }
    }

    pub fn services(&self) -> Services {
        Services {
            delivery: endpoint(self.delivery.as_ref().unwrap()),
            authentication: self.authentication.as_ref().map(endpoint),
        }
    }

    /// The same while the Authentication Service, which is at an address, is away.
    pub fn services_with(&self, authentication: SocketAddr) -> Services {
        let ca = std::fs::read(self.directories[0].path().join("tls/ca.pem")).unwrap();
        let mut endpoint = Endpoint::new(format!("https://{authentication}"), domain());
        endpoint.ca_pem = Some(ca);
        Services { authentication: Some(endpoint), ..self.services() }
    }

    /// The same, where no Authentication Service answers.
    pub fn services_unauthenticated(&self) -> Services {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        self.services_with(free)
    }

    /// The authority that certifies clients is lost, and another takes its place.
    pub async fn replace_authority(&mut self) {
        let listen = self.stop_delivery().await;
        std::fs::remove_dir_all(self.directories.last().unwrap().path().join("authority")).unwrap();
        self.start_delivery(listen, |_| {}).await;
    }

    pub async fn person(&self, name: &str) -> Client {
        self.person_in(Box::new(MemoryStore::new()), name).await
    }

    /// Alice and Bob, in a group that she has made.
    pub async fn pair(&self) -> (Client, Client, GroupUri) {
        let set_up = async {
            let (mut alice, mut bob) = (self.person("alice").await, self.person("bob").await);
            let club = alice.create_group("The Club").await.unwrap();
            alice.add(&club, &[user("bob")]).await.unwrap();
            bob.sync().await.unwrap();
            (alice, bob, club)
        };
        Box::pin(set_up).await
    }

    pub async fn person_in(&self, store: Box<dyn ProfileStore>, name: &str) -> Client {
        let registration = Registration { user: name.into(), device: "laptop".into(), invite: None };
        Client::register(store, &self.services(), registration).await.unwrap()
    }

    /// Stops the Delivery Service, and starts it again where it was, with other settings if wanted.
    pub async fn restart_delivery(&mut self, change: impl FnOnce(&mut Config)) {
        let listen = self.stop_delivery().await;
        self.start_delivery(listen, change).await;
    }

    /// Stops the Delivery Service. Gives where it was.
    pub async fn stop_delivery(&mut self) -> SocketAddr {
        let running = self.delivery.take().unwrap();
        let listen = running.addr();
        running.shutdown().await;
        listen
    }

    pub async fn start_delivery(&mut self, listen: SocketAddr, change: impl FnOnce(&mut Config)) {
        let directory = self.directories.last().unwrap();
        let mut config = Config { listen, ..Config::for_tests(directory.path(), domain()) };
        if let Some(authentication) = &self.authentication {
            config.authentication = false;
            config.issuers = Some(IssuerSource::Url {
                url: format!("https://{}", authentication.addr()),
                ca: Some(self.directories[0].path().join("tls/ca.pem")),
            });
        }
        change(&mut config);
        self.delivery = Some(Server::start(config).await.unwrap());
    }

    /// The Delivery Service's database.
    pub fn database(&self) -> rusqlite::Connection {
        let file = self.directories.last().unwrap().path().join("conclave.db");
        let database = rusqlite::Connection::open(file).unwrap();
        database.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
        database
    }

    /// A copy of all that the server has, as an operator takes it.
    pub async fn back_up(&mut self) -> TempDir {
        let listen = self.stop_delivery().await;
        let to = tempfile::tempdir().unwrap();
        copy(self.directories.last().unwrap().path(), to.path());
        self.start_delivery(listen, |_| {}).await;
        to
    }

    /// From now on, the server keeps what the newest entries of a group need, and no more: maintenance runs when it starts.
    pub async fn forget_the_past(&mut self) {
        self.restart_delivery(|config| config.retention.bytes = Some(4000)).await;
    }

    /// Puts such a copy back.
    pub async fn restore(&mut self, backup: &TempDir) {
        let listen = self.stop_delivery().await;
        let directory = self.directories.last().unwrap().path();
        std::fs::remove_dir_all(directory).unwrap();
        std::fs::create_dir(directory).unwrap();
        copy(backup.path(), directory);
        self.start_delivery(listen, |_| {}).await;
    }

    /// Another server that goes on from where this one is, as an operator could start one: with the same keys and all its data.
    pub async fn fork(&mut self) -> Self {
        let running = self.delivery.take().unwrap();
        let listen = running.addr();
        running.shutdown().await;
        let (from, to) = (self.directories.last().unwrap().path(), tempfile::tempdir().unwrap());
        copy(from, to.path());
        let config = Config { listen, ..Config::for_tests(from, domain()) };
        self.delivery = Some(Server::start(config).await.unwrap());
        let other = Server::start(Config::for_tests(to.path(), domain())).await.unwrap();
        Self { delivery: Some(other), authentication: None, directories: vec![to] }
    }

    pub async fn stop(mut self) {
        for running in [self.delivery.take(), self.authentication.take()].into_iter().flatten() {
            running.shutdown().await;
        }
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

pub fn user(name: &str) -> UserUri {
    UserUri::new(domain(), name).unwrap()
}

/// A client says twenty things in a group: more than a server keeps that forgets the past.
pub async fn chatter(client: &mut Client, group: &GroupUri) {
    for n in 0..20 {
        client.send(group, &format!("message {n}")).await.unwrap();
    }
}

/// What a client read in a group, oldest first.
pub fn texts(client: &Client, group: &GroupUri) -> Vec<String> {
    let history = client.history(group, Seq(0), 1000).unwrap().into_iter();
    let text = |item: HistoryItem| match item.entry {
        HistoryEntry::Message { text, .. } => text,
        _ => None,
    };
    history.filter_map(text).collect()
}

/// How often something of the kind stands in the history of a group.
pub fn noted(client: &Client, group: &GroupUri, kind: &str) -> usize {
    let is_it = |item: &HistoryItem| matches!(&item.entry, HistoryEntry::Change { change } if change["event"] == kind);
    client.history(group, Seq(0), 1000).unwrap().iter().filter(|item| is_it(item)).count()
}

/// Whether something of the kind happened.
pub fn has(events: &[ClientEvent], wanted: impl Fn(&Event) -> bool) -> bool {
    events.iter().any(|happened| wanted(&happened.event))
}

/// A store that outlives the client that it is given to: what a crash leaves.
#[derive(Clone, Default)]
pub struct SharedStore(Arc<Mutex<MemoryStore>>);

impl SharedStore {
    /// Another with the same in it: what somebody has who copied it.
    pub fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.0.lock().unwrap().clone())))
    }
}

impl ProfileStore for SharedStore {
    fn apply(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        self.0.lock().unwrap().apply(writes)
    }

    fn get(&self, room: Room, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        self.0.lock().unwrap().get(room, key)
    }

    fn scan(&self, room: Room, prefix: &[u8]) -> Result<Vec<Row>, StoreError> {
        self.0.lock().unwrap().scan(room, prefix)
    }

    fn messages(&self, group: &str, after_seq: u64, limit: usize) -> Result<Vec<StoredMessage>, StoreError> {
        self.0.lock().unwrap().messages(group, after_seq, limit)
    }

    fn last_messages(&self, group: &str, limit: usize) -> Result<Vec<StoredMessage>, StoreError> {
        self.0.lock().unwrap().last_messages(group, limit)
    }

    fn message_place(&self, group: &str, id: &[u8; 32]) -> Result<Option<(u64, u64)>, StoreError> {
        self.0.lock().unwrap().message_place(group, id)
    }

    fn message_count(&self, group: &str) -> Result<u64, StoreError> {
        self.0.lock().unwrap().message_count(group)
    }
}

/// What is done with each transaction before it is stored; an error stands for the store's.
pub type OnWrites = Box<dyn FnMut(&[Write]) -> Result<(), StoreError> + Send>;

/// What is done before something of a room is read.
pub type OnRead = Box<dyn Fn(Room) + Send>;

/// A store that is looked at from outside.
pub struct Hooked<S> {
    pub store: S,
    pub on_writes: OnWrites,
    pub on_read: OnRead,
}

impl<S: ProfileStore> ProfileStore for Hooked<S> {
    fn apply(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        (self.on_writes)(writes)?;
        self.store.apply(writes)
    }

    fn tidy(&mut self) -> Result<(), StoreError> {
        self.store.tidy()
    }

    fn get(&self, room: Room, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        (self.on_read)(room);
        self.store.get(room, key)
    }

    fn scan(&self, room: Room, prefix: &[u8]) -> Result<Vec<Row>, StoreError> {
        (self.on_read)(room);
        self.store.scan(room, prefix)
    }

    fn messages(&self, group: &str, after_seq: u64, limit: usize) -> Result<Vec<StoredMessage>, StoreError> {
        self.store.messages(group, after_seq, limit)
    }

    fn last_messages(&self, group: &str, limit: usize) -> Result<Vec<StoredMessage>, StoreError> {
        self.store.last_messages(group, limit)
    }

    fn message_place(&self, group: &str, id: &[u8; 32]) -> Result<Option<(u64, u64)>, StoreError> {
        self.store.message_place(group, id)
    }

    fn message_count(&self, group: &str) -> Result<u64, StoreError> {
        self.store.message_count(group)
    }
}

/// A store of a client that dies: it takes so many more transactions, and then none. The other is what it leaves.
pub fn dying(store: &SharedStore, left: &Arc<AtomicUsize>) -> Box<dyn ProfileStore> {
    let left = Arc::clone(left);
    let on_writes = move |_: &[Write]| {
        let taken = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        taken.map(drop).map_err(|_| StoreError::Io("the program has died".into()))
    };
    Box::new(Hooked { store: store.clone(), on_writes: Box::new(on_writes), on_read: Box::new(|_| ()) })
}

/// Counts how often something of a group was read before the client took up a knock: then the KeyPackage goes to which that was sealed.
#[derive(Clone, Default)]
pub struct Watched {
    store: SharedStore,
    reads: Arc<AtomicUsize>,
    before: Arc<Mutex<Vec<usize>>>,
}

impl Watched {
    /// The store that it watches.
    pub fn store(&self) -> Box<dyn ProfileStore> {
        let Self { store, reads, before } = self.clone();
        let read = Arc::clone(&reads);
        let on_writes = move |writes: &[Write]| {
            let taken = |write: &Write| matches!(write, Write::Delete { room, .. } if *room == Room::KEY_PACKAGE);
            if writes.iter().any(taken) {
                before.lock().unwrap().push(reads.load(Ordering::SeqCst));
            }
            Ok(())
        };
        let on_read = move |room| {
            if room == Room::GROUP {
                read.fetch_add(1, Ordering::SeqCst);
            }
        };
        Box::new(Hooked { store, on_writes: Box::new(on_writes), on_read: Box::new(on_read) })
    }

    /// The counts before each knock since this was called last.
    pub fn take(&self) -> Vec<usize> {
        self.reads.store(0, Ordering::SeqCst);
        std::mem::take(&mut *self.before.lock().unwrap())
    }
}
