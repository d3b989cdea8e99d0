//! The sections with rates.

use conclave_delivery::limits::{InvalidRate, Limits, Rate};
use serde::Deserialize;

use crate::limits::AddressLimits;

/// A rate as the file has it.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Text(Rate);

impl TryFrom<String> for Text {
    type Error = InvalidRate;

    fn try_from(text: String) -> Result<Self, InvalidRate> {
        text.parse().map(Self)
    }
}

macro_rules! section {
    ($(#[doc = $doc:literal])* $name:ident of $limits:ident: counts { $($count:ident)* } rates { $($rate:ident)* }) => {
        $(#[doc = $doc])*
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $name {
            $($count: Option<usize>,)*
            $($rate: Option<Text>,)*
        }

        impl $name {
            /// What the file says, else what is given.
            pub(super) fn over(self, default: $limits) -> $limits {
                $limits {
                    $($count: self.$count.unwrap_or(default.$count),)*
                    $($rate: self.$rate.map_or(default.$rate, |Text(rate)| rate),)*
                }
            }
        }
    };
}

section! {
    /// What one network address may ask for.
    AddressSection of AddressLimits:
    counts { connections requests streams readers }
    rates {
        new_connections calls received_bytes reads signed sessions registrations links channels new_streams
    }
}

section! {
    /// What one user, member or claimed client may.
    ServiceSection of Limits:
    counts { buckets }
    rates {
        user_claims user_uploads user_calls client_claimed client_claimed_by_user member_submissions member_requests
        member_staged_bytes
    }
}
