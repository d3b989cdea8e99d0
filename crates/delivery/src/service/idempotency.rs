//! The same submission twice takes effect once.

use conclave_names::{IdempotencyKey, Timestamp};
use conclave_protocol::{Code, Refusal};
use prost::Message;
use sha2::{Digest, Sha256};

use crate::store::{IdempotencyRow, KeyedHash, Read, StoreError, Tx};

/// How long a submission is remembered, in milliseconds: a day.
pub(super) const SUBMISSION_MS: u64 = 24 * 3600 * 1000;

/// How long a claim is remembered, in milliseconds: an hour.
pub(super) const CLAIM_MS: u64 = 3600 * 1000;

/// One submission of one submitter.
pub(super) struct Submission {
    scope: KeyedHash,
    key: IdempotencyKey,
    request: [u8; 32],
}

impl Submission {
    /// A request with its idempotency key. `body` is the request as it was authenticated.
    pub(super) fn new(scope: KeyedHash, key: IdempotencyKey, method: &str, body: &[u8]) -> Self {
        let request = Sha256::new().chain_update(method).chain_update([0]).chain_update(body).finalize().into();
        Self { scope, key, request }
    }

    /// The answer that the same request got before, if it is remembered.
    ///
    /// # Errors
    /// [`Code::IdempotencyMismatch`] if another request came with the key.
    pub(super) fn earlier<M: Message + Default>(
        &self,
        read: &mut dyn Read,
        now: Timestamp,
    ) -> Result<Option<M>, Refusal> {
        let Some(row) = read.idempotency(&self.scope, &self.key)?.filter(|row| row.expires > now) else {
            return Ok(None);
        };
        if row.request != self.request {
            return Err(Refusal::new(
                Code::IdempotencyMismatch,
                "the idempotency key came before with another request: choose a new one at random",
            ));
        }
        let reply = M::decode(row.reply.as_slice())
            .map_err(|_| StoreError::Corrupt("a remembered answer does not decode".to_owned()))?;
        Ok(Some(reply))
    }

    /// Remembers the answer for so long.
    pub(super) fn remember(
        &self,
        tx: &mut dyn Tx,
        reply: &impl Message,
        now: Timestamp,
        for_ms: u64,
    ) -> Result<(), StoreError> {
        tx.put_idempotency(&IdempotencyRow {
            scope: self.scope,
            key: self.key,
            request: self.request,
            reply: reply.encode_to_vec(),
            expires: now.plus_ms(for_ms),
        })
    }
}
