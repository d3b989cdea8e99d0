//! Connections: TCP, and TLS 1.3 upon it.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tonic::codegen::{Service, http::Uri};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectFailure {
    /// The network or the server's machine, for now.
    #[error("cannot connect to {0}: {1}")]
    Network(String, io::Error),
    /// Whoever answered is not the server, or speaks no TLS 1.3 or HTTP/2.
    #[error("{0}: {1}")]
    Tls(String, String),
}

/// TLS to a server of this name.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) connector: TlsConnector,
    pub(super) name: ServerName<'static>,
}

/// Makes connections to one server.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) host: String,
    pub(super) port: u16,
    /// `None`: plaintext, to this machine only.
    pub(super) tls: Option<Tls>,
    pub(super) timeout: Duration,
}

/// A connection, be it encrypted or not.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

type Connection = TokioIo<Box<dyn Io>>;

impl Connector {
    fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    fn network(&self, error: io::Error) -> ConnectFailure {
        ConnectFailure::Network(self.place(), error)
    }

    async fn tcp(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in lookup_host((self.host.as_str(), self.port)).await? {
            // Whatever `localhost` means here, plaintext does not leave this machine.
            if self.tls.is_none() && !address.ip().is_loopback() {
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn encrypt(&self, tls: &Tls, stream: TcpStream) -> Result<Box<dyn Io>, ConnectFailure> {
        match tls.connector.connect(tls.name.clone(), stream).await {
            Ok(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => Ok(Box::new(stream)),
            Ok(_) => Err(ConnectFailure::Tls(self.place(), "it does not speak HTTP/2".into())),
            Err(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(tls) => Err(ConnectFailure::Tls(self.place(), tls.to_string())),
                None => Err(self.network(error)),
            },
        }
    }

    async fn open(self) -> Result<Connection, ConnectFailure> {
        let open = async {
            let stream = self.tcp().await.map_err(|e| self.network(e))?;
            match &self.tls {
                Some(tls) => self.encrypt(tls, stream).await,
                None => Ok(Box::new(stream) as Box<dyn Io>),
            }
        };
        match timeout(self.timeout, open).await {
            Ok(opened) => opened.map(TokioIo::new),
            Err(_) => Err(self.network(io::ErrorKind::TimedOut.into())),
        }
    }
}

impl Service<Uri> for Connector {
    type Response = Connection;
    type Error = ConnectFailure;
    type Future = Pin<Box<dyn Future<Output = Result<Connection, ConnectFailure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectFailure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().open())
    }
}
