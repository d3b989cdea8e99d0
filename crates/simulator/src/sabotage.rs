//! Faults planted on purpose: the checker must catch each.

use std::{fmt, str::FromStr};

use crate::plan::{Hostile, one_of};

/// A fault planted into the clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sabotage {
    /// None.
    #[default]
    None,
    /// What is made for sending is not stored before it leaves.
    SkipPersist,
    /// An entry of the channel is passed over.
    DropEntry,
    /// A message that was read is not stored.
    DropMessage,
    /// A message whose reply was lost is said again.
    SayAgain,
    /// Intents do not survive a crash.
    ForgetIntents,
    /// Which keys were used since the MLS state was stored does not survive a crash.
    ForgetKeys,
    /// Only the first half of a transaction is stored.
    TornWrite,
    /// An invitation is taken up before the channel was read that tells of our removal, and lost.
    InboxFirst,
    /// Invitations are thrown away.
    LoseInvitation,
    /// What was submitted once is submitted again after days, without looking whether it is there.
    SubmitUnread,
    /// What other members propose is never committed.
    NeverCommit,
    /// The same message is made anew, with a key that was used, whenever its reply is lost.
    ReuseKey,
    /// Commits that cannot be applied are not disputed.
    NeverDispute,
    /// What members and receipts say of the log is not looked at.
    Trusting,
    /// The log is not read once more when a member is in another branch of the group.
    KeepBranch,
    /// What was said in an epoch that was annulled is said again under another name.
    SayAnew,
    /// What was said after a removal that was annulled is said to who is back.
    SayToReturned,
    /// Who finds no way back asks nobody.
    NeverKnock,
    /// Who is asked lets nobody in.
    NeverAnswer,
    /// Nobody goes on from a frozen group.
    NeverSucceed,
    /// Everybody goes on in the successor that it made itself, whichever came first.
    OwnSuccessor,
    /// The same commit is made anew, with a key that was used, whenever its reply is lost.
    ReuseCommitKey,
    /// What comes together is told by author.
    Scramble,
    /// What the server has signed for and does not show is not missed.
    Incurious,
    /// That a member was removed is not recorded.
    ForgetChange,
    /// Why a group cannot be followed is not recorded.
    ForgetPlight,
    /// What was missed is not told.
    HideGap,
    /// Keys are not renewed unless somebody wishes it.
    NeverRenew,
}

impl Sabotage {
    /// All that are faults.
    pub const ALL: [Self; 28] = [
        Self::SkipPersist,
        Self::DropEntry,
        Self::DropMessage,
        Self::SayAgain,
        Self::ForgetIntents,
        Self::ForgetKeys,
        Self::TornWrite,
        Self::InboxFirst,
        Self::LoseInvitation,
        Self::SubmitUnread,
        Self::NeverCommit,
        Self::ReuseKey,
        Self::NeverDispute,
        Self::Trusting,
        Self::KeepBranch,
        Self::SayAnew,
        Self::SayToReturned,
        Self::NeverKnock,
        Self::NeverAnswer,
        Self::NeverSucceed,
        Self::OwnSuccessor,
        Self::ReuseCommitKey,
        Self::Scramble,
        Self::Incurious,
        Self::ForgetChange,
        Self::ForgetPlight,
        Self::HideGap,
        Self::NeverRenew,
    ];

    /// Who must break the rules for the fault to show.
    #[must_use]
    pub const fn needs(self) -> Hostile {
        match self {
            Self::NeverDispute | Self::SayAnew | Self::SayToReturned => Hostile::Members,
            Self::Trusting
            | Self::KeepBranch
            | Self::NeverKnock
            | Self::NeverAnswer
            | Self::Incurious
            | Self::ForgetPlight
            | Self::HideGap
            | Self::NeverRenew => Hostile::Server,
            _ => Hostile::Nobody,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::SkipPersist => "skip-persist",
            Self::DropEntry => "drop-entry",
            Self::DropMessage => "drop-message",
            Self::SayAgain => "say-again",
            Self::ForgetIntents => "forget-intents",
            Self::ForgetKeys => "forget-keys",
            Self::TornWrite => "torn-write",
            Self::InboxFirst => "inbox-first",
            Self::LoseInvitation => "lose-invitation",
            Self::SubmitUnread => "submit-unread",
            Self::NeverCommit => "never-commit",
            Self::ReuseKey => "reuse-key",
            Self::NeverDispute => "never-dispute",
            Self::Trusting => "trusting",
            Self::KeepBranch => "keep-branch",
            Self::SayAnew => "say-anew",
            Self::SayToReturned => "say-to-returned",
            Self::NeverKnock => "never-knock",
            Self::NeverAnswer => "never-answer",
            Self::NeverSucceed => "never-succeed",
            Self::OwnSuccessor => "own-successor",
            Self::ReuseCommitKey => "reuse-commit-key",
            Self::Scramble => "scramble",
            Self::Incurious => "incurious",
            Self::ForgetChange => "forget-change",
            Self::ForgetPlight => "forget-plight",
            Self::HideGap => "hide-gap",
            Self::NeverRenew => "never-renew",
        }
    }
}

impl fmt::Display for Sabotage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Sabotage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all: Vec<_> = std::iter::once(Self::None).chain(Self::ALL).collect();
        one_of(&all, text, Self::name)
    }
}
