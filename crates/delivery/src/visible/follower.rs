//! From one handshake to the next.

use std::{fmt, sync::OnceLock};

use conclave_channel::{EntryKind, Position, law::DisputePause};
use conclave_mls::{
    components::{GroupProfile, HandshakeMode, roster_keys},
    crypto::{self, CryptoProvider},
    identity::Identities,
    rules::Rules,
};
use conclave_names::{ChannelId, Domain, Epoch, GroupUri, Hash, Seq, Timestamp};
use mls_rs::{
    MlsMessage,
    error::MlsError,
    extension::{ExtensionType, built_in::ExternalSendersExt},
    external_client::{
        ExternalClient, ExternalGroup, ExternalSnapshot,
        builder::{ExternalBaseConfig, WithCryptoProvider, WithIdentityProvider, WithMlsRules},
    },
    time::MlsTime,
};
use mls_rs_codec::MlsEncode;
use sha2::{Digest, Sha256};

use super::{
    CHECKPOINT_BYTES, CHECKPOINT_COMMITS,
    refused::HandshakeError,
    trust::{Awake, Judge},
};
use crate::store::{CheckpointRow, FollowedRow};

pub(super) type Config = WithMlsRules<
    Judge<Rules>,
    WithIdentityProvider<Judge<Identities>, WithCryptoProvider<CryptoProvider, ExternalBaseConfig>>,
>;

/// How much more a tree takes in memory than encoded, roughly (measured: allocations, indices).
const IN_MEMORY: usize = 3;

/// What a followed group takes at least, in bytes.
const BASE_SIZE: usize = 16 * 1024;

/// Which handshakes led to a state: the place of the last one, and a hash over all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tip {
    pub(crate) seq: Seq,
    pub(crate) link: Hash,
}

impl Tip {
    /// Before the first.
    pub(crate) fn start(channel: &ChannelId) -> Self {
        let link = Sha256::new().chain_update(b"conclave/v1/followed\0").chain_update(channel.as_bytes());
        Self { seq: Seq(0), link: Hash::new(link.finalize().into()) }
    }

    fn next(&self, seq: Seq, message: &[u8]) -> Self {
        let link = Sha256::new().chain_update(self.link.as_bytes()).chain_update(Sha256::digest(message));
        Self { seq, link: Hash::new(link.finalize().into()) }
    }
}

/// A handshake message that is to come next.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Handshake<'a> {
    /// The MLSMessage.
    pub(crate) message: &'a [u8],
    /// Its epoch, as its entry says; the law has admitted it.
    pub(crate) epoch: Epoch,
    /// Its place.
    pub(crate) seq: Seq,
    /// Its time.
    pub(crate) time: Timestamp,
    /// The channel's head before it.
    pub(crate) head: Position,
}

/// Who brings a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A member, in a session.
    Member,
    /// The external sender with this signature key.
    External([u8; 32]),
}

/// A group as the server follows it: what everybody may know of it.
#[derive(Clone)]
pub(crate) struct Followed {
    pub(super) group: ExternalGroup<Config>,
    pub(super) tip: Tip,
    /// Commits and bytes of handshakes since the newest checkpoint.
    pub(super) commits: u32,
    pub(super) bytes: usize,
    /// Length of the encoded tree.
    tree_size: usize,
    tree: OnceLock<Vec<u8>>,
}

impl fmt::Debug for Followed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Followed").field("epoch", &self.epoch()).field("tip", &self.tip).finish_non_exhaustive()
    }
}

pub(super) fn mls_time(time: Timestamp) -> MlsTime {
    MlsTime::from_duration_since_epoch(std::time::Duration::from_secs(time.as_secs()))
}

impl Followed {
    pub(super) fn new(group: ExternalGroup<Config>, tip: Tip) -> Self {
        let tree_size = group.exported_tree().byte_size();
        Self { group, tip, commits: 0, bytes: 0, tree_size, tree: OnceLock::new() }
    }

    /// Gives the last handshake the place that it got.
    pub(crate) fn place(&mut self, seq: Seq) {
        self.tip.seq = seq;
    }

