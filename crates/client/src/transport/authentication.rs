//! Calls of the Authentication Service.

use conclave_protocol::{method, v1};

use super::{CallError, Signer, Transport, retry::retry, signed::signed_calls};

impl Transport {
    /// The issuers of this domain, and how one gets an account.
    pub async fn get_issuers(&self) -> Result<v1::GetIssuersResponse, CallError> {
        retry("GetIssuers", self.deadline, || async {
            Ok(self.authentication().get_issuers(v1::GetIssuersRequest {}).await?.into_inner())
        })
        .await
    }
}

signed_calls! { authentication:
    /// Registers a user; signed by the user's identity key.
    register_user, REGISTER_USER, RegisterUserRequest => RegisterUserResponse;
    /// Has a client's signature key certified; signed by that key.
    issue_credential, ISSUE_CREDENTIAL, IssueCredentialRequest => IssueCredentialResponse;
    /// A user's identity key and clients; signed by a certified client.
    get_user, GET_USER, GetUserRequest => GetUserResponse;
    /// Leaves the request of a new device to be linked; signed by the new device's signature key.
    put_link, PUT_LINK, PutLinkRequest => PutLinkResponse;
    /// What a new device asks; signed by a certified client of the same user.
    get_link, GET_LINK, GetLinkRequest => GetLinkResponse;
    /// Approves a link; signed by the user's identity key.
    approve_link, APPROVE_LINK, ApproveLinkRequest => ApproveLinkResponse;
    /// Whether a link was approved; signed by the new device's signature key.
    poll_link, POLL_LINK, PollLinkRequest => PollLinkResponse;
}
