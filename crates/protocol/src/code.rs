//! Stable error codes.

use std::{fmt, str::FromStr};

/// What a caller should do about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same request may succeed later: wait and send it again.
    Later,
    /// A new request may succeed, once the caller has caught up (a new session, a later epoch, a corrected clock).
    AfterUpdate,
    /// The same request will never succeed.
    Never,
}

/// A text that is no code of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown error code")]
pub struct UnknownCode;

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal, $retry:ident;)*) => {
        /// Why a service refused. The text of each code is part of the wire contract and never changes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[doc = $doc])* $name,)*
        }

        impl Code {
            /// All codes.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The code as it stands on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// What a caller should do about it.
            #[must_use]
            pub const fn retry(self) -> Retry {
                match self {
                    $(Self::$name => Retry::$retry,)*
                }
            }
        }

        impl FromStr for Code {
            type Err = UnknownCode;

            fn from_str(text: &str) -> Result<Self, UnknownCode> {
                match text {
                    $($text => Ok(Self::$name),)*
                    _ => Err(UnknownCode),
                }
            }
        }
    };
}

codes! {
    /// The request does not decode, or a field has an impossible value.
    Malformed = "MALFORMED", Never;
    /// A field or the request is over its bound; the message names the bound.
    TooLarge = "TOO_LARGE", Never;
    /// The request, or the data in it, is of a version that this server does not speak.
    UnsupportedVersion = "UNSUPPORTED_VERSION", Never;
    /// The signature does not verify.
    SignatureInvalid = "SIGNATURE_INVALID", Never;
    /// The signer's clock is too far from the server's (metadata `server_time_ms`).
    RequestExpired = "REQUEST_EXPIRED", AfterUpdate;
    /// The nonce or counter was used before.
    RequestReplayed = "REQUEST_REPLAYED", AfterUpdate;
    /// The request was made for another server or another call.
    WrongAudience = "WRONG_AUDIENCE", Never;
    /// The certificate is not good here; the message says why.
    CredentialInvalid = "CREDENTIAL_INVALID", AfterUpdate;
    /// A name is not a valid name, or not one of this domain.
    NameInvalid = "NAME_INVALID", Never;
    /// The name belongs to somebody else.
    NameTaken = "NAME_TAKEN", Never;
    /// Registration needs an invite token of the operator.
    InviteRequired = "INVITE_REQUIRED", Never;
    /// The invite token is unknown, used or expired.
    InviteInvalid = "INVITE_INVALID", Never;
    /// No such user at this domain.
    UserUnknown = "USER_UNKNOWN", Never;
    /// The identity key is not the one that the user registered.
    IdentityMismatch = "IDENTITY_MISMATCH", Never;
    /// The identity binding does not verify, has expired or is for something else.
    BindingInvalid = "BINDING_INVALID", Never;
    /// The client has replaced the signature key by another, which alone is good.
    KeyReplaced = "KEY_REPLACED", Never;
    /// The link is unknown, expired, used, or of another user.
    LinkUnknown = "LINK_UNKNOWN", Never;
    /// A KeyPackage is not valid; the message says why.
    KeyPackageInvalid = "KEY_PACKAGE_INVALID", Never;
    /// A KeyPackage is of another client than the one that uploads it.
    KeyPackageForeign = "KEY_PACKAGE_FOREIGN", Never;
    /// No such channel, or the caller may not do this in it.
    AccessRefused = "ACCESS_REFUSED", Never;
    /// The session is unknown or was forgotten: open a new one.
    SessionUnknown = "SESSION_UNKNOWN", AfterUpdate;
    /// Another commit ended the epoch first (metadata `epoch`, `winner`).
    EpochConflict = "EPOCH_CONFLICT", AfterUpdate;
    /// The epoch of the entry is not accepted (any more, or yet; metadata `epoch`).
    EpochStale = "EPOCH_STALE", AfterUpdate;
    /// A member's word about a commit does not count; the message says why.
    VerdictRefused = "VERDICT_REFUSED", AfterUpdate;
    /// The server has no tree of the epoch that the commit ends: offer all chunks of the new one.
    TreeIncomplete = "TREE_INCOMPLETE", AfterUpdate;
    /// Entries that were to be read are no longer kept (metadata `oldest`): the client must come back without them.
    PositionGone = "POSITION_GONE", AfterUpdate;
    /// MLS or the group's policy refuses the commit or proposal (metadata `reason`; visible groups only).
    HandshakeRefused = "HANDSHAKE_REFUSED", Never;
    /// The entry is not of the kind, form or size that the call takes.
    EntryInvalid = "ENTRY_INVALID", Never;
    /// No such blob, or it is not whole.
    BlobUnknown = "BLOB_UNKNOWN", AfterUpdate;
    /// The blob's bytes do not have the hash or the size that they were announced with.
    BlobInvalid = "BLOB_INVALID", Never;
    /// A sealed delivery address does not open, has expired, or was used up.
    AddressInvalid = "ADDRESS_INVALID", Never;
    /// No open stream has this handle.
    StreamUnknown = "STREAM_UNKNOWN", AfterUpdate;
    /// The channel id belongs to somebody else: choose another.
    ChannelExists = "CHANNEL_EXISTS", Never;
    /// The idempotency key was used for another submission.
    IdempotencyMismatch = "IDEMPOTENCY_MISMATCH", Never;
    /// A limit on counts was reached; the message names it.
    QuotaExceeded = "QUOTA_EXCEEDED", Later;
    /// More was asked for than is admitted in so much time (metadata `retry_after_ms`); the message names the limit.
    RateLimited = "RATE_LIMITED", Later;
    /// The server cannot store more. Nothing was changed.
    StorageFull = "STORAGE_FULL", Later;
    /// The service is not offered by this server (it may run elsewhere).
    ServiceDisabled = "SERVICE_DISABLED", Never;
    /// The server is overloaded, starting or stopping.
    Unavailable = "UNAVAILABLE", Later;
    /// The server failed; nothing was changed. Its log says why.
    Internal = "INTERNAL", Later;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip_and_are_distinct() {
        for code in Code::ALL {
            assert_eq!(code.as_str().parse::<Code>(), Ok(*code));
        }
        assert_eq!("NO_SUCH".parse::<Code>(), Err(UnknownCode));
    }
}
