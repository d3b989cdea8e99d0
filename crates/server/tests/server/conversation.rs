//! A conversation of all calls, after which neither logs nor metrics name anybody or anything of it.

use std::fmt::Write as _;

use conclave_names::ChannelId;
use conclave_protocol::{Code, method, v1, v1::stream_event::Event};
use conclave_server::{RegistrationPolicy, Server, create_invite};
use prost::Message;
use sha2::Digest as _;

use super::{client::*, operations::get, people::*, process::Program};

const GROUP: ChannelId = ChannelId::new([0xC7; 16]);
const INBOX: ChannelId = ChannelId::new([0xD9; 16]);
const DROP: [u8; 32] = [0xB3; 32];

/// Calls everything, rightly and wrongly. Gives what nobody but the callers should know.
async fn converse(client: &Client, invite: &str) -> Vec<Vec<u8>> {
    denied(client.register("wilhelmina", 1, "").await, Code::InviteRequired);
    denied(client.register("wilhelmina", 1, "not-an-invite").await, Code::InviteInvalid);
    let wilhelmina = Certified::new(client, "wilhelmina/zeppelin", 1, invite).await.unwrap();
    denied(client.register("wilhelmina", 2, invite).await, Code::NameTaken);
    let theodora = Certified::new(client, "theodora/locomotive", 2, invite).await.unwrap();
    denied(client.register("bartholomew", 3, invite).await, Code::InviteInvalid);
    let ask = v1::GetUserRequest { user: "mimi://example.com/u/theodora".into() };
    client.authentication().get_user(wilhelmina.sign(method::GET_USER, &ask)).await.unwrap();

    // A device is linked.
    let new = key(77);
    let link = v1::PutLinkRequest {
        link_id: vec![0xA5; 16],
        client: "mimi://example.com/d/theodora/gramophone".into(),
        signature_key: new.verifying_key().to_bytes().to_vec(),
        mac: vec![1; 32],
    };
    client.authentication().put_link(sign(&new, method::PUT_LINK, &link)).await.unwrap();
    let read = v1::GetLinkRequest { link_id: link.link_id.clone() };
    client.authentication().get_link(theodora.sign(method::GET_LINK, &read)).await.unwrap();
    refused(client.authentication().get_link(wilhelmina.sign(method::GET_LINK, &read)).await, Code::LinkUnknown);
    let approve = v1::ApproveLinkRequest { link_id: link.link_id.clone(), binding: None, mac: vec![1; 32] };
    client.authentication().approve_link(sign(&key(2), method::APPROVE_LINK, &approve)).await.unwrap_err();
    let poll = v1::PollLinkRequest { link_id: link.link_id.clone() };
    client.authentication().poll_link(sign(&new, method::POLL_LINK, &poll)).await.unwrap();

    // KeyPackages are left and taken.
    let create = v1::CreateInboxRequest { inbox: INBOX.to_vec(), drop_key: DROP.to_vec() };
    client.delivery().create_inbox(sign(&key(5), method::CREATE_INBOX, &create)).await.unwrap();
    let package = theodora.key_package(client, INBOX, DROP).await;
    upload(client, &theodora, vec![package]).await.unwrap();
    denied(upload(client, &theodora, vec![vec![1; 50]]).await, Code::KeyPackageInvalid);
    let claim = v1::ClaimRequest {
        target: theodora.uri.to_string(),
        cipher_suites: vec![1],
        idempotency_key: vec![1; 16],
        ..Default::default()
    };
    client.directory().claim(wilhelmina.sign(method::CLAIM, &claim)).await.unwrap();
    client.directory().purge(theodora.sign(method::PURGE, &v1::PurgeRequest {})).await.unwrap();

    // A group begins, and somebody is added.
    client.create(GROUP, 1).await.unwrap();
    denied(client.open(9, &member_of(GROUP, 9, 0, &[9])).await, Code::AccessRefused);
    let group = client.session(1, GROUP).await;
    let inbox =
        client.open(5, &v1::OpenSessionRequest { channel: INBOX.to_vec(), epoch: 0, path: None }).await.unwrap();
    let (handle, mut events) = client.stream().await;
    inbox.attach(&handle, 0).await.unwrap();
    let blob = vec![0xE7; 3000];
    let hash = sha2::Sha256::digest(&blob).to_vec();
    let stage = v1::StageBlobRequest { hash: hash.clone(), size: 3000, offset: 0, data: blob };
    group.stage(&stage).await.unwrap();
    let mut parts = client.delivery().read_blob(v1::ReadBlobRequest { hash, offset: 0 }).await.unwrap().into_inner();
    while parts.message().await.unwrap().is_some() {}
    let address = address(client, INBOX, DROP).await.to_bytes().unwrap();
    let part = v1::WelcomePart { domain: "example.com".into(), address, secrets: vec![0xE1; 80] };
    let mut add = bundle(1, 0, &[1, 2], false);
    add.welcome = Some(v1::WelcomeBundle {
        cipher_suite: 1,
        encrypted_group_info: vec![0xE1; 500],
        parts: vec![part],
        attachment: vec![0xA7; 100],
    });
    group.commit(&add).await.unwrap();
    denied(group.commit(&bundle(9, 0, &[1, 3], false)).await, Code::EpochConflict);
    match next(&mut events).await {
        Event::Entries(new) => assert_eq!(new.channel, INBOX.to_vec()),
        other => panic!("{other:?}"),
    }
    let trim = inbox.request(method::TRIM, &v1::TrimRequest { up_to: 1 });
    client.delivery().trim(trim).await.unwrap();
    inbox.detach(&handle).await.unwrap();
    group.submit(1, b"meet me at the observatory".to_vec()).await;
    group.fetch(0).await;
    group.group_info().await;
    raw(client, "/conclave.v1.DeliveryService/Submit", b"\xFFobservatory".to_vec()).await.unwrap_err();

    let mut secret: Vec<Vec<u8>> = [
        "wilhelmina",
        "theodora",
        "bartholomew",
        "zeppelin",
        "locomotive",
        "gramophone",
        "observatory",
        "not-an-invite",
    ]
    .map(|word| word.as_bytes().to_vec())
    .to_vec();
    secret.push(invite.as_bytes().to_vec());
    // Bytes as they are, in hexadecimal digits, and as lists of numbers.
    let keys = [1, 2, 5, 77, 101, 102].map(|n| key(n).verifying_key().to_bytes().to_vec());
    let ids = [GROUP.to_vec(), INBOX.to_vec(), DROP.to_vec(), vec![0xA5; 16], handle, group.id.to_vec()];
    for bytes in keys.into_iter().chain(ids) {
        secret.push(hex::encode(&bytes[..8]).into_bytes());
        secret.push(format!("{:?}", &bytes[..8]).trim_matches(['[', ']']).as_bytes().to_vec());
        secret.push(bytes[..8].to_vec());
    }
    assert!(!claim.encode_to_vec().is_empty());
    secret
}

