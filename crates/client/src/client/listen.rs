//! Living with the groups: one stream that carries the inbox and all channels.

use std::{collections::HashMap, time::Duration};

use conclave_engine::{
    group::{Group, Status},
    outcome::Event,
    silence::Contact,
};
use conclave_names::{ChannelId, GroupUri, Timestamp};
use conclave_protocol::{Code, v1};
use futures::StreamExt as _;
use tokio::time::{Instant, sleep_until};

use super::{Client, ClientError, ClientEvent};
use crate::transport::{Backoff, CallError, Event as Wire, EventStream, IN_TURN, with_patience};

/// Follows the groups of a client. Made by [`Client::listen`].
pub struct Listener<'a> {
    client: &'a mut Client,
    stream: Option<EventStream>,
    /// Whether the stream carries everything. A call that was dropped half-way leaves it false, and the next goes on.
    settled: bool,
    /// Which group each attached channel is of; none is the inbox.
    channels: HashMap<ChannelId, Option<GroupUri>>,
    backoff: Backoff,
    ready: Vec<ClientEvent>,
    /// When the server was heard of.
    contact: Contact,
    tidied: Instant,
    /// When the certificate is to be renewed, if that was tried without success.
    renewal: Option<Instant>,
    /// Until when groups rest in which a turn left something that was due already.
    resting: HashMap<GroupUri, Timestamp>,
}

/// How long they rest, in milliseconds: whatever stands in the way there must not keep the server and the other groups busy.
const REST_MS: u64 = 10_000;

/// What became of the channel of a group that something came of.
#[derive(Clone, Copy)]
enum Attached {
    /// It is attached as before.
    Still,
    /// Another is to be.
    Anew,
}

/// How far ahead a listener looks.
const FAR: Duration = Duration::from_secs(3600);

/// How long it waits before it tries again to renew the certificate.
const RENEWAL_PAUSE: Duration = Duration::from_secs(600);

/// How long the store may keep copies of what was deleted.
const TIDY: Duration = Duration::from_secs(60);

impl std::fmt::Debug for Listener<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("channels", &self.channels.len()).finish_non_exhaustive()
    }
}

impl Client {
    /// Follows all groups: catches up, and then waits for what comes. A broken connection is made anew, with growing
    /// pauses; nothing is missed, as every reader keeps its own place.
    pub fn listen(&mut self) -> Listener<'_> {
        let contact = Contact::with_patience(self.delivery.now(), self.patience_ms);
        Listener {
            client: self,
            stream: None,
            settled: false,
            channels: HashMap::new(),
            backoff: Backoff::default(),
            ready: Vec::new(),
            contact,
            tidied: Instant::now(),
            renewal: None,
            resting: HashMap::new(),
        }
    }
}

