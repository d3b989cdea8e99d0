//! Both services' stores in one SQLite file.

mod authentication;
mod delivery;
mod failure;
mod job;
mod open;
mod options;
mod readers;
mod schema;
mod transaction;
mod writer;

use std::{
    fs::File,
    path::Path,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use conclave_authentication::store as authentication_store;
use conclave_delivery::store as delivery_store;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

pub use failure::Failure;
pub use open::OpenError;
pub use options::{Options, Services};

use job::{Kind, Message, Task};
use transaction::Transaction;

/// An open database. Clones are the same database; the last one to go waits until everything queued is durable.
#[derive(Clone)]
pub struct Database(Arc<Inner>);

/// Fields are dropped in this order: threads end when nobody can send to them any more.
struct Inner {
    writer: mpsc::Sender<Message>,
    /// None in memory, where everything goes through the writer's connection.
    readers: Option<mpsc::Sender<Message>>,
    threads: Threads,
    services: Services,
}

impl Database {
    /// Opens the database in a data directory, or makes both (readable by their owner only).
    ///
    /// # Errors
    /// Any [`OpenError`]. Another server has the directory, its data is of a newer version or not Conclave's: they
    /// are left as they are.
    pub fn open(directory: impl AsRef<Path>, options: Options) -> Result<Self, OpenError> {
        let opened = open::open(directory.as_ref(), &options)?;
        Self::start(opened.writer, opened.readers, Some(opened.lock), &options)
    }

    /// A database without a file, for tests and simulations. It ends with its last clone.
    ///
    /// # Errors
    /// [`OpenError::Sqlite`] and [`OpenError::Thread`].
    pub fn in_memory() -> Result<Self, OpenError> {
        let options = Options::default();
        let connection = open::in_memory(&options)?;
        Self::start(connection, Vec::new(), None, &options)
    }

    fn start(
        writer: Connection,
        readers: Vec<Connection>,
        lock: Option<File>,
        options: &Options,
    ) -> Result<Self, OpenError> {
        // Each thread holds the lock, so that it is free only when the last connection is gone.
        let lock = Arc::new(lock);
        let mut threads = Threads::default();
        let (send_writer, queue) = mpsc::channel(options.queue.get());
        let (send_readers, reader_queue) = mpsc::channel(options.queue.get());
        let reader_queue = Arc::new(Mutex::new(reader_queue));
        let has_readers = !readers.is_empty();
        for (index, connection) in readers.into_iter().enumerate() {
            let reader = readers::Reader { connection, queue: reader_queue.clone() };
            threads.start(format!("store-read-{index}"), lock.clone(), || reader.run())?;
        }
        let writer = writer::Writer { connection: writer, queue, batch: options.batch.get() };
        threads.start("store-write".to_owned(), lock, || writer.run())?;
        let readers = has_readers.then_some(send_readers);
        Ok(Self(Arc::new(Inner { writer: send_writer, readers, threads, services: options.services })))
    }

    /// The Authentication Service's store.
    #[must_use]
    pub fn authentication(&self) -> AuthenticationStore {
        AuthenticationStore(self.clone())
    }

    /// The Delivery Service's store.
    #[must_use]
    pub fn delivery(&self) -> DeliveryStore {
        DeliveryStore(self.clone())
    }

    /// Changes how large the database file may become, in bytes; `None`: as large as the disk. What is there already
    /// stays.
    ///
    /// # Errors
    /// [`Failure::Unavailable`] if the database is closed.
    pub async fn set_max_bytes(&self, max_bytes: Option<u64>) -> Result<(), Failure> {
        let (done, answer) = oneshot::channel();
        self.0.writer.send(Message::Limit(max_bytes, done)).await.map_err(|_| Failure::closed())?;
        answer.await.unwrap_or_else(|_| Err(Failure::closed()))
    }

    /// Ends the database: runs and answers what is queued, takes nothing more, moves the WAL into the file and
    /// releases the directory. It may be called more than once.
    pub async fn close(&self) {
        for queue in self.0.readers.iter().chain([&self.0.writer]) {
            // An error means that it is closed already.
            drop(queue.send(Message::Close).await);
        }
        self.0.threads.alive.closed().await;
    }

    async fn run<F, T, E>(&self, work: F, fail: fn(Failure) -> E, kind: Kind) -> Result<T, E>
    where
        F: FnOnce(&mut Transaction<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let queue = match &self.0.readers {
            Some(readers) if kind == Kind::Reads => readers,
            _ => &self.0.writer,
        };
        let (task, answer) = Task::new(work, fail, kind);
        if queue.send(Message::Run(Box::new(task))).await.is_err() {
            return Err(fail(Failure::closed()));
        }
        answer.await.unwrap_or_else(|_| Err(fail(Failure::closed())))
    }

    /// Refuses to run a service on a database without its tables.
    fn check(&self, service: Services) -> Result<(), Failure> {
        if self.0.services == Services::Both || self.0.services == service {
            Ok(())
        } else {
            Err(Failure::Unavailable("this database was opened without the service's tables".to_owned()))
        }
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("services", &self.0.services).finish_non_exhaustive()
    }
}

macro_rules! service {
    ($(#[$doc:meta])* $name:ident, $service:ident, $store:ident, $read:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name(Database);

        impl $name {
            /// Runs a transaction that may write. It sees everything that was answered before. Its writes are durable
            /// when this returns `Ok`, and undone when it returns `Err`. Once queued it runs even if the caller stops
            /// waiting.
            ///
            /// # Errors
            /// The closure's own, or what the caller makes of a `StoreError`.
            pub async fn write<T, E, F>(&self, work: F) -> Result<T, E>
            where
                F: FnOnce(&mut dyn $store::Tx) -> Result<T, E> + Send + 'static,
                T: Send + 'static,
                E: From<$store::StoreError> + Send + 'static,
            {
                self.run(move |transaction| work(transaction), Kind::Writes).await
            }

            /// Runs a transaction that only reads, beside the writer: it sees one state, with everything that was
            /// answered before. Writing in it fails.
            ///
            /// # Errors
            /// The closure's own, or what the caller makes of a `StoreError`.
            pub async fn read<T, E, F>(&self, work: F) -> Result<T, E>
            where
                F: FnOnce(&mut dyn $store::$read) -> Result<T, E> + Send + 'static,
                T: Send + 'static,
                E: From<$store::StoreError> + Send + 'static,
            {
                self.run(move |transaction| work(transaction), Kind::Reads).await
            }

            async fn run<T, E, F>(&self, work: F, kind: Kind) -> Result<T, E>
            where
                F: FnOnce(&mut Transaction<'_>) -> Result<T, E> + Send + 'static,
                T: Send + 'static,
                E: From<$store::StoreError> + Send + 'static,
            {
                let fail: fn(Failure) -> E = |failure| E::from($store::StoreError::from(failure));
                self.0.check(Services::$service).map_err(fail)?;
                self.0.run(work, fail, kind).await
            }
        }
    };
}

service! {
    /// The rows of the Authentication Service.
    AuthenticationStore, Authentication, authentication_store, Tx
}

service! {
    /// The rows of the Delivery Service.
    DeliveryStore, Delivery, delivery_store, Read
}

/// The threads with the connections.
#[derive(Default)]
struct Threads {
    handles: Vec<JoinHandle<()>>,
    /// Closed once every thread has ended: each holds a receiver.
    alive: watch::Sender<()>,
}

impl Threads {
    fn start(
        &mut self,
        name: String,
        lock: Arc<Option<File>>,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), OpenError> {
        let alive = self.alive.subscribe();
        let body = move || {
            work();
            // The connection went with `work`: now the directory may be opened again, and then it is told.
            drop(lock);
            drop(alive);
        };
        self.handles.push(thread::Builder::new().name(name).spawn(body).map_err(OpenError::Thread)?);
        Ok(())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        for handle in self.handles.drain(..) {
            // A transaction that holds the last clone drops it on its own thread, which cannot wait for itself.
            if handle.thread().id() != thread::current().id() && handle.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests;
