//! One module a benchmark.

pub(crate) mod client_ops;
