//! What comes by itself: entries of channels, over one stream.

use std::{
    fmt,
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use conclave_names::{ChannelId, StreamHandle, Timestamp};
use conclave_protocol::{
    Code,
    v1::{KeepAliveRequest, LoggedEntry, OpenStreamRequest, StreamEvent, stream_event::Event as Wire},
};
use futures::Stream;
use tokio::{
    sync::oneshot,
    task::AbortHandle,
    time::{Instant, Sleep, sleep, timeout},
};
use tonic::Streaming;

use super::{CallError, Transport, retry::retry};

/// Bounds of the heartbeat that a server may announce, in milliseconds.
const HEARTBEAT_MS: std::ops::RangeInclusive<u64> = 1_000..=300_000;

/// Bounds of the silence that it may announce, in milliseconds.
const SILENCE_MS: std::ops::RangeInclusive<u64> = 3_000..=24 * 3600 * 1000;

/// What a stream brings.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// Nothing else came for a while; the server's time.
    Heartbeat(Timestamp),
    /// Entries of a channel, in order and without gaps.
    Entries {
        /// The channel.
        channel: ChannelId,
        /// The entries.
        entries: Vec<LoggedEntry>,
    },
    /// The stream no longer carries a channel.
    Ended {
        /// The channel.
        channel: ChannelId,
        /// A stable code: `ACCESS_ENDED`, `DETACHED`, `CHANNEL_GONE`.
        reason: String,
    },
}

/// Why a stream ended. Whatever it was, a new stream is to be opened and the channels attached to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// Not even heartbeats came: the connection is dead, though nobody said so.
    #[error("the stream was silent for {} ms: the connection is taken for dead", .0.as_millis())]
    Silent(Duration),
    /// The server closed it.
    #[error("the server closed the stream")]
    Closed,
    /// It broke.
    #[error("the stream broke: {0}")]
    Broken(#[from] CallError),
}

impl StreamError {
    /// Whether a new stream may work.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Silent(_) | Self::Closed => true,
            // Of the latter kind is the end of a stream on which the server did not hear us.
            Self::Broken(error) => error.is_transient() || error.code() == Some(Code::StreamUnknown),
        }
    }
}

/// An open stream. It ends with the first error.
pub struct EventStream {
    handle: StreamHandle,
    events: Option<Streaming<StreamEvent>>,
    /// After this much silence the stream is dead.
    patience: Duration,
    watchdog: Pin<Box<Sleep>>,
    keeper: Option<Keeper>,
}

