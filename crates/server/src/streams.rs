//! Streams: each carries many channels, at the pace of its reader.
//!
//! A stream holds places in channels, not entries: when a channel is woken, or the reader has taken what was sent, the
//! next batch is read: from the channel's feed, where it is kept once for all who stand at the same place, or from the
//! store. So a slow reader slows nobody, and costs one batch of memory.

mod announce;
mod carrier;
mod event;
mod feed;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use conclave_delivery::{Attached, DeliveryService, Detached, Subscription};
use conclave_names::{ChannelId, Seq, StreamHandle};
use conclave_protocol::{Code, Refusal};
use conclave_storage::Database;
use prost::bytes::Bytes;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::connections::Peer;
use announce::announce;
use carrier::Carrier;
use event::Piece;
use feed::{Budget, Feed};

pub(crate) use event::EventCodec;

/// A heartbeat comes after so much silence.
const HEARTBEAT: Duration = Duration::from_secs(20);

/// How long the client of a stream that is ended may take to hear of it.
const GOODBYE: Duration = Duration::from_secs(10);

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
    /// When the client was heard last; none before the stream is open.
    heard: Mutex<Option<Instant>>,
}

impl Shared {
    fn hear(&self) {
        *lock(&self.heard) = Some(Instant::now());
    }

    /// Ends when the client was silent for so long.
    async fn silent_for(&self, silence: Option<Duration>) {
        let Some(silence) = silence else { return std::future::pending().await };
        loop {
            let until = lock(&self.heard).unwrap_or_else(Instant::now) + silence;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
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
#[derive(Clone)]
pub(crate) struct Streams(Arc<Mutex<Registry>>, Option<Duration>);

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
    /// None yet. One whose client is silent for so long is ended.
    pub(crate) fn new(silence: Option<Duration>) -> Self {
        Self(Arc::default(), silence)
    }

    /// The client of a stream is there.
    pub(crate) fn keep_alive(&self, handle: &StreamHandle) -> Result<(), Refusal> {
        lock(&self.0).streams.get(handle).ok_or_else(unknown)?.hear();
        Ok(())
    }

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
        stream.hear();
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
        stream.hear();
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
        peer: Option<Peer>,
    ) -> Result<ReceiverStream<Result<Bytes, Status>>, Refusal> {
        let mut bytes = [0; StreamHandle::LEN];
        getrandom::fill(&mut bytes)
            .map_err(|_| Refusal::new(Code::Unavailable, "the operating system gave no random bytes: try again"))?;
        let handle = StreamHandle::new(bytes);
        let shared = Arc::new(Shared::default());
        shared.hear();
        {
            let mut registry = lock(&self.0);
            if registry.streams.len() >= STREAMS {
                return Err(Refusal::new(Code::QuotaExceeded, "too many streams are open: try again later"));
            }
            registry.streams.insert(handle, Arc::clone(&shared));
        }
        let (out, events) = mpsc::channel(1);
        let place = Place { streams: self.clone(), handle };
        let carrier = Carrier { shared, out, source, place, peer };
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

#[cfg(test)]
mod tests {
    use conclave_mls::identity::Identities;
    use conclave_protocol::v1::{StreamEvent, StreamOpened, stream_event::Event};
    use prost::Message as _;
    use tokio_stream::StreamExt as _;

    use super::*;
    use crate::connections::{Connections, tests::line};

    const SILENCE: Duration = Duration::from_secs(60);

    struct World {
        _directory: tempfile::TempDir,
        database: Database,
        delivery: Arc<DeliveryService>,
        stopping: watch::Sender<bool>,
        streams: Streams,
    }

    type Events = ReceiverStream<Result<Bytes, Status>>;

    impl World {
        fn new(silence: Option<Duration>) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let database = Database::open(directory.path(), conclave_storage::Options::default()).unwrap();
            let domain = "example.com".parse().unwrap();
            let config = conclave_delivery::Config::default();
            let delivery = Arc::new(DeliveryService::new(domain, Identities::default(), config).unwrap());
            let stopping = watch::Sender::new(false);
            Self { _directory: directory, database, delivery, stopping, streams: Streams::new(silence) }
        }

        fn open(&self, peer: Option<Peer>) -> Events {
            let source = Source { delivery: Arc::clone(&self.delivery), database: self.database.clone() };
            self.streams.open(source, self.stopping.subscribe(), peer).unwrap()
        }
    }

    fn decode(event: Bytes) -> Option<Event> {
        StreamEvent::decode(event).unwrap().event
    }

    async fn opened(events: &mut Events) -> StreamOpened {
        match decode(events.next().await.unwrap().unwrap()) {
            Some(Event::Opened(opened)) => opened,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_lives_as_long_as_its_client_is_heard() {
        let world = World::new(Some(SILENCE));
        let mut events = world.open(None);
        let opened = opened(&mut events).await;
        assert_eq!(opened.silence_ms, 60_000);
        let handle = StreamHandle::try_from(opened.handle.as_slice()).unwrap();
        for _ in 0..20 {
            let event = decode(events.next().await.unwrap().unwrap());
            assert!(matches!(event, Some(Event::Heartbeat(_))), "{event:?}");
            world.streams.keep_alive(&handle).unwrap();
        }
        let silent_since = Instant::now();
        let end = loop {
            match events.next().await.unwrap() {
                Ok(event) => assert!(matches!(decode(event), Some(Event::Heartbeat(_)))),
                Err(status) => break Refusal::from_status(&status).unwrap(),
            }
        };
        assert_eq!((end.code, silent_since.elapsed().as_secs()), (Code::StreamUnknown, 60));
        assert!(events.next().await.is_none());
        assert_eq!(world.streams.count(), 0);
        assert_eq!(world.streams.keep_alive(&handle).unwrap_err().code, Code::StreamUnknown);
        world.database.close().await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_and_reads_nothing_loses_the_connection_and_who_reads_does_not() {
        let world = World::new(Some(SILENCE));
        let (deaf, reading) = (Connections::default(), Connections::default());
        let (deaf_line, reading_line) = (line(&deaf), line(&reading));
        let _nobody_reads = world.open(Some(deaf_line.peer.clone()));
        let mut events = world.open(Some(reading_line.peer.clone()));
        while let Some(Ok(_)) = events.next().await {}
        tokio::time::sleep(GOODBYE * 2).await;
        assert_eq!((deaf.count(), reading.count(), world.streams.count()), (0, 1, 0));
        world.database.close().await;
    }

    #[tokio::test(start_paused = true)]
    async fn without_that_bound_a_stream_stays() {
        let world = World::new(None);
        let mut events = world.open(None);
        assert_eq!(opened(&mut events).await.silence_ms, 0);
        for _ in 0..100 {
            events.next().await.unwrap().unwrap();
        }
        world.database.close().await;
    }
}
