//! What a client decodes of groups: Welcomes, trees, extensions, authenticated data.
#![no_main]

use conclave_mls::{
    components::{AppDataDictionary, GroupProfile, HandshakeAad},
    crypto,
    seal::{Purpose, Seed},
    tree_chunks::Nodes,
    welcome::{InboxWelcome, JoinerKey, WelcomeParts},
};
use libfuzzer_sys::fuzz_target;
use mls_rs::{Extension, ExtensionList, MlsMessage, extension::ExtensionType, group::ExportedTree};

fuzz_target!(|data: &[u8]| {
    if let Ok(welcome) = InboxWelcome::parse(data) {
        assert_eq!(welcome.to_bytes().ok().as_deref(), Some(data));
        let _ = welcome.to_message();
    }
    let _ = WelcomeParts::split(data);
    let _ = HandshakeAad::of_commit(data);
    let _ = HandshakeAad::of_proposal(data);
    let mut extensions = ExtensionList::new();
    extensions.set(Extension::new(ExtensionType::new(6), data.to_vec()));
    let _ = AppDataDictionary::of(&extensions);
    let _ = GroupProfile::of(&extensions);
    let _ = JoinerKey::of(&extensions);
    let _ = MlsMessage::from_bytes(data);
    let _ = ExportedTree::from_bytes(data);
    let _ = Nodes::parse(data);
    if let (Ok(seed), Ok(suite)) = (Seed::from_slice(&[1; 32]), crypto::suite(crypto::DEFAULT_SUITE)) {
        assert!(seed.open(&suite, Purpose::Tree, b"", data).is_err(), "a seal was forged");
    }
});
