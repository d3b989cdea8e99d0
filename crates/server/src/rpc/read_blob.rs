//! `ReadBlob`: streams a blob, read a part at a time.

use std::{future::Future, sync::Arc, time::Duration};

use conclave_delivery::BlobPart;
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
    tokio::spawn(feed(request.offset, first, part, out, peer));
    Ok(ReceiverStream::new(parts))
}

/// Sends a blob from an offset on, the first part of which was read.
async fn feed<P, R>(
    mut offset: u64,
    first: BlobPart,
    part: P,
    out: mpsc::Sender<Result<ReadBlobResponse, Status>>,
    peer: Option<Peer>,
) where
    P: Fn(u64) -> R,
    R: Future<Output = Result<BlobPart, Refusal>>,
{
    let whole = first.size;
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
                let _ = out.send_timeout(Err(Status::from(refusal)), STUCK).await;
                return;
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connections::{Connections, tests::line};

    #[tokio::test(start_paused = true)]
    async fn a_reader_may_be_slow_but_not_stuck() {
        let connections = Connections::default();
        let entry = line(&connections);
        let (out, mut parts) = mpsc::channel(1);
        let first = BlobPart { size: 40 << 20, data: vec![7; 1 << 20] };
        let part = |_| async { Ok(BlobPart { size: 40 << 20, data: vec![7; 1 << 20] }) };
        let feeding = tokio::spawn(feed(0, first, part, out, Some(entry.peer.clone())));
        for _ in 0..10 {
            tokio::time::sleep(STUCK / 2).await;
            assert_eq!(parts.recv().await.unwrap().unwrap().data.len(), CHUNK);
        }
        assert_eq!(connections.count(), 1);
        feeding.await.unwrap();
        assert_eq!(connections.count(), 0, "its connection is told to end");
    }
}
