//! The task of one stream.

use std::sync::Arc;

use conclave_delivery::StreamEnd;
use conclave_names::ChannelId;
use conclave_protocol::{
    Code, Refusal,
    v1::{Heartbeat, StreamEnded, StreamOpened, stream_event::Event},
};
use prost::bytes::Bytes;
use tokio::{
    sync::{
        mpsc::{self, error::SendTimeoutError},
        watch,
    },
    time::{Instant, sleep_until},
};
use tonic::Status;

use super::{Carried, GOODBYE, HEARTBEAT, Place, Shared, Source, event::encode, lock};
use crate::{clock, connections::Peer, state::stopped};

/// The task of one stream.
pub(super) struct Carrier {
    pub(super) shared: Arc<Shared>,
    pub(super) out: mpsc::Sender<Result<Bytes, Status>>,
    pub(super) source: Source,
    pub(super) place: Place,
    pub(super) peer: Option<Peer>,
}

/// The reader is gone, or the store failed.
struct Over;

impl Carrier {
    pub(super) async fn run(self, mut stopping: watch::Receiver<bool>) {
        let heartbeat_ms = u64::try_from(HEARTBEAT.as_millis()).unwrap_or(u64::MAX);
        let silence = self.place.streams.1;
        let silence_ms = silence.map_or(0, |silence| u64::try_from(silence.as_millis()).unwrap_or(u64::MAX));
        let opened = StreamOpened { handle: self.place.handle.to_vec(), heartbeat_ms, silence_ms };
        if self.send(Event::Opened(opened)).await.is_err() {
            return;
        }
        loop {
            let silent_until = Instant::now() + HEARTBEAT;
            let news = tokio::select! {
                () = self.shared.notify.notified() => true,
                () = sleep_until(silent_until) => false,
                () = self.out.closed() => return,
                () = stopped(&mut stopping) => return,
                () = self.shared.silent_for(silence) => return self.give_up(stopping).await,
            };
            let work = async {
                if news {
                    self.news().await
                } else {
                    self.send(Event::Heartbeat(Heartbeat { time_ms: clock::now().0 })).await
                }
            };
            // A reader that takes nothing does not keep the server from stopping.
            let sent = tokio::select! {
                sent = work => sent,
                () = stopped(&mut stopping) => return,
                () = self.shared.silent_for(silence) => return self.give_up(stopping).await,
            };
            if sent.is_err() {
                return;
            }
        }
    }

    /// The client was silent for too long: the stream is forgotten, and the client told, if it reads.
    async fn give_up(self, mut stopping: watch::Receiver<bool>) {
        let Self { out, place, peer, .. } = self;
        drop(place);
        let message =
            "the stream's client was silent for too long (it sends KeepAlive, Attach or Detach): open another";
        let end = Err(Status::from(Refusal::new(Code::StreamUnknown, message)));
        let told = tokio::select! {
            told = out.send_timeout(end, GOODBYE) => told,
            () = stopped(&mut stopping) => return,
        };
        tracing::debug!(reads = told.is_ok(), "the client of a stream is silent: the stream is ended");
        if let (Err(SendTimeoutError::Timeout(_)), Some(peer)) = (told, peer) {
            // What waits for a reader that takes nothing is freed with the connection only.
            peer.close();
        }
    }

    async fn send(&self, event: Event) -> Result<(), Over> {
        self.out.send(Ok(encode(event))).await.map_err(|_| Over)
    }

    async fn end(&self, channel: ChannelId, reason: StreamEnd) -> Result<(), Over> {
        self.send(Event::Ended(StreamEnded { channel: channel.to_vec(), reason: reason.as_str().to_owned() })).await
    }

    async fn news(&self) -> Result<(), Over> {
        let detached = std::mem::take(&mut *lock(&self.shared.detached));
        for channel in detached {
            self.end(channel, StreamEnd::Detached).await?;
        }
        let news = std::mem::take(&mut *lock(&self.shared.news));
        for channel in news {
            // One batch at a time, so that a busy channel does not hold up the others.
            self.carry(channel).await?;
        }
        Ok(())
    }

    /// Sends the next batch of a channel.
    async fn carry(&self, channel: ChannelId) -> Result<(), Over> {
        // Nothing is read before there is room for it: a reader that takes nothing costs one batch of memory.
        let room = self.out.reserve().await.map_err(|_| Over)?;
        let Some((subscription, after, kept)) = lock(&self.shared.channels).get(&channel).map(|carried| {
            let Carried { subscription, after, feed } = carried;
            (*subscription, *after, feed.get(subscription, *after))
        }) else {
            return Ok(());
        };
        let read = match kept {
            Some(piece) => Ok(piece),
            None => self.source.read(&channel, subscription, after).await,
        };
        let piece = match read {
            Ok(piece) => piece,
            Err(refusal) => {
                tracing::warn!(code = refusal.code.as_str(), message = %refusal.message, "a stream ends early");
                // The reader opens a new stream, and goes on from its place.
                room.send(Err(Status::from(refusal)));
                return Err(Over);
            }
        };
        {
            // Before anything is sent: if it was detached or attached anew meanwhile, this batch is none of its any more.
            let mut registry = piece.ended.is_some().then(|| lock(&self.place.streams.0));
            let mut channels = lock(&self.shared.channels);
            match channels.get_mut(&channel) {
                Some(carried) if carried.subscription == subscription && carried.after == after => {
                    carried.after = piece.position;
                }
                _ => return Ok(()),
            }
            if let Some(registry) = &mut registry {
                channels.remove(&channel);
                registry.unwatch(&self.place.handle, &channel);
            }
        }
        match piece.event {
            Some(event) => room.send(Ok(event)),
            None => drop(room),
        }
        if let Some(reason) = piece.ended {
            return self.end(channel, reason).await;
        }
        if piece.more {
            self.shared.tell(channel);
        }
        Ok(())
    }
}
