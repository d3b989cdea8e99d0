//! What people see of a group.

use conclave_channel::Position;
use conclave_mls::{capabilities::Capabilities, identity};
use conclave_names::{ClientUri, Epoch, Hash, UserUri};
use mls_rs::{MlsMessage, extension::built_in::RequiredCapabilitiesExt, identity::SigningIdentity};
use serde::Serialize;

use super::{
    Group,
    access::{each_member, fault},
    commit::as_add,
};
use crate::{
    intent::{Intent, Wish},
    mls_client::{MlsError, MlsGroup},
};

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Its leaf.
    pub index: u32,
    /// The client.
    pub client: ClientUri,
    /// The user.
    pub user: UserUri,
    /// The user's public identity key, as the member's credential has it.
    pub identity_key: Hash,
    /// Whether this is us.
    pub own: bool,
    /// Whether we know that it takes part (RFC 9750, section 3.7): false of a member that was added since we joined and has
    /// said and done nothing yet, so that its Welcome may have been lost.
    pub confirmed: bool,
}

pub(super) fn client_of(signing_identity: &SigningIdentity) -> Result<ClientUri, MlsError> {
    Ok(identity::read(signing_identity).map_err(fault)?.client().clone())
}

/// The client at a leaf.
pub(super) fn client_in(mls: &MlsGroup, index: u32) -> Result<ClientUri, MlsError> {
    let member = mls.member_at_index(index).ok_or_else(|| fault("no such leaf"))?;
    client_of(&member.signing_identity)
}

/// The members' clients.
pub(super) fn clients_of(mls: &MlsGroup) -> impl Iterator<Item = ClientUri> {
    // No admitted certificate fails to parse.
    mls.roster().members().into_iter().filter_map(|member| client_of(&member.signing_identity).ok())
}

impl Group {
    /// The members of the present epoch, by leaf.
    ///
    /// # Errors
    /// [`MlsError`] if a member's certificate does not parse, which no admitted one does.
    pub fn members(&self) -> Result<Vec<Member>, MlsError> {
        let mut members = Vec::new();
        let mut refused = Ok(());
        each_member(&self.mls.export_tree(), |index, identity, _| {
            refused = identity::read(identity).map(|leaf| {
                members.push(Member {
                    index,
                    client: leaf.client().clone(),
                    user: leaf.user().clone(),
                    identity_key: Hash::new(leaf.identity_key()),
                    own: index == self.mls.current_member_index(),
                    confirmed: !self.unconfirmed.contains_key(leaf.client()),
                });
            });
            refused.is_ok()
        });
        refused.map_err(fault)?;
        Ok(members)
    }

    /// Equal for all members that agree on the epoch, and for nobody else (RFC 9420, section 8.7).
    ///
    /// # Errors
    /// [`MlsError`] never in practice.
    pub fn epoch_authenticator(&self) -> Result<Vec<u8>, MlsError> {
        Ok(self.mls.epoch_authenticator()?.as_bytes().to_vec())
    }

    /// The number of the group's cipher suite.
    #[must_use]
    pub fn cipher_suite(&self) -> u16 {
        self.mls.cipher_suite().into()
    }

    /// What the group requires of its members' leaves.
    ///
    /// # Errors
    /// [`MlsError`] if the extension does not decode, which no admitted commit leaves behind.
    pub fn required_capabilities(&self) -> Result<Capabilities, MlsError> {
        let context = self.mls.context();
        let required = context.extensions.get_as::<RequiredCapabilitiesExt>().map_err(fault)?.unwrap_or_default();
        Ok(Capabilities::required_by(&required, context.protocol_version.raw_value()))
    }

    /// What the group requires and the leaf of a KeyPackage (an MLSMessage) does not have: whoever is to be added has to
    /// have all of it.
    ///
    /// # Errors
    /// [`MlsError`] if it is no KeyPackage.
    pub fn lacking(&self, key_package: &[u8]) -> Result<Capabilities, MlsError> {
        let message = MlsMessage::from_bytes(key_package)?;
        let package = message.as_key_package().ok_or_else(|| fault("not a KeyPackage"))?;
        let leaf = Capabilities::of_leaf(&as_add(package)?.capabilities());
        Ok(leaf.missing(&self.required_capabilities()?))
    }

    /// Our place in the channel.
    #[must_use]
    pub fn position(&self) -> Position {
        self.window.position()
    }

    /// The first epoch that this client can read.
    #[must_use]
    pub fn joined_in(&self) -> Epoch {
        self.joined
    }

    /// Changes under way.
    pub fn intents(&self) -> impl Iterator<Item = &Intent> {
        self.intents.values()
    }

    /// Whether the channel has our request to leave, which somebody has yet to commit.
    #[must_use]
    pub fn is_asked_to_leave(&self) -> bool {
        self.intents.values().any(|intent| intent.ordered && intent.wish == Wish::Leave)
    }

    /// Whether proposals wait for a commit, so that no message can be made.
    #[must_use]
    pub fn waits_for_commit(&self) -> bool {
        self.mls.commit_required()
    }

    /// The client at a leaf of the present epoch.
    pub(super) fn client_at(&self, index: u32) -> Result<ClientUri, MlsError> {
        client_in(&self.mls, index)
    }
}
