//! How long a disputed commit waits.

use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};

use super::DISPUTE_MS;

/// How long a disputed commit of a group waits for an Ack, in milliseconds of channel time: a parameter of the group, from
/// [`DisputePause::MIN`] to [`DisputePause::MAX`].
///
/// A short one ends sooner what nobody can apply, and makes it more likely that everybody who could have said otherwise was offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, MlsSize, MlsEncode)]
pub struct DisputePause(u64);

impl DisputePause {
    /// 10 seconds.
    pub const MIN: Self = Self(10_000);

    /// 24 hours.
    pub const MAX: Self = Self(24 * 3600 * 1000);

    /// [`DISPUTE_MS`].
    pub const DEFAULT: Self = Self(DISPUTE_MS);

    /// In milliseconds; none beyond the bounds.
    #[must_use]
    pub const fn new(ms: u64) -> Option<Self> {
        if ms < Self::MIN.0 || ms > Self::MAX.0 { None } else { Some(Self(ms)) }
    }

    /// In milliseconds.
    #[must_use]
    pub const fn ms(self) -> u64 {
        self.0
    }
}

impl Default for DisputePause {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl MlsDecode for DisputePause {
    fn mls_decode(reader: &mut &[u8]) -> Result<Self, mls_rs_codec::Error> {
        Self::new(u64::mls_decode(reader)?).ok_or(mls_rs_codec::Error::Custom(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bounds_belong_to_it() {
        assert_eq!(DisputePause::new(9_999), None);
        assert_eq!(DisputePause::new(10_000), Some(DisputePause::MIN));
        assert_eq!(DisputePause::new(86_400_000), Some(DisputePause::MAX));
        assert_eq!(DisputePause::new(86_400_001), None);
        assert_eq!(DisputePause::default().ms(), 900_000);
    }

    proptest! {
        #[test]
        fn it_is_decoded_within_the_bounds_only(ms in prop_oneof![any::<u64>(), 0..100_000_000u64]) {
            let decoded = DisputePause::mls_decode(&mut ms.to_be_bytes().as_slice()).ok();
            prop_assert_eq!(decoded, DisputePause::new(ms));
            if let Some(pause) = decoded {
                prop_assert_eq!(pause.mls_encode_to_vec().unwrap(), ms.to_be_bytes());
            }
        }
    }
}
