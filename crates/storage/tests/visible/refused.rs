//! What the service refuses before it has a place in the log, and that the genuine one still gets it.

use conclave_authentication::CertificateAuthority;
use conclave_channel::{Body, CommitHeader, Entry, EntryKind, Position, access::ChannelKey, chain};
use conclave_engine::{
    group::{Handshakes, Status, SubmissionBody},
    intent::Wish,
    outcome::Event,
};
use conclave_mls::{
    components::{CommitAad, HandshakeAad},
    credential::IdentityBinding,
    crypto, external_sender,
};
use conclave_names::{Epoch, Hash, Seq};
use conclave_protocol::{Code, Refusal, SigningKey, v1};
use mls_rs::MlsMessage;

use crate::{
    person::{Person, account, agree},
    raw::{Raw, Twist},
    stage::Stage,
    world::{NOW, World, domain, not_ordered, random, refused},
};

impl Stage {
    fn commit(&mut self, bundle: &v1::SubmitBundleRequest) -> Result<v1::SubmitResponse, Refusal> {
        self.world.submit_bundle(&self.session, bundle)
    }

    /// The newest commit in the log.
    fn latest_commit(&mut self) -> Vec<u8> {
        let session = self.alice.session(&mut self.world);
        let entries = self.world.fetch(&session, 0).unwrap();
        let is_commit = |entry: &&v1::LoggedEntry| Entry::parse(&entry.entry).unwrap().kind == EntryKind::Commit;
        entries.iter().rev().find(is_commit).unwrap().entry.clone()
    }

    /// Nothing of what was refused is in the log, and the group goes on.
    fn goes_on(&mut self) {
        let before = self.alice.group().position();
        self.alice.sync(&mut self.world);
        assert_eq!(self.alice.group().position(), before, "something was ordered");
        let told = self.alice.events.len();
        self.alice.wish(Wish::Update);
        self.alice.drive(&mut self.world);
        self.alice.say(&mut self.world, "we go on");
        agree(&mut self.world, &mut [&mut self.alice, &mut self.bob]);
        let alarming = |event: &&Event| matches!(event, Event::Stuck { .. } | Event::Refused { .. });
        assert_eq!(self.alice.events[told..].iter().find(alarming), None);
        assert_eq!(self.bob.events.iter().find(alarming), None);
    }
}

/// A bundle whose commit is another message.
fn with_body(bundle: &v1::SubmitBundleRequest, change: impl FnOnce(&mut Vec<u8>)) -> v1::SubmitBundleRequest {
    let mut entry = Entry::parse(&bundle.entry).unwrap();
    let Body::Inline(body) = &mut entry.body else { panic!("it is inline") };
    change(body);
    v1::SubmitBundleRequest {
        entry: entry.to_bytes().unwrap(),
        idempotency_key: random::<16>().to_vec(),
        ..bundle.clone()
    }
}

#[test]
fn a_genuine_commit_of_a_bare_member_is_ordered() {
    // So that what follows is refused for what is wrong with it.
    let mut stage = Stage::visible(false);
    let bundle = stage.mallory.commit(&stage.world, &Twist::default(), |builder| builder);
    stage.commit(&bundle).unwrap();
    agree(&mut stage.world, &mut [&mut stage.alice, &mut stage.bob]);
    assert_eq!(stage.alice.group().epoch(), Epoch(3));
    stage.alice.drive(&mut stage.world);
    stage.goes_on();
}