#[track_caller]
fn silent(text: &[u8], secrets: &[Vec<u8>]) {
    let lower = text.to_ascii_lowercase();
    for secret in secrets {
        let mut shown = String::new();
        for byte in secret {
            let _ = write!(shown, "{}", byte.escape_ascii());
        }
        let found = |text: &[u8]| text.windows(secret.len()).any(|window| window == secret.as_slice());
        assert!(!found(text) && !found(&lower), "it says {shown}");
    }
}

#[test]
#[should_panic(expected = "it says wilhelmina")]
fn what_is_said_is_found() {
    silent(b"user=Wilhelmina", &[b"wilhelmina".to_vec()]);
}

#[tokio::test]
async fn metrics_name_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    config.metrics = Some("127.0.0.1:0".parse().unwrap());
    config.registration = RegistrationPolicy::Invite;
    let invite = create_invite(directory.path(), 2, 1).unwrap();
    let running = Server::start(config).await.unwrap();
    let secrets = converse(&Client::of(&running).await, &invite).await;
    let text = get(running.metrics_addr().unwrap(), "/metrics").await;
    assert!(text.contains("conclave_calls_total") && text.contains("submit_bundle"), "{text}");
    silent(text.as_bytes(), &secrets);
    running.shutdown().await;
}

// With threads: while the test waits for the program, its client must answer the server's farewell.
#[tokio::test(flavor = "multi_thread")]
async fn logs_name_nobody_even_when_debugging() {
    for format in ["text", "json"] {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let data = directory.path().join("data");
        let invite = create_invite(&data, 2, 1).unwrap();
        let flags = ["--log", "debug", "--log-format", format, "--registration", "invite"];
        let mut program = Program::start_with(&data, &flags, std::fs::File::create(&log).unwrap().into());
        let client = Client::to(&program.addr, &std::fs::read_to_string(data.join("tls/ca.pem")).unwrap()).await;
        let secrets = converse(&client, &invite).await;
        assert_eq!(program.signal("-TERM"), Some(0));
        let text = std::fs::read(&log).unwrap();
        let readable = String::from_utf8_lossy(&text);
        for word in ["listening", "submit_bundle", "NAME_TAKEN", "stopped"] {
            assert!(readable.contains(word), "{word}: {readable}");
        }
        silent(&text, &secrets);
    }
}
