//! When our keys in the group are due to be renewed without anybody asking for it.
//!
//! A commit of ours heals our leaf (RFC 9750, sections 6.2 and 8.2.2): who stole our state before it reads nothing that is said
//! after it. So each group gets one now and then. A leaf whose certificate was renewed takes the new one at once, so
//! that the old one's expiry finds no leaf.

use conclave_channel::chain::entry_hash;
use conclave_names::{ClientUri, GroupUri, Seq, Timestamp};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};

use super::{Group, Status};
use crate::intent::Wish;

/// How long keys of ours stay in a group at least before time alone renews them: 7 days, in milliseconds.
pub const REFRESH_MS: u64 = 7 * 86_400_000;

/// And for each member as long again as makes one such commit a minute in the whole group, in milliseconds: 70 days in
/// one of 100,000.
pub const REFRESH_MS_A_MEMBER: u64 = 60_000;

/// Over how long the members' turns are spread, in milliseconds: a day, at random but always the same for a member of a
/// group.
pub const REFRESH_SPREAD_MS: u64 = 86_400_000;

/// When our keys in the group were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
pub(super) struct Refreshed {
    at: Timestamp,
    /// Our commit that brought them; none if we joined with them.
    commit: Option<Seq>,
    /// When those before them were made, which come back if the commit is annulled.
    before: Timestamp,
}

impl Refreshed {
    /// Of a group that was made or joined at a time.
    pub(super) fn new(at: Timestamp) -> Self {
        Self { at, commit: None, before: at }
    }
}

impl Group {
    /// Notes a commit of ours.
    pub(super) fn refreshed_by(&mut self, commit: Seq, at: Timestamp) {
        let open = self.refreshed.commit.is_some_and(|earlier| self.ledger.find(earlier).is_some());
        let before = if open { self.refreshed.before } else { self.refreshed.at };
        self.refreshed = Refreshed { at, commit: Some(commit), before };
        self.parents.iter_mut().filter(|parent| parent.commit == commit).for_each(|parent| parent.renews = true);
    }

    /// Takes note that this commit, which members disputed, and those after it are void.
    pub(super) fn refresh_annulled(&mut self, first: Seq) {
        if self.parents.iter().any(|parent| parent.commit == first && parent.renews) {
            self.rest_disputed(self.window.time().max(self.read_to_end.unwrap_or(Timestamp(0))));
        }
        if self.refreshed.commit >= Some(first) {
            self.refreshed = Refreshed::new(self.refreshed.before);
        }
    }

    /// Takes note that what was committed up to this place stands.
    pub(super) fn refresh_settled(&mut self, commit: Seq) {
        if self.refreshed.commit.is_some_and(|own| own <= commit) {
            self.rested_disputed();
        }
    }

    /// When our keys in this group are to be renewed: after a week, or more in large groups, and at once if our leaf
    /// has another certificate than our account; but not for a while after it failed ([`super::REST_MS`]) or members disputed it. None while something else
    /// stands in the way, or a change of ours is under way.
    #[must_use]
    pub fn refresh_due(&self) -> Option<Timestamp> {
        if self.status != Status::Active
            || self.frozen.is_some()
            || self.own_removal_proposed()
            || self.intents.values().any(renews)
        {
            return None;
        }
        if self.leaf_is_outdated() {
            // Whatever our clock says.
            return Some(self.rests.after_disputes(Timestamp(0)));
        }
        let age = age(self.ledger.members());
        let spread = spread(&self.name, &self.account.client, REFRESH_SPREAD_MS);
        Some(self.rests.after_disputes(self.refreshed.at.plus_ms(age.saturating_add(spread))))
    }

    /// The wish to renew our keys, if it is time.
    pub(super) fn refresh_wish(&self, now: Timestamp) -> Option<Wish> {
        self.refresh_due().filter(|due| *due <= now).map(|_| Wish::Update)
    }

    fn leaf_is_outdated(&self) -> bool {
        let own = self.mls.current_member_signing_identity();
        own.is_ok_and(|own| *own != self.account.signing_identity())
    }
}

/// A member's turn within a time, at random but always the same in a group.
pub(super) fn spread(group: &GroupUri, client: &ClientUri, over_ms: u64) -> u64 {
    let hash = entry_hash(format!("{group}\n{client}").as_bytes());
    let number = hash.as_bytes().first_chunk().copied().map_or(0, u64::from_be_bytes);
    number.checked_rem(over_ms).unwrap_or(0)
}

/// Whether an intent ends with a commit of ours.
fn renews(intent: &crate::intent::Intent) -> bool {
    matches!(intent.wish, Wish::Add { .. } | Wish::Remove { .. } | Wish::Update | Wish::CommitProposals)
}

/// How old keys become in a group of so many, in milliseconds.
fn age(members: u32) -> u64 {
    REFRESH_MS.max(u64::from(members).saturating_mul(REFRESH_MS_A_MEMBER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_group_has_more_than_one_such_commit_a_minute() {
        let days = |members| age(members) / 86_400_000;
        assert_eq!((days(1), days(2), days(10_080), days(20_160), days(100_800)), (7, 7, 7, 14, 70));
        for members in [1, 1_000, 10_080, 10_081, 100_000, u32::MAX] {
            assert!(age(members) / u64::from(members) >= REFRESH_MS_A_MEMBER);
        }
    }
}
