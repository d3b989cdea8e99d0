use std::{collections::HashMap, fmt};

use conclave_names::Timestamp;
use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Domain separation of the MAC.
const LABEL: &[u8] = b"conclave/v1/ticket\0";

/// Name, count and end of a ticket.
const CLAIMS: usize = 16 + 4 + 8;

const MAC: usize = 32;

/// Why a ticket admits nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// It was not made by this server's operator, or was changed.
    #[error("it is none of this server's")]
    Unknown,
    /// Its time is over.
    #[error("it has expired")]
    Expired,
    /// All of its calls were made.
    #[error("it is used up")]
    UsedUp,
}

/// The key under which a server's tickets are made.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct TicketKey([u8; 32]);

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKey(..)")
    }
}

impl TicketKey {
    /// From 32 random bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    fn mac(&self, claims: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.0).ok()?;
        mac.update(LABEL);
        mac.update(claims);
        Some(mac)
    }

    /// Makes a ticket, 80 characters: for `calls` calls until `expires`. Of its holder it says nothing.
    #[must_use]
    pub fn issue(&self, id: [u8; 16], calls: u32, expires: Timestamp) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([&id[..], &calls.to_be_bytes(), &expires.0.to_be_bytes()].concat());
        // HMAC takes keys of any length.
        if let Some(mac) = self.mac(&bytes) {
            bytes.extend_from_slice(&mac.finalize().into_bytes());
        }
        Zeroizing::new(BASE64URL_NOPAD.encode(&bytes))
    }

    fn open(&self, text: &str) -> Option<([u8; 16], u32, Timestamp)> {
        let bytes = Zeroizing::new(BASE64URL_NOPAD.decode(text.as_bytes()).ok()?);
        let (claims, mac) = bytes.split_at_checked(CLAIMS).filter(|(_, mac)| mac.len() == MAC)?;
        self.mac(claims)?.verify_slice(mac).ok()?;
        let (id, rest) = claims.split_first_chunk::<16>()?;
        let (calls, expires) = rest.split_first_chunk::<4>()?;
        Some((*id, u32::from_be_bytes(*calls), Timestamp(u64::from_be_bytes(expires.try_into().ok()?))))
    }
}

/// A server's tickets: each admits so many calls beyond what a rate does, whoever presents it. Used ones are remembered
/// until they expire, so there are never more than the operator made.
#[derive(Debug)]
pub struct Tickets {
    key: TicketKey,
    used: HashMap<[u8; 16], (u32, Timestamp)>,
}

impl Tickets {
    /// Of which none was used.
    #[must_use]
    pub fn new(key: TicketKey) -> Self {
        Self { key, used: HashMap::new() }
    }

    /// Uses one call of a ticket.
    ///
    /// # Errors
    /// Any [`TicketError`].
    pub fn spend(&mut self, text: &str, now: Timestamp) -> Result<(), TicketError> {
        let (id, calls, expires) = self.key.open(text).ok_or(TicketError::Unknown)?;
        if expires <= now {
            return Err(TicketError::Expired);
        }
        let (used, _) = self.used.entry(id).or_insert((0, expires));
        if *used >= calls {
            return Err(TicketError::UsedUp);
        }
        *used += 1;
        Ok(())
    }

    /// Forgets those that have expired.
    pub fn forget_expired(&mut self, now: Timestamp) {
        self.used.retain(|_, (_, expires)| *expires > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: Timestamp = Timestamp(1000);

    fn tickets() -> Tickets {
        Tickets::new(TicketKey::new([7; 32]))
    }

    fn ticket(id: u8, calls: u32) -> Zeroizing<String> {
        TicketKey::new([7; 32]).issue([id; 16], calls, END)
    }

    #[test]
    fn a_ticket_is_for_so_many_calls_and_so_long() {
        let mut tickets = tickets();
        let (one, other) = (ticket(1, 2), ticket(2, 1));
        assert_eq!(one.len(), 80);
        assert_eq!(tickets.spend(&one, Timestamp(0)), Ok(()));
        assert_eq!(tickets.spend(&one, Timestamp(999)), Ok(()));
        assert_eq!(tickets.spend(&one, Timestamp(999)), Err(TicketError::UsedUp));
        assert_eq!(tickets.spend(&other, Timestamp(1000)), Err(TicketError::Expired));
        assert_eq!(tickets.spend(&other, Timestamp(999)), Ok(()));
        tickets.forget_expired(Timestamp(999));
        assert_eq!(tickets.spend(&one, Timestamp(999)), Err(TicketError::UsedUp), "it is remembered until its end");
        tickets.forget_expired(END);
        assert!(tickets.used.is_empty());
        assert_eq!(tickets.spend(&one, END), Err(TicketError::Expired));
    }

    #[test]
    fn nobody_else_makes_or_changes_one_and_attempts_leave_nothing() {
        let mut tickets = tickets();
        let good = ticket(1, 2);
        let foreign = TicketKey::new([8; 32]).issue([1; 16], 2, END);
        let mut wrong = vec![String::new(), "x".repeat(80), foreign.to_string(), format!("{}A", &*good)];
        wrong.extend((0..good.len()).map(|at| good[..at].to_owned()));
        for at in 0..good.len() {
            let other = if &good[at..=at] == "A" { "B" } else { "A" };
            wrong.push(format!("{}{other}{}", &good[..at], &good[at + 1..]));
        }
        for text in wrong {
            assert_eq!(tickets.spend(&text, Timestamp(0)), Err(TicketError::Unknown), "{text}");
        }
        assert!(tickets.used.is_empty());
        assert_eq!(tickets.spend(&good, Timestamp(0)), Ok(()));
        assert_eq!(format!("{:?}", TicketKey::new([0xAB; 32])), "TicketKey(..)");
    }
}
