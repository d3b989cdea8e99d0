//! Which entry may follow which in a group's channel (RFC 9750, section 5.2.1): judged by kind and epoch alone, the
//! same way by the DS that orders and by the members that read.

use conclave_names::Epoch;

use crate::EntryKind;

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
}

/// Whether an entry of this kind and epoch may follow while the group is in epoch `current`.
///
/// A commit ends the current epoch, and so comes first; a proposal is of the current epoch; a message is of the
/// current epoch or of the one before (it was under way when the epoch ended).
///
/// # Errors
/// Any [`Refused`].
pub fn admit(kind: EntryKind, epoch: Epoch, current: Epoch) -> Result<(), Refused> {
    match kind {
        EntryKind::Commit if epoch < current => Err(Refused::Conflict { ended: epoch, current }),
        EntryKind::Commit | EntryKind::Proposal if epoch == current => Ok(()),
        EntryKind::Message if epoch == current || epoch.next() == current => Ok(()),
        EntryKind::Welcome => Err(Refused::Kind),
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
