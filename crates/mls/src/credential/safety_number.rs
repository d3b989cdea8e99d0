//! What two people compare, to know that they have each other's identity keys and nobody else's.
//!
//! Exactly, for version 1, with `||` for concatenation and numbers big-endian:
//!
//! 1. Each side has a *fingerprint* of 64 bytes, from its user URI `u` and its Ed25519 public identity key `k`:
//!
//!    ```text
//!    f(0) = SHA-512("conclave/v1/safety-number" || 0x00 || u16(len(u)) || u || k)
//!    f(i) = SHA-512(f(i-1) || k)          for i = 1 ... 5200
//!    ```
//!
//!    and the fingerprint is f(5200). The repetition makes a key that fits given digits 5,200 times dearer to find.
//! 2. Bytes 0 to 29 of a fingerprint are six numbers of 5 bytes; each modulo 100,000, written with five digits, is a
//!    group. So a side has 30 digits.
//! 3. The two sides are sorted by (u, k), bytewise; the safety number is the 60 digits of the first and the second.
//! 4. The QR code holds the ASCII text `conclave-verify:1:` u₁ `,` u₂ `,` h, where h is, in 64 lower-case hexadecimal
//!    digits, SHA-256("conclave/v1/safety-qr" || 0x00 || fingerprint₁ || fingerprint₂), in the same order.

use std::fmt;

use conclave_names::{Hash, UserUri};
use sha2::{Digest, Sha256, Sha512};

const LABEL: &[u8] = b"conclave/v1/safety-number\0";
const QR_LABEL: &[u8] = b"conclave/v1/safety-qr\0";
const QR_PREFIX: &str = "conclave-verify:";
const QR_VERSION: &str = "1";
const ITERATIONS: usize = 5200;

/// Why a scanned code does not confirm a safety number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QrMismatch {
    /// Not a code of ours.
    #[error("this is not a verification code of Conclave: scan the one that the other person's `verify` shows")]
    NotACode,
    /// A code of another version.
    #[error("the code is of a version that is not known here: update the older of the two programs")]
    Version,
    /// A code between other users.
    #[error("the code is for other users: let the other person show the one for you")]
    OtherUsers,
    /// The right users, but somebody's identity key is not what the other believes.
    #[error(
        "the identity keys differ: somebody may be in between. Do not trust the conversation before it is cleared up"
    )]
    Keys,
}

/// The safety number between two users: the same for both, and another as soon as one identity key is another.
#[derive(Clone, PartialEq, Eq)]
pub struct SafetyNumber {
    digits: String,
    users: [UserUri; 2],
    hash: Hash,
}

impl SafetyNumber {
    /// Between two users with their Ed25519 public identity keys, in any order.
    #[must_use]
    pub fn between(a: (&UserUri, &[u8; 32]), b: (&UserUri, &[u8; 32])) -> Self {
        let name = |side: (&UserUri, &[u8; 32])| (side.0.to_string(), *side.1);
        let (first, second) = if name(a) <= name(b) { (a, b) } else { (b, a) };
        let (one, two) = (fingerprint(first), fingerprint(second));
        let hash = Sha256::new().chain_update(QR_LABEL).chain_update(one).chain_update(two).finalize();
        Self {
            digits: digits(&one) + &digits(&two),
            users: [first.0.clone(), second.0.clone()],
            hash: Hash::new(hash.into()),
        }
    }

    /// The 60 digits, without spaces.
    #[must_use]
    pub fn digits(&self) -> &str {
        &self.digits
    }

    /// The digits in 12 groups of 5, as people read them to one another.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        // Only digits are in it, so that every fifth byte is a border between characters.
        (0..self.digits.len()).step_by(5).filter_map(|at| self.digits.get(at..at + 5))
    }

    /// The text of the QR code. Both sides show the same.
    #[must_use]
    pub fn qr_payload(&self) -> String {
        let [one, two] = &self.users;
        format!("{QR_PREFIX}{QR_VERSION}:{one},{two},{}", self.hash)
    }

    /// Compares with a text that was scanned from the other person's screen.
    pub fn matches_qr(&self, scanned: &str) -> Result<(), QrMismatch> {
        let rest = scanned.trim().strip_prefix(QR_PREFIX).ok_or(QrMismatch::NotACode)?;
        let (version, rest) = rest.split_once(':').ok_or(QrMismatch::NotACode)?;
        if version != QR_VERSION {
            return Err(QrMismatch::Version);
        }
        let own = self.qr_payload();
        let own_users = own.rsplit_once(',').map(|(users, _)| users);
        let (users, hash) = rest.rsplit_once(',').ok_or(QrMismatch::NotACode)?;
        if hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(QrMismatch::NotACode);
        }
        if own_users != Some(&format!("{QR_PREFIX}{QR_VERSION}:{users}")) {
            return Err(QrMismatch::OtherUsers);
        }
        if scanned.trim() == own { Ok(()) } else { Err(QrMismatch::Keys) }
    }
}

