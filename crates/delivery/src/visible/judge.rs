//! What may come next in a followed group.

use conclave_channel::{CommitHeader, EntryKind, Position, access::ChannelKey};
use conclave_mls::{
    address::DeliveryAddress,
    components::{ChannelKeyExtension, HandshakeAad, roster_keys},
    credential::same_client,
    crypto,
    proposal::{check_sender, check_update},
    rules::{PolicyError, judge, judge_key, share_key},
};
use conclave_names::Timestamp;
use mls_rs::{
    MlsMessage, MlsMessageDescription,
    error::MlsError,
    extension::ExtensionType,
    external_client::{ExternalGroup, ExternalReceivedMessage},
    group::{
        CachedProposal, CommitEffect, CommitMessageDescription, ContentType, Member, ProposalMessageDescription,
        Sender, proposal::Proposal,
    },
};
use mls_rs_codec::MlsEncode;

use super::{
    follower::{Config, Followed, Follower, Handshake, Source, mls_time},
    refused::HandshakeError,
    trust::Awake,
};

impl Followed {
    /// Checks the frame of a message: format, group, epoch, kind.
    fn parse(&self, handshake: &Handshake<'_>, kind: EntryKind) -> Result<(MlsMessage, Sender), HandshakeError> {
        let (name, wanted) = match kind {
            EntryKind::Commit => ("Commit", ContentType::Commit),
            _ => ("Proposal", ContentType::Proposal),
        };
        let message = MlsMessage::from_bytes(handshake.message).map_err(|_| HandshakeError::Format(name))?;
        let MlsMessageDescription::PublicProtocolMessage { group_id, epoch_id, content_type, sender, .. } =
            message.description()
        else {
            return Err(HandshakeError::Format(name));
        };
        if group_id != self.group.group_context().group_id() || content_type != wanted {
            return Err(HandshakeError::Format(name));
        }
        if epoch_id != handshake.epoch.0 {
            return Err(HandshakeError::Epoch(handshake.epoch));
        }
        Ok((message, sender))
    }

    /// Judges a commit and the GroupInfo of the epoch that it begins. Gives the group in that epoch.
    pub(crate) fn commit(
        &self,
        handshake: &Handshake<'_>,
        header: &CommitHeader,
        group_info: &[u8],
    ) -> Result<Self, HandshakeError> {
        let (message, sender) = self.parse(handshake, EntryKind::Commit)?;
        check_references(self, &message)?;
        let mut group = self.group.clone();
        let received = group.process_incoming_message_with_time(message, mls_time(handshake.time))?;
        let ExternalReceivedMessage::Commit(description) = received else {
            return Err(HandshakeError::Format("Commit"));
        };
        let (position, aad) = HandshakeAad::of_commit(&description.authenticated_data)?;
        check_position(&position, &handshake.head)?;
        let removed = removals(&description)?;
        let outside = !matches!(sender, Sender::Member(_));
        if outside && (aad.renews_seed || aad.renews_tree_key) {
            return Err(HandshakeError::AuthenticatedData(
                "who comes back renews neither seed nor tree key".to_owned(),
            ));
        }
        // Who comes back removes its own old leaf, which is nobody's removal (the rules see to it).
        let removed = if outside { removed.saturating_sub(1) } else { removed };
        if header.removed as usize != removed {
            return Err(HandshakeError::Header("it names another number of removed members"));
        }
        if removed > 0 && !aad.renews_seed {
            return Err(HandshakeError::AuthenticatedData("a removal must renew the group seed".to_owned()));
        }
        // A committer from outside is a member after its commit only.
        let of = if outside { &group } else { &self.group };
        let committer = of.roster().member_with_index(description.committer)?;
        if ChannelKeyExtension::of(&committer.extensions)? != header.committer {
            return Err(HandshakeError::Header("it names another committer"));
        }
        let leaves: Vec<_> = group.roster().members_iter().map(|member| member.extensions).collect();
        let tree = roster_keys(&leaves)?;
        if tree.len() != header.members {
            return Err(HandshakeError::Header("it names another number of members"));
        }
        if tree.root() != header.key_root || aad.key_root != header.key_root {
            return Err(HandshakeError::KeyRoot);
        }
        check_group_info(&mut group, group_info)?;
        let mut next = Self::new(group, self.tip);
        next.commits = self.commits.saturating_add(1);
        next.bytes = self.bytes;
        next.advance(handshake.seq, handshake.message);
        Ok(next)
    }
}

