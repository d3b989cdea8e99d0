//! Connections: bounded in number, in all and from one address; encrypted; handed to gRPC once their handshake is done.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, watch},
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use crate::{
    connections::{Connections, Entry, Peer},
    limits::{Address, Guard, Place, Surface},
    state::stopped,
};

/// How long a TLS handshake may take, and after it the client's first words in HTTP/2. From then on pings find a dead
/// connection.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Length of those first words.
const PREFACE: usize = 24;

/// How long a connection may wait for a place among those that may be open.
const WAIT: Duration = Duration::from_secs(30);

/// Connections that may wait for it at a time.
const WAITING: usize = 64;

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection, and its place among those that may be open.
pub(crate) struct Connection {
    io: Io,
    /// Until the client has spoken: how many bytes are missing, and until when they must be there.
    silent: Option<(usize, Pin<Box<Sleep>>)>,
    entry: Entry,
    /// Its place among those of its address.
    _own: Place<Address>,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.entry.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.entry.peer.is_closed(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buf.filled().len();
        let read = match &mut this.io {
            Io::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_read(cx, buf),
        };
        if let Some((missing, until)) = &mut this.silent {
            *missing = missing.saturating_sub(buf.filled().len() - before);
            if *missing == 0 {
                this.silent = None;
            } else if until.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_flush(cx),
            Io::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Io::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

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
                    let silent = Some((PREFACE, Box::pin(sleep(HANDSHAKE))));
                    // If nobody takes it, the server has stopped.
                    let _ = ready.send(Ok(Connection { io, silent, entry, _own: own })).await;
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
