//! Starting and stopping.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use conclave_authentication::{AuthenticationService, Registration};
use conclave_delivery::DeliveryService;
use conclave_mls::identity::Identities;
use conclave_names::{Domain, limits};
use conclave_protocol::{
    Code, DESCRIPTORS, Refusal,
    v1::{
        authentication_service_server::AuthenticationServiceServer, delivery_service_server::DeliveryServiceServer,
        key_package_directory_server::KeyPackageDirectoryServer,
    },
};
use conclave_storage::{Database, OpenError, Options, Services};
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    task::JoinHandle,
    time::timeout,
};
use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    authority::{self, AuthorityError},
    config::{Config, ConfigError, RegistrationPolicy},
    connections::Connections,
    http,
    invites::Spool,
    issuers::{self, IssuersError},
    limits::{Guard, TicketKeyError, load_ticket_key},
    listener::{self, Terms},
    rpc::{Rpc, admit, in_our_words, with_streams},
    state::State,
    streams::Streams,
    tasks, telemetry,
    tls::{self, TlsError},
};

/// Silence after which a connection is pinged, and after which an unanswered ping ends it.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Streams and calls that one connection may have open.
const CALLS_PER_CONNECTION: u32 = 256;

/// Requests of one connection that are received or answered at a time; the next waits. With the longest message it
/// bounds the memory that a connection can take before anything is authenticated. Open streams do not count.
const REQUESTS_PER_CONNECTION: usize = 32;

/// Bytes of a request's headers. Ours take some hundred.
const HEADERS: u32 = 16 * 1024;

