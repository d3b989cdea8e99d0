//! What an operator may choose: from a file, then the environment, then flags.

mod error;
mod file;
mod limits;
mod overrides;
#[cfg(test)]
mod tests;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use conclave_delivery::{Retention, limits::Limits};
use conclave_names::Domain;
use serde::Deserialize;

pub use error::ConfigError;
pub(crate) use overrides::Overrides;

use error::{Contradiction, together};
use file::{File, place};

use crate::limits::AddressLimits;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How the server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// With a certificate authority of its own, made at first start in the data directory: for development.
    Development,
    /// With the operator's certificates, in PEM.
    Files {
        /// The certificate chain.
        certificate: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
    /// Without: on loopback only, and only if asked for by name.
    Plaintext,
}

/// Who may register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum RegistrationPolicy {
    /// Anybody.
    Open,
    /// Who has an invite token of the operator.
    Invite,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where a Delivery Service without an Authentication Service of its own learns whose certificates are good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IssuerSource {
    /// A file with certificates in PEM or one in DER.
    File(PathBuf),
    /// An Authentication Service, asked at start and every ten minutes.
    Url {
        /// `https://host:port`.
        url: String,
        /// The certificate authority (PEM) that must have issued its TLS certificate; none: the system's.
        ca: Option<PathBuf>,
    },
}

/// A complete configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// The domain that the server speaks for: the middle of its users' names.
    pub domain: Domain,
    /// Whether the Authentication Service is offered.
    pub authentication: bool,
    /// Whether the Delivery Service is offered.
    pub delivery: bool,
    /// Without an Authentication Service here: where its issuers are learnt.
    pub issuers: Option<IssuerSource>,
    /// How the server is reached.
    pub tls: Tls,
    /// Who may register.
    pub registration: RegistrationPolicy,
    /// Life of certificates.
    pub credential_lifetime: Duration,
    /// Where metrics are offered over HTTP, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// How logs are written.
    pub log_format: LogFormat,
    /// Which: a level, or directives as `tracing` knows them.
    pub log: String,
    /// How long groups' channels keep what was ordered.
    pub retention: Retention,
    /// Connections at a time.
    pub max_connections: usize,
    /// Sessions that are remembered; beyond, the network address with most of them loses its least recently used.
    pub max_sessions: usize,
    /// Sessions that are remembered of one network address.
    pub max_sessions_per_address: usize,
    /// Bytes of groups with visible handshakes that are kept in memory.
    pub followed_bytes: usize,
    /// How long a connection without calls is kept.
    pub idle: Duration,
    /// Silence of its client after which a stream is ended; none: it is not.
    pub stream_silence: Option<Duration>,
    /// What one network address may ask for.
    pub address_limits: AddressLimits,
    /// What one user, member or claimed client may.
    pub service_limits: Limits,
    /// How large the database may become, in bytes; none: as large as the disk.
    pub max_database_bytes: Option<u64>,
    /// How long requests may take to finish after a signal to stop.
    pub shutdown_grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("conclaved-data"),
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7443),
            // A literal that is a domain name.
            domain: match "localhost".parse() {
                Ok(domain) => domain,
                Err(_) => unreachable!("`localhost` is a domain name"),
            },
            authentication: true,
            delivery: true,
            issuers: None,
            tls: Tls::Development,
            registration: RegistrationPolicy::Open,
            credential_lifetime: Duration::from_secs(30 * 24 * 3600),
            metrics: None,
            log_format: LogFormat::Text,
            log: "info".into(),
            retention: Retention::default(),
            max_connections: 10_000,
            max_sessions: 100_000,
            max_sessions_per_address: 20_000,
            followed_bytes: 256 * 1024 * 1024,
            idle: Duration::from_secs(600),
            stream_silence: Some(Duration::from_secs(60)),
            address_limits: AddressLimits::default(),
            service_limits: Limits::default(),
            max_database_bytes: None,
            shutdown_grace: Duration::from_secs(10),
        }
    }
}

/// An example with every setting, for `conclaved init`.
pub(crate) const EXAMPLE: &str = include_str!("../example.toml");

