//! Catching up: the inbox, the groups, the keying material.

use std::time::Duration;

use conclave_engine::{
    group::{GroupSummary, Incoming, Known, Status, list_readable},
    invitation::{Invitation, InvitationError, JoinError, TreeFetch},
    knock::Knocked,
    outcome::Event,
    writes::{Room, Write},
};
use conclave_mls::content::MessageId;
use conclave_names::{Epoch, GroupUri, Seq, Timestamp};
use conclave_protocol::{Code, Refusal, v1};

use futures::{StreamExt, stream};

use super::{Client, ClientError, ClientEvent, groups::opener, rows::StoreRows};
use crate::transport::{CallError, IN_TURN, Session, SessionOpener, with_patience};

/// Chunks that are fetched at the same time.
const DOWNLOADS: usize = 8;

/// Where entries come from.
#[derive(Clone, Copy)]
pub(super) enum Source {
    /// Fetched after our place: in order, without gaps.
    Fetched,
    /// A stream.
    Stream,
}

/// What became of an entry of the inbox.
enum Taken {
    /// It is done with.
    Done,
    /// It is an invitation that cannot be taken up now.
    Waits { group: GroupUri, reason: String },
}

/// Behind which place an inbox is to be read again, if it ends before what we have read, or has entries again that it was told to forget.
fn last_before(page: &v1::FetchResponse, done: Seq) -> Option<Seq> {
    let kept = page.oldest.saturating_sub(1).min(page.head);
    (page.head < done.0 || page.oldest <= done.0).then(|| Seq(kept.min(done.0)))
}

/// An invitation that is not tried again.
fn dropped(group: &GroupUri, error: &dyn std::fmt::Display) -> ClientEvent {
    tracing::warn!(%error, %group, "an invitation was dropped");
    ClientEvent::of(group, Event::InvitationDropped { reason: error.to_string() })
}

/// Entries of the inbox that wait at most for what they need; more stay in the inbox, and everything after them.
const WAITING: usize = 64;

/// How long one waits, in milliseconds: a week. Then it is dropped.
const WAITING_MS: u64 = 7 * 86_400_000;

impl Client {
    /// Catches up with everything: joins the groups that this client was added to, reads all channels, carries out
    /// what is still to be done, commits what others have proposed, renews certificate and keying material, and asks again to be let into
    /// groups that were lost.
    ///
    /// # Errors
    /// The first failure that concerns the client as a whole: its store, a server that is away, or a certificate that has ended and
    /// cannot be renewed. What was read until then is returned by the next call, or by [`Client::take_untold`]. What fails in one group
    /// is told by [`Event::GroupFailed`], and the others are read all the same.
    pub async fn sync(&mut self) -> Result<Vec<ClientEvent>, ClientError> {
        let mut events = self.take_untold();
        let done = self.sync_all(&mut events).await;
        events.extend(self.tell_clocks());
        // Also where the server is away.
        let tidied = self.tidy();
        let mut events = self.told(done.and(tidied), events)?;
        // Of what is tried again.
        events.extend(self.take_untold());
        Ok(events)
    }

    async fn sync_all(&mut self, events: &mut Vec<ClientEvent>) -> Result<(), ClientError> {
        self.resume_rotation().await?;
        events.extend(self.sync_inbox().await?);
        let mut listed = list_readable(&StoreRows(&*self.store))?;
        // Whatever those that failed the last time take now, the others do not wait for it.
        listed.groups.sort_by_key(|group| self.failed.contains_key(&group.name));
        for summary in listed.groups {
            if summary.status != Status::Removed || summary.may_return {
                let done = self.turn_of(&summary.name, events).await;
                self.confine_call(&summary.name, done, events).await?;
            }
        }
        for (name, error) in listed.unreadable {
            // It is written anew with what changes next, if it alone is damaged.
            let done = self.turn_of(&name, events).await;
            self.confine_call(&name, done.and(Err(error.into())), events).await?;
        }
        self.renew_in_time().await?;
        self.refill_in_time().await?;
        self.forget_old_keys()?;
        self.forget_claims()?;
        Box::pin(self.ask_again()).await
    }

