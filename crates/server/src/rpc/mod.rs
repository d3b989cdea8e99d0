//! The calls. Most hand the request to their service within one transaction; those with a life of their own have a
//! file of their own.

mod admission;
mod answers;
mod attach;
mod authentication;
mod delivery;
mod detach;
mod directory;
mod keep_alive;
mod open_session;
mod open_stream;
mod read_blob;
mod register_user;
mod submit_bundle;

use std::{future::Future, sync::Arc, time::Instant};

use conclave_authentication::AuthenticationService;
use conclave_delivery::DeliveryService;
use conclave_protocol::{Code, Refusal};
use tonic::{Response, Status};

use crate::state::State;

pub(crate) use admission::admit;
pub(crate) use answers::in_our_words;
pub(crate) use open_stream::route as with_streams;

/// The three gRPC services. Clones share everything.
#[derive(Clone)]
pub(crate) struct Rpc(pub(crate) Arc<State>);

fn disabled(service: &str) -> Refusal {
    Refusal::new(Code::ServiceDisabled, format!("this server does not offer the {service} Service: ask another"))
}

impl Rpc {
    fn authentication(&self) -> Result<Arc<AuthenticationService>, Refusal> {
        self.0.authentication.clone().ok_or_else(|| disabled("Authentication"))
    }

    fn delivery(&self) -> Result<Arc<DeliveryService>, Refusal> {
        self.0.delivery.clone().ok_or_else(|| disabled("Delivery"))
    }
}

/// Runs what writes on a task of its own: a caller that goes away stops waiting, but what was stored still wakes its
/// readers.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::spawn(work).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a call did not come to its end");
        Err(Refusal::new(Code::Internal, "the server failed: its operator finds the cause in its log"))
    })
}

/// Runs a call, counts it and takes its time. Neither logs nor metrics hold anything of the request.
async fn observe<T>(
    method: &'static str,
    call: impl Future<Output = Result<T, Refusal>>,
) -> Result<Response<T>, Status> {
    let start = Instant::now();
    let result = call.await;
    let code = result.as_ref().err().map_or("OK", |refusal| refusal.code.as_str());
    count(method, code);
    metrics::histogram!("conclave_call_seconds", "method" => method).record(start.elapsed().as_secs_f64());
    match &result {
        Err(refusal) if matches!(refusal.code, Code::Internal | Code::StorageFull) => {
            tracing::error!(method, code, message = %refusal.message, "a call failed");
        }
        // The store has said why, or the server is stopping.
        Err(refusal) if refusal.code == Code::Unavailable => {
            tracing::warn!(method, code, message = %refusal.message, "a call was put off");
        }
        _ => tracing::debug!(method, code, micros = start.elapsed().as_micros(), "call"),
    }
    result.map(Response::new).map_err(Status::from)
}

/// Counts a call, also one that did not get as far as its service.
fn count(method: &'static str, code: &'static str) {
    metrics::counter!("conclave_calls_total", "method" => method, "code" => code).increment(1);
}
