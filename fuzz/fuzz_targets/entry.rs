//! Entries of a channel, as clients and server read them.
#![no_main]

use conclave_channel::{Entry, HashWindow, Position, chain, law::Ledger, size_class};
use conclave_names::{ChannelId, Epoch, Hash, Seq, Timestamp};
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
        let mut ledger = Ledger::new(Epoch(entry.epoch.0), Hash::new([2; 32]), 3);
        let before = ledger.clone();
        let admitted = ledger.admit(&ChannelId::new([1; 16]), Seq(1), Timestamp(5), &entry, chain::entry_hash(data));
        assert!(admitted.is_ok() || ledger == before, "what is refused changes nothing");
        assert!(entry.verdict.is_none() || admitted.is_err(), "a verdict about nothing");
    }
    if let Ok(mut ledger) = Ledger::parse(data) {
        assert_eq!(ledger.to_bytes().as_deref(), Ok(data), "a ledger has one encoding");
        let epoch = ledger.epoch();
        ledger.advance(Timestamp(u64::MAX));
        assert!(ledger.epoch() <= epoch);
    }
    let padded = size_class::pad(data.to_vec(), 33);
    assert_eq!(size_class::unpad(padded).as_deref(), Ok(data));
    let _ = size_class::unpad(data.to_vec());
    let _ = v1::FetchResponse::decode(data);
    let _ = v1::StreamEvent::decode(data);
});
