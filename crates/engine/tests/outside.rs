//! Which commits from outside members admit, made by bare mls-rs as an attacker would make them (RFC 9750, section 6.4).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::time::Duration;

use common::*;
use conclave_channel::access::ChannelKey;
use conclave_engine::account::Account;
use conclave_mls::{
    components::{AppDataDictionary, ChannelKeyExtension, GroupProfile, HandshakeMode},
    credential::IdentityBinding,
    crypto,
    identity::Identities,
    rejoin::{psk, psk_id},
    rules::Rules,
    seal::Seed,
};
use conclave_names::{ChannelId, Epoch, RoomUri, Timestamp, code_points};
use mls_rs::{
    Client, ExtensionList, Group, MlsMessage,
    client_builder::MlsConfig,
    extension::ExtensionType,
    group::{ReceivedMessage, external_commit::ExternalCommitBuilder},
    storage_provider::in_memory::InMemoryPreSharedKeyStorage,
    time::MlsTime,
};

const NAME: &str = "mimi://example.com/g/6c1f0a";

/// The seed in force, which members know.
fn seed() -> Seed {
    Seed::from_slice(&[5; 32]).unwrap()
}

fn psks(seed: &Seed, since: u64) -> InMemoryPreSharedKeyStorage {
    let suite = crypto::suite(crypto::DEFAULT_SUITE).unwrap();
    let mut store = InMemoryPreSharedKeyStorage::default();
    store.insert(psk_id(NAME.as_bytes(), Epoch(since)), psk(&suite, seed, NAME.as_bytes()).unwrap());
    store
}

fn client(world: &World, account: &Account, store: InMemoryPreSharedKeyStorage) -> Client<impl MlsConfig + use<>> {
    let known = [
        code_points::EXTENSION_APP_DATA_DICTIONARY,
        code_points::EXTENSION_DELIVERY_ADDRESS,
        code_points::EXTENSION_CHANNEL_KEY,
        code_points::EXTENSION_LAST_RESORT,
    ];
    Client::builder()
        .crypto_provider(crypto::provider())
        .identity_provider(Identities::new([world.ca.issuer().clone()].into_iter().collect()))
        .psk_store(store)
        .mls_rules(Rules)
        .extension_types(known.map(ExtensionType::new))
        .signing_identity(
            account.signing_identity(),
            account.signature_key.to_keypair_bytes().to_vec().into(),
            crypto::DEFAULT_SUITE,
        )
        .build()
}

fn leaf(n: u8) -> ExtensionList {
    let mut extensions = ExtensionList::new();
    extensions.set_from(ChannelKeyExtension(ChannelKey([n; 32]))).unwrap();
    extensions.set(AppDataDictionary::for_leaf().unwrap().to_extension().unwrap());
    extensions
}

/// Alice's group of herself and Bob, with Bob at leaf 1; both with handshakes in the clear.
struct Scene<C: MlsConfig> {
    world: World,
    alice: Person,
    bob: Person,
    group: Group<C>,
}

fn scene() -> Scene<impl MlsConfig> {
    let world = World::new();
    let (alice, mut bob) = (world.person("alice"), world.person("bob"));
    let profile = GroupProfile {
        room: RoomUri::new(domain(), "room").unwrap(),
        hub: domain(),
        channel: ChannelId::new([1; 16]),
        receipt_key: conclave_channel::receipt::ReceiptKey(receipt_signer().verifying_key().to_bytes()),
        mode: HandshakeMode::Visible,
        title: "Test".into(),
        dispute_pause: conclave_channel::law::DisputePause::DEFAULT,
    };
    let mut context = ExtensionList::new();
    context.set(profile.to_dictionary().and_then(|dictionary| dictionary.to_extension()).unwrap());
    let hers = client(&world, &alice.account, psks(&seed(), 0));
    let mut group = hers.create_group_with_id(NAME.into(), context, leaf(1), None).unwrap();
    let package = MlsMessage::from_bytes(&bob.key_package(&world)).unwrap();
    let now = MlsTime::from_duration_since_epoch(Duration::from_millis(NOW.0));
    group.commit_builder().commit_time(now).add_member(package).unwrap().build().unwrap();
    group.apply_pending_commit().unwrap();
    Scene { world, alice, bob, group }
}

