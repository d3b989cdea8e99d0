//! What the server answers.

use conclave_protocol::{Code, method, v1};
use conclave_server::{RegistrationPolicy, Server, create_invite};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use super::client::*;

#[tokio::test]
async fn anybody_learns_issuers_and_server_info() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let client = Client::of(&running).await;
    let issuers = client.authentication().get_issuers(v1::GetIssuersRequest {}).await.unwrap().into_inner();
    assert_eq!((issuers.domain.as_str(), issuers.issuers.len(), issuers.invite_required), ("example.com", 1, false));
    assert_eq!(issuers.credential_lifetime_secs, 30 * 24 * 3600);
    assert!(issuers.time_ms.abs_diff(now().0) < 60_000);
    let info = client.delivery().get_server_info(v1::GetServerInfoRequest {}).await.unwrap().into_inner();
    assert_eq!((info.domain.as_str(), info.address_key.len()), ("example.com", 32));
    assert!(info.software.starts_with("conclaved "), "{}", info.software);
    running.shutdown().await;
}

#[tokio::test]
async fn issuers_and_keys_are_the_same_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let running = start(directory.path()).await;
        let client = Client::of(&running).await;
        let issuers = client.authentication().get_issuers(v1::GetIssuersRequest {}).await.unwrap().into_inner().issuers;
        let info = client.delivery().get_server_info(v1::GetServerInfoRequest {}).await.unwrap().into_inner();
        seen.push((issuers, info.address_key_id, running.ca_pem().map(str::to_owned)));
        running.shutdown().await;
    }
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
async fn health_is_told_by_service() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    config.delivery = false;
    let running = Server::start(config).await.unwrap();
    let client = Client::of(&running).await;
    let check = async |service: &str| {
        let request = HealthCheckRequest { service: service.to_owned() };
        HealthClient::new(client.0.clone()).check(request).await.map(|answer| answer.into_inner().status())
    };
    assert_eq!(check("").await.unwrap(), ServingStatus::Serving);
    assert_eq!(check("conclave.v1.AuthenticationService").await.unwrap(), ServingStatus::Serving);
    assert_eq!(check("conclave.v1.DeliveryService").await.unwrap_err().code(), tonic::Code::NotFound);
    running.shutdown().await;
}

#[tokio::test]
async fn reflection_lists_the_services() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let client = Client::of(&running).await;
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let asked = tokio_stream::once(ask);
    let answer = ServerReflectionClient::new(client.0.clone()).server_reflection_info(asked).await.unwrap();
    let first = answer.into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = first.message_response else { panic!("{first:?}") };
    let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    for name in ["AuthenticationService", "KeyPackageDirectory", "DeliveryService"] {
        assert!(names.contains(&format!("conclave.v1.{name}")), "{names:?}");
    }
    running.shutdown().await;
}

#[tokio::test]
async fn a_service_that_is_switched_off_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    config.delivery = false;
    let running = Server::start(config).await.unwrap();
    let client = Client::of(&running).await;
    refused(client.delivery().get_server_info(v1::GetServerInfoRequest {}).await, Code::ServiceDisabled);
    refused(client.directory().count(v1::SignedRequest::default()).await, Code::ServiceDisabled);
    client.register("alice", 1, "").await.unwrap();
    running.shutdown().await;
}

#[tokio::test]
async fn malformed_protobuf_is_refused_in_the_contracts_words() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let client = Client::of(&running).await;
    for path in [
        "/conclave.v1.AuthenticationService/RegisterUser",
        "/conclave.v1.KeyPackageDirectory/Claim",
        "/conclave.v1.DeliveryService/Submit",
        "/conclave.v1.DeliveryService/ReadBlob",
    ] {
        refused(raw(&client, path, vec![0xFF; 9]).await, Code::Malformed);
    }
    // The connection is none the worse.
    client.register("alice", 1, "").await.unwrap();
    running.shutdown().await;
}