    /// What is to be done in one group when its turn comes.
    pub(super) async fn turn_of(&mut self, name: &GroupUri, events: &mut Vec<ClientEvent>) -> Result<(), ClientError> {
        let patience = self.patience_with(name);
        Box::pin(with_patience(patience, self.take_turn(name, events))).await
    }

    /// How long what the server refuses in a group for now keeps the others waiting.
    pub(super) fn patience_with(&self, name: &GroupUri) -> Duration {
        if self.failed.contains_key(name) { Duration::ZERO } else { IN_TURN }
    }

    async fn take_turn(&mut self, name: &GroupUri, events: &mut Vec<ClientEvent>) -> Result<(), ClientError> {
        if self.is_over(name)? {
            return Ok(());
        }
        events.extend(self.sync_group(name).await?);
        events.extend(self.drive(name, None).await?);
        let name = self.current(name)?;
        events.extend(Box::pin(self.leave_what_is_beside(&name)).await?);
        events.extend(self.come_back(&name, None).await?);
        Ok(())
    }

    pub(super) fn inbox_session(&mut self) -> Session {
        let inbox = &self.account.inbox;
        self.inbox
            .get_or_insert_with(|| {
                Session::new(
                    &self.delivery,
                    SessionOpener { channel: inbox.id, epoch: Epoch(0), key: inbox.key.clone(), path: None },
                )
            })
            .clone()
    }

    /// Joins the groups that this client was added to. An invitation that cannot be taken up now stays in the inbox.
    pub(super) async fn sync_inbox(&mut self) -> Result<Vec<ClientEvent>, ClientError> {
        let mut events = Vec::new();
        let done = self.read_inbox(&mut events).await;
        self.told(done, events)
    }

    async fn read_inbox(&mut self, events: &mut Vec<ClientEvent>) -> Result<(), ClientError> {
        let session = self.inbox_session();
        self.take_waiting(events).await?;
        if self.account.inbox.trimmed < self.account.inbox.done {
            // The last time ended in between.
            self.trim_inbox(&session).await?;
        }
        loop {
            let after = self.account.inbox.done;
            let mut page = session.fetch(&v1::FetchRequest { after: after.0, limit: 0 }).await?;
            if let Some(last) = last_before(&page, after) {
                let mut account = self.account.clone();
                (account.inbox.done, account.inbox.trimmed) = (last, last);
                self.store.apply(&[account.to_write()])?;
                self.account = account;
                events.push(ClientEvent { group: None, event: Event::InboxWentBack { after: last } });
                page = session.fetch(&v1::FetchRequest { after: last.0, limit: 0 }).await?;
            }
            if page.entries.is_empty() {
                break;
            }
            for entry in &page.entries {
                let mut writes = Vec::new();
                let told = events.len();
                // Where something that it needs is not to be had now, those behind it must not wait for that.
                let mut account = self.account.clone();
                account.inbox.done = Seq(entry.seq);
                let waits = match self.take_post(&entry.entry, account.to_write(), events).await {
                    Ok(Taken::Done) => false,
                    Ok(Taken::Waits { group, reason }) => {
                        let full = self.is_full()?;
                        let event = if full {
                            Event::InvitationDropped { reason: format!("{reason}; and too many others wait already") }
                        } else {
                            Event::InvitationWaits { reason }
                        };
                        events.push(ClientEvent::of(&group, event));
                        !full
                    }
                    Err(error) if error.is_transient() && !self.is_full()? => {
                        tracing::info!(%error, "an entry of the inbox waits");
                        true
                    }
                    // It stays where it is, and the groups are read all the same.
                    Err(error) if error.is_transient() => {
                        tracing::warn!(%error, "the inbox is read no further: too much of it waits already");
                        return Ok(());
                    }
                    Err(error) => return Err(error),
                };
                if waits {
                    let since = self.delivery.now().0.to_be_bytes();
                    writes.push(Write::Put {
                        room: Room::WAITING,
                        key: entry.seq.to_be_bytes().to_vec(),
                        value: [since.as_slice(), &entry.entry].concat().into(),
                    });
                }
                writes.extend(self.notes(events.get(told..).unwrap_or_default())?);
                writes.push(account.to_write());
                self.store.apply(&writes)?;
                self.account = account;
            }
            self.trim_inbox(&session).await?;
        }
        Ok(())
    }

