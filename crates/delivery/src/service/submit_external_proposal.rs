use conclave_channel::{EntryKind, law};
use conclave_names::Timestamp;
use conclave_protocol::{
    Code, Refusal, method,
    v1::{SignedRequest, SubmitExternalProposalRequest, SubmitResponse},
};

use super::{
    DeliveryService, Done, Incoming,
    access::stranger,
    idempotency::{SUBMISSION_MS, Submission},
    request::{Signed, channel_id, idempotency_key},
    standing,
    submit::{append, parse},
};
use crate::{
    keyed::Purpose,
    store::{ChannelKind, Tx},
    visible::Source,
};

impl DeliveryService {
    /// Appends a proposal of one of a visible group's external senders (RFC 9750, section 6.4). Who is none is answered
    /// as a stranger, whether there is such a group or not.
    pub fn submit_external_proposal(
        &self,
        tx: &mut dyn Tx,
        request: &impl Incoming<SignedRequest>,
        now: Timestamp,
    ) -> Result<Done<SubmitResponse>, Refusal> {
        let Signed { verified, message, keyed } =
            self.signed::<SubmitExternalProposalRequest>(tx, request, method::SUBMIT_EXTERNAL_PROPOSAL, now)?;
        let id = channel_id(&message.channel)?;
        let idempotency = idempotency_key(&message.idempotency_key)?;
        let key = verified.key.to_bytes();
        let lists = |followed: std::sync::Arc<crate::visible::Followed>| followed.lists(&key);
        if !self.followed(tx, &id)?.is_some_and(lists) {
            return Err(stranger());
        }
        let scope = keyed.hash(Purpose::Submitter, &[id.as_bytes(), &key]);
        let submission = Submission::new(scope, idempotency, method::SUBMIT_EXTERNAL_PROPOSAL, &request.request().body);
        if let Some(reply) = submission.earlier(tx, now)? {
            return Ok(Done { accepted: Some(id), ..Done::quiet(reply) });
        }
        let entry = parse(&message.entry)?;
        if entry.kind != EntryKind::Proposal {
            return Err(Refusal::new(Code::EntryInvalid, "this call takes proposals only"));
        }
        let mut row = tx.channel(&id)?.ok_or_else(stranger)?;
        standing::advance(tx, &mut row, now)?;
        let ChannelKind::Group { ledger } = &row.kind else { return Err(stranger()) };
        if let Err(refused) = law::admit(entry.kind, entry.epoch, ledger.epoch()) {
            return Err(Refusal::new(Code::EpochStale, refused.to_string()).with("epoch", ledger.epoch()));
        }
        let row = standing::admit(&row, &entry, &message.entry, now)?;
        if let Some(followed) = self.follow_proposal(tx, &row, &entry, Source::External(key), now)? {
            tx.put_followed(&followed)?;
        }
        let reply = append(tx, row, &entry, message.entry, now)?;
        submission.remember(tx, &reply, now, SUBMISSION_MS)?;
        Ok(Done { reply, wake: vec![id], outbox: false, accepted: Some(id) })
    }
}
