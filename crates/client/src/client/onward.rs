//! Going on without members that a frozen group waits for in vain: its user's decision, a week after it was frozen.

use conclave_engine::{
    group::{Group, GroupSummary, INVITED_MS, Status},
    intent::Wish,
    writes::{Room, Write},
};
use conclave_names::{ClientUri, GroupUri};
use serde::Serialize;

use super::{Client, ClientError, ClientEvent};

/// Prefix of the rows in [`Room::ACCOUNT`] that name the group which was begun to go on in, one for each frozen group.
const BEGUN: &[u8] = b"onward/";

fn key(group: &GroupUri) -> Vec<u8> {
    [BEGUN, group.to_string().as_bytes()].concat()
}

/// Where a group goes on, and without whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GoneOn {
    /// The group: as before, if that cannot be read yet.
    pub group: GroupUri,
    /// Members whose KeyPackages were not to be had, and why; none if all were: then it is the successor that was announced.
    pub without: Vec<String>,
}

impl Client {
    /// Has a group that was frozen a week ago and waits for members in vain go on without them: those whose KeyPackages are to be had get an
    /// ordinary new group of the same room. If all are to be had, it goes on as announced. Who is left out can be added later.
    ///
    /// # Errors
    /// [`ClientError::Dropped`] if the group is not frozen, or not for a week. A transient error means that it is carried on by the next
    /// sync.
    pub async fn go_on_without(&mut self, group: &GroupUri) -> Result<GoneOn, ClientError> {
        let group = self.current(group)?;
        let mut events = self.sync_group(&group).await?;
        let gone_on = self.go_on(&group).await;
        events = self.joined(events, gone_on)?;
        let done = self.choose_onward(&group, &mut events).await;
        // Its user asked for what happens: the events are in the history, and given out by the next call.
        let untold = events;
        self.untold.extend(untold);
        let without = done?;
        Ok(GoneOn { group: self.current(&group)?, without })
    }

    async fn choose_onward(
        &mut self,
        group: &GroupUri,
        events: &mut Vec<ClientEvent>,
    ) -> Result<Vec<String>, ClientError> {
        if self.current(group)? != *group {
            return Ok(Vec::new());
        }
        let now = self.delivery.now();
        if !self.group(group)?.is_frozen() {
            return Err(ClientError::Dropped("the group is not frozen: it goes on as it is".to_owned()));
        }
        if self.group(group)?.onward_from().is_none_or(|from| from > now) {
            let reason = "the group has not been frozen for a week: until then, it waits for all its members";
            return Err(ClientError::Dropped(reason.to_owned()));
        }
        let (suite, clients) = self.group(group)?.successor_needs()?;
        let (packages, absent) = Box::pin(self.packages_to_be_had(group, &clients, suite)).await?;
        if absent.is_empty() {
            // It can be made as it was announced.
            self.unable_to_go_on.remove(group);
            events.extend(Box::pin(self.go_on(group)).await?);
            return Ok(Vec::new());
        }
        let key_packages = packages.into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>();
        let adds = |group: &Group| group.intents().any(|intent| matches!(intent.wish, Wish::Add { .. }));
        match self.begun(group)? {
            Some(next) if !key_packages.is_empty() && !adds(self.group(&next)?) => {
                self.group(&next)?.wish(Wish::Add { key_packages })?;
                self.save(&next)?;
            }
            Some(_) => {}
            None => self.begin_onward(group, key_packages).await?,
        }
        events.extend(Box::pin(self.carry_on(group)).await?);
        Ok(absent.into_iter().map(|(_, reason)| reason).collect())
    }

    /// The group that was begun to go on in, if it is there.
    fn begun(&self, group: &GroupUri) -> Result<Option<GroupUri>, ClientError> {
        let Some(row) = self.store.get(Room::ACCOUNT, &key(group))? else { return Ok(None) };
        let name: Option<GroupUri> = std::str::from_utf8(&row).ok().and_then(|name| name.parse().ok());
        let there = |of: &GroupSummary| Some(&of.name) == name.as_ref() && of.status == Status::Active;
        Ok(if self.groups()?.iter().any(there) { name } else { None })
    }

    async fn begin_onward(&mut self, group: &GroupUri, key_packages: Vec<Vec<u8>>) -> Result<(), ClientError> {
        let now = self.delivery.now();
        let mut next = self.group(group)?.begin_onward(now)?;
        self.make_channel(&next).await?;
        if !key_packages.is_empty() {
            next.wish(Wish::Add { key_packages })?;
        }
        let name = next.name().clone();
        // In one transaction with who is to be added: where that was lost, it would be carried on without anybody.
        let mut writes = next.take_writes()?;
        let value = name.to_string().into_bytes().into();
        writes.push(Write::Put { room: Room::ACCOUNT, key: key(group), value });
        self.store.apply(&writes)?;
        self.groups.insert(name, next);
        Ok(())
    }

