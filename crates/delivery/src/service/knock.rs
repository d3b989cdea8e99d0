use conclave_channel::{Body, Entry, EntryKind, size_class};
use conclave_mls::knock::KNOCK_MAX;
use conclave_names::{Epoch, Timestamp};
use conclave_protocol::{
    Code, Refusal, method,
    v1::{KnockRequest, KnockResponse, SignedRequest},
};

use super::{
    DeliveryService, Done, Incoming,
    idempotency::{SUBMISSION_MS, Submission},
    request::{Signed, idempotency_key, too_large},
    submit::append,
};
use crate::{
    keyed::Purpose,
    store::{StoreError, Tx},
};

impl DeliveryService {
    /// Posts a knock into a member's inbox, once for each use that the delivery address admits. Whoever signs, the answer does not
    /// tell whether there is such an inbox.
    pub fn knock(
        &self,
        tx: &mut dyn Tx,
        request: &impl Incoming<SignedRequest>,
        now: Timestamp,
    ) -> Result<Done<KnockResponse>, Refusal> {
        let Signed { verified, message, keyed } = self.signed::<KnockRequest>(tx, request, method::KNOCK, now)?;
        let key = idempotency_key(&message.idempotency_key)?;
        let scope = keyed.hash(Purpose::Submitter, &[method::KNOCK.as_bytes(), verified.key.as_bytes()]);
        let submission = Submission::new(scope, key, method::KNOCK, &request.request().body);
        if let Some(reply) = submission.earlier(tx, now)? {
            return Ok(Done::quiet(reply));
        }
        if message.knock.len() > KNOCK_MAX {
            return Err(too_large("a knock", KNOCK_MAX));
        }
        let body = Body::Inline(size_class::pad(message.knock, 0));
        let entry = Entry::new(EntryKind::Knock, Epoch(0), body);
        let bytes = entry.to_bytes().map_err(|_| too_large("a knock", KNOCK_MAX))?;
        let inbox = self.use_address(tx, &keyed, (&message.domain, &message.address), None, now)?;
        let inbox = inbox.map_err(|why| {
            let text = format!("the delivery address {why}: claim another KeyPackage of that client");
            Refusal::new(Code::AddressInvalid, text)
        })?;
        let gone = || StoreError::Corrupt("an inbox whose token was good is gone".to_owned());
        let channel = tx.channel(&inbox)?.ok_or_else(gone)?;
        append(tx, channel, &entry, bytes, now)?;
        let reply = KnockResponse {};
        submission.remember(tx, &reply, now, SUBMISSION_MS)?;
        Ok(Done { reply, wake: vec![inbox], outbox: false, accepted: None })
    }
}
