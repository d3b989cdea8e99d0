//! Catching up.

use conclave_channel::{Body, Entry, EntryKind};
use conclave_engine::{
    group::{Group, Incoming, KIND_MESSAGE, Known, Processed, Status},
    intent::Wish,
    invitation::{Invitation, InvitationError, JoinError},
    knock::Knocked,
    outcome::{Event, Outcome},
    writes::{Room, Rows as _, StoredMessage, Write},
};
use conclave_mls::content::{Content, MessageId};
use conclave_names::{Epoch, Seq, Timestamp};
use conclave_protocol::{Code, Refusal, v1::LoggedEntry};
use zeroize::Zeroizing;

use super::{Actor, Surroundings};
use crate::{
    hostile::Tamper,
    ledger::{Alarm, Deed},
    network::Stop,
    sabotage::Sabotage,
    server::{Opener, Session},
    witness::commits,
};

/// Where entries come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Fetched after our place: in order, without gaps.
    Fetched,
    /// A stream.
    Stream,
}

/// What is done after a part of a page.
pub(super) enum Next {
    /// The later part of the page.
    Later,
    /// The next page.
    Page,
    /// Nothing: no entry helps any more.
    Nothing,
}

/// Entries of a page: few, so that there are several.
pub(super) const PAGE: u32 = 5;

impl Actor {
    /// Catches up with everything and carries out what there is to do.
    pub(crate) fn sync(&mut self, around: &mut Surroundings) -> Result<(), Stop> {
        self.finish_rotation(around)?;
        self.take_waiting(around)?;
        self.read_inbox(around)?;
        for slot in 0..around.ledger.slots.len() {
            let read = self.read_group(around, slot);
            match read.and_then(|()| self.drive(around, slot)).and_then(|()| self.come_back(around, slot)) {
                Ok(()) => self.leave_what_is_beside(around, slot)?,
                Err(Stop::Alarmed) => {}
                Err(Stop::Refused(refusal)) => self.refused(around, slot, refusal)?,
                done => done?,
            }
        }
        self.refill(around)?;
        self.forget_old_keys(around)
    }

    /// A refusal of what is right is a lie, and nobody meets with it who lives in the true log.
    pub(crate) fn refused(&self, around: &mut Surroundings, slot: usize, refusal: Refusal) -> Result<(), Stop> {
        if !around.ledger.is_lied_to(self.index, slot) {
            return Err(Stop::Refused(refusal));
        }
        self.notice(around, slot, Alarm::Refusal, &format!("the service refuses: {}", refusal.code))
    }

    /// Takes up the invitations that could not be taken up when they came.
    fn take_waiting(&mut self, around: &mut Surroundings) -> Result<(), Stop> {
        for (key, entry) in self.disk.scan(Room::WAITING, b"").map_err(Stop::violation)? {
            match self.take_post(around, &entry) {
                Err(Stop::Alarmed) => continue,
                done => done?,
            }
            around.weather.moment()?;
            self.disk.apply([Write::Delete { room: Room::WAITING, key }]);
        }
        Ok(())
    }

    /// Reads the inbox: joins the groups that this client was added to.
    fn read_inbox(&mut self, around: &mut Surroundings) -> Result<(), Stop> {
        let mut again = true;
        loop {
            let (skew, owner) = (self.skew, &self.account.inbox);
            let opener = Opener::Owner(owner.id, owner.key.clone());
            let mut session = match self.inbox.take() {
                Some(session) => session,
                None => around.call(|server| server.open(skew, &opener))?,
            };
            let done = self.account.inbox.done;
            let page = around.call(|server| server.fetch(&mut session, done, PAGE));
            if matches!(&page, Err(Stop::Refused(refusal)) if refusal.code == Code::SessionUnknown) && again {
                again = false;
                continue;
            }
            self.inbox = Some(session.clone());
            let page = page?;
            let Some(last) = page.last().map(|entry| Seq(entry.seq)) else { return Ok(()) };
            for entry in &page {
                around.server.keep_welcome(self.account.inbox.id, &entry.entry);
                let mut writes = Vec::new();
                match self.take_post(around, &entry.entry) {
                    // It waits until the group's log is one, and others go past it.
                    Err(Stop::Alarmed) => {
                        let (key, value) = (entry.seq.to_be_bytes().to_vec(), Zeroizing::new(entry.entry.clone()));
                        writes.push(Write::Put { room: Room::WAITING, key, value });
                    }
                    done => done?,
                }
                self.account.inbox.done = Seq(entry.seq);
                writes.push(self.account.to_write());
                around.weather.moment()?;
                self.disk.apply(writes);
            }
            let trimmed = around.call(|server| server.trim(&mut session, last));
            self.inbox = Some(session);
            trimmed?;
        }
    }

