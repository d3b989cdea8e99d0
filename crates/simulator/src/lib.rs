//! Seeded simulation: clients of `conclave-engine` and the real `conclave-delivery` core, on a virtual clock and a
//! network that loses, delays and doubles requests and cuts clients off, with clients and a server that die between any
//! two effects and come back with what was durable, and with a server or members that break the rules.
//!
//! A seed fixes the program: who does what and when, and what goes wrong. (Keys are random all the same; no decision
//! depends on them.) When the program is over, the network is good again, everybody catches up until nothing moves,
//! and then:
//!
//! - all members of a group agree on epoch, epoch authenticator, members, key root, and place in the channel;
//! - each message in the channel was read once by everybody who was a member then, in per-sender order, and by nobody
//!   who came later or was gone;
//! - what was said is there, once, unless its sender was told otherwise; an acknowledged message is there always;
//! - what was said comes after what its author knew when it said it, for everybody who has both;
//! - no key was used for two messages, proposals or commits, whether they arrived or not;
//! - no intent is open, no client is stuck, and no wish came to nothing without need;
//! - nobody misses what the server has signed for without knowing of it;
//! - the service's running hash is that of its entries, and the commits that stand are those of the law;
//! - each misdeed did no harm, or was noticed; and nobody is alarmed without a misdeed that explains it.
//!
//! A program is a list that can be cut ([`Cut`]): [`shrink`] finds the little of it that is needed for a violation.
//!
//! ```
//! use conclave_simulator::{Plan, simulate};
//!
//! let report = simulate(&Plan { steps: 20, ..Plan::new(8) })?;
//! assert!(report.sums.read >= report.sums.sent);
//! # Ok::<(), Box<conclave_simulator::Violation>>(())
//! ```

mod actor;
mod check;
mod dice;
mod disk;
mod hostile;
mod keys;
mod ledger;
mod network;
mod plan;
mod program;
mod sabotage;
mod server;
mod shrink;
mod sums;
mod witness;
mod world;

pub use plan::{Cut, Hostile, Numbers, Plan, Trouble};
pub use sabotage::Sabotage;
pub use shrink::shrink;
pub use sums::Sums;
pub use world::{Report, Violation, simulate};
