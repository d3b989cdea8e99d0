//! `OpenStream`.

use conclave_protocol::{Refusal, v1::StreamEvent};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Rpc;
use crate::connections::Peer;

pub(super) fn handle(rpc: &Rpc, peer: Option<Peer>) -> Result<ReceiverStream<Result<StreamEvent, Status>>, Refusal> {
    let delivery = rpc.delivery()?;
    rpc.0.streams.open(delivery, rpc.0.database.clone(), rpc.0.stopping.subscribe(), peer)
}
