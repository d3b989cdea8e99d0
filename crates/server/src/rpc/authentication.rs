//! `conclave.v1.AuthenticationService`.

use conclave_protocol::v1::{self, authentication_service_server::AuthenticationService};
use tonic::{Request, Response, Status};

use super::{Rpc, observe, register_user};
use crate::clock;

macro_rules! service {
    ($($call:ident: $response:ident;)*) => {
        #[tonic::async_trait]
        impl AuthenticationService for Rpc {
            async fn get_issuers(
                &self,
                _: Request<v1::GetIssuersRequest>,
            ) -> Result<Response<v1::GetIssuersResponse>, Status> {
                observe("get_issuers", async { Ok(self.authentication()?.get_issuers(clock::now())) }).await
            }

            async fn register_user(
                &self,
                request: Request<v1::SignedRequest>,
            ) -> Result<Response<v1::RegisterUserResponse>, Status> {
                observe("register_user", register_user::handle(self, request.into_inner())).await
            }

            $(
                async fn $call(&self, request: Request<v1::SignedRequest>) -> Result<Response<v1::$response>, Status> {
                    observe(stringify!($call), async {
                        let service = self.authentication()?;
                        let request = request.into_inner();
                        let store = self.0.database.authentication();
                        store.write(move |tx| service.$call(tx, &request, clock::now())).await
                    })
                    .await
                }
            )*
        }
    };
}

service! {
    issue_credential: IssueCredentialResponse;
    get_user: GetUserResponse;
    put_link: PutLinkResponse;
    get_link: GetLinkResponse;
    approve_link: ApproveLinkResponse;
    poll_link: PollLinkResponse;
}