    /// Takes an entry of the inbox.
    fn take_post(&mut self, around: &mut Surroundings, entry: &[u8]) -> Result<(), Stop> {
        if Knocked::is_one(entry) { self.take_knock(around, entry) } else { self.take_invitation(around, entry) }
    }

    /// Takes up an invitation, or drops it, as the client's shell does.
    fn take_invitation(&mut self, around: &mut Surroundings, entry: &[u8]) -> Result<(), Stop> {
        if self.sabotage == Sabotage::LoseInvitation {
            return Ok(());
        }
        let invitation = match Invitation::open(&self.account, &self.mls, entry) {
            Ok(invitation) => invitation,
            // We died after joining, before noting that this entry is done with.
            Err(InvitationError::NotForUs) => return Ok(()),
            // Whose it is cannot be told.
            Err(error) => return self.drop_invitation(around, None, &error.to_string()),
        };
        let Some(slot) = around.ledger.slot_of(invitation.name()) else {
            return Err(Stop::violation("an invitation to a group that nobody made"));
        };
        if self.sabotage != Sabotage::InboxFirst {
            // We may have been removed and added again, without having read of either: also from what a group goes on in, before
            // we went on.
            for earlier in self.others_of_room(slot, &invitation.profile().room) {
                self.read_group(around, earlier)?;
                self.go_on(around, earlier)?;
            }
            match self.read_group(around, slot) {
                Err(Stop::Refused(refusal)) => self.refused(around, slot, refusal)?,
                // The invitation may be what heals it.
                Err(Stop::Alarmed) if self.group(slot).is_some_and(Group::wants_rejoin) => {}
                done => done?,
            }
        }
        let back = self.group(slot).is_some_and(Group::wants_rejoin);
        let was_in = self.was_in(slot, &around.ledger);
        let mut tree = invitation.tree().map_err(Stop::violation)?;
        while let Some(name) = tree.wanted().pop() {
            if around.weather.tamper(|tamper| tamper == Tamper::NoBlob).is_some() {
                around.ledger.misdeed(Deed::Tampered(Tamper::NoBlob), slot, self.index, None);
                return self.drop_invitation(around, Some(slot), "the tree is gone");
            }
            let chunk = match around.call(|server| server.blob(&name)) {
                Err(Stop::Refused(refusal)) => return self.drop_invitation(around, Some(slot), refusal.code.as_str()),
                chunk => chunk?,
            };
            if let Err(error) = tree.give(&chunk) {
                return self.drop_invitation(around, Some(slot), &error.to_string());
            }
        }
        let (now, mut events) = (self.now(&around.server), Vec::new());
        match invitation.join(&self.account, &self.mls, &self.disk, &tree, now, &mut events) {
            Ok(group) => {
                around.ledger.tell(format!("    {} joins group {slot} in epoch {}", self.name(), group.epoch()));
                let absent = around.ledger.uninvited.remove(&(self.index, slot));
                around.ledger.forget_signatures_in(self.index, slot);
                around.server.forget_view(self.index, &group.profile().channel);
                self.put_group(slot, group);
                self.close_session(slot);
                let left = self.leave_for(around, slot, &events)?;
                if back || left {
                    around.ledger.recoveries.readmitted += 1;
                }
                if absent || !was_in {
                    around.ledger.absent.insert((self.index, slot));
                }
                // It may die as soon as it has joined.
                self.judge_log(around, slot)?;
                if back || absent || !was_in {
                    // Of a successor it may have been a member from the start, without having got into it.
                    around.ledger.missed.insert((self.index, slot));
                }
                self.save(around, slot)?;
                self.say_again(around, slot, &events);
                self.hear(around, slot, &events, &[])?;
                let had = self.had(around, slot);
                self.judge_place(around, slot, had)?;
            }
            // It waits.
            Err(JoinError::Undecided) if self.sabotage != Sabotage::InboxFirst => return Err(Stop::Alarmed),
            // A last resort's invitation is ours for ever: we died after joining by it.
            Err(JoinError::Member | JoinError::Old | JoinError::Undecided) => return Ok(()),
            Err(error) => return self.drop_invitation(around, Some(slot), &error.to_string()),
        }
        match self.read_group(around, slot) {
            Err(Stop::Refused(refusal)) => self.refused(around, slot, refusal),
            done => done,
        }
    }

