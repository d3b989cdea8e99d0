use std::{
    collections::{BTreeSet, HashMap},
    hash::{BuildHasher, Hash, RandomState},
};

use conclave_names::Timestamp;

use super::rate::{Grains, Rate};

/// Buckets that are shared by keys for which there was no room.
const SHARED: usize = 1024;

/// How long a request must wait, in milliseconds, at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wait(pub u64);

/// Token buckets, one for each key, all of one [`Rate`].
///
/// A bucket is one number: when it will be full again. One that is full is like one that never was, so it is dropped
/// without loss, and the number of buckets has a bound that no flood of keys passes: where all `max` buckets are in
/// use, a key without one shares one of 1,024 others, chosen by a hash that nobody outside can foresee. So a flood
/// evicts nobody's bucket and nobody gets more than the rate; the worst it does is to have newcomers share.
///
/// Time is a parameter. Should it go back, a bucket takes at most as long to refill as an empty one.
#[derive(Debug)]
pub struct Buckets<K> {
    rate: Rate,
    max: usize,
    /// When each bucket is full again. None of them is, as far as is known.
    full_at: HashMap<K, Grains>,
    /// The same by time.
    order: BTreeSet<(Grains, K)>,
    shared: Vec<Grains>,
    hasher: RandomState,
}

impl<K: Copy + Ord + Hash> Buckets<K> {
    /// No bucket yet, and never more than `max` besides the shared ones.
    #[must_use]
    pub fn new(rate: Rate, max: usize) -> Self {
        Self {
            rate,
            max,
            full_at: HashMap::new(),
            order: BTreeSet::new(),
            shared: Vec::new(),
            hasher: RandomState::new(),
        }
    }

    /// The rate of each.
    #[must_use]
    pub fn rate(&self) -> Rate {
        self.rate
    }

    fn slot(&self, key: &K) -> usize {
        // Less than SHARED, which fits.
        usize::try_from(self.hasher.hash_one(key) % SHARED as u64).unwrap_or_default()
    }

    /// When a key's bucket is full. A key without a bucket may have used a shared one, and is held to that.
    fn full_at(&self, key: &K, now: Grains) -> Grains {
        let known = self.full_at.get(key).or_else(|| self.shared.get(self.slot(key))).copied().unwrap_or_default();
        // More than that is owed only if time went back, or to an overdraft, which is not for ever either.
        known.clamp(now, now.saturating_add(self.rate.whole().saturating_mul(2)))
    }

    /// How long a key must wait before it may take so many; none if it need not wait. More than the burst is never
    /// admitted at once: it is taken for the burst.
    #[must_use]
    pub fn wait(&self, key: &K, cost: u64, now: Timestamp) -> Option<Wait> {
        if self.rate.is_unlimited() {
            return None;
        }
        let (now, whole) = (self.rate.at(now), self.rate.whole());
        let cost = self.rate.worth(cost).min(whole);
        let over = self.full_at(key, now).saturating_add(cost).saturating_sub(now.saturating_add(whole));
        (over > 0).then(|| Wait(self.rate.ms(over)))
    }

    /// Takes so many out of a key's bucket, be they in it or not: an overdraft is waited for by the next.
    pub fn charge(&mut self, key: K, cost: u64, now: Timestamp) {
        if self.rate.is_unlimited() || cost == 0 {
            return;
        }
        let time = self.rate.at(now);
        let whole = self.rate.whole();
        let before = self.full_at(&key, time);
        let after =
            before.saturating_add(self.rate.worth(cost).min(whole)).min(time.saturating_add(whole.saturating_mul(2)));
        if let Some(old) = self.full_at.get_mut(&key) {
            self.order.remove(&(*old, key));
            *old = after;
            self.order.insert((after, key));
            return;
        }
        if self.full_at.len() >= self.max {
            self.forget_full(now);
        }
        if self.full_at.len() < self.max {
            self.full_at.insert(key, after);
            self.order.insert((after, key));
            return;
        }
        if self.shared.is_empty() {
            self.shared = vec![0; SHARED];
        }
        let slot = self.slot(&key);
        if let Some(shared) = self.shared.get_mut(slot) {
            *shared = after;
        }
    }

