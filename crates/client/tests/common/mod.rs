//! Servers in this process, and clients in memory.

#![allow(dead_code, unreachable_pub)]

use conclave_client::{Client, Registration, Services, store::MemoryStore, transport::Endpoint};
use conclave_names::{Domain, UserUri};
use conclave_server::{Config, IssuerSource, Running, Server};
use tempfile::TempDir;

pub fn domain() -> Domain {
    "example.com".parse().unwrap()
}

/// One server with both services, or one for each (R5).
pub struct World {
    pub delivery: Option<Running>,
    pub authentication: Option<Running>,
    pub directories: Vec<TempDir>,
}

fn endpoint(running: &Running) -> Endpoint {
    let mut endpoint = Endpoint::new(format!("https://{}", running.addr()), running.domain().clone());
    endpoint.ca_pem = running.ca_pem().map(|pem| pem.as_bytes().to_vec());
    endpoint
}

impl World {
    pub async fn whole() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let running = Server::start(Config::for_tests(directory.path(), domain())).await.unwrap();
        Self { delivery: Some(running), authentication: None, directories: vec![directory] }
    }

    pub async fn split() -> Self {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let config = Config { delivery: false, ..Config::for_tests(first.path(), domain()) };
        let authentication = Server::start(config).await.unwrap();
        let issuers = IssuerSource::Url {
            url: format!("https://{}", authentication.addr()),
            ca: Some(first.path().join("tls/ca.pem")),
        };
        let config =
            Config { authentication: false, issuers: Some(issuers), ..Config::for_tests(second.path(), domain()) };
        let delivery = Server::start(config).await.unwrap();
        Self { delivery: Some(delivery), authentication: Some(authentication), directories: vec![first, second] }
    }

    pub fn services(&self) -> Services {
        Services {
            delivery: endpoint(self.delivery.as_ref().unwrap()),
            authentication: self.authentication.as_ref().map(endpoint),
        }
    }

    pub async fn person(&self, name: &str) -> Client {
        let registration = Registration { user: name.into(), device: "laptop".into(), invite: None };
        Client::register(Box::new(MemoryStore::new()), &self.services(), registration).await.unwrap()
    }

    pub async fn stop(mut self) {
        for running in [self.delivery.take(), self.authentication.take()].into_iter().flatten() {
            running.shutdown().await;
        }
    }
}

pub fn user(name: &str) -> UserUri {
    UserUri::new(domain(), name).unwrap()
}
