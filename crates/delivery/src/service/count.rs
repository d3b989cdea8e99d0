use conclave_names::Timestamp;
use conclave_protocol::{
    Refusal, method,
    v1::{CountRequest, CountResponse, SignedRequest, SuiteCount},
};

use super::{DeliveryService, Done, Incoming, request::Signed};
use crate::store::{KeyPackageCount, Tx};

impl DeliveryService {
    /// How many KeyPackages of the calling client are left.
    pub fn count(
        &self,
        tx: &mut dyn Tx,
        request: &impl Incoming<SignedRequest>,
        now: Timestamp,
    ) -> Result<Done<CountResponse>, Refusal> {
        let (caller, Signed { message: CountRequest {}, .. }) = self.certified(tx, request, method::COUNT, now)?;
        self.own_client(&caller)?;
        let suites = tx.key_package_counts(&caller.client, now)?.into_iter().map(count).collect();
        Ok(Done::quiet(CountResponse { suites }))
    }
}

fn count(count: KeyPackageCount) -> SuiteCount {
    SuiteCount {
        cipher_suite: count.cipher_suite.into(),
        available: count.available,
        last_resort: count.last_resort,
        last_resort_used: count.last_resort_used,
    }
}