impl Follower {
    /// Judges a proposal, and keeps it for the commit that names it. Nothing has changed if it is refused. `reaches` says whether a
    /// Welcome could go to an address, or why not.
    pub(crate) fn propose(
        &self,
        followed: &mut Followed,
        handshake: &Handshake<'_>,
        source: Source,
        reaches: &mut dyn FnMut(&DeliveryAddress) -> Result<(), &'static str>,
    ) -> Result<(), HandshakeError> {
        let (message, sender) = followed.parse(handshake, EntryKind::Proposal)?;
        match (source, sender) {
            (Source::Member, Sender::Member(_)) => {}
            (Source::External(key), Sender::External(index)) => {
                let listed = followed.external_senders().and_then(|senders| {
                    let index = usize::try_from(index).ok()?;
                    Some(senders.allowed_senders().get(index)?.signature_key.as_bytes() == key)
                });
                if listed != Some(true) {
                    return Err(HandshakeError::Sender("it names the place of another external sender"));
                }
            }
            (Source::Member, _) => {
                return Err(HandshakeError::Sender("members submit their own proposals, nobody else's, by this call"));
            }
            (Source::External(_), _) => {
                return Err(HandshakeError::Sender("this call is for proposals of the group's external senders"));
            }
        }
        let received = followed.group.process_incoming_message_with_time(message, mls_time(handshake.time))?;
        let ExternalReceivedMessage::Proposal(description) = received else {
            return Err(HandshakeError::Format("Proposal"));
        };
        if let Sender::Member(_) = sender {
            check_position(&HandshakeAad::of_proposal(&description.authenticated_data)?.position, &handshake.head)?;
        }
        self.judge(followed, &description, sender, handshake.time)?;
        if let Proposal::Add(add) = &description.proposal {
            let address = DeliveryAddress::of(&add.key_package_extensions()).map_err(|_| PolicyError::Address)?;
            reaches(&address).map_err(HandshakeError::Address)?;
        }
        followed.group.insert_proposal(description.cached_proposal());
        followed.advance(handshake.seq, handshake.message);
        Ok(())
    }