#[test]
fn what_is_changed_on_its_way_or_is_of_another_epoch_or_kind() {
    let mut stage = Stage::visible(false);
    let good = stage.mallory.commit(&stage.world, &Twist::default(), |builder| builder);
    // From the end: membership tag and confirmation tag with their lengths (33 bytes each), then the signature.
    let spoilt = with_body(&good, |body| {
        let at = body.len() - 66 - 10;
        body[at] ^= 1;
    });
    not_ordered(stage.commit(&spoilt), "signature");
    // What the signature covers.
    let spoilt = with_body(&good, |body| body[100] ^= 1);
    assert!(["signature", "format"].contains(&stage.commit(&spoilt).unwrap_err().metadata["reason"].as_str()));
    // A confirmation tag that is not the GroupInfo's.
    let spoilt = with_body(&good, |body| {
        let at = body.len() - 33 - 10;
        body[at] ^= 1;
    });
    not_ordered(stage.commit(&spoilt), "group-info");
    not_ordered(stage.commit(&with_body(&good, |body| body.truncate(50))), "format");
    not_ordered(stage.commit(&with_body(&good, Vec::clear)), "format");
    let aad = stage.mallory.proposal_aad();
    let proposal = stage.mallory.group().clone().propose_remove(0, aad).unwrap().to_bytes().unwrap();
    not_ordered(stage.commit(&with_body(&good, |body| *body = proposal.clone())), "format");
    // Of an epoch that is over, in an entry that says otherwise.
    let session = stage.alice.session(&mut stage.world);
    stage.alice.wish(Wish::Update);
    let SubmissionBody::Bundle(update) = stage.alice.next(&stage.world).unwrap().body else { panic!("a commit") };
    stage.world.submit_bundle(&session, &update).unwrap();
    refused(stage.commit(&good), Code::EpochConflict);
    stage.mallory.read(&update.entry);
    stage.session = stage.world.open(&stage.mallory.access()).unwrap();
    let mut now = stage.mallory.commit(&stage.world, &Twist::default(), |builder| builder);
    now.base_seq = 3;
    let Body::Inline(old) = Entry::parse(&good.entry).unwrap().body else { panic!("it is inline") };
    not_ordered(stage.commit(&with_body(&now, |body| *body = old)), "epoch");
    agree(&mut stage.world, &mut [&mut stage.alice, &mut stage.bob]);
    stage.goes_on();
}

#[test]
fn an_encrypted_handshake() {
    let mut stage = Stage::visible(true);
    let bundle = stage.mallory.commit(&stage.world, &Twist::default(), |builder| builder);
    not_ordered(stage.commit(&bundle), "format");
    let aad = stage.mallory.proposal_aad();
    let message = stage.mallory.group().clone().propose_remove(0, aad).unwrap();
    let proposal = stage.mallory.proposal(&message);
    not_ordered(stage.world.submit(&stage.session, &proposal), "format");
    stage.goes_on();
}

#[test]
fn what_the_policy_does_not_admit() {
    let mut stage = Stage::visible(false);
    let twist = Twist::default();
    let context = stage.mallory.group().context().extensions.clone();
    let bundle =
        stage.mallory.commit(&stage.world, &twist, |builder| builder.set_group_context_ext(context.clone()).unwrap());
    not_ordered(stage.commit(&bundle), "policy");

    // Members without a channel key or without an address.
    let dave = Raw::new(&mut stage.world, "dave", false);
    let without_address = dave.key_package_with(&mut stage.world, dave.leaf_extensions(), false);
    for (key_package, by_reference) in [(&without_address, false), (&without_address, true)] {
        let message = MlsMessage::from_bytes(key_package).unwrap();
        if by_reference {
            let aad = stage.mallory.proposal_aad();
            let proposal = stage.mallory.group().clone().propose_add(message, aad).unwrap();
            let proposal = stage.mallory.proposal(&proposal);
            not_ordered(stage.world.submit(&stage.session, &proposal), "policy");
        } else {
            let bundle = stage.mallory.commit(&stage.world, &twist, |builder| {
                builder.add_member(MlsMessage::from_bytes(key_package).unwrap()).unwrap()
            });
            not_ordered(stage.commit(&bundle), "policy");
        }
    }
    let aad = stage.mallory.proposal_aad();
    let context = stage.mallory.group().context().extensions.clone();
    let proposal = stage.mallory.group().clone().propose_group_context_extensions(context, aad).unwrap();
    let proposal = stage.mallory.proposal(&proposal);
    not_ordered(stage.world.submit(&stage.session, &proposal), "policy");
    stage.goes_on();
}

