//! What the DS of a group with visible handshakes does: it follows the group as `conclave-delivery` does, orders no handshake that MLS or
//! the group's rules refuse, and serves the tree.

use std::{collections::BTreeMap, time::Duration};

use conclave_channel::{Entry, EntryKind, chain};
use conclave_mls::{
    credential::Issuers,
    crypto::{self, CryptoProvider},
    identity::Identities,
    rules::Rules,
};
use conclave_names::{Epoch, Hash, Timestamp};
use conclave_protocol::{Code, Refusal};
use mls_rs::{
    MlsMessage,
    external_client::{
        ExternalClient, ExternalGroup,
        builder::{ExternalBaseConfig, WithCryptoProvider, WithIdentityProvider, WithMlsRules},
    },
    time::MlsTime,
};

type Config =
    WithMlsRules<Rules, WithIdentityProvider<Identities, WithCryptoProvider<CryptoProvider, ExternalBaseConfig>>>;

/// A group as its DS follows it: in each epoch that may be the present one again, with the proposals that were ordered in it.
#[derive(Default)]
pub struct Visible(BTreeMap<Epoch, ExternalGroup<Config>>);

fn mls_time(time: Timestamp) -> MlsTime {
    MlsTime::from_duration_since_epoch(Duration::from_secs(time.as_secs()))
}

impl Visible {
    /// From a group's first GroupInfo, by a DS that believes whom its maker believes.
    pub fn begin(group_info: &[u8], issuers: Issuers) -> Self {
        let client = ExternalClient::builder()
            .crypto_provider(crypto::provider())
            .identity_provider(Identities::new(issuers))
            .mls_rules(Rules)
            .build();
        let message = MlsMessage::from_bytes(group_info).unwrap();
        let group = client.observe_group(message, None, None).unwrap();
        Self(BTreeMap::from([(Epoch(group.group_context().epoch()), group)]))
    }

    /// Whether it follows a group, and this is one of its handshakes.
    pub fn reads(&self, entry: &Entry) -> bool {
        !self.0.is_empty() && matches!(entry.kind, EntryKind::Commit | EntryKind::Proposal)
    }

    /// Follows a handshake. Gives the tree of the epoch that it begins, if it begins one.
    pub fn follow(
        &mut self,
        epoch: Epoch,
        message: &[u8],
        time: Timestamp,
    ) -> Result<Option<(Hash, Vec<u8>)>, Refusal> {
        let refused = |error: mls_rs::error::MlsError| Refusal::new(Code::HandshakeRefused, error.to_string());
        let mut next = self.0[&epoch].clone();
        let message = MlsMessage::from_bytes(message).map_err(refused)?;
        next.process_incoming_message_with_time(message, mls_time(time)).map_err(refused)?;
        let began = Epoch(next.group_context().epoch());
        let tree = next.export_tree().unwrap();
        self.0.insert(began, next);
        Ok((began != epoch).then(|| (chain::entry_hash(&tree), tree)))
    }

    /// The commits after this epoch are void.
    pub fn go_back(&mut self, epoch: Epoch) {
        self.0.retain(|of, _| *of <= epoch);
    }

    /// The tree of an epoch.
    pub fn tree(&self, epoch: Epoch) -> Vec<u8> {
        self.0[&epoch].export_tree().unwrap()
    }
}
