//! Requests in an open session (`conclave.v1.SessionRequest`): one HMAC each.

use conclave_names::SessionId;
use hmac::{Hmac, KeyInit, Mac};
use prost::Message;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{Code, Refusal, v1::SessionRequest};

/// Domain separation of the MAC.
const LABEL: &[u8] = b"conclave/v1/session-request\0";

/// How many requests may overtake one another.
const WINDOW: u64 = 64;

/// Why a session request is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// A field is missing or has the wrong length.
    #[error("the session request does not decode: {0}")]
    Malformed(&'static str),
    /// No such session, or its key is another: to the caller both look the same.
    #[error("no such session: open a new one")]
    Unknown,
    /// The counter was used before or lies too far back.
    #[error("the session's counter was used before: send the request again with a new one")]
    Replayed,
}

impl From<SessionError> for Refusal {
    fn from(error: SessionError) -> Self {
        let code = match error {
            SessionError::Malformed(_) => Code::Malformed,
            SessionError::Unknown => Code::SessionUnknown,
            SessionError::Replayed => Code::RequestReplayed,
        };
        Self::new(code, error.to_string())
    }
}

/// The key of a session's MACs.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SessionKey([u8; 32]);

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionKey(..)")
    }
}

impl SessionKey {
    /// From 32 random bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// From a field of a message.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, SessionError> {
        bytes.try_into().map(Self).map_err(|_| SessionError::Malformed("`mac_key` is not 32 bytes"))
    }

    /// Its bytes, for the one message that hands it to the client.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    fn mac(&self, method: &str, session: &[u8], counter: u64, body: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.0).ok()?;
        mac.update(LABEL);
        mac.update(&u16::try_from(method.len()).ok()?.to_be_bytes());
        mac.update(method.as_bytes());
        mac.update(session);
        mac.update(&counter.to_be_bytes());
        mac.update(body);
        Some(mac)
    }

    /// Authenticates an encoded request for one call.
    #[must_use]
    pub fn seal(&self, method: &str, session: SessionId, counter: u64, body: Vec<u8>) -> SessionRequest {
        // HMAC takes keys of any length and names of calls are short: the MAC always exists.
        let mac = self
            .mac(method, session.as_ref(), counter, &body)
            .map(|mac| mac.finalize().into_bytes().to_vec())
            .unwrap_or_default();
        SessionRequest { session: session.to_vec(), counter, body, mac }
    }

    /// Verifies that a request came from the holder of this key, in constant time. The counter is the caller's to
    /// check, after this.
    pub fn verify(&self, method: &str, request: &SessionRequest) -> Result<(), SessionError> {
        self.mac(method, &request.session, request.counter, &request.body)
            .ok_or(SessionError::Unknown)?
            .verify_slice(&request.mac)
            .map_err(|_| SessionError::Unknown)
    }
}

/// Names the session of a request.
pub fn session_of(request: &SessionRequest) -> Result<SessionId, SessionError> {
    request.session.as_slice().try_into().map_err(|_| SessionError::Malformed("`session` is not 16 bytes"))
}

/// Decodes the body of a verified request as the message that the call takes.
pub fn decode<M: Message + Default>(request: &SessionRequest) -> Result<M, SessionError> {
    M::decode(request.body.as_slice()).map_err(|_| SessionError::Malformed("the body is not the call's message"))
}

/// Which counters of a session were used: each one once, in nearly any order.
#[derive(Debug, Clone, Default)]
pub struct ReplayWindow {
    highest: u64,
    /// Bit i says whether `highest - i` was used.
    used: u64,
}

impl ReplayWindow {
    /// Notes a counter.
    ///
    /// # Errors
    /// [`SessionError::Replayed`] if it was noted before, is 0, or lies more than 63 behind the highest.
    pub fn note(&mut self, counter: u64) -> Result<(), SessionError> {
        if counter > self.highest {
            let ahead = counter - self.highest;
            self.used = if ahead >= WINDOW { 0 } else { self.used << ahead };
            self.used |= 1;
            self.highest = counter;
            return Ok(());
        }
        let behind = self.highest - counter;
        if counter == 0 || behind >= WINDOW || self.used & (1 << behind) != 0 {
            return Err(SessionError::Replayed);
        }
        self.used |= 1 << behind;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::method;

    const ID: SessionId = SessionId::new([4; 16]);

    #[test]
    fn a_mac_binds_call_session_counter_and_body() {
        let key = SessionKey::new([1; 32]);
        let request = key.seal(method::SUBMIT, ID, 1, b"body".to_vec());
        assert_eq!(key.verify(method::SUBMIT, &request), Ok(()));
        assert_eq!(key.verify(method::FETCH, &request), Err(SessionError::Unknown));
        assert_eq!(SessionKey::new([2; 32]).verify(method::SUBMIT, &request), Err(SessionError::Unknown));
        for change in [
            |r: &mut SessionRequest| r.counter += 1,
            |r: &mut SessionRequest| r.body.push(0),
            |r: &mut SessionRequest| r.session[0] ^= 1,
            |r: &mut SessionRequest| r.mac.truncate(16),
            |r: &mut SessionRequest| r.mac.clear(),
        ] {
            let mut changed = request.clone();
            change(&mut changed);
            assert_eq!(key.verify(method::SUBMIT, &changed), Err(SessionError::Unknown));
        }
    }

    #[test]
    fn debug_prints_no_key() {
        let shown = format!("{:?}", SessionKey::new([0xAB; 32]));
        assert_eq!(shown, "SessionKey(..)");
    }

    proptest! {
        #[test]
        fn the_window_admits_each_counter_at_most_once(counters in prop::collection::vec(0..200u64, 0..400)) {
            let mut window = ReplayWindow::default();
            let mut seen = BTreeSet::new();
            let mut highest = 0;
            for counter in counters {
                let admitted = window.note(counter).is_ok();
                let fresh = counter > 0 && !seen.contains(&counter);
                let near = counter + WINDOW > highest;
                prop_assert_eq!(admitted, fresh && near);
                if admitted {
                    seen.insert(counter);
                    highest = highest.max(counter);
                }
            }
        }
    }
}
