//! Lies that the server stays with.

use conclave_channel::{Body, Entry, EntryKind};
use conclave_delivery::store::Tx;
use conclave_names::{ChannelId, Epoch, Seq};
use conclave_protocol::{Refusal, v1};

use super::{Fork, Log, Server, broken};
use crate::hostile::{Lie, WAYS_BACK};

/// A log that is made up for one client from a place on.
pub(super) struct View {
    /// The place, in the true log and in this one.
    base: Seq,
    /// The last entry of the true log that was looked at.
    seen: Seq,
    shown: Vec<v1::LoggedEntry>,
    /// What becomes of the next entry.
    next: Vec<Lie>,
}

impl View {
    fn new(base: Seq) -> Self {
        Self { base, seen: base, shown: Vec::new(), next: Vec::new() }
    }

    pub(super) fn next_true(&self) -> Seq {
        self.seen
    }

    fn show(&mut self, mut entry: v1::LoggedEntry) {
        entry.seq = self.base.0 + self.shown.len() as u64 + 1;
        self.shown.push(entry);
    }

    /// Takes the next entry of the true log.
    pub(super) fn take(&mut self, mut entry: v1::LoggedEntry) {
        self.seen = Seq(entry.seq);
        match self.next.pop() {
            Some(Lie::Omit) => return,
            Some(Lie::Flip) => {
                if let Some(last) = entry.entry.last_mut() {
                    *last ^= 1;
                }
            }
            Some(Lie::Shift) => entry.time_ms += 1,
            Some(Lie::Repeat) => {
                let copy = entry.clone();
                self.show(copy);
            }
            _ => {}
        }
        self.show(entry);
    }

    pub(super) fn page(&self, after: Seq, limit: u32) -> Vec<v1::LoggedEntry> {
        self.shown.iter().filter(|entry| entry.seq > after.0).take(limit as usize).cloned().collect()
    }
}

impl Server {
    /// Begins to lie to a client that stands at a place of a group's channel. Says whether that makes a difference.
    pub(crate) fn lie(&mut self, client: usize, channel: ChannelId, place: Seq, lie: Lie) -> Result<bool, Refusal> {
        if WAYS_BACK.contains(&lie) {
            return Ok(self.ways_back.entry(channel).or_default().insert(lie));
        }
        if lie == Lie::Gone {
            let head = self.log(&channel)?.0.head;
            // An entry that is there must be missing.
            let differs = place < head;
            if differs {
                self.kept.insert((client, channel), head.next());
            }
            return Ok(differs);
        }
        if lie == Lie::Stall {
            return Ok(self.stalled.insert((client, channel), place).is_none());
        }
        if lie != Lie::Fork {
            let view = self.views.entry((client, channel)).or_insert_with(|| View::new(place));
            view.next.push(lie);
            return Ok(true);
        }
        if let Some(fork) = self.forks.get_mut(&channel) {
            return Ok(fork.of.insert(client));
        }
        let log = Log::start(self.log.store.clone(), &self.domain, &self.authority, self.now)?;
        self.forks.insert(channel, Fork { log, of: [client].into() });
        Ok(true)
    }

    /// Whether it tells a lie about the way back into a group.
    pub(super) fn tells(&self, channel: &ChannelId, lie: Lie) -> bool {
        self.ways_back.get(channel).is_some_and(|lies| lies.contains(&lie))
    }

    /// Remembers the GroupInfo that came with a commit.
    pub(crate) fn keep_group_info(&mut self, channel: ChannelId, bundle: &v1::SubmitBundleRequest) {
        let Ok(entry) = Entry::parse(&bundle.entry) else { return };
        let began = entry.epoch.next();
        let (group_info, tree) = (bundle.group_info.clone(), bundle.tree.clone());
        let info =
            v1::ReadGroupInfoResponse { epoch: began.0, group_info, tree, ..v1::ReadGroupInfoResponse::default() };
        self.infos.entry(channel).or_default().push(info);
    }