#[test]
fn whom_no_believed_authority_certified() {
    let mut stage = Stage::visible(false);
    // Mallory believes another authority; the service and the others do not.
    let other = CertificateAuthority::generate(&domain(), NOW).unwrap();
    let mut stranger = account(&mut stage.world, "stranger");
    let identity = SigningKey::from_bytes(&random());
    let public = stranger.signature_key.verifying_key().to_bytes();
    let end = NOW.plus_ms(86_400_000);
    let binding = IdentityBinding::sign(&identity, &stranger.client, &public, end);
    stranger.certificate = other.issue(&stranger.client, &public, &binding, NOW, end, random()).unwrap();
    stranger.issuers = vec![other.certificate().to_vec()];
    let key_package = Raw::with(stranger, false).key_package(&mut stage.world);
    let message = || MlsMessage::from_bytes(&key_package).unwrap();
    let aad = stage.mallory.proposal_aad();
    let proposal = stage.mallory.group().clone().propose_add(message(), aad).unwrap();
    let proposal = stage.mallory.proposal(&proposal);
    not_ordered(stage.world.submit(&stage.session, &proposal), "credential");
    stage.goes_on();
}

#[test]
fn a_header_authenticated_data_or_key_root_that_is_not_the_commits() {
    let mut stage = Stage::visible(false);
    let commit = |stage: &mut Stage, twist: Twist| {
        let bundle = stage.mallory.commit(&stage.world, &twist, |builder| builder);
        stage.commit(&bundle)
    };
    let header = |twist| Twist { header: Some(twist), ..Twist::default() };
    not_ordered(commit(&mut stage, header(|header| CommitHeader { removed: 1, ..header })), "header");
    not_ordered(commit(&mut stage, header(|header| CommitHeader { members: 9, ..header })), "header");
    let root = |header| CommitHeader { key_root: Hash::new([7; 32]), ..header };
    not_ordered(commit(&mut stage, header(root)), "key-root");
    // The session's key is another.
    let committer = |header| CommitHeader { committer: ChannelKey([9; 32]), ..header };
    refused(commit(&mut stage, header(committer)), Code::EntryInvalid);
    // What the authenticated data says.
    let root = |key_root, renews_seed| {
        let commit = Some(CommitAad { key_root, renews_seed, renews_tree_key: false });
        let position = Position::start(&stage.mallory.channel.unwrap());
        HandshakeAad { position, commit }.to_bytes().unwrap()
    };
    let wrong = root(Hash::new([7; 32]), false);
    not_ordered(commit(&mut stage, Twist { aad: Some(wrong), ..Twist::default() }), "key-root");
    not_ordered(commit(&mut stage, Twist { aad: Some(Vec::new()), ..Twist::default() }), "authenticated-data");
    let proposals = stage.mallory.proposal_aad();
    not_ordered(commit(&mut stage, Twist { aad: Some(proposals), ..Twist::default() }), "authenticated-data");
    // A removal that does not renew the group seed.
    let true_root = {
        let bundle = stage.mallory.commit(&stage.world, &Twist::default(), |builder| builder.remove_member(1).unwrap());
        Entry::parse(&bundle.entry).unwrap().commit.unwrap().key_root
    };
    let commit_aad = CommitAad { key_root: true_root, renews_seed: false, renews_tree_key: false };
    let position = Position::start(&stage.mallory.channel.unwrap());
    let aad = HandshakeAad { position, commit: Some(commit_aad) }.to_bytes().unwrap();
    let twist = Twist { aad: Some(aad), ..Twist::default() };
    let bundle = stage.mallory.commit(&stage.world, &twist, |builder| builder.remove_member(1).unwrap());
    not_ordered(stage.commit(&bundle), "authenticated-data");
    // A place in the log that there is not.
    for seq in [stage.alice.group().position().seq, Seq(1000)] {
        let position = Some(Position { seq, hash: Hash::new([1; 32]) });
        not_ordered(commit(&mut stage, Twist { position, ..Twist::default() }), "authenticated-data");
    }
    stage.goes_on();
}

