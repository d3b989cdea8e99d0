//! Streams: each carries many channels, at the pace of its reader.
//!
//! A stream holds places in channels, not entries: when a channel is woken, or the reader has taken what was sent, the
//! next batch is read from the store. So a slow reader slows nobody, and costs one batch of memory.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use conclave_delivery::{Attached, DeliveryService, Detached, StreamEnd, Subscription};
use conclave_names::{ChannelId, Seq, StreamHandle};
use conclave_protocol::{
    Code, Refusal,
    v1::{Heartbeat, StreamEnded, StreamEntries, StreamEvent, StreamOpened, stream_event::Event},
};
use conclave_storage::Database;
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
    channels: Mutex<HashMap<ChannelId, (Subscription, Seq)>>,
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

#[derive(Default)]
struct Registry {
    streams: HashMap<StreamHandle, Arc<Shared>>,
    watchers: HashMap<ChannelId, HashSet<StreamHandle>>,
}

/// All open streams. Clones share them.
#[derive(Clone)]
pub(crate) struct Streams(Arc<Mutex<Registry>>, Option<Duration>);

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
    pub(crate) fn wake(&self, channel: &ChannelId) {
        let registry = lock(&self.0);
        for handle in registry.watchers.get(channel).into_iter().flatten() {
            if let Some(stream) = registry.streams.get(handle) {
                lock(&stream.news).insert(*channel);
                stream.notify.notify_one();
            }
        }
    }

    /// Has a stream carry a channel; attaching it again moves its place.
    pub(crate) fn attach(&self, attached: &Attached) -> Result<(), Refusal> {
        let mut registry = lock(&self.0);
        let stream = Arc::clone(registry.streams.get(&attached.handle).ok_or_else(unknown)?);
        stream.hear();
        let channel = *attached.subscription.channel();
        {
            let mut channels = lock(&stream.channels);
            if channels.len() >= CHANNELS_PER_STREAM && !channels.contains_key(&channel) {
                let message = format!("a stream carries at most {CHANNELS_PER_STREAM} channels: open another");
                return Err(Refusal::new(Code::QuotaExceeded, message));
            }
            channels.insert(channel, (attached.subscription, attached.after));
            // The reader wants it again: that it was detached is no news any more.
            lock(&stream.detached).remove(&channel);
        }
        registry.watchers.entry(channel).or_default().insert(attached.handle);
        lock(&stream.news).insert(channel);
        stream.notify.notify_one();
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
        delivery: Arc<DeliveryService>,
        database: Database,
        stopping: watch::Receiver<bool>,
        peer: Option<Peer>,
    ) -> Result<ReceiverStream<Result<StreamEvent, Status>>, Refusal> {
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
        let carrier = Carrier { shared, out, delivery, database, place, peer };
        tokio::spawn(carrier.run(stopping));
        Ok(ReceiverStream::new(events))
    }
}

impl Registry {
    fn unwatch(&mut self, handle: &StreamHandle, channel: &ChannelId) {
        if let Some(watchers) = self.watchers.get_mut(channel) {
            watchers.remove(handle);
            if watchers.is_empty() {
                self.watchers.remove(channel);
            }
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
    out: mpsc::Sender<Result<StreamEvent, Status>>,
    delivery: Arc<DeliveryService>,
    database: Database,
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
        self.out.send(Ok(StreamEvent { event: Some(event) })).await.map_err(|_| Over)
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
        let Some((subscription, after)) = lock(&self.shared.channels).get(&channel).copied() else { return Ok(()) };
        let delivery = Arc::clone(&self.delivery);
        let read = self.database.delivery().read(move |read| delivery.stream_batch(read, &subscription, after)).await;
        let batch = match read {
            Ok(batch) => batch,
            Err(refusal) => {
                tracing::warn!(code = refusal.code.as_str(), message = %refusal.message, "a stream ends early");
                // The reader opens a new stream, and goes on from its place.
                room.send(Err(Status::from(refusal)));
                return Err(Over);
            }
        };
        {
            // Before anything is sent: if it was detached or attached anew meanwhile, this batch is none of its any more.
            let mut registry = lock(&self.place.streams.0);
            let mut channels = lock(&self.shared.channels);
            match channels.get_mut(&channel) {
                Some((same, place)) if *same == subscription && *place == after => *place = batch.position,
                _ => return Ok(()),
            }
            if batch.ended.is_some() {
                channels.remove(&channel);
                registry.unwatch(&self.place.handle, &channel);
            }
        }
        if batch.entries.is_empty() {
            drop(room);
        } else {
            let entries = StreamEntries { channel: channel.to_vec(), entries: batch.entries };
            room.send(Ok(StreamEvent { event: Some(Event::Entries(entries)) }));
        }
        if let Some(reason) = batch.ended {
            return self.end(channel, reason).await;
        }
        if batch.more {
            lock(&self.shared.news).insert(channel);
            self.shared.notify.notify_one();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use conclave_mls::identity::Identities;
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

    type Events = ReceiverStream<Result<StreamEvent, Status>>;

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
            let (delivery, database) = (Arc::clone(&self.delivery), self.database.clone());
            self.streams.open(delivery, database, self.stopping.subscribe(), peer).unwrap()
        }
    }

    async fn opened(events: &mut Events) -> StreamOpened {
        match events.next().await.unwrap().unwrap().event {
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
            let event = events.next().await.unwrap().unwrap().event;
            assert!(matches!(event, Some(Event::Heartbeat(_))), "{event:?}");
            world.streams.keep_alive(&handle).unwrap();
        }
        let silent_since = Instant::now();
        let end = loop {
            match events.next().await.unwrap() {
                Ok(event) => assert!(matches!(event.event, Some(Event::Heartbeat(_)))),
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
