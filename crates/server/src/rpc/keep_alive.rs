//! `KeepAlive`: the client of a stream is there.

use conclave_names::StreamHandle;
use conclave_protocol::{
    Code, Refusal,
    v1::{KeepAliveRequest, KeepAliveResponse},
};

use super::Rpc;

pub(super) fn handle(rpc: &Rpc, request: &KeepAliveRequest) -> Result<KeepAliveResponse, Refusal> {
    rpc.delivery()?;
    let handle = StreamHandle::try_from(request.handle.as_slice())
        .map_err(|_| Refusal::new(Code::Malformed, "`handle` is not 16 bytes"))?;
    rpc.0.streams.keep_alive(&handle)?;
    Ok(KeepAliveResponse {})
}
