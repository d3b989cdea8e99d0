//! Over real sockets.

use std::{net::SocketAddr, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, pki_types::PrivateKeyDer, version::TLS12};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};

use super::*;
use conclave_protocol::v1::delivery_service_server::DeliveryServiceServer;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn serve(authority: &Authority, name: &str) -> SocketAddr {
    let (certificate, key) = authority.issue(name);
    let identity = Identity::from_pem(certificate.pem(), key.serialize_pem());
    let (listener, address) = listen().await;
    let server = Server::builder()
        .tls_config(ServerTlsConfig::new().identity(identity))
        .unwrap()
        .add_service(DeliveryServiceServer::new(Fake::default()));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

fn pinned(address: SocketAddr, authority: &Authority) -> Endpoint {
    let url = format!("https://localhost:{}", address.port());
    Endpoint { ca_pem: Some(authority.pem()), ..Endpoint::new(url, domain()) }
}

#[tokio::test]
async fn the_pinned_authority_admits_its_server_and_no_other() {
    let (ours, other) = (Authority::new(), Authority::new());
    let address = serve(&ours, "localhost").await;
    let info = Transport::connect(&pinned(address, &ours)).unwrap().get_server_info().await.unwrap();
    assert_eq!(info.domain, "example.com");

    let error = Transport::connect(&pinned(address, &other)).unwrap().get_server_info().await.unwrap_err();
    assert!(matches!(error, CallError::Untrusted(_)), "{error:?}");
    assert!(!error.is_transient());

    // A server of another name, though of our authority.
    let address = serve(&ours, "elsewhere.example.com").await;
    let error = Transport::connect(&pinned(address, &ours)).unwrap().get_server_info().await.unwrap_err();
    assert!(matches!(error, CallError::Untrusted(_)), "{error:?}");
}

#[tokio::test]
async fn tls_before_1_3_is_refused() {
    let authority = Authority::new();
    let (certificate, key) = authority.issue("localhost");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        while let Ok((stream, _)) = listener.accept().await {
            let _ = acceptor.accept(stream).await;
        }
    });
    let error = Transport::connect(&pinned(address, &authority)).unwrap().get_server_info().await.unwrap_err();
    assert!(matches!(error, CallError::Untrusted(_)), "{error:?}");
}

#[tokio::test]
async fn plaintext_works_on_this_machine() {
    let (listener, address) = listen().await;
    tokio::spawn(Fake::default().router().serve_with_incoming(TcpListenerStream::new(listener)));
    let endpoint = Endpoint { plaintext: true, ..Endpoint::new(format!("http://{address}"), domain()) };
    assert!(Transport::connect(&endpoint).unwrap().get_server_info().await.is_ok());
}

#[tokio::test]
async fn a_server_that_is_away_is_unreachable_until_it_is_back() {
    let (listener, address) = listen().await;
    drop(listener);
    let endpoint = Endpoint { plaintext: true, ..Endpoint::new(format!("http://{address}"), domain()) };
    let transport = Transport::connect(&endpoint).unwrap();
    let error = transport.with_deadline(Duration::from_millis(50)).get_server_info().await.unwrap_err();
    assert!(matches!(&error, CallError::Unreachable { cause } if cause.contains("refused")), "{error:?}");
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(Fake::default().router().serve_with_incoming(TcpListenerStream::new(listener)));
    assert!(transport.get_server_info().await.is_ok());
}
