use conclave_channel::chain;
use conclave_names::{Seq, Timestamp};
use conclave_protocol::{
    Refusal, method,
    v1::{CreateInboxRequest, CreateInboxResponse, SignedRequest},
};
use subtle::ConstantTimeEq;

use super::{
    DeliveryService, Done, Incoming,
    create_channel::exists,
    request::{Signed, channel_id, malformed},
};
use crate::store::{ChannelKind, ChannelRow, Tx};

impl DeliveryService {
    /// Makes an inbox that the signer's key owns.
    pub fn create_inbox(
        &self,
        tx: &mut dyn Tx,
        request: &impl Incoming<SignedRequest>,
        now: Timestamp,
    ) -> Result<Done<CreateInboxResponse>, Refusal> {
        let Signed { verified, message, .. } =
            self.signed::<CreateInboxRequest>(tx, request, method::CREATE_INBOX, now)?;
        let id = channel_id(&message.inbox)?;
        let drop_key: [u8; 32] =
            message.drop_key.as_slice().try_into().map_err(|_| malformed("`drop_key` is not 32 bytes"))?;
        let owner = verified.key.to_bytes();
        match tx.channel(&id)?.map(|row| row.kind) {
            None => tx.put_channel(&ChannelRow {
                id,
                kind: ChannelKind::Inbox { owner, drop_key },
                head: Seq(0),
                head_hash: chain::start(&id),
                head_time: now,
                head_clock: now,
                bytes: 0,
            })?,
            Some(ChannelKind::Inbox { owner: o, drop_key: k }) if o == owner && k.ct_eq(&drop_key).into() => {}
            Some(_) => return Err(exists()),
        }
        Ok(Done::quiet(CreateInboxResponse {}))
    }
}
