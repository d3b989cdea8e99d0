//! Groups with visible handshakes, as the channel's rows have them (`crate::visible`).

use std::sync::{Arc, Mutex, PoisonError};

use conclave_channel::{Body, CommitHeader, Entry, Position, law::DisputePause};
use conclave_mls::address::DeliveryAddress;
use conclave_names::{ChannelId, Epoch, Hash, Timestamp, limits};
use conclave_protocol::{
    Code, Refusal, session,
    v1::{SessionRequest, SubmitBundleRequest},
};
use sha2::{Digest, Sha256};

use super::{
    Authenticated, DeliveryService, Incoming,
    access::Access,
    blobs,
    request::{malformed, too_large},
};
use crate::{
    keyed::{Keyed, random},
    store::{BlobRow, ChannelKind, ChannelRow, CheckpointRow, FollowedRow, Read, StoreError, Tx},
    visible::{Followed, Handshake, Source, Tip, is_outside},
};

/// What the server knows of a group with visible handshakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FollowedGroup {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its members.
    pub members: usize,
    /// SHA-256 of the encoded GroupContext (RFC 9420, section 8.1): equal for who agrees on the group's public state.
    pub context: Hash,
}

/// What a commit of a visible group brings with it.
pub(super) struct VisibleCommit<'a> {
    /// GroupInfo of the epoch that it begins.
    pub(super) group_info: &'a [u8],
    /// Whether it invites somebody, who will want the tree.
    pub(super) invites: bool,
    /// Whether it brings a tree or a join key, as a private group's commit does.
    pub(super) staged: bool,
    /// Whether it names another committer than the member in whose session it came: one that comes back.
    pub(super) outside: bool,
    /// What was found out ahead of the transaction.
    pub(super) judged: Option<&'a Judged>,
}

/// A commit that was judged ahead of its transaction, by the group as it was then.
#[derive(Debug, Clone)]
pub(crate) struct Judged {
    /// What the group had come to.
    parent: Tip,
    /// What the commit would lead to. It is taken once.
    next: Arc<Mutex<Option<Result<Followed, Refusal>>>>,
}

impl Judged {
    /// The verdict, if it still holds: nothing but messages came in between.
    fn take(&self, parent: &Tip) -> Option<Result<Followed, Refusal>> {
        if self.parent.link != parent.link {
            return None;
        }
        self.next.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn corrupt(what: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("a followed group: {what}"))
}

impl DeliveryService {
    /// The group as it is followed, if its handshakes are visible. What is in memory counts only if it is what the
    /// store's handshakes lead to.
    pub(super) fn followed(&self, read: &mut dyn Read, channel: &ChannelId) -> Result<Option<Arc<Followed>>, Refusal> {
        let Some((seq, link)) = read.followed_tip(channel)? else { return Ok(None) };
        let tip = Tip { seq, link };
        if let Some(found) = self.visible.get(channel, &tip) {
            return Ok(Some(found));
        }
        let checkpoint = read.checkpoint(channel)?.ok_or_else(|| corrupt("no checkpoint"))?;
        let rows = read.followed(channel, checkpoint.seq)?;
        let restored = self.follower.restore(&checkpoint, &rows).map_err(corrupt)?;
        let restored = restored.filter(|followed| *followed.tip() == tip).ok_or_else(|| corrupt("a broken link"))?;
        let restored = Arc::new(restored);
        self.visible.put(*channel, None, Arc::clone(&restored));
        Ok(Some(restored))
    }

    /// What the server knows of a group with visible handshakes, for an operator to look at. None: there is no such
    /// channel, or its handshakes are private.
    pub fn followed_group(&self, read: &mut dyn Read, channel: &ChannelId) -> Result<Option<FollowedGroup>, Refusal> {
        let Some(followed) = self.followed(read, channel)? else { return Ok(None) };
        let context = followed.context_hash().map_err(|error| Refusal::new(Code::Internal, error.to_string()))?;
        Ok(Some(FollowedGroup { epoch: followed.epoch(), members: followed.members(), context }))
    }

