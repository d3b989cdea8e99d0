//! Who breaks the rules, and how.

/// A lie in one reply of the server's. The next reply is honest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tamper {
    /// A page of the channel lacks its first entry.
    Gap,
    /// A page's entries are in another order.
    Order,
    /// A page begins with what was read before.
    Again,
    /// What was accepted is not signed for.
    Unsigned,
    /// What is signed is another log than the one that is shown.
    FalseReceipt,
    /// A blob is said not to be there.
    NoBlob,
}

impl Tamper {
    pub(crate) const ALL: [Self; 6] =
        [Self::Gap, Self::Order, Self::Again, Self::Unsigned, Self::FalseReceipt, Self::NoBlob];

    /// Whether it is about a page of a channel.
    pub(crate) const fn is_about_pages(self) -> bool {
        matches!(self, Self::Gap | Self::Order | Self::Again)
    }

    /// Whether it is about receipts.
    pub(crate) const fn is_about_receipts(self) -> bool {
        matches!(self, Self::Unsigned | Self::FalseReceipt)
    }
}

/// A lie that the server stays with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// The next entry is left out for one client, and those after it are numbered accordingly.
    Omit,
    /// The newest entry that one client has comes once more, as the next.
    Repeat,
    /// The next entry is changed for one client.
    Flip,
    /// The next entry has another time for one client.
    Shift,
    /// From now on one client lives in a log of its own.
    Fork,
    /// The Welcomes that one client had from this server are delivered once more.
    OldWelcomes,
    /// One client is given a Welcome that was changed, and garbage.
    ForgedWelcome,
}

impl Lie {
    pub(crate) const ALL: [Self; 7] =
        [Self::Omit, Self::Repeat, Self::Flip, Self::Shift, Self::Fork, Self::OldWelcomes, Self::ForgedWelcome];
}

/// What a member does that it must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offence {
    /// Its commit names channel keys that nobody has.
    Root,
    /// Its commit says that it removes more than it does.
    Flags,
    /// Its commit says that the group will have more members.
    Members,
    /// Its commit is changed after it was sealed.
    Body,
    /// Its commit is no commit at all.
    Garbage,
    /// Its commit is good, but not the Welcome.
    Welcome,
    /// Its commit is good, but not the GroupInfo for those who must rejoin.
    GroupInfo,
    /// Its commit is good, but not the tree for those who join.
    Tree,
    /// It says again what somebody said, in the same bytes.
    Replay,
    /// It sends what is no message.
    Noise,
    /// It sends what is no proposal.
    NoiseProposal,
    /// It disputes a commit that it could apply.
    FalseNack,
    /// It acknowledges a commit that it could not apply.
    FalseAck,
}

impl Offence {
    pub(crate) const ALL: [Self; 13] = [
        Self::Root,
        Self::Flags,
        Self::Members,
        Self::Body,
        Self::Garbage,
        Self::Welcome,
        Self::GroupInfo,
        Self::Tree,
        Self::Replay,
        Self::Noise,
        Self::NoiseProposal,
        Self::FalseNack,
        Self::FalseAck,
    ];

    /// Whether it is a commit, in a bundle, that is not what it should be.
    pub(crate) const fn is_commit(self) -> bool {
        matches!(
            self,
            Self::Root
                | Self::Flags
                | Self::Members
                | Self::Body
                | Self::Garbage
                | Self::Welcome
                | Self::GroupInfo
                | Self::Tree
        )
    }

    /// Whether nobody can apply the commit.
    pub(crate) const fn is_void(self) -> bool {
        matches!(self, Self::Root | Self::Flags | Self::Members | Self::Body | Self::Garbage)
    }
}
