//! Refusals as gRPC statuses and back (google.rpc.ErrorInfo).

use std::collections::{BTreeMap, HashMap};

use tonic::{Code as Grpc, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{Code, Refusal};

/// `ErrorInfo.domain` of every refusal.
const DOMAIN: &str = "conclave";

fn grpc_code(code: Code) -> Grpc {
    match code {
        Code::Malformed
        | Code::TooLarge
        | Code::UnsupportedVersion
        | Code::WrongAudience
        | Code::NameInvalid
        | Code::BindingInvalid
        | Code::KeyPackageInvalid
        | Code::EntryInvalid
        | Code::HandshakeRefused
        | Code::BlobInvalid
        | Code::AddressInvalid => Grpc::InvalidArgument,
        Code::SignatureInvalid
        | Code::RequestExpired
        | Code::RequestReplayed
        | Code::CredentialInvalid
        | Code::SessionUnknown => Grpc::Unauthenticated,
        Code::InviteRequired
        | Code::InviteInvalid
        | Code::IdentityMismatch
        | Code::KeyPackageForeign
        | Code::KeyReplaced
        | Code::AccessRefused => Grpc::PermissionDenied,
        Code::NameTaken | Code::ChannelExists | Code::IdempotencyMismatch => Grpc::AlreadyExists,
        Code::UserUnknown | Code::LinkUnknown | Code::BlobUnknown | Code::StreamUnknown => Grpc::NotFound,
        Code::EpochConflict => Grpc::Aborted,
        Code::EpochStale | Code::VerdictRefused | Code::TreeIncomplete | Code::PositionGone => Grpc::FailedPrecondition,
        Code::QuotaExceeded | Code::RateLimited | Code::StorageFull => Grpc::ResourceExhausted,
        Code::ServiceDisabled => Grpc::Unimplemented,
        Code::Unavailable => Grpc::Unavailable,
        Code::Internal => Grpc::Internal,
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let metadata: HashMap<String, String> = refusal.metadata.into_iter().collect();
        let details = ErrorDetails::with_error_info(refusal.code.as_str(), DOMAIN, metadata);
        Self::with_error_details(grpc_code(refusal.code), refusal.message, details)
    }
}

impl Refusal {
    /// Reads a refusal from a status, if it carries one of this contract.
    #[must_use]
    pub fn from_status(status: &Status) -> Option<Self> {
        let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN)?;
        Some(Self {
            code: info.reason.parse().ok()?,
            message: status.message().to_owned(),
            metadata: info.metadata.into_iter().collect::<BTreeMap<_, _>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_survives_a_status() {
        for code in Code::ALL {
            let refusal = Refusal::new(*code, "why").with("epoch", 7);
            let status = Status::from(refusal.clone());
            assert_eq!(Refusal::from_status(&status), Some(refusal));
        }
        assert_eq!(Refusal::from_status(&Status::internal("no details")), None);
    }
}
