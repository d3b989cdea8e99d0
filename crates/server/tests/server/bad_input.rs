//! Requests that must be refused, each with its code, and leave everything as it was.

use conclave_names::{ChannelId, limits};
use conclave_protocol::{Code, method, signed, v1};
use prost::Message;

use super::{client::*, people::*};

async fn call(
    client: &Client,
    method: &str,
    request: &v1::SignedRequest,
) -> Result<tonic::Response<()>, tonic::Status> {
    raw(client, &format!("/{method}"), request.encode_to_vec()).await
}

#[tokio::test]
async fn signed_requests_are_for_one_server_one_call_one_time_and_one_moment() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let client = Client::of(&running).await;
    let bob = Certified::new(&client, "bob/phone", 2, "").await.unwrap();

    let user = v1::RegisterUserRequest {
        user: "mimi://example.com/u/alice".into(),
        identity_key: key(1).verifying_key().to_bytes().to_vec(),
        invite: String::new(),
    };
    let root = tree(&[1]).root().to_vec();
    let channel = v1::CreateChannelRequest { channel: vec![1; 16], key_root: root, ..Default::default() };
    let cases = [
        (method::REGISTER_USER, key(1), user.encode_to_vec(), Vec::new()),
        (method::CREATE_CHANNEL, key(1), channel.encode_to_vec(), Vec::new()),
        (method::COUNT, bob.key.clone(), Vec::new(), bob.certificate.clone()),
    ];
    for (method, key, body, certificate) in cases {
        let signed = |method: &str, audience: &str, time_ms: u64| {
            let time = conclave_names::Timestamp(time_ms);
            let audience = audience.parse().unwrap();
            signed::sign(&key, method, &audience, time, nonce(), body.clone(), certificate.clone())
        };
        let now = now().0;
        let good = || signed(method, "example.com", now);
        refused(call(&client, method, &signed(method, "example.org", now)).await, Code::WrongAudience);
        refused(call(&client, method, &signed(method::CLAIM, "example.com", now)).await, Code::WrongAudience);
        // Half a minute beyond the bound, because both clocks go on.
        let skew = limits::REQUEST_CLOCK_SKEW_MS + 30_000;
        for time in [now - skew, now + skew, 0, u64::MAX] {
            let refusal =
                refused(call(&client, method, &signed(method, "example.com", time)).await, Code::RequestExpired);
            assert!(refusal.number("server_time_ms").unwrap().abs_diff(now) < 60_000);
        }
        let mut changed = good();
        changed.signature[0] ^= 1;
        refused(call(&client, method, &changed).await, Code::SignatureInvalid);
        let mut changed = good();
        changed.body.push(0);
        refused(call(&client, method, &changed).await, Code::SignatureInvalid);
        let mut changed = good();
        changed.key = super::client::key(99).verifying_key().to_bytes().to_vec();
        refused(call(&client, method, &changed).await, Code::SignatureInvalid);
        for (field, length) in [("key", 31), ("signature", 63)] {
            let mut changed = good();
            if field == "key" {
                changed.key.truncate(length);
            } else {
                changed.signature.truncate(length);
            }
            refused(call(&client, method, &changed).await, Code::Malformed);
        }
        let garbled =
            signed::sign(&key, method, &domain(), super::client::now(), nonce(), vec![0xFF; 9], certificate.clone());
        refused(call(&client, method, &garbled).await, Code::Malformed);
        // None of that took effect, or used up anything; and what is good is good once.
        let good = good();
        call(&client, method, &good).await.unwrap();
        refused(call(&client, method, &good).await, Code::RequestReplayed);
    }
    running.shutdown().await;
}

#[tokio::test]
async fn a_replay_is_known_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let create =
        v1::CreateChannelRequest { channel: vec![1; 16], key_root: tree(&[1]).root().to_vec(), ..Default::default() };
    let request = sign(&key(1), method::CREATE_CHANNEL, &create);
    Client::of(&running).await.delivery().create_channel(request.clone()).await.unwrap();
    running.shutdown().await;
    let running = start(directory.path()).await;
    refused(Client::of(&running).await.delivery().create_channel(request).await, Code::RequestReplayed);
    running.shutdown().await;
}

#[tokio::test]
async fn names_are_of_this_domain_and_of_one_identity() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let client = Client::of(&running).await;
    for name in ["", "Alice", "a b", "../alice", "alice/x", &"a".repeat(65)] {
        denied(client.register(name, 1, "").await, Code::NameInvalid);
    }
    let elsewhere = v1::RegisterUserRequest {
        user: "mimi://example.org/u/alice".into(),
        identity_key: key(1).verifying_key().to_bytes().to_vec(),
        invite: String::new(),
    };
    let request = sign(&key(1), method::REGISTER_USER, &elsewhere);
    refused(client.authentication().register_user(request).await, Code::NameInvalid);

    let until = now().0 + 1_000_000_000;
    let issue_as = async |request| client.authentication().issue_credential(request).await;
    refused(issue_as(issue("alice/laptop", 1, until)).await, Code::UserUnknown);
    client.register("alice", 1, "").await.unwrap();
    client.register("alice", 1, "").await.unwrap();
    denied(client.register("alice", 2, "").await, Code::NameTaken);
    refused(issue_as(issue("alice/laptop", 2, until)).await, Code::IdentityMismatch);
    refused(issue_as(issue("alice/laptop", 1, 1000)).await, Code::BindingInvalid);
    // Signed by another key than the one to certify.
    let stolen = issue("alice/laptop", 1, until).body;
    let stolen = signed::sign(&key(9), method::ISSUE_CREDENTIAL, &domain(), now(), nonce(), stolen, Vec::new());
    refused(issue_as(stolen).await, Code::SignatureInvalid);

    let bob = Certified::new(&client, "bob/phone", 3, "").await.unwrap();
    let ask = v1::GetUserRequest { user: "mimi://example.com/u/alice".into() };
    let alice = client.authentication().get_user(bob.sign(method::GET_USER, &ask)).await.unwrap().into_inner();
    assert_eq!(alice.identity_key, key(1).verifying_key().to_bytes());
    assert_eq!(alice.clients, [], "what was refused certified nothing");
    running.shutdown().await;
}

