//! Full disks and full servers.

use conclave_protocol::{Code, Refusal, v1};
use conclave_server::Server;

use super::client::*;

#[tokio::test]
async fn a_full_store_refuses_writes_and_goes_on_reading() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    // What the tables take, and a little more.
    config.max_database_bytes = Some(600_000);
    let running = Server::start(config.clone()).await.unwrap();
    let client = Client::of(&running).await;
    let session = client.channel(1).await;
    session.submit(1, vec![0; 256]).await;
    let mut refusals = Vec::new();
    for n in 2..100 {
        if let Err(status) = client.delivery().submit(session.submission(n, vec![0; 60_000])).await {
            refusals.push(Refusal::from_status(&status).unwrap().code);
            break;
        }
    }
    assert_eq!(refusals, [Code::StorageFull]);
    assert!(session.fetch(0).await.head >= 1);
    client.delivery().get_server_info(v1::GetServerInfoRequest {}).await.unwrap();
    running.shutdown().await;

    // It starts again, and still serves what needs no room.
    let running = Server::start(config).await.unwrap();
    let client = Client::of(&running).await;
    client.authentication().get_issuers(v1::GetIssuersRequest {}).await.unwrap();
    client.delivery().get_server_info(v1::GetServerInfoRequest {}).await.unwrap();
    running.shutdown().await;
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_for_a_place() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    config.max_connections = 1;
    let running = Server::start(config).await.unwrap();
    let first = Client::of(&running).await;
    first.register("alice", 1, "").await.unwrap();
    let (addr, ca_pem) = (running.addr().to_string(), running.ca_pem().unwrap().to_owned());
    let second = tokio::spawn(async move { Client::to(&addr, &ca_pem).await.register("bob", 2, "").await });
    first.register("carol", 3, "").await.unwrap();
    assert!(!second.is_finished());
    drop(first);
    second.await.unwrap().unwrap();
    running.shutdown().await;
}
