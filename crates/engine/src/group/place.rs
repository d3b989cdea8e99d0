//! A place in the channel that is known by a member's word only.
//!
//! A member whose place is gone from the server, or is one in another log, reads on from where the committer of the sealed GroupInfo
//! says to have stood, with the ledger that it had there. Whoever has the group seed can seal something else. So this has to hold before
//! this member comes back from there: what the log shows follows on by the channel's law, and leads to the epoch that the GroupInfo is
//! of, and to the running hash and the ledger that the server has at its end. Else the place is given up, and the same GroupInfo is not
//! believed again: that of the next commit can be, and members can be asked.

use conclave_channel::{HashWindow, Position};
use conclave_names::{Epoch, Hash, Timestamp};

use super::{
    Group, RejoinError,
    group_info::SealedGroupInfo,
    standing::{Branch, Lost},
};
use crate::outcome::ProcessError;

/// How a channel ends, as the DS has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelEnd {
    /// The newest entry, and the running hash there.
    pub place: Position,
    /// [`conclave_channel::law::Ledger::hash`] there.
    pub ledger: Hash,
}

impl Group {
    /// Entries that we have not read are gone: we read on from where the GroupInfo's committer stood, as joiners do. `epoch` and `word`:
    /// what the GroupInfo is of, and its hash as it was served.
    pub(super) fn resume(
        &mut self,
        sealed: Option<&SealedGroupInfo>,
        epoch: Epoch,
        word: Hash,
        now: Timestamp,
    ) -> RejoinError {
        let place = self.window.position().seq;
        // A place in another log does not count.
        let wrong = self.is_in_wrong_log();
        if self.is_placed_by(&word) {
            return does_not_follow();
        }
        let Some(sealed) = sealed.filter(|sealed| wrong || sealed.position.seq > place) else {
            return RejoinError::Contradicts("entries are missing, and it does not tell from where to read on".into());
        };
        // It stood in the epoch that its commit ended. What time alone annuls may not have been carried out there.
        let ledger = &sealed.ledger;
        let possible = ledger.at(now).epoch() < epoch && ledger.epoch().next() >= epoch;
        if !possible || ledger.pause() != self.profile.dispute_pause {
            return RejoinError::Contradicts("its committer cannot have stood where it says to have stood".into());
        }
        let before = self.beginnings();
        let from = self.first_unread().unwrap_or_else(|| place.next());
        self.skipped = Some(from);
        self.forget_hashes();
        self.window = HashWindow::new(sealed.position, Timestamp(0));
        self.ledger = sealed.ledger.clone();
        self.time_has_come();
        let mut told = Vec::new();
        self.revive_since(&before, &mut told);
        for event in told {
            self.note(&event, self.window.position().seq, now);
        }
        let (reason, branch) = if wrong {
            ("this client followed a branch that is not the group", Branch::Resumed)
        } else {
            ("entries that this client had not read are gone from the server", Branch::None)
        };
        let lost = Lost::settled(from, Hash::new([0; 32]), reason.to_owned(), branch);
        self.lost = Some(Lost { word: Some(word), ..lost });
        self.dirty = true;
        RejoinError::ReadOn
    }

    /// Whether our place is known by this word only, or was and is given up.
    pub(super) fn is_placed_by(&self, word: &Hash) -> bool {
        self.lost.as_ref().is_some_and(|lost| lost.word == Some(*word))
    }

    /// Holds a place that is known by a member's word only against the end of the channel as the DS has it.
    ///
    /// # Errors
    /// [`RejoinError::ReadOn`] if there is more to read, [`RejoinError::Contradicts`] if the place is given up.
    pub(super) fn prove_place(&mut self, end: &ChannelEnd) -> Result<(), RejoinError> {
        if self.lost.as_ref().is_none_or(|lost| lost.word.is_none()) {
            return Ok(());
        }
        let place = self.window.position();
        if end.place.seq > place.seq {
            return Err(RejoinError::ReadOn);
        }
        let same = place == end.place && self.logged().hash().is_ok_and(|hash| hash == end.ledger);
        if same { Ok(()) } else { Err(self.refuse_place()) }
    }

    /// Gives up a place from which the log cannot go on as it does.
    pub(super) fn doubt_place(&mut self, fault: &ProcessError) -> bool {
        let by_word = self.lost.as_ref().is_some_and(|lost| lost.word.is_some() && lost.branch != Branch::Wrong);
        if !by_word || !matches!(fault, ProcessError::Law { .. }) {
            return false;
        }
        self.refuse_place();
        true
    }

    pub(super) fn refuse_place(&mut self) -> RejoinError {
        // As where our place is one in another log: nothing is read from there, and another place is looked for.
        self.lost.iter_mut().for_each(|lost| lost.branch = Branch::Wrong);
        self.touched = true;
        does_not_follow()
    }
}

fn does_not_follow() -> RejoinError {
    RejoinError::Contradicts(
        "the channel does not go on as it should from where its committer says to have stood".into(),
    )
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
