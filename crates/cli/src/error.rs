//! Why a verb failed.

use conclave_client::{
    ClientError, ClientEvent, LinkCodeError, OpenError, RegisterError, profile::ProfileError, store::StoreError,
};
use conclave_names::NameError;

/// Why a verb failed. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error(transparent)]
    Client(#[from] ClientError),
    /// What was read before it failed is told with it.
    #[error("{error}")]
    Partly { events: Vec<ClientEvent>, error: ClientError },
    #[error(transparent)]
    Open(OpenError),
    #[error(transparent)]
    Register(RegisterError),
    #[error(transparent)]
    Profile(ProfileError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    LinkCode(#[from] LinkCodeError),
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
    #[error("{0}")]
    Usage(String),
    #[error("no group is called `{0}`; `conclave group list` shows those of this profile")]
    NoGroup(String),
    #[error("more than one group is called `{0}`: use the URI that `conclave group list` shows")]
    ManyGroups(String),
    #[error("no device of {0} has asked for what it missed; `conclave group fill GROUP` shows who has")]
    NobodyAsked(String),
    #[error("{0}")]
    Refused(String),
}

impl From<OpenError> for CliError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Profile(error) => Self::Profile(error),
            OpenError::Store(error) => Self::Store(error),
            other => Self::Open(other),
        }
    }
}

impl From<RegisterError> for CliError {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::Open(error) => error.into(),
            RegisterError::Step(error) => Self::Client(error),
            RegisterError::Name(error) => Self::Name(error),
            other => Self::Register(other),
        }
    }
}

impl From<ProfileError> for CliError {
    fn from(error: ProfileError) -> Self {
        Self::Profile(error)
    }
}

/// The same of what the client says.
fn code_of(error: &ClientError) -> String {
    match error {
        ClientError::Call(error) => match error.code() {
            Some(code) => code.as_str().to_owned(),
            None if error.is_transient() => "UNREACHABLE".to_owned(),
            None => "CALL_FAILED".to_owned(),
        },
        ClientError::IdentityChanged(_) => "IDENTITY_CHANGED".to_owned(),
        ClientError::Unconfirmed | ClientError::Frozen => "UNCONFIRMED".to_owned(),
        ClientError::Wish(_) => "NOT_A_MEMBER".to_owned(),
        ClientError::Suite(_) => "CIPHER_SUITE_UNSUPPORTED".to_owned(),
        ClientError::Fill(error) => crate::verbs::fill_code(error).to_owned(),
        _ => "CLIENT".to_owned(),
    }
}

impl CliError {
    /// A word for programs.
    pub(crate) fn code(&self) -> String {
        match self {
            Self::Client(error) | Self::Partly { error, .. } => code_of(error),
            Self::Open(_) => "NOT_REGISTERED".to_owned(),
            Self::Register(_) => "REGISTRATION".to_owned(),
            Self::Profile(ProfileError::InUse { .. }) => "PROFILE_IN_USE".to_owned(),
            Self::Profile(_) => "PROFILE".to_owned(),
            Self::Store(_) => "STORE".to_owned(),
            Self::Name(_) | Self::LinkCode(_) | Self::Usage(_) => "USAGE".to_owned(),
            Self::Io(..) => "IO".to_owned(),
            Self::NoGroup(_) | Self::ManyGroups(_) => "NO_SUCH_GROUP".to_owned(),
            Self::NobodyAsked(_) => "NOBODY_ASKED".to_owned(),
            Self::Refused(_) => "REFUSED".to_owned(),
        }
    }

    /// Whether the same command may succeed later by itself.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Client(error) | Self::Partly { error, .. } => error.is_transient(),
            Self::Store(error) => error.is_transient(),
            _ => false,
        }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Name(_) | Self::LinkCode(_) => 2,
            error if error.is_transient() => 3,
            _ => 1,
        }
    }
}
