//! `conclave.v1.DeliveryService`.

use std::sync::Arc;

use conclave_protocol::{
    method,
    v1::{self, delivery_service_server::DeliveryService},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Rpc, attach, detach, keep_alive, observe, open_session, read_blob, submit_bundle, to_the_end};
use crate::{clock, connections::Peer};

macro_rules! service {
    (
        write { $($write:ident($method:ident): $write_request:ident => $write_response:ident;)* }
        submit { $($submit:ident($submit_method:ident): $submit_request:ident;)* }
        read { $($read:ident: $read_request:ident => $read_response:ident;)* }
    ) => {
        #[tonic::async_trait]
        impl DeliveryService for Rpc {
            type ReadBlobStream = ReceiverStream<Result<v1::ReadBlobResponse, Status>>;
            type OpenStreamStream = tokio_stream::Empty<Result<v1::StreamEvent, Status>>;

            $(
                async fn $write(&self, request: Request<v1::$write_request>) -> Result<Response<v1::$write_response>, Status> {
                    observe(stringify!($write), async {
                        let service = self.delivery()?;
                        let request = request.into_inner();
                        let state = Arc::clone(&self.0);
                        to_the_end(async move {
                            let request = service.authenticate(request, method::$method, clock::now())?;
                            let store = state.database.delivery();
                            let done = store.write(move |tx| service.$write(tx, &request, clock::now())).await?;
                            Ok(state.settle(done))
                        })
                        .await
                    })
                    .await
                }
            )*

            $(
                async fn $submit(&self, request: Request<v1::$submit_request>) -> Result<Response<v1::SubmitResponse>, Status> {
                    observe(stringify!($submit), async {
                        let service = self.delivery()?;
                        let request = request.into_inner();
                        let state = Arc::clone(&self.0);
                        to_the_end(async move {
                            let request = service.authenticate(request, method::$submit_method, clock::now())?;
                            let store = state.database.delivery();
                            let signer = Arc::clone(&service);
                            let mut done = store.write(move |tx| service.$submit(tx, &request, clock::now())).await?;
                            // It is durable now.
                            signer.sign_receipt(&mut done);
                            Ok(state.settle(done))
                        })
                        .await
                    })
                    .await
                }
            )*

            $(
                async fn $read(&self, request: Request<v1::$read_request>) -> Result<Response<v1::$read_response>, Status> {
                    observe(stringify!($read), async {
                        let service = self.delivery()?;
                        let request = request.into_inner();
                        let store = self.0.database.delivery();
                        store.read(move |read| service.$read(read, &request, clock::now())).await
                    })
                    .await
                }
            )*

            async fn get_server_info(
                &self,
                _: Request<v1::GetServerInfoRequest>,
            ) -> Result<Response<v1::GetServerInfoResponse>, Status> {
                observe("get_server_info", async {
                    let service = self.delivery()?;
                    let store = self.0.database.delivery();
                    store.read(move |read| service.get_server_info(read, clock::now())).await
                })
                .await
            }

            async fn attach(&self, request: Request<v1::SessionRequest>) -> Result<Response<v1::AttachResponse>, Status> {
                observe("attach", attach::handle(self, request.into_inner())).await
            }

            async fn detach(&self, request: Request<v1::SessionRequest>) -> Result<Response<v1::DetachResponse>, Status> {
                observe("detach", async { detach::handle(self, &request.into_inner()) }).await
            }

            async fn read_blob(
                &self,
                request: Request<v1::ReadBlobRequest>,
            ) -> Result<Response<Self::ReadBlobStream>, Status> {
                let peer = request.extensions().get::<Peer>().cloned();
                observe("read_blob", read_blob::handle(self, request.into_inner(), peer)).await
            }

            async fn open_stream(
                &self,
                _: Request<v1::OpenStreamRequest>,
            ) -> Result<Response<Self::OpenStreamStream>, Status> {
                // The route of `open_stream` comes before this one.
                Err(Status::unimplemented("streams are served elsewhere"))
            }

            async fn submit_bundle(
                &self,
                request: Request<v1::SessionRequest>,
            ) -> Result<Response<v1::SubmitResponse>, Status> {
                observe("submit_bundle", submit_bundle::handle(self, request.into_inner())).await
            }

            async fn open_session(
                &self,
                request: Request<v1::SignedRequest>,
            ) -> Result<Response<v1::OpenSessionResponse>, Status> {
                observe("open_session", open_session::handle(self, request)).await
            }

            async fn keep_alive(
                &self,
                request: Request<v1::KeepAliveRequest>,
            ) -> Result<Response<v1::KeepAliveResponse>, Status> {
                observe("keep_alive", async { keep_alive::handle(self, &request.into_inner()) }).await
            }
        }
    };
}

service! {
    write {
        create_channel(CREATE_CHANNEL): SignedRequest => CreateChannelResponse;
        create_inbox(CREATE_INBOX): SignedRequest => CreateInboxResponse;
        knock(KNOCK): SignedRequest => KnockResponse;
        trim(TRIM): SessionRequest => TrimResponse;
        stage_blob(STAGE_BLOB): SessionRequest => StageBlobResponse;
    }
    submit {
        submit(SUBMIT): SessionRequest;
        submit_external_proposal(SUBMIT_EXTERNAL_PROPOSAL): SignedRequest;
    }
    read {
        fetch: SessionRequest => FetchResponse;
        read_group_info: SessionRequest => ReadGroupInfoResponse;
        read_tree: SessionRequest => ReadTreeResponse;
    }
}
