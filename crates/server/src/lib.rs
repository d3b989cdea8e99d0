//! `conclaved`: Authentication Service and Delivery Service behind TLS and gRPC.
//!
//! A shell around `conclave-authentication` and `conclave-delivery`, with no rules of its own. Tests and programs can
//! start it in their own process:
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use conclave_server::{Config, Server};
//!
//! let directory = tempfile::tempdir()?;
//! let config = Config::for_tests(directory.path(), "example.com".parse()?);
//! let running = Server::start(config).await?;
//! println!("listening on {}", running.addr());
//! running.shutdown().await;
//! # Ok(())
//! # }
//! ```

pub mod args;
mod authority;
mod clock;
mod config;
mod connection;
mod connections;
mod http;
mod invites;
mod issuers;
mod limits;
mod listener;
mod rpc;
mod state;
mod streams;
mod tasks;
mod telemetry;
mod tls;

mod server;

#[doc(hidden)]
pub use clock::set_ahead_for_tests;
pub use conclave_delivery::limits::{InvalidRate, Limits as ServiceLimits, Rate};
pub use config::{Config, ConfigError, IssuerSource, LogFormat, RegistrationPolicy, Tls};
pub use invites::{InviteError, create_invite};
pub use limits::{AddressLimits, TicketKeyError, create_ticket};
pub use server::{Load, Running, Server, StartError};
pub use telemetry::init_logging;
