//! Why a handshake message of a visible group is not ordered.

use conclave_mls::{
    components::{RosterKeysError, SafeAadError},
    proposal::ProposalError,
    rules::PolicyError,
};
use conclave_names::Epoch;
use conclave_protocol::{Code, Refusal};
use mls_rs::error::MlsError;

/// Why a handshake message, or the beginning of a group, is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// It is no MLSMessage, or not a PublicMessage of the entry's kind, for this group.
    #[error(
        "it is not a {0} in a PublicMessage of this group: handshakes of visible groups are neither encrypted nor sealed"
    )]
    Format(&'static str),
    /// It is of another epoch than its entry.
    #[error("it is of another epoch than its entry says, which is {0}")]
    Epoch(Epoch),
    /// Its sender may not send it by this call.
    #[error("{0}")]
    Sender(&'static str),
    /// Its signature does not verify.
    #[error("its signature is not its sender's")]
    Signature,
    /// The policy hook refused.
    #[error("the group's policy refuses it: {0}")]
    Policy(String),
    /// A credential is not valid.
    #[error("a credential in it is not valid: {0}")]
    Credential(String),
    /// It commits a proposal that is not in the log of its epoch.
    #[error("it commits the proposal {0}, which is not in the channel before it: submit that first")]
    UnknownProposal(String),
    /// MLS refused for any other reason.
    #[error("MLS refuses it: {0}")]
    Mls(String),
    /// The Welcome of a client that it adds would go nowhere.
    #[error("the delivery address of the KeyPackage {0}: claim another KeyPackage of that client")]
    Address(&'static str),
    /// Its authenticated data is not what our groups require.
    #[error("its authenticated data is wrong: {0}")]
    AuthenticatedData(String),
    /// The entry's header is not what the commit does.
    #[error("the entry's header is not what the commit does: {0}")]
    Header(&'static str),
    /// The key root is not that of the members of the epoch that begins.
    #[error("the key root is not that of the channel keys of the epoch that begins")]
    KeyRoot,
    /// The GroupInfo is not the epoch's.
    #[error("the GroupInfo is not the one of the epoch that begins, as the server follows it: {0}")]
    GroupInfo(String),
}

impl HandshakeError {
    /// The word for it in the refusal's metadata. It is part of the wire contract and never changes.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Format(_) => "format",
            Self::Epoch(_) => "epoch",
            Self::Sender(_) => "sender",
            Self::Signature => "signature",
            Self::Policy(_) => "policy",
            Self::Credential(_) => "credential",
            Self::UnknownProposal(_) => "unknown-proposal",
            Self::Mls(_) => "mls",
            Self::Address(_) => "address",
            Self::AuthenticatedData(_) => "authenticated-data",
            Self::Header(_) => "header",
            Self::KeyRoot => "key-root",
            Self::GroupInfo(_) => "group-info",
        }
    }
}

impl From<MlsError> for HandshakeError {
    fn from(error: MlsError) -> Self {
        match error {
            MlsError::InvalidSignature => Self::Signature,
            MlsError::UnknownSigningIdentityForExternalSender => {
                Self::Sender("no external sender of the group stands at the place that it names")
            }
            MlsError::IdentityProviderError(error) => Self::Credential(error.to_string()),
            MlsError::MlsRulesError(error) => Self::Policy(error.to_string()),
            error => Self::Mls(error.to_string()),
        }
    }
}

impl From<PolicyError> for HandshakeError {
    fn from(error: PolicyError) -> Self {
        Self::Policy(error.to_string())
    }
}

impl From<ProposalError> for HandshakeError {
    fn from(error: ProposalError) -> Self {
        match error {
            ProposalError::LeafSignature => Self::Signature,
            error => Self::Mls(error.to_string()),
        }
    }
}

impl From<SafeAadError> for HandshakeError {
    fn from(error: SafeAadError) -> Self {
        Self::AuthenticatedData(error.to_string())
    }
}

impl From<RosterKeysError> for HandshakeError {
    fn from(_: RosterKeysError) -> Self {
        Self::KeyRoot
    }
}

impl From<HandshakeError> for Refusal {
    fn from(error: HandshakeError) -> Self {
        let code =
            if matches!(error, HandshakeError::Address(_)) { Code::AddressInvalid } else { Code::HandshakeRefused };
        let refusal =
            Self::new(code, format!("the handshake message was not ordered: {error}")).with("reason", error.reason());
        match error {
            HandshakeError::UnknownProposal(reference) => refusal.with("proposal", reference),
            _ => refusal,
        }
    }
}
