//! Looking again at what the service has, and at what it has for others.

use conclave_engine::group::{Group, Incoming};
use conclave_names::{Epoch, Seq, Timestamp};
use conclave_protocol::v1::LoggedEntry;

use super::{Actor, Surroundings, read::PAGE};
use crate::{network::Stop, sabotage::Sabotage, server::Opener};

impl Actor {
    /// Reads the log once more, if somebody seems to be in another branch of the group.
    pub(super) fn audit(&mut self, around: &mut Surroundings, slot: usize) -> Result<(), Stop> {
        let mut events = Vec::new();
        while let Some(after) = self.group(slot).and_then(Group::wants_audit) {
            let page = match self.page_once_more(around, slot, after) {
                Err(Stop::Refused(_)) => None,
                page => Some(page?),
            };
            let Some(group) = self.groups.get_mut(slot).and_then(Option::as_mut) else { break };
            let Some(page) = page.filter(|_| self.sabotage != Sabotage::KeepBranch) else {
                group.end_audit();
                break;
            };
            let entry = |logged: LoggedEntry| {
                let (seq, time) = (Seq(logged.seq), Timestamp(logged.time_ms));
                Incoming { seq, time, entry: logged.entry, blob: None }
            };
            let batch: Vec<_> = page.into_iter().map(entry).collect();
            if let Err(error) = group.audit(&batch, &mut events) {
                around.ledger.tell(format!("    {} cannot read the log once more: {error}", self.name()));
            }
        }
        if events.is_empty() {
            return Ok(());
        }
        self.hear(around, slot, &events, &[])?;
        self.save(around, slot)
    }

    /// Entries after a place that we have seen long ago: by the oldest key that reads there.
    pub(super) fn page_once_more(
        &mut self,
        around: &mut Surroundings,
        slot: usize,
        after: Seq,
    ) -> Result<Vec<LoggedEntry>, Stop> {
        let skew = self.skew;
        let accesses = self.group(slot).map(Group::accesses).transpose().map_err(Stop::violation)?;
        let mut earliest: Option<Vec<LoggedEntry>> = None;
        let first = |page: &[LoggedEntry]| page.first().map_or(u64::MAX, |first| first.seq);
        for access in accesses.unwrap_or_default() {
            let opened = around.call(|server| server.open(skew, &Opener::Member(access)));
            let page = opened.and_then(|mut session| around.call(|server| server.fetch(&mut session, after, PAGE)));
            match page {
                Ok(page) if first(&page) == after.next().0 => return Ok(page),
                Ok(page) if first(&page) < first(earliest.as_deref().unwrap_or_default()) => earliest = Some(page),
                Ok(_) | Err(Stop::Refused(_)) => {}
                failed => return failed,
            }
        }
        earliest.map_or_else(|| self.page_after(around, slot, after), Ok)
    }

    /// Looks at what the newest commit left for who comes back, where that falls to this client.
    pub(super) fn vet_group_info(&mut self, around: &mut Surroundings, slot: usize) -> Result<(), Stop> {
        if !self.group(slot).is_some_and(Group::wants_group_info) {
            return Ok(());
        }
        let served =
            self.session(around, slot).and_then(|mut session| around.call(|server| server.group_info(&mut session)));
        // Its counter moves on, whether or not the reply comes.
        self.close_session(slot);
        let served = match served {
            // Where it is not to be had, the next one is looked at.
            Err(Stop::Refused(_)) => return Ok(()),
            served => served?,
        };
        let (now, mut events) = (self.now(&around.server), Vec::new());
        let Some(group) = self.active(slot) else { return Ok(()) };
        let vetted = group.vet_group_info(Epoch(served.epoch), &served.group_info, now, &mut events);
        vetted.map_err(Stop::violation)?;
        self.hear(around, slot, &events, &[])?;
        self.save(around, slot)
    }
}
