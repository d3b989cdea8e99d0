//! What entries seal: their bodies, where they are, and what is in them.

use conclave_channel::{Body, Entry, EntryKind, chain};
use conclave_mls::{
    components::EpochTag,
    seal::{Purpose, entry_context},
};
use conclave_names::{Epoch, IdempotencyKey, limits};
use mls_rs::{
    MlsMessage, MlsMessageDescription,
    group::{ContentType, Sender},
};
use zeroize::Zeroizing;

use super::{Group, Status, access::fault, commit, process::Incoming};
use crate::{
    intent::{Intent, Prepared},
    mls_client::{MlsError, random, suite},
    outcome::Rejection,
};

/// What an entry seals, opened.
pub(super) enum Opened {
    /// And which epoch its sender says it to be of.
    Message(Box<MlsMessage>, Option<EpochTag>),
    Refused(Rejection),
}

/// An entry's body, of which one that is apart must be the one that the entry names.
pub(super) fn body_of<'a>(entry: &'a Entry, incoming: &'a Incoming) -> Result<&'a [u8], Rejection> {
    match &entry.body {
        Body::Inline(body) => Ok(body),
        Body::Staged { hash, size } => {
            let named = |blob: &&Vec<u8>| blob.len() as u64 == *size && chain::entry_hash(blob) == *hash;
            incoming.blob.as_ref().filter(named).map(Vec::as_slice).ok_or(Rejection::Blob)
        }
    }
}

impl Group {
    /// Whether an entry's blob is needed to process it at our place, if it names one: not that of one of ours, nor one that says
    /// nothing to us whatever is in it. Of what is not small ([`limits::STAGED_BODY`]) that can be said of the entry after our place only.
    #[must_use]
    pub fn wants_blob(&self, entry: &[u8]) -> bool {
        let Ok(parsed) = Entry::parse(entry) else { return false };
        if parsed.kind == EntryKind::Successor {
            // Also of ours; and also before the group is frozen, as the freezing commit may come in the same batch.
            return parsed.body.size() <= limits::STAGED_BODY
                || (self.frozen.is_some() && parsed.body.size() <= parsed.kind.body_max(self.ledger.members()));
        }
        let is_ours = |intent: &Intent| intent.prepared.as_ref().is_some_and(|prepared| prepared.entry == entry);
        if self.intents.values().any(is_ours) {
            return false;
        }
        let follows = parsed.epoch <= self.epoch() && self.status != Status::Removed;
        parsed.body.size() <= limits::STAGED_BODY
            || (follows && parsed.body.size() <= parsed.kind.body_max(self.ledger.members()))
    }

    /// Opens what an entry seals and checks that it is what the entry says outside.
    pub(super) fn open(&self, entry: &Entry, incoming: &Incoming) -> Opened {
        match self.try_open(entry, incoming) {
            Ok((message, said)) => Opened::Message(Box::new(message), said),
            Err(rejection) => Opened::Refused(rejection),
        }
    }

    /// Seals the body of an entry of an epoch.
    pub(super) fn seal(&self, kind: EntryKind, epoch: Epoch, body: Vec<u8>) -> Result<Vec<u8>, MlsError> {
        let seed = self.seed(epoch).ok_or_else(|| fault("no group seed"))?;
        let context = entry_context(&self.profile.channel, kind.code(), epoch);
        seed.seal(&suite(self.mls.cipher_suite())?, Purpose::Entry, &context, body).map_err(fault)
    }

    /// An entry that is no commit, with its body sealed, ready to be submitted.
    pub(super) fn sealed_entry(&self, kind: EntryKind, epoch: Epoch, body: Vec<u8>) -> Result<Prepared, MlsError> {
        let body = self.seal(kind, epoch, body)?;
        self.plain_entry(kind, epoch, body)
    }

    /// The same with its body in the clear, or sealed already.
    pub(super) fn plain_entry(&self, kind: EntryKind, epoch: Epoch, body: Vec<u8>) -> Result<Prepared, MlsError> {
        let mut blobs = Vec::new();
        let entry = Entry::new(kind, epoch, commit::body_of(body, &mut blobs)).to_bytes().map_err(fault)?;
        let key = IdempotencyKey::new(random(&suite(self.mls.cipher_suite())?)?);
        Ok(Prepared { key, epoch, entry, bundle: None, blobs, secrets: Zeroizing::default() })
    }

    /// Opens the seal of an entry's body.
    pub(super) fn unseal(&self, entry: &Entry, sealed: &[u8]) -> Result<Vec<u8>, Rejection> {
        let provider = suite(self.mls.cipher_suite()).map_err(|error| Rejection::Mls(error.to_string()))?;
        let context = entry_context(&self.profile.channel, entry.kind.code(), entry.epoch);
        let seed = self.seed(entry.epoch).ok_or(Rejection::Seal)?;
        seed.open(&provider, Purpose::Entry, &context, sealed).map_err(|_| Rejection::Seal)
    }

    fn try_open(&self, entry: &Entry, incoming: &Incoming) -> Result<(MlsMessage, Option<EpochTag>), Rejection> {
        let sealed = body_of(entry, incoming)?;
        if self.is_visible() && matches!(entry.kind, EntryKind::Commit | EntryKind::Proposal) {
            return self.open_visible(entry, sealed).map(|message| (message, EpochTag::said_by(sealed)));
        }
        let opened = self.unseal(entry, sealed)?;
        let message = MlsMessage::from_bytes(&opened).map_err(|_| Rejection::Mismatch)?;
        // What kind of message it is decides what is done with it, so it is looked at before MLS does.
        match message.description() {
            MlsMessageDescription::PrivateProtocolMessage { group_id, epoch_id, content_type }
                if group_id == self.mls.group_id()
                    && epoch_id == entry.epoch.0
                    && matches!(
                        (entry.kind, content_type),
                        (EntryKind::Message, ContentType::Application)
                            | (EntryKind::Commit, ContentType::Commit)
                            | (EntryKind::Proposal, ContentType::Proposal)
                    ) => {}
            // A commit from outside is a PublicMessage by RFC 9420, section 12.4.3.2; here it is sealed like all.
            MlsMessageDescription::PublicProtocolMessage { group_id, epoch_id, content_type, sender, .. }
                if group_id == self.mls.group_id()
                    && epoch_id == entry.epoch.0
                    && entry.kind == EntryKind::Commit
                    && (content_type, sender) == (ContentType::Commit, Sender::NewMemberCommit) => {}
            _ => return Err(Rejection::Mismatch),
        }
        Ok((message, EpochTag::said_by(&opened)))
    }
}