    /// Whether a commit could carry a proposal out, as far as it can be said before there is one.
    fn judge(
        &self,
        followed: &Followed,
        description: &ProposalMessageDescription,
        sender: Sender,
        time: Timestamp,
    ) -> Result<(), HandshakeError> {
        check_sender(&sender, &description.proposal)?;
        judge(&description.proposal)?;
        let group = &followed.group;
        let own = match sender {
            Sender::Member(index) => Some(index),
            _ => None,
        };
        let holds =
            |member: &Member, key: &ChannelKey| ChannelKeyExtension::of(&member.extensions).is_ok_and(|of| of == *key);
        let keeps = judge_key(&description.proposal, own, |key| {
            group.roster().members_iter().find(|member| holds(member, key)).map(|member| member.index)
        })?;
        // The first of two that bring one key is the one to commit.
        let shares = |cached: &CachedProposal| share_key(cached.proposal(), &description.proposal);
        if !keeps && group.get_cached_proposals().iter().any(shares) {
            return Err(PolicyError::SharedKey.into());
        }
        match (&description.proposal, sender) {
            (Proposal::Add(add), _) => {
                // MLSMessage: version mls10, wire format mls_key_package (RFC 9420, section 6).
                let mut message = vec![0, 1, 0, 5];
                add.key_package().mls_encode(&mut message).map_err(MlsError::from)?;
                let message = MlsMessage::from_bytes(&message)?;
                let client = self.client(&Awake::new(true));
                let package = client.validate_key_package(message, Some(mls_time(time)))?;
                if package.cipher_suite != group.group_context().cipher_suite() {
                    return Err(HandshakeError::Mls("the KeyPackage is of another cipher suite".to_owned()));
                }
            }
            (Proposal::Remove(remove), _) => {
                group.roster().member_with_index(remove.to_remove())?;
            }
            (Proposal::Update(update), Sender::Member(index)) => {
                let suite = crypto::suite(group.group_context().cipher_suite())
                    .map_err(|error| HandshakeError::Mls(error.to_string()))?;
                check_update(&suite, update, group.group_context().group_id(), index)?;
                let before = group.roster().member_with_index(index)?.signing_identity;
                let wrong =
                    |error: conclave_mls::identity::IdentityError| HandshakeError::Credential(error.to_string());
                let now = self.identities.identify(update.signing_identity(), Some(time)).map_err(wrong)?;
                let before = conclave_mls::identity::read(&before).map_err(wrong)?;
                if !same_client(&now, &before) {
                    return Err(HandshakeError::Credential("it is of another client than the leaf's".to_owned()));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Whether a handshake message is a commit from outside.
pub(crate) fn is_outside(message: &[u8]) -> bool {
    MlsMessage::from_bytes(message).is_ok_and(|message| {
        matches!(
            message.description(),
            MlsMessageDescription::PublicProtocolMessage { sender: Sender::NewMemberCommit, .. }
        )
    })
}

/// A member's place in the log must be one that there is.
fn check_position(claim: &Position, head: &Position) -> Result<(), HandshakeError> {
    if claim.seq > head.seq || (claim.seq == head.seq && claim.hash != head.hash) {
        return Err(HandshakeError::AuthenticatedData("it claims a place in the log that there is not".to_owned()));
    }
    Ok(())
}

/// What a commit names must be in the log before it (RFC 9750, section 5.2.2).
fn check_references(followed: &Followed, message: &MlsMessage) -> Result<(), HandshakeError> {
    let named = message.proposals_by_reference();
    if named.is_empty() {
        return Ok(());
    }
    let known = followed.group.get_cached_proposals();
    match named.iter().find(|named| !known.iter().any(|known| known.proposal_ref() == **named)) {
        None => Ok(()),
        Some(missing) => {
            let hex = missing.as_slice().iter().map(|byte| format!("{byte:02x}")).collect();
            Err(HandshakeError::UnknownProposal(hex))
        }
    }
}

/// How many members a commit removes.
fn removals(description: &CommitMessageDescription) -> Result<usize, HandshakeError> {
    match &description.effect {
        CommitEffect::NewEpoch(epoch) => {
            Ok(epoch.applied_proposals().iter().filter(|info| matches!(info.proposal, Proposal::Remove(_))).count())
        }
        // It stands alone in its commit (RFC 9420, section 12.2).
        CommitEffect::ReInit(_) => Ok(0),
        CommitEffect::Removed { .. } => {
            Err(HandshakeError::Policy("it does not begin an epoch of this group".to_owned()))
        }
    }
}

/// The GroupInfo must be signed by a member of the epoch, have its context and the commit's confirmation tag, and a key
/// for external commits (RFC 9420, section 12.4.3); the tree is served apart.
fn check_group_info(group: &mut ExternalGroup<Config>, bytes: &[u8]) -> Result<(), HandshakeError> {
    let wrong = |why: &str| HandshakeError::GroupInfo(why.to_owned());
    let message = MlsMessage::from_bytes(bytes).map_err(|_| wrong("it is no MLSMessage"))?;
    let info = message.as_group_info().ok_or_else(|| wrong("it is no GroupInfo"))?;
    let extensions = info.extensions();
    if !extensions.has_extension(ExtensionType::EXTERNAL_PUB) || extensions.has_extension(ExtensionType::RATCHET_TREE) {
        return Err(wrong("it must have the external key, and not the tree"));
    }
    group.process_incoming_message(message).map(drop).map_err(|error| HandshakeError::GroupInfo(error.to_string()))
}