impl<C: MlsConfig> Scene<C> {
    /// What Alice says to a commit from outside.
    fn says(&self, commit: MlsMessage) -> Result<(), String> {
        match self.group.clone().process_incoming_message(commit) {
            Ok(ReceivedMessage::Commit(description)) => {
                assert!(description.is_external);
                Ok(())
            }
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    /// What she says to one that somebody built who does not judge itself.
    fn tried<D: MlsConfig>(&self, built: ExternalCommitBuilder<D>) -> Result<(), String> {
        let info = self.group.group_info_message_allowing_ext_commit(false).unwrap();
        let tree = self.group.export_tree().into_owned();
        match built.with_tree_data(tree).build(info) {
            Ok((_, commit)) => self.says(commit),
            // The builder applies the same rules.
            Err(error) => Err(error.to_string()),
        }
    }
}

#[track_caller]
fn refused(result: Result<(), String>, why: &str) {
    let error = result.expect_err("it must be refused");
    assert!(error.contains(why), "{error}");
}

#[test]
fn a_member_takes_its_own_old_leafs_place_and_nothing_else_is_admitted() {
    let scene = scene();
    let id = || psk_id(NAME.as_bytes(), Epoch(0));
    let bob = client(&scene.world, &scene.bob.account, psks(&seed(), 0));
    let by_bob = || bob.external_commit_builder().unwrap().with_leaf_node_extensions(leaf(9));
    scene.tried(by_bob().with_removal(1).with_external_psk(id())).unwrap();

    refused(scene.tried(by_bob().with_external_psk(id())), "removes one leaf");
    refused(scene.tried(by_bob().with_removal(1)), "removes one leaf");
    refused(scene.tried(by_bob().with_removal(0).with_external_psk(id())), "another client's");
    let twice = by_bob().with_removal(1).with_external_psk(id()).with_external_psk(id());
    assert!(scene.tried(twice).is_err());
}

#[test]
fn a_stranger_with_a_good_certificate_does_not_come_in() {
    let scene = scene();
    let mallory = scene.world.person("mallory");
    let id = || psk_id(NAME.as_bytes(), Epoch(0));
    // Even one that was told the seed.
    let mallory = client(&scene.world, &mallory.account, psks(&seed(), 0));
    let by_mallory = || mallory.external_commit_builder().unwrap().with_leaf_node_extensions(leaf(9));
    refused(scene.tried(by_mallory().with_external_psk(id())), "removes one leaf");
    for leaf in [0, 1] {
        refused(scene.tried(by_mallory().with_removal(leaf).with_external_psk(id())), "another client's");
    }
}

#[test]
fn the_same_client_with_another_identity_key_is_another() {
    let scene = scene();
    let id = || psk_id(NAME.as_bytes(), Epoch(0));
    // The Authentication Service certified somebody else under Bob's name.
    let ghost = scene.world.person("bob");
    assert_eq!(ghost.account.client, scene.bob.account.client);
    let ghost = client(&scene.world, &ghost.account, psks(&seed(), 0));
    let builder = ghost.external_commit_builder().unwrap().with_leaf_node_extensions(leaf(9));
    refused(scene.tried(builder.with_removal(1).with_external_psk(id())), "another identity key");
}

#[test]
fn the_seed_in_force_has_to_be_known() {
    let scene = scene();
    let id = |since| psk_id(NAME.as_bytes(), Epoch(since));
    // A wrong seed under the right name, an earlier seed, another group's name.
    let wrong = client(&scene.world, &scene.bob.account, psks(&Seed::from_slice(&[6; 32]).unwrap(), 0));
    let builder = wrong.external_commit_builder().unwrap().with_leaf_node_extensions(leaf(9));
    assert!(scene.tried(builder.with_removal(1).with_external_psk(id(0))).is_err());
    let earlier = client(&scene.world, &scene.bob.account, psks(&seed(), 7));
    let builder = earlier.external_commit_builder().unwrap().with_leaf_node_extensions(leaf(9));
    assert!(scene.tried(builder.with_removal(1).with_external_psk(id(7))).is_err());

    let suite = crypto::suite(crypto::DEFAULT_SUITE).unwrap();
    let foreign = psk_id(b"mimi://example.com/g/other", Epoch(0));
    let mut store = InMemoryPreSharedKeyStorage::default();
    store.insert(foreign.clone(), psk(&suite, &seed(), NAME.as_bytes()).unwrap());
    let other = client(&scene.world, &scene.bob.account, store);
    let builder = other.external_commit_builder().unwrap().with_leaf_node_extensions(leaf(9));
    refused(scene.tried(builder.with_removal(1).with_external_psk(foreign)), "for rejoining");
    let _ = &scene.alice;
}

#[test]
fn who_has_an_older_key_of_a_member_does_not_take_its_place() {
    let scene = scene();
    let id = || psk_id(NAME.as_bytes(), Epoch(0));
    // What Bob had before he changed his key: stolen, and certified until next month. Its thief knows the seed, too.
    let mut older = scene.bob.account.clone();
    let identity = older.identity_secret.clone().unwrap();
    older.signature_key = conclave_protocol::SigningKey::from_bytes(&random());
    let public = older.signature_key.verifying_key().to_bytes();
    let (from, until) = (Timestamp(NOW.0 - 86_400_000), scene.world.until);
    older.binding = IdentityBinding::sign(&identity, &older.client, &public, until);
    let mut certify = |from: Timestamp| {
        older.certificate =
            scene.world.ca.issue(&older.client, &public, &older.binding, from, until, random()).unwrap();
        let thief = client(&scene.world, &older, psks(&seed(), 0));
        let builder = thief.external_commit_builder().unwrap().with_leaf_node_extensions(leaf(9));
        scene.tried(builder.with_removal(1).with_external_psk(id()))
    };
    refused(certify(from), "older than that of the leaf");
    // Who has a newer one is Bob, whatever key he signs with.
    certify(NOW.plus_ms(1_000)).unwrap();
}
