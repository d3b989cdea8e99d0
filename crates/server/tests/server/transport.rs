//! TLS, and nothing but TLS 1.3.

use std::sync::Arc;

use conclave_server::{ConfigError, Server, StartError, Tls};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    version::{TLS12, TLS13},
};
use tokio::{io::AsyncReadExt, net::TcpStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use super::client::*;

pub(crate) async fn handshake(
    running: &conclave_server::Running,
    version: &'static SupportedProtocolVersion,
    name: &str,
    alpn: &[u8],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(running.ca_pem().unwrap().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(running.addr()).await?;
    let mut tls =
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name.to_owned()).unwrap(), stream).await?;
    // In TLS 1.3 a server's refusal of the handshake shows with the first read.
    let mut first = [0; 1];
    if tls.read(&mut first).await? == 0 { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(tls) }
}

#[tokio::test]
async fn tls_1_3_with_h2_under_every_local_name_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    for name in ["localhost", "127.0.0.1", "::1", "example.com"] {
        let stream = handshake(&running, &TLS13, name, b"h2").await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    }
    assert!(handshake(&running, &TLS12, "localhost", b"h2").await.is_err());
    assert!(handshake(&running, &TLS13, "localhost", b"http/1.1").await.is_err());
    assert!(handshake(&running, &TLS13, "other.example", b"h2").await.is_err());
    running.shutdown().await;
}

#[tokio::test]
async fn a_client_without_tls_gets_nowhere() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path()).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", running.addr())).unwrap();
    let answer = match endpoint.connect().await {
        Ok(channel) => Client(channel).register("alice", 1, "").await.map_err(|_| ()),
        Err(_) => Err(()),
    };
    assert!(answer.is_err());
    running.shutdown().await;
}

#[tokio::test]
async fn plaintext_needs_the_flag_and_loopback() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    config.tls = Tls::Plaintext;
    let running = Server::start(config.clone()).await.unwrap();
    let channel = Endpoint::from_shared(format!("http://{}", running.addr())).unwrap().connect().await.unwrap();
    Client(channel).register("alice", 1, "").await.unwrap();
    assert_eq!(running.ca_pem(), None);
    running.shutdown().await;
    for far in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        config.listen = far.parse().unwrap();
        let error = Server::start(config.clone()).await.unwrap_err();
        assert!(matches!(error, StartError::Config(ConfigError::Together(_))), "{error}");
        assert!(error.to_string().contains("127.0.0.1"), "{error}");
    }
}

#[tokio::test]
async fn wrong_certificates_are_refused_at_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("empty.pem"), "").unwrap();
    // Two servers' own: the key of one and the certificate of the other.
    for name in ["one", "other"] {
        start(&path(name)).await.shutdown().await;
    }
    for (certificate, key, word) in [
        (path("missing.pem"), path("missing.key"), "missing.pem"),
        (path("empty.pem"), path("empty.pem"), "empty.pem"),
        (path("one/tls/leaf.pem"), path("other/tls/leaf.key"), "certificate"),
    ] {
        let mut config = config(&path("server"));
        config.tls = Tls::Files { certificate, key };
        let error = Server::start(config).await.unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    let mut config = config(&path("server"));
    config.tls = Tls::Files { certificate: path("one/tls/leaf.pem"), key: path("one/tls/leaf.key") };
    let running = Server::start(config).await.unwrap();
    let ca_pem = std::fs::read_to_string(path("one/tls/ca.pem")).unwrap();
    Client::to(&running.addr().to_string(), &ca_pem).await.register("alice", 1, "").await.unwrap();
    running.shutdown().await;
}

#[tokio::test]
async fn a_client_refuses_a_server_of_another_authority() {
    let (mine, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (running, impostor) = (start(mine.path()).await, start(other.path()).await);
    let pinned = Certificate::from_pem(running.ca_pem().unwrap());
    let connect = async |addr: std::net::SocketAddr| {
        let tls = ClientTlsConfig::new().ca_certificate(pinned.clone());
        Endpoint::from_shared(format!("https://{addr}")).unwrap().tls_config(tls).unwrap().connect().await
    };
    assert!(connect(running.addr()).await.is_ok());
    let error = format!("{:?}", connect(impostor.addr()).await.unwrap_err());
    assert!(error.contains("InvalidCertificate"), "{error}");
    running.shutdown().await;
    impostor.shutdown().await;
}
