//! Logs and metrics.

use std::{io::IsTerminal as _, sync::OnceLock};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::{Config, ConfigError, LogFormat};

/// Starts logging, for a program. In a process that logs already nothing changes.
///
/// # Errors
/// [`ConfigError::Together`] if the level is none.
pub fn init_logging(config: &Config) -> Result<(), ConfigError> {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter(config)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // Nobody need read the log: who stops reading it does not end a server.
        .log_internal_errors(false);
    // Somebody else's subscriber stays.
    let _ = match config.log_format {
        LogFormat::Text => subscriber.try_init(),
        LogFormat::Json => subscriber.json().try_init(),
    };
    Ok(())
}

/// What is logged.
pub(crate) fn filter(config: &Config) -> Result<EnvFilter, ConfigError> {
    EnvFilter::try_new(&config.log).map_err(|error| {
        ConfigError::Together(format!(
            "log level `{}`: {error}: write it like info, or info,conclave_server=debug",
            config.log
        ))
    })
}

/// The process's metrics. All servers of a process share them.
pub(crate) fn metrics() -> Option<PrometheusHandle> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let buckets = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];
            let installed = PrometheusBuilder::new().set_buckets(&buckets).ok()?.install_recorder();
            installed.inspect_err(|error| tracing::warn!(%error, "no metrics")).ok()
        })
        .clone()
}