    /// What it says instead of a GroupInfo.
    pub(super) fn make_up(&self, channel: &ChannelId, truth: v1::ReadGroupInfoResponse) -> v1::ReadGroupInfoResponse {
        let present = truth.epoch;
        let end =
            v1::ReadGroupInfoResponse { epoch: present, group_info: Vec::new(), tree: Vec::new(), ..truth.clone() };
        let old = || {
            let old = self.infos.get(channel)?.iter().rev().find(|info| info.epoch < present)?.clone();
            let v1::ReadGroupInfoResponse { epoch, group_info, tree, .. } = old;
            Some(v1::ReadGroupInfoResponse { epoch, group_info, tree, ..end.clone() })
        };
        if self.tells(channel, Lie::NoGroupInfo) {
            return end;
        }
        if self.tells(channel, Lie::OldGroupInfo) {
            return old().unwrap_or(truth);
        }
        if self.tells(channel, Lie::RenamedGroupInfo) {
            return old().map_or(truth, |old| v1::ReadGroupInfoResponse { epoch: present, ..old });
        }
        let mut told = truth;
        if self.tells(channel, Lie::BadGroupInfo) {
            let middle = told.group_info.len() / 2;
            told.group_info.get_mut(middle).into_iter().for_each(|byte| *byte ^= 1);
        }
        told
    }

    /// Whether a client is shown another log of a channel than the true one.
    pub(crate) fn shows_another_log(&self, client: usize, channel: &ChannelId) -> bool {
        self.views.contains_key(&(client, *channel))
            || self.forks.get(channel).is_some_and(|fork| fork.of.contains(&client))
    }

    /// There is one log of a channel again.
    pub(crate) fn unite(&mut self, channel: &ChannelId) -> bool {
        self.stalled.retain(|(_, of), _| of != channel);
        self.forks.remove(channel).is_some()
    }

    /// A client came to a group anew: it has no place in a log that was made up for it.
    pub(crate) fn forget_view(&mut self, client: usize, channel: &ChannelId) {
        self.views.remove(&(client, *channel));
    }

    /// There is one log of each channel again.
    pub(crate) fn end_forks(&mut self) {
        self.forks.clear();
        self.stalled.clear();
    }

    /// Keeps what an inbox was given.
    pub(crate) fn keep_welcome(&mut self, inbox: ChannelId, entry: &[u8]) {
        let kept = self.welcomes.entry(inbox).or_default();
        if !kept.iter().any(|old| old == entry) {
            kept.push(entry.to_vec());
        }
    }

    /// Delivers the Welcomes of an inbox once more, or changed. Says how many.
    pub(crate) fn post_again(&mut self, inbox: ChannelId, change: bool) -> Result<usize, Refusal> {
        let mut posts = self.welcomes.get(&inbox).cloned().unwrap_or_default();
        if change {
            for post in &mut posts {
                let at = post.len() / 2;
                post.get_mut(at).into_iter().for_each(|byte| *byte ^= 1);
            }
            let garbage = Entry::new(EntryKind::Welcome, Epoch(0), Body::Inline(vec![0x55; 300]));
            posts.push(garbage.to_bytes().map_err(broken)?);
        }
        let now = self.now;
        self.log.store.write(|tx| {
            for bytes in &posts {
                append(tx, inbox, bytes, now)?;
            }
            Ok(posts.len())
        })
    }
}

fn append(tx: &mut dyn Tx, inbox: ChannelId, bytes: &[u8], now: conclave_names::Timestamp) -> Result<(), Refusal> {
    let row = tx.channel(&inbox)?.ok_or_else(|| broken("no inbox"))?;
    let seq = row.head.next();
    let entry = conclave_delivery::store::EntryRow {
        channel: inbox,
        seq,
        kind: EntryKind::Welcome,
        epoch: Epoch(0),
        removes: false,
        time: row.time(now),
        bytes: bytes.to_vec(),
    };
    tx.append_entry(&entry)?;
    tx.put_channel(&conclave_delivery::store::ChannelRow { head: seq, ..row })?;
    Ok(())
}