/// Calls that a client may abandon while they wait to be looked at; beyond, the connection ends.
const ABANDONED: usize = 32;

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory cannot be made.
    #[error("the data directory {path} cannot be used: {source}")]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// The certificate authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The key of tickets.
    #[error(transparent)]
    TicketKey(#[from] TicketKeyError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The issuers of a Delivery Service alone.
    #[error(transparent)]
    Issuers(#[from] IssuersError),
    /// The address.
    #[error("{addr} cannot be listened on: {source}; is another server running there?")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A first step of a service failed.
    #[error("the services cannot start: {0}")]
    Service(#[from] Refusal),
    /// The reflection service.
    #[error("the descriptors of the services are damaged: {0}")]
    Descriptors(#[from] tonic_reflection::server::Error),
}

/// Starts servers.
#[derive(Debug)]
pub struct Server;

/// A server that runs. Dropping it stops listening at once; [`Running::shutdown`] stops in good order.
pub struct Running {
    addr: SocketAddr,
    metrics_addr: Option<SocketAddr>,
    domain: Domain,
    ca_pem: Option<String>,
    state: Arc<State>,
    health: HealthReporter,
    serving: JoinHandle<()>,
    grace: Duration,
}

/// What a server holds in memory for its callers, all of it within bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Load {
    /// Open connections, those that wait for a place or a handshake included.
    pub connections: usize,
    /// Open streams.
    pub streams: usize,
    /// Open sessions.
    pub sessions: usize,
    /// Buckets of limits that are in use.
    pub limit_buckets: usize,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("addr", &self.addr).field("domain", &self.domain).finish_non_exhaustive()
    }
}

impl Server {
    /// Starts a server and returns once it listens.
    ///
    /// # Errors
    /// Any [`StartError`]; what was made in the data directory by then is used by the next start.
    pub async fn start(config: Config) -> Result<Running, StartError> {
        config.check()?;
        let failed = |source| StartError::DataDir { path: config.data_dir.clone(), source };
        authority::private_dir(&config.data_dir).map_err(failed)?;
        let services = match (config.authentication, config.delivery) {
            (true, false) => Services::Authentication,
            (false, true) => Services::Delivery,
            _ => Services::Both,
        };
        let options = Options { services, max_bytes: config.max_database_bytes, ..Options::default() };
        let data_dir = config.data_dir.clone();
        let database = tokio::task::spawn_blocking(move || Database::open(data_dir, options))
            .await
            .map_err(|error| failed(io::Error::other(error)))??;

        let (state, refresh) = Self::services(&config, database).await?;
        for first in [tasks::maintain(&state).await, state.deliver_outbox().await] {
            match first {
                // What needs no room is served all the same; the rest is tried again.
                Err(error) if error.code == Code::StorageFull => tracing::error!(%error, "starting with a full store"),
                other => other?,
            }
        }

        let prepared = tls::prepare(&config.tls, &config.data_dir, &config.domain)?;
        let listen = async |addr: SocketAddr| {
            let bound = TcpListener::bind(addr).await.map_err(|source| StartError::Listen { addr, source })?;
            let local = bound.local_addr().map_err(|source| StartError::Listen { addr, source })?;
            Ok::<_, StartError>((bound, local))
        };
        let (listener, addr) = listen(config.listen).await?;
        // Installed before the first call, so that each one is counted.
        telemetry::metrics();
        let mut metrics_addr = None;
        if let Some(addr) = config.metrics {
            let (listener, local) = listen(addr).await?;
            metrics_addr = Some(local);
            tokio::spawn(http::serve(listener, Arc::clone(&state), state.stopping.subscribe()));
        }

        let (health, health_service) = tonic_health::server::health_reporter();
        let rpc = Rpc(Arc::clone(&state));
        if config.authentication {
            health.set_serving::<AuthenticationServiceServer<Rpc>>().await;
        }
        if config.delivery {
            health.set_serving::<DeliveryServiceServer<Rpc>>().await;
            health.set_serving::<KeyPackageDirectoryServer<Rpc>>().await;
        }
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        macro_rules! bounded {
            ($service:ident) => {
                $service::new(rpc.clone())
                    .max_decoding_message_size(limits::WIRE_MESSAGE)
                    .max_encoding_message_size(limits::WIRE_MESSAGE)
            };
        }
        let routes = Routes::new(health_service)
            .add_service(reflection)
            .add_service(bounded!(AuthenticationServiceServer))
            .add_service(bounded!(KeyPackageDirectoryServer))
            .add_service(bounded!(DeliveryServiceServer))
            .into_axum_router();
        let routes = with_streams(routes, rpc)
            .layer(axum::middleware::from_fn_with_state(Arc::clone(&state), admit))
            .layer(axum::middleware::from_fn(in_our_words));
        let router = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(PING_EVERY))
            .http2_keepalive_timeout(Some(PING_TIMEOUT))
            .max_concurrent_streams(CALLS_PER_CONNECTION)
            .http2_max_header_list_size(HEADERS)
            .http2_max_pending_accept_reset_streams(Some(ABANDONED))
            .concurrency_limit_per_connection(REQUESTS_PER_CONNECTION)
            .add_routes(Routes::from(routes));
        let terms = Terms {
            tls: prepared.config,
            bound: config.max_connections,
            guard: Arc::clone(&state.guard),
            connections: state.connections.clone(),
        };
        let connections = listener::accept(listener, terms, state.stopping.subscribe());
        let mut stopping = state.stopping.subscribe();
        let serving = tokio::spawn(async move {
            let stopped = async move {
                let _ = stopping.wait_for(|stopping| *stopping).await;
            };
            if let Err(error) = router.serve_with_incoming_shutdown(connections, stopped).await {
                tracing::error!(%error, "the server failed");
            }
        });
        tasks::spawn(&state, config.idle, refresh);
        tracing::info!(%addr, domain = %config.domain, "listening");
        Ok(Running {
            addr,
            metrics_addr,
            domain: config.domain,
            ca_pem: prepared.ca_pem,
            state,
            health,
            serving,
            grace: config.shutdown_grace,
        })
    }

    #[allow(clippy::type_complexity)]
    async fn services(
        config: &Config,
        database: Database,
    ) -> Result<(Arc<State>, Option<(crate::config::IssuerSource, Domain, Identities)>), StartError> {
        let authentication = if config.authentication {
            let registration = match config.registration {
                RegistrationPolicy::Open => Registration::Open,
                RegistrationPolicy::Invite => Registration::Invite,
            };
            let authority = authority::load(&config.data_dir, &config.domain)?;
            let service = AuthenticationService::new(authority, registration)
                .with_credential_lifetime(config.credential_lifetime.as_secs());
            Some(Arc::new(service))
        } else {
            None
        };
        let mut refresh = None;
        let delivery = if config.delivery {
            let identities = match (&authentication, &config.issuers) {
                (Some(service), _) => Identities::new(service.issuers().clone()),
                (None, Some(source)) => {
                    let identities = Identities::new(issuers::learn(source, &config.domain).await?);
                    refresh = Some((source.clone(), config.domain.clone(), identities.clone()));
                    identities
                }
                (None, None) => Identities::default(),
            };
            let limits = conclave_delivery::Config {
                max_sessions: config.max_sessions,
                max_sessions_per_origin: config.max_sessions_per_address,
                followed_bytes: config.followed_bytes,
                limits: config.service_limits,
                retention: config.retention,
                ..conclave_delivery::Config::default()
            };
            Some(Arc::new(DeliveryService::new(config.domain.clone(), identities, limits)?))
        } else {
            None
        };
        let state = State {
            database,
            authentication,
            delivery,
            streams: Streams::new(config.stream_silence),
            guard: Arc::new(Guard::new(&config.address_limits, load_ticket_key(&config.data_dir)?)),
            connections: Connections::default(),
            spool: Spool::new(&config.data_dir),
            outbox: Notify::new(),
            stopping: watch::Sender::new(false),
        };
        Ok((Arc::new(state), refresh))
    }
}

