//! What operators see: metrics, the data directory, errors at start.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt as _};

use conclave_server::{Server, StartError};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::client::*;

pub(crate) async fn get(addr: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn metrics_count_calls_by_method_and_code_and_name_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    config.metrics = Some("127.0.0.1:0".parse().unwrap());
    let running = Server::start(config).await.unwrap();
    let client = Client::of(&running).await;
    client.register("alice-of-the-metrics", 1, "").await.unwrap();
    client.register("alice-of-the-metrics", 2, "").await.unwrap_err();
    raw(&client, "/conclave.v1.KeyPackageDirectory/Purge", vec![0xFF; 9]).await.unwrap_err();
    let addr = running.metrics_addr().unwrap();
    let text = get(addr, "/metrics").await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    let counted = |method: &str, code: &str| {
        text.lines().any(|line| {
            line.starts_with("conclave_calls_total")
                && line.contains(&format!("method=\"{method}\""))
                && line.contains(&format!("code=\"{code}\""))
        })
    };
    assert!(counted("register_user", "OK") && counted("register_user", "NAME_TAKEN"), "{text}");
    assert!(counted("purge", "MALFORMED"), "{text}");
    assert!(text.contains("conclave_call_seconds_bucket") && text.contains("conclave_streams"), "{text}");
    assert!(!text.contains("alice"), "{text}");
    assert!(get(addr, "/healthz").await.ends_with("ok\n"));
    assert!(get(addr, "/").await.starts_with("HTTP/1.1 404"));
    running.shutdown().await;
}

#[tokio::test]
async fn a_newer_data_directory_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    start(directory.path()).await.shutdown().await;
    let path = directory.path().join("conclave.db");
    let mut bytes = fs::read(&path).unwrap();
    // SQLite's user_version, bytes 60 to 63 of the header.
    let known = format!("knows version {} ", u32::from_be_bytes(bytes[60..64].try_into().unwrap()));
    bytes[60..64].copy_from_slice(&999_u32.to_be_bytes());
    fs::write(&path, &bytes).unwrap();
    let error = Server::start(config(directory.path())).await.unwrap_err();
    assert!(matches!(error, StartError::Database(_)), "{error}");
    let text = error.to_string();
    assert!(text.contains("version 999") && text.contains(&known) && text.contains("newer program"), "{text}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[tokio::test]
async fn what_cannot_be_is_refused_at_start() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let error = Server::start(config(directory.path())).await.unwrap_err().to_string();
    assert!(error.contains("in use"), "{error}");

    let second = tempfile::tempdir().unwrap();
    let mut busy = config(second.path());
    busy.listen = running.addr();
    let error = Server::start(busy).await.unwrap_err().to_string();
    assert!(error.contains(&running.addr().to_string()), "{error}");
    running.shutdown().await;

    let mut renamed = config(directory.path());
    renamed.domain = "other.example".parse().unwrap();
    let error = Server::start(renamed).await.unwrap_err().to_string();
    assert!(error.contains("example.com") && error.contains("other.example"), "{error}");
}

#[tokio::test]
async fn secrets_are_for_their_owner_only() {
    let directory = tempfile::tempdir().unwrap();
    start(directory.path()).await.shutdown().await;
    for name in ["authority/key", "tls/ca.key", "tls/leaf.key", "conclave.db"] {
        let mode = fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}");
    }
}
