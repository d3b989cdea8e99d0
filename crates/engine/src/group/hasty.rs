//! What time alone has decided, until the log shows it.
//!
//! The law tells of annulments, and of commits that stand because nobody disputed them in a week, by the time of the next entry
//! (`conclave_channel::law`). Where none comes, a member carries them out by its own clock (`standing`). But that may be ahead of the DS's;
//! or the DS held back what members had said in time. So the ledger as the log alone has made it is kept until the next entry. If the law
//! decides the same by that one's time, all is well. Else it is the log that counts: what was annulled may yet stand. This member has
//! gone back from it and has forgotten its epochs, so it is where members are that could not apply the commit: if that is annulled after
//! all, it goes on; if another member acknowledges it, it comes back from outside. What it has said in the epochs that stand is said
//! again under the same names, which everybody who has read it passes over.

use conclave_channel::law::{Change, Ledger, OpenCommit};
use conclave_names::{Epoch, Hash, Seq, Timestamp};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};

use super::{
    Group, Status,
    again::Annulment,
    misled::{Ways, WaysRow},
    standing::{Branch, COMES_BACK, Lost},
};
use crate::{outcome::Event, record::RecordError};

/// What was there before time alone decided something.
#[derive(Debug, Clone)]
pub(super) struct Hasty {
    /// Which commits stand by the log alone.
    ledger: Ledger,
    /// What depends on annulments.
    ways: Ways,
    annulments: Vec<Annulment>,
}

/// As a row.
#[derive(MlsSize, MlsEncode, MlsDecode)]
pub(super) struct HastyRow {
    ledger: Ledger,
    ways: WaysRow,
    annulments: Vec<Annulment>,
}

impl Hasty {
    pub(super) fn to_row(&self) -> HastyRow {
        HastyRow { ledger: self.ledger.clone(), ways: self.ways.to_row(), annulments: self.annulments.clone() }
    }

    pub(super) fn of(row: &HastyRow) -> Result<Self, RecordError> {
        let (ledger, annulments) = (row.ledger.clone(), row.annulments.clone());
        Ok(Self { ledger, ways: Ways::of(&row.ways)?, annulments })
    }
}

impl Group {
    /// What time alone has decided by now, if we carry that out: who stayed behind has nothing to go back from, and who would be no member any
    /// more by it waits until the log shows it, or the DS takes its keys no more.
    pub(super) fn decided_by_time(&self, now: Timestamp) -> Option<(Ledger, Vec<Change>)> {
        let mut ledger = self.ledger.clone();
        let changes = ledger.advance(now);
        let stays = matches!(self.status, Status::Stuck { .. }) && ledger.epoch() >= self.epoch();
        let ends =
            |change: &Change| matches!(change, Change::Annulled { commits, epoch } if self.would_end(commits, *epoch));
        (!stays && !changes.is_empty() && !changes.iter().any(ends)).then_some((ledger, changes))
    }

    /// Which commits stand by the log alone: what others can hold against it.
    pub(super) fn logged(&self) -> &Ledger {
        self.hasty.as_ref().map_or(&self.ledger, |hasty| &hasty.ledger)
    }

    /// Keeps what the log alone has decided, as time decides more.
    pub(super) fn keep_before_time(&mut self) {
        if self.hasty.is_none() {
            let (ledger, ways, annulments) = (self.ledger.clone(), (*self.ways).clone(), self.annulments.clone());
            self.hasty = Some(Box::new(Hasty { ledger, ways, annulments }));
        }
    }

    /// The log has shown it, or what replaces it.
    pub(super) fn time_has_come(&mut self) {
        self.touched |= self.hasty.take().is_some();
    }

    /// The next entry is of this time. Takes back what time alone had decided, if the law does not say so by then.
    pub(super) fn check_haste(&mut self, next: Timestamp, events: &mut Vec<Event>) {
        let Some(Hasty { ledger, ways, annulments }) =
            self.hasty.take_if(|hasty| hasty.ledger.at(next) != self.ledger.at(next)).map(|hasty| *hasty)
        else {
            return;
        };
        self.touched = true;
        let back_in = std::mem::replace(&mut self.ledger, ledger).epoch();
        *self.ways = ways;
        self.annulments = annulments;
        let first = |open: &&OpenCommit| self.ledger.find(open.seq).is_some_and(|(ended, _)| ended == back_in);
        let Some(OpenCommit { seq: commit, hash, .. }) = self.ledger.open().iter().find(first).cloned() else { return };
        events.push(Event::NotAnnulled { commit });
        self.returned = None;
        // Who had come back by a commit that was taken for void is about to do so again.
        if self.status != Status::Active {
            return;
        }
        let reason = "this client took it for annulled too early: its clock is ahead of the server's, or the server held back what \
                      members had said";
        self.lost = Some(Lost { settled: false, ..Lost::settled(commit, hash, reason.to_owned(), Branch::None) });
        self.status = Status::Stuck { reason: format!("a commit may yet stand: {reason}") };
        events.push(Event::Stuck { seq: commit, reason: reason.to_owned() });
    }

    /// Commits are void that time alone had settled, so that the state before them is forgotten: no way leads back but from outside.
    pub(super) fn lose_settled(&mut self, commit: Seq, epoch: Epoch, events: &mut Vec<Event>) {
        let reason = format!(
            "the group is in epoch {epoch} again, which this client has forgotten, as its clock is ahead of the server's, or the server held back \
             what members had said: {COMES_BACK}"
        );
        self.lost = Some(Lost::settled(commit, Hash::new([0; 32]), reason.clone(), Branch::Resumed));
        self.status = Status::Stuck { reason: reason.clone() };
        events.push(Event::Stuck { seq: commit, reason });
    }
}
