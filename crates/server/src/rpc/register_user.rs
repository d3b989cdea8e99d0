//! `RegisterUser`: takes over the operator's new invites first.

use std::sync::Arc;

use conclave_protocol::{
    Refusal,
    v1::{RegisterUserResponse, SignedRequest},
};

use super::Rpc;
use crate::{clock, invites::Spool};

pub(super) async fn handle(rpc: &Rpc, request: SignedRequest) -> Result<RegisterUserResponse, Refusal> {
    let service = rpc.authentication()?;
    let store = rpc.0.database.authentication();
    let waiting = {
        let _one_at_a_time = rpc.0.import_lock();
        rpc.0.spool.waiting()
    };
    if !waiting.is_empty() {
        let (paths, rows): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
        let importer = Arc::clone(&service);
        store.write(move |tx| rows.iter().try_for_each(|row| importer.import_invite(tx, row, clock::now()))).await?;
        Spool::remove(&paths);
    }
    store.write(move |tx| service.register_user(tx, &request, clock::now())).await
}
