//! The configuration file.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use conclave_names::Domain;
use serde::Deserialize;

use super::{
    LogFormat, RegistrationPolicy,
    limits::{AddressSection, ServiceSection},
};

/// The file. Unknown keys are refused: a misspelt setting must not be passed over.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) data_dir: Option<PathBuf>,
    pub(super) listen: Option<SocketAddr>,
    pub(super) domain: Option<Domain>,
    #[serde(default)]
    pub(super) services: ServicesSection,
    #[serde(default)]
    pub(super) tls: TlsSection,
    #[serde(default)]
    pub(super) issuers: IssuersSection,
    pub(super) registration: Option<RegistrationPolicy>,
    pub(super) credential_lifetime_days: Option<u16>,
    pub(super) metrics: Option<SocketAddr>,
    #[serde(default)]
    pub(super) log: LogSection,
    #[serde(default)]
    pub(super) retention: RetentionSection,
    #[serde(default)]
    pub(super) limits: LimitsSection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RetentionSection {
    pub(super) days: Option<u16>,
    pub(super) channel_bytes: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServicesSection {
    pub(super) authentication: Option<bool>,
    pub(super) delivery: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TlsSection {
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) insecure_plaintext: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IssuersSection {
    pub(super) file: Option<PathBuf>,
    pub(super) url: Option<String>,
    pub(super) ca: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogSection {
    pub(super) format: Option<LogFormat>,
    pub(super) level: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsSection {
    pub(super) connections: Option<usize>,
    pub(super) sessions: Option<usize>,
    pub(super) sessions_per_address: Option<usize>,
    pub(super) followed_bytes: Option<usize>,
    pub(super) idle_seconds: Option<u64>,
    pub(super) stream_silence_seconds: Option<u64>,
    #[serde(default)]
    pub(super) address: AddressSection,
    #[serde(default)]
    pub(super) service: ServiceSection,
    pub(super) database_bytes: Option<u64>,
    pub(super) shutdown_seconds: Option<u64>,
}

/// Where one of the keys stands in a file, if it has one of them.
pub(super) fn place(path: &Path, text: &str, keys: &[&str]) -> Option<String> {
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