/// Tells the server that we are there for as long as it lives, and us when the server knows of no such stream.
struct Keeper {
    gone: oneshot::Receiver<CallError>,
    task: AbortHandle,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Keeper {
    /// Three times in the time after which the server would end the stream, so that one may be lost.
    fn start(transport: &Transport, handle: StreamHandle, silence: Duration) -> Self {
        let (tell, gone) = oneshot::channel();
        let transport = transport.clone();
        let pause = silence / 3;
        let keep = async move {
            loop {
                sleep(pause).await;
                let request = KeepAliveRequest { handle: handle.to_vec() };
                let mut client = transport.delivery();
                let error = match timeout(pause, client.keep_alive(request)).await {
                    Ok(Err(status)) => CallError::from(status),
                    Ok(Ok(_)) => continue,
                    Err(_) => CallError::unreachable("no answer to KeepAlive"),
                };
                if !error.is_transient() {
                    // If nobody listens, the stream has ended already.
                    let _ = tell.send(error);
                    return;
                }
                tracing::debug!(%error, "the server did not hear that we are there; it is told again");
            }
        };
        Self { gone, task: tokio::spawn(keep).abort_handle() }
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The handle admits to the stream.
        f.debug_struct("EventStream").field("patience", &self.patience).finish_non_exhaustive()
    }
}

fn wrong(what: &str) -> CallError {
    CallError::Protocol(format!("OpenStream: {what}"))
}

impl Transport {
    /// Opens a stream that carries nothing yet: attach channels with [`super::Session::attach`] and the stream's
    /// handle.
    pub async fn open_stream(&self) -> Result<EventStream, CallError> {
        retry("OpenStream", self.deadline, || async {
            let mut events = self.delivery().open_stream(OpenStreamRequest {}).await?.into_inner();
            let first = events.message().await?.and_then(|event| event.event);
            let Some(Wire::Opened(opened)) = first else {
                return Err(match first {
                    Some(_) => wrong("the first event is not `opened`"),
                    None => CallError::unreachable("the stream ended before it began"),
                });
            };
            let handle = opened.handle.as_slice().try_into().map_err(|_| wrong("`handle` is not 16 bytes"))?;
            if !HEARTBEAT_MS.contains(&opened.heartbeat_ms) {
                return Err(wrong("`heartbeat_ms` is not between 1 s and 5 min"));
            }
            let patience = Duration::from_millis(opened.heartbeat_ms * 5 / 2);
            let keeper = match opened.silence_ms {
                0 => None,
                ms if SILENCE_MS.contains(&ms) => Some(Keeper::start(self, handle, Duration::from_millis(ms))),
                _ => return Err(wrong("`silence_ms` is not between 3 s and a day")),
            };
            Ok(EventStream { handle, events: Some(events), patience, watchdog: Box::pin(sleep(patience)), keeper })
        })
        .await
    }
}

fn event(wire: StreamEvent) -> Result<Option<Event>, CallError> {
    let channel = |bytes: &[u8]| ChannelId::try_from(bytes).map_err(|_| wrong("`channel` is not 16 bytes"));
    Ok(match wire.event {
        Some(Wire::Heartbeat(beat)) => Some(Event::Heartbeat(Timestamp(beat.time_ms))),
        Some(Wire::Entries(new)) => Some(Event::Entries { channel: channel(&new.channel)?, entries: new.entries }),
        Some(Wire::Ended(ended)) => Some(Event::Ended { channel: channel(&ended.channel)?, reason: ended.reason }),
        // A kind of event that a later server has.
        Some(Wire::Opened(_)) | None => None,
    })
}

impl EventStream {
    /// By which channels are attached to this stream.
    pub fn handle(&self) -> StreamHandle {
        self.handle
    }

    fn end(&mut self, error: StreamError) -> Poll<Option<Result<Event, StreamError>>> {
        tracing::info!(%error, "a stream ended");
        self.events = None;
        self.keeper = None;
        Poll::Ready(Some(Err(error)))
    }
}

impl Stream for EventStream {
    type Item = Result<Event, StreamError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        while let Some(events) = &mut this.events {
            match Pin::new(events).poll_next(cx) {
                Poll::Ready(Some(Ok(wire))) => {
                    this.watchdog.as_mut().reset(Instant::now() + this.patience);
                    match event(wire) {
                        Ok(Some(event)) => return Poll::Ready(Some(Ok(event))),
                        Ok(None) => {}
                        Err(error) => return this.end(error.into()),
                    }
                }
                Poll::Ready(Some(Err(status))) => return this.end(CallError::from(status).into()),
                Poll::Ready(None) => return this.end(StreamError::Closed),
                Poll::Pending if this.watchdog.as_mut().poll(cx).is_ready() => {
                    return this.end(StreamError::Silent(this.patience));
                }
                Poll::Pending => {
                    let gone = this.keeper.as_mut().map(|keeper| Pin::new(&mut keeper.gone).poll(cx));
                    return match gone {
                        Some(Poll::Ready(Ok(error))) => this.end(error.into()),
                        Some(Poll::Ready(Err(_))) => {
                            // It says nothing more; the watchdog is there still.
                            this.keeper = None;
                            Poll::Pending
                        }
                        _ => Poll::Pending,
                    };
                }
            }
        }
        Poll::Ready(None)
    }
}
