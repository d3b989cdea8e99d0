//! Entries of a channel, as clients and server read them.
#![no_main]

use conclave_channel::{Entry, HashWindow, Position, chain, size_class};
use conclave_names::{ChannelId, Seq, Timestamp};
use conclave_protocol::v1;
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|data: &[u8]| {
    if let Ok(entry) = Entry::parse(data) {
        assert_eq!(entry.to_bytes().as_deref(), Ok(data), "an entry has one encoding");
        let mut window = HashWindow::new(Position::start(&ChannelId::new([1; 16])), Timestamp(0));
        assert!(window.advance(Seq(1), entry.kind, Timestamp(5), data).is_ok());
        assert!(window.advance(Seq(1), entry.kind, Timestamp(5), data).is_err());
        assert_ne!(window.position().hash, chain::start(&ChannelId::new([1; 16])));
    }
    let padded = size_class::pad(data.to_vec(), 33);
    assert_eq!(size_class::unpad(padded).as_deref(), Ok(data));
    let _ = size_class::unpad(data.to_vec());
    let _ = v1::FetchResponse::decode(data);
    let _ = v1::StreamEvent::decode(data);
});
