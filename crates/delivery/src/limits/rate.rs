use std::{fmt, str::FromStr};

use conclave_names::Timestamp;

/// The unit in which the buckets of one rate reckon, so that nothing is rounded: one of the rate's tokens is worth as
/// many grains as its period has milliseconds, and a millisecond brings as many grains as a period has tokens.
pub(super) type Grains = u128;

/// The longest that an empty bucket may take to be full again, in milliseconds: 366 days.
const LONGEST: u128 = 366 * 24 * 3600 * 1000;

/// How much is admitted: so many at once, and so many more in a period.
///
/// As text: `200 + 10/min`, `512MiB + 256KiB/s`, `unlimited`. Periods are `s`, `min`, `h` and `day`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub(super) burst: u64,
    pub(super) refill: u64,
    pub(super) period_ms: u64,
}

/// A text or numbers that are no rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no rate: write how many are admitted at once and how many more in a period, like `200 + 10/min` \
     (periods: s, min, h, day; numbers from 1, with KiB, MiB or GiB for bytes; full again within 366 days), or \
     `unlimited`"
)]
pub struct InvalidRate(String);

impl Rate {
    /// No limit.
    pub const UNLIMITED: Self = Self { burst: u64::MAX, refill: u64::MAX, period_ms: 1 };

    /// `burst` at once, and `refill` more in each second.
    #[must_use]
    pub const fn per_second(burst: u32, refill: u32) -> Self {
        Self::known(burst, refill, 1000)
    }

    /// `burst` at once, and `refill` more in each minute.
    #[must_use]
    pub const fn per_minute(burst: u32, refill: u32) -> Self {
        Self::known(burst, refill, 60 * 1000)
    }

    /// `burst` at once, and `refill` more in each hour.
    #[must_use]
    pub const fn per_hour(burst: u32, refill: u32) -> Self {
        Self::known(burst, refill, 3600 * 1000)
    }

    /// Of numbers in the source: 0 is taken for 1.
    const fn known(burst: u32, refill: u32, period_ms: u64) -> Self {
        const fn at_least_1(n: u32) -> u64 {
            if n == 0 { 1 } else { n as u64 }
        }
        Self { burst: at_least_1(burst), refill: at_least_1(refill), period_ms }
    }

    /// `burst` at once, and `refill` more in each period of `period_ms` milliseconds.
    ///
    /// # Errors
    /// [`InvalidRate`] if one of them is 0, or an empty bucket would take more than 366 days to be full.
    pub fn new(burst: u64, refill: u64, period_ms: u64) -> Result<Self, InvalidRate> {
        let rate = Self { burst, refill, period_ms };
        let wrong = burst == 0 || refill == 0 || period_ms == 0 || rate.whole() > LONGEST * u128::from(refill);
        if wrong { Err(InvalidRate(format!("{burst} + {refill}/{period_ms} ms"))) } else { Ok(rate) }
    }

    /// The same for so many as share a bucket.
    #[must_use]
    pub const fn times(self, factor: u32) -> Self {
        if self.is_unlimited() {
            return self;
        }
        let factor = factor as u64;
        Self { burst: self.burst.saturating_mul(factor), refill: self.refill.saturating_mul(factor), ..self }
    }

    /// Whether it limits nothing.
    #[must_use]
    pub const fn is_unlimited(self) -> bool {
        self.burst == u64::MAX
    }

    /// How many are admitted at once.
    #[must_use]
    pub const fn burst(self) -> u64 {
        self.burst
    }

    /// What so many tokens are worth.
    pub(super) fn worth(self, tokens: u64) -> Grains {
        u128::from(tokens) * u128::from(self.period_ms)
    }

    /// What a full bucket is worth.
    pub(super) fn whole(self) -> Grains {
        self.worth(self.burst)
    }

    /// A point in time.
    pub(super) fn at(self, now: Timestamp) -> Grains {
        u128::from(now.0) * u128::from(self.refill)
    }

    /// In how many milliseconds so much comes, rounded up.
    pub(super) fn ms(self, grains: Grains) -> u64 {
        u64::try_from(grains.div_ceil(u128::from(self.refill.max(1)))).unwrap_or(u64::MAX)
    }
}

const PERIODS: [(&str, u64); 4] = [("s", 1000), ("min", 60_000), ("h", 3_600_000), ("day", 86_400_000)];

const SIZES: [(&str, u64); 3] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    let (digits, unit) = SIZES
        .iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?.trim_end(), *unit)))
        .unwrap_or((text, 1));
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

impl FromStr for Rate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        if text.trim() == "unlimited" {
            return Ok(Self::UNLIMITED);
        }
        let parts = || {
            let (burst, rest) = text.split_once('+')?;
            let (refill, period) = rest.split_once('/')?;
            let (_, period_ms) = PERIODS.iter().find(|(name, _)| *name == period.trim())?;
            Self::new(number(burst)?, number(refill)?, *period_ms).ok()
        };
        parts().ok_or_else(|| InvalidRate(text.chars().take(100).collect()))
    }
}

struct Number(u64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIZES.iter().rev().find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit)) {
            Some((suffix, unit)) => write!(f, "{}{suffix}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_unlimited() {
            return f.write_str("unlimited");
        }
        let (burst, refill) = (Number(self.burst), Number(self.refill));
        match PERIODS.iter().find(|(_, ms)| *ms == self.period_ms) {
            Some((name, _)) => write!(f, "{burst} + {refill}/{name}"),
            None => write!(f, "{burst} + {refill}/{} ms", self.period_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_written_as_they_are_read() {
        for (text, rate) in [
            ("200 + 10/min", Rate::per_minute(200, 10)),
            ("1 + 1/s", Rate::per_second(1, 1)),
            ("3 + 4/h", Rate::per_hour(3, 4)),
            ("512MiB + 256KiB/s", Rate::new(512 << 20, 256 << 10, 1000).unwrap()),
            ("2 + 1/day", Rate::new(2, 1, 86_400_000).unwrap()),
            ("unlimited", Rate::UNLIMITED),
        ] {
            assert_eq!(text.parse(), Ok(rate));
            assert_eq!(rate.to_string(), text);
        }
        assert_eq!(" 5+6 / min ".parse(), Ok(Rate::per_minute(5, 6)));
    }

    #[test]
    fn what_is_no_rate_is_refused_with_an_example() {
        for text in [
            "",
            "5",
            "5 + 6",
            "5 + 6/week",
            "0 + 1/s",
            "1 + 0/s",
            "-1 + 1/s",
            "+1 + 1/s",
            "1KB + 1/s",
            "MiB + 1/s",
            "1000 + 1/day",
            "18446744073709551615 + 1/s",
            "99999999999999999999 + 1/s",
            "17179869184GiB + 1/s",
        ] {
            let error = text.parse::<Rate>().unwrap_err().to_string();
            assert!(error.contains("200 + 10/min"), "{error}");
        }
    }
}