    /// Has the server forget what is done with: all of it is safe or of no use.
    async fn trim_inbox(&mut self, session: &Session) -> Result<(), ClientError> {
        let mut account = self.account.clone();
        account.inbox.trimmed = account.inbox.done;
        match session.trim(&v1::TrimRequest { up_to: account.inbox.done.0 }).await {
            Ok(_) => {}
            // There is not so much of it: it went back, which the next page shows.
            Err(error) if error.code() == Some(Code::Malformed) => {}
            Err(error) => return Err(error.into()),
        }
        self.store.apply(&[account.to_write()])?;
        self.account = account;
        Ok(())
    }

    /// Whether no more entries of the inbox can wait.
    fn is_full(&self) -> Result<bool, ClientError> {
        Ok(self.store.scan(Room::WAITING, b"")?.len() >= WAITING)
    }

    /// Takes an entry of the inbox. What says that it was taken is stored with what became of it, or by the caller.
    async fn take_post(
        &mut self,
        entry: &[u8],
        taken: Write,
        events: &mut Vec<ClientEvent>,
    ) -> Result<Taken, ClientError> {
        if Knocked::is_one(entry) {
            events.extend(self.take_knock(entry).await?);
            Ok(Taken::Done)
        } else {
            Box::pin(self.take_invitation(entry, taken, events)).await
        }
    }