impl Config {
    /// A server for tests and benchmarks in this process: all services, on a free port of loopback, with a development
    /// authority, without limits on what one caller may ask for and for how long a stream's client may be silent.
    #[must_use]
    pub fn for_tests(data_dir: &Path, domain: Domain) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            domain,
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            max_sessions_per_address: usize::MAX,
            stream_silence: None,
            address_limits: AddressLimits::none(),
            service_limits: Limits::none(),
            ..Self::default()
        }
    }

    /// Puts file, environment and flags together and checks that they go together.
    ///
    /// # Errors
    /// Any [`ConfigError`].
    pub fn load(file: Option<&Path>, over: Overrides) -> Result<Self, ConfigError> {
        let Some(path) = file else { return Ok(Self::put_together(File::default(), over)?) };
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let read = toml::from_str(&text)
            .map_err(|error| ConfigError::File { path: path.to_owned(), why: error.to_string() })?;
        Self::put_together(read, over).map_err(|contradiction| match place(path, &text, contradiction.keys) {
            Some(place) => ConfigError::Together(format!("{place}: {}", contradiction.why)),
            None => contradiction.into(),
        })
    }

    fn put_together(read: File, over: Overrides) -> Result<Self, Contradiction> {
        let default = Self::default();
        let certificate = over.tls_certificate.or(read.tls.certificate);
        let key = over.tls_key.or(read.tls.key);
        let plaintext = over.insecure_plaintext || read.tls.insecure_plaintext.unwrap_or_default();
        let tls = match (certificate, key, plaintext) {
            (Some(certificate), Some(key), false) => Tls::Files { certificate, key },
            (None, None, true) => Tls::Plaintext,
            (None, None, false) => Tls::Development,
            (_, _, true) => {
                return Err(together(
                    &["tls.insecure_plaintext"],
                    "insecure_plaintext and a TLS certificate exclude each other: choose one",
                ));
            }
            _ => {
                return Err(together(
                    &["tls.certificate", "tls.key"],
                    "a TLS certificate and its key go together: give both, or neither",
                ));
            }
        };
        let ca = over.issuers_ca.or(read.issuers.ca);
        let issuers = match (over.issuers_file.or(read.issuers.file), over.issuers_url.or(read.issuers.url)) {
            (None, Some(url)) => Some(IssuerSource::Url { url, ca }),
            (None | Some(_), None) if ca.is_some() => {
                return Err(together(
                    &["issuers.ca"],
                    "issuers.ca says which authority the server at issuers.url has its certificate from: set \
                     issuers.url, or remove issuers.ca",
                ));
            }
            (file, None) => file.map(IssuerSource::File),
            (Some(_), Some(_)) => {
                return Err(together(
                    &["issuers.url", "issuers.file"],
                    "issuers come from a file or from a URL: give one of them",
                ));
            }
        };
        let days = over.credential_lifetime_days.or(read.credential_lifetime_days).unwrap_or(30);
        if !(1..=365).contains(&days) {
            return Err(together(&["credential_lifetime_days"], "credential_lifetime_days is between 1 and 365"));
        }
        let config = Self {
            data_dir: over.data_dir.or(read.data_dir).unwrap_or(default.data_dir),
            listen: over.listen.or(read.listen).unwrap_or(default.listen),
            domain: over.domain.or(read.domain).unwrap_or(default.domain),
            authentication: over.authentication.or(read.services.authentication).unwrap_or(true),
            delivery: over.delivery.or(read.services.delivery).unwrap_or(true),
            issuers,
            tls,
            registration: over.registration.or(read.registration).unwrap_or(default.registration),
            credential_lifetime: Duration::from_secs(u64::from(days) * 24 * 3600),
            metrics: over.metrics.or(read.metrics),
            log_format: over.log_format.or(read.log.format).unwrap_or(default.log_format),
            log: over.log.or(read.log.level).unwrap_or(default.log),
            retention: Retention {
                age_ms: match over.retention_days.or(read.retention.days) {
                    None => default.retention.age_ms,
                    Some(0) => None,
                    Some(days) => Some(u64::from(days) * 24 * 3600 * 1000),
                },
                bytes: match over.retention_channel_bytes.or(read.retention.channel_bytes) {
                    None => default.retention.bytes,
                    Some(0) => None,
                    bytes => bytes,
                },
            },
            max_connections: over.max_connections.or(read.limits.connections).unwrap_or(default.max_connections),
            max_sessions: read.limits.sessions.unwrap_or(default.max_sessions),
            max_sessions_per_address: read.limits.sessions_per_address.unwrap_or(default.max_sessions_per_address),
            followed_bytes: read.limits.followed_bytes.unwrap_or(default.followed_bytes),
            idle: read.limits.idle_seconds.map_or(default.idle, Duration::from_secs),
            stream_silence: match read.limits.stream_silence_seconds {
                None => default.stream_silence,
                Some(0) => None,
                Some(seconds) => Some(Duration::from_secs(seconds)),
            },
            address_limits: read.limits.address.over(default.address_limits),
            service_limits: read.limits.service.over(default.service_limits),
            max_database_bytes: over.max_database_bytes.or(read.limits.database_bytes),
            shutdown_grace: over
                .shutdown_seconds
                .or(read.limits.shutdown_seconds)
                .map_or(default.shutdown_grace, Duration::from_secs),
        };
        config.contradiction()?;
        Ok(config)
    }

    /// Checks that the settings go together.
    ///
    /// # Errors
    /// [`ConfigError::Together`].
    pub fn check(&self) -> Result<(), ConfigError> {
        Ok(self.contradiction()?)
    }

    fn contradiction(&self) -> Result<(), Contradiction> {
        if !self.authentication && !self.delivery {
            return Err(together(
                &["services.delivery", "services.authentication"],
                "both services are switched off: switch on `authentication` or `delivery`",
            ));
        }
        if self.tls == Tls::Plaintext && !self.listen.ip().is_loopback() {
            return Err(together(
                &["tls.insecure_plaintext", "listen"],
                &format!(
                    "insecure_plaintext is for loopback only, but the address is {}: use TLS, or listen on 127.0.0.1",
                    self.listen
                ),
            ));
        }
        if self.delivery && !self.authentication && self.issuers.is_none() {
            return Err(together(
                &["services.authentication", "services.delivery"],
                "a Delivery Service alone must know whose certificates are good: set issuers.file or issuers.url",
            ));
        }
        if self.authentication && self.issuers.is_some() {
            return Err(together(
                &["issuers.url", "issuers.file"],
                "issuers are for a server without an Authentication Service: remove them",
            ));
        }
        if let Some(IssuerSource::Url { url, .. }) = &self.issuers
            && !url.starts_with("https://")
        {
            return Err(together(
                &["issuers.url"],
                "whoever answers there decides whom this server believes, so issuers are fetched over TLS only: write \
                 it like https://as.example.com:7443",
            ));
        }
        if self.max_connections == 0 {
            return Err(together(&["limits.connections"], "limits.connections must be at least 1"));
        }
        let address = &self.address_limits;
        if [address.connections, address.requests, address.streams, address.readers].contains(&0) {
            return Err(together(
                &["limits.address"],
                "connections, requests, streams and readers of limits.address must be at least 1: nobody could be \
                 served",
            ));
        }
        if self.max_sessions == 0 || self.max_sessions_per_address == 0 {
            return Err(together(
                &["limits.sessions", "limits.sessions_per_address"],
                "limits.sessions and limits.sessions_per_address must be at least 1",
            ));
        }
        if self.stream_silence.is_some_and(|silence| !(Duration::from_secs(10)..=DAY).contains(&silence)) {
            return Err(together(
                &["limits.stream_silence_seconds"],
                "limits.stream_silence_seconds is between 10 and 86400, or 0 for never",
            ));
        }
        if !(Duration::from_secs(10)..=DAY).contains(&self.idle) {
            return Err(together(&["limits.idle_seconds"], "limits.idle_seconds is between 10 and 86400"));
        }
        Ok(())
    }
}