    /// Begins to follow a group, by the GroupInfo of its epoch 0.
    pub(super) fn follow_from(
        &self,
        tx: &mut dyn Tx,
        (channel, epoch): (&ChannelId, Epoch),
        pause: DisputePause,
        key_root: &Hash,
        group_info: &[u8],
        now: Timestamp,
    ) -> Result<(), Refusal> {
        if group_info.len() > limits::GROUP_INFO {
            return Err(too_large("`group_info`", limits::GROUP_INFO));
        }
        let mut followed = self.follower.begin(group_info, &self.domain, (channel, epoch, pause), key_root, now)?;
        tx.put_checkpoint(&snapshot(&mut followed, channel)?)?;
        self.visible.put(*channel, None, Arc::new(followed));
        Ok(())
    }

    /// Judges a proposal, if the group's handshakes are visible. `row` is the channel before it. Gives what is to be noted;
    /// nothing is written.
    pub(super) fn follow_proposal(
        &self,
        read: &mut dyn Tx,
        row: &ChannelRow,
        entry: &Entry,
        source: Source,
        now: Timestamp,
    ) -> Result<Option<FollowedRow>, Refusal> {
        let Some(found) = self.followed(read, &row.id)? else { return Ok(None) };
        let message = message(read, entry)?;
        // Out of the cache, a large group need not be copied for a proposal.
        self.visible.forget(&row.id);
        let mut followed = Arc::unwrap_or_clone(found);
        let keyed = Keyed::of(read)?;
        let mut failed = None;
        // A Welcome that goes nowhere would have the commit refused.
        let mut reaches = |address: &DeliveryAddress| {
            let Ok(domain) = address.domain() else { return Err("names no provider") };
            let good = self.good_address(read, &keyed, (domain.as_str(), &address.sealed), None, now);
            good.map_or_else(
                |refusal| {
                    failed = Some(refusal);
                    Err("could not be looked up")
                },
                |good| good.map(drop),
            )
        };
        let handshake = next_of(row, entry, &message, now);
        let judged = self.follower.propose(&mut followed, &handshake, source, &mut reaches);
        let (seq, link) = (followed.tip().seq, followed.tip().link);
        self.visible.put(row.id, None, Arc::new(followed));
        if let Some(refusal) = failed {
            return Err(refusal);
        }
        judged?;
        let time = row.time(now);
        Ok(Some(FollowedRow { channel: row.id, seq, kind: entry.kind, time, link, message }))
    }

    /// Judges a commit, if the group's handshakes are visible, and notes it. `row` is the channel before it, with the
    /// ledger after it. Gives the hash of the blob with the new epoch's tree, if the commit invites somebody.
    pub(super) fn follow_commit(
        &self,
        tx: &mut dyn Tx,
        row: &ChannelRow,
        entry: &Entry,
        header: &CommitHeader,
        brings: &VisibleCommit<'_>,
        now: Timestamp,
    ) -> Result<Option<Hash>, Refusal> {
        let Some(followed) = self.followed(tx, &row.id)? else { return Ok(None) };
        if brings.staged {
            return Err(malformed(
                "a bundle of a visible group has neither `tree` nor `join_key`: the server follows the group",
            ));
        }
        let message = message(tx, entry)?;
        if brings.outside && !is_outside(&message) {
            return Err(Refusal::new(
                Code::EntryInvalid,
                "the commit names another channel key as its committer's than the one that opened this session",
            ));
        }
        let handshake = next_of(row, entry, &message, now);
        let mut next = match brings.judged.and_then(|judged| judged.take(followed.tip())) {
            Some(judged) => judged?,
            None => followed.commit(&handshake, header, brings.group_info)?,
        };
        next.place(handshake.seq);
        let tree = if brings.invites { Some(store_tree(tx, &next, now)?) } else { None };
        if next.wants_checkpoint() {
            tx.put_checkpoint(&snapshot(&mut next, &row.id)?)?;
            forget_settled(tx, row)?;
        } else {
            let Tip { seq, link } = *next.tip();
            let time = handshake.time;
            tx.put_followed(&FollowedRow { channel: row.id, seq, kind: entry.kind, time, link, message })?;
        }
        self.visible.put(row.id, Some(followed), Arc::new(next));
        Ok(tree)
    }

