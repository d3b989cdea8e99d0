use conclave_channel::{
    access::{ChannelKey, KeyTree},
    chain,
    law::{DisputePause, Ledger},
};
use conclave_names::{Epoch, Hash, Seq, Timestamp};
use conclave_protocol::{
    Code, Refusal, method,
    v1::{CreateChannelRequest, CreateChannelResponse, SignedRequest},
};

use super::{
    DeliveryService, Done, Incoming,
    open_session::key_path,
    request::{Signed, channel_id, field, malformed},
};
use crate::store::{ChannelKind, ChannelRow, EpochRow, GroupInfoRow, Tx};

/// The answer where a channel id is another's. It is the only way in which a channel shows to strangers, and they must
/// have guessed 16 random bytes.
pub(super) fn exists() -> Refusal {
    Refusal::new(Code::ChannelExists, "the channel id belongs to somebody else: choose another at random")
}

impl DeliveryService {
    /// Makes a group's channel at epoch 0, in which the signer's key is the only one, or at epoch 1 for a group that goes on in it.
    /// With a GroupInfo, the group's handshakes are visible.
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
        let key = ChannelKey(verified.key.to_bytes());
        let (epoch, members) = match (message.epoch, message.path) {
            (0, _) => {
                if KeyTree::new([key]).map(|tree| tree.root()) != Ok(key_root) {
                    return Err(malformed("`key_root` is not the root of the tree of the signing key alone"));
                }
                (Epoch(0), 1)
            }
            (1, Some(path)) => {
                let path = key_path(path)?;
                if path.verify(&key, &key_root).is_err() {
                    return Err(malformed("`path` does not lead from the signing key to `key_root`"));
                }
                (Epoch(1), u32::try_from(path.leaves).map_err(|_| malformed("`path` is of too many members"))?)
            }
            _ => return Err(malformed("a channel begins in epoch 0, or with a `path` in epoch 1")),
        };
        let pause = match message.dispute_ms {
            0 => DisputePause::DEFAULT,
            ms => DisputePause::new(ms).ok_or_else(|| malformed("`dispute_ms` is not within 10 s and 24 h"))?,
        };
        if let Some(row) = tx.channel(&id)? {
            let paused = matches!(&row.kind, ChannelKind::Group { ledger } if ledger.pause() == pause);
            // The root stands for the key.
            let same = paused && tx.epoch(&id, epoch)?.is_some_and(|first| first.key_root == key_root);
            return if same { Ok(Done::quiet(CreateChannelResponse {})) } else { Err(exists()) };
        }
        tx.put_channel(&ChannelRow {
            id,
            kind: ChannelKind::Group { ledger: Ledger::new(epoch, key_root, members).with_pause(pause) },
            head: Seq(0),
            head_hash: chain::start(&id),
            head_time: now,
            head_clock: now,
            bytes: 0,
        })?;
        tx.put_epoch(&EpochRow { channel: id, epoch, key_root, base: Seq(0), started: Seq(0), closed: None })?;
        if !message.group_info.is_empty() {
            self.follow_from(tx, (&id, epoch), pause, &key_root, &message.group_info, now)?;
            tx.put_group_info(&GroupInfoRow {
                channel: id,
                epoch,
                group_info: message.group_info,
                tree: None,
                join_key: Vec::new(),
            })?;
        }
        Ok(Done::quiet(CreateChannelResponse {}))
    }
}
