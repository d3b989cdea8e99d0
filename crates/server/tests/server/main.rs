//! The server from outside: over TLS in this process, and as the real program.

#[cfg(test)]
mod access;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod blobs;
#[cfg(test)]
mod calls;
#[cfg(test)]
mod claims;
#[cfg(test)]
mod client;
#[cfg(test)]
mod conversation;
#[cfg(test)]
mod flood;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod operations;
#[cfg(test)]
mod people;
#[cfg(test)]
mod process;
#[cfg(test)]
mod shared_streams;
#[cfg(test)]
mod shutdown;
#[cfg(test)]
mod slow_readers;
#[cfg(test)]
mod split;
#[cfg(test)]
mod storm;
#[cfg(test)]
mod storm_group;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod transport;