#[test]
fn a_group_info_that_is_not_of_the_epoch_that_begins() {
    let mut stage = Stage::visible(false);
    let stale = stage.mallory.group().group_info_message_allowing_ext_commit(false).unwrap().to_bytes().unwrap();
    let other = stage.mallory.commit(&stage.world, &Twist::default(), |builder| builder).group_info;
    let with_tree = {
        let mut group = stage.mallory.group().clone();
        group.commit_builder().build().unwrap();
        group.apply_pending_commit().unwrap();
        group.group_info_message_allowing_ext_commit(true).unwrap().to_bytes().unwrap()
    };
    let infos = [stale.clone(), other, with_tree, Vec::new(), vec![1; 100]];
    for group_info in infos {
        let twist = Twist { group_info: Some(group_info), ..Twist::default() };
        let bundle = stage.mallory.commit(&stage.world, &twist, |builder| builder);
        not_ordered(stage.commit(&bundle), "group-info");
    }
    // The epoch's own, signed by nobody.
    let mut bundle = stage.mallory.commit(&stage.world, &Twist::default(), |builder| builder);
    *bundle.group_info.last_mut().unwrap() ^= 1;
    not_ordered(stage.commit(&bundle), "group-info");
    // What only private groups have.
    let good = stage.mallory.commit(&stage.world, &Twist::default(), |builder| builder);
    let keyed = v1::SubmitBundleRequest { join_key: vec![1; 32], ..good.clone() };
    refused(stage.commit(&keyed), Code::Malformed);
    stage.world.stage(&stage.session, b"a tree");
    let tree = chain::entry_hash(b"a tree").to_vec();
    refused(stage.commit(&v1::SubmitBundleRequest { tree, ..good }), Code::Malformed);

    // What is served is never of another epoch.
    let session = stage.alice.session(&mut stage.world);
    let served = stage.world.group_info(&session).unwrap();
    assert_eq!(served.epoch, 2);
    assert_ne!(served.group_info, stale, "another member signed it");
    stage.goes_on();
}

#[test]
fn a_commit_of_proposals_that_are_not_in_the_log() {
    let mut stage = Stage::visible(false);
    let aad = stage.mallory.proposal_aad();
    let message = stage.mallory.group().propose_remove(1, aad).unwrap();
    let proposal = stage.mallory.proposal(&message);
    let bundle = stage.mallory.commit(&stage.world, &Twist::default(), |builder| builder);
    let refusal = not_ordered(stage.commit(&bundle), "unknown-proposal");
    assert_eq!(refusal.metadata["proposal"].len(), 64, "{refusal}");
    // In the log, it is as good as any: the same commit is ordered.
    stage.world.submit(&stage.session, &proposal).unwrap();
    let bundle = v1::SubmitBundleRequest { idempotency_key: random::<16>().to_vec(), ..bundle };
    stage.commit(&bundle).unwrap();
    stage.bob.sync(&mut stage.world);
    assert_eq!(*stage.bob.group().status(), Status::Removed);
    agree(&mut stage.world, &mut [&mut stage.alice]);
}

