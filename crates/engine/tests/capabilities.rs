//! What a group requires of those who are to be added (R102).

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::cast_possible_truncation)]

mod common;

use common::{NOW, World, group_of};
use conclave_engine::intent::Wish;
use conclave_mls::{capabilities::Capabilities, crypto, identity::Identities};
use conclave_names::code_points;
use mls_rs::{ExtensionList, time::MlsTime};

#[test]
fn what_a_key_package_lacks_is_named_before_anything_is_sent() {
    let mut world = World::new();
    let mut people = ["alice", "bob"].map(|name| world.person(name));
    let [alice, bob] = &mut people;
    group_of(&mut world, &mut [alice]);
    let required = alice.group().required_capabilities().unwrap();
    let extensions = [code_points::EXTENSION_APP_DATA_DICTIONARY, code_points::EXTENSION_CHANNEL_KEY];
    assert_eq!(required, Capabilities::new([1], extensions, [], [2]));
    let good = bob.key_package(&world);
    assert!(alice.group().lacking(&good).unwrap().is_empty());

    // Of a client that knows MLS and nothing of our profile.
    let secret = bob.account.signature_key.to_keypair_bytes().to_vec();
    let plain = mls_rs::Client::builder()
        .crypto_provider(crypto::provider())
        .identity_provider(Identities::new(bob.account.parsed_issuers()))
        .signing_identity(bob.account.signing_identity(), secret.into(), crypto::DEFAULT_SUITE)
        .build();
    let time = Some(MlsTime::from(NOW.as_secs()));
    let none = ExtensionList::new;
    let plain = plain.generate_key_package_message(none(), none(), time).unwrap().to_bytes().unwrap();
    let missing = alice.group().lacking(&plain).unwrap();
    assert_eq!(missing, Capabilities::new([], extensions, [], []));
    assert_eq!(missing.to_string(), "extension 0x0006 (app_data_dictionary), extension 0xF0C1 (channel_key)");
    assert!(alice.group().lacking(&plain[..9]).is_err());

    alice.wish(Wish::Add { key_packages: vec![good] });
    alice.drive(&mut world);
    assert_eq!(alice.group().members().unwrap().len(), 2);
}
