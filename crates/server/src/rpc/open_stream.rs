//! `OpenStream`.

use conclave_protocol::{Refusal, v1::StreamEvent};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Rpc;

pub(super) fn handle(rpc: &Rpc) -> Result<ReceiverStream<Result<StreamEvent, Status>>, Refusal> {
    let delivery = rpc.delivery()?;
    rpc.0.streams.open(delivery, rpc.0.database.clone(), rpc.0.stopping.subscribe())
}
