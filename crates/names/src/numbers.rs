//! Counters: epochs, sequence numbers, times.

use std::fmt;

use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};
use serde::{Deserialize, Serialize};

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, MlsSize, MlsEncode, MlsDecode,
            Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The number before this one, if there is one.
            #[must_use]
            pub fn previous(self) -> Option<Self> {
                self.0.checked_sub(1).map(Self)
            }

            /// The number after this one (it stays at the greatest: no counter here comes near it).
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter! {
    /// An epoch of an MLS group (RFC 9420, section 2).
    Epoch
}

counter! {
    /// The place of an entry in a channel. The first entry has 1; 0 is the place before it.
    Seq
}

counter! {
    /// Milliseconds since the start of the Unix epoch. The times in a channel are the DS's, and never run backwards.
    Timestamp
}

impl Timestamp {
    /// Whole seconds since the start of the Unix epoch.
    #[must_use]
    pub fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// From whole seconds since the start of the Unix epoch.
    #[must_use]
    pub fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// This time and so many milliseconds more.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Whether it is less than so many milliseconds ago. A time that is yet to come, by a clock that was ahead, is not.
    ///
    /// ```
    /// use conclave_names::Timestamp;
    ///
    /// let (since, later) = (Timestamp(1_000), Timestamp(3_000));
    /// assert!(since.is_within_ms(2_001, later) && !since.is_within_ms(2_000, later));
    /// assert!(!later.is_within_ms(u64::MAX, since));
    /// ```
    #[must_use]
    pub fn is_within_ms(self, ms: u64, now: Self) -> bool {
        self <= now && now < self.plus_ms(ms)
    }
}
