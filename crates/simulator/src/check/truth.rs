//! What a group's log comes to, by the law alone.

use std::collections::{BTreeMap, BTreeSet};

use conclave_channel::{
    Entry, EntryKind, chain,
    law::{Change as Decision, Ledger as Law},
};
use conclave_delivery::store::EntryRow;
use conclave_names::{ClientUri, Epoch, Hash, Seq, Timestamp};

use crate::{
    ledger::{Change, Ledger, Slot},
    network::Stop,
};

/// A commit in the log.
#[derive(Debug, Clone, Copy)]
struct Commit {
    seq: Seq,
    /// The epoch that it began.
    began: Epoch,
    /// The commit that began the epoch before, by its place in the list.
    parent: Option<usize>,
}

/// The log with what was decided about its commits.
pub(super) struct Truth {
    /// The epoch that the log begins in.
    first: Epoch,
    commits: Vec<Commit>,
    /// The commit that began the epoch that the group is in.
    tip: Option<usize>,
    /// Of each message, the commit that began its epoch.
    epochs: BTreeMap<Seq, Option<usize>>,
    /// Entries that count for nothing, because their epoch was annulled.
    pub(super) void: BTreeSet<Seq>,
}

impl Truth {
    pub(super) fn of(slot: &Slot, entries: &[EntryRow], now: Timestamp) -> Result<Self, Stop> {
        let members = u32::try_from(slot.founders.len()).map_err(Stop::violation)?;
        let mut law = Law::new(slot.epoch, slot.key_root, members).with_pause(slot.pause);
        let mut truth =
            Self { first: slot.epoch, commits: Vec::new(), tip: None, epochs: BTreeMap::new(), void: BTreeSet::new() };
        for row in entries {
            let entry = Entry::parse(&row.bytes).map_err(Stop::violation)?;
            for decision in law.advance(row.time) {
                truth.decide(&decision);
            }
            law.admit(&slot.channel, row.seq, row.time, &entry, chain::entry_hash(&row.bytes))
                .map_err(|refused| Stop::violation(format!("the service took entry {}: {refused}", row.seq)))?;
            truth.take(&entry, row.seq);
        }
        for decision in law.advance(now) {
            truth.decide(&decision);
        }
        // Nobody reads what comes after the entry that names the successor.
        if let Some(chosen) = slot.chosen {
            let late = entries.iter().filter(|row| row.seq > chosen && row.kind == EntryKind::Message);
            truth.void.extend(late.map(|row| row.seq));
        }
        if law.epoch() != truth.epoch() {
            return Err(Stop::violation("the simulation is broken: two opinions of the law"));
        }
        Ok(truth)
    }

    fn decide(&mut self, decision: &Decision) {
        let Decision::Annulled { commits, epoch } = decision else { return };
        self.void.extend(commits);
        self.tip = self.ancestor(self.tip, *epoch);
        let void: Vec<_> = self
            .epochs
            .iter()
            .filter(|(_, of)| {
                of.and_then(|of| self.commits.get(of)).is_some_and(|commit| self.void.contains(&commit.seq))
            })
            .map(|(seq, _)| *seq)
            .collect();
        self.void.extend(void);
    }

    fn take(&mut self, entry: &Entry, seq: Seq) {
        if entry.kind == EntryKind::Commit {
            self.commits.push(Commit { seq, began: entry.epoch.next(), parent: self.tip });
            self.tip = self.commits.len().checked_sub(1);
        } else if !entry.kind.is_verdict() {
            let began = self.ancestor(self.tip, entry.epoch);
            self.epochs.insert(seq, began);
        }
    }

    /// The commit on the way to `from` that began an epoch; none for the first.
    fn ancestor(&self, mut from: Option<usize>, epoch: Epoch) -> Option<usize> {
        while let Some(commit) = from.and_then(|from| self.commits.get(from)) {
            if commit.began <= epoch {
                break;
            }
            from = commit.parent;
        }
        from
    }

    /// The epoch that the group is in.
    pub(super) fn epoch(&self) -> Epoch {
        self.tip.and_then(|tip| self.commits.get(tip)).map_or(self.first, |commit| commit.began)
    }

    /// All commits.
    pub(super) fn commits(&self) -> impl Iterator<Item = Seq> {
        self.commits.iter().map(|commit| commit.seq)
    }

