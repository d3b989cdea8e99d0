//! `conclave.v1.KeyPackageDirectory`.

use std::sync::Arc;

use conclave_protocol::{
    Code, Refusal, method,
    v1::{self, key_package_directory_server::KeyPackageDirectory},
};
use tonic::{Request, Response, Status};

use super::{Rpc, observe, to_the_end};
use crate::clock;

macro_rules! service {
    ($($call:ident($method:ident): $response:ident;)*) => {
        #[tonic::async_trait]
        impl KeyPackageDirectory for Rpc {
            $(
                async fn $call(&self, request: Request<v1::SignedRequest>) -> Result<Response<v1::$response>, Status> {
                    observe(stringify!($call), async {
                        let service = self.delivery()?;
                        let request = request.into_inner();
                        let state = Arc::clone(&self.0);
                        to_the_end(async move {
                            // A certificate, and up to a hundred KeyPackages: too much for the threads of the network.
                            let judge = Arc::clone(&service);
                            let judged = tokio::task::spawn_blocking(move || {
                                judge.authenticate(request, method::$method, clock::now())
                            });
                            let request = judged.await.map_err(|error| {
                                tracing::error!(%error, "a request was not judged");
                                Refusal::new(Code::Internal, "the server failed: its operator finds the cause in its log")
                            })??;
                            let store = state.database.delivery();
                            let done = store.write(move |tx| service.$call(tx, &request, clock::now())).await?;
                            Ok(state.settle(done))
                        })
                        .await
                    })
                    .await
                }
            )*
        }
    };
}

service! {
    upload(UPLOAD): UploadResponse;
    claim(CLAIM): ClaimResponse;
    count(COUNT): CountResponse;
    purge(PURGE): PurgeResponse;
}
