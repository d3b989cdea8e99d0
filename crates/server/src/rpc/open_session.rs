//! `OpenSession`: sessions are bounded by the network address that opens them.

use std::sync::Arc;

use conclave_protocol::{
    Refusal, method,
    v1::{OpenSessionResponse, SignedRequest},
};
use tonic::Request;

use super::{Rpc, to_the_end};
use crate::{clock, connections::Peer};

pub(super) async fn handle(rpc: &Rpc, request: Request<SignedRequest>) -> Result<OpenSessionResponse, Refusal> {
    let service = rpc.delivery()?;
    let origin = request.extensions().get::<Peer>().map(|peer| rpc.0.guard.origin(peer.address())).unwrap_or_default();
    let (state, request) = (Arc::clone(&rpc.0), request.into_inner());
    to_the_end(async move {
        let request = service.authenticate(request, method::OPEN_SESSION, clock::now())?;
        let store = state.database.delivery();
        let done = store.write(move |tx| service.open_session_from(tx, &request, origin, clock::now())).await?;
        Ok(state.settle(done))
    })
    .await
}
