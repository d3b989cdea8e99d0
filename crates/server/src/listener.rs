//! Connections: bounded in number, in all and from one address; encrypted; handed to gRPC once their handshake is done.

use std::{io, sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, watch},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    connection::{Connection, Io},
    connections::Connections,
    limits::{Address, Guard, Surface},
    state::stopped,
};

/// How long a TLS handshake may take, and after it the client's first words in HTTP/2. From then on pings find a dead
/// connection.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a connection may wait for a place among those that may be open.
const WAIT: Duration = Duration::from_secs(30);

/// Connections that may wait for it at a time.
const WAITING: usize = 64;

/// What connections are accepted under.
pub(crate) struct Terms {
    pub(crate) tls: Option<Arc<ServerConfig>>,
    /// Connections in all.
    pub(crate) bound: usize,
    pub(crate) guard: Arc<Guard>,
    pub(crate) connections: Connections,
}

/// Accepts connections until told to stop. One that its address may not have is closed at once. Beyond the bound, one
/// of the address with most of them gives way; if no address has more than the newcomer's, the newcomer waits.
pub(crate) fn accept(
    listener: TcpListener,
    terms: Terms,
    mut stopping: watch::Receiver<bool>,
) -> ReceiverStream<io::Result<Connection>> {
    let (ready, connections) = mpsc::channel(64);
    let places = Arc::new(Semaphore::new(terms.bound.min(Semaphore::MAX_PERMITS)));
    let waiting = Arc::new(Semaphore::new(WAITING));
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stopped(&mut stopping) => return,
            };
            let (stream, address) = match accepted {
                Ok((stream, from)) => (stream, Address::of(from.ip())),
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    // Out of file descriptors, most likely: let some close.
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let own = terms.guard.connections.take(address, terms.guard.settings.connections);
            let (Some(own), Ok(())) = (own, terms.guard.take(&[Surface::Connections], address)) else {
                metrics::counter!("conclave_connections_refused_total").increment(1);
                tracing::debug!("a connection was refused: its address has too many");
                continue;
            };
            let place = Arc::clone(&places).try_acquire_owned().ok().or_else(|| terms.connections.make_room(address));
            // Who has no place waits, if there is one of the places to wait.
            let (entry, queue) = match place {
                Some(place) => (Some(terms.connections.enter(address, place)), None),
                None => match Arc::clone(&waiting).try_acquire_owned() {
                    Ok(queue) => (None, Some(queue)),
                    Err(_) => continue,
                },
            };
            let (ready, tls, connections) = (ready.clone(), terms.tls.clone(), terms.connections.clone());
            let (places, mut stopping) = (Arc::clone(&places), stopping.clone());
            tokio::spawn(async move {
                let waited = async {
                    if entry.is_some() {
                        return entry;
                    }
                    let place = timeout(WAIT, places.acquire_owned()).await.ok()?.ok()?;
                    Some(connections.enter(address, place))
                };
                let entry = tokio::select! {
                    entry = waited => entry,
                    () = stopped(&mut stopping) => None,
                };
                drop(queue);
                let Some(entry) = entry else { return };
                if let Some(io) = handshake(stream, tls).await {
                    // If nobody takes it, the server has stopped.
                    let _ = ready.send(Ok(Connection::new(io, HANDSHAKE, entry, own))).await;
                }
            });
        }
    });
    ReceiverStream::new(connections)
}

async fn handshake(stream: TcpStream, tls: Option<Arc<ServerConfig>>) -> Option<Io> {
    stream.set_nodelay(true).ok()?;
    let Some(config) = tls else { return Some(Io::Plain(stream)) };
    match timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await {
        Ok(Ok(stream)) => Some(Io::Tls(Box::new(stream))),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!("a TLS handshake took too long");
            None
        }
    }
}
