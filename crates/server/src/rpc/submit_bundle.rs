//! `SubmitBundle`: opens the delivery addresses of the Welcome, which may be many, and judges the commit of a visible
//! group, which may be large, before the transaction.

use std::sync::Arc;

use conclave_protocol::{
    Refusal, method,
    v1::{SessionRequest, SubmitResponse},
};

use super::{Rpc, to_the_end};
use crate::clock;

pub(super) async fn handle(rpc: &Rpc, request: SessionRequest) -> Result<SubmitResponse, Refusal> {
    let service = rpc.delivery()?;
    let state = Arc::clone(&rpc.0);
    to_the_end(async move {
        let store = state.database.delivery();
        let mut request = service.authenticate(request, method::SUBMIT_BUNDLE, clock::now())?;
        if request.has_addresses() || request.has_open_commit() {
            let opener = Arc::clone(&service);
            request = store
                .read(move |read| {
                    opener.open_addresses(read, &mut request, clock::now())?;
                    if request.has_open_commit() {
                        opener.judge_commit(read, &mut request, clock::now())?;
                    }
                    Ok::<_, Refusal>(request)
                })
                .await?;
        }
        let signer = Arc::clone(&service);
        let mut done = store.write(move |tx| service.submit_bundle(tx, &request, clock::now())).await?;
        // It is durable now.
        signer.sign_receipt(&mut done);
        Ok(state.settle(done))
    })
    .await
}