    /// Takes up what could not be taken up when it came.
    async fn take_waiting(&mut self, events: &mut Vec<ClientEvent>) -> Result<(), ClientError> {
        for (key, value) in self.store.scan(Room::WAITING, b"")? {
            let Some((since, entry)) = value.split_first_chunk::<8>() else { continue };
            let over = Timestamp(u64::from_be_bytes(*since)).plus_ms(WAITING_MS) <= self.delivery.now();
            let told = events.len();
            let taken = Write::Delete { room: Room::WAITING, key };
            match self.take_post(entry, taken.clone(), events).await {
                Ok(Taken::Done) => {}
                Ok(Taken::Waits { group, reason }) => {
                    if !over {
                        continue;
                    }
                    let event = Event::InvitationDropped { reason: format!("it has waited for a week: {reason}") };
                    events.push(ClientEvent::of(&group, event));
                }
                Err(error) if error.is_transient() && !over => continue,
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, "an entry of the inbox has waited for a week and is dropped");
                    if let Ok(invitation) = Invitation::open(&self.account, &self.mls, entry) {
                        let event = Event::InvitationDropped { reason: format!("it has waited for a week: {error}") };
                        events.push(ClientEvent::of(invitation.name(), event));
                    }
                }
                Err(error) => return Err(error),
            }
            let mut writes = self.notes(events.get(told..).unwrap_or_default())?;
            writes.push(taken);
            self.store.apply(&writes)?;
        }
        Ok(())
    }

    /// Takes up one invitation.
    ///
    /// # Errors
    /// Transient ones only: it is to be tried again. What can never be taken up is dropped, and told of.
    async fn take_invitation(
        &mut self,
        entry: &[u8],
        taken: Write,
        events: &mut Vec<ClientEvent>,
    ) -> Result<Taken, ClientError> {
        let invitation = match Invitation::open(&self.account, &self.mls, entry) {
            Ok(invitation) => invitation,
            Err(error) => {
                tracing::warn!(%error, "an entry of the inbox was dropped");
                if matches!(error, InvitationError::NotForUs) {
                    self.doubt_key_packages()?;
                }
                events.push(ClientEvent { group: None, event: Event::InvitationDropped { reason: error.to_string() } });
                return Ok(Taken::Done);
            }
        };
        let name = invitation.name().clone();
        let reads = |group: &GroupSummary| group.status != Status::Removed || group.may_return;
        // So may we from what a group of ours goes on in, before we went on.
        let room = &invitation.profile().room;
        let earlier = |group: &GroupSummary| group.name != name && group.room == *room && reads(group);
        for group in self.groups()?.into_iter().filter(earlier) {
            match Box::pin(self.catch_up_and_go_on(&group.name)).await {
                Ok(read) => events.extend(read),
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, group = %group.name, "a group of the same room cannot be read");
                    events.extend(self.take_untold());
                }
            }
        }
        if self.groups()?.iter().any(|group| group.name == name && reads(group)) {
            // We may have been removed and added again, without having read of either.
            match self.sync_group(&name).await {
                Ok(read) => events.extend(read),
                Err(error) if error.is_transient() => return Err(error),
                // The invitation may be what heals it.
                Err(error) => {
                    tracing::warn!(%error, group = %name, "a group that this client is invited to cannot be read");
                    events.extend(self.take_untold());
                }
            }
        }
        let tree = match self.fetch_tree(&invitation).await {
            Ok(tree) => tree,
            Err(error) if error.is_transient() => return Err(error),
            // The server's word that it is gone is not the last one.
            Err(ClientError::Call(error)) => {
                let reason = format!("the server does not give out the group's tree: {error}");
                return Ok(Taken::Waits { group: name, reason });
            }
            Err(error) => {
                events.push(dropped(&name, &error));
                return Ok(Taken::Done);
            }
        };
        let mut told = Vec::new();
        let now = self.delivery.now();
        let mut joined = invitation.join(&self.account, &self.mls, &StoreRows(&*self.store), &tree, now, &mut told);
        if matches!(joined, Err(JoinError::Refused(_))) && self.learn_issuers().await? {
            joined = invitation.join(&self.account, &self.mls, &StoreRows(&*self.store), &tree, now, &mut told);
        }
        match joined {
            Ok(mut group) => {
                events.extend(self.leave_for(&mut group, &told, taken)?);
                self.groups.insert(name.clone(), group);
                self.sessions.remove(&name);
                events.extend(ClientEvent::all_of(&name, told));
                let watched = self.watch_identities(&name, events);
                self.save(&name)?;
                watched?;
                events.extend(self.go_over_to(&name).await?);
            }
            Err(JoinError::Store(error)) => return Err(error.into()),
            Err(JoinError::Undecided) => return Err(ClientError::Undecided),
            // A copy, of which nothing is to be told.
            Err(error @ (JoinError::Member | JoinError::Old)) => {
                tracing::warn!(%error, group = %name, "an invitation was dropped");
                return Ok(Taken::Done);
            }
            Err(error) => {
                events.push(dropped(&name, &error));
                return Ok(Taken::Done);
            }
        }
        // It is taken up, whatever comes after.
        match self.sync_group(&name).await {
            Ok(read) => events.extend(read),
            Err(error) if error.is_transient() => {
                tracing::info!(%error, group = %name, "a group that was joined is read when its turn comes");
                events.extend(self.take_untold());
            }
            Err(error) => self.confine(&name, Err(error), events)?,
        }
        Ok(Taken::Done)
    }

    /// Fetches the tree of a group that we were invited to, several chunks at a time.
    async fn fetch_tree(&mut self, invitation: &Invitation) -> Result<TreeFetch, ClientError> {
        self.fetch_chunks(invitation.tree()?).await
    }

    /// Fetches what a tree wants, several chunks at a time.
    pub(super) async fn fetch_chunks(&mut self, mut tree: TreeFetch) -> Result<TreeFetch, ClientError> {
        loop {
            let wanted = tree.wanted();
            if wanted.is_empty() {
                return Ok(tree);
            }
            let delivery = &self.delivery;
            let largest = tree.largest();
            let downloads: Vec<_> = wanted.into_iter().map(|name| delivery.download_blob(name, largest)).collect();
            let mut chunks = stream::iter(downloads).buffer_unordered(DOWNLOADS);
            while let Some(chunk) = chunks.next().await {
                // The hash was right: it is the committer who sealed something else.
                tree.give(&chunk?).map_err(|error| ClientError::Answer(error.to_string()))?;
            }
        }
    }

    /// Reads a group's channel to its end.
    ///
    /// # Errors
    /// [`ClientError::Log`] if the server's log is not one; what came before counts.
    pub async fn sync_group(&mut self, name: &GroupUri) -> Result<Vec<ClientEvent>, ClientError> {
        let mut events = Vec::new();
        let done = self.read_group(name, &mut events).await;
        self.told(done, events)
    }

    async fn read_group(&mut self, name: &GroupUri, events: &mut Vec<ClientEvent>) -> Result<(), ClientError> {
        Box::pin(self.found(name, events)).await?;
        // What a stream brought may have named an issuer that is not known, and is read once more.
        self.learn_issuers().await?;
        let mut refetched = false;
        loop {
            let group = self.group(name)?;
            if *group.status() == Status::Removed && !group.may_return() {
                return Ok(());
            }
            let asked = self.delivery.now();
            let page = match self.page(name).await {
                Err(error) if error.code() == Some(Code::AccessRefused) && self.group(name)?.is_unproven() => {
                    let told = self.group(name)?.void_invitation();
                    self.save(name)?;
                    events.extend(ClientEvent::all_of(name, told));
                    return Ok(());
                }
                Err(ClientError::Call(CallError::Refused(refusal))) if refusal.code == Code::PositionGone => {
                    self.group(name)?.shut_out(asked)?;
                    events.extend(self.position_gone(name, &refusal)?);
                    return Ok(());
                }
                // Who is locked out may be a stranger to the channel by now: only a member can help.
                Err(error) if error.code() == Some(Code::AccessRefused) && self.group(name)?.wants_rejoin() => {
                    self.group(name)?.shut_out(asked)?;
                    return self.save(name);
                }
                // No key of ours opens the channel, and nothing has removed us.
                Err(error)
                    if error.code() == Some(Code::AccessRefused) && *self.group(name)?.status() != Status::Removed =>
                {
                    let mut told = Vec::new();
                    self.group(name)?.shut_out(asked)?;
                    self.group(name)?.locked_out(&mut told);
                    self.save(name)?;
                    events.extend(ClientEvent::all_of(name, told));
                    return Ok(());
                }
                page => page?,
            };
            if page.entries.is_empty() {
                self.group(name)?.caught_up(asked)?;
                let told = self.group(name)?.withheld();
                events.extend(ClientEvent::all_of(name, told));
                self.save(name)?;
                events.extend(self.audit(name).await?);
                events.extend(self.vet_group_info(name).await?);
                return Ok(());
            }
            let before = self.group(name)?.position();
            events.extend(self.process(name, page.entries).await?);
            events.extend(self.audit(name).await?);
            // Before what was refused is read once more, and judged for good.
            self.learn_issuers().await?;
            if self.group(name)?.position() == before {
                // What cannot be applied is read once more: it may have been changed on its way.
                if refetched || !self.group(name)?.wants_refetch() {
                    return Ok(());
                }
                refetched = true;
            }
        }
    }

    /// Reads the log once more, if somebody seems to be in another branch of the group.
    async fn audit(&mut self, name: &GroupUri) -> Result<Vec<ClientEvent>, ClientError> {
        let mut told = Vec::new();
        if self.group(name)?.wants_audit().is_none() {
            return Ok(Vec::new());
        }
        while let Some(after) = self.group(name)?.wants_audit() {
            let page = match Box::pin(self.page_once_more(name, after)).await {
                Ok(page) => page,
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => {
                    tracing::info!(%error, group = %name, "the log cannot be read once more");
                    self.group(name)?.end_audit();
                    break;
                }
            };
            let entry = |logged: v1::LoggedEntry| Incoming {
                seq: Seq(logged.seq),
                time: Timestamp(logged.time_ms),
                entry: logged.entry,
                blob: None,
            };
            let batch: Vec<_> = page.entries.into_iter().map(entry).collect();
            if let Err(error) = self.group(name)?.audit(&batch, &mut told) {
                tracing::warn!(%error, group = %name, "the log cannot be read once more");
            }
        }
        self.save(name)?;
        Ok(ClientEvent::all_of(name, told).collect())
    }

    /// Entries after a place that we have seen long ago: by the oldest key that reads there.
    async fn page_once_more(&mut self, name: &GroupUri, after: Seq) -> Result<v1::FetchResponse, ClientError> {
        let request = v1::FetchRequest { after: after.0, limit: 0 };
        let mut earliest: Option<v1::FetchResponse> = None;
        let first = |page: &v1::FetchResponse| page.entries.first().map_or(u64::MAX, |first| first.seq);
        for access in self.group(name)?.accesses()? {
            match Session::new(&self.delivery, opener(access)).fetch(&request).await {
                Ok(page) if first(&page) == after.next().0 => return Ok(page),
                Ok(page) if first(&page) < earliest.as_ref().map_or(u64::MAX, first) => earliest = Some(page),
                Err(error) if error.is_transient() => return Err(error.into()),
                _ => {}
            }
        }
        match earliest {
            Some(page) => Ok(page),
            None => self.page_after(name, after).await,
        }
    }

    /// Notes that the server no longer keeps what we would read next.
    pub(super) fn position_gone(
        &mut self,
        name: &GroupUri,
        refusal: &Refusal,
    ) -> Result<Vec<ClientEvent>, ClientError> {
        let mut told = Vec::new();
        self.group(name)?.position_gone(refusal.number("oldest").map(Seq), &mut told);
        self.save(name)?;
        Ok(ClientEvent::all_of(name, told).collect())
    }

    /// The entries after our place in a group's channel.
    async fn page(&mut self, name: &GroupUri) -> Result<v1::FetchResponse, ClientError> {
        let after = self.group(name)?.position().seq;
        let page = self.page_after(name, after).await?;
        if page.entries.first().is_none_or(|first| first.seq <= after.next().0) {
            return Ok(page);
        }
        // Ours may be an epoch that was annulled; of another one with its number and our channel key, that reads from a later place on.
        Box::pin(self.page_once_more(name, after)).await
    }

    /// The entries after a place that we have seen.
    async fn page_after(&mut self, name: &GroupUri, after: Seq) -> Result<v1::FetchResponse, ClientError> {
        let request = v1::FetchRequest { after: after.0, limit: 0 };
        let session = self.session(name)?;
        let refused = match session.fetch(&request).await {
            Ok(page) => return Ok(page),
            Err(error) => error,
        };
        self.sessions.remove(name);
        if refused.code() != Some(Code::AccessRefused) {
            return Err(refused.into());
        }
        // The epoch that we are in may have been annulled: the newest one that stands lets us read of it.
        let mut before = self.group(name)?.epoch();
        while let Some((epoch, session)) = self.earlier_session(name, before)? {
            match session.fetch(&request).await {
                Err(error) if error.code() == Some(Code::AccessRefused) => before = epoch,
                Ok(page) => {
                    let group = self.group(name)?;
                    if page.entries.is_empty() && after == group.position().seq {
                        group.epoch_refused();
                    }
                    return Ok(page);
                }
                page => return Ok(page?),
            }
        }
        Err(refused.into())
    }

    /// Takes what a stream brought, in whatever order; then reads what is missing before it.
    pub(super) async fn process_stream(
        &mut self,
        name: &GroupUri,
        entries: Vec<v1::LoggedEntry>,
    ) -> Result<Vec<ClientEvent>, ClientError> {
        let mut events = Vec::new();
        let done = self.read_stream(name, entries, &mut events).await;
        self.told(done, events)
    }

    async fn read_stream(
        &mut self,
        name: &GroupUri,
        entries: Vec<v1::LoggedEntry>,
        events: &mut Vec<ClientEvent>,
    ) -> Result<(), ClientError> {
        let last = entries.last().map_or(Seq(0), |last| Seq(last.seq));
        // What is left of them is fetched.
        let batch = self.next_batch(name, &mut entries.into(), Source::Stream).await?;
        events.extend(self.take(name, &batch, Source::Stream)?);
        if last > self.group(name)?.position().seq {
            events.extend(self.sync_group(name).await?);
            events.extend(self.take(name, &[], Source::Stream)?);
        }
        events.extend(self.audit(name).await?);
        Ok(())
    }

    /// Processes a batch, and makes it durable.
    pub(super) fn take(
        &mut self,
        name: &GroupUri,
        batch: &[Incoming],
        source: Source,
    ) -> Result<Vec<ClientEvent>, ClientError> {
        self.group(name)?;
        let (now, mut failed) = (self.delivery.now(), None);
        // What was in a void epoch before the group was made anew is said again after.
        let lineage = match self.group(name)?.predecessor() {
            Some(_) => self.lineage(name)?,
            None => vec![name.clone()],
        };
        let lineage: Vec<_> = lineage.iter().map(ToString::to_string).collect();
        let store = &self.store;
        // Sent again after it had been in a void epoch, or replayed: it was told of before.
        let known = |id: &MessageId| {
            for (generation, group) in lineage.iter().enumerate() {
                match store.message_place(group, id.as_bytes()) {
                    Ok(Some((seq, epoch))) if generation == 0 => {
                        return Known::At { seq: Seq(seq), epoch: Epoch(epoch) };
                    }
                    Ok(Some(_)) => return Known::Before,
                    Ok(None) => {}
                    Err(error) => failed = Some(error),
                }
            }
            Known::No
        };
        let group = self.groups.get_mut(name).ok_or_else(|| ClientError::NoSuchGroup(name.clone()))?;
        let done = match source {
            Source::Fetched => group.process_with(batch, known),
            Source::Stream => group.take_in(batch, now, known),
        };
        if let Some(error) = failed {
            // As if nothing had come.
            self.groups.remove(name);
            return Err(error.into());
        }
        let mut events: Vec<_> = done.events.into_iter().map(|event| ClientEvent::of(name, event)).collect();
        let watched = self.watch_identities(name, &mut events);
        self.save(name)?;
        let done = watched.and(done.fault.map_or(Ok(()), |fault| Err(fault.into())));
        self.told(done, events)
    }

    /// Remembers the identity keys of new members, and tells of one that is another than before.
    fn watch_identities(&mut self, name: &GroupUri, events: &mut Vec<ClientEvent>) -> Result<(), ClientError> {
        let own = &self.account.client;
        let changed_members = events.iter().any(|happened| match &happened.event {
            Event::Added { .. } | Event::Joined { .. } => true,
            // Who came meanwhile, nobody has told us.
            Event::Rejoined { member, .. } => member == own,
            _ => false,
        });
        if !changed_members {
            return Ok(());
        }
        let mut changed: Vec<ClientEvent> = Vec::new();
        for member in self.group(name)?.members()? {
            match self.check_identity(&member.user, member.identity_key.as_bytes()) {
                Err(ClientError::IdentityChanged(user)) => {
                    // Once, however many devices the user has there.
                    let event = ClientEvent::of(name, Event::IdentityChanged { user });
                    if !changed.contains(&event) {
                        changed.push(event);
                    }
                }
                checked => checked?,
            }
        }
        self.note(&changed)?;
        events.extend(changed);
        Ok(())
    }
}
