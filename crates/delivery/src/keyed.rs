//! Hashes under the server's secret, so that what is stored to be recognised cannot be read or linked.

use conclave_protocol::{Code, Refusal};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::store::{KeyedHash, Tx};

/// What is hashed. Each purpose has a label of its own, so that hashes of different rows never meet.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    /// The nonce of a signed request.
    Nonce,
    /// Who submits into a channel.
    Submitter,
    /// Who claims KeyPackages.
    Claimer,
    /// Who uploads KeyPackages.
    Uploader,
    /// The reference of a KeyPackage that was served.
    Claimed,
    /// A drop token.
    Drop,
    /// The channel whose quota a staged blob counts for.
    Staging,
    /// The seed of the key that signs receipts.
    Receipts,
}

impl Purpose {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Nonce => b"nonce",
            Self::Submitter => b"submitter",
            Self::Claimer => b"claimer",
            Self::Uploader => b"uploader",
            Self::Claimed => b"claimed",
            Self::Drop => b"drop",
            Self::Staging => b"staging",
            Self::Receipts => b"receipts",
        }
    }
}

/// The server's secret.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct Keyed([u8; 32]);

impl Keyed {
    /// Reads the secret, and makes it at the first time.
    pub(crate) fn of(tx: &mut dyn Tx) -> Result<Self, Refusal> {
        if let Some(secret) = tx.server_secret()? {
            return Ok(Self(secret));
        }
        let made = Self(random()?);
        tx.put_server_secret(&made.0)?;
        Ok(made)
    }

    /// Hashes what identifies a row.
    pub(crate) fn hash(&self, purpose: Purpose, parts: &[&[u8]]) -> KeyedHash {
        // HMAC takes keys of any length.
        let Ok(mut mac) = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.0) else { return [0; 32] };
        for part in [purpose.label()].iter().chain(parts) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

/// Random bytes of the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Refusal> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| {
        Refusal::new(Code::Unavailable, "the server's operating system gives no random bytes: try again later")
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryStore;

    #[test]
    fn the_secret_is_made_once_and_hashes_differ_by_purpose_and_parts() {
        let mut store = MemoryStore::new();
        let hash = |store: &mut MemoryStore, purpose, parts: &[&[u8]]| {
            store.write(|tx| Ok::<_, Refusal>(Keyed::of(tx)?.hash(purpose, parts))).unwrap()
        };
        let first = hash(&mut store, Purpose::Nonce, &[b"ab", b"c"]);
        assert_eq!(first, hash(&mut store, Purpose::Nonce, &[b"ab", b"c"]));
        assert_ne!(first, hash(&mut store, Purpose::Nonce, &[b"a", b"bc"]));
        assert_ne!(first, hash(&mut store, Purpose::Drop, &[b"ab", b"c"]));
        assert_ne!(first, hash(&mut MemoryStore::new(), Purpose::Nonce, &[b"ab", b"c"]));
    }
}
