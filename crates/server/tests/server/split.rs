//! The Authentication Service and the Delivery Service as two servers.

use conclave_protocol::{Code, method, v1};
use conclave_server::{IssuerSource, Server};

use super::{client::*, people::Certified};

#[tokio::test]
async fn a_delivery_service_learns_issuers_from_its_authentication_service() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = config(&directory.path().join("as"));
    first.delivery = false;
    let authentication = Server::start(first).await.unwrap();
    let alice = Certified::new(&Client::of(&authentication).await, "alice/laptop", 1, "").await.unwrap();

    let mut second = config(&directory.path().join("ds"));
    second.authentication = false;
    let by_url = IssuerSource::Url {
        url: format!("https://{}", authentication.addr()),
        ca: Some(directory.path().join("as/tls/ca.pem")),
    };
    let by_file = IssuerSource::File(directory.path().join("as/authority/certificate.der"));
    for source in [by_url, by_file] {
        second.issuers = Some(source);
        let delivery = Server::start(second.clone()).await.unwrap();
        let client = Client::of(&delivery).await;
        client.directory().count(alice.sign(method::COUNT, &v1::CountRequest {})).await.unwrap();
        refused(client.authentication().get_issuers(v1::GetIssuersRequest {}).await, Code::ServiceDisabled);
        delivery.shutdown().await;
    }
    authentication.shutdown().await;
}

#[tokio::test]
async fn issuers_of_others_are_not_believed() {
    let directory = tempfile::tempdir().unwrap();
    // The AS of another domain, and one whose certificate authority is not the pinned one.
    let mut first = config(&directory.path().join("as"));
    first.domain = "other.example".parse().unwrap();
    first.delivery = false;
    let authentication = Server::start(first).await.unwrap();
    start(&directory.path().join("third")).await.shutdown().await;
    let url = format!("https://{}", authentication.addr());
    for (source, word) in [
        (IssuerSource::Url { url: url.clone(), ca: Some(directory.path().join("as/tls/ca.pem")) }, "other.example"),
        (IssuerSource::Url { url, ca: Some(directory.path().join("third/tls/ca.pem")) }, "Certificate"),
        (IssuerSource::File(directory.path().join("as/tls/ca.pem")), "issuers"),
        (IssuerSource::File(directory.path().join("nowhere.pem")), "nowhere.pem"),
    ] {
        let mut second = config(&directory.path().join("ds"));
        second.authentication = false;
        second.issuers = Some(source);
        let error = Server::start(second).await.unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    authentication.shutdown().await;
}

#[tokio::test]
async fn issuers_are_not_fetched_without_tls() {
    let directory = tempfile::tempdir().unwrap();
    let mut second = config(directory.path());
    second.authentication = false;
    second.issuers = Some(IssuerSource::Url { url: "http://192.0.2.1:7443".into(), ca: None });
    let error = Server::start(second).await.unwrap_err().to_string();
    assert!(error.contains("https://"), "{error}");
}
