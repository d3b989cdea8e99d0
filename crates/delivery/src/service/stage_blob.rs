use conclave_names::{Hash, Timestamp, limits};
use conclave_protocol::{
    Code, Refusal, method,
    v1::{SessionRequest, StageBlobRequest, StageBlobResponse},
};

use super::{
    DeliveryService, Done, Incoming,
    access::Access,
    blobs::{Running, UNNAMED_MS, pieces},
    request::{field, malformed, too_large},
};
use crate::{
    keyed::{Keyed, Purpose, random},
    session::Caller,
    store::{BlobRow, StagedRow, Tx},
};

impl DeliveryService {
    /// Stages a part of a blob. Parts are kept in order: one that would leave a gap is passed over, and the answer says
    /// from where to go on. One that differs from what is kept, or comes with another size, starts the blob anew.
    ///
    /// What is staged is the session key's own until it is whole and has the hash: nobody can hold up, by wrong bytes or
    /// a wrong size, who stages the right ones. What a channel has staged that nothing names is bounded.
    pub fn stage_blob(
        &self,
        tx: &mut dyn Tx,
        request: &impl Incoming<SessionRequest>,
        now: Timestamp,
    ) -> Result<Done<StageBlobResponse>, Refusal> {
        let (caller, message) = self.in_session::<StageBlobRequest>(request, method::STAGE_BLOB, now)?;
        Access::of_any(tx, &caller.channel, caller.place)?.member_at(now)?;
        let StageBlobRequest { hash, size, offset, data } = message;
        let hash: Hash = field(&hash, "`hash` is not 32 bytes")?;
        if size > limits::BLOB {
            return Err(too_large("`size`", limits::BLOB));
        }
        if data.len() > limits::BLOB_CHUNK {
            return Err(too_large("`data`", limits::BLOB_CHUNK));
        }
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= size);
        let (Some(end), false) = (end, data.is_empty()) else {
            return Err(malformed("`data` is empty, or goes on beyond `size`"));
        };
        let expires = now.plus_ms(UNNAMED_MS);
        if let Some(row) = tx.blob(&hash)? {
            return already_whole(tx, &caller, row, size, expires);
        }
        let mut row = match tx.staged(&caller.pseudonym, &hash)? {
            Some(row) if row.size == size && agrees(tx, &row, offset, &data)? => row,
            before => begin(tx, &caller, hash, size, before)?,
        };
        let Some(mut digest) = Running::parse(&row.digest) else {
            discard(tx, &row)?;
            return Ok(Done::quiet(StageBlobResponse { received: 0 }));
        };
        if offset <= row.received && end > row.received {
            let skip = usize::try_from(row.received - offset).unwrap_or(usize::MAX);
            let data = data.get(skip..).unwrap_or_default();
            digest.update(data);
            row.digest = digest.to_bytes();
            if end == size && digest.finish() != hash {
                return Err(Refusal::new(
                    Code::BlobInvalid,
                    "the bytes do not have the announced hash: stage the blob again from its start",
                ));
            }
            tx.append_chunk(&row.chunks, row.received, data)?;
            row.received = end;
        }
        let received = row.received;
        if received == size {
            let StagedRow { stager, hash, chunks, scope, size, .. } = row;
            tx.delete_staged(&stager, &hash)?;
            tx.put_blob(&BlobRow { hash, chunks, size, pins: 0, expires, scope: Some(scope) })?;
        } else {
            tx.put_staged(&StagedRow { expires, ..row })?;
        }
        Ok(Done::quiet(StageBlobResponse { received }))
    }
}

/// Somebody has staged the whole of it: nothing is left to do.
fn already_whole(
    tx: &mut dyn Tx,
    caller: &Caller,
    row: BlobRow,
    size: u64,
    expires: Timestamp,
) -> Result<Done<StageBlobResponse>, Refusal> {
    if row.size != size {
        return Err(Refusal::new(Code::BlobInvalid, "the blob of this hash has another size: check size and hash"));
    }
    if let Some(own) = tx.staged(&caller.pseudonym, &row.hash)? {
        discard(tx, &own)?;
    }
    // It may be wanted again soon.
    tx.put_blob(&BlobRow { expires: row.expires.max(expires), ..row })?;
    Ok(Done::quiet(StageBlobResponse { received: size }))
}

/// Begins a blob, in the place of what the same stager had of it.
fn begin(
    tx: &mut dyn Tx,
    caller: &Caller,
    hash: Hash,
    size: u64,
    before: Option<StagedRow>,
) -> Result<StagedRow, Refusal> {
    if let Some(before) = before {
        discard(tx, &before)?;
    }
    let scope = Keyed::of(tx)?.hash(Purpose::Staging, &[caller.channel.as_bytes()]);
    let total = tx.staged_total(&scope)?;
    if total.blobs >= limits::STAGED_BLOBS || total.bytes.saturating_add(size) > limits::STAGED_BYTES {
        return Err(Refusal::new(
            Code::QuotaExceeded,
            format!(
                "a channel may have {} blobs and {} bytes staged that no entry names: submit what names them, or wait \
                 until they expire after a day",
                limits::STAGED_BLOBS,
                limits::STAGED_BYTES
            ),
        ));
    }
    Ok(StagedRow {
        stager: caller.pseudonym,
        hash,
        chunks: random()?,
        scope,
        size,
        received: 0,
        digest: Running::new().to_bytes(),
        expires: Timestamp(0),
    })
}

fn discard(tx: &mut dyn Tx, row: &StagedRow) -> Result<(), Refusal> {
    tx.discard_chunks(&row.chunks)?;
    tx.delete_staged(&row.stager, &row.hash)?;
    Ok(())
}

/// Whether data that comes again is what is kept.
fn agrees(tx: &mut dyn Tx, row: &StagedRow, offset: u64, data: &[u8]) -> Result<bool, Refusal> {
    let end = row.received.min(offset.saturating_add(data.len() as u64));
    let mut rest = data;
    let mut same = true;
    pieces(tx, &row.chunks, offset, end, |piece| {
        let (head, tail) = rest.split_at(piece.len().min(rest.len()));
        same = head == piece;
        rest = tail;
        same
    })?;
    Ok(same)
}