    /// An invitation leads nowhere. If nobody is to blame, that is a violation.
    fn drop_invitation(&self, around: &mut Surroundings, slot: Option<usize>, why: &str) -> Result<(), Stop> {
        let slots = match slot {
            Some(slot) => [slot].into(),
            None => around.ledger.bad_invitations(self.index),
        };
        // Whose it is cannot be told: of a group that it is in, this client will read that it was removed and added again, if so it was.
        let certain = |of: usize| slot.is_some() || !self.is_active(of);
        let first = slots.first().copied().unwrap_or(0);
        self.notice(around, first, Alarm::Invitation, &format!("an invitation leads nowhere: {why}"))?;
        // It may have been made anew meanwhile.
        for slot in slots.into_iter().flat_map(|slot| around.ledger.line(slot)).collect::<Vec<_>>() {
            around.ledger.uninvited.insert((self.index, slot));
            if certain(slot) {
                around.ledger.absent.insert((self.index, slot));
                around.ledger.missed.insert((self.index, slot));
                around.ledger.back.remove(&(self.index, slot));
            }
        }
        Ok(())
    }

    /// Reads a group's channel to its end.
    pub(crate) fn read_group(&mut self, around: &mut Surroundings, slot: usize) -> Result<(), Stop> {
        self.found(around, slot)?;
        loop {
            let Some(group) = self.group(slot).filter(|group| *group.status() != Status::Removed || group.may_return())
            else {
                return Ok(());
            };
            let (after, unproven) = (group.position().seq, group.is_unproven());
            let page = match self.page(around, slot, after) {
                Err(Stop::Refused(refusal)) if refusal.code == Code::AccessRefused && unproven => {
                    return self.void_invitation(around, slot);
                }
                Err(Stop::Refused(refusal)) if refusal.code == Code::AccessRefused && self.has_left(slot) => {
                    return Ok(());
                }
                Err(Stop::Refused(refusal)) if refusal.code == Code::PositionGone => {
                    return self.position_gone(around, slot, &refusal);
                }
                // Who is locked out may be a stranger to the channel by now: only a member can help.
                Err(Stop::Refused(refusal))
                    if refusal.code == Code::AccessRefused && self.group(slot).is_some_and(Group::wants_rejoin) =>
                {
                    return Ok(());
                }
                // No key of ours opens the channel, and nothing has removed us.
                Err(Stop::Refused(refusal)) if refusal.code == Code::AccessRefused => {
                    return self.locked_out(around, slot);
                }
                page => page?,
            };
            if page.is_empty() {
                if let Some(caught_up) = self.caught_up.get_mut(slot) {
                    *caught_up = around.server.now;
                }
                let now = self.now(&around.server);
                if let Some(group) = self.groups.get_mut(slot).and_then(Option::as_mut) {
                    group.caught_up(now).map_err(Stop::violation)?;
                }
                self.tell_withheld(around, slot)?;
                self.save(around, slot)?;
                self.vet_group_info(around, slot)?;
                return self.audit(around, slot);
            }
            let processed = self.process(around, slot, page);
            if matches!(processed, Ok(_) | Err(Stop::Alarmed)) {
                self.audit(around, slot)?;
            }
            if self.group(slot).is_some_and(Group::wants_rejoin) || !processed? {
                return Ok(());
            }
        }
    }

    /// Tells what the server has signed for and does not show, and looks whether that is all.
    fn tell_withheld(&mut self, around: &mut Surroundings, slot: usize) -> Result<(), Stop> {
        let Some(group) = self.groups.get_mut(slot).and_then(Option::as_mut) else { return Ok(()) };
        let end = group.position().seq;
        let stays_behind = *group.status() != Status::Active || group.is_back_by_time();
        let told = if self.sabotage == Sabotage::Incurious { Vec::new() } else { group.withheld() };
        self.hear(around, slot, &told, &[])?;
        if stays_behind { Ok(()) } else { around.ledger.must_know_of_silence(self.index, slot, end) }
    }

