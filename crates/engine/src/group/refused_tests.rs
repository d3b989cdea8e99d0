//! What an insider may make: every kind of refused commit, message and proposal, from a real member's state, in both handshake modes. Nothing
//! of it leaves a trace: the genuine successor still applies, also after a restart. Where the DS reads the handshakes, it is one that
//! lets all of that through.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use conclave_authentication::CertificateAuthority;
use conclave_channel::{CommitHeader, Entry, EntryKind, access::ChannelKey};
use conclave_mls::components::{CommitAad, HandshakeAad, SafeAad};
use conclave_names::{Hash, Timestamp, code_points};
use mls_rs::{
    Client, Group as MlsGroup, MlsMessage,
    client_builder::{MlsConfig, PaddingMode},
    extension::ExtensionType,
    mls_rules::{CommitOptions, DefaultMlsRules, EncryptionOptions},
    psk::{ExternalPskId, PreSharedKey},
    storage_provider::in_memory::InMemoryPreSharedKeyStorage,
};
use zeroize::Zeroizing;

use super::{
    Handshakes, Incoming,
    access::own_channel_key,
    commit::body_of,
    evil::{Evil, Fault, Gullible},
    process::audit_tests::common::{NOW, Person, World, agree, domain, group_of},
};
use crate::{
    Mls,
    intent::Wish,
    mls_client::{mls_time, signature_secret},
    outcome::{Event, Outcome, Rejection},
    stores::GroupRows,
};

const EXTENSIONS: [u16; 4] = [
    code_points::EXTENSION_APP_DATA_DICTIONARY,
    code_points::EXTENSION_DELIVERY_ADDRESS,
    code_points::EXTENSION_CHANNEL_KEY,
    code_points::EXTENSION_LAST_RESORT,
];

/// Earlier epochs of a group, as mls-rs stores them.
type Epochs = BTreeMap<u64, Zeroizing<Vec<u8>>>;

/// A person's group as it is stored, with other cryptography and no policy.
fn evil_group(person: &mut Person, evil: Evil) -> MlsGroup<impl MlsConfig + use<>> {
    evil_group_with(person, evil, Epochs::new(), false)
}

/// The same, with epochs that the person should have forgotten, and in the other handshake mode than the group's.
fn evil_group_with(
    person: &mut Person,
    evil: Evil,
    mut epochs: Epochs,
    other_mode: bool,
) -> MlsGroup<impl MlsConfig + use<>> {
    person.group().write_state_next();
    person.save();
    let id = person.group().name().to_string().into_bytes();
    let (shared, suite) = (person.group().shared.clone(), person.group().mls.cipher_suite());
    let apart = Mls::new(&person.account);
    let state = shared.groups.state_of(&id).unwrap();
    epochs.extend(shared.groups.epochs_before(&id, u64::MAX));
    apart.groups.load(&id, GroupRows { state, epochs });
    let psks = InMemoryPreSharedKeyStorage::default();
    let mut known = psks.clone();
    known.insert(ExternalPskId::new(b"nobody else has it".to_vec()), PreSharedKey::new(vec![7; 32]));
    let encrypted = EncryptionOptions::new(person.group().is_visible() == other_mode, PaddingMode::None);
    let with_path = CommitOptions::new().with_path_required(true);
    let rules = DefaultMlsRules::new().with_encryption_options(encrypted).with_commit_options(with_path);
    let account = &person.account;
    Client::builder()
        .crypto_provider(evil.provider(suite))
        .identity_provider(Gullible(apart.identities.clone()))
        .group_state_storage(apart.groups.clone())
        .psk_store(psks)
        .extension_types(EXTENSIONS.map(ExtensionType::new))
        .mls_rules(rules)
        .signing_identity(account.signing_identity(), signature_secret(&account.signature_key), suite)
        .build()
        .load_group(&id)
        .unwrap()
}

/// A message as an entry of its author's present epoch, sealed as the group has it.
fn sealed(person: &mut Person, kind: EntryKind, message: &MlsMessage, header: Option<CommitHeader>) -> Vec<u8> {
    let group = person.group();
    let epoch = group.epoch();
    let message = message.to_bytes().unwrap();
    let in_the_clear = group.is_visible() && kind != EntryKind::Message;
    let body = if in_the_clear { message } else { group.seal(kind, epoch, message).unwrap() };
    let body = body_of(body, &mut Vec::new());
    let entry = match header {
        Some(header) => Entry::commit(epoch, header, body),
        None => Entry::new(kind, epoch, body),
    };
    entry.to_bytes().unwrap()
}

