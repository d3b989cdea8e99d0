//! The server from outside: over TLS in this process, and as the real program.

#[cfg(test)]
mod calls;
#[cfg(test)]
mod client;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod operations;
#[cfg(test)]
mod process;
#[cfg(test)]
mod split;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod transport;
