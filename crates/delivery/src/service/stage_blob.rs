use conclave_names::{Hash, Timestamp, limits};
use conclave_protocol::{
    Code, Refusal, method,
    v1::{SessionRequest, StageBlobRequest, StageBlobResponse},
};

use super::{
    DeliveryService, Done, Incoming,
    access::Access,
    blobs::{UNNAMED_MS, digest, pieces},
    request::{field, malformed, too_large},
};
use crate::store::{BlobRow, Tx};

impl DeliveryService {
    /// Stages a part of a blob. Parts are kept in order: one that would leave a gap is passed over, and the answer says
    /// from where to go on. One that differs from what is kept starts the blob anew.
    pub fn stage_blob(
        &self,
        tx: &mut dyn Tx,
        request: &impl Incoming<SessionRequest>,
        now: Timestamp,
    ) -> Result<Done<StageBlobResponse>, Refusal> {
        let (caller, message) = self.in_session::<StageBlobRequest>(request, method::STAGE_BLOB, now)?;
        Access::of(tx, &caller.channel, caller.place)?.member()?;
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
        let fresh = BlobRow { hash, size, received: 0, whole: false, pins: 0, expires };
        let mut row = tx.blob(&hash)?.unwrap_or(fresh.clone());
        if row.size != size {
            return Err(Refusal::new(
                Code::BlobInvalid,
                "the blob was begun with another size: check its size and hash",
            ));
        }
        if row.whole {
            // It may be wanted again soon.
            tx.put_blob(&BlobRow { expires: row.expires.max(expires), ..row })?;
            return Ok(Done::quiet(StageBlobResponse { received: size }));
        }
        if !agrees(tx, &row, offset, &data)? {
            tx.delete_blob(&hash)?;
            row = fresh;
        }
        if offset <= row.received && end > row.received {
            let skip = usize::try_from(row.received - offset).unwrap_or(usize::MAX);
            let data = data.get(skip..).unwrap_or_default();
            if end == size && digest(tx, &hash, row.received, data)? != hash {
                return Err(Refusal::new(
                    Code::BlobInvalid,
                    "the bytes do not have the announced hash: stage the blob again from its start",
                ));
            }
            tx.append_chunk(&hash, row.received, data)?;
            row.received = end;
            row.whole = end == size;
        }
        row.expires = expires;
        tx.put_blob(&row)?;
        Ok(Done::quiet(StageBlobResponse { received: row.received }))
    }
}

/// Whether data that comes again is what is kept.
fn agrees(tx: &mut dyn Tx, row: &BlobRow, offset: u64, data: &[u8]) -> Result<bool, Refusal> {
    let end = row.received.min(offset.saturating_add(data.len() as u64));
    let mut rest = data;
    let mut same = true;
    pieces(tx, &row.hash, offset, end, |piece| {
        let (head, tail) = rest.split_at(piece.len().min(rest.len()));
        same = head == piece;
        rest = tail;
        same
    })?;
    Ok(same)
}