#[test]
fn proposals_that_nobody_could_commit() {
    let mut stage = Stage::visible(false);
    let submit = |stage: &mut Stage, message: &MlsMessage| {
        let proposal = stage.mallory.proposal(message);
        stage.world.submit(&stage.session, &proposal)
    };
    let aad = stage.mallory.proposal_aad();
    // Of who says nothing about its place.
    let message = stage.mallory.group().clone().propose_remove(1, Vec::new()).unwrap();
    not_ordered(submit(&mut stage, &message), "authenticated-data");
    // Changed on its way.
    let message = stage.mallory.group().clone().propose_remove(1, aad.clone()).unwrap();
    let mut bytes = message.to_bytes().unwrap();
    let at = bytes.len() - 33 - 10;
    bytes[at] ^= 1;
    not_ordered(submit(&mut stage, &MlsMessage::from_bytes(&bytes).unwrap()), "signature");
    // Of who is no member: a KeyPackage that proposes itself, and an external sender that is none.
    let dave = Raw::new(&mut stage.world, "dave", false);
    let group_id = stage.mallory.group().group_id().to_vec();
    let epoch = stage.mallory.group().current_epoch();
    let target = external_sender::Target {
        group: std::str::from_utf8(&group_id).unwrap().parse().unwrap(),
        epoch: Epoch(epoch),
        sender: 0,
    };
    let suite = crypto::suite(crypto::DEFAULT_SUITE).unwrap();
    let wish = external_sender::Request::Remove(1);
    let bytes = external_sender::propose(&suite, &dave.account.signature_key, &target, &wish).unwrap();
    not_ordered(submit(&mut stage, &MlsMessage::from_bytes(&bytes).unwrap()), "sender");
    stage.goes_on();

    // Too many.
    stage.session = {
        let entry = stage.latest_commit();
        stage.mallory.read(&entry);
        stage.world.open(&stage.mallory.access()).unwrap()
    };
    for _ in 0..512 {
        let message = stage.mallory.group().clone().propose_remove(1, aad.clone()).unwrap();
        submit(&mut stage, &message).unwrap();
    }
    let message = stage.mallory.group().clone().propose_remove(1, aad).unwrap();
    refused(submit(&mut stage, &message), Code::QuotaExceeded);
    stage.alice.drive(&mut stage.world);
    stage.bob.sync(&mut stage.world);
    assert_eq!(*stage.bob.group().status(), Status::Removed);
    agree(&mut stage.world, &mut [&mut stage.alice]);
}

#[test]
fn updates_by_reference_are_committed_by_others() {
    let mut stage = Stage::visible(false);
    let aad = stage.mallory.proposal_aad();
    let message = stage.mallory.group().propose_update(aad).unwrap();
    let proposal = stage.mallory.proposal(&message);
    stage.world.submit(&stage.session, &proposal).unwrap();
    let before = stage.alice.group().epoch();
    stage.alice.drive(&mut stage.world);
    assert_eq!(stage.alice.group().epoch(), before.next());
    agree(&mut stage.world, &mut [&mut stage.alice, &mut stage.bob]);
    stage.goes_on();
}

#[test]
fn an_open_handshake_in_a_private_group_is_refused_by_who_reads_it() {
    let mut world = World::memory();
    let [mut alice, mut bob] = ["alice", "bob"].map(|name| Person::new(&mut world, name));
    let mut mallory = Raw::new(&mut world, "mallory", false);
    alice.create(&mut world, Handshakes::Private);
    alice.add(&mut world, &mut [&mut bob]);
    let key_packages = vec![mallory.key_package(&mut world)];
    alice.wish(Wish::Add { key_packages });
    alice.drive(&mut world);
    bob.sync(&mut world);
    mallory.join(&mut world);
    let session = world.open(&mallory.access()).unwrap();
    let open = mallory.commit(&world, &Twist::default(), |builder| builder);
    let mut sealed = v1::SubmitBundleRequest { idempotency_key: random::<16>().to_vec(), ..open.clone() };
    mallory.seal(&mut sealed);
    // The service cannot know: it orders the one that comes first. Nobody carries it out.
    let before = alice.group().epoch();
    world.submit_bundle(&session, &sealed).unwrap();
    for person in [&mut alice, &mut bob] {
        // The second time it is certain.
        person.sync(&mut world);
        person.sync(&mut world);
        assert_eq!(person.group().epoch(), before);
        assert!(person.events.iter().any(|event| matches!(event, Event::Stuck { .. })));
    }
}
