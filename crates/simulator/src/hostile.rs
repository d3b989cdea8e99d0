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
    /// A stream brings another entry than was given out at that place before.
    Rewritten,
}

impl Tamper {
    /// All but those about streams.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lie {
    /// The next entry is left out for one client, and those after it are numbered accordingly.
    Omit,
    /// The newest entry that one client has comes once more, as the next.
    Repeat,
    /// The next entry is changed for one client.
    Flip,
    /// The next entry has another time for one client.
    Shift,
    /// From now on one client lives in a log of its own, until the server keeps one log again.
    Fork,
    /// The Welcomes that one client had from this server are delivered once more.
    OldWelcomes,
    /// One client is given a Welcome that was changed, and garbage.
    ForgedWelcome,
    /// One client is told that what it has not read yet is no longer kept.
    Gone,
    /// From now on there is no GroupInfo of the group.
    NoGroupInfo,
    /// From now on the group's GroupInfo is one of an earlier epoch.
    OldGroupInfo,
    /// The same, which is said to be of the present epoch.
    RenamedGroupInfo,
    /// From now on the group's GroupInfo is changed.
    BadGroupInfo,
    /// From now on nobody is let in who comes from outside.
    NoJoin,
    /// From now on one client is shown nothing more of the log, until the server keeps one log again.
    Stall,
}

/// Kinds of lies about the way back into a group.
pub(crate) const WAYS_BACK: [Lie; 5] =
    [Lie::NoGroupInfo, Lie::OldGroupInfo, Lie::RenamedGroupInfo, Lie::BadGroupInfo, Lie::NoJoin];

impl Lie {
    /// All but those about the way back, which concern only those who need one, and but silence.
    pub(crate) const ALL: [Self; 8] = [
        Self::Omit,
        Self::Repeat,
        Self::Flip,
        Self::Shift,
        Self::Fork,
        Self::OldWelcomes,
        Self::ForgedWelcome,
        Self::Gone,
    ];

    /// Whether by it one client sees another log than the others.
    pub(crate) const fn is_another_log(self) -> bool {
        matches!(self, Self::Omit | Self::Repeat | Self::Flip | Self::Shift | Self::Fork)
    }
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
    /// Its commit says that the group will have no other member, though it removes none.
    Alone,
    /// Its commit is changed after it was sealed.
    Body,
    /// Its commit is no commit at all.
    Garbage,
    /// The first path secret in its commit is wrong: who is next to it in the tree cannot apply it.
    PathSecret,
    /// Every second path secret in its commit is wrong.
    PathSecrets,
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
    /// It says again what it said, under its name, as if it were new.
    Repeat,
}

impl Offence {
    /// All but the repetition of messages.
    pub(crate) const ALL: [Self; 16] = [
        Self::Root,
        Self::Flags,
        Self::Members,
        Self::Alone,
        Self::Body,
        Self::Garbage,
        Self::PathSecret,
        Self::PathSecrets,
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
                | Self::Alone
                | Self::Body
                | Self::Garbage
                | Self::PathSecret
                | Self::PathSecrets
                | Self::Welcome
                | Self::GroupInfo
                | Self::Tree
        )
    }

    /// Which path secrets of its commit are wrong, as a mask; none if the commit is good in that.
    pub(crate) const fn bad_path_secrets(self) -> Option<u64> {
        match self {
            Self::PathSecret => Some(1),
            Self::PathSecrets => Some(0xAAAA_AAAA_AAAA_AAAA),
            _ => None,
        }
    }

    /// Whether nobody can apply the commit.
    pub(crate) const fn is_void(self) -> bool {
        matches!(self, Self::Root | Self::Flags | Self::Members | Self::Alone | Self::Body | Self::Garbage)
    }
}