#[tokio::test]
async fn only_certified_clients_use_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let (running, stranger) = (start(directory.path()).await, start(other.path()).await);
    let client = Client::of(&running).await;
    let alice = Certified::new(&client, "alice/laptop", 1, "").await.unwrap();
    let bob = Certified::new(&client, "bob/phone", 2, "").await.unwrap();
    // The same names and keys, by a server with the same domain and another authority.
    let foreign = Certified::new(&Client::of(&stranger).await, "alice/laptop", 1, "").await.unwrap();
    let mut cut = alice.certificate.clone();
    cut.pop();
    for certificate in [Vec::new(), vec![1; 100], cut, bob.certificate.clone(), foreign.certificate] {
        let with = Certified { certificate, uri: alice.uri.clone(), key: alice.key.clone() };
        refused(
            client.directory().count(with.sign(method::COUNT, &v1::CountRequest {})).await,
            Code::CredentialInvalid,
        );
        let ask = v1::GetUserRequest { user: "mimi://example.com/u/bob".into() };
        refused(client.authentication().get_user(with.sign(method::GET_USER, &ask)).await, Code::CredentialInvalid);
    }
    let long = Certified { certificate: vec![1; 5000], uri: alice.uri.clone(), key: alice.key.clone() };
    let ask = v1::GetUserRequest { user: "mimi://example.com/u/bob".into() };
    refused(client.authentication().get_user(long.sign(method::GET_USER, &ask)).await, Code::TooLarge);
    running.shutdown().await;
    stranger.shutdown().await;
}

#[tokio::test]
async fn an_upload_is_taken_as_a_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let client = Client::of(&running).await;
    let alice = Certified::new(&client, "alice/laptop", 1, "").await.unwrap();
    let bob = Certified::new(&client, "bob/phone", 2, "").await.unwrap();
    let inbox = ChannelId::new([7; 16]);
    let good = alice.key_package(&client, inbox, [1; 32]).await;
    let foreign = bob.key_package(&client, inbox, [1; 32]).await;
    let (mut changed, mut cut, mut long) = (good.clone(), good.clone(), good.clone());
    *changed.last_mut().unwrap() ^= 1;
    cut.pop();
    long.push(0);
    for (bad, code) in [
        (Vec::new(), Code::KeyPackageInvalid),
        (vec![0xFF; 100], Code::KeyPackageInvalid),
        (vec![0, 1, 0, 5], Code::KeyPackageInvalid),
        (changed, Code::KeyPackageInvalid),
        (cut, Code::KeyPackageInvalid),
        (long, Code::KeyPackageInvalid),
        (foreign, Code::KeyPackageForeign),
        (vec![0; limits::KEY_PACKAGE + 1], Code::TooLarge),
    ] {
        let refusal = denied(upload(&client, &alice, vec![good.clone(), bad]).await, code);
        if code != Code::TooLarge {
            assert_eq!(refusal.number("index"), Some(1), "{refusal}");
        }
        assert_eq!(available(&client, &alice).await, 0);
    }
    let many = vec![good.clone(); limits::KEY_PACKAGES_PER_UPLOAD + 1];
    denied(upload(&client, &alice, many).await, Code::TooLarge);
    assert_eq!(upload(&client, &alice, vec![good]).await.unwrap(), 1);

    let claim = |target: &str| v1::ClaimRequest {
        target: target.into(),
        cipher_suites: vec![1],
        idempotency_key: nonce().to_vec(),
        ..v1::ClaimRequest::default()
    };
    let ask = async |message| client.directory().claim(bob.sign(method::CLAIM, &message)).await;
    refused(ask(claim("mimi://example.com/u/nobody")).await, Code::UserUnknown);
    refused(ask(claim("alice")).await, Code::NameInvalid);
    refused(
        ask(v1::ClaimRequest { idempotency_key: vec![1], ..claim("mimi://example.com/u/alice") }).await,
        Code::Malformed,
    );
    assert_eq!(available(&client, &alice).await, 1);
    let got = ask(claim("mimi://example.com/u/alice")).await.unwrap().into_inner();
    assert_eq!(got.key_packages[0].client, alice.uri.to_string());
    assert_eq!(available(&client, &alice).await, 0);
    running.shutdown().await;
}
