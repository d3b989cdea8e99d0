//! Groups with visible handshakes: commits and proposals are PublicMessages that the DS reads and judges before it orders
//! them (RFC 9750, sections 5.2.1 and 6.4). Messages stay as they are in private groups.

use conclave_channel::{Entry, EntryKind, chain};
use conclave_mls::{
    components::HandshakeMode,
    identity::{self, Identities},
};
use conclave_names::{ClientUri, Epoch, Hash, Timestamp};
use mls_rs::{
    ExtensionList, IdentityProvider, MlsMessage, MlsMessageDescription,
    extension::built_in::ExternalSendersExt,
    group::{
        ContentType, Sender,
        proposal::{AddProposal, Proposal},
    },
    identity::SigningIdentity,
};
use mls_rs_codec::MlsEncode;

use super::{Group, access::fault};
use crate::{
    mls_client::{MlsError, mls_time},
    outcome::{ProposedChange, Rejection},
};

/// How a group's handshakes travel.
#[derive(Debug, Clone, Default)]
pub enum Handshakes {
    /// Encrypted and sealed: the DS sees kind, epoch and size class.
    #[default]
    Private,
    /// In the clear: the DS follows the group.
    Visible {
        /// Who may propose without being a member: certified clients, by certificate and signature key.
        external_senders: Vec<SigningIdentity>,
    },
}

impl Handshakes {
    pub(super) const fn mode(&self) -> HandshakeMode {
        match self {
            Self::Private => HandshakeMode::Private,
            Self::Visible { .. } => HandshakeMode::Visible,
        }
    }

    /// Writes the external senders into a GroupContext, if there are any.
    pub(super) fn extend(
        &self,
        context: &mut ExtensionList,
        identities: &Identities,
        now: Timestamp,
    ) -> Result<(), MlsError> {
        let Self::Visible { external_senders } = self else { return Ok(()) };
        for sender in external_senders {
            identities.validate_external_sender(sender, Some(mls_time(now)), None).map_err(fault)?;
        }
        if !external_senders.is_empty() {
            context.set_from(ExternalSendersExt::new(external_senders.clone())).map_err(fault)?;
        }
        Ok(())
    }
}

impl Group {
    /// Whether the DS reads the group's handshakes.
    #[must_use]
    pub fn is_visible(&self) -> bool {
        self.profile.mode == HandshakeMode::Visible
    }

    /// Who may propose without being a member, in the order of the GroupContext.
    #[must_use]
    pub fn external_senders(&self) -> Vec<ClientUri> {
        let senders: Option<ExternalSendersExt> = self.mls.context().extensions().get_as().ok().flatten();
        let senders = senders.map(|senders| senders.allowed_senders).unwrap_or_default();
        senders.iter().filter_map(|sender| Some(identity::read(sender).ok()?.client().clone())).collect()
    }

    /// SHA-256 of the encoded GroupContext (RFC 9420, section 8.1): equal for who agrees on the group's public state, the
    /// DS of a visible group included.
    ///
    /// # Errors
    /// [`MlsError`] never in practice.
    pub fn context_hash(&self) -> Result<Hash, MlsError> {
        Ok(chain::entry_hash(&self.mls.context().mls_encode_to_vec().map_err(fault)?))
    }

    /// The GroupInfo by which the DS begins to follow a group that was just made. None for a private one.
    ///
    /// # Errors
    /// [`MlsError`] never in practice.
    pub fn first_group_info(&self) -> Result<Option<Vec<u8>>, MlsError> {
        if !self.is_visible() || self.epoch() != Epoch(0) {
            return Ok(None);
        }
        Ok(Some(self.mls.group_info_message_allowing_ext_commit(true)?.to_bytes()?))
    }

    /// Reads a handshake of a visible group, and checks that it is what its entry says outside.
    pub(super) fn open_visible(&self, entry: &Entry, bytes: &[u8]) -> Result<MlsMessage, Rejection> {
        let message = MlsMessage::from_bytes(bytes).map_err(|_| Rejection::Mismatch)?;
        match message.description() {
            MlsMessageDescription::PublicProtocolMessage { group_id, epoch_id, content_type, sender, .. }
                if group_id == self.mls.group_id()
                    && epoch_id == entry.epoch.0
                    && matches!(
                        (entry.kind, content_type, sender),
                        (EntryKind::Commit, ContentType::Commit, Sender::Member(_) | Sender::NewMemberCommit)
                            | (EntryKind::Proposal, ContentType::Proposal, Sender::Member(_) | Sender::External(_))
                    ) => {}
            _ => return Err(Rejection::Mismatch),
        }
        Ok(message)
    }

    /// What a proposal is to change, for people.
    pub(super) fn describe(&self, proposal: &Proposal) -> ProposedChange {
        let added = |add: &AddProposal| Some(identity::read(add.signing_identity()).ok()?.client().clone());
        let named = match proposal {
            Proposal::Add(add) => added(add).map(ProposedChange::Add),
            Proposal::Remove(remove) => self.client_at(remove.to_remove()).ok().map(ProposedChange::Remove),
            _ => None,
        };
        named.unwrap_or(ProposedChange::Other)
    }
}