/// What a commit does beyond renewing its committer's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    None,
    ContextExtensions,
    Psk,
    /// By the resumption PSK of the epoch before, which all have.
    ResumptionPsk,
    /// By that of an epoch in which the others were no members.
    AbsentResumptionPsk,
    ReInit,
    /// By reference to a proposal that nobody has seen.
    UnknownProposal,
    /// Of a client that nobody certified whom the others believe.
    AddUncertified,
    /// Of one whose certificate has expired.
    AddExpired,
    /// In the other handshake mode's format.
    OtherMode,
    KeyRoot,
    KeyRootOutside,
    Removed,
    Members,
    Committer,
    NoAad,
}

/// What such a member has beside its state.
struct Means {
    /// Epochs that it should have forgotten.
    epochs: Epochs,
    /// KeyPackages of a client that nobody certified whom the group believes, and of one whose certificate has expired.
    uncertified: MlsMessage,
    expired: MlsMessage,
    now: Timestamp,
}

impl Means {
    /// Of who has made the group just now.
    fn of(world: &mut World, maker: &mut Person) -> Self {
        maker.group().write_state_next();
        maker.save();
        let group = maker.group();
        let epochs = group.shared.groups.epochs_before(group.mls.group_id(), u64::MAX);
        assert!(epochs.contains_key(&0), "that of which it was the only member");
        let other = CertificateAuthority::generate(&domain(), NOW).unwrap();
        let mut mallory = world.person_of("mallory", &other, &[&other]);
        let uncertified = mallory.key_package(world);
        world.until = NOW.plus_ms(1_000);
        let expired = world.person("dave").key_package(world);
        world.ds.ahead += 2_000;
        let message = |bytes: Vec<u8>| MlsMessage::from_bytes(&bytes).unwrap();
        Self { epochs, uncertified: message(uncertified), expired: message(expired), now: world.ds.now() }
    }
}

/// A commit as an entry.
fn commit(person: &mut Person, means: &Means, fault: Fault, lie: Lie) -> Vec<u8> {
    let suite = person.group().mls.cipher_suite();
    let other_mode = lie == Lie::OtherMode;
    let mut evil = evil_group_with(person, Evil::new(fault), means.epochs.clone(), other_mode);
    let group = person.group();
    let root = if lie == Lie::KeyRoot { Hash::new([7; 32]) } else { group.key_root().unwrap() };
    let commit = CommitAad { key_root: root, renews_seed: false, renews_tree_key: false };
    let aad = HandshakeAad { position: group.window.position(), commit: Some(commit) };
    let aad = if lie == Lie::NoAad { Vec::new() } else { aad.in_epoch(group.epoch_tag().unwrap()).unwrap() };
    let mut header = CommitHeader {
        committer: own_channel_key(&group.mls).unwrap(),
        removed: 0,
        members: group.member_count(),
        key_root: root,
    };
    match lie {
        Lie::KeyRootOutside => header.key_root = Hash::new([7; 32]),
        Lie::Removed => header.removed = 1,
        Lie::Members => header.members += 1,
        Lie::Committer => header.committer = ChannelKey([9; 32]),
        _ => {}
    }
    let context = evil.context().extensions().clone();
    let version = mls_rs::ProtocolVersion::MLS_10;
    if lie == Lie::UnknownProposal {
        evil.propose_remove(1, Vec::new()).unwrap();
    }
    let before = evil.current_epoch() - 1;
    let builder = evil.commit_builder().commit_time(mls_time(means.now)).authenticated_data(aad);
    let builder = match lie {
        Lie::ContextExtensions => builder.set_group_context_ext(context).unwrap(),
        Lie::Psk => builder.add_external_psk(ExternalPskId::new(b"nobody else has it".to_vec())).unwrap(),
        Lie::ResumptionPsk => builder.add_resumption_psk(before).unwrap(),
        Lie::AbsentResumptionPsk => builder.add_resumption_psk(0).unwrap(),
        Lie::AddUncertified => builder.add_member(means.uncertified.clone()).unwrap(),
        Lie::AddExpired => builder.add_member(means.expired.clone()).unwrap(),
        Lie::ReInit => builder.reinit(None, version, suite, context).unwrap(),
        _ => builder,
    };
    let message = builder.build().unwrap().commit_message;
    sealed(person, EntryKind::Commit, &message, Some(header))
}

const POLICY: &str = "Mls(\"the group's policy admits";

