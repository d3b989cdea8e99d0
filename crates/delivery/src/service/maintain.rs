use conclave_names::{Timestamp, limits};
use conclave_protocol::{Code, Refusal};
use mls_rs_core::crypto::CipherSuiteProvider;

use super::{DeliveryService, Done};
use crate::{
    keyed::{Keyed, random},
    store::{AddressKeyRow, Tx},
};

/// How long an address key is offered, in milliseconds: a week.
const OFFERED_MS: u64 = 7 * 24 * 3600 * 1000;

/// Expired rows of each kind that one call deletes.
const PRUNED_ROWS: u32 = 256;

impl DeliveryService {
    /// What is due from time to time: makes the server's secret and the address key (a new one each week), and deletes
    /// what expired and what channels do not keep any more. To be called at start, before anything else, and every few
    /// minutes.
    ///
    /// One call deletes so much only that nobody waits for long. The answer is whether there is more to do: then call
    /// again, in another transaction.
    pub fn maintain(&self, tx: &mut dyn Tx, now: Timestamp) -> Result<Done<bool>, Refusal> {
        self.make_receipt_key(&Keyed::of(tx)?);
        if tx.newest_address_key()?.is_none_or(|key| key.rotates <= now) {
            let (secret, public) = self
                .suite
                .kem_generate()
                .map_err(|_| Refusal::new(Code::Internal, "the cryptographic library made no key pair"))?;
            let rotates = now.plus_ms(OFFERED_MS);
            tx.put_address_key(&AddressKeyRow {
                id: random()?,
                secret: secret.to_vec(),
                public: public.to_vec(),
                created: now,
                rotates,
                // A KeyPackage may be made with it until then, and lives for so long.
                expires: rotates.plus_ms(limits::KEY_PACKAGE_LIFETIME.saturating_mul(1000)),
            })?;
        }
        let expired = tx.prune(now, PRUNED_ROWS)?;
        let kept = self.retain(tx, now)?;
        self.sessions.forget_idle(now);
        self.limiter.forget_full(now);
        let outbox = !tx.outbox(1)?.is_empty();
        Ok(Done { outbox, ..Done::quiet(expired || kept) })
    }
}
