//! Who speaks: the clients at the leaves that messages came from, so that a thousand messages of one member take one look at its
//! certificate.

use std::collections::BTreeMap;

use conclave_names::ClientUri;
use zeroize::Zeroizing;

use super::Group;
use crate::mls_client::MlsError;

/// Members that are remembered at most.
const SPEAKERS: usize = 1024;

/// Of one epoch. Not stored: it is read again from the tree.
#[derive(Default)]
pub(super) struct Speakers {
    /// Names the epoch, whichever way it came about: a tree belongs to one only (RFC 9420, section 8.7).
    authenticator: Zeroizing<Vec<u8>>,
    clients: BTreeMap<u32, ClientUri>,
}

impl Group {
    /// The client at a leaf of the present epoch, from which a message came.
    pub(super) fn speaker(&mut self, index: u32) -> Result<ClientUri, MlsError> {
        let authenticator = self.mls.epoch_authenticator()?;
        if *self.speakers.authenticator != *authenticator.as_bytes() {
            self.speakers =
                Speakers { authenticator: Zeroizing::new(authenticator.as_bytes().to_vec()), clients: BTreeMap::new() };
        }
        if let Some(client) = self.speakers.clients.get(&index) {
            return Ok(client.clone());
        }
        let client = self.client_at(index)?;
        if self.speakers.clients.len() >= SPEAKERS {
            self.speakers.clients.clear();
        }
        self.speakers.clients.insert(index, client.clone());
        Ok(client)
    }
}