    /// Takes so many, if they are there.
    ///
    /// # Errors
    /// How long to wait. Nothing is taken then.
    pub fn take(&mut self, key: K, cost: u64, now: Timestamp) -> Result<(), Wait> {
        if let Some(wait) = self.wait(&key, cost, now) {
            return Err(wait);
        }
        self.charge(key, cost, now);
        Ok(())
    }

    /// Drops buckets that are full.
    pub fn forget_full(&mut self, now: Timestamp) {
        let now = self.rate.at(now);
        while let Some((full_at, key)) = self.order.first().copied().filter(|(full_at, _)| *full_at <= now) {
            self.order.remove(&(full_at, key));
            self.full_at.remove(&key);
        }
    }

    /// How many buckets there are, the shared ones apart.
    #[must_use]
    pub fn len(&self) -> usize {
        self.full_at.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.full_at.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_then_the_rate_and_the_wait_is_exact() {
        let mut buckets = Buckets::new(Rate::per_second(3, 2), 10);
        for _ in 0..3 {
            assert_eq!(buckets.take("a", 1, Timestamp(1000)), Ok(()));
        }
        assert_eq!(buckets.take("a", 1, Timestamp(1000)), Err(Wait(500)));
        assert_eq!(buckets.take("a", 1, Timestamp(1499)), Err(Wait(1)));
        assert_eq!(buckets.take("b", 3, Timestamp(1000)), Ok(()));
        assert_eq!(buckets.take("a", 1, Timestamp(1500)), Ok(()));
        assert_eq!(buckets.take("a", 2, Timestamp(1500)), Err(Wait(1000)));
        assert_eq!(buckets.take("a", 2, Timestamp(2500)), Ok(()));
    }

    #[test]
    fn what_costs_more_than_the_burst_takes_a_full_bucket() {
        let mut buckets = Buckets::new(Rate::per_second(3, 1), 10);
        assert_eq!(buckets.take(1, 100, Timestamp(0)), Ok(()));
        assert_eq!(buckets.take(1, 100, Timestamp(0)), Err(Wait(3000)));
        assert_eq!(buckets.take(1, 100, Timestamp(2999)), Err(Wait(1)));
        assert_eq!(buckets.take(1, 100, Timestamp(3000)), Ok(()));
    }

    #[test]
    fn an_overdraft_is_waited_for_but_not_for_ever() {
        let mut buckets = Buckets::new(Rate::per_second(2, 1), 10);
        for _ in 0..100 {
            buckets.charge(1, 2, Timestamp(0));
        }
        assert_eq!(buckets.wait(&1, 1, Timestamp(0)), Some(Wait(3000)));
        assert_eq!(buckets.wait(&1, 1, Timestamp(3000)), None);
    }

    #[test]
    fn unlimited_keeps_nothing() {
        let mut buckets = Buckets::new(Rate::UNLIMITED, 10);
        for key in 0..1000 {
            assert_eq!(buckets.take(key, u64::MAX, Timestamp(0)), Ok(()));
        }
        assert!(buckets.is_empty());
    }

    #[test]
    fn time_that_goes_back_shuts_nobody_out_for_longer_than_a_refill() {
        let mut buckets = Buckets::new(Rate::per_second(2, 1), 10);
        buckets.take(1, 2, Timestamp(3_600_000)).unwrap();
        let Wait(ms) = buckets.take(1, 1, Timestamp(0)).unwrap_err();
        assert!(ms <= 4000, "{ms}");
        buckets.charge(1, 1, Timestamp(0));
        let Wait(ms) = buckets.take(1, 1, Timestamp(0)).unwrap_err();
        assert!(ms <= 4000, "{ms}");
        assert_eq!(buckets.take(1, 1, Timestamp(ms)), Ok(()));
    }

    #[test]
    fn a_flood_of_keys_evicts_nobody_and_ends() {
        let mut buckets = Buckets::new(Rate::per_minute(2, 1), 100);
        let start = Timestamp(1_000_000);
        buckets.take(0, 2, start).unwrap();
        let mut admitted = 0;
        for key in 1..100_000u64 {
            admitted += usize::from(buckets.take(key, 2, start).is_ok());
            assert!(buckets.len() <= 100);
        }
        // Each bucket once, own or shared: with a billion keys it would be no more.
        assert!((99..=99 + SHARED).contains(&admitted), "{admitted}");
        assert_eq!(buckets.take(0, 1, start), Err(Wait(60_000)));
        // Once refilled, everybody has a bucket again.
        let later = start.plus_ms(120_000);
        for key in 0..100 {
            assert_eq!(buckets.take(key, 2, later), Ok(()), "{key}");
        }
        buckets.forget_full(later.plus_ms(120_000));
        assert!(buckets.is_empty());
    }

    /// What happens: at which time after the one before, by which key, how much.
    fn history() -> impl Strategy<Value = Vec<(u64, u8, u64)>> {
        prop::collection::vec((0..2000u64, 0..40u8, 1..5u64), 1..300)
    }

    fn rate() -> impl Strategy<Value = Rate> {
        (1..20u64, 1..10u64, 1..5000u64).prop_map(|(burst, refill, ms)| Rate::new(burst, refill, ms).unwrap())
    }

    proptest! {
        /// In any span of time no key gets more than the burst and what is refilled, whatever others do and however few
        /// buckets there are.
        #[test]
        fn nobody_gets_more_than_the_rate(rate in rate(), max in 0..30usize, history in history()) {
            let mut buckets = Buckets::new(rate, max);
            let mut now = 0;
            let mut admitted: Vec<(u64, u8, u64)> = Vec::new();
            for (pause, key, cost) in history {
                now += pause;
                if buckets.take(key, cost, Timestamp(now)).is_ok() {
                    admitted.push((now, key, cost.min(rate.burst)));
                }
                prop_assert!(buckets.len() <= max);
                prop_assert_eq!(buckets.order.len(), buckets.full_at.len());
            }
            for (first, (from, key, _)) in admitted.iter().enumerate() {
                let mut sum = 0;
                for (to, other, cost) in &admitted[first..] {
                    if other == key {
                        sum += cost;
                        // sum <= burst + refill * span / period, in whole numbers
                        prop_assert!(
                            u128::from(sum) * u128::from(rate.period_ms)
                                <= u128::from(rate.burst) * u128::from(rate.period_ms)
                                    + u128::from(rate.refill) * u128::from(to - from)
                        );
                    }
                }
            }
        }

        /// While there is room for all, each key has what it would have alone, and no less than the rate.
        #[test]
        fn nobody_feels_the_others_while_there_is_room(rate in rate(), history in history()) {
            let mut together = Buckets::new(rate, 40);
            let mut alone: HashMap<u8, Buckets<u8>> = HashMap::new();
            let mut now = 0;
            for (pause, key, cost) in history {
                now += pause;
                let own = alone.entry(key).or_insert_with(|| Buckets::new(rate, 1));
                let expected = own.take(key, cost, Timestamp(now));
                prop_assert_eq!(together.take(key, cost, Timestamp(now)), expected);
                if let Err(Wait(ms)) = expected {
                    prop_assert!(ms >= 1);
                    prop_assert!(own.wait(&key, cost, Timestamp(now + ms)).is_none());
                    prop_assert!(own.wait(&key, cost, Timestamp(now + ms - 1)).is_some());
                }
            }
        }

        /// Any times in any order: no wait is longer than an overdrawn bucket's, and the bound holds.
        #[test]
        fn any_clock_is_borne(rate in rate(), history in prop::collection::vec((any::<u64>(), 0..40u8, any::<u64>()), 0..200)) {
            let mut buckets = Buckets::new(rate, 8);
            for (now, key, cost) in history {
                if let Err(Wait(ms)) = buckets.take(key, cost, Timestamp(now)) {
                    prop_assert!(ms <= rate.ms(rate.whole().saturating_mul(2)));
                }
                buckets.charge(key, cost, Timestamp(now));
                prop_assert!(buckets.len() <= 8);
            }
        }
    }
}
