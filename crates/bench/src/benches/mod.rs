//! One module a benchmark.

pub(crate) mod client_ops;
pub(crate) mod ds_append;
pub(crate) mod ds_commit_storm;
pub(crate) mod ds_fanout;
pub(crate) mod ds_group_size;
pub(crate) mod ds_idle;
pub(crate) mod ds_large;
