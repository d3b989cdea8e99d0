//! Why a call failed.

use std::{error::Error, time::Duration};

use conclave_names::Hash;
use conclave_protocol::{Code, Refusal, Retry};
use tonic::{Code as Grpc, Status};

use super::connector::ConnectFailure;

/// The longest time that a server can have us wait.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The service answered that it did not do it, and why.
    #[error("{0}")]
    Refused(Refusal),
    /// No answer came: whether the service did it is not known. To send it again is safe.
    #[error("the server cannot be reached: {cause}")]
    Unreachable {
        /// What happened.
        cause: String,
    },
    /// Whoever answered could not prove to be the server.
    #[error("the server is not who it should be: {0}; check its address and the pinned certificate authority")]
    Untrusted(String),
    /// The answer is not one that this contract has.
    #[error("the server's answer makes no sense: {0}; is it a Conclave server of a matching version?")]
    Protocol(String),
    /// A blob's bytes are not those that its hash names.
    #[error("the server sent other bytes than those of the blob {0}")]
    WrongBlob(Hash),
}

impl CallError {
    /// Whether the same call may succeed later by itself.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.retry() == Retry::Later,
            Self::Unreachable { .. } => true,
            Self::Untrusted(_) | Self::Protocol(_) | Self::WrongBlob(_) => false,
        }
    }

    /// How long the server wants us to wait before the same call: at most five minutes, whatever it says. Zero if it
    /// wants nothing.
    pub fn retry_after(&self) -> Duration {
        match self {
            Self::Refused(refusal) if refusal.code == Code::RateLimited => {
                Duration::from_millis(refusal.number("retry_after_ms").unwrap_or(1000)).min(LONGEST_WAIT)
            }
            _ => Duration::ZERO,
        }
    }

    /// Whether to send it again within seconds. A full server or a used-up quota takes longer: the caller should
    /// hear of that.
    pub(super) fn is_short(&self) -> bool {
        match self {
            Self::Refused(refusal) => {
                matches!(refusal.code, Code::Unavailable | Code::Internal | Code::RateLimited)
            }
            _ => self.is_transient(),
        }
    }

    /// The code of a refusal.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(refusal) => Some(refusal.code),
            _ => None,
        }
    }

    pub(super) fn unreachable(cause: impl Into<String>) -> Self {
        Self::Unreachable { cause: cause.into() }
    }
}

/// The cause of a failed connection, if that was it.
fn connect_failure(status: &Status) -> Option<&ConnectFailure> {
    let mut source = status.source();
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        source = error.source();
    }
    None
}

/// A status made on our side says "transport error"; what happened stands at the end of its sources.
fn root_cause(status: &Status) -> String {
    let mut deepest: Option<&(dyn Error + 'static)> = status.source();
    while let Some(inner) = deepest.and_then(Error::source) {
        deepest = Some(inner);
    }
    deepest.map_or_else(|| status.message().to_owned(), ToString::to_string)
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        if let Some(refusal) = Refusal::from_status(&status) {
            return Self::Refused(refusal);
        }
        match connect_failure(&status) {
            Some(failure @ ConnectFailure::Tls(..)) => return Self::Untrusted(failure.to_string()),
            Some(failure) => return Self::unreachable(failure.to_string()),
            None => {}
        }
        match status.code() {
            Grpc::Unavailable | Grpc::Cancelled | Grpc::DeadlineExceeded => Self::unreachable(root_cause(&status)),
            // Made on our side when a connection broke.
            Grpc::Unknown | Grpc::Internal if status.source().is_some() => Self::unreachable(root_cause(&status)),
            code => Self::Protocol(format!("{code:?}: {}", status.message().chars().take(200).collect::<String>())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transient_and_permanent_are_told_apart() {
        for code in Code::ALL {
            let refusal = Refusal::new(*code, "why");
            let error = CallError::from(Status::from(refusal.clone()));
            assert_eq!(error, CallError::Refused(refusal));
            assert_eq!(error.is_transient(), code.retry() == Retry::Later);
            assert!(error.is_transient() || !error.is_short());
        }
        for (ms, wait) in [("70", 70), ("18446744073709551615", 300_000), ("soon", 1000)] {
            let error = CallError::Refused(Refusal::new(Code::RateLimited, "why").with("retry_after_ms", ms));
            assert_eq!(error.retry_after(), Duration::from_millis(wait));
        }
        assert_eq!(CallError::unreachable("x").retry_after(), Duration::ZERO);
        assert!(CallError::from(Status::unavailable("a proxy's words")).is_transient());
        for status in [Status::unimplemented("x"), Status::unknown("x"), Status::internal("x"), Status::not_found("x")]
        {
            assert!(matches!(CallError::from(status), CallError::Protocol(_)));
        }
    }
}
