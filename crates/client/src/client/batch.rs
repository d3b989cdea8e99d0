//! How much of a channel is held in memory at once: what entries name can be large, and a page has many entries.

use std::collections::VecDeque;

use conclave_channel::{Body, Entry};
use conclave_engine::group::Incoming;
use conclave_names::{GroupUri, Seq, Timestamp, limits};
use conclave_protocol::{Code, v1};

use super::{Client, ClientError, ClientEvent, sync::Source};
use crate::transport::CallError;

/// Bytes of blobs that are held at once: 4 MiB, or one blob.
const BATCH_BYTES: u64 = 4 * 1024 * 1024;

impl Client {
    /// Processes entries that follow our place in a group's channel, a batch at a time.
    pub(super) async fn process(
        &mut self,
        name: &GroupUri,
        entries: Vec<v1::LoggedEntry>,
    ) -> Result<Vec<ClientEvent>, ClientError> {
        let mut events = Vec::new();
        let done = self.process_batches(name, entries.into(), &mut events).await;
        self.told(done, events)
    }

    async fn process_batches(
        &mut self,
        name: &GroupUri,
        mut entries: VecDeque<v1::LoggedEntry>,
        events: &mut Vec<ClientEvent>,
    ) -> Result<(), ClientError> {
        while !entries.is_empty() {
            let batch = self.next_batch(name, &mut entries, Source::Fetched).await?;
            events.extend(self.take(name, &batch, Source::Fetched)?);
            let place = self.groups.get(name).map(|group| group.position().seq);
            if place != batch.last().map(|last| last.seq) {
                // It is read once more, or not followed: what comes after it would be a gap.
                break;
            }
        }
        Ok(())
    }

    /// The first of these entries with the blobs that they name and that are needed. A large blob comes alone: only after all before it
    /// it can be said whether it is needed, and how large it may be.
    pub(super) async fn next_batch(
        &mut self,
        name: &GroupUri,
        entries: &mut VecDeque<v1::LoggedEntry>,
        source: Source,
    ) -> Result<Vec<Incoming>, ClientError> {
        let next = self.group(name)?.position().seq.next();
        let group = self.groups.get(name);
        let (mut batch, mut bytes) = (Vec::new(), 0_u64);
        while let Some(logged) = entries.front() {
            let staged = match Entry::parse(&logged.entry).map(|entry| entry.body) {
                Ok(Body::Staged { hash, size }) => Some((hash, size)),
                _ => None,
            };
            let size = staged.map_or(0, |(_, size)| size);
            let (is_large, is_next) = (size > limits::STAGED_BODY, Seq(logged.seq) == next);
            if !batch.is_empty() && (is_large || bytes.saturating_add(size) > BATCH_BYTES) {
                break;
            }
            if is_large && !is_next && matches!(source, Source::Stream) {
                // It is fetched when its turn comes.
                break;
            }
            let wanted = (!is_large || is_next) && group.is_none_or(|group| group.wants_blob(&logged.entry));
            let blob = match staged.filter(|_| wanted) {
                Some((hash, size)) => match self.delivery.download_blob(hash, size).await {
                    Ok(blob) => Some(blob),
                    Err(CallError::Refused(refusal)) if refusal.code == Code::BlobUnknown => None,
                    Err(error) => return Err(error.into()),
                },
                None => None,
            };
            bytes = bytes.saturating_add(size);
            let Some(logged) = entries.pop_front() else { break };
            batch.push(Incoming { seq: Seq(logged.seq), time: Timestamp(logged.time_ms), entry: logged.entry, blob });
            if is_large {
                break;
            }
        }
        Ok(batch)
    }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
