//! `Detach`: has a stream carry the session's channel no longer.

use conclave_protocol::{
    Refusal,
    v1::{DetachResponse, SessionRequest},
};

use super::Rpc;
use crate::clock;

pub(super) fn handle(rpc: &Rpc, request: &SessionRequest) -> Result<DetachResponse, Refusal> {
    let detached = rpc.delivery()?.detach(request, clock::now())?;
    rpc.0.streams.detach(&detached)?;
    Ok(DetachResponse {})
}
