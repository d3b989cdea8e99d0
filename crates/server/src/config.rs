//! What an operator may choose: from a file, then the environment, then flags.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use conclave_names::Domain;
use serde::Deserialize;

/// Why a configuration is refused, with the place and the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {path} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is wrong; the text has line and column.
    #[error(
        "the configuration file {path} is wrong:\n{why}\n`conclaved init` writes an example with every setting explained"
    )]
    File {
        /// The file.
        path: PathBuf,
        /// Where and why.
        why: String,
    },
    /// Settings that do not go together; where the file has one of them, with its line.
    #[error("wrong configuration: {0}")]
    Together(String),
}

/// Settings that do not go together: their keys in the file, cause and remedy.
struct Contradiction {
    keys: &'static [&'static str],
    why: String,
}

impl From<Contradiction> for ConfigError {
    fn from(contradiction: Contradiction) -> Self {
        Self::Together(contradiction.why)
    }
}

/// Where one of the keys stands in a file, if it has one of them.
fn place(path: &Path, text: &str, keys: &[&str]) -> Option<String> {
    let table = toml::de::DeTable::parse(text).ok()?;
    let find = |key: &&str| {
        let (section, name) = key.split_once('.').unwrap_or(("", key));
        let inner = match section {
            "" => table.get_ref(),
            section => table.get_ref().get(section)?.get_ref().as_table()?,
        };
        let (found, _) = inner.get_key_value(name)?;
        Some(found.span().start)
    };
    let offset = keys.iter().find_map(find)?;
    let line = text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1;
    Some(format!("{} line {line}", path.display()))
}

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
    /// Connections at a time.
    pub max_connections: usize,
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
            max_connections: 10_000,
            max_database_bytes: None,
            shutdown_grace: Duration::from_secs(10),
        }
    }
}

/// The file. Unknown keys are refused: a misspelt setting must not be passed over.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    data_dir: Option<PathBuf>,
    listen: Option<SocketAddr>,
    domain: Option<Domain>,
    #[serde(default)]
    services: ServicesSection,
    #[serde(default)]
    tls: TlsSection,
    #[serde(default)]
    issuers: IssuersSection,
    registration: Option<RegistrationPolicy>,
    credential_lifetime_days: Option<u16>,
    metrics: Option<SocketAddr>,
    #[serde(default)]
    log: LogSection,
    #[serde(default)]
    limits: LimitsSection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServicesSection {
    authentication: Option<bool>,
    delivery: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsSection {
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    insecure_plaintext: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct IssuersSection {
    file: Option<PathBuf>,
    url: Option<String>,
    ca: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogSection {
    format: Option<LogFormat>,
    level: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsSection {
    connections: Option<usize>,
    database_bytes: Option<u64>,
    shutdown_seconds: Option<u64>,
}

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
}

/// An example with every setting, for `conclaved init`.
pub(crate) const EXAMPLE: &str = include_str!("example.toml");

impl Config {
    /// A server for tests in this process: all services, on a free port of loopback, with a development authority.
    #[must_use]
    pub fn for_tests(data_dir: &Path, domain: Domain) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            domain,
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
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
        let issuers = match (over.issuers_file.or(read.issuers.file), over.issuers_url.or(read.issuers.url)) {
            (Some(file), None) => Some(IssuerSource::File(file)),
            (None, Some(url)) => Some(IssuerSource::Url { url, ca: over.issuers_ca.or(read.issuers.ca) }),
            (None, None) => None,
            _ => {
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
            max_connections: over.max_connections.or(read.limits.connections).unwrap_or(default.max_connections),
            max_database_bytes: over.max_database_bytes.or(read.limits.database_bytes),
            shutdown_grace: read.limits.shutdown_seconds.map_or(default.shutdown_grace, Duration::from_secs),
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
        Ok(())
    }
}

fn together(keys: &'static [&'static str], why: &str) -> Contradiction {
    Contradiction { keys, why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, over: Overrides) -> Result<Config, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("conclaved.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(Some(&path), over)
    }

    #[test]
    fn the_example_is_the_default() {
        let config = load(EXAMPLE, Overrides::default()).unwrap();
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn flags_go_before_the_file() {
        let over = Overrides { domain: Some("flag.example".parse().unwrap()), ..Overrides::default() };
        let config = load("domain = \"file.example\"\nlisten = \"127.0.0.1:1\"", over).unwrap();
        assert_eq!(config.domain.as_str(), "flag.example");
        assert_eq!(config.listen.port(), 1);
    }

    #[test]
    fn a_wrong_file_is_refused_with_line_and_remedy() {
        for (text, line, word) in [
            ("domain = \"x.example\"\nlistem = \"127.0.0.1:1\"", "line 2", "listem"),
            ("domain = \"Not A Domain\"", "line 1", "domain name"),
            ("\n\nregistration = \"maybe\"", "line 3", "invite"),
            ("listen = 7", "line 1", "listen"),
            ("[tls\n", "line 1", "tls"),
        ] {
            let error = load(text, Overrides::default()).unwrap_err().to_string();
            assert!(error.contains(line) && error.contains(word) && error.contains("conclaved init"), "{error}");
        }
    }

    #[test]
    fn settings_that_do_not_go_together_are_refused() {
        for (text, word) in [
            ("[tls]\ninsecure_plaintext = true\n[services]\n", ""),
            ("listen = \"0.0.0.0:1\"\n[tls]\ninsecure_plaintext = true", "loopback"),
            ("[tls]\ncertificate = \"a\"", "both"),
            ("[tls]\ncertificate = \"a\"\nkey = \"b\"\ninsecure_plaintext = true", "exclude"),
            ("[services]\nauthentication = false\ndelivery = false", "switched off"),
            ("[services]\nauthentication = false", "issuers"),
            ("[issuers]\nfile = \"x\"", "remove"),
            ("credential_lifetime_days = 0", "365"),
        ] {
            match load(text, Overrides::default()) {
                Ok(_) => assert!(word.is_empty(), "{text}"),
                Err(error) => assert!(!word.is_empty() && error.to_string().contains(word), "{error}"),
            }
        }
        assert!(matches!(
            Config::load(Some(Path::new("/no/such")), Overrides::default()),
            Err(ConfigError::Read { .. })
        ));
    }
}