impl Running {
    /// Where it listens; with port 0 configured, the port that the system chose.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where metrics are offered.
    #[must_use]
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_addr
    }

    /// The domain that it speaks for.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// What it holds in memory for its callers.
    #[must_use]
    pub fn load(&self) -> Load {
        let delivery = self.state.delivery.as_ref();
        Load {
            connections: self.state.connections.count(),
            streams: self.state.streams.count(),
            sessions: delivery.map_or(0, |service| service.open_sessions()),
            limit_buckets: self.state.guard.buckets() + delivery.map_or(0, |service| service.limit_buckets()),
        }
    }

    /// PEM of the development certificate authority, for clients to pin.
    #[must_use]
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// Waits until the server ends by itself, which it does only by a fault.
    pub async fn wait(&mut self) {
        // Once it has ended it must not be asked again.
        if !self.serving.is_finished() {
            let _ = (&mut self.serving).await;
        }
    }

    /// Stops: takes nothing new, finishes what is under way (within the configured time), ends streams, closes the
    /// database. No acknowledged request is lost.
    pub async fn shutdown(mut self) {
        self.health.set_service_status("", ServingStatus::NotServing).await;
        self.health.set_not_serving::<AuthenticationServiceServer<Rpc>>().await;
        self.health.set_not_serving::<DeliveryServiceServer<Rpc>>().await;
        self.health.set_not_serving::<KeyPackageDirectoryServer<Rpc>>().await;
        self.state.stopping.send_replace(true);
        if timeout(self.grace, self.wait()).await.is_err() {
            tracing::warn!("some requests did not finish in time and were cut off");
            self.serving.abort();
        }
        self.state.database.close().await;
        tracing::info!("stopped");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.state.stopping.send_replace(true);
        self.serving.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn after_a_fault_it_is_waited_for_and_shut_down_as_often_as_wanted() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config::for_tests(directory.path(), "example.com".parse().unwrap());
        let mut running = Server::start(config.clone()).await.unwrap();
        running.serving.abort();
        running.wait().await;
        running.wait().await;
        running.shutdown().await;
        Server::start(config).await.unwrap().shutdown().await;
    }
}
