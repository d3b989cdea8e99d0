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
    sync::{
        Notify,
        mpsc::{self, error::SendTimeoutError},
        watch,
    },
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::{clock, connections::Peer, state::stopped};
use event::{Piece, encode};
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
    peer: Option<Peer>,
}

/// The reader is gone, or the store failed.
struct Over;

impl Carrier {
    async fn run(self, mut stopping: watch::Receiver<bool>) {
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

#[cfg(test)]
mod tests {
    use conclave_mls::identity::Identities;
    use conclave_protocol::v1::StreamEvent;
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
