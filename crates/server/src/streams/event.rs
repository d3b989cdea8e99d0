//! Events of streams, encoded once for all who get them.

use conclave_delivery::{Batch, StreamEnd};
use conclave_names::{ChannelId, Seq};
use conclave_protocol::v1::{OpenStreamRequest, StreamEntries, StreamEvent, stream_event::Event};
use prost::{Message as _, bytes::BufMut as _, bytes::Bytes};
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// Encodes an event.
pub(super) fn encode(event: Event) -> Bytes {
    StreamEvent { event: Some(event) }.encode_to_vec().into()
}

/// What a stream sends next of a channel. Clones share the bytes.
#[derive(Clone)]
pub(super) struct Piece {
    /// The event, if there is anything new.
    pub(super) event: Option<Bytes>,
    /// Entries after this one are next.
    pub(super) position: Seq,
    /// Whether more was there already when this was read.
    pub(super) more: bool,
    /// After it the stream carries the channel no longer.
    pub(super) ended: Option<StreamEnd>,
}

impl Piece {
    pub(super) fn of(channel: &ChannelId, batch: Batch) -> Self {
        let Batch { entries, position, more, ended } = batch;
        let event =
            (!entries.is_empty()).then(|| encode(Event::Entries(StreamEntries { channel: channel.to_vec(), entries })));
        Self { event, position, more, ended }
    }
}

/// Sends what is encoded already.
#[derive(Clone, Copy, Default)]
pub(crate) struct EventCodec;

/// A stream's buffer as it begins, and how much of it may collect before it is handed on, in bytes. An idle stream keeps
/// the first; tonic's own default is 8 KiB.
fn buffer() -> BufferSettings {
    BufferSettings::new(512, 32 * 1024)
}

impl Codec for EventCodec {
    type Encode = Bytes;
    type Decode = OpenStreamRequest;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for EventCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.reserve(item.len());
        into.put_slice(&item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffer()
    }
}

impl Decoder for EventCodec {
    type Item = OpenStreamRequest;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<OpenStreamRequest>, Status> {
        // In tonic's own words, which `rpc::answers` knows.
        let malformed = |error| Status::internal(format!("failed to decode Protobuf message: {error}"));
        OpenStreamRequest::decode(from).map(Some).map_err(malformed)
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffer()
    }
}
