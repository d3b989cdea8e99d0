//! `RegisterUser`: takes over the operator's new invites first.

use conclave_protocol::{
    Refusal,
    v1::{RegisterUserResponse, SignedRequest},
};

use super::Rpc;
use crate::clock;

pub(super) async fn handle(rpc: &Rpc, request: SignedRequest) -> Result<RegisterUserResponse, Refusal> {
    let service = rpc.authentication()?;
    let store = rpc.0.database.authentication();
    rpc.0.spool.take_over(&service, &store).await?;
    store.write(move |tx| service.register_user(tx, &request, clock::now())).await
}