/// A commit, what is wrong with it, and what its readers say.
const KINDS: [(Fault, Lie, &str); 19] = [
    (Fault::Signature(0), Lie::None, "Mls(\"invalid signature found"),
    (Fault::Signature(1), Lie::None, "Mls(\"invalid signature found"),
    (Fault::Mac(0), Lie::None, "Mls(\"invalid confirmation tag"),
    (Fault::PathSecret, Lie::None, "Mls(\"update path pub key mismatch"),
    (Fault::None, Lie::ContextExtensions, POLICY),
    (Fault::None, Lie::Psk, POLICY),
    (Fault::None, Lie::ResumptionPsk, POLICY),
    (Fault::None, Lie::AbsentResumptionPsk, POLICY),
    (Fault::None, Lie::UnknownProposal, "UnknownProposal"),
    (Fault::None, Lie::AddUncertified, "Mls(\"the certificate's issuer"),
    (
        Fault::None,
        Lie::AddExpired,
        "Mls(\"the user's identity key does not vouch for this key: the identity binding expired",
    ),
    (Fault::None, Lie::OtherMode, "Mismatch"),
    (Fault::None, Lie::ReInit, "Mls(\"a group can be made anew only"),
    (Fault::None, Lie::KeyRoot, "KeyRoot"),
    (Fault::None, Lie::KeyRootOutside, "KeyRoot"),
    (Fault::None, Lie::Removed, "Flags"),
    (Fault::None, Lie::Members, "KeyRoot"),
    (Fault::None, Lie::Committer, "Committer"),
    (Fault::None, Lie::NoAad, "AuthenticatedData"),
];

/// And what can be wrong only with one in the clear.
const IN_THE_CLEAR: [(Fault, Lie, &str); 1] = [(Fault::Mac(1), Lie::None, "Mls(\"invalid membership tag")];

fn modes() -> [Handshakes; 2] {
    [Handshakes::Private, Handshakes::Visible { external_senders: Vec::new() }]
}

/// Whether this is so of an outcome.
fn refused_as(outcome: &Outcome, reason: &str) -> bool {
    match outcome {
        Outcome::NeedsRecovery(rejection) => format!("{rejection:?}").starts_with(reason),
        _ => false,
    }
}

fn three(world: &mut World) -> [Person; 3] {
    three_in(world, Handshakes::Private)
}

fn three_in(world: &mut World, handshakes: Handshakes) -> [Person; 3] {
    let mut people = ["alice", "bob", "carol"].map(|name| world.person(name));
    let [alice, bob, carol] = &mut people;
    alice.handshakes = handshakes;
    group_of(world, &mut [alice, bob, carol]);
    people
}

/// Nothing but its fault keeps a commit that is made so from being applied.
#[test]
fn without_a_fault_the_commit_is_followed() {
    for handshakes in modes() {
        let mut world = World::new();
        let [mut alice, mut bob, _] = three_in(&mut world, handshakes);
        let means = Means::of(&mut world, &mut alice);
        let entry = commit(&mut alice, &means, Fault::None, Lie::None);
        order(&mut world, entry);
        let done = bob.sync(&world.ds);
        assert!(matches!(done.outcomes[..], [(_, Outcome::Applied)]), "{:?}", done.outcomes);
    }
}

#[test]
fn after_every_kind_of_refused_commit_the_genuine_one_applies() {
    for handshakes in modes() {
        each_kind_leaves_no_trace(handshakes);
    }
}

fn each_kind_leaves_no_trace(handshakes: Handshakes) {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = three_in(&mut world, handshakes);
    let visible = alice.group().is_visible();
    let means = Means::of(&mut world, &mut alice);
    for (fault, lie, reason) in KINDS.into_iter().chain(IN_THE_CLEAR.into_iter().filter(|_| visible)) {
        // Bob has something in memory that is not stored with the state.
        alice.say("before");
        alice.drive_now(&mut world);
        bob.sync(&world.ds);
        let forged = commit(&mut alice, &means, fault, lie);
        alice.wish(Wish::Update);
        alice.drive_now(&mut world);
        alice.say("after");
        alice.drive_now(&mut world);
        let genuine = world.ds.after(bob.group().position().seq);
        let forged = Incoming { entry: forged, blob: None, ..genuine[0].clone() };
        let epoch = bob.group().epoch();
        for _ in 0..2 {
            // The first time it is read once more; another one then counts as the first again.
            let done = bob.group().process(std::slice::from_ref(&forged));
            assert_eq!(done.fault, None);
            assert!(
                done.outcomes.len() == 1 && refused_as(&done.outcomes[0].1, reason),
                "{fault:?} {lie:?}, visible: {visible}: {:?}",
                done.outcomes
            );
            assert_eq!(bob.group().epoch(), epoch);
            let mut flipped = genuine[0].clone();
            *flipped.entry.last_mut().unwrap() ^= 1;
            bob.group().process(&[flipped]);
        }
        let done = bob.group().process(&genuine);
        let outcomes: Vec<_> = done.outcomes.iter().map(|(_, outcome)| outcome.clone()).collect();
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Applied), "{fault:?} {lie:?}: {outcomes:?}");
        bob.save();
        bob.restart();
        carol.sync(&world.ds);
        agree(&mut [&mut alice, &mut bob, &mut carol]);
    }
    // And Bob can speak.
    bob.say("here");
    bob.drive_now(&mut world);
    carol.sync(&world.ds);
    assert_eq!(carol.texts().last().unwrap(), "here");
}