    /// The members before a commit and after it, each if known.
    #[allow(clippy::type_complexity)]
    pub(super) fn around(
        &self,
        ledger: &Ledger,
        slot: usize,
        commit: Seq,
    ) -> Result<(Option<BTreeSet<ClientUri>>, Option<BTreeSet<ClientUri>>), Stop> {
        let at = self.commits.iter().position(|of| of.seq == commit);
        let parent = at.and_then(|at| self.commits.get(at)).and_then(|commit| commit.parent);
        Ok((self.members_after(ledger, slot, parent)?, self.members_after(ledger, slot, at)?))
    }

    /// Commits that are void.
    pub(super) fn void_commits(&self) -> impl Iterator<Item = Seq> {
        self.commits.iter().map(|commit| commit.seq).filter(|seq| self.void.contains(seq))
    }

    /// Members of the epoch that the group is in; none if only such clients know of all changes to which the server
    /// lied.
    pub(super) fn members(&self, ledger: &Ledger, slot: usize) -> Result<Option<BTreeSet<ClientUri>>, Stop> {
        self.members_after(ledger, slot, self.tip)
    }

    /// Who may read a message: the members of its epoch, without those whom a commit before it removed. None if that is
    /// not known: of a void one, or where only such clients know of all changes to which the server lied.
    pub(super) fn readers(
        &self,
        ledger: &Ledger,
        slot: usize,
        message: Seq,
    ) -> Result<Option<BTreeSet<ClientUri>>, Stop> {
        if self.void.contains(&message) {
            return Ok(None);
        }
        let of = self.epochs.get(&message).copied().flatten();
        let Some(mut readers) = self.members_after(ledger, slot, of)? else { return Ok(None) };
        // A message may come after the commit that ended its epoch.
        let next = self
            .commits
            .iter()
            .find(|commit| commit.parent == of && commit.seq < message && (!self.void.contains(&commit.seq)));
        if let Some(change) = next.and_then(|next| ledger.changes.get(&(slot, next.seq))) {
            readers.retain(|reader| !change.removed.contains(reader));
        }
        Ok(Some(readers))
    }

    fn members_after(
        &self,
        ledger: &Ledger,
        slot: usize,
        mut commit: Option<usize>,
    ) -> Result<Option<BTreeSet<ClientUri>>, Stop> {
        let founders = ledger.slot(slot).map(|slot| slot.founders.clone());
        let mut changes: Vec<&Change> = Vec::new();
        while let Some(at) = commit.and_then(|commit| self.commits.get(commit)) {
            match ledger.changes.get(&(slot, at.seq)) {
                Some(change) => changes.push(change),
                // What came after a commit that nobody can apply, only its author can say.
                None if self.void.contains(&at.seq)
                    || ledger.has_victims(slot)
                    || ledger.hides_entries(slot)
                    || ledger.is_bad_commit(slot, at.seq)
                    || ledger.is_partial_commit(slot, at.seq) =>
                {
                    return Ok(None);
                }
                None => return Err(Stop::violation(format!("nobody knows what commit {} does", at.seq))),
            }
            commit = at.parent;
        }
        let mut members = founders.unwrap_or_default();
        for change in changes.into_iter().rev() {
            members.retain(|member| !change.removed.contains(member));
            members.extend(change.added.iter().cloned());
        }
        Ok(Some(members))
    }
}

/// The service's running hash is the one of its entries.
pub(super) fn chain_recomputes(slot: &Slot, entries: &[EntryRow], head: Seq, head_hash: &Hash) -> Result<(), Stop> {
    let mut hash = chain::start(&slot.channel);
    let (mut seq, mut time) = (Seq(0), None);
    for entry in entries {
        seq = seq.next();
        if entry.seq != seq || time.is_some_and(|time| entry.time < time) {
            return Err(Stop::violation("the service's log has a gap, or its time runs backwards"));
        }
        time = Some(entry.time);
        hash = chain::next(&hash, seq, entry.kind, entry.time, &chain::entry_hash(&entry.bytes));
    }
    if head != seq || hash != *head_hash {
        return Err(Stop::violation("the service's running hash is not that of its entries"));
    }
    Ok(())
}