    /// The service takes none of our keys. Where it follows the rules, that never is.
    fn locked_out(&mut self, around: &mut Surroundings, slot: usize) -> Result<(), Stop> {
        let Some(group) = self.groups.get_mut(slot).and_then(Option::as_mut) else { return Ok(()) };
        let mut events = Vec::new();
        group.locked_out(&mut events);
        self.hear(around, slot, &events, &[])?;
        self.save(around, slot)
    }

    /// The server no longer keeps what we would read next.
    fn position_gone(&mut self, around: &mut Surroundings, slot: usize, refusal: &Refusal) -> Result<(), Stop> {
        let Some(group) = self.groups.get_mut(slot).and_then(Option::as_mut) else { return Ok(()) };
        let mut events = Vec::new();
        group.position_gone(refusal.number("oldest").map(Seq), &mut events);
        self.hear(around, slot, &events, &[])?;
        self.save(around, slot)
    }

    pub(super) fn has_left(&self, slot: usize) -> bool {
        self.group(slot).is_some_and(|group| *group.status() == Status::Removed)
    }

    /// The entries after a place that we have seen.
    pub(super) fn page_after(
        &mut self,
        around: &mut Surroundings,
        slot: usize,
        after: Seq,
    ) -> Result<Vec<LoggedEntry>, Stop> {
        let mut page = match self.honest_page(around, slot, after) {
            Err(Stop::Refused(refusal)) if refusal.code == Code::SessionUnknown => {
                self.close_session(slot);
                self.honest_page(around, slot, after)
            }
            page => page,
        };
        if matches!(&page, Err(Stop::Refused(refusal)) if refusal.code == Code::AccessRefused) {
            self.close_session(slot);
            // The epoch that we are in may have been annulled: the newest one that stands lets us read of it.
            if let Some(mut session) = self.earlier_session(around, slot)? {
                page = around.call(|server| server.fetch(&mut session, after, PAGE));
                let group = self.groups.get_mut(slot).and_then(Option::as_mut);
                if let (Ok(page), Some(group)) = (&page, group)
                    && page.is_empty()
                    && after == group.position().seq
                {
                    group.epoch_refused();
                }
            }
        }
        page
    }

    /// A session of the newest epoch that the service takes a key of, before the one that we are in.
    pub(super) fn earlier_session(&self, around: &mut Surroundings, slot: usize) -> Result<Option<Session>, Stop> {
        let Some(group) = self.group(slot) else { return Ok(None) };
        let mut before = group.epoch();
        while let Some(access) = group.access_before(before).map_err(Stop::violation)? {
            before = access.epoch;
            let (skew, opener) = (self.skew, Opener::Member(access));
            match around.call(|server| server.open(skew, &opener)) {
                Err(Stop::Refused(refusal)) if refusal.code == Code::AccessRefused => {}
                session => return session.map(Some),
            }
        }
        Ok(None)
    }

    /// The entries after our place, as the service gives them out.
    fn page(&mut self, around: &mut Surroundings, slot: usize, after: Seq) -> Result<Vec<LoggedEntry>, Stop> {
        let mut page = self.page_after(around, slot, after)?;
        if page.first().is_some_and(|first| first.seq > after.next().0) {
            // Ours may be an epoch that was annulled; of another one with its number and our channel key, that reads from a later place on.
            page = self.page_once_more(around, slot, after)?;
        }
        // Who cannot follow does not look at what it is given, nor does who is coming back.
        let comes_back = |group: &Group| group.intents().any(|intent| intent.wish == Wish::Rejoin);
        let locked_out = self.group(slot).is_some_and(|group| group.wants_rejoin() || comes_back(group));
        let suits = |tamper: Tamper| {
            // Where nothing is left of a page, it is merely late.
            tamper.is_about_pages() && page.len() > 1 && after.0 > 0 && !locked_out
        };
        if let Some(tamper) = around.weather.tamper(suits) {
            match tamper {
                Tamper::Gap => drop(page.remove(0)),
                Tamper::Order => page.swap(0, 1),
                _ => {
                    let again = page.first().map(|first| LoggedEntry { seq: after.0, ..first.clone() });
                    page.splice(0..0, again);
                }
            }
            around.ledger.misdeed(Deed::Tampered(tamper), slot, self.index, None);
        }
        Ok(page)
    }

