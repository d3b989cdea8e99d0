//! The store from outside: what it keeps, what it undoes, whom it refuses.

#[cfg(test)]
mod authentication_conformance;
#[cfg(test)]
mod claims;
#[cfg(test)]
mod delivery_conformance;
#[cfg(test)]
mod durability;
#[cfg(test)]
mod full_disk;
#[cfg(test)]
mod opening;
#[cfg(test)]
mod schema_audit;
#[cfg(test)]
mod support;
#[cfg(test)]
mod transactions;
