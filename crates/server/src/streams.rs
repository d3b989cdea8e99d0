//! Streams: each carries many channels, at the pace of its reader.
//!
//! A stream holds places in channels, not entries: when a channel is woken, or the reader has taken what was sent, the
//! next batch is read: from the channel's feed, where it is kept once for all who stand at the same place, or from the
//! store. So a slow reader slows nobody, and costs one batch of memory.

mod event;
mod feed;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use conclave_delivery::{Attached, DeliveryService, Detached, StreamEnd, Subscription};
use conclave_names::{ChannelId, Seq, StreamHandle};
use conclave_protocol::{
    Code, Refusal,
    v1::{Heartbeat, StreamEnded, StreamOpened, stream_event::Event},
};
use conclave_storage::Database;
use prost::bytes::Bytes;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::{clock, state::stopped};
use event::{Piece, encode};
use feed::{Budget, Feed};

pub(crate) use event::EventCodec;

/// A heartbeat comes after so much silence.
const HEARTBEAT: Duration = Duration::from_secs(20);

/// Open streams.
const STREAMS: usize = 50_000;

/// Channels that one stream may carry.
const CHANNELS_PER_STREAM: usize = 4096;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One stream as others see it: what it carries, and what has news.
#[derive(Default)]
struct Shared {
    channels: Mutex<HashMap<ChannelId, Carried>>,
    /// Channels with news, and those that the client detached.
    news: Mutex<HashSet<ChannelId>>,
    detached: Mutex<HashSet<ChannelId>>,
    notify: Notify,
}

/// A channel that a stream carries.
struct Carried {
    subscription: Subscription,
    /// Entries after this one are next.
    after: Seq,
    feed: Arc<Feed>,
}

/// A channel that streams carry.
struct Watched {
    streams: HashMap<StreamHandle, Arc<Shared>>,
    feed: Arc<Feed>,
}

#[derive(Default)]
struct Registry {
    streams: HashMap<StreamHandle, Arc<Shared>>,
    watched: HashMap<ChannelId, Watched>,
    budget: Budget,
}

/// All open streams. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Streams(Arc<Mutex<Registry>>);

/// Where entries are read.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) delivery: Arc<DeliveryService>,
    pub(crate) database: Database,
}

impl Source {
    async fn read(&self, channel: &ChannelId, subscription: Subscription, after: Seq) -> Result<Piece, Refusal> {
        let delivery = Arc::clone(&self.delivery);
        let batch =
            self.database.delivery().read(move |read| delivery.stream_batch(read, &subscription, after)).await?;
        Ok(Piece::of(channel, batch))
    }
}

fn unknown() -> Refusal {
    Refusal::new(Code::StreamUnknown, "no open stream has this handle: open one")
}

impl Streams {
    pub(crate) fn count(&self) -> usize {
        lock(&self.0).streams.len()
    }

    /// A channel has new entries.
    pub(crate) fn wake(&self, channel: &ChannelId, source: &Source) {
        let feed = {
            let registry = lock(&self.0);
            let Some(watched) = registry.watched.get(channel) else { return };
            if watched.streams.len() < 2 {
                // It reads for itself.
                watched.feed.outdate();
                watched.streams.values().for_each(|stream| stream.tell(*channel));
                return;
            }
            Arc::clone(&watched.feed)
        };
        if feed.news() {
            tokio::spawn(announce(self.clone(), *channel, feed, source.clone()));
        }
    }

    /// The streams that carry a channel.
    fn watching(&self, channel: &ChannelId) -> Vec<Arc<Shared>> {
        lock(&self.0)
            .watched
            .get(channel)
            .map(|watched| watched.streams.values().cloned().collect())
            .unwrap_or_default()
    }

    /// Has a stream carry a channel; attaching it again moves its place.
    pub(crate) fn attach(&self, attached: &Attached) -> Result<(), Refusal> {
        let mut registry = lock(&self.0);
        let stream = Arc::clone(registry.streams.get(&attached.handle).ok_or_else(unknown)?);
        let channel = *attached.subscription.channel();
        let feed = registry.watched.get(&channel).map(|watched| Arc::clone(&watched.feed));
        let feed = feed.unwrap_or_else(|| Arc::new(Feed::new(&registry.budget)));
        {
            let mut channels = lock(&stream.channels);
            if channels.len() >= CHANNELS_PER_STREAM && !channels.contains_key(&channel) {
                let message = format!("a stream carries at most {CHANNELS_PER_STREAM} channels: open another");
                return Err(Refusal::new(Code::QuotaExceeded, message));
            }
            let (subscription, after) = (attached.subscription, attached.after);
            channels.insert(channel, Carried { subscription, after, feed: Arc::clone(&feed) });
            // The reader wants it again: that it was detached is no news any more.
            lock(&stream.detached).remove(&channel);
        }
        let watched = registry.watched.entry(channel).or_insert_with(|| Watched { streams: HashMap::new(), feed });
        watched.streams.insert(attached.handle, Arc::clone(&stream));
        stream.tell(channel);
        Ok(())
    }

