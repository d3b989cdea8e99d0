//! Groups with visible handshakes: engines, and a Delivery Service that follows them, on the store in memory and on SQLite.

#[cfg(test)]
mod external;
#[cfg(test)]
mod life;
#[cfg(test)]
mod person;
#[cfg(test)]
mod raw;
#[cfg(test)]
mod refused;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod state;
#[cfg(test)]
mod uncommittable;
#[cfg(test)]
mod world;
