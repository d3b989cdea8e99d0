//! Around all calls: what never reaches a service is refused in the contract's words, too.

use std::time::Duration;

use axum::{body::Body, extract::Request, middleware::Next, response::Response};
use conclave_names::limits;
use conclave_protocol::{Code, Refusal, method};
use tonic::{Code as Grpc, Status};

use super::count;

/// Time for a call until its answer begins, its request's arrival included. Who sends more slowly is cut off.
const CALL: Duration = Duration::from_secs(60);

/// The calls that need no signature, and so are not in [`method::ALL`].
const UNSIGNED: [&str; 5] = [
    "conclave.v1.AuthenticationService/GetIssuers",
    "conclave.v1.DeliveryService/GetServerInfo",
    "conclave.v1.DeliveryService/ReadBlob",
    "conclave.v1.DeliveryService/OpenStream",
    "conclave.v1.DeliveryService/KeepAlive",
];

/// Bounds a call in time, and puts what gRPC itself refuses (bytes that are no message, too many of them) into a
/// [`Refusal`].
pub(crate) async fn in_our_words(request: Request, next: Next) -> Response {
    let path = request.uri().path().trim_start_matches('/').to_owned();
    let refusal = match tokio::time::timeout(CALL, next.run(request)).await {
        Err(_) => Refusal::new(
            Code::Unavailable,
            format!("the call took longer than {} s: try again, and send faster", CALL.as_secs()),
        ),
        Ok(response) => match response.extensions().get::<Status>().and_then(refused_by_grpc) {
            Some(refusal) => refusal,
            None => return response,
        },
    };
    if let Some(name) = label(&path) {
        count(name, refusal.code.as_str());
    }
    tracing::debug!(code = refusal.code.as_str(), "a call did not reach its service");
    Status::from(refusal).into_http::<Body>()
}

/// A refusal in place of a status of tonic's, which has no code of ours.
fn refused_by_grpc(status: &Status) -> Option<Refusal> {
    match status.code() {
        Grpc::Internal if status.message().starts_with("failed to decode Protobuf message") => {
            Some(Refusal::new(Code::Malformed, "the request is not an encoded message of this call"))
        }
        Grpc::OutOfRange if status.message().contains("message length too large") => Some(Refusal::new(
            Code::TooLarge,
            format!("the request is longer than {} bytes: send less at once", limits::WIRE_MESSAGE),
        )),
        _ => None,
    }
}

/// The name under which a call is counted: as its handler counts it. None for what is no call of ours.
pub(super) fn label(path: &str) -> Option<&'static str> {
    let known = method::ALL.iter().chain(&UNSIGNED).find(|known| **known == path)?;
    LABELS.iter().find(|(_, name)| known.ends_with(&format!("/{name}"))).map(|(label, _)| *label)
}

/// Labels, which must be constants, of the calls' names.
const LABELS: [(&str, &str); 30] = [
    ("get_issuers", "GetIssuers"),
    ("register_user", "RegisterUser"),
    ("issue_credential", "IssueCredential"),
    ("get_user", "GetUser"),
    ("put_link", "PutLink"),
    ("get_link", "GetLink"),
    ("approve_link", "ApproveLink"),
    ("poll_link", "PollLink"),
    ("upload", "Upload"),
    ("claim", "Claim"),
    ("count", "Count"),
    ("purge", "Purge"),
    ("get_server_info", "GetServerInfo"),
    ("create_channel", "CreateChannel"),
    ("create_inbox", "CreateInbox"),
    ("knock", "Knock"),
    ("open_session", "OpenSession"),
    ("submit", "Submit"),
    ("submit_bundle", "SubmitBundle"),
    ("submit_external_proposal", "SubmitExternalProposal"),
    ("fetch", "Fetch"),
    ("read_group_info", "ReadGroupInfo"),
    ("read_tree", "ReadTree"),
    ("trim", "Trim"),
    ("stage_blob", "StageBlob"),
    ("read_blob", "ReadBlob"),
    ("open_stream", "OpenStream"),
    ("attach", "Attach"),
    ("detach", "Detach"),
    ("keep_alive", "KeepAlive"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_has_a_label() {
        assert_eq!(method::ALL.len() + UNSIGNED.len(), LABELS.len());
        for path in method::ALL.iter().chain(&UNSIGNED) {
            assert!(label(path).is_some(), "{path}");
        }
        assert_eq!(label("conclave.v1.DeliveryService/NoSuchCall"), None);
        assert_eq!(label("grpc.health.v1.Health/Check"), None);
    }
}
