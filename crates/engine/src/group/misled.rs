//! GroupInfos that led nowhere (RFC 9420, section 12.4.3.2).
//!
//! Whoever commits leaves the GroupInfo by which others come back. That its `external_pub` is the one of the epoch, nobody who is outside can
//! check, and members look at it now and then only (`vet`): with another one, the commit by which a member comes back is one that nobody can apply. It is annulled, the group has stood
//! still for that long, and the member that came back looks like the culprit. So it remembers who had signed what it came back by, and
//! does not take anything of the same signer again for a while, but asks members to let it in. It may wrong somebody by that, as members
//! dispute a commit for other reasons, too: all that it costs is a knock.

use conclave_channel::chain;
use conclave_names::{ClientUri, Hash, Seq, Timestamp};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};

use super::{Group, RejoinError};
use crate::{
    outcome::Event,
    record::{RecordError, Text},
};

/// How long nothing is taken of who signed a GroupInfo that led nowhere, in milliseconds: 30 days.
pub const MISLED_MS: u64 = 30 * 86_400_000;

/// Such GroupInfos that are remembered; the oldest go first.
const MISLED: usize = 16;

/// A GroupInfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signed {
    /// Who signed it.
    pub(super) by: ClientUri,
    /// Its hash as it was served.
    pub(super) word: Hash,
}

/// One that led nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Misled {
    signed: Signed,
    at: Timestamp,
}

/// What we came back by, and what led nowhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ways {
    /// Our commit from outside that is not settled, and what it was made by.
    back: Option<(Seq, Signed)>,
    misled: Vec<Misled>,
}

#[derive(MlsSize, MlsEncode, MlsDecode)]
pub(super) struct SignedRow {
    by: Text,
    word: Hash,
    /// Our commit, or when it was annulled.
    number: u64,
}

/// As rows.
#[derive(MlsSize, MlsEncode, MlsDecode)]
pub(super) struct WaysRow {
    back: Option<SignedRow>,
    misled: Vec<SignedRow>,
}

impl SignedRow {
    fn of(signed: &Signed, number: u64) -> Self {
        Self { by: Text::new(&signed.by), word: signed.word, number }
    }

    fn read(&self) -> Result<Signed, RecordError> {
        Ok(Signed { by: self.by.parse()?, word: self.word })
    }
}

impl Ways {
    pub(super) fn to_row(&self) -> WaysRow {
        WaysRow {
            back: self.back.as_ref().map(|(commit, signed)| SignedRow::of(signed, commit.0)),
            misled: self.misled.iter().map(|misled| SignedRow::of(&misled.signed, misled.at.0)).collect(),
        }
    }

    pub(super) fn of(row: &WaysRow) -> Result<Self, RecordError> {
        let back = row.back.as_ref().map(|back| Ok::<_, RecordError>((Seq(back.number), back.read()?))).transpose()?;
        let misled = row.misled.iter().map(|row| Ok(Misled { signed: row.read()?, at: Timestamp(row.number) }));
        Ok(Self { back, misled: misled.collect::<Result<_, RecordError>>()? })
    }

    /// What the next incarnation of the group has to know.
    pub(super) fn outlive(mut self) -> Self {
        self.back = None;
        self
    }
}

impl Group {
    /// Whether a way back by this leads nowhere, for all that we know.
    pub(super) fn check_signer(&self, signed: &Signed, now: Timestamp) -> Result<(), RejoinError> {
        let same = |misled: &&Misled| {
            // A clock that was ahead for a while keeps nobody out after it.
            let recent = misled.at <= now.plus_ms(MISLED_MS) && now < misled.at.plus_ms(MISLED_MS);
            recent && (misled.signed.by == signed.by || misled.signed.word == signed.word)
        };
        match self.ways.misled.iter().find(same) {
            Some(misled) => Err(RejoinError::Misled(misled.signed.by.clone())),
            None => Ok(()),
        }
    }

    /// What somebody left leads nowhere, as a member could see.
    pub(super) fn take_nothing_of(&mut self, by: ClientUri, served: &[u8], at: Timestamp) {
        self.remember_misled(Misled { signed: Signed { by, word: chain::entry_hash(served) }, at });
    }

    fn remember_misled(&mut self, misled: Misled) {
        self.touched = true;
        self.ways.misled.push(misled);
        let excess = self.ways.misled.len().saturating_sub(MISLED);
        self.ways.misled.drain(..excess);
    }

    /// We are back by a commit that was made by this.
    pub(super) fn came_by_word(&mut self, commit: Seq, signed: Signed) {
        self.ways.back = Some((commit, signed));
        self.touched = true;
    }

    /// A commit is void, as members disputed it. If it is that by which we came back, this tells by what it was made.
    pub(super) fn way_annulled(&mut self, disputed: Seq, at: Timestamp, events: &mut Vec<Event>) {
        let Some((commit, signed)) = self.ways.back.take_if(|(commit, _)| *commit >= disputed) else { return };
        self.touched = true;
        // What went before it was not to be applied: that is nothing of its signer's.
        if commit != disputed {
            return;
        }
        events.push(Event::Misled { by: signed.by.clone(), commit });
        self.remember_misled(Misled { signed, at });
    }

    /// Commits up to this one stand.
    pub(super) fn way_settled(&mut self, settled: Seq) {
        if self.ways.back.take_if(|(commit, _)| *commit <= settled).is_some() {
            self.touched = true;
        }
    }
}

#[cfg(test)]
#[path = "misled_tests.rs"]
mod tests;
