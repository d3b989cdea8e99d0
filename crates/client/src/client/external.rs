//! Proposing changes to a group without being a member of it.

use conclave_channel::{Body, Entry, EntryKind};
use conclave_mls::{
    crypto,
    external_sender::{Request, Target, propose},
};
use conclave_names::{ChannelId, Epoch, GroupUri, Seq};
use conclave_protocol::{Code, v1};

use mls_rs::identity::SigningIdentity;

use super::{Client, ClientError, register::random};
use crate::transport::{CallError, Signer};

/// Epochs that may pass while a proposal is on its way.
const ATTEMPTS: usize = 8;

/// A visible group that lists this client as an external sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The group.
    pub group: GroupUri,
    /// Its channel.
    pub channel: ChannelId,
    /// This client's place in the list.
    pub sender: u32,
    /// The group's cipher suite.
    pub cipher_suite: u16,
}

impl Client {
    /// How this client signs in MLS: what a group lists it by as an external sender. It lasts as long as
    /// the signature key.
    #[must_use]
    pub fn signing_identity(&self) -> SigningIdentity {
        self.account.signing_identity()
    }

    /// Proposes a change to a group with visible handshakes that lists this client as an external sender (RFC 9420,
    /// section 12.1.8.1). A member that is online commits it. Gives the proposal's place in the channel.
    ///
    /// # Errors
    /// A refusal ACCESS_REFUSED if the group does not list this client's key, HANDSHAKE_REFUSED if MLS or the group's
    /// policy refuses the change.
    pub async fn propose_externally(&mut self, listing: &Listing, request: &Request) -> Result<Seq, ClientError> {
        let refused = |error: &dyn std::fmt::Display| ClientError::Dropped(error.to_string());
        let suite = crypto::suite_by_number(listing.cipher_suite).and_then(crypto::suite);
        let suite = suite.map_err(|error| refused(&error))?;
        let signer = Signer::bare(&self.account.signature_key);
        // The DS tells the epoch to those whom the group lists.
        let mut epoch = Epoch(0);
        for _ in 0..ATTEMPTS {
            let target = Target { group: listing.group.clone(), epoch, sender: listing.sender };
            let message = propose(&suite, signer.key, &target, request).map_err(|error| refused(&error))?;
            let entry = Entry::new(EntryKind::Proposal, epoch, Body::Inline(message));
            let body = v1::SubmitExternalProposalRequest {
                channel: listing.channel.to_vec(),
                idempotency_key: random::<16>()?.to_vec(),
                entry: entry.to_bytes().map_err(|error| refused(&error))?,
            };
            match self.delivery.submit_external_proposal(&signer, &body).await {
                Ok(reply) => return Ok(Seq(reply.seq)),
                Err(CallError::Refused(refusal)) if refusal.code == Code::EpochStale => match refusal.number("epoch") {
                    Some(current) if current != epoch.0 => epoch = Epoch(current),
                    _ => return Err(CallError::Refused(refusal).into()),
                },
                Err(error) => return Err(error.into()),
            }
        }
        Err(ClientError::Unconfirmed)
    }
}
