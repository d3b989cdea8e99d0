//! Which entry may follow which in a group's channel (RFC 9750, section 5.2.1), and which commit stands: judged by what
//! is in the clear alone, the same way by the DS that orders and by the members that read.

mod ledger;
mod pause;

use conclave_names::{Epoch, limits};

use crate::EntryKind;

pub use ledger::{Change, DISPUTE_MS, LATE_MS, Ledger, OPEN_MAX, OpenCommit, SETTLED_MS};
pub use pause::DisputePause;

/// Proposals that one epoch takes: members keep them until a commit comes. One of more than [`PROPOSAL_UNIT`] bytes counts as several.
pub const PROPOSALS_MAX: u32 = 512;

/// Bytes of a proposal's body that count as one: 8 KiB.
pub const PROPOSAL_UNIT: u64 = 8 * 1024;

/// Why an entry may not follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Another commit ended the epoch before this one came.
    #[error("epoch {ended} was ended by another commit; the group is in epoch {current}: catch up and commit anew")]
    Conflict {
        /// The epoch that this commit would have ended.
        ended: Epoch,
        /// The epoch that the group is in.
        current: Epoch,
    },
    /// The entry's epoch is too old or has not begun.
    #[error("the entry is of epoch {found}, but the group is in epoch {current}: catch up and send it anew")]
    Epoch {
        /// The entry's.
        found: Epoch,
        /// The epoch that the group is in.
        current: Epoch,
    },
    /// Entries of this kind have no place in a group's channel.
    #[error("entries of this kind have no place in a group's channel")]
    Kind,
    /// Too many commits in a row that no other member has acknowledged.
    #[error("{OPEN_MAX} commits wait for another member to acknowledge them: try again when one is online")]
    Unsettled,
    /// A commit whose counts cannot be true of any group.
    #[error("the commit says to leave no members, or more than {} of them", limits::MEMBERS)]
    Counts,
    /// The body is longer than one of this kind can be in a group of so many members.
    #[error("the entry's body is longer than one of its kind can be in this group")]
    Body,
    /// The epoch has as many proposals as it takes.
    #[error(
        "so many proposals wait for a commit that no more are taken ({PROPOSALS_MAX}, those over {PROPOSAL_UNIT} bytes counted as several): commit some first"
    )]
    Proposals,
    /// A member's word about a commit does not count.
    #[error(transparent)]
    Verdict(#[from] VerdictError),
}

/// Why a member's word about a commit does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerdictError {
    /// The commit is settled, annulled, or was never there.
    #[error("the commit is not open: it stands, was annulled, or is none of this channel")]
    NotOpen,
    /// An Ack is about the oldest open commit.
    #[error("an older commit is open: acknowledge that first")]
    NotOldest,
    /// The committer's own word does not count.
    #[error("a committer's word about its own commit does not count")]
    Own,
    /// The key is not one of the epoch that the commit ended.
    #[error("the channel key is not of the epoch that the commit ended")]
    Key,
    /// The signature does not verify.
    #[error("the signature of the verdict does not verify")]
    Signature,
    /// The key has said so before, or enough others have.
    #[error("the commit is disputed already, or this key has disputed it before")]
    Repeated,
}

/// Whether an entry of this kind and epoch may follow while the group is in epoch `current`.
///
/// A commit ends the current epoch, and so comes first; a proposal is of the current epoch; a message is of the
/// current epoch or of the one before (it was under way when the epoch ended). The rest is for the [`Ledger`] to say, also
/// how late such a message may be.
///
/// # Errors
/// Any [`Refused`].
pub fn admit(kind: EntryKind, epoch: Epoch, current: Epoch) -> Result<(), Refused> {
    match kind {
        EntryKind::Commit if epoch < current => Err(Refused::Conflict { ended: epoch, current }),
        // Of which commit they may be is for the ledger to say.
        EntryKind::Nack | EntryKind::Ack => Ok(()),
        EntryKind::Commit | EntryKind::Proposal | EntryKind::Successor if epoch == current => Ok(()),
        EntryKind::Message if epoch == current || epoch.next() == current => Ok(()),
        EntryKind::Welcome | EntryKind::Knock => Err(Refused::Kind),
        _ => Err(Refused::Epoch { found: epoch, current }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn judge(kind: EntryKind, epoch: u64, current: u64) -> Result<(), Refused> {
        admit(kind, Epoch(epoch), Epoch(current))
    }

    #[test]
    fn each_kind_at_each_side_of_its_bound() {
        assert_eq!(judge(EntryKind::Message, 5, 5), Ok(()));
        assert_eq!(judge(EntryKind::Message, 4, 5), Ok(()));
        assert!(judge(EntryKind::Message, 3, 5).is_err());
        assert!(judge(EntryKind::Message, 6, 5).is_err());
        assert_eq!(judge(EntryKind::Proposal, 5, 5), Ok(()));
        assert!(judge(EntryKind::Proposal, 4, 5).is_err());
        assert_eq!(judge(EntryKind::Commit, 5, 5), Ok(()));
        assert!(matches!(judge(EntryKind::Commit, 4, 5), Err(Refused::Conflict { .. })));
        assert!(matches!(judge(EntryKind::Commit, 6, 5), Err(Refused::Epoch { .. })));
        assert_eq!(judge(EntryKind::Welcome, 5, 5), Err(Refused::Kind));
        assert_eq!(judge(EntryKind::Knock, 5, 5), Err(Refused::Kind));
        assert!(judge(EntryKind::Message, u64::MAX, 0).is_err());
    }

    proptest! {
        #[test]
        fn an_epoch_is_ended_once(commits in prop::collection::vec(0..6u64, 0..60)) {
            let mut current = 0;
            let mut ended = std::collections::BTreeSet::new();
            for epoch in commits {
                if judge(EntryKind::Commit, epoch, current).is_ok() {
                    prop_assert!(ended.insert(epoch));
                    current += 1;
                }
            }
            prop_assert_eq!(ended.len() as u64, current);
        }
    }
}
