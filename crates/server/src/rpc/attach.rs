//! `Attach`: has a stream carry the session's channel.

use conclave_protocol::{
    Refusal,
    v1::{AttachResponse, SessionRequest},
};

use super::Rpc;
use crate::clock;

pub(super) async fn handle(rpc: &Rpc, request: SessionRequest) -> Result<AttachResponse, Refusal> {
    let service = rpc.delivery()?;
    let attached = rpc.0.database.delivery().read(move |read| service.attach(read, &request, clock::now())).await?;
    rpc.0.streams.attach(&attached)?;
    Ok(AttachResponse {})
}
