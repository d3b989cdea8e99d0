//! Seeded simulation: clients of `conclave-engine` and the real `conclave-delivery` core, on a virtual clock and a
//! network that loses requests and replies, with clients that crash between any two steps.
//!
//! A seed fixes the schedule: who does what, and what goes wrong. (Keys are random all the same; no decision depends
//! on them.) After the program everybody comes to rest, and the [`Violation`]s are looked for.
//!
//! ```
//! use conclave_simulator::{Plan, simulate};
//!
//! let outcome = simulate(&Plan { seed: 7, steps: 20, ..Plan::default() })?;
//! assert!(outcome.messages_read >= outcome.messages_sent);
//! # Ok::<(), conclave_simulator::Violation>(())
//! ```

mod actor;
mod run;
mod server;

pub use run::{Outcome, Plan, Sabotage, Violation, simulate};
