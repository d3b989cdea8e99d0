//! Calls of the Delivery Service outside sessions.

use conclave_protocol::{method, v1};

use super::{CallError, Signer, Transport, retry::retry, signed::signed_calls};

impl Transport {
    /// What a client must know of the server.
    pub async fn get_server_info(&self) -> Result<v1::GetServerInfoResponse, CallError> {
        retry("GetServerInfo", self.deadline, || async {
            Ok(self.delivery().get_server_info(v1::GetServerInfoRequest {}).await?.into_inner())
        })
        .await
    }
}

signed_calls! { delivery:
    /// Makes a group channel at epoch 0; signed by the creator's channel key.
    create_channel, CREATE_CHANNEL, CreateChannelRequest => CreateChannelResponse;
    /// Appends a proposal of an external sender; signed by the key that the group lists.
    submit_external_proposal, SUBMIT_EXTERNAL_PROPOSAL, SubmitExternalProposalRequest => SubmitResponse;
    /// Makes an inbox; signed by the key that will own it.
    create_inbox, CREATE_INBOX, CreateInboxRequest => CreateInboxResponse;
    /// Posts into a member's inbox; signed by a key that is made for this.
    knock, KNOCK, KnockRequest => KnockResponse;
}
