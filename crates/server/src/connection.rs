//! A connection's bytes: in the clear or encrypted, and sent in large pieces.
//!
//! HTTP/2 flushes after every frame of some size, so that an event for each of a hundred streams would be a hundred
//! records of TLS and as many system calls. What is flushed waits here until the connection's task has nothing more to add:
//! the task is woken once more, and sends it then.

use std::{
    future::Future as _,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::{
    connections::{Entry, Peer},
    limits::{Address, Place},
};

/// Length of a client's first words in HTTP/2.
const PREFACE: usize = 24;

/// Bytes that wait at most: four records of TLS. More are written before more are taken.
const WAITING_MAX: usize = 64 * 1024;

/// What is flushed and shorter than this is sent at once: answers to calls, pings.
const SHORT: usize = 512;

pub(crate) enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Io {
    fn pin(&mut self) -> Pin<&mut (dyn Duplex + '_)> {
        match self {
            Self::Plain(io) => Pin::new(io),
            Self::Tls(io) => Pin::new(io.as_mut()),
        }
    }
}

trait Duplex: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

/// A connection, and its place among those that may be open.
pub(crate) struct Connection {
    io: Io,
    behind: WriteBehind,
    /// Until the client has spoken: how many bytes are missing, and until when they must be there.
    silent: Option<(usize, Pin<Box<Sleep>>)>,
    entry: Entry,
    /// Its place among those of its address.
    _own: Place<Address>,
}

impl Connection {
    /// One whose client has so much time for its first words.
    pub(crate) fn new(io: Io, first_words: Duration, entry: Entry, own: Place<Address>) -> Self {
        let silent = Some((PREFACE, Box::pin(sleep(first_words))));
        Self { io, behind: WriteBehind::default(), silent, entry, _own: own }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.entry.peer.clone()
    }
}

/// What was written and not sent yet.
#[derive(Default)]
struct WriteBehind {
    waiting: Vec<u8>,
    /// How much of it was sent.
    sent: usize,
    /// Something came since the last flush.
    fresh: bool,
}

impl WriteBehind {
    /// Takes bytes, after making room for them. Never takes none of some.
    fn write(
        &mut self,
        io: Pin<&mut (impl AsyncWrite + ?Sized)>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.waiting.len() >= WAITING_MAX {
            ready!(self.send(io, cx))?;
        }
        let mut taken = 0;
        for part in parts {
            let room = WAITING_MAX.saturating_sub(self.waiting.len());
            let part = part.get(..room).unwrap_or(part);
            self.waiting.extend_from_slice(part);
            taken += part.len();
        }
        self.fresh |= taken > 0;
        Poll::Ready(Ok(taken))
    }

    /// Sends all that waits.
    fn send(&mut self, mut io: Pin<&mut (impl AsyncWrite + ?Sized)>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.waiting.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let sent = ready!(io.as_mut().poll_write(cx, rest))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += sent;
        }
        self.sent = 0;
        // An idle connection keeps no buffer.
        self.waiting = Vec::new();
        Poll::Ready(Ok(()))
    }

    fn flush(&mut self, mut io: Pin<&mut (impl AsyncWrite + ?Sized)>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.fresh) && (SHORT..WAITING_MAX).contains(&self.waiting.len()) {
            // The task flushes again when it is woken; then nothing fresh is there, or more has come to wait.
            cx.waker().wake_by_ref();
            return Poll::Ready(Ok(()));
        }
        ready!(self.send(io.as_mut(), cx))?;
        io.poll_flush(cx)
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.entry.peer.is_closed(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buf.filled().len();
        let read = this.io.pin().poll_read(cx, buf);
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
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { io, behind, .. } = &mut *self;
        behind.write(io.pin(), cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, behind, .. } = &mut *self;
        behind.flush(io.pin(), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, behind, .. } = &mut *self;
        ready!(behind.send(io.pin(), cx))?;
        io.pin().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};

    use super::*;

    async fn write(behind: &mut WriteBehind, io: &mut DuplexStream, parts: &[&[u8]]) -> usize {
        let parts: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        poll_fn(|cx| behind.write(Pin::new(&mut *io), cx, &parts)).await.unwrap()
    }

    async fn flush(behind: &mut WriteBehind, io: &mut DuplexStream) {
        poll_fn(|cx| behind.flush(Pin::new(&mut *io), cx)).await.unwrap();
    }

    #[tokio::test]
    async fn frames_of_one_turn_are_sent_together_and_all_of_them() {
        let (mut io, mut reader) = duplex(1 << 20);
        let mut behind = WriteBehind::default();
        let mut expected = Vec::new();
        for n in 0..20 {
            let (head, body) = ([n; 9], [n; 1000]);
            assert_eq!(write(&mut behind, &mut io, &[&head, &body]).await, 1009);
            flush(&mut behind, &mut io).await;
            expected.extend_from_slice(&head);
            expected.extend_from_slice(&body);
        }
        assert_eq!(behind.waiting, expected, "nothing was sent before the turn ended");
        flush(&mut behind, &mut io).await;
        assert!(behind.waiting.is_empty());
        drop(io);
        let mut sent = Vec::new();
        reader.read_to_end(&mut sent).await.unwrap();
        assert_eq!(sent, expected);
    }

    #[tokio::test]
    async fn what_is_short_is_sent_at_once() {
        let (mut io, mut reader) = duplex(1 << 20);
        let mut behind = WriteBehind::default();
        write(&mut behind, &mut io, &[b"ping"]).await;
        flush(&mut behind, &mut io).await;
        let mut sent = [0; 4];
        reader.read_exact(&mut sent).await.unwrap();
        assert_eq!(&sent, b"ping");
    }

    #[tokio::test]
    async fn a_reader_that_takes_nothing_bounds_what_waits() {
        let (mut io, mut reader) = duplex(1024);
        let mut behind = WriteBehind::default();
        let block = vec![7; 200 * 1024];
        assert_eq!(write(&mut behind, &mut io, &[&block]).await, WAITING_MAX);
        let parts = [IoSlice::new(&block)];
        let blocked = poll_fn(|cx| Poll::Ready(behind.write(Pin::new(&mut io), cx, &parts).is_pending())).await;
        assert!(blocked && behind.waiting.len() == WAITING_MAX);
        // It goes on where it stopped once the reader takes something.
        let reading = tokio::spawn(async move {
            let mut sent = Vec::new();
            reader.read_to_end(&mut sent).await.unwrap();
            sent
        });
        assert_eq!(write(&mut behind, &mut io, &[&block]).await, WAITING_MAX);
        flush(&mut behind, &mut io).await;
        flush(&mut behind, &mut io).await;
        drop(io);
        assert_eq!(reading.await.unwrap(), vec![7; 2 * WAITING_MAX]);
    }
}
