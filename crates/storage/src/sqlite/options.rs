//! What an operator may choose.

use std::num::NonZeroUsize;

/// Which services keep their rows in a database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Services {
    /// Both, in one file.
    #[default]
    Both,
    /// The Authentication Service only.
    Authentication,
    /// The Delivery Service only.
    Delivery,
}

/// How a database is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whose tables there are to be. Those of the other service are made when it is opened for them.
    pub services: Services,
    /// How large the database file may become, in bytes; beyond, writes fail with `StoreError::Full`. `None`: as
    /// large as the disk.
    pub max_bytes: Option<u64>,
    /// How many transactions that only read run at the same time. Each takes a thread.
    pub readers: NonZeroUsize,
    /// How many transactions may wait, for the writer and for the readers each. Who comes then waits to get in.
    pub queue: NonZeroUsize,
    /// Most transactions in one durable commit. It bounds how long the first of them waits for the last.
    pub batch: NonZeroUsize,
}

impl Default for Options {
    fn default() -> Self {
        let of = |number| NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN);
        let cores = std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
        Self {
            services: Services::Both,
            max_bytes: None,
            readers: of(cores.clamp(2, 8)),
            queue: of(1024),
            batch: of(256),
        }
    }
}
