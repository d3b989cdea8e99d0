use conclave_names::Timestamp;
use conclave_protocol::{
    Refusal, method,
    v1::{PurgeRequest, PurgeResponse, SignedRequest},
};

use super::{DeliveryService, Done, Incoming, request::Signed};
use crate::store::Tx;

impl DeliveryService {
    /// Removes all KeyPackages of the calling client.
    pub fn purge(
        &self,
        tx: &mut dyn Tx,
        request: &impl Incoming<SignedRequest>,
        now: Timestamp,
    ) -> Result<Done<PurgeResponse>, Refusal> {
        let (caller, Signed { message: PurgeRequest {}, .. }) = self.certified(tx, request, method::PURGE, now)?;
        self.own_client(&caller)?;
        let removed = tx.delete_key_packages(&caller.client)?;
        Ok(Done::quiet(PurgeResponse { removed }))
    }
}
