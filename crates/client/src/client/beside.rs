//! Groups that may be what has become of others, which this client could not follow.

use conclave_engine::{
    group::{Group, Status},
    writes::Write,
};
use conclave_names::GroupUri;

use super::{Client, ClientError, ClientEvent};

impl Client {
    /// If this group was put beside one that this client cannot follow, and is by now shown to be what has become of that: leaves that one
    /// for it.
    pub(super) async fn leave_what_is_beside(&mut self, name: &GroupUri) -> Result<Vec<ClientEvent>, ClientError> {
        let mut all = Vec::new();
        if self.is_over(name)? || !self.group(name)?.stands_beside() {
            return Ok(all);
        }
        let room = self.group(name)?.profile().room.clone();
        let stuck =
            self.groups()?.into_iter().filter(|of| matches!(of.status, Status::Stuck { .. }) && of.room == room);
        for old in stuck.map(|of| of.name).collect::<Vec<_>>() {
            // One that does not load is none to leave.
            if self.group(&old).is_err() {
                continue;
            }
            self.group(name)?;
            let (Some(mut left), Some(mut next)) = (self.groups.remove(&old), self.groups.remove(name)) else {
                continue;
            };
            if !left.is_continued_beside(&next) {
                self.groups.extend([(old, left), (name.clone(), next)]);
                continue;
            }
            let events = self.leave_group(&mut left, &mut next, Vec::new())?;
            self.groups.insert(name.clone(), next);
            self.blocked.remove(&old);
            all.extend(events);
            let done = Box::pin(self.begin_in(name, &mut all)).await;
            return self.told(done, all);
        }
        Ok(all)
    }

    /// Leaves a group for what it has become: what waits goes over. Both are stored, and what else belongs to it.
    pub(super) fn leave_group(
        &mut self,
        old: &mut Group,
        next: &mut Group,
        mut writes: Vec<Write>,
    ) -> Result<Vec<ClientEvent>, ClientError> {
        let mut told = Vec::new();
        old.continued_by(next, self.delivery.now(), &mut told);
        writes.extend(old.take_writes()?);
        writes.extend(next.take_writes()?);
        self.store.apply(&writes)?;
        self.sessions.remove(old.name());
        Ok(ClientEvent::all_of(old.name(), told).collect())
    }
}