    fn honest_page(&mut self, around: &mut Surroundings, slot: usize, after: Seq) -> Result<Vec<LoggedEntry>, Stop> {
        let Some(epoch) = self.group(slot).map(Group::epoch) else { return Ok(Vec::new()) };
        let mut session = self.session(around, slot)?;
        let page = around.call(|server| server.fetch(&mut session, after, PAGE));
        self.keep_session(slot, epoch, session);
        page
    }

    /// Nobody lets us read: what invited us is void, or promised other channel keys than ours.
    fn void_invitation(&mut self, around: &mut Surroundings, slot: usize) -> Result<(), Stop> {
        let Some(group) = self.groups.get_mut(slot).and_then(Option::as_mut) else { return Ok(()) };
        let events = group.void_invitation();
        self.say_again(around, slot, &events);
        self.hear(around, slot, &events, &[])?;
        let actor = self.index;
        around.ledger.excuse(|said| said.actor == actor && said.slot == slot);
        self.save(around, slot)?;
        self.drop_invitation(around, Some(slot), "it was annulled")
    }

    /// Says whether to read on.
    fn process(&mut self, around: &mut Surroundings, slot: usize, page: Vec<LoggedEntry>) -> Result<bool, Stop> {
        let mut batch = self.with_blobs(around, slot, page)?;
        if self.sabotage == Sabotage::DropEntry && batch.len() > 1 {
            batch.remove(0);
        }
        // Of two commits that end one epoch the first was annulled between them. They are processed one after the other, so
        // that it is clear of which the engine speaks.
        let mut rest = batch.as_slice();
        while !rest.is_empty() {
            let mut epochs = std::collections::BTreeSet::new();
            let end = rest.iter().position(|incoming| {
                let commit = Entry::parse(&incoming.entry).ok().filter(|entry| entry.kind == EntryKind::Commit);
                commit.is_some_and(|commit| !epochs.insert(commit.epoch))
            });
            let (now, later) = rest.split_at(end.unwrap_or(rest.len()));
            match self.process_batch(around, slot, now, Source::Fetched)? {
                Next::Later => rest = later,
                Next::Page => break,
                Next::Nothing => return Ok(false),
            }
        }
        // What it asks for once more is not judged yet.
        if !self.group(slot).is_some_and(Group::wants_refetch) {
            around.ledger.taken(self.index, slot, true);
        }
        Ok(true)
    }

    /// Entries with the blobs that they name, but for those that are of our own making.
    pub(super) fn with_blobs(
        &self,
        around: &mut Surroundings,
        slot: usize,
        page: Vec<LoggedEntry>,
    ) -> Result<Vec<Incoming>, Stop> {
        let mut batch = Vec::with_capacity(page.len());
        for logged in page {
            let wanted = self.group(slot).is_none_or(|group| group.wants_blob(&logged.entry));
            let blob = match Entry::parse(&logged.entry).map(|entry| entry.body) {
                Ok(Body::Staged { hash, .. }) if wanted => match around.call(|server| server.blob(&hash)) {
                    Err(Stop::Refused(refusal)) if refusal.code == Code::BlobUnknown => None,
                    blob => Some(blob?),
                },
                _ => None,
            };
            batch.push(Incoming { seq: Seq(logged.seq), time: Timestamp(logged.time_ms), entry: logged.entry, blob });
        }
        Ok(batch)
    }

    /// The groups, by name, whose history goes on in this one.
    fn lineage(around: &Surroundings, slot: usize) -> Vec<String> {
        let line = around.ledger.line_to(slot);
        line.into_iter().filter_map(|slot| Some(around.ledger.slot(slot)?.group.to_string())).collect()
    }