impl fmt::Display for SafetyNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, group) in self.groups().enumerate() {
            let space = if place == 0 { "" } else { " " };
            write!(f, "{space}{group}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for SafetyNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SafetyNumber({self})")
    }
}

fn fingerprint((user, key): (&UserUri, &[u8; 32])) -> [u8; 64] {
    let user = user.to_string();
    // A user URI is shorter than 400 bytes.
    let len = u16::try_from(user.len()).unwrap_or(u16::MAX);
    let first = Sha512::new()
        .chain_update(LABEL)
        .chain_update(len.to_be_bytes())
        .chain_update(user.as_bytes())
        .chain_update(key)
        .finalize()
        .into();
    (0..ITERATIONS)
        .fold(first, |hash: [u8; 64], _| Sha512::new().chain_update(hash).chain_update(key).finalize().into())
}

fn digits(fingerprint: &[u8; 64]) -> String {
    let number = |chunk: &[u8]| chunk.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let groups = fingerprint.chunks_exact(5).take(6).map(|chunk| number(chunk) % 100_000);
    groups.fold(String::with_capacity(30), |text, group| text + &format!("{group:05}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserUri {
        format!("mimi://example.com/u/{name}").parse().unwrap()
    }

    #[test]
    fn both_sides_see_the_same() {
        let (alice, bob) = (user("alice"), user("bob"));
        let one = SafetyNumber::between((&alice, &[1; 32]), (&bob, &[2; 32]));
        let other = SafetyNumber::between((&bob, &[2; 32]), (&alice, &[1; 32]));
        assert_eq!(one, other);
        assert_eq!(one.digits().len(), 60);
        assert!(one.digits().bytes().all(|b| b.is_ascii_digit()));
        assert_eq!(one.groups().count(), 12);
        assert_eq!(one.to_string().len(), 71);
        assert_eq!(one.matches_qr(&other.qr_payload()), Ok(()));
    }

    #[test]
    fn every_name_and_key_counts() {
        let (alice, bob) = (user("alice"), user("bob"));
        let number = |a: &UserUri, k: u8, b: &UserUri, l: u8| SafetyNumber::between((a, &[k; 32]), (b, &[l; 32]));
        let base = number(&alice, 1, &bob, 2);
        for other in [
            number(&alice, 2, &bob, 1),
            number(&alice, 3, &bob, 2),
            number(&alice, 1, &bob, 3),
            number(&user("alicf"), 1, &bob, 2),
            number(&alice, 1, &user("bo"), 2),
        ] {
            assert_ne!(base.digits(), other.digits());
            assert_ne!(base.qr_payload(), other.qr_payload());
        }
    }

    /// Fixed for ever: programs of every version and language must show the same digits. Computed with Python's
    /// hashlib from the description above.
    #[test]
    fn known_answer() {
        let number = SafetyNumber::between((&user("alice"), &[1; 32]), (&user("bob"), &[2; 32]));
        assert_eq!(number.to_string(), "31413 74410 38557 55797 13454 83985 72445 26454 14567 27033 50774 09554");
        assert_eq!(
            number.qr_payload(),
            "conclave-verify:1:mimi://example.com/u/alice,mimi://example.com/u/bob,88ed9f846c7c6f64fee0c1cd4a93e743e50709c9c49a8c97ea7fe29fbe35836b"
        );
    }

    #[test]
    fn what_is_scanned_is_judged_with_a_reason() {
        let (alice, bob) = (user("alice"), user("bob"));
        let number = SafetyNumber::between((&alice, &[1; 32]), (&bob, &[2; 32]));
        let judge = |text: &str| number.matches_qr(text).unwrap_err();
        let forged = SafetyNumber::between((&alice, &[1; 32]), (&bob, &[9; 32]));
        assert_eq!(judge(&forged.qr_payload()), QrMismatch::Keys);
        let others = SafetyNumber::between((&alice, &[1; 32]), (&user("carol"), &[2; 32]));
        assert_eq!(judge(&others.qr_payload()), QrMismatch::OtherUsers);
        assert_eq!(judge(&number.qr_payload().replace(":1:", ":2:")), QrMismatch::Version);
        assert_eq!(judge(&number.qr_payload()[..70]), QrMismatch::NotACode);
        for text in ["", "conclave-verify:", "conclave-verify:1:", "https://example.com", "conclave-verify:1:a,b,c"] {
            assert_eq!(judge(text), QrMismatch::NotACode, "{text}");
        }
    }
}
