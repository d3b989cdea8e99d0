//! What the environment and flags may set.

use std::{net::SocketAddr, path::PathBuf};

use conclave_names::Domain;

use super::{LogFormat, RegistrationPolicy};

/// What environment and flags say.
#[derive(Debug, Default, Clone, clap::Args)]
pub struct Overrides {
    /// Directory with everything the server keeps [default: conclaved-data]
    #[arg(long, global = true, env = "CONCLAVE_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address and port to listen on [default: 127.0.0.1:7443]
    #[arg(long, global = true, env = "CONCLAVE_LISTEN", value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Domain the server speaks for, the middle of its users' names [default: localhost]
    #[arg(long, global = true, env = "CONCLAVE_DOMAIN")]
    pub domain: Option<Domain>,
    /// Offer the Authentication Service [default: true]
    #[arg(long, global = true, env = "CONCLAVE_AUTHENTICATION", value_name = "BOOL")]
    pub authentication: Option<bool>,
    /// Offer the Delivery Service [default: true]
    #[arg(long, global = true, env = "CONCLAVE_DELIVERY", value_name = "BOOL")]
    pub delivery: Option<bool>,
    /// Without an Authentication Service here: file with its issuers' certificates (PEM or DER)
    #[arg(long, global = true, env = "CONCLAVE_ISSUERS_FILE", value_name = "FILE")]
    pub issuers_file: Option<PathBuf>,
    /// Without an Authentication Service here: its address, asked for issuers at start and every 10 minutes
    #[arg(long, global = true, env = "CONCLAVE_ISSUERS_URL", value_name = "URL")]
    pub issuers_url: Option<String>,
    /// Certificate authority (PEM) of the address in --issuers-url [default: the system's]
    #[arg(long, global = true, env = "CONCLAVE_ISSUERS_CA", value_name = "FILE")]
    pub issuers_ca: Option<PathBuf>,
    /// TLS certificate chain (PEM) [default: one of an own authority, made at first start, for development]
    #[arg(long, global = true, env = "CONCLAVE_TLS_CERTIFICATE", value_name = "FILE")]
    pub tls_certificate: Option<PathBuf>,
    /// Private key (PEM) of --tls-certificate
    #[arg(long, global = true, env = "CONCLAVE_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Serve without TLS; refused unless the address is loopback
    #[arg(long, global = true, env = "CONCLAVE_INSECURE_PLAINTEXT")]
    pub insecure_plaintext: bool,
    /// Who may register [default: open]
    #[arg(long, global = true, env = "CONCLAVE_REGISTRATION", value_enum)]
    pub registration: Option<RegistrationPolicy>,
    /// Life of certificates in days, 1 to 365 [default: 30]
    #[arg(long, global = true, env = "CONCLAVE_CREDENTIAL_LIFETIME_DAYS", value_name = "DAYS")]
    pub credential_lifetime_days: Option<u16>,
    /// Address and port for metrics and health over HTTP [default: none]
    #[arg(long, global = true, env = "CONCLAVE_METRICS", value_name = "ADDRESS:PORT")]
    pub metrics: Option<SocketAddr>,
    /// How logs are written [default: text]
    #[arg(long, global = true, env = "CONCLAVE_LOG_FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,
    /// Level of logs: error, warn, info, debug, or directives like conclave_server=debug [default: info]
    #[arg(long, global = true, env = "CONCLAVE_LOG", value_name = "LEVEL")]
    pub log: Option<String>,
    /// Connections at a time [default: 10000]
    #[arg(long, global = true, env = "CONCLAVE_MAX_CONNECTIONS", value_name = "N")]
    pub max_connections: Option<usize>,
    /// Largest database in bytes; beyond, writes are refused with STORAGE_FULL [default: the disk]
    #[arg(long, global = true, env = "CONCLAVE_MAX_DATABASE_BYTES", value_name = "BYTES")]
    pub max_database_bytes: Option<u64>,
    /// Days for which groups' channels keep what was ordered; 0: for ever [default: 90]
    #[arg(long, global = true, env = "CONCLAVE_RETENTION_DAYS", value_name = "DAYS")]
    pub retention_days: Option<u16>,
    /// Bytes that one group's channel keeps; beyond, its oldest entries go; 0: no bound [default: 1 GiB]
    #[arg(long, global = true, env = "CONCLAVE_RETENTION_CHANNEL_BYTES", value_name = "BYTES")]
    pub retention_channel_bytes: Option<u64>,
    /// How long requests may take to finish after a signal to stop, in seconds [default: 10]
    #[arg(long, global = true, env = "CONCLAVE_SHUTDOWN_SECONDS", value_name = "SECONDS")]
    pub shutdown_seconds: Option<u64>,
}
