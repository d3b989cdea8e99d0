//! The part of a channel that a key may read.

use conclave_names::Seq;

/// What a key of some epoch may read: from where the epoch's committer stood, up to and including the first commit
/// flagged "removes" that ended this or a later epoch. Whoever is still a member then has a key of a later epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadRange {
    /// Entries after this one.
    pub after: Seq,
    /// The last one, if removal has ended the access.
    pub until: Option<Seq>,
}

impl ReadRange {
    /// Everything, as the owner of an inbox reads.
    pub const ALL: Self = Self { after: Seq(0), until: None };

    /// Whether the entry may be read.
    #[must_use]
    pub fn admits(&self, seq: Seq) -> bool {
        seq > self.after && self.until.is_none_or(|until| seq <= until)
    }

    /// Whether more may come to be readable than was, so that it is worth waiting.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.until.is_none()
    }

    /// The newest entry that may be read of a channel with this head.
    #[must_use]
    pub fn head(&self, head: Seq) -> Seq {
        self.until.map_or(head, |until| until.min(head))
    }

    /// Where a reader that asks for what comes after `asked` is to start.
    #[must_use]
    pub fn start(&self, asked: Seq) -> Seq {
        asked.max(self.after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_are_sharp() {
        let range = ReadRange { after: Seq(3), until: Some(Seq(7)) };
        assert!(!range.admits(Seq(3)) && range.admits(Seq(4)));
        assert!(range.admits(Seq(7)) && !range.admits(Seq(8)));
        assert_eq!(range.head(Seq(5)), Seq(5));
        assert_eq!(range.head(Seq(9)), Seq(7));
        assert_eq!(range.start(Seq(0)), Seq(3));
        assert!(ReadRange::ALL.admits(Seq(1)) && ReadRange::ALL.is_open());
    }
}
