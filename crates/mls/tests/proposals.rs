//! Proposals as a server judges them, made and read by bare mls-rs.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use conclave_mls::{
    crypto,
    external_sender::{ExternalProposalError, Request, Target, propose},
    proposal::{ProposalError, check_sender, check_update},
};
use conclave_names::Epoch;
use ed25519_dalek::SigningKey;
use mls_rs::{
    Client, ExtensionList, Group, MlsMessage, MlsMessageDescription,
    client_builder::MlsConfig,
    extension::built_in::ExternalSendersExt,
    group::{
        ContentType, ProposalMessageDescription, ReceivedMessage, Sender,
        proposal::{Proposal, UpdateProposal},
    },
    identity::{
        SigningIdentity,
        basic::{BasicCredential, BasicIdentityProvider},
    },
};
use mls_rs_codec::{MlsDecode, MlsEncode};

const GROUP: &str = "mimi://example.com/g/6c1f0a";

fn identity(name: &str, key: &SigningKey) -> SigningIdentity {
    let credential = BasicCredential::new(name.as_bytes().to_vec()).into_credential();
    SigningIdentity::new(credential, key.verifying_key().to_bytes().to_vec().into())
}

fn client(name: &str, key: u8) -> Client<impl MlsConfig + use<>> {
    let key = SigningKey::from_bytes(&[key; 32]);
    Client::builder()
        .crypto_provider(crypto::provider())
        .identity_provider(BasicIdentityProvider::new())
        .signing_identity(identity(name, &key), key.to_keypair_bytes().to_vec().into(), crypto::DEFAULT_SUITE)
        .build()
}

/// Alice's and Bob's, which lists an external sender.
fn group(sender: &SigningKey) -> (Group<impl MlsConfig + use<>>, Group<impl MlsConfig + use<>>) {
    let (alice, bob) = (client("alice", 1), client("bob", 2));
    let mut context = ExtensionList::new();
    context.set_from(ExternalSendersExt::new(vec![identity("bot", sender)])).unwrap();
    let mut group = alice.create_group_with_id(GROUP.into(), context, ExtensionList::new(), None).unwrap();
    let package = bob.generate_key_package_message(ExtensionList::new(), ExtensionList::new(), None).unwrap();
    let output = group.commit_builder().add_member(package).unwrap().build().unwrap();
    group.apply_pending_commit().unwrap();
    let joined = bob.join_group(None, &output.welcome_messages[0], None).unwrap().0;
    (group, joined)
}

fn received(group: &mut Group<impl MlsConfig>, message: MlsMessage) -> ProposalMessageDescription {
    match group.process_incoming_message(message).unwrap() {
        ReceivedMessage::Proposal(description) => description,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_updates_leaf_is_signed_for_one_place_in_one_group() {
    let (mut alice, mut bob) = group(&SigningKey::from_bytes(&[9; 32]));
    let message = bob.propose_update(Vec::new()).unwrap();
    let Proposal::Update(update) = received(&mut alice, message).proposal else { panic!("it is an Update") };
    let suite = crypto::suite(crypto::DEFAULT_SUITE).unwrap();
    let check = |update: &UpdateProposal, group: &str, leaf| check_update(&suite, update, group.as_bytes(), leaf);
    assert_eq!(check(&update, GROUP, 1), Ok(()));
    assert_eq!(check(&update, GROUP, 0), Err(ProposalError::LeafSignature));
    assert_eq!(check(&update, "mimi://example.com/g/other", 1), Err(ProposalError::LeafSignature));
    // Each byte counts: what was changed does not decode, or its signature does not verify.
    let bytes = update.mls_encode_to_vec().unwrap();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let Ok(changed) = UpdateProposal::mls_decode(&mut changed.as_slice()) else { continue };
        assert!(check(&changed, GROUP, 1).is_err(), "byte {at}");
    }
}

#[test]
fn a_key_packages_leaf_is_no_updates() {
    let package = client("carol", 3).generate_key_package_message(ExtensionList::new(), ExtensionList::new(), None);
    let package = package.unwrap().into_key_package().unwrap().mls_encode_to_vec().unwrap();
    // version, cipher suite, init key with its length of one byte; then the leaf.
    let leaf = &package[2 + 2 + 33..];
    let suite = crypto::suite(crypto::DEFAULT_SUITE).unwrap();
    let update = UpdateProposal::mls_decode(&mut &leaf[..]).unwrap();
    assert_eq!(check_update(&suite, &update, GROUP.as_bytes(), 1), Err(ProposalError::Leaf));
}

#[test]
fn members_read_what_an_external_sender_proposes() {
    let key = SigningKey::from_bytes(&[9; 32]);
    let (mut alice, mut bob) = group(&key);
    let suite = crypto::suite(crypto::DEFAULT_SUITE).unwrap();
    let target = Target { group: GROUP.parse().unwrap(), epoch: Epoch(1), sender: 0 };
    let carol = client("carol", 3);
    let package = carol.generate_key_package_message(ExtensionList::new(), ExtensionList::new(), None).unwrap();
    let package = package.to_bytes().unwrap();
    for request in [Request::Remove(1), Request::Add(package.clone())] {
        let bytes = propose(&suite, &key, &target, &request).unwrap();
        let message = MlsMessage::from_bytes(&bytes).unwrap();
        let MlsMessageDescription::PublicProtocolMessage { content_type, sender, .. } = message.description() else {
            panic!("it is a PublicMessage")
        };
        assert_eq!((content_type, sender), (ContentType::Proposal, Sender::External(0)));
        let description = received(&mut alice, message);
        match (&request, &description.proposal) {
            (Request::Remove(leaf), Proposal::Remove(remove)) => assert_eq!(remove.to_remove(), *leaf),
            (Request::Add(_), Proposal::Add(add)) => {
                assert_eq!(add.signing_identity().credential.as_basic().unwrap().identifier, b"carol");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(check_sender(&Sender::External(0), &description.proposal), Ok(()));
        assert_eq!(check_sender(&Sender::NewMemberProposal, &description.proposal), Err(ProposalError::Sender));
    }
    // By another key, for another epoch, in a place that there is not.
    for (key, target) in [
        (SigningKey::from_bytes(&[8; 32]), target.clone()),
        (key.clone(), Target { epoch: Epoch(0), ..target.clone() }),
        (key.clone(), Target { sender: 1, ..target.clone() }),
        (key.clone(), Target { group: "mimi://example.com/g/other".parse().unwrap(), ..target.clone() }),
    ] {
        let bytes = propose(&suite, &key, &target, &Request::Remove(1)).unwrap();
        assert!(bob.process_incoming_message(MlsMessage::from_bytes(&bytes).unwrap()).is_err(), "{target:?}");
    }
    let no_package = propose(&suite, &key, &target, &Request::Add(b"nothing".to_vec()));
    assert_eq!(no_package, Err(ExternalProposalError::KeyPackage));
    let message = MlsMessage::from_bytes(&propose(&suite, &key, &target, &Request::Remove(1)).unwrap()).unwrap();
    let Proposal::Remove(_) = received(&mut bob, message).proposal else { panic!("it is a Remove") };
}

#[test]
fn external_senders_do_not_update() {
    let (mut alice, mut bob) = group(&SigningKey::from_bytes(&[9; 32]));
    let message = bob.propose_update(Vec::new()).unwrap();
    let description = received(&mut alice, message);
    assert_eq!(check_sender(&Sender::External(0), &description.proposal), Err(ProposalError::Sender));
    assert_eq!(check_sender(&Sender::Member(1), &description.proposal), Ok(()));
}
