//! `ReadBlob`: streams a blob, read a part at a time.

use std::sync::Arc;

use conclave_protocol::{
    Refusal,
    v1::{ReadBlobRequest, ReadBlobResponse},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Rpc;

/// Bytes of one message.
const CHUNK: usize = 256 * 1024;

pub(super) async fn handle(
    rpc: &Rpc,
    request: ReadBlobRequest,
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
                if out
                    .send(Ok(ReadBlobResponse { size: std::mem::take(&mut size), data: chunk.to_vec() }))
                    .await
                    .is_err()
                {
                    return;
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