    pub(super) fn process_batch(
        &mut self,
        around: &mut Surroundings,
        slot: usize,
        batch: &[Incoming],
        source: Source,
    ) -> Result<Next, Stop> {
        let (now, lineage) = (self.now(&around.server), Self::lineage(around, slot));
        let Some(group) = self.groups.get_mut(slot).and_then(Option::as_mut) else { return Ok(Next::Nothing) };
        let before = group.position();
        let disk = &self.disk;
        let known = |id: &MessageId| {
            let places = lineage.iter().enumerate();
            let mut found =
                places.filter_map(|(generation, group)| Some((generation, disk.place_of(group, id.as_bytes())?)));
            match found.next() {
                Some((0, (seq, epoch))) => Known::At { seq, epoch },
                Some(_) => Known::Before,
                None => Known::No,
            }
        };
        let done = match source {
            Source::Fetched => group.process_with(batch, known),
            Source::Stream => group.take_in(batch, now, known),
        };
        let after = group.position();
        let moved = after != before || group.wants_refetch();
        let whole = batch.last().is_some_and(|last| last.seq == after.seq);
        // What waited was read with what came now.
        let early = self.early.entry(slot).or_default();
        let mut come = early.clone();
        come.extend(batch.iter().map(|incoming| (incoming.seq, incoming.clone())));
        let waits = |seq: &Seq| done.outcomes.iter().any(|(of, outcome)| of == seq && *outcome == Outcome::Buffered);
        early.extend(come.iter().filter(|(seq, _)| waits(seq)).map(|(seq, incoming)| (*seq, incoming.clone())));
        early.retain(|seq, _| *seq > after.seq);
        let tried = |seq: &Seq| *seq > before.seq && done.outcomes.iter().any(|(of, _)| of == seq) && !waits(seq);
        let batch: Vec<_> = come.into_iter().filter(|(seq, _)| tried(seq)).map(|(_, incoming)| incoming).collect();
        let batch = batch.as_slice();
        // Who joins by a commit, or cannot follow one before it, cannot judge it.
        let judges = |outcome: &Outcome| {
            !matches!(outcome, Outcome::Stale | Outcome::Duplicate | Outcome::Unfollowed | Outcome::Buffered)
        };
        let judged = done.outcomes.iter().filter(|(_, outcome)| judges(outcome)).map(|(seq, _)| *seq);
        around.ledger.reads(self.index, slot, judged);
        self.weigh(around, slot, batch, &done)?;
        let read: Vec<_> = batch.iter().filter(|incoming| incoming.seq <= after.seq).cloned().collect();
        self.remember(slot, &read);
        self.say_again(around, slot, &done.events);
        let mut told = done.events.clone();
        if self.sabotage == Sabotage::Scramble {
            told.sort_by_key(|event| match event {
                Event::Message { sender, .. } => sender.to_string(),
                _ => String::new(),
            });
        }
        if self.sabotage == Sabotage::Trusting {
            told.retain(|event| !matches!(event, Event::LogsDiffer { .. } | Event::ReceiptBroken { .. }));
        }
        self.hear(around, slot, &told, batch)?;
        if self.has_left(slot) {
            // It stands in the channel, whether or not we live to store it.
            around.ledger.tell(format!("    {} reads that it was removed from group {slot}", self.name()));
            let actor = self.index;
            around.ledger.excuse(|said| said.actor == actor && said.slot == slot);
        }
        self.save(around, slot)?;
        if let Some(fault) = done.fault {
            self.notice(around, slot, Alarm::Fault, &fault.to_string())?;
            return Err(Stop::Alarmed);
        }
        if source == Source::Stream {
            return Ok(Next::Page);
        }
        let annulled = done.events.contains(&Event::InvitationAnnulled {});
        if annulled && !moved {
            // Another commit than the one that invited us began the epoch in which our key reads.
            self.drop_invitation(around, Some(slot), "it was annulled before it was taken up")?;
            return Ok(Next::Nothing);
        }
        let behind = around.ledger.is_victim(self.index, slot) || self.group(slot).is_some_and(Group::wants_rejoin);
        if !moved && behind {
            // What follows is not for who is in the wrong log.
            return Ok(Next::Nothing);
        }
        if !moved {
            return Err(Stop::violation(format!("{} does not get on: {:?}", self.client, done.outcomes)));
        }
        Ok(if whole { Next::Later } else { Next::Page })
    }