    /// Carries on what was begun: whoever is to be added is, and then that is said in the frozen group.
    pub(super) async fn carry_on(&mut self, group: &GroupUri) -> Result<Vec<ClientEvent>, ClientError> {
        let Some(next) = self.begun(group)? else { return Ok(Vec::new()) };
        let now = self.delivery.now();
        let mut events = self.sync_group(&next).await?;
        let driven = Box::pin(self.drive(&next, None)).await;
        events = self.joined(events, driven)?;
        let under_way = self.group(&next)?.intents().any(|intent| matches!(intent.wish, Wish::Add { .. }));
        let said = self.group(group)?.intents().any(|intent| intent.wish == Wish::Succeed);
        if under_way || said || self.group(group)?.onward_from().is_none_or(|from| from > now) {
            return Ok(events);
        }
        let alone = self.group(&next)?.members()?.len() == 1;
        if alone && !self.forget_kept(group)?.is_empty() {
            // Whoever was to be had could not be added, which was told: it would leave everybody behind. Who decides again tries again.
            return Ok(events);
        }
        let Some(next) = self.groups.remove(&next) else { return Ok(events) };
        let wished = self.group(group).and_then(|group| Ok(group.go_on_in(&next, now)?));
        self.groups.insert(next.name().clone(), next);
        match wished {
            Ok(_) => {
                self.save(group)?;
                let driven = Box::pin(self.drive(group, None)).await;
                self.joined(events, driven)
            }
            Err(error) => Err(self.keep(events, error)),
        }
    }

    /// Leaves a frozen group for the one in which members go on, once this client is there; or ends it, if they go on without this client.
    pub(super) async fn go_over(&mut self, name: &GroupUri) -> Result<Vec<ClientEvent>, ClientError> {
        let now = self.delivery.now();
        let Some(onward) = self.group(name)?.onward() else { return Ok(Vec::new()) };
        let here = self.groups()?.into_iter().find(|group| group.name == onward.group).map(|group| group.status);
        let mut told = Vec::new();
        match here {
            Some(Status::Active | Status::Stuck { .. }) => {}
            None if !onward.without_us => {
                if onward.since.plus_ms(INVITED_MS) <= now {
                    let told = self.group(name)?.left_out("no invitation to it has come");
                    self.save(name)?;
                    return Ok(ClientEvent::all_of(name, told).collect());
                }
                // The invitation is on its way.
                return Ok(Vec::new());
            }
            Some(Status::Removed) | None => {
                self.group(name)?.left_behind(now, &mut told);
                self.save(name)?;
                self.forget_begun(name)?;
                return Ok(ClientEvent::all_of(name, told).collect());
            }
        }
        self.group(&onward.group)?;
        self.group(name)?;
        let (Some(mut old), Some(mut next)) = (self.groups.remove(name), self.groups.remove(&onward.group)) else {
            return Ok(Vec::new());
        };
        old.go_over(&mut next, now, &mut told);
        let mut writes = old.take_writes()?;
        writes.extend(next.take_writes()?);
        writes.push(Write::Delete { room: Room::ACCOUNT, key: key(name) });
        writes.extend(self.forget_kept(name)?);
        self.store.apply(&writes)?;
        self.sessions.remove(name);
        self.unable_to_go_on.remove(name);
        self.groups.insert(onward.group.clone(), next);
        let mut all: Vec<_> = ClientEvent::all_of(name, told).collect();
        let done = self.begin_in(&onward.group, &mut all).await;
        self.told(done, all)
    }

    /// After this client has joined a group: leaves the frozen one that goes on in it, if that was said.
    pub(super) async fn go_over_to(&mut self, next: &GroupUri) -> Result<Vec<ClientEvent>, ClientError> {
        let goes_on = |group: &&Group| group.onward().is_some_and(|onward| onward.group == *next);
        let frozen = self.groups.values().find(goes_on).map(|group| group.name().clone());
        match frozen {
            Some(frozen) => Box::pin(self.go_over(&frozen)).await,
            None => Ok(Vec::new()),
        }
    }

    fn forget_begun(&mut self, group: &GroupUri) -> Result<(), ClientError> {
        let mut writes = self.forget_kept(group)?;
        writes.push(Write::Delete { room: Room::ACCOUNT, key: key(group) });
        Ok(self.store.apply(&writes)?)
    }

    /// What people are told of a frozen group that waits for somebody.
    pub(super) fn waiting(&mut self, name: &GroupUri, error: &ClientError) -> Result<String, ClientError> {
        let now = self.delivery.now();
        let group = self.group(name)?;
        let waits = group.intents().filter(|intent| intent.wish != Wish::Succeed).count();
        let over = group.onward_from().is_some_and(|from| from <= now);
        let mut reason = error.to_string();
        reason.push_str(match (over, matches!(error, ClientError::CannotAdd { .. })) {
            (_, false) => "",
            (false, true) => {
                "; nobody can be removed from a frozen group, but a week after it was frozen you can go on without who is not to be had"
            }
            (true, true) => "; the group has been frozen for a week: `conclave group go-on` goes on without who is not to be had",
        });
        if waits > 0 {
            reason.push_str(&format!("; what you said and changed since waits for that ({waits})"));
        }
        Ok(reason)
    }
}

/// Clients, and why none of their KeyPackages is to be had.
pub(super) type Absent = Vec<(ClientUri, String)>;