    /// Which handshakes led here.
    pub(crate) fn tip(&self) -> &Tip {
        &self.tip
    }

    /// Its epoch.
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.group.group_context().epoch())
    }

    /// Bytes in memory, as estimated.
    pub(crate) fn size(&self) -> usize {
        let tree = self.tree_size.saturating_mul(IN_MEMORY);
        let exported = self.tree.get().map_or(0, Vec::len);
        BASE_SIZE.saturating_add(tree).saturating_add(self.bytes).saturating_add(exported)
    }

    /// The encoded ratchet tree.
    pub(crate) fn tree(&self) -> Result<&[u8], MlsError> {
        if let Some(tree) = self.tree.get() {
            return Ok(tree);
        }
        let tree = self.group.export_tree()?;
        Ok(self.tree.get_or_init(|| tree))
    }

    /// Hash of the encoded GroupContext, by which states are compared.
    pub(crate) fn context_hash(&self) -> Result<Hash, MlsError> {
        let context = self.group.group_context().mls_encode_to_vec().map_err(MlsError::from)?;
        Ok(Hash::new(Sha256::digest(context).into()))
    }

    /// How many members it has.
    pub(crate) fn members(&self) -> usize {
        self.group.roster().members_iter().count()
    }

    /// Whether an external sender of the group signs with this key.
    pub(crate) fn lists(&self, key: &[u8; 32]) -> bool {
        self.external_senders().is_some_and(|senders| {
            senders.allowed_senders().iter().any(|sender| sender.signature_key.as_bytes() == key)
        })
    }

    pub(super) fn external_senders(&self) -> Option<ExternalSendersExt> {
        self.group.group_context().extensions().get_as().ok().flatten()
    }

    /// Whether the whole state is to be stored again.
    pub(crate) fn wants_checkpoint(&self) -> bool {
        self.commits >= CHECKPOINT_COMMITS || self.bytes >= CHECKPOINT_BYTES.max(self.tree_size)
    }

    /// The whole state, to store.
    pub(crate) fn checkpoint(&mut self, channel: &ChannelId) -> Result<CheckpointRow, MlsError> {
        (self.commits, self.bytes) = (0, 0);
        Ok(CheckpointRow {
            channel: *channel,
            epoch: self.epoch(),
            seq: self.tip.seq,
            link: self.tip.link,
            snapshot: self.group.snapshot().to_bytes()?,
        })
    }

    /// Notes a handshake that was carried out.
    pub(super) fn advance(&mut self, seq: Seq, message: &[u8]) {
        self.tip = self.tip.next(seq, message);
        self.bytes = self.bytes.saturating_add(message.len());
    }
}

/// Follows groups: begins, restores and judges them.
pub(crate) struct Follower {
    pub(super) identities: Identities,
}

impl Follower {
    /// By the issuers that the server believes.
    pub(crate) fn new(identities: Identities) -> Self {
        Self { identities }
    }

    pub(super) fn client(&self, awake: &Awake) -> ExternalClient<Config> {
        ExternalClient::builder()
            .crypto_provider(crypto::provider())
            .identity_provider(Judge { judge: self.identities.clone(), awake: awake.clone() })
            .mls_rules(Judge { judge: Rules, awake: awake.clone() })
            // A proposal is kept once all is well with it.
            .cache_proposals(false)
            .build()
    }

