//! `conclave.v1.KeyPackageDirectory`.

use std::sync::Arc;

use conclave_protocol::v1::{self, key_package_directory_server::KeyPackageDirectory};
use tonic::{Request, Response, Status};

use super::{Rpc, observe, to_the_end};
use crate::clock;

macro_rules! service {
    ($($call:ident: $response:ident;)*) => {
        #[tonic::async_trait]
        impl KeyPackageDirectory for Rpc {
            $(
                async fn $call(&self, request: Request<v1::SignedRequest>) -> Result<Response<v1::$response>, Status> {
                    observe(stringify!($call), async {
                        let service = self.delivery()?;
                        let request = request.into_inner();
                        let state = Arc::clone(&self.0);
                        to_the_end(async move {
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
    upload: UploadResponse;
    claim: ClaimResponse;
    count: CountResponse;
    purge: PurgeResponse;
}
