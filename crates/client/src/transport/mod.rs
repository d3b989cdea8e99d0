//! The way to the services: gRPC over HTTP/2 and TLS 1.3.
//!
//! A [`Transport`] connects by itself when something is to be sent, and again after a loss. Each call is repeated
//! while its failure is transient ([`CallError::is_transient`]), with growing pauses, until its deadline
//! ([`Transport::with_deadline`]): all calls may be repeated safely. Calls about a channel go through a [`Session`].

mod authentication;
mod blob;
mod clock;
mod connector;
mod delivery;
mod directory;
mod endpoint;
mod error;
mod retry;
mod session;
mod signed;
mod stream;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use conclave_names::{Domain, Timestamp, limits};
use conclave_protocol::v1::{
    authentication_service_client::AuthenticationServiceClient, delivery_service_client::DeliveryServiceClient,
    key_package_directory_client::KeyPackageDirectoryClient,
};
use tonic::{
    Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

pub use endpoint::{Endpoint, EndpointError, Ticket};
pub use error::CallError;
pub use retry::Backoff;
pub(crate) use retry::{IN_TURN, with_patience};
pub use session::{Session, SessionOpener};
pub use signed::Signer;
pub use stream::{Event, EventStream, StreamError};

use clock::ServerClock;

/// How long a call is repeated unless something else is said.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Puts the ticket, if there is one, into each call.
#[derive(Clone)]
struct Ticketed(Option<Ticket>);

impl Interceptor for Ticketed {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(Ticket(value)) = &self.0 {
            request.metadata_mut().insert("conclave-ticket", value.clone());
        }
        Ok(request)
    }
}

type Way = InterceptedService<Channel, Ticketed>;

/// A server's services. Clones share the connection.
#[derive(Clone)]
pub struct Transport {
    channel: Channel,
    ticket: Ticketed,
    domain: Domain,
    clock: Arc<ServerClock>,
    deadline: Duration,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").field("domain", &self.domain).finish_non_exhaustive()
    }
}

impl Transport {
    /// Prepares the way to a server. Nothing is sent yet, so that this works offline; it must be called within a
    /// tokio runtime.
    ///
    /// # Errors
    /// An address or certificate authority that can never work.
    pub fn connect(endpoint: &Endpoint) -> Result<Self, EndpointError> {
        let ticket = Ticketed(endpoint.ticket.clone());
        Ok(Self { ticket, ..Self::over(endpoint.channel()?, endpoint.domain.clone()) })
    }

    fn over(channel: Channel, domain: Domain) -> Self {
        Self { channel, ticket: Ticketed(None), domain, clock: Arc::default(), deadline: DEADLINE }
    }

    /// The same connection, with calls that are repeated for so long at most.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { deadline, ..self.clone() }
    }

    /// The same connection, with calls that are repeated for no longer than this, nor longer than before.
    pub(crate) fn within(&self, most: Duration) -> Self {
        self.with_deadline(self.deadline.min(most))
    }

    /// The domain that the server speaks for, as the profile has it.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// This machine's time, corrected by what the server said about its own.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The same as a time by which something is too old to be kept: no more than a day beyond this machine's, whatever the server says.
    pub fn now_for_deleting(&self) -> Timestamp {
        self.clock.now_for_deleting()
    }

    /// How far the server's clock is ahead of this machine's, in milliseconds, if they are more than a day apart.
    pub fn clocks_differ(&self) -> Option<i64> {
        self.clock.far_ahead()
    }

    /// Notes the server's time, as its heartbeats say it.
    pub fn heard_time(&self, server: Timestamp) {
        self.clock.correct(server);
    }

    fn authentication(&self) -> AuthenticationServiceClient<Way> {
        AuthenticationServiceClient::with_interceptor(self.channel.clone(), self.ticket.clone())
            .max_decoding_message_size(limits::WIRE_MESSAGE)
            .max_encoding_message_size(limits::WIRE_MESSAGE)
    }

    fn directory(&self) -> KeyPackageDirectoryClient<Way> {
        KeyPackageDirectoryClient::with_interceptor(self.channel.clone(), self.ticket.clone())
            .max_decoding_message_size(limits::WIRE_MESSAGE)
            .max_encoding_message_size(limits::WIRE_MESSAGE)
    }

    fn delivery(&self) -> DeliveryServiceClient<Way> {
        DeliveryServiceClient::with_interceptor(self.channel.clone(), self.ticket.clone())
            .max_decoding_message_size(limits::WIRE_MESSAGE)
            .max_encoding_message_size(limits::WIRE_MESSAGE)
    }
}