#[tokio::test]
async fn an_oversized_message_is_refused_with_its_bound() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let client = Client::of(&running).await;
    let request = v1::SignedRequest { body: vec![0; conclave_names::limits::WIRE_MESSAGE + 1], ..Default::default() };
    let refusal = refusal(client.authentication().register_user(request).await);
    assert_eq!(refusal.code, Code::TooLarge, "{refusal}");
    assert!(refusal.message.contains("4194304"), "{refusal}");
    client.register("alice", 1, "").await.unwrap();
    running.shutdown().await;
}

#[tokio::test]
async fn unsigned_and_unknown_calls_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let client = Client::of(&running).await;
    refused(client.authentication().get_user(v1::SignedRequest::default()).await, Code::Malformed);
    refused(client.directory().upload(v1::SignedRequest::default()).await, Code::Malformed);
    let fetch = v1::SessionRequest { session: vec![1; 16], counter: 1, ..Default::default() };
    refused(client.delivery().fetch(fetch).await, Code::SessionUnknown);
    refused(client.delivery().read_blob(v1::ReadBlobRequest { hash: vec![1; 32], offset: 0 }).await, Code::BlobUnknown);
    let unknown = raw(&client, "/conclave.v1.DeliveryService/NoSuchCall", Vec::new()).await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::Unimplemented);
    running.shutdown().await;
}

#[tokio::test]
async fn an_invite_is_made_while_the_server_runs_and_used_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    config.registration = RegistrationPolicy::Invite;
    // One before the start, one while it runs.
    let early = create_invite(directory.path(), 1, 1).unwrap();
    // A server was about to take it over when it was killed.
    let file = std::fs::read_dir(directory.path().join("invites")).unwrap().next().unwrap().unwrap().path();
    std::fs::rename(&file, file.with_extension("taken")).unwrap();
    let running = Server::start(config).await.unwrap();
    let client = Client::of(&running).await;
    let late = create_invite(directory.path(), 1, 1).unwrap();
    let code = async |name: &str, n: u8, invite: &str| match client.register(name, n, invite).await {
        Ok(()) => None,
        Err(status) => Some(conclave_protocol::Refusal::from_status(&status).unwrap().code),
    };
    assert_eq!(code("alice", 1, "").await, Some(Code::InviteRequired));
    assert_eq!(code("alice", 1, "0123").await, Some(Code::InviteInvalid));
    assert_eq!(code("alice", 1, &early).await, None);
    assert_eq!(code("bob", 2, &early).await, Some(Code::InviteInvalid));
    assert_eq!(code("bob", 2, &late).await, None);
    running.shutdown().await;
}

#[tokio::test]
async fn a_blob_comes_in_small_chunks_with_its_size_first() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let session = Client::of(&running).await.channel(1).await;
    let data = vec![0_u8; 600_000];
    let hash = sha256(&data);
    let stage = v1::StageBlobRequest { hash: hash.clone(), size: data.len() as u64, offset: 0, data: data.clone() };
    let request = session.request(method::STAGE_BLOB, &stage);
    session.client.delivery().stage_blob(request).await.unwrap();
    let read = v1::ReadBlobRequest { hash, offset: 10 };
    let mut parts = session.client.delivery().read_blob(read).await.unwrap().into_inner();
    let mut sizes = Vec::new();
    let mut length = 0;
    while let Some(part) = parts.message().await.unwrap() {
        assert!(part.data.len() <= 256 * 1024, "{}", part.data.len());
        sizes.push(part.size);
        length += part.data.len();
    }
    assert_eq!(length, data.len() - 10);
    assert_eq!((sizes[0], sizes[1..].iter().sum::<u64>()), (600_000, 0));
    running.shutdown().await;
}

fn sha256(data: &[u8]) -> Vec<u8> {
    use sha2::Digest as _;
    sha2::Sha256::digest(data).to_vec()
}
