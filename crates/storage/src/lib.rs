//! SQLite behind the store traits of the Authentication Service and the Delivery Service.
//!
//! A service is written against a transaction trait of its own; [`Database`] runs closures over it. One thread
//! writes: it commits what has queued up in one durable SQLite transaction, in which each closure has a savepoint of
//! its own, and answers afterwards. A few threads read beside it.
//!
//! ```
//! use conclave_authentication::store::StoreError;
//! use conclave_storage::Database;
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let database = Database::in_memory()?;
//! let alice = "mimi://example.com/u/alice".parse()?;
//! let found = database.authentication().read(move |tx| tx.user(&alice)).await?;
//! assert_eq!(found, None);
//! database.close().await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod sqlite;

pub use sqlite::{AuthenticationStore, Database, DeliveryStore, Failure, OpenError, Options, Services};
