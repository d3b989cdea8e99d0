//! What the server decodes in a session: the MAC, the counters, the bundle; and paths of channel keys.
#![no_main]

use conclave_channel::access::{ChannelKey, KeyPath, KeyTree};
use conclave_names::{Hash, SessionId};
use conclave_protocol::{
    method,
    session::{self, ReplayWindow, SessionKey},
    v1,
};
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|data: &[u8]| {
    let key = SessionKey::new([9; 32]);
    if let Ok(request) = v1::SessionRequest::decode(data) {
        assert!(key.verify(method::SUBMIT, &request).is_err(), "a MAC was guessed");
        let _ = session::session_of(&request);
        let _ = session::decode::<v1::SubmitBundleRequest>(&request);
        let _ = session::decode::<v1::StageBlobRequest>(&request);
    }
    let request = key.seal(method::SUBMIT, SessionId::new([1; 16]), 1, data.to_vec());
    assert!(key.verify(method::SUBMIT, &request).is_ok());

    // Each counter is admitted at most once.
    let mut window = ReplayWindow::default();
    let mut seen = std::collections::BTreeSet::new();
    for counter in data.chunks_exact(2).map(|pair| u64::from(pair[0]) << 4 | u64::from(pair[1] & 15)) {
        if window.note(counter).is_ok() {
            assert!(seen.insert(counter));
        }
    }

    // No path that the tree did not make leads to its root.
    let keys = [ChannelKey([1; 32]), ChannelKey([2; 32]), ChannelKey([3; 32])];
    if let (Ok(tree), Some((head, rest))) = (KeyTree::new(keys), data.split_first_chunk::<48>()) {
        let mut stranger = [0; 32];
        stranger.copy_from_slice(&head[..32]);
        let path = KeyPath {
            index: u64::from_be_bytes(head[32..40].try_into().unwrap_or_default()),
            leaves: u64::from_be_bytes(head[40..48].try_into().unwrap_or_default()),
            siblings: rest.chunks_exact(32).filter_map(|chunk| Hash::try_from(chunk).ok()).collect(),
        };
        let stranger = ChannelKey(stranger);
        if !keys.contains(&stranger) {
            assert!(path.verify(&stranger, &tree.root()).is_err());
        }
    }
});