    /// Begins to follow a group at epoch 0, by the GroupInfo with the tree of which its creator alone is a leaf.
    ///
    /// # Errors
    /// [`HandshakeError::GroupInfo`] if it is not such a group's, of this server and channel.
    pub(crate) fn begin(
        &self,
        group_info: &[u8],
        hub: &Domain,
        (channel, epoch, pause): (&ChannelId, Epoch, DisputePause),
        key_root: &Hash,
        now: Timestamp,
    ) -> Result<Followed, HandshakeError> {
        let wrong = |why: &str| HandshakeError::GroupInfo(why.to_owned());
        let message = MlsMessage::from_bytes(group_info).map_err(|_| wrong("it is no MLSMessage"))?;
        let info = message.as_group_info().ok_or_else(|| wrong("it is no GroupInfo"))?;
        let context = info.group_context();
        let profile = GroupProfile::of(context.extensions()).map_err(|error| wrong(&error.to_string()))?;
        let name = std::str::from_utf8(context.group_id()).ok().and_then(|name| name.parse::<GroupUri>().ok());
        if context.epoch() != epoch.0 || profile.mode != HandshakeMode::Visible {
            return Err(wrong("it is not of the first epoch of a group with visible handshakes"));
        }
        if profile.hub != *hub || profile.channel != *channel || name.is_none_or(|name| name.domain() != hub) {
            return Err(wrong("it is of another server or channel"));
        }
        if profile.dispute_pause != pause {
            return Err(wrong("it has another pause for disputed commits than `dispute_ms`"));
        }
        if !info.extensions().has_extension(ExtensionType::EXTERNAL_PUB) {
            return Err(wrong("it has no external key"));
        }
        let group = self.client(&Awake::new(true)).observe_group(message, None, Some(mls_time(now)))?;
        let leaves: Vec<_> = group.roster().members_iter().map(|member| member.extensions).collect();
        if roster_keys(&leaves)?.root() != *key_root {
            return Err(HandshakeError::KeyRoot);
        }
        Ok(Followed::new(group, Tip::start(channel)))
    }

    /// Restores a group from a checkpoint and the handshakes after it, which are not judged again. None if they do not
    /// lead anywhere.
    pub(crate) fn restore(
        &self,
        checkpoint: &CheckpointRow,
        rows: &[FollowedRow],
    ) -> Result<Option<Followed>, MlsError> {
        let awake = Awake::new(false);
        let snapshot = ExternalSnapshot::from_bytes(&checkpoint.snapshot)?;
        let group = self.client(&awake).load_group(snapshot)?;
        let mut followed = Followed::new(group, Tip { seq: checkpoint.seq, link: checkpoint.link });
        for row in rows {
            let message = MlsMessage::from_bytes(&row.message)?;
            if row.kind == EntryKind::Proposal {
                followed.group.insert_proposal_from_message(message)?;
            } else {
                followed.group.process_incoming_message_with_time(message, mls_time(row.time))?;
                followed.commits += 1;
            }
            followed.advance(row.seq, &row.message);
            if followed.tip.link != row.link {
                return Ok(None);
            }
        }
        followed.tree_size = followed.group.exported_tree().byte_size();
        awake.wake();
        Ok(Some(followed))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use conclave_authentication::CertificateAuthority;
    use conclave_mls::{credential::IdentityBinding, identity::signing_identity};
    use conclave_protocol::SigningKey;
    use mls_rs::{Client, ExtensionList};

    use super::*;

    /// A group of one, as if these handshakes had led to it.
    pub(crate) fn empty(tip: Tip) -> Followed {
        let now = Timestamp(1_750_000_000_000);
        let end = now.plus_ms(86_400_000);
        let (key, client) = (SigningKey::from_bytes(&[7; 32]), "mimi://example.com/d/alice/laptop".parse().unwrap());
        let public = key.verifying_key().to_bytes();
        let binding = IdentityBinding::sign(&SigningKey::from_bytes(&[8; 32]), &client, &public, end);
        let authority = CertificateAuthority::generate(&"example.com".parse().unwrap(), now).unwrap();
        let certificate = authority.issue(&client, &public, &binding, now, end, [1; 16]).unwrap();
        let judge = Judge { judge: Identities::default(), awake: Awake::new(false) };
        let group = Client::builder()
            .crypto_provider(crypto::provider())
            .identity_provider(judge)
            .signing_identity(
                signing_identity(certificate, &public),
                key.to_keypair_bytes().to_vec().into(),
                crypto::DEFAULT_SUITE,
            )
            .build()
            .create_group(ExtensionList::new(), ExtensionList::new(), Some(mls_time(now)))
            .unwrap();
        let info = group.group_info_message_allowing_ext_commit(true).unwrap();
        let client = Follower::new(Identities::default()).client(&Awake::new(false));
        Followed::new(client.observe_group(info, None, None).unwrap(), tip)
    }
}
