use conclave_channel::{Body, Entry, EntryKind, chain};
use conclave_names::Timestamp;
use conclave_protocol::{
    Code, Refusal, method,
    v1::{SessionRequest, SubmitRequest, SubmitResponse},
};

use super::{
    DeliveryService, Done, Incoming,
    access::Access,
    blobs,
    idempotency::{SUBMISSION_MS, Submission},
    request::idempotency_key,
    standing,
};
use crate::{
    store::{ChannelRow, EntryRow, StoreError, Tx},
    visible::Source,
};

impl DeliveryService {
    /// Appends a message, a proposal, or a member's word about a commit.
    pub fn submit(
        &self,
        tx: &mut dyn Tx,
        request: &impl Incoming<SessionRequest>,
        now: Timestamp,
    ) -> Result<Done<SubmitResponse>, Refusal> {
        let (caller, message) = self.in_session::<SubmitRequest>(request, method::SUBMIT, now)?;
        let key = idempotency_key(&message.idempotency_key)?;
        let access = Access::of(tx, &caller.channel, caller.place)?;
        let submission = Submission::new(caller.pseudonym, key, method::SUBMIT, &request.request().body);
        if let Some(reply) = submission.earlier(tx, now)? {
            return Ok(Done { accepted: Some(caller.channel), ..Done::quiet(reply) });
        }
        let entry = parse(&message.entry)?;
        if matches!(entry.kind, EntryKind::Commit | EntryKind::Welcome | EntryKind::Knock) {
            return Err(Refusal::new(
                Code::EntryInvalid,
                "this call takes messages, proposals and verdicts: commits go in a bundle, Welcomes within one",
            ));
        }
        let access = access.advanced(tx, caller.place, now)?;
        // A verdict proves by itself whose it is: also that of a member for whom the disputed commit ends the access.
        if !entry.kind.is_verdict() {
            access.admit(tx, entry.kind, entry.epoch)?;
        }
        let row = standing::admit(&access.row, &entry, &message.entry, now)?;
        let followed = match entry.kind {
            EntryKind::Proposal => self.follow_proposal(tx, &row, &entry, Source::Member, now)?,
            _ => None,
        };
        // What appending refuses, it refuses before it writes.
        tx.decided()?;
        if let Some(followed) = &followed {
            tx.put_followed(followed)?;
        }
        let reply = append(tx, row, &entry, message.entry, now)?;
        submission.remember(tx, &reply, now, SUBMISSION_MS)?;
        Ok(Done { reply, wake: vec![caller.channel], outbox: false, accepted: Some(caller.channel) })
    }
}

/// Decodes an entry.
pub(super) fn parse(bytes: &[u8]) -> Result<Entry, Refusal> {
    Entry::parse(bytes).map_err(|error| {
        let code = match error {
            conclave_channel::EntryError::Version(_) => Code::UnsupportedVersion,
            conclave_channel::EntryError::TooLarge => Code::TooLarge,
            _ => Code::EntryInvalid,
        };
        Refusal::new(code, error.to_string())
    })
}

/// Gives an entry its place, and says which. The channel's row is written with its new head.
pub(super) fn append(
    tx: &mut dyn Tx,
    channel: ChannelRow,
    entry: &Entry,
    bytes: Vec<u8>,
    now: Timestamp,
) -> Result<SubmitResponse, Refusal> {
    let kept = channel.bytes.saturating_add(bytes.len() as u64).saturating_add(entry.body.staged());
    let seq = channel.head.next();
    let time = channel.time(now);
    let head_hash = chain::next(&channel.head_hash, seq, entry.kind, time, &chain::entry_hash(&bytes));
    if seq == channel.head {
        return Err(StoreError::Corrupt("a channel has no place left".to_owned()).into());
    }
    // It refuses or writes; nothing refuses after it.
    if let Body::Staged { hash, size } = &entry.body {
        blobs::name(tx, hash, *size)?;
    }
    tx.append_entry(&EntryRow {
        channel: channel.id,
        seq,
        kind: entry.kind,
        epoch: entry.epoch,
        removes: entry.removes(),
        time,
        bytes,
    })?;
    tx.put_channel(&ChannelRow { head: seq, head_hash, head_time: time, head_clock: now, bytes: kept, ..channel })?;
    Ok(SubmitResponse { seq: seq.0, time_ms: time.0, chain: head_hash.to_vec(), receipt: Vec::new() })
}
