//! `ReadBlob`: streams a blob, read a part at a time.

use std::{sync::Arc, time::Duration};

use conclave_protocol::{
    Refusal,
    v1::{ReadBlobRequest, ReadBlobResponse},
};
use tokio::sync::mpsc::{self, error::SendTimeoutError};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Rpc;
use crate::connections::Peer;

/// Bytes of one message.
const CHUNK: usize = 256 * 1024;

/// How long a reader may take for one message. Who takes longer loses the connection: what waits for it in memory could
/// not be freed otherwise. He reads on from where he was.
const STUCK: Duration = Duration::from_secs(120);

pub(super) async fn handle(
    rpc: &Rpc,
    request: ReadBlobRequest,
    peer: Option<Peer>,
) -> Result<ReceiverStream<Result<ReadBlobResponse, Status>>, Refusal> {
    let service = rpc.delivery()?;
    let store = rpc.0.database.delivery();
    let part = {
        let (service, request) = (Arc::clone(&service), request.clone());
        move |offset| {
            let (service, store) = (Arc::clone(&service), store.clone());
            let request = ReadBlobRequest { offset, ..request.clone() };
            async move { store.read(move |read| service.read_blob(read, &request)).await }
        }
    };
    // The first part is read before the answer begins, so that a refusal is the call's.
    let first = part(request.offset).await?;
    let (out, parts) = mpsc::channel(1);
    tokio::spawn(async move {
        let whole = first.size;
        let mut offset = request.offset;
        // In the first message only.
        let mut size = whole;
        let mut data = first.data;
        loop {
            offset = offset.saturating_add(data.len() as u64);
            let empty = data.is_empty();
            // An empty part is said, too: at the end of the blob there may be nothing else.
            for chunk in data.chunks(CHUNK).chain(empty.then_some([].as_slice())) {
                let message = ReadBlobResponse { size: std::mem::take(&mut size), data: chunk.to_vec() };
                match out.send_timeout(Ok(message), STUCK).await {
                    Ok(()) => {}
                    Err(SendTimeoutError::Closed(_)) => return,
                    Err(SendTimeoutError::Timeout(_)) => {
                        tracing::debug!("a reader of a blob took nothing for too long: its connection is closed");
                        if let Some(peer) = peer {
                            peer.close();
                        }
                        return;
                    }
                }
            }
            if empty || offset >= whole {
                return;
            }
            data = match part(offset).await {
                Ok(part) => part.data,
                Err(refusal) => {
                    // The reader resumes from its offset.
                    let _ = out.send(Err(Status::from(refusal))).await;
                    return;
                }
            };
        }
    });
    Ok(ReceiverStream::new(parts))
}