    /// Has a stream carry a channel no longer.
    pub(crate) fn detach(&self, detached: &Detached) -> Result<(), Refusal> {
        let mut registry = lock(&self.0);
        let stream = Arc::clone(registry.streams.get(&detached.handle).ok_or_else(unknown)?);
        if lock(&stream.channels).contains_key(&detached.channel) {
            let mut pending = lock(&stream.detached);
            if pending.len() >= CHANNELS_PER_STREAM {
                let message = "the stream is not read: read its events, then detach";
                return Err(Refusal::new(Code::QuotaExceeded, message));
            }
            pending.insert(detached.channel);
            drop(pending);
            lock(&stream.channels).remove(&detached.channel);
            stream.notify.notify_one();
        }
        registry.unwatch(&detached.handle, &detached.channel);
        Ok(())
    }

    /// Opens a stream.
    pub(crate) fn open(
        &self,
        source: Source,
        stopping: watch::Receiver<bool>,
    ) -> Result<ReceiverStream<Result<Bytes, Status>>, Refusal> {
        let mut bytes = [0; StreamHandle::LEN];
        getrandom::fill(&mut bytes)
            .map_err(|_| Refusal::new(Code::Unavailable, "the operating system gave no random bytes: try again"))?;
        let handle = StreamHandle::new(bytes);
        let shared = Arc::new(Shared::default());
        {
            let mut registry = lock(&self.0);
            if registry.streams.len() >= STREAMS {
                return Err(Refusal::new(Code::QuotaExceeded, "too many streams are open: try again later"));
            }
            registry.streams.insert(handle, Arc::clone(&shared));
        }
        let (out, events) = mpsc::channel(1);
        let place = Place { streams: self.clone(), handle };
        let carrier = Carrier { shared, out, source, place };
        tokio::spawn(carrier.run(stopping));
        Ok(ReceiverStream::new(events))
    }
}

impl Registry {
    fn unwatch(&mut self, handle: &StreamHandle, channel: &ChannelId) {
        if let Some(watched) = self.watched.get_mut(channel) {
            watched.streams.remove(handle);
            if watched.streams.is_empty() {
                self.watched.remove(channel);
            }
        }
    }
}

impl Shared {
    /// A channel has something for the stream.
    fn tell(&self, channel: ChannelId) {
        lock(&self.news).insert(channel);
        self.notify.notify_one();
    }
}

/// Places for which one round reads. Who stands elsewhere reads for itself.
const PLACES: usize = 4;

/// Reads what is new in a channel for those who stand at the same place, and wakes all of its streams; again for as long
/// as there is news.
async fn announce(streams: Streams, channel: ChannelId, feed: Arc<Feed>, source: Source) {
    while feed.round() {
        let mut places: HashMap<(Subscription, Seq), usize> = HashMap::new();
        for stream in streams.watching(&channel) {
            if let Some(carried) = lock(&stream.channels).get(&channel) {
                *places.entry((carried.subscription, carried.after)).or_default() += 1;
            }
        }
        let mut places: Vec<_> = places.into_iter().filter(|(_, streams)| *streams > 1).collect();
        places.sort_unstable_by_key(|(_, streams)| std::cmp::Reverse(*streams));
        // Many places may lead to the same end.
        let ends: HashSet<_> = places
            .into_iter()
            .take(PLACES)
            .map(|((subscription, after), _)| (subscription, feed.end(&subscription, after)))
            .collect();
        for (subscription, mut after) in ends {
            loop {
                // Who finds nothing in the feed meets the same failure, and tells its reader.
                let Ok(piece) = source.read(&channel, subscription, after).await else { break };
                feed.keep(&subscription, after, &piece);
                if piece.event.is_none() || piece.ended.is_some() || !piece.more {
                    break;
                }
                after = piece.position;
            }
        }
        for stream in streams.watching(&channel) {
            stream.tell(channel);
        }
    }
}

/// Takes a stream out of the registry when it ends, however it ends.
struct Place {
    streams: Streams,
    handle: StreamHandle,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut registry = lock(&self.streams.0);
        if let Some(stream) = registry.streams.remove(&self.handle) {
            for channel in lock(&stream.channels).keys() {
                registry.unwatch(&self.handle, channel);
            }
        }
    }
}

/// The task of one stream.
struct Carrier {
    shared: Arc<Shared>,
    out: mpsc::Sender<Result<Bytes, Status>>,
    source: Source,
    place: Place,
}

/// The reader is gone, or the store failed.
struct Over;

impl Carrier {
    async fn run(self, mut stopping: watch::Receiver<bool>) {
        let heartbeat_ms = u64::try_from(HEARTBEAT.as_millis()).unwrap_or(u64::MAX);
        let opened = StreamOpened { handle: self.place.handle.to_vec(), heartbeat_ms };
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
            };
            if sent.is_err() {
                return;
            }
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
