//! That no key is used twice, seen from where keys are used: everything that clients seal is looked at, and what leaves a device is held
//! against what left any before.
//!
//! The key of a PrivateMessage is used once (RFC 9420, section 9.1), be it a message's, a proposal's or a commit's. An entry of a channel
//! is an MLS message under a seal of the group's; both ciphertexts are found by their ends. What was sealed and never left, because the
//! device died before, may be sealed anew by the same key.

use std::collections::BTreeMap;

use conclave_channel::{Body, Entry, chain, size_class};
use conclave_engine::group::SubmissionBody;
use conclave_mls::crypto::hostile::{SealWatch, Sealed};
use conclave_names::Hash;

use crate::network::Stop;

/// Bytes by which a ciphertext is found: those of its tag.
const TAG: usize = 16;

/// The keys of all clients of one simulation.
#[derive(Debug)]
pub(crate) struct Keys {
    watch: SealWatch,
    by_tag: BTreeMap<[u8; TAG], Sealed>,
    /// What each key encrypted that has left a device, by its hash.
    used: BTreeMap<[u8; 32], Hash>,
    /// Handshakes among what left.
    pub(crate) handshakes: u64,
}

fn tag(bytes: &[u8]) -> Option<[u8; TAG]> {
    bytes.last_chunk::<TAG>().copied()
}

impl Keys {
    /// Begins to look at what this thread seals.
    pub(crate) fn watch() -> Self {
        Self { watch: SealWatch::begin(), by_tag: BTreeMap::new(), used: BTreeMap::new(), handshakes: 0 }
    }

    /// Takes what leaves a device, whether or not it arrives.
    pub(crate) fn leaves(&mut self, client: usize, body: &SubmissionBody, blobs: &[Vec<u8>]) -> Result<(), Stop> {
        for seal in self.watch.take() {
            if let Some(tag) = tag(&seal.ciphertext) {
                self.by_tag.insert(tag, seal);
            }
        }
        let (entry, handshake) = match body {
            SubmissionBody::Entry(request) => (&request.entry, false),
            SubmissionBody::Bundle(bundle) => (&bundle.entry, true),
        };
        let Ok(entry) = Entry::parse(entry) else { return Ok(()) };
        let sealed = match &entry.body {
            Body::Inline(sealed) => Some(sealed),
            Body::Staged { hash, .. } => blobs.iter().find(|blob| chain::entry_hash(blob) == *hash),
        };
        let Some(inner) = sealed.and_then(|sealed| self.find(sealed)).map(|outer| outer.plaintext.clone()) else {
            return Ok(());
        };
        let Ok(message) = size_class::unpad(inner) else { return Ok(()) };
        // Of visible handshakes, which are not encrypted, nothing is found.
        let Some(seal) = self.find(&message) else { return Ok(()) };
        let (key, encrypted) = (seal.key, chain::entry_hash(&seal.ciphertext));
        if *self.used.entry(key).or_insert(encrypted) != encrypted {
            let (kind, epoch) = (entry.kind, entry.epoch);
            return Err(Stop::violation(format!("client {client} uses a key of epoch {epoch} twice, for a {kind:?}")));
        }
        self.handshakes += u64::from(handshake);
        Ok(())
    }

    /// What was sealed, by what ends with it.
    fn find(&self, bytes: &[u8]) -> Option<&Sealed> {
        self.by_tag.get(&tag(bytes)?).filter(|seal| bytes.ends_with(&seal.ciphertext))
    }
}
