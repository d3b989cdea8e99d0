use conclave_names::{Hash, limits};
use conclave_protocol::{Refusal, v1::ReadBlobRequest};

use super::{
    DeliveryService,
    blobs::{pieces, unknown},
    request::{field, malformed},
};
use crate::store::{BlobRow, Read};

/// A part of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobPart {
    /// Length of the whole blob, in bytes.
    pub size: u64,
    /// Bytes from the offset that was asked for, at most 1 MiB. Empty only at the end.
    pub data: Vec<u8>,
}

impl DeliveryService {
    /// Reads a part of a whole blob, from an offset. A stream of it is made of such calls, each in a transaction of its
    /// own. The hash is what admits.
    pub fn read_blob(&self, read: &mut dyn Read, request: &ReadBlobRequest) -> Result<BlobPart, Refusal> {
        let hash: Hash = field(&request.hash, "`hash` is not 32 bytes")?;
        let BlobRow { chunks, size, .. } = read.blob(&hash)?.ok_or_else(unknown)?;
        if request.offset > size {
            return Err(malformed("`offset` lies beyond the blob's end"));
        }
        let mut data = Vec::new();
        let end = size.min(request.offset.saturating_add(limits::BLOB_CHUNK as u64));
        pieces(read, &chunks, request.offset, end, |piece| {
            data.extend_from_slice(piece);
            true
        })?;
        Ok(BlobPart { size, data })
    }
}