impl Listener<'_> {
    /// The client, between two events.
    pub fn client(&mut self) -> &mut Client {
        self.client
    }

    /// What happened next; waits until something does. May be dropped at any time: what was received is durable
    /// before it is returned, but events that were not returned are not repeated (the history has them).
    ///
    /// # Errors
    /// Permanent ones that concern the client as a whole. Transient failures are waited out; what fails for good in one group is told
    /// by [`Event::GroupFailed`] and tried again now and then, and the others are followed all the same.
    pub async fn next(&mut self) -> Result<Vec<ClientEvent>, ClientError> {
        loop {
            if !self.ready.is_empty() {
                return Ok(std::mem::take(&mut self.ready));
            }
            match self.step().await {
                Ok(()) => {}
                Err(error) if error.is_transient() => {
                    tracing::info!(%error, "the connection is lost; trying again");
                    self.ready.extend(self.client.take_untold());
                    self.tell_silence()?;
                    self.tidy()?;
                    self.stream = None;
                    self.channels.clear();
                    let asked = if let ClientError::Call(call) = &error { call.retry_after() } else { Duration::ZERO };
                    let pause = self.backoff.next_pause() + asked;
                    self.tending(tokio::time::sleep(pause)).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for the server, and overwrites meanwhile what is due for that: it may be away for long.
    async fn tending<T>(&mut self, work: impl Future<Output = T>) -> Result<T, ClientError> {
        let mut work = std::pin::pin!(work);
        loop {
            let again = self.client.tend()?.unwrap_or(FAR);
            tokio::select! {
                done = &mut work => return Ok(done),
                () = tokio::time::sleep(again) => {}
            }
        }
    }

    async fn step(&mut self) -> Result<(), ClientError> {
        if self.stream.is_none() {
            let delivery = self.client.delivery.clone();
            let stream = self.tending(delivery.open_stream()).await??;
            self.stream = Some(stream);
            self.channels.clear();
            self.settled = false;
        }
        if !self.settled {
            let events = self.client.sync().await?;
            self.ready.extend(events);
            self.attach_all().await?;
            self.settled = true;
            self.contact.heard(self.client.delivery.now());
            self.backoff.reset();
            return Ok(());
        }
        self.tidy()?;
        let due = self.next_due();
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let event = tokio::select! {
            event = stream.next() => event,
            () = sleep_until(due.unwrap_or_else(far)), if due.is_some() => {
                return self.do_what_is_due().await;
            }
        };
        if matches!(event, Some(Ok(_))) {
            self.contact.heard(self.client.delivery.now());
        }
        match event {
            Some(Ok(Wire::Heartbeat(time))) => {
                self.client.delivery.heard_time(time);
                Ok(())
            }
            Some(Ok(Wire::Entries { channel, entries })) => self.take(channel, entries).await,
            Some(Ok(Wire::Ended { channel, .. })) => {
                let of = self.channels.get(&channel).cloned().flatten();
                let patience = of.as_ref().map_or(IN_TURN, |name| self.client.patience_with(name));
                let done = Box::pin(with_patience(patience, self.reattach(channel))).await;
                match of {
                    Some(name) => self.confine(&name, done).await,
                    None => done,
                }
            }
            Some(Err(error)) if error.is_transient() => {
                self.stream = None;
                self.channels.clear();
                Err(ClientError::Call(CallError::Unreachable { cause: error.to_string() }))
            }
            Some(Err(error)) => Err(ClientError::Answer(error.to_string())),
            None => {
                self.stream = None;
                self.channels.clear();
                Ok(())
            }
        }
    }

    /// Once a minute at most.
    fn tidy(&mut self) -> Result<(), ClientError> {
        if self.tidied.elapsed() >= TIDY {
            self.client.tidy()?;
            self.tidied = Instant::now();
        }
        Ok(())
    }

    /// Tells in each group that nothing is heard of its server.
    fn tell_silence(&mut self) -> Result<(), ClientError> {
        if let Some(since) = self.contact.silent(self.client.delivery.now()) {
            let groups = self.client.groups()?.into_iter().filter(|group| group.status == Status::Active);
            let silent: Vec<_> =
                groups.map(|group| ClientEvent::of(&group.name, Event::ServerSilent { since })).collect();
            self.client.note(&silent)?;
            self.ready.extend(silent);
        }
        Ok(())
    }

    /// Takes what became of one group. One that fails for good is not attached until it succeeds again.
    async fn confine(&mut self, name: &GroupUri, done: Result<(), ClientError>) -> Result<(), ClientError> {
        if done.as_ref().is_err_and(|error| !error.is_transient()) {
            self.channels.retain(|_, of| of.as_ref() != Some(name));
        }
        self.client.confine_call(name, done, &mut self.ready).await
    }

    /// Entries of a group's channel.
    async fn take_of(
        &mut self,
        name: &GroupUri,
        channel: ChannelId,
        entries: Vec<v1::LoggedEntry>,
    ) -> Result<Attached, ClientError> {
        if self.client.is_over(name)? {
            // It was left for what has become of it.
            self.channels.remove(&channel);
            return Ok(Attached::Still);
        }
        let epoch = self.client.group(name)?.epoch();
        // We may have read on by ourselves meanwhile.
        let events = self.client.process_stream(name, entries).await?;
        self.ready.extend(events);
        let now = Instant::now();
        let frozen = self.client.group(name)?.is_frozen();
        if frozen || self.next_due().is_none_or(|due| due <= now) || self.client.group(name)?.intents().next().is_some()
        {
            self.ready.extend(self.client.drive(name, None).await?);
        }
        if self.client.is_over(name)? {
            // It goes on in another channel, which is to be attached, or without us.
            self.channels.remove(&channel);
            return Ok(Attached::Anew);
        }
        self.ready.extend(Box::pin(self.client.leave_what_is_beside(name)).await?);
        if self.client.group(name)?.wants_rejoin() {
            self.ready.extend(self.client.come_back(name, None).await?);
        }
        if self.client.is_over(name)? {
            self.channels.remove(&channel);
            return Ok(Attached::Anew);
        }
        if self.client.group(name)?.epoch() != epoch {
            self.attach_again(channel).await?;
        }
        Ok(Attached::Still)
    }

    /// Entries of a channel.
    async fn take(&mut self, channel: ChannelId, entries: Vec<v1::LoggedEntry>) -> Result<(), ClientError> {
        match self.channels.get(&channel).cloned() {
            Some(Some(name)) => {
                // If this call is dropped half-way, the next one reads everything and attaches what is to be.
                self.settled = false;
                let patience = self.client.patience_with(&name);
                let done = Box::pin(with_patience(patience, self.take_of(&name, channel, entries))).await;
                let anew = matches!(done, Ok(Attached::Anew));
                self.confine(&name, done.map(drop)).await?;
                self.settled = !anew;
                Ok(())
            }
            Some(None) => {
                // New groups are to be attached.
                self.settled = false;
                let events = self.client.sync_inbox().await?;
                let joined: Vec<_> = events
                    .iter()
                    .filter(|happened| matches!(happened.event, Event::Joined { .. }))
                    .filter_map(|happened| happened.group.clone())
                    .filter(|group| !self.client.failed.contains_key(group))
                    .collect();
                self.ready.extend(events);
                for group in joined {
                    // Who joined by a last resort renews its leaf at once.
                    let driven = self.client.drive(&group, None).await;
                    let done = driven.map(|events| self.ready.extend(events));
                    self.confine(&group, done).await?;
                }
                self.client.refill_in_time().await?;
                self.attach_all().await?;
                self.settled = true;
                Ok(())
            }
            None => Ok(()),
        }
    }

    async fn attach_all(&mut self) -> Result<(), ClientError> {
        let inbox = self.client.account.inbox.id;
        if !self.channels.contains_key(&inbox) {
            let Some(handle) = self.stream.as_ref().map(EventStream::handle) else { return Ok(()) };
            let after = self.client.account.inbox.done.0;
            let session = self.client.inbox_session();
            session.attach(&v1::AttachRequest { handle: handle.to_vec(), after }).await?;
            self.channels.insert(inbox, None);
        }
        for summary in self.client.groups()? {
            if summary.status != Status::Removed
                && !self.client.failed.get(&summary.name).is_some_and(|failed| failed.for_good)
                && let patience = self.client.patience_with(&summary.name)
                && let Err(error) = with_patience(patience, self.attach_group(&summary.name)).await
            {
                self.confine(&summary.name, Err(error)).await?;
            }
        }
        Ok(())
    }

    async fn attach_group(&mut self, name: &GroupUri) -> Result<(), ClientError> {
        let channel = self.client.group(name)?.profile().channel;
        if self.channels.contains_key(&channel) { Ok(()) } else { self.attach(channel, name).await }
    }

    async fn attach(&mut self, channel: ChannelId, name: &GroupUri) -> Result<(), ClientError> {
        let Some(handle) = self.stream.as_ref().map(EventStream::handle) else { return Ok(()) };
        let after = self.client.group(name)?.position().seq.0;
        let session = self.client.session(name)?;
        match session.attach(&v1::AttachRequest { handle: handle.to_vec(), after }).await {
            Ok(_) => {
                self.channels.insert(channel, Some(name.clone()));
                Ok(())
            }
            // It stays unattached until a member has removed this client and added it again.
            Err(CallError::Refused(refusal)) if refusal.code == Code::PositionGone => {
                let events = self.client.position_gone(name, &refusal)?;
                self.ready.extend(events);
                Ok(())
            }
            // Who is locked out may be a stranger to the channel by now.
            Err(CallError::Refused(refusal))
                if refusal.code == Code::AccessRefused && self.client.group(name)?.wants_rejoin() =>
            {
                Ok(())
            }
            // The stream is gone on the server's side: it is opened anew.
            Err(CallError::Refused(refusal)) if refusal.code == Code::StreamUnknown => {
                Err(ClientError::Call(CallError::Unreachable { cause: refusal.message }))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The key that a channel was attached with reads no further: attaches it again with the newest.
    async fn reattach(&mut self, channel: ChannelId) -> Result<(), ClientError> {
        self.settled = false;
        self.attach_again(channel).await?;
        self.settled = true;
        Ok(())
    }

    async fn attach_again(&mut self, channel: ChannelId) -> Result<(), ClientError> {
        match self.channels.remove(&channel) {
            Some(Some(name)) => self.attach_newly(channel, &name).await,
            Some(None) => self.attach_all().await,
            None => Ok(()),
        }
    }

    async fn attach_newly(&mut self, channel: ChannelId, name: &GroupUri) -> Result<(), ClientError> {
        let events = self.client.sync_group(name).await?;
        self.ready.extend(events);
        if *self.client.group(name)?.status() == Status::Removed {
            return Ok(());
        }
        if self.client.group(name)?.wants_rejoin() {
            // The key reads no further, and there is no other: nothing comes until this client is back.
            let events = self.client.come_back(name, None).await?;
            self.ready.extend(events);
            if self.client.is_over(name)? || self.client.group(name)?.wants_rejoin() {
                return Ok(());
            }
        }
        self.attach(channel, name).await
    }

    /// When time alone gives us something to do in a group.
    fn next_due(&self) -> Option<Instant> {
        let now = self.client.delivery.now();
        let failed = self.client.failed.values().map(|failed| failed.again);
        self.followed()
            .filter_map(|group| self.due_in(group, now))
            .chain(self.client.asking_due())
            .chain(failed)
            .min()
            .map(|due| Instant::now() + Duration::from_millis(due.0.saturating_sub(now.0)))
            .into_iter()
            .chain(Some(self.renewal_due()))
            .min()
    }

    /// When the certificate is to be renewed: a stream may last longer than it.
    fn renewal_due(&self) -> Instant {
        let due = Instant::now() + Duration::from_millis(self.client.renewal_in_ms()).min(FAR);
        self.renewal.map_or(due, |again| due.max(again))
    }

    /// The groups that have something to do when it is due: those that failed have their own time.
    fn followed(&self) -> impl Iterator<Item = &Group> {
        self.client.groups.values().filter(|group| !self.client.failed.contains_key(group.name()))
    }

    async fn do_what_is_due(&mut self) -> Result<(), ClientError> {
        // Before anything that needs the server.
        self.client.tend()?;
        let now: Timestamp = self.client.delivery.now();
        let due = self.followed().filter(|group| self.due_in(group, now).is_some_and(|due| due <= now));
        let due = due.map(|group| group.name().clone());
        let failed = self.client.failed.iter().filter(|(_, failed)| failed.again <= now).map(|(name, _)| name.clone());
        // Those that failed come last.
        let due: Vec<_> = due.chain(failed).collect();
        // As for entries.
        self.settled = false;
        if self.renewal_due() <= Instant::now() {
            self.renewal = Some(Instant::now() + RENEWAL_PAUSE);
            self.client.renew_in_time().await?;
        }
        if self.client.asking_due().is_some_and(|due| due <= now) {
            Box::pin(self.client.ask_again()).await?;
        }
        for name in due {
            // Keys are forgotten once there is nothing left to read with them. Who is locked out for long comes back.
            let done = self.client.turn_of(&name, &mut self.ready).await;
            let attached = self.channels.values().flatten().any(|of| *of == name);
            self.confine(&name, done).await?;
            if !attached || self.client.is_over(&name)? {
                // It was locked out for long or had failed; or it goes on in another channel.
                self.attach_all().await?;
            }
            let now = self.client.delivery.now();
            let group = self.client.groups.get(&name);
            if group.and_then(|group| self.client.due_in(group, now)).is_some_and(|due| due <= now) {
                self.resting.insert(name, now.plus_ms(REST_MS));
            } else {
                self.resting.remove(&name);
            }
        }
        self.settled = true;
        Ok(())
    }

    /// When time alone gives us something to do in a group, and it does not rest.
    fn due_in(&self, group: &Group, now: Timestamp) -> Option<Timestamp> {
        let due = self.client.due_in(group, now)?;
        Some(self.resting.get(group.name()).map_or(due, |rests| due.max(*rests)))
    }
}

impl Client {
    /// When time alone gives us something to do in a group, or a member is to be asked for help once more.
    fn due_in(&self, group: &Group, now: Timestamp) -> Option<Timestamp> {
        let due = group.due(now).into_iter().chain(group.knock_due(now)).min()?;
        // A frozen group that cannot go on would be due all the time.
        Some(self.unable_to_go_on.get(group.name()).map_or(due, |unable| due.max(unable.again)))
    }
}

fn far() -> Instant {
    Instant::now() + FAR
}
