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
        let size = first.size;
        let mut offset = request.offset;
        let mut next = ReadBlobResponse { size, data: first.data };
        loop {
            offset = offset.saturating_add(next.data.len() as u64);
            let empty = next.data.is_empty();
            if out.send(Ok(next)).await.is_err() || empty || offset >= size {
                return;
            }
            next = match part(offset).await {
                Ok(part) => ReadBlobResponse { size: 0, data: part.data },
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
