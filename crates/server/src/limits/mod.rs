//! What one network address may ask for, whoever it is.

mod address;
mod places;
mod settings;
mod tickets;

use std::sync::{Mutex, MutexGuard, PoisonError};

use conclave_delivery::{
    Origin,
    limits::{Buckets, Rate, TicketError, TicketKey, Tickets, Wait, refusal},
};
use conclave_names::Timestamp;
use conclave_protocol::{Code, Refusal};
use tokio::time::Instant;

pub(crate) use address::{Address, Site};
pub(crate) use places::{Place, Places};
pub use settings::AddressLimits;
pub(crate) use settings::Surface;
pub(crate) use tickets::load as load_ticket_key;
pub use tickets::{TicketKeyError, create_ticket};

/// Buckets of each rate; beyond, newcomers share.
const BUCKETS: usize = 65_536;

/// So many times the rate of one network is for a whole site of IPv6.
const SITE: u32 = 16;

/// After so long somebody may try again who has too much open at a time, in milliseconds.
const CROWDED_MS: u64 = 1000;

/// One rate: by address, and for IPv6 by site.
struct Pair {
    addresses: Buckets<Address>,
    sites: Buckets<Site>,
}

impl Pair {
    fn new(rate: Rate) -> Self {
        Self { addresses: Buckets::new(rate, BUCKETS), sites: Buckets::new(rate.times(SITE), BUCKETS) }
    }

    fn check(&self, address: Address, cost: u64, now: Timestamp) -> Result<(), (Rate, Wait)> {
        if let Some(wait) = self.addresses.wait(&address, cost, now) {
            return Err((self.addresses.rate(), wait));
        }
        match address.site().and_then(|site| self.sites.wait(&site, cost, now)) {
            Some(wait) => Err((self.sites.rate(), wait)),
            None => Ok(()),
        }
    }

    fn charge(&mut self, address: Address, cost: u64, now: Timestamp) {
        self.addresses.charge(address, cost, now);
        if let Some(site) = address.site() {
            self.sites.charge(site, cost, now);
        }
    }
}

/// Keeps the limits of one server.
pub(crate) struct Guard {
    pub(crate) settings: AddressLimits,
    /// Limits go by a clock that is never set.
    start: Instant,
    pairs: Mutex<Vec<Pair>>,
    tickets: Mutex<Tickets>,
    pub(crate) connections: Places<Address>,
    requests: Places<Address>,
    streams: Places<Address>,
    readers: Places<Address>,
    hasher: std::hash::RandomState,
}

/// What can be held at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Held {
    Request,
    Stream,
    Reader,
}

impl Guard {
    pub(crate) fn new(settings: &AddressLimits, key: TicketKey) -> Self {
        Self {
            start: Instant::now(),
            pairs: Mutex::new(Surface::ALL.iter().map(|surface| Pair::new(surface.rate(settings))).collect()),
            tickets: Mutex::new(Tickets::new(key)),
            settings: settings.clone(),
            connections: Places::new(),
            requests: Places::new(),
            streams: Places::new(),
            readers: Places::new(),
            hasher: std::hash::RandomState::new(),
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn pairs(&self) -> MutexGuard<'_, Vec<Pair>> {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits something that costs one of each of these rates, or nothing.
    pub(crate) fn take(&self, surfaces: &[Surface], address: Address) -> Result<(), Refusal> {
        let now = self.now();
        let mut pairs = self.pairs();
        for surface in surfaces {
            // There is one for each.
            let Some(pair) = pairs.get(*surface as usize) else { continue };
            pair.check(address, 1, now)
                .map_err(|(rate, wait)| refusal(&format!("{} from one network", surface.what()), rate, wait))?;
        }
        for surface in surfaces.iter().filter(|surface| **surface != Surface::ReceivedBytes) {
            if let Some(pair) = pairs.get_mut(*surface as usize) {
                pair.charge(address, 1, now);
            }
        }
        Ok(())
    }

    /// Uses one call of a ticket, in place of what [`take`](Self::take) refused.
    pub(crate) fn spend(&self, ticket: &str, now: Timestamp) -> Result<(), TicketError> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner).spend(ticket, now)
    }

