//! Blobs: up in chunks, down as a stream, both resumed where they were cut.

use conclave_names::{Hash, limits};
use conclave_protocol::{Code, Refusal, v1};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep, timeout};

use super::{Backoff, CallError, Session, Transport};

/// How often the server may say that it has no more of a blob than before, in a row.
const STALLS: u32 = 3;

fn hash_of(bytes: &[u8]) -> Hash {
    Hash::new(Sha256::digest(bytes).into())
}

fn too_large(size: u64, limit: u64) -> CallError {
    CallError::Refused(Refusal::new(
        Code::TooLarge,
        format!("the blob has {size} bytes, at most {limit} are allowed: split it"),
    ))
}

impl Session {
    /// Stages a whole blob. Parts that the server has already, from an earlier attempt, are not sent again (but for
    /// the first, whose answer says how far it got).
    ///
    /// # Errors
    /// The deadline holds for each chunk of 1 MiB.
    pub async fn upload_blob(&self, bytes: &[u8]) -> Result<Hash, CallError> {
        let (hash, size) = (hash_of(bytes), bytes.len() as u64);
        if size > limits::BLOB {
            return Err(too_large(size, limits::BLOB));
        }
        let mut offset = 0;
        let mut stalls = 0;
        loop {
            let rest = bytes.get(offset..).unwrap_or_default();
            let data = rest.get(..limits::BLOB_CHUNK).unwrap_or(rest).to_vec();
            let request = v1::StageBlobRequest { hash: hash.to_vec(), size, offset: offset as u64, data };
            let received = self.stage_blob(&request).await?.received;
            if received == size {
                return Ok(hash);
            }
            let received =
                usize::try_from(received).ok().filter(|received| *received < bytes.len()).ok_or_else(|| {
                    CallError::Protocol(format!("StageBlob: {received} bytes received of a blob of {size}"))
                })?;
            // A server that made room by forgetting what was staged starts anew, but not for ever.
            stalls = if received > offset { 0 } else { stalls + 1 };
            if stalls > STALLS {
                return Err(CallError::Protocol(format!("StageBlob: stuck at {received} of {size} bytes")));
            }
            tracing::debug!(blob = %hash, received, size, "staging a blob");
            offset = received;
        }
    }
}

/// What arrived of a blob.
struct Partial {
    bytes: Vec<u8>,
    size: Option<u64>,
}

impl Transport {
    /// Reads a whole blob of at most `limit` bytes and checks that it is the one that the hash names. A broken
    /// stream is resumed where it broke, as long as something comes before each deadline.
    ///
    /// # Errors
    /// [`CallError::WrongBlob`]; a refusal with [`Code::TooLarge`] if it is over `limit`.
    pub async fn download_blob(&self, hash: Hash, limit: u64) -> Result<Vec<u8>, CallError> {
        let mut partial = Partial { bytes: Vec::new(), size: None };
        let mut backoff = Backoff::default();
        let mut end = Instant::now() + self.deadline;
        loop {
            let before = partial.bytes.len();
            let error = match self.read_on(hash, limit, &mut partial).await {
                Ok(()) if hash_of(&partial.bytes) == hash => return Ok(partial.bytes),
                Ok(()) => return Err(CallError::WrongBlob(hash)),
                Err(error) => error,
            };
            if partial.bytes.len() > before {
                backoff.reset();
                end = Instant::now() + self.deadline;
            }
            let pause = backoff.next_pause() + error.retry_after();
            if !error.is_short() || Instant::now() + pause >= end {
                return Err(error);
            }
            tracing::info!(blob = %hash, received = partial.bytes.len(), %error, "a blob's stream broke, will resume");
            sleep(pause).await;
        }
    }

    /// One attempt: from what is there to the end.
    async fn read_on(&self, hash: Hash, limit: u64, partial: &mut Partial) -> Result<(), CallError> {
        let late = |_| CallError::unreachable(format!("no part of the blob within {} s", self.deadline.as_secs()));
        let request = v1::ReadBlobRequest { hash: hash.to_vec(), offset: partial.bytes.len() as u64 };
        let mut client = self.delivery();
        let mut stream = timeout(self.deadline, client.read_blob(request)).await.map_err(late)??.into_inner();
        let mut first = true;
        while let Some(part) = timeout(self.deadline, stream.message()).await.map_err(late)?? {
            if std::mem::take(&mut first) {
                if part.size > limit {
                    return Err(too_large(part.size, limit));
                }
                if partial.size.replace(part.size).is_some_and(|size| size != part.size) {
                    return Err(CallError::Protocol("ReadBlob: the blob's size changed".into()));
                }
            }
            partial.bytes.extend_from_slice(&part.data);
            if partial.size.is_some_and(|size| partial.bytes.len() as u64 > size) {
                return Err(CallError::WrongBlob(hash));
            }
        }
        // An empty blob may be no message at all.
        if partial.bytes.len() as u64 == partial.size.unwrap_or(0) {
            Ok(())
        } else {
            Err(CallError::unreachable("the blob's stream ended early"))
        }
    }
}