    /// Nobody takes noise for what it is not; and some messages say nothing.
    fn weigh(&self, around: &mut Surroundings, slot: usize, batch: &[Incoming], done: &Processed) -> Result<(), Stop> {
        if around.ledger.is_victim(self.index, slot) {
            return Ok(());
        }
        for incoming in batch {
            let Some((seq, outcome)) = done.outcomes.iter().find(|(seq, _)| *seq == incoming.seq) else { continue };
            let read = matches!(outcome, Outcome::Applied | Outcome::Confirmed);
            let is = |kind| Entry::parse(&incoming.entry).is_ok_and(|entry| entry.kind == kind);
            if read && is(EntryKind::Successor) {
                around.ledger.choose(slot, *seq)?;
            }
            if read && around.ledger.is_noise(slot, *seq) {
                return Err(Stop::violation(format!("{} takes noise for what it is not: entry {seq}", self.name())));
            }
            let told = done.events.iter().any(|event| match event {
                // What was said again under its name is there already.
                Event::Message { seq: of, id, .. } => of == seq && !self.disk.has_message(id.as_bytes(), *seq),
                _ => false,
            });
            let read = read || *outcome == Outcome::Duplicate;
            if read && is(EntryKind::Message) && !told {
                around.ledger.silent.insert((slot, *seq));
            }
            // What was ordered after its sender had changed its key is read by nobody, and said again.
            if *outcome == Outcome::Stale && around.ledger.is_overtaken_by_rotation(self.index, &incoming.entry) {
                around.ledger.say_once_more(slot, *seq);
            }
        }
        Ok(())
    }

    /// Notes what we said in epochs that were annulled: the engine says it again, or tells why not.
    pub(super) fn say_again(&mut self, around: &mut Surroundings, slot: usize, events: &[Event]) {
        for event in events {
            match event {
                Event::Annulled { commit, epoch } => self.say_again_after(around, slot, *commit, *epoch),
                // All that we did since we joined is void.
                Event::InvitationAnnulled {} => {
                    let joined = around.ledger.back.get(&(self.index, slot)).copied();
                    let before = joined.map_or(Epoch(0), |joined| Epoch(joined.0.saturating_sub(1)));
                    self.say_again_after(around, slot, Seq(0), before);
                }
                _ => {}
            }
        }
    }

    fn say_again_after(&mut self, around: &mut Surroundings, slot: usize, commit: Seq, epoch: Epoch) {
        let Some(known) = around.ledger.slot(slot) else { return };
        let own = self.client.to_string();
        let ours = |stored: &&StoredMessage| {
            stored.kind == KIND_MESSAGE && stored.sender == own && stored.seq > commit.0 && stored.epoch > epoch.0
        };
        let mut stored: Vec<_> = self.disk.messages(&known.group.to_string()).filter(ours).cloned().collect();
        let Some(group) = self.groups.get_mut(slot).and_then(Option::as_mut) else { return };
        // What was read with the entry that annuls it is not on the disk yet.
        stored.extend(group.unsaved_messages().filter(ours).cloned());
        for stored in stored {
            let text = Content::parse(&stored.body).ok().and_then(|content| content.as_text()).unwrap_or_default();
            match self.sabotage {
                Sabotage::SayAnew => drop(group.wish_text(&text)),
                Sabotage::SayToReturned => {
                    drop(group.wish(Wish::Send { content: stored.body, id: MessageId::new(stored.id) }));
                }
                _ => {}
            }
            around.ledger.said_again(&text);
        }
    }

    /// Passes on what the engine tells, and excuses what it says has failed.
    pub(super) fn hear(
        &mut self,
        around: &mut Surroundings,
        slot: usize,
        events: &[Event],
        batch: &[Incoming],
    ) -> Result<(), Stop> {
        let hides = |event: &Event| self.sabotage == Sabotage::HideGap && matches!(event, Event::Missed { .. });
        let told: Vec<_> = events.iter().filter(|event| !hides(event)).cloned().collect();
        around.ledger.hear(self.index, slot, &told, &commits(batch))?;
        if events.iter().any(|event| matches!(event, Event::Missed { .. })) {
            self.lately.remove(&slot);
            around.ledger.forget_signatures_in(self.index, slot);
            around.ledger.missed.insert((self.index, slot));
            around.ledger.back.remove(&(self.index, slot));
        }
        for event in events {
            if let Event::IntentFailed { intent, reason } = event {
                let actor = self.index;
                // What is said again has another intent, and the same name.
                around.ledger.excuse(|said| {
                    said.actor == actor
                        && said.slot == slot
                        && (said.intent == *intent || reason.contains(&said.id.to_string()))
                });
            }
        }
        Ok(())
    }
}
