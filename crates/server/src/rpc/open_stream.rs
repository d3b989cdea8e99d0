//! `OpenStream`: its events are encoded once for all streams, which the generated code has no way to send. So the call has
//! a route of its own.

use std::{future::Future, pin::Pin};

use axum::{Router, extract::Request, routing::post};
use conclave_names::limits;
use conclave_protocol::{Refusal, v1::OpenStreamRequest};
use prost::bytes::Bytes;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Response, Status,
    server::{Grpc, ServerStreamingService},
};

use super::{Rpc, disabled, observe};
use crate::{connections::Peer, streams::EventCodec};

/// Where gRPC clients call it.
const PATH: &str = "/conclave.v1.DeliveryService/OpenStream";

type Events = ReceiverStream<Result<Bytes, Status>>;

/// Has a router serve the call.
pub(crate) fn route(router: Router, rpc: Rpc) -> Router {
    let serve = move |request: Request| {
        let rpc = rpc.clone();
        async move {
            let mut grpc = Grpc::new(EventCodec)
                .apply_max_message_size_config(Some(limits::WIRE_MESSAGE), Some(limits::WIRE_MESSAGE));
            grpc.server_streaming(OpenStream(rpc), request).await
        }
    };
    router.route(PATH, post(serve))
}

struct OpenStream(Rpc);

impl ServerStreamingService<OpenStreamRequest> for OpenStream {
    type Response = Bytes;
    type ResponseStream = Events;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Events>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<OpenStreamRequest>) -> Self::Future {
        let rpc = self.0.clone();
        let peer = request.extensions().get::<Peer>().cloned();
        Box::pin(async move { observe("open_stream", async { handle(&rpc, peer) }).await })
    }
}

fn handle(rpc: &Rpc, peer: Option<Peer>) -> Result<Events, Refusal> {
    let source = rpc.0.source().ok_or_else(|| disabled("Delivery"))?;
    rpc.0.streams.open(source, rpc.0.stopping.subscribe(), peer)
}
