//! `conclave.v1.KeyPackageDirectory`.

use conclave_protocol::v1::{self, key_package_directory_server::KeyPackageDirectory};
use tonic::{Request, Response, Status};

use super::{Rpc, observe};
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
                        let store = self.0.database.delivery();
                        let done = store.write(move |tx| service.$call(tx, &request, clock::now())).await?;
                        Ok(self.0.settle(done))
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
