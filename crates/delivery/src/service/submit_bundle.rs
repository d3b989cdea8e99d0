use conclave_channel::CommitHeader;
use conclave_names::{Seq, Timestamp, limits};
use conclave_protocol::{
    Code, Refusal, method,
    v1::{SessionRequest, SubmitBundleRequest, SubmitResponse},
};

use super::{
    DeliveryService, Done, Incoming,
    access::Access,
    authenticated::Found,
    blobs,
    follow::VisibleCommit,
    idempotency::{SUBMISSION_MS, Submission},
    request::{field, idempotency_key, malformed, too_large},
    standing,
    submit::{append, parse},
    tree::{self, Offer},
};
use crate::{
    keyed::{Keyed, Purpose},
    session::Place,
    store::{EpochRow, GroupInfoRow, Tx},
};

impl DeliveryService {
    /// Ends an epoch: a commit with everything that belongs to it, in one step or not at all. The first bundle of an
    /// epoch wins (RFC 9750, section 5.2.1); nothing of a loser's is kept, its Welcomes included (section 5.2.3).
    pub fn submit_bundle(
        &self,
        tx: &mut dyn Tx,
        request: &impl Incoming<SessionRequest>,
        now: Timestamp,
    ) -> Result<Done<SubmitResponse>, Refusal> {
        let (caller, message) = self.in_session::<SubmitBundleRequest>(request, method::SUBMIT_BUNDLE, now)?;
        let key = idempotency_key(&message.idempotency_key)?;
        let access = Access::of_any(tx, &caller.channel, caller.place)?;
        let submission = Submission::new(caller.pseudonym, key, method::SUBMIT_BUNDLE, &request.request().body);
        if let Some(reply) = submission.earlier(tx, now)? {
            return Ok(Done { reply, wake: Vec::new(), outbox: true, accepted: Some(caller.channel) });
        }
        let entry = parse(&message.entry)?;
        let Some(header @ CommitHeader { committer, key_root, removed, .. }) = entry.commit else {
            return Err(Refusal::new(Code::EntryInvalid, "a bundle's entry is a commit: submit others by themselves"));
        };
        let offer = checked(&message)?;
        let access = access.advanced(tx, caller.place, now)?;
        let ended = access.admit(tx, entry.kind, entry.epoch)?;
        let keyed = Keyed::of(tx)?;
        let joins = matches!(caller.place, Place::Joiner { .. });
        let named = keyed.hash(Purpose::Submitter, &[caller.channel.as_bytes(), &committer.0]) == caller.pseudonym;
        if joins && (removed > 0 || message.welcome.is_some()) {
            return Err(Refusal::new(
                Code::EntryInvalid,
                "a commit from outside brings its committer back: it invites nobody, and removes nobody else",
            ));
        }
        // Who comes back to a visible group is judged by MLS below.
        let outside = !named && !joins && tx.followed_tip(&caller.channel)?.is_some();
        if !named && !joins && !outside {
            return Err(Refusal::new(
                Code::EntryInvalid,
                "the commit names another channel key as its committer's than the one that opened this session",
            ));
        }
        let base = Seq(message.base_seq);
        if base > access.row.head || base < access.range.after {
            return Err(Refusal::new(
                Code::EntryInvalid,
                "`base_seq` lies outside of what the committer may have read of the channel",
            ));
        }
        // What costs more comes after it is known that the commit wins.
        let posts = match &message.welcome {
            Some(welcome) => {
                let opened = request.proof(method::SUBMIT_BUNDLE).and_then(Found::opened);
                self.welcomes(tx, &keyed, welcome, opened, now)?
            }
            None => Vec::new(),
        };
        let channel = standing::admit(&access.row, &entry, &message.entry, now)?;
        let brings = VisibleCommit {
            group_info: &message.group_info,
            invites: !posts.is_empty(),
            staged: offer.root.is_some() || !message.join_key.is_empty(),
            judged: request.proof(method::SUBMIT_BUNDLE).and_then(Found::judged),
            outside,
        };
        let kept = self.follow_commit(tx, &channel, &entry, &header, &brings, now)?;
        let offer = kept.map_or(offer, Offer::in_one);
        let reply = append(tx, channel, &entry, message.entry, now)?;
        let started = Seq(reply.seq);
        tx.put_epoch(&EpochRow {
            channel: caller.channel,
            epoch: ended.next(),
            key_root,
            base,
            started,
            closed: None,
        })?;
        tree::replace(tx, &caller.channel, ended, &offer, now)?;
        if !message.joiners.is_empty() {
            let shared = field(&message.joiners, "`joiners` is not 32 bytes")?;
            if posts.is_empty() {
                return Err(malformed("there is a blob for joiners, but `welcome` invites nobody"));
            }
            blobs::promise(tx, &shared, now)?;
        }
        tx.put_group_info(&GroupInfoRow {
            channel: caller.channel,
            epoch: ended.next(),
            group_info: message.group_info,
            tree: offer.root,
            join_key: message.join_key,
        })?;
        for post in &posts {
            tx.push_outbox(crate::store::OutboxKind::Welcome, post)?;
        }
        submission.remember(tx, &reply, now, SUBMISSION_MS)?;
        Ok(Done { reply, wake: vec![caller.channel], outbox: !posts.is_empty(), accepted: Some(caller.channel) })
    }
}

/// Checks what can be checked without the store. Gives what is said of the tree.
fn checked(message: &SubmitBundleRequest) -> Result<Offer, Refusal> {
    if message.group_info.len() > limits::GROUP_INFO {
        return Err(too_large("`group_info`", limits::GROUP_INFO));
    }
    if !matches!(message.join_key.len(), 0 | 32) {
        return Err(malformed("`join_key` is not 32 bytes"));
    }
    Offer::of(message)
}
