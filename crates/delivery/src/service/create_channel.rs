use conclave_channel::{
    access::{ChannelKey, KeyTree},
    chain,
    law::Ledger,
};
use conclave_names::{Epoch, Hash, Seq, Timestamp};
use conclave_protocol::{
    Code, Refusal, method,
    v1::{CreateChannelRequest, CreateChannelResponse, SignedRequest},
};

use super::{
    DeliveryService, Done, Incoming,
    request::{Signed, channel_id, field, malformed},
};
use crate::store::{ChannelKind, ChannelRow, EpochRow, GroupInfoRow, Tx};

/// The answer where a channel id is another's. It is the only way in which a channel shows to strangers, and they must
/// have guessed 16 random bytes.
pub(super) fn exists() -> Refusal {
    Refusal::new(Code::ChannelExists, "the channel id belongs to somebody else: choose another at random")
}

impl DeliveryService {
    /// Makes a group's channel at epoch 0, in which the signer's key is the only one. With a GroupInfo, the group's
    /// handshakes are visible.
    pub fn create_channel(
        &self,
        tx: &mut dyn Tx,
        request: &impl Incoming<SignedRequest>,
        now: Timestamp,
    ) -> Result<Done<CreateChannelResponse>, Refusal> {
        let Signed { verified, message, .. } =
            self.signed::<CreateChannelRequest>(tx, request, method::CREATE_CHANNEL, now)?;
        let id = channel_id(&message.channel)?;
        let key_root: Hash = field(&message.key_root, "`key_root` is not 32 bytes")?;
        let own = KeyTree::new([ChannelKey(verified.key.to_bytes())]).map(|tree| tree.root());
        if own != Ok(key_root) {
            return Err(malformed("`key_root` is not the root of the tree of the signing key alone"));
        }
        if tx.channel(&id)?.is_some() {
            // The root stands for the key.
            let same = tx.epoch(&id, Epoch(0))?.is_some_and(|first| first.key_root == key_root);
            return if same { Ok(Done::quiet(CreateChannelResponse {})) } else { Err(exists()) };
        }
        tx.put_channel(&ChannelRow {
            id,
            kind: ChannelKind::Group { ledger: Ledger::new(Epoch(0), key_root, 1) },
            head: Seq(0),
            head_hash: chain::start(&id),
            head_time: now,
            bytes: 0,
        })?;
        tx.put_epoch(&EpochRow {
            channel: id,
            epoch: Epoch(0),
            key_root,
            base: Seq(0),
            started: Seq(0),
            closed: None,
        })?;
        if !message.group_info.is_empty() {
            self.follow_from(tx, &id, &key_root, &message.group_info, now)?;
            tx.put_group_info(&GroupInfoRow {
                channel: id,
                epoch: Epoch(0),
                group_info: message.group_info,
                tree: None,
                join_key: Vec::new(),
            })?;
        }
        Ok(Done::quiet(CreateChannelResponse {}))
    }
}
