//! One module a benchmark.

pub(crate) mod bare_client;
pub(crate) mod bare_store;
pub(crate) mod client_catchup;
pub(crate) mod client_open;
pub(crate) mod client_ops;
pub(crate) mod client_send;
pub(crate) mod ds_append;
pub(crate) mod ds_commit_storm;
pub(crate) mod ds_fanout;
pub(crate) mod ds_group_size;
pub(crate) mod ds_idle;
pub(crate) mod ds_large;