/// What is not a commit is part of the log all the same: it is ordered, refused, and passed over.
fn order(world: &mut World, entry: Vec<u8>) {
    let time = world.ds.now();
    world.ds.entries.push((time, entry));
}

#[test]
fn after_every_kind_of_refused_message_and_proposal_the_genuine_one_is_read() {
    for handshakes in modes() {
        each_message_leaves_no_trace(handshakes);
    }
}

fn each_message_leaves_no_trace(handshakes: Handshakes) {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = three_in(&mut world, handshakes);
    for fault in
        [Fault::Signature(0), Fault::Generation(2_000), Fault::Generation(1 << 31), Fault::Generation(u32::MAX)]
    {
        let mut evil = evil_group(&mut alice, Evil::new(fault));
        let aad = SafeAad::of_message(alice.group().epoch_tag().unwrap()).unwrap();
        let message = evil.encrypt_application_message(b"no frame", aad).unwrap();
        let entry = sealed(&mut alice, EntryKind::Message, &message, None);
        order(&mut world, entry);
        let done = bob.sync(&world.ds);
        assert!(
            matches!(done.outcomes[..], [(_, Outcome::Rejected(Rejection::Mls(_)))]),
            "{fault:?} {:?}",
            done.outcomes
        );
        assert!(!done.events.iter().any(|event| matches!(event, Event::MessagesMissing { .. })));

        // Fast: it is refused before keys are derived.
        let counting = Evil::new(Fault::None);
        let derived = std::sync::Arc::clone(&counting.derived);
        let mut reader = evil_group(&mut carol, counting);
        let before = derived.load(Ordering::Relaxed);
        assert!(reader.process_incoming_message(message).is_err());
        let count = derived.load(Ordering::Relaxed) - before;
        assert!(count < 200, "{fault:?}: {count} keys were derived");
    }
    let mut evil = evil_group(&mut alice, Evil::new(Fault::Signature(0)));
    let aad = HandshakeAad { position: alice.group().window.position(), commit: None };
    let aad = aad.in_epoch(alice.group().epoch_tag().unwrap()).unwrap();
    let proposal = evil.propose_remove(1, aad).unwrap();
    let entry = sealed(&mut alice, EntryKind::Proposal, &proposal, None);
    order(&mut world, entry);
    let done = bob.sync(&world.ds);
    let refused = |(_, outcome): &(_, Outcome)| matches!(outcome, Outcome::Rejected(Rejection::Mls(_)));
    assert!(done.outcomes.len() == 2 && done.outcomes.iter().all(refused), "read twice: {:?}", done.outcomes);

    alice.sync(&world.ds);
    alice.say("genuine");
    alice.drive_now(&mut world);
    alice.wish(Wish::Leave);
    alice.drive_now(&mut world);
    bob.restart();
    bob.drive(&mut world);
    carol.drive(&mut world);
    assert_eq!((bob.texts(), carol.texts()), (vec!["genuine".to_owned()], vec!["genuine".to_owned()]));
    assert_eq!(bob.group().members().unwrap().len(), 2, "and the genuine proposal was committed");
    agree(&mut [&mut bob, &mut carol]);
}

