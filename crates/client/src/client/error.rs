//! Why a client did not do what it was asked.

use conclave_engine::{
    MlsError,
    account::RecordError,
    group::{FillError, LoadError, WishError},
    outcome::ProcessError,
};
use conclave_mls::crypto::UnsupportedSuite;
use conclave_names::{ClientUri, GroupUri, UserUri};
use conclave_protocol::Code;

use crate::{
    profile::ProfileError,
    store::StoreError,
    transport::{CallError, EndpointError},
};

/// Why a client cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The profile.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The server's address.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// A row of the store.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// There is no complete account.
    #[error("this profile has no account yet: run `conclave register` (again) to complete it")]
    NotRegistered,
}

impl From<LoadError<StoreError>> for OpenError {
    fn from(error: LoadError<StoreError>) -> Self {
        match error {
            LoadError::Store(error) => Self::Store(error),
            LoadError::Record(error) => Self::Record(error),
            // Rows of KeyPackages hold no MLS state.
            _ => Self::Record(RecordError::Damaged),
        }
    }
}

/// Why a client did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// An invitation waits until the channel has decided about a commit that this client could not apply, or shows the one that invites it.
    /// Transient.
    #[error(
        "this client has yet to read, or to see decided, a commit on which an invitation depends: it is tried again"
    )]
    Undecided,
    /// The store failed. Nothing was changed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A service refused or was not reached.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A row of the store.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// MLS refused.
    #[error(transparent)]
    Mls(#[from] MlsError),
    /// The group takes no changes.
    #[error(transparent)]
    Wish(#[from] WishError),
    /// The server's log of a group is not one.
    #[error("{0}; nothing after the last good entry was read")]
    Log(#[from] ProcessError),
    /// The profile has no such group.
    #[error("this profile has no group `{0}`; `conclave group list` shows those it has")]
    NoSuchGroup(GroupUri),
    /// A cipher suite that Conclave does not speak: it signs with another scheme than identity keys, which are Ed25519's, or is unknown.
    #[error(transparent)]
    Suite(#[from] UnsupportedSuite),
    /// A user has no client that could be added.
    #[error("{user} cannot be added: {reason}")]
    CannotAdd {
        /// The user.
        user: UserUri,
        /// Why.
        reason: String,
    },
    /// A user has another identity key than before.
    #[error(
        "the identity key of {0} has changed: either the account was set up anew, or somebody is in between. Compare \
         the safety number with that person (`conclave verify`), then accept the new key with `conclave verify --accept`"
    )]
    IdentityChanged(UserUri),
    /// A change was dropped.
    #[error("the change could not be made: {0}")]
    Dropped(String),
    /// Only somebody whom this client did not know as a member vouches for a group's present members: the user is to decide.
    #[error(
        "only {0} vouches for the group's present members, and this device did not know it as a member: if you know it and want that all the \
         same, say so by `conclave group rejoin GROUP --trust {0}`"
    )]
    Doubtful(ClientUri),
    /// There is nothing that a member may be told.
    #[error(transparent)]
    Fill(FillError<StoreError>),
    /// The change is stored, but the channel has not shown its outcome.
    #[error(
        "the change is stored but not yet confirmed by the server; it will be sent again by the next `conclave sync`"
    )]
    Unconfirmed,
    /// A change waits for the group that a frozen one becomes.
    #[error(
        "the change is stored; the group is being made anew, and carries it out once it goes on: `conclave sync` tells what it waits for"
    )]
    Frozen,
    /// This device does not hold the user's identity key.
    #[error(
        "this device does not hold the identity key of its user: approve the new device on the device where the account was made"
    )]
    NoIdentityKey,
    /// This device cannot give itself a new signature key.
    #[error(
        "this device does not hold the identity key of its user, which has to sign the new signature key: run `conclave keys rotate` and \
         approve the code that it shows on the device where the account was made (`conclave device add CODE`)"
    )]
    NeedsApproval,
    /// What a service answered does not belong to the question.
    #[error("the server's answer does not belong to the question: {0}")]
    Answer(String),
    /// No randomness.
    #[error("the operating system gives no random numbers")]
    Randomness,
}

impl ClientError {
    /// Whether the same call may succeed later by itself. Nothing is lost meanwhile.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Store(error) => error.is_transient(),
            Self::Call(error) => error.is_transient(),
            Self::Unconfirmed | Self::Frozen | Self::Randomness | Self::Undecided => true,
            _ => false,
        }
    }
}

impl ClientError {
    /// The service's code, if a service refused.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Call(error) => error.code(),
            _ => None,
        }
    }
}

impl From<LoadError<StoreError>> for ClientError {
    fn from(error: LoadError<StoreError>) -> Self {
        match error {
            LoadError::Store(error) => Self::Store(error),
            LoadError::Record(error) => Self::Record(error),
            LoadError::Mls(error) => Self::Mls(error),
            _ => Self::Record(RecordError::Damaged),
        }
    }
}
