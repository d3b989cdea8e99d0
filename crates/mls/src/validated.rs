//! Credentials that were validated before: what does not depend on the time need not be verified twice.
//!
//! A leaf is judged when its KeyPackage is added, when the commit is applied, and for our own checks; each time its
//! certificate would be parsed and two signatures verified. What is kept is the outcome of everything but lifetimes, by the
//! hash of the certificate, for as long as the issuers stay the same.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::credential::ClientIdentity;

/// Credentials of a generation. There are two, so that what is used stays: some 5 MB at most.
const GENERATION: usize = 8192;

/// Hash of a certificate.
pub(crate) type Name = [u8; 32];

pub(crate) fn name_of(certificate: &[u8]) -> Name {
    Sha256::digest(certificate).into()
}

/// Validated credentials.
#[derive(Debug, Default)]
pub(crate) struct Validated {
    young: HashMap<Name, ClientIdentity>,
    old: HashMap<Name, ClientIdentity>,
}

impl Validated {
    pub(crate) fn get(&self, name: &Name) -> Option<&ClientIdentity> {
        self.young.get(name).or_else(|| self.old.get(name))
    }

    pub(crate) fn insert(&mut self, name: Name, identity: ClientIdentity) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(name, identity);
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use conclave_names::Timestamp;

    use super::*;
    use crate::credential::KeyId;

    #[test]
    fn it_is_bounded_and_keeps_what_came_last() {
        let identity = ClientIdentity {
            user: "mimi://example.com/u/alice".parse().unwrap(),
            client: "mimi://example.com/d/alice/laptop".parse().unwrap(),
            identity_key: [1; 32],
            signature_key: [2; 32],
            not_before: Timestamp(0),
            not_after: Timestamp(1),
            issuer: KeyId([3; 20]),
        };
        let mut validated = Validated::default();
        let name = |number: usize| name_of(&number.to_be_bytes());
        for number in 0..3 * GENERATION {
            validated.insert(name(number), identity.clone());
            assert!(validated.get(&name(number)).is_some());
        }
        assert!(validated.young.len() + validated.old.len() <= 2 * GENERATION);
        assert!((2 * GENERATION..3 * GENERATION).all(|number| validated.get(&name(number)).is_some()));
        assert!(validated.get(&name(0)).is_none());
    }
}
