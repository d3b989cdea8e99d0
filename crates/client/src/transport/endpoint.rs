//! Where a server is and how it is known.

use std::{net::IpAddr, sync::Arc, time::Duration};

use conclave_names::Domain;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    version::TLS13,
};
use tokio_rustls::TlsConnector;
use tonic::{
    codegen::http::Uri,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint as Grpc},
};

use super::connector::{Connector, Tls};
use crate::profile::{Profile, ProfileError};

/// Pings after this much silence, and gives up after [`PING_TIMEOUT`]: middleboxes forget silent connections after a
/// minute or more.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// How many bytes may be on their way to us unread, in one call and in all.
const CALL_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// Where a server is and how it is known.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// `https://host:port`.
    pub url: String,
    /// The domain that the server speaks for; requests are signed for it.
    pub domain: Domain,
    /// PEM of the certificate authorities of which one must have issued the server's certificate. `None` trusts those
    /// of the operating system.
    pub ca_pem: Option<Vec<u8>>,
    /// Allows `http://` to this machine itself, for development.
    pub plaintext: bool,
    /// How long a connection may take to be made, TLS included.
    pub connect_timeout: Duration,
    /// Sent with each call: lets us past the rates of our network address for a number of calls.
    pub ticket: Option<Ticket>,
}

/// A ticket of the server's operator. Whoever has it can use it up.
#[derive(Debug, Clone)]
pub struct Ticket(pub(super) MetadataValue<Ascii>);

impl Ticket {
    /// A ticket as the operator gave it; only the server can tell whether it is one.
    ///
    /// # Errors
    /// [`EndpointError::Ticket`] for a text that none can be.
    pub fn new(text: &str) -> Result<Self, EndpointError> {
        let text = text.trim();
        let good = !text.is_empty() && text.len() <= 200 && text.bytes().all(|byte| byte.is_ascii_graphic());
        let mut value: MetadataValue<Ascii> = text.parse().ok().filter(|_| good).ok_or(EndpointError::Ticket)?;
        // Neither logged nor kept in a compression table.
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

/// Why an endpoint can never work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// No address of a server.
    #[error("`{0}` is not a server's address: write it like https://example.com:8443")]
    Url(String),
    /// Without TLS, but not allowed or not to this machine.
    #[error("`{0}` is not encrypted: use https://, or allow plaintext for a server on this very machine (127.0.0.1)")]
    Plaintext(String),
    /// The pinned certificate authority is none.
    #[error("the file of the server's certificate authority does not hold a certificate in PEM: {0}")]
    Authority(String),
    /// No ticket.
    #[error("the ticket is none: copy it as the server's operator gave it, one line of letters, digits, - and _")]
    Ticket,
    /// The operating system has no certificate authorities.
    #[error("this system has no certificate authorities (install `ca-certificates`), and none is pinned")]
    NoAuthorities,
}

impl Endpoint {
    /// Over TLS, with the operating system's certificate authorities.
    pub fn new(url: impl Into<String>, domain: Domain) -> Self {
        Self {
            url: url.into(),
            domain,
            ca_pem: None,
            plaintext: false,
            connect_timeout: Duration::from_secs(10),
            ticket: None,
        }
    }

    /// What a profile says.
    pub fn of(profile: &Profile) -> Result<Self, ProfileError> {
        let config = profile.config();
        let endpoint = Self::new(&config.server, config.domain.clone());
        let ticket = profile.ticket()?;
        Ok(Self { ca_pem: profile.ca_pem()?, plaintext: config.plaintext, ticket, ..endpoint })
    }

    /// Checks the address. The port is that of the scheme if none is given.
    fn address(&self) -> Result<(Uri, String, u16, bool), EndpointError> {
        let wrong = || EndpointError::Url(self.url.chars().take(200).collect());
        let uri: Uri = self.url.parse().map_err(|_| wrong())?;
        let host = uri.host().ok_or_else(wrong)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() || self.url.contains('@') {
            return Err(wrong());
        }
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let allowed = tls || (self.plaintext && local);
        if !allowed {
            return Err(EndpointError::Plaintext(self.url.clone()));
        }
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok((uri, host, port, tls))
    }

    fn roots(&self) -> Result<RootCertStore, EndpointError> {
        let mut roots = RootCertStore::empty();
        let Some(pem) = &self.ca_pem else {
            let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            return if added > 0 { Ok(roots) } else { Err(EndpointError::NoAuthorities) };
        };
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|e| EndpointError::Authority(e.to_string()))?;
            roots.add(certificate).map_err(|e| EndpointError::Authority(e.to_string()))?;
        }
        if roots.is_empty() { Err(EndpointError::Authority("it is empty".into())) } else { Ok(roots) }
    }

    fn tls(&self, host: &str) -> Result<Tls, EndpointError> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| EndpointError::Url(self.url.clone()))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| EndpointError::Authority(e.to_string()))?
            .with_root_certificates(self.roots()?)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Tls { connector: TlsConnector::from(Arc::new(config)), name })
    }

    pub(super) fn channel(&self) -> Result<Channel, EndpointError> {
        let (uri, host, port, tls) = self.address()?;
        let tls = if tls { Some(self.tls(&host)?) } else { None };
        let connector = Connector { host, port, tls, timeout: self.connect_timeout };
        // TLS is the connector's business; tonic is told the address that servers see.
        let wrong = |_| EndpointError::Url(self.url.clone());
        let grpc = Grpc::from_shared("http://conclave").map_err(wrong)?.origin(uri);
        Ok(settings(grpc).connect_with_connector_lazy(connector))
    }
}

/// HTTP/2 as it should be on any connection.
pub(super) fn settings(grpc: Grpc) -> Grpc {
    grpc.http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(CALL_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str, plaintext: bool) -> Result<(String, u16, bool), EndpointError> {
        let endpoint = Endpoint { plaintext, ..Endpoint::new(url, "example.com".parse().unwrap()) };
        endpoint.address().map(|(_, host, port, tls)| (host, port, tls))
    }

    #[test]
    fn plaintext_goes_to_this_machine_only_and_only_if_allowed() {
        for local in ["http://127.0.0.1:80", "http://[::1]:80", "http://localhost:80", "http://127.9.9.9"] {
            assert!(address(local, true).is_ok(), "{local}");
            assert!(matches!(address(local, false), Err(EndpointError::Plaintext(_))), "{local}");
        }
        for far in ["http://example.com", "http://10.0.0.1", "http://0.0.0.0", "http://localhost.example.com"] {
            assert!(matches!(address(far, true), Err(EndpointError::Plaintext(_))), "{far}");
        }
    }

    #[test]
    fn addresses_are_checked() {
        assert_eq!(address("https://example.com", false), Ok(("example.com".into(), 443, true)));
        assert_eq!(address("https://[::1]:8443/", false), Ok(("::1".into(), 8443, true)));
        for wrong in
            ["", "example.com", "ftp://example.com", "https://example.com/x", "https://a@example.com", "https://"]
        {
            assert!(matches!(address(wrong, true), Err(EndpointError::Url(_))), "{wrong}");
        }
    }

    #[test]
    fn a_pin_that_is_no_certificate_is_refused() {
        for pem in ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let endpoint = Endpoint {
                ca_pem: Some(pem.into()),
                ..Endpoint::new("https://example.com", "example.com".parse().unwrap())
            };
            assert!(matches!(endpoint.channel(), Err(EndpointError::Authority(_))), "{pem}");
        }
    }
}