    /// Notes bytes that came.
    pub(crate) fn received(&self, address: Address, bytes: u64) {
        let now = self.now();
        if let Some(pair) = self.pairs().get_mut(Surface::ReceivedBytes as usize) {
            pair.charge(address, bytes, now);
        }
    }

    /// Holds a place of those that one address may have at a time.
    pub(crate) fn hold(&self, what: Held, address: Address) -> Result<Place<Address>, Refusal> {
        let (name, places, max) = match what {
            Held::Request => ("requests", &self.requests, self.settings.requests),
            Held::Stream => ("streams", &self.streams, self.settings.streams),
            Held::Reader => ("readers of blobs", &self.readers, self.settings.readers),
        };
        places.take(address, max).ok_or_else(|| {
            let message = format!(
                "more {name} at a time from one network address than are served ({max}): end some, or try again \
                 later, or ask the operator for a higher limit"
            );
            Refusal::new(Code::RateLimited, message).with("retry_after_ms", CROWDED_MS)
        })
    }

    /// How the Delivery Service tells an address from others.
    pub(crate) fn origin(&self, address: Address) -> Origin {
        Origin(std::hash::BuildHasher::hash_one(&self.hasher, address))
    }

    /// Drops what is no longer needed.
    pub(crate) fn forget(&self, time: Timestamp) {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner).forget_expired(time);
        let now = self.now();
        for pair in self.pairs().iter_mut() {
            pair.addresses.forget_full(now);
            pair.sites.forget_full(now);
        }
    }

    /// How many buckets are in use.
    pub(crate) fn buckets(&self) -> usize {
        self.pairs().iter().map(|pair| pair.addresses.len() + pair.sites.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard_of(settings: AddressLimits) -> Guard {
        Guard::new(&settings, TicketKey::new([0; 32]))
    }

    fn guard() -> Guard {
        guard_of(AddressLimits { links: Rate::per_minute(2, 1), ..AddressLimits::none() })
    }

    fn link(guard: &Guard, ip: &str) -> Result<(), Refusal> {
        guard.take(&[Surface::Calls, Surface::Links], Address::of(ip.parse().unwrap()))
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_is_limited_and_recovers_and_others_feel_nothing() {
        let guard = guard();
        for _ in 0..2 {
            link(&guard, "192.0.2.1").unwrap();
        }
        let refusal = link(&guard, "192.0.2.1").unwrap_err();
        assert_eq!((refusal.code, refusal.number("retry_after_ms")), (Code::RateLimited, Some(60_000)));
        assert!(refusal.message.contains("links") && refusal.message.contains("2 + 1/min"), "{refusal}");
        link(&guard, "192.0.2.2").unwrap();
        tokio::time::advance(std::time::Duration::from_secs(60)).await;
        link(&guard, "192.0.2.1").unwrap();
        tokio::time::advance(std::time::Duration::from_secs(600)).await;
        guard.forget(Timestamp(0));
        assert_eq!(guard.buckets(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_site_of_ipv6_has_sixteen_times_the_rate_however_many_networks_it_uses() {
        let guard = guard();
        let admitted = (0..100).filter(|n| link(&guard, &format!("2001:db8:0:{n:x}::1")).is_ok()).count();
        assert_eq!(admitted, 32);
        link(&guard, "2001:db8:1::1").unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn received_bytes_are_an_overdraft_for_the_next() {
        let guard = guard_of(AddressLimits { received_bytes: Rate::per_second(100, 10), ..AddressLimits::none() });
        let address = Address::of("192.0.2.1".parse().unwrap());
        guard.take(&[Surface::ReceivedBytes], address).unwrap();
        guard.received(address, 110);
        assert_eq!(
            guard.take(&[Surface::ReceivedBytes], address).unwrap_err().number("retry_after_ms"),
            Some(100),
            "the burst is the most that one call owes"
        );
    }
}