    /// Judges the commit of a visible group ahead of its transaction, if it may still win: a store writes for one at a
    /// time, and that of a large group takes long. It is no error where it is refused: the call says so.
    ///
    /// # Errors
    /// Those of the store.
    pub fn judge_commit(
        &self,
        read: &mut dyn Read,
        request: &mut Authenticated<SessionRequest>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let Some(caller) = request.caller() else { return Ok(()) };
        let Ok(bundle) = session::decode::<SubmitBundleRequest>(request.request()) else { return Ok(()) };
        let Ok(entry) = Entry::parse(&bundle.entry) else { return Ok(()) };
        let Some(header) = entry.commit else { return Ok(()) };
        let Ok(access) = Access::of(read, &caller.channel, caller.place) else { return Ok(()) };
        if access.admit(read, entry.kind, entry.epoch).is_err() {
            return Ok(());
        }
        let Some(followed) = self.followed(read, &caller.channel)? else { return Ok(()) };
        // The time may have annulled commits, as the transaction will find.
        if followed.epoch() != entry.epoch {
            return Ok(());
        }
        let Ok(message) = message(read, &entry) else { return Ok(()) };
        let handshake = next_of(&access.row, &entry, &message, now);
        let next = followed.commit(&handshake, &header, &bundle.group_info).map_err(Refusal::from);
        request.found(Judged { parent: *followed.tip(), next: Arc::new(Mutex::new(Some(next))) });
        Ok(())
    }
}

/// The place that comes next in a channel.
fn next_of<'a>(row: &ChannelRow, entry: &Entry, message: &'a [u8], now: Timestamp) -> Handshake<'a> {
    Handshake {
        message,
        epoch: entry.epoch,
        seq: row.head.next(),
        time: row.time(now),
        head: Position { seq: row.head, hash: row.head_hash },
    }
}

/// What an entry carries, its blob included.
fn message(read: &mut dyn Read, entry: &Entry) -> Result<Vec<u8>, Refusal> {
    let (hash, size) = match &entry.body {
        Body::Inline(body) => return Ok(body.clone()),
        Body::Staged { hash, size } => (hash, *size),
    };
    if size > limits::HANDSHAKE {
        return Err(too_large("a visible group's handshake message", limits::HANDSHAKE));
    }
    let row = read.blob(hash)?.ok_or_else(blobs::unknown)?;
    if row.size != size {
        return Err(Refusal::new(Code::BlobInvalid, "the entry's blob has another size than the entry says"));
    }
    let mut bytes = Vec::new();
    blobs::pieces(read, &row.chunks, 0, size, |piece| {
        bytes.extend_from_slice(piece);
        true
    })?;
    Ok(bytes)
}

fn snapshot(followed: &mut Followed, channel: &ChannelId) -> Result<CheckpointRow, Refusal> {
    followed.checkpoint(channel).map_err(|error| Refusal::new(Code::Internal, error.to_string()))
}

/// Deletes what the newest checkpoint of a settled epoch stands for. Open commits may be annulled: then the group is
/// restored from before them.
fn forget_settled(tx: &mut dyn Tx, row: &ChannelRow) -> Result<(), Refusal> {
    let ChannelKind::Group { ledger } = &row.kind else { return Ok(()) };
    let settled = tx.checkpoints(&row.id)?.into_iter().rev().find(|(epoch, _)| *epoch <= ledger.settled());
    if let Some((_, seq)) = settled {
        tx.delete_followed_before(&row.id, seq)?;
    }
    Ok(())
}

/// Keeps the tree as a blob, for those whom a commit invites: the Welcome names its hash.
fn store_tree(tx: &mut dyn Tx, followed: &Followed, now: Timestamp) -> Result<Hash, Refusal> {
    let tree = followed.tree().map_err(|error| Refusal::new(Code::Internal, error.to_string()))?;
    let hash = Hash::new(Sha256::digest(tree).into());
    if tx.blob(&hash)?.is_some() {
        return Ok(hash);
    }
    let size = tree.len() as u64;
    let expires = now.plus_ms(limits::INVITATION_MS);
    let chunks = random()?;
    tx.put_blob(&BlobRow { hash, chunks, size, pins: 0, expires, scope: None })?;
    let mut offset = 0_u64;
    for chunk in tree.chunks(limits::BLOB_CHUNK) {
        tx.append_chunk(&chunks, offset, chunk)?;
        offset = offset.saturating_add(chunk.len() as u64);
    }
    Ok(hash)
}
