//! Proposals that we cannot read (RFC 9750, section 5.2.2), and successors.
//!
//! Who lacks a proposal cannot apply the commit that refers to it; who passes over the successor of a group that is made anew goes on
//! without the others. The log has no gaps, so it is one that came damaged, or without its blob. It is read once
//! more at once, before the place moves on behind it: what was changed on its way is there then, and the running hash is that of the
//! others.
//!
//! Other members are not asked for what stays unread: nothing that they could answer saves the way back. If the server keeps giving out
//! other bytes, this member's running hash is not the others', whatever proposal it has in hand: that is a fork. If it gives out the
//! same bytes as to the others, those of another member do not decrypt either: a proposal in a PrivateMessage is opened with a key
//! of its sender's ratchet, mls-rs lets a member cache a proposal by decrypting it only, and keys that are gone stay gone.
//! Nor could it ask by ProposalRef: the commit is encrypted, and mls-rs does not tell which reference it did not find.

use conclave_channel::{Entry, EntryKind};
use conclave_names::{Hash, Seq};

use super::Group;
use crate::outcome::Rejection;

/// What is known of unread proposals and successors. Not stored: who starts anew reads again.
#[derive(Debug, Default)]
pub(super) struct Unread {
    /// The entry that is to be read once more, by its place and hash.
    again: Option<(Seq, Hash)>,
    /// Whether it is still to be.
    due: bool,
}

impl Group {
    /// Whether a proposal, or a successor, that is refused is read once more before our place moves on: it was not the same before.
    pub(super) fn reads_once_more(&mut self, entry: &Entry, rejection: &Rejection, seq: Seq, hash: Hash) -> bool {
        let damaged = match rejection {
            Rejection::Seal | Rejection::Mismatch | Rejection::Mls(_) | Rejection::Blob => true,
            // These say what they are.
            _ => false,
        };
        let matters = entry.kind == EntryKind::Proposal || (entry.kind == EntryKind::Successor && self.is_frozen());
        if !matters || entry.epoch != self.epoch() || !damaged {
            return false;
        }
        let before = self.unread.again.replace((seq, hash));
        self.unread.due = before != Some((seq, hash));
        self.unread.due
    }

    /// Whether the entry after our place is one that is to be read once more.
    pub(super) fn reads_proposal_again(&self) -> bool {
        self.unread.due && self.unread.again.is_some_and(|(seq, _)| seq == self.window.position().seq.next())
    }
}
