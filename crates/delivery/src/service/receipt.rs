use conclave_channel::{Position, receipt::Receipt};
use conclave_names::{Hash, Seq};
use conclave_protocol::{SigningKey, v1::SubmitResponse};

use super::{DeliveryService, Done};
use crate::keyed::{Keyed, Purpose};

impl DeliveryService {
    /// Puts the receipt into the answer to an accepted submission. To be called once it is durable, and not before: a
    /// receipt for what is lost would accuse this server of a lie.
    pub fn sign_receipt(&self, done: &mut Done<SubmitResponse>) {
        let (Some(channel), Some(key)) = (done.accepted, self.receipts.get()) else { return };
        let Ok(hash) = Hash::try_from(done.reply.chain.as_slice()) else { return };
        let receipt = Receipt::sign(key, channel, Position { seq: Seq(done.reply.seq), hash });
        done.reply.receipt = receipt.signature.0.to_vec();
    }

    /// Makes the key of receipts of the server's secret.
    pub(super) fn make_receipt_key(&self, keyed: &Keyed) {
        self.receipts.get_or_init(|| SigningKey::from_bytes(&keyed.hash(Purpose::Receipts, &[])));
    }

    /// The public key of receipts; nothing before the first maintenance.
    pub(super) fn receipt_key(&self) -> Vec<u8> {
        self.receipts.get().map(|key| key.verifying_key().to_bytes().to_vec()).unwrap_or_default()
    }
}