/// Where members are many, making the group anew of the store takes long: so it is done once, however many messages are refused.
#[test]
fn many_refused_messages_cost_one_reading_of_the_state() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = three(&mut world);
    let bad = |alice: &mut Person, world: &mut World, count: usize| {
        let mut evil = evil_group(alice, Evil::new(Fault::Signature(0)));
        for _ in 0..count {
            let aad = SafeAad::of_message(alice.group().epoch_tag().unwrap()).unwrap();
            let message = evil.encrypt_application_message(b"no frame", aad).unwrap();
            let entry = sealed(alice, EntryKind::Message, &message, None);
            order(world, entry);
        }
    };
    let loaded = |person: &mut Person, world: &World| {
        let before = crate::stores::LOADED.get();
        let refused = person.sync(&world.ds).outcomes.len();
        (refused, crate::stores::LOADED.get() - before)
    };
    bob.group().write_state_next();
    bob.save();
    bad(&mut alice, &mut world, 20);
    assert_eq!(loaded(&mut bob, &world), (20, 1));
    // Also when each comes by itself, and messages that can be read come between.
    carol.sync(&world.ds);
    for round in 0..5 {
        carol.say(&format!("genuine {round}"));
        carol.drive_now(&mut world);
        bad(&mut alice, &mut world, 1);
        assert_eq!(loaded(&mut bob, &world), (2, 0));
    }
    // What is said of our own meanwhile is not said by the same key again.
    bob.say("mine");
    bob.drive_now(&mut world);
    bad(&mut alice, &mut world, 1);
    assert_eq!(loaded(&mut bob, &world), (1, 0));
    bob.say("mine, too");
    bob.drive_now(&mut world);
    carol.sync(&world.ds);
    assert_eq!(carol.texts()[5..], ["mine", "mine, too"]);
    // Once the state is written, the copy has keys that are to be gone.
    bob.group().write_state_next();
    bob.save();
    bad(&mut alice, &mut world, 2);
    assert_eq!(loaded(&mut bob, &world), (2, 1));
    // And another epoch is another group.
    carol.wish(Wish::Update);
    carol.drive_now(&mut world);
    bob.sync(&world.ds);
    alice.sync(&world.ds);
    bob.group().write_state_next();
    bob.save();
    bad(&mut alice, &mut world, 3);
    assert_eq!(loaded(&mut bob, &world), (3, 1));
    bob.restart();
    bob.say("after a restart");
    bob.drive_now(&mut world);
    carol.sync(&world.ds);
    assert_eq!(carol.texts().last().unwrap(), "after a restart");
    agree(&mut [&mut bob, &mut carol]);
}

/// Each message may skip as many keys as MLS lets it, and all that were skipped are kept.
#[test]
fn who_skips_keys_without_end_swells_nobodys_state() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = three(&mut world);
    let mut evil = evil_group(&mut alice, Evil::new(Fault::None));
    let aad = SafeAad::of_message(alice.group().epoch_tag().unwrap()).unwrap();
    let size = |person: &mut Person| {
        person.group().write_state_next();
        person.save();
        let group = person.group();
        group.shared.groups.state_of(group.mls.group_id()).unwrap().len()
    };
    let mut skip = |alice: &mut Person, world: &mut World| {
        let mut last = None;
        for _ in 0..1_000 {
            last = Some(evil.encrypt_application_message(b"no frame", aad.clone()).unwrap());
        }
        let entry = sealed(alice, EntryKind::Message, &last.unwrap(), None);
        order(world, entry);
    };
    let mut sizes = Vec::new();
    for round in 0..6 {
        skip(&mut alice, &mut world);
        let done = bob.sync(&world.ds);
        let refused = match &done.outcomes[..] {
            // What is in it is no content, which shows once the key was used.
            [(_, Outcome::Rejected(Rejection::Content))] => false,
            [(_, Outcome::Rejected(Rejection::Mls(reason)))] => reason.contains("too far ahead"),
            other => panic!("{other:?}"),
        };
        assert_eq!(refused, round >= 2, "round {round}");
        sizes.push(size(&mut bob));
        // And what is refused leaves no trace after a restart, either.
        bob.restart();
    }
    assert!(sizes[0] < sizes[1], "the keys are kept that were skipped: {sizes:?}");
    assert!(sizes[2..].iter().all(|size| *size == sizes[1]), "{sizes:?}");
    // The keys that honest members use are there, hers also.
    alice.sync(&world.ds);
    for (person, text) in [(&mut alice, "from the first key"), (&mut carol, "from another's")] {
        person.say(text);
        person.drive_now(&mut world);
    }
    bob.sync(&world.ds);
    assert_eq!(bob.texts(), ["from the first key", "from another's"]);
    agree(&mut [&mut alice, &mut bob, &mut carol]);
}
