//! GroupInfos of a member that lies: what they say of the channel, of the group's members, and what a commit from outside may do.

use conclave_channel::{
    CommitHeader, Entry, EntryKind,
    law::{DisputePause, Ledger},
};
use conclave_mls::{
    components::{CommitAad, HandshakeAad},
    rejoin::psk_id,
    tree_chunks::{self, Held, Keyed},
};
use conclave_names::{Epoch, Hash, IdempotencyKey, Seq};
use conclave_protocol::v1::SubmitBundleRequest;
use ed25519_dalek::SigningKey;
use mls_rs::{group::ExportedTree, psk::PreSharedKey};

use super::{
    super::{
        access::fault,
        commit::body_of,
        process::audit_tests::common::{Person, World, agree, group_of, knock, random},
        rejoin::tests::{opened, serve},
    },
    *,
};
use crate::{
    group::{Handshakes, Incoming, Status, Submission, SubmissionBody},
    intent::Wish,
    mls_client::{MlsError, MlsGroup, leaf_extensions, suite},
    outcome::{Event, Outcome, Rejection},
};

/// Alice, Bob and Carol. What Bob would read next is gone: two commits of Alice's, with messages around them.
fn away() -> (World, [Person; 3]) {
    let mut world = World::new();
    let mut people = ["alice", "bob", "carol"].map(|name| world.person(name));
    let [alice, bob, carol] = &mut people;
    group_of(&mut world, &mut [alice, bob, carol]);
    for person in [&mut *alice, &mut *bob, &mut *carol] {
        person.sync(&world.ds);
    }
    // The commit that added them is settled by Carol's word, so that later ones are tested by what the ledger says of that.
    carol.sync(&world.ds);
    for round in 0..2 {
        alice.say(&format!("before {round}"));
        alice.wish(Wish::Update);
        alice.say(&format!("after {round}"));
        alice.drive(&mut world);
    }
    carol.sync(&world.ds);
    bob.group().position_gone(None, &mut Vec::new());
    bob.save();
    assert!(bob.group().wants_rejoin());
    (world, people)
}

/// As the client's shell does it: reads on where it is to, and tries again.
fn come_back(world: &World, person: &mut Person) -> Result<(), RejoinError> {
    for _ in 0..4 {
        match person.begin_rejoin(world, false) {
            Err(RejoinError::ReadOn | RejoinError::Epoch { .. }) => {
                person.sync(&world.ds);
            }
            other => return other,
        }
    }
    panic!("it goes round and round: {:?}", person.group())
}

/// The server says a second time that entries are gone, after Bob has passed over the first ones by a GroupInfo's word.
#[test]
fn what_was_passed_over_is_told_however_one_comes_back() {
    for way in ["a commit from outside", "a member", "the server after all"] {
        let (mut world, [mut alice, mut bob, mut carol]) = away();
        let first = bob.group().position().seq.next();
        assert_eq!(bob.begin_rejoin(&world, false), Err(RejoinError::ReadOn));
        let passed = bob.group().position().seq;
        assert!(passed >= first, "{way}");
        bob.group().position_gone(None, &mut Vec::new());
        bob.save();
        bob.restart();
        match way {
            "a member" => {
                knock(&world, &mut bob, &mut carol).unwrap();
                carol.drive_now(&mut world);
                bob.join(&world);
            }
            "the server after all" => drop(bob.sync(&world.ds)),
            _ => {
                // Alice's GroupInfo tells of no later place than he has.
                carol.wish(Wish::Update);
                carol.drive_now(&mut world);
                assert_eq!(come_back(&world, &mut bob), Ok(()));
                bob.drive_now(&mut world);
            }
        }
        bob.sync(&world.ds);
        alice.sync(&world.ds);
        carol.sync(&world.ds);
        let told = |event: &Event| matches!(event, Event::Missed { from, to } if *from == first && *to >= passed);
        assert!(bob.events.iter().any(told), "{way}: {:?}", bob.events);
        if way != "the server after all" {
            agree(&mut [&mut alice, &mut bob, &mut carol]);
        }
    }
}

/// What a member may make of an honest GroupInfo's place and ledger, and how the refusal is worded.
type Forgery = (&'static str, fn(&World, &mut SealedGroupInfo), &'static str);

const NOT_ON: &str = "does not go on as it should";
const NOT_THERE: &str = "cannot have stood";

fn forgeries() -> Vec<Forgery> {
    vec![
        ("a place that is yet to come", |_, info| info.position.seq = Seq(1000), NOT_ON),
        ("the end of the channel", |world, info| info.position = world.ds.end().place, NOT_ON),
        ("the same behind the end", |world, info| info.position.seq = world.ds.end().place.seq.next(), NOT_ON),
        ("another hash", |_, info| info.position.hash = Hash::new([7; 32]), NOT_ON),
        ("a place before the epoch", |_, info| info.position.seq = Seq(2), NOT_ON),
        (
            "another root",
            |_, info| info.ledger = Ledger::new(info.ledger.epoch(), Hash::new([7; 32]), info.ledger.members()),
            NOT_ON,
        ),
        (
            "another count of members",
            |_, info| info.ledger = Ledger::new(info.ledger.epoch(), *info.ledger.settled_root(), 9),
            NOT_ON,
        ),
        (
            "commits that are settled, and are not",
            |_, info| {
                let root = info.ledger.open().last().unwrap().key_root;
                info.ledger = Ledger::new(info.ledger.epoch(), root, info.ledger.members());
            },
            NOT_ON,
        ),
        ("another pause", |_, info| info.ledger = info.ledger.clone().with_pause(DisputePause::MIN), NOT_THERE),
        (
            "a later epoch",
            |_, info| {
                info.ledger = Ledger::new(info.ledger.epoch().next(), *info.ledger.settled_root(), 3);
            },
            NOT_THERE,
        ),
        (
            "an earlier epoch",
            |_, info| {
                info.ledger = Ledger::new(info.ledger.settled(), *info.ledger.settled_root(), 3);
            },
            NOT_THERE,
        ),
    ]
}

#[test]
fn who_reads_on_from_where_an_honest_member_stood_comes_back() {
    let (mut world, [mut alice, mut bob, mut carol]) = away();
    assert_eq!(come_back(&world, &mut bob), Ok(()));
    bob.drive_now(&mut world);
    assert_eq!(*bob.group().status(), Status::Active);
    bob.say("back");
    bob.drive_now(&mut world);
    alice.sync(&world.ds);
    carol.sync(&world.ds);
    agree(&mut [&mut alice, &mut bob, &mut carol]);
    assert_eq!(carol.texts().last().unwrap(), "back");
    for person in [&alice, &bob, &carol] {
        assert!(!person.events.iter().any(|event| matches!(event, Event::LogsDiffer { .. })));
    }
}

#[test]
fn a_forged_place_or_ledger_is_refused_and_the_next_commit_leads_back() {
    for (what, change, why) in forgeries() {
        let (mut world, [mut alice, mut bob, mut carol]) = away();
        let mut forged = opened(&world, alice.group());
        change(&world, &mut forged);
        serve(&mut world, alice.group(), &forged);
        for again in [false, true] {
            match come_back(&world, &mut bob) {
                Err(RejoinError::Contradicts(reason)) => assert!(reason.contains(why), "{what}: {reason}"),
                other => panic!("{what}, again: {again}: {other:?}"),
            }
            assert!(bob.group().wants_rejoin(), "{what}");
            bob.restart();
        }
        // What is wrong with one GroupInfo says nothing of another's.
        carol.wish(Wish::Update);
        carol.drive_now(&mut world);
        assert_eq!(come_back(&world, &mut bob), Ok(()), "{what}");
        bob.say("back");
        bob.drive_now(&mut world);
        alice.sync(&world.ds);
        carol.sync(&world.ds);
        agree(&mut [&mut alice, &mut bob, &mut carol]);
        assert_eq!(alice.texts().last().unwrap(), "back", "{what}");
        assert_eq!(bob.group().ledger, alice.group().ledger, "{what}");
        let differ = |person: &Person| person.events.iter().any(|event| matches!(event, Event::LogsDiffer { .. }));
        assert!(!differ(&alice) && !differ(&bob), "{what}");
    }
}

#[test]
fn where_a_forged_place_or_ledger_is_all_there_is_a_member_lets_the_victim_in() {
    for (what, change, _) in forgeries() {
        let (mut world, [mut alice, mut bob, mut carol]) = away();
        let mut forged = opened(&world, alice.group());
        change(&world, &mut forged);
        serve(&mut world, alice.group(), &forged);
        assert!(matches!(come_back(&world, &mut bob), Err(RejoinError::Contradicts(_))), "{what}");
        knock(&world, &mut bob, &mut carol).unwrap();
        carol.drive_now(&mut world);
        bob.join(&world);
        bob.sync(&world.ds);
        alice.sync(&world.ds);
        assert_eq!(*bob.group().status(), Status::Active, "{what}");
        agree(&mut [&mut alice, &mut bob, &mut carol]);
        bob.say("let in");
        bob.drive_now(&mut world);
        carol.sync(&world.ds);
        assert_eq!(carol.texts().last().unwrap(), "let in", "{what}");
    }
}

/// What Alice makes of the group beside the log, to have others come back to that: her group after a commit that nobody is shown.
fn aside(before: &MlsGroup, removed: Option<u32>, channel_key: &SigningKey) -> Result<MlsGroup, MlsError> {
    let mut group = before.clone();
    let builder = group.commit_builder().set_leaf_node_extensions(leaf_extensions(channel_key)?);
    let builder = match removed {
        Some(leaf) => builder.remove_member(leaf)?,
        None => builder,
    };
    builder.build()?;
    group.apply_pending_commit()?;
    Ok(group)
}

/// Has the DS serve a GroupInfo of that group, which is sealed and signed as it should be, with its tree.
fn serve_aside(world: &mut World, alice: &mut Person, aside: &MlsGroup) {
    let mut forged = opened(world, alice.group());
    let provider = suite(aside.cipher_suite()).unwrap();
    let tree = aside.export_tree();
    let (key, nodes) = (forged.tree_key().unwrap(), Held(tree.nodes()));
    let keyed = Keyed { key: &key, nodes: &nodes };
    let offered = tree_chunks::changes(&provider, None, keyed, keyed).unwrap();
    forged.tree = offered.names.root().unwrap();
    for (name, chunk) in offered.added {
        world.ds.blobs.insert(name, chunk);
    }
    forged.group_info = aside.group_info_message_allowing_ext_commit(false).unwrap().to_bytes().unwrap();
    serve(world, alice.group(), &forged);
}

/// That of the own leaf.
fn channel_key(group: &Group) -> SigningKey {
    let (_, public) = group.keys_of(group.epoch()).unwrap();
    group.secret_of(&public).unwrap().clone()
}

/// As [`away`], but Alice has a copy of her group before her last commit.
fn two_faced() -> (World, [Person; 3], MlsGroup) {
    let (mut world, mut people) = away();
    let alice = &mut people[0];
    let before = alice.group().mls.clone();
    alice.wish(Wish::Update);
    alice.drive(&mut world);
    (world, people, before)
}

#[test]
fn a_roster_that_the_channel_does_not_know_is_refused() {
    let (mut world, [mut alice, mut bob, mut carol], before) = two_faced();
    let leaf = carol.group().mls.current_member_index();
    let without_carol = aside(&before, Some(leaf), &channel_key(alice.group())).unwrap();
    serve_aside(&mut world, &mut alice, &without_carol);
    match come_back(&world, &mut bob) {
        Err(RejoinError::Contradicts(reason)) => assert!(reason.contains("its tree is not the one"), "{reason}"),
        other => panic!("{other:?}"),
    }
    knock(&world, &mut bob, &mut carol).unwrap();
    carol.drive_now(&mut world);
    bob.join(&world);
    alice.sync(&world.ds);
    agree(&mut [&mut alice, &mut bob, &mut carol]);
}

#[test]
fn who_is_led_into_a_group_that_nobody_is_in_finds_another_way() {
    let (mut world, [mut alice, mut bob, mut carol], before) = two_faced();
    // The same members with the same channel keys: nothing that Bob sees tells it from the group.
    let lonely = aside(&before, None, &channel_key(alice.group())).unwrap();
    serve_aside(&mut world, &mut alice, &lonely);
    let epoch = alice.group().epoch();
    assert_eq!(come_back(&world, &mut bob), Ok(()));
    bob.drive_now(&mut world);
    assert_eq!(*bob.group().status(), Status::Active);
    // But the others cannot follow him there, and say so; as nobody can, his commit is void.
    alice.drive_now(&mut world);
    carol.drive_now(&mut world);
    world.ds.ahead += conclave_channel::law::DISPUTE_MS + 600_000;
    // The DS takes the GroupInfo of a void epoch back, and serves no older one.
    world.ds.group_info = (epoch, Vec::new());
    carol.say("and now?");
    carol.drive_now(&mut world);
    bob.sync(&world.ds);
    assert_eq!((carol.group().epoch(), alice.group().epoch()), (epoch, epoch));
    assert!(bob.group().wants_rejoin(), "{:?}", bob.group());
    assert_eq!(come_back(&world, &mut bob), Err(RejoinError::NoGroupInfo));
    knock(&world, &mut bob, &mut carol).unwrap();
    carol.drive_now(&mut world);
    bob.join(&world);
    bob.sync(&world.ds);
    alice.sync(&world.ds);
    agree(&mut [&mut alice, &mut bob, &mut carol]);
}

/// What is wrong with a commit from outside.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wrong {
    Nothing,
    RenewsSeed,
    RenewsTreeKey,
    SaysRemoval,
    /// By the PSK of a group seed that was never in force.
    AbsentPsk,
    /// By another PSK of the right name.
    OtherPsk,
}

/// Bob's commit from outside, all as it should be but for one thing.
fn from_outside(world: &World, bob: &mut Person, wrong: Wrong) -> Result<Submission, MlsError> {
    let now = world.ds.now();
    let (epoch, info) = world.ds.group_info.clone();
    let group = bob.group();
    let way = group.way_back(epoch, &info, world.ds.end(), now).unwrap();
    let mut tree = way.tree()?;
    while let Some(name) = tree.wanted().pop() {
        tree.give(&world.ds.blobs[&name]).unwrap();
    }
    if tree.wants_whole() {
        tree.give(&world.ds.visible.tree(epoch)).unwrap();
    }
    let tree = ExportedTree::from_bytes(&tree.finish().unwrap())?.into_owned();
    let info = if group.is_visible() { info } else { opened(world, group).group_info.clone() };
    let info = mls_rs::MlsMessage::from_bytes(&info)?;
    let leaf = group.mls.current_member_index();
    let (keys, own) = group.keys_of(group.epoch())?;
    let fresh = SigningKey::from_bytes(&random());
    let committer = conclave_channel::access::ChannelKey(fresh.verifying_key().to_bytes());
    let after = keys.tree.changed(&[own], &[committer]).map_err(fault)?;
    let (renews_seed, renews_tree_key) = (wrong == Wrong::RenewsSeed, wrong == Wrong::RenewsTreeKey);
    let aad = HandshakeAad {
        position: group.window.position(),
        commit: Some(CommitAad { key_root: after.root(), renews_seed, renews_tree_key }),
    };
    let (id, secret) = match (wrong, group.rejoin_psk(epoch)?) {
        (Wrong::AbsentPsk, (_, secret)) => (psk_id(group.mls.group_id(), Epoch(epoch.0 + 7)), secret),
        (Wrong::OtherPsk, (id, _)) => (id, PreSharedKey::new(vec![7; 32])),
        (_, right) => right,
    };
    let apart = group.shared.apart();
    let builder = apart
        .client(&group.account, group.mls.cipher_suite())
        .external_commit_builder()?
        .with_tree_data(tree)
        .with_removal(leaf)
        .with_external_psk(id.clone())
        .with_authenticated_data(aad.to_bytes().map_err(fault)?)
        .with_leaf_node_extensions(leaf_extensions(&fresh)?);
    let (_, message) = apart.psks.during(id, secret, || builder.build(info))?;
    let message = message.to_bytes()?;
    let body = if group.is_visible() { message } else { group.seal(EntryKind::Commit, epoch, message)? };
    let removed = u32::from(wrong == Wrong::SaysRemoval);
    let header = CommitHeader { committer, removed, members: after.len(), key_root: after.root() };
    let mut blobs = Vec::new();
    let entry = Entry::commit(epoch, header, body_of(body, &mut blobs)).to_bytes().map_err(fault)?;
    let bundle = SubmitBundleRequest { entry, ..SubmitBundleRequest::default() };
    let body = SubmissionBody::Bundle(Box::new(bundle));
    Ok(Submission { intent: IdempotencyKey::new(random()), join: None, blobs, body })
}

/// What it is refused for; none if it is not.
fn refusal_of(wrong: Wrong) -> Option<Rejection> {
    match wrong {
        Wrong::Nothing => None,
        Wrong::RenewsSeed | Wrong::RenewsTreeKey | Wrong::SaysRemoval => Some(Rejection::Flags),
        Wrong::AbsentPsk => Some(Rejection::Mls("Missing required Psk".into())),
        Wrong::OtherPsk => Some(Rejection::Mls("invalid confirmation tag".into())),
    }
}

/// Which leaves no trace: the genuine one still applies at its place.
#[test]
fn a_commit_from_outside_removes_one_leaf_by_the_seed_in_force_and_renews_nothing() {
    use Wrong::{AbsentPsk, Nothing, OtherPsk, RenewsSeed, RenewsTreeKey, SaysRemoval};
    let kinds = [Nothing, RenewsSeed, RenewsTreeKey, SaysRemoval, AbsentPsk, OtherPsk];
    let modes = [Handshakes::Private, Handshakes::Visible { external_senders: Vec::new() }];
    for (wrong, handshakes) in kinds.into_iter().flat_map(|wrong| modes.clone().map(|mode| (wrong, mode))) {
        let mut world = World::new();
        let mut people = ["alice", "bob", "carol"].map(|name| world.person(name));
        let [alice, bob, carol] = &mut people;
        alice.handshakes = handshakes;
        group_of(&mut world, &mut [alice, bob, carol]);
        alice.wish(Wish::Update);
        alice.drive(&mut world);
        for person in [&mut *alice, &mut *bob, &mut *carol] {
            person.sync(&world.ds);
        }
        // Of Bob's own making: he follows the group, and acts as if he did not.
        let group = bob.group();
        let place = group.window.position().seq;
        group.lost = Some(Lost::settled(place, Hash::new([0; 32]), "lost".to_owned(), Branch::None));
        group.status = Status::Stuck { reason: "lost".to_owned() };
        let forged = from_outside(&world, bob, wrong).unwrap();
        let submission = from_outside(&world, bob, Nothing).unwrap();
        world.ds.submit(&submission).unwrap();
        let genuine = world.ds.after(place);
        let (authenticator, epoch) = (carol.group().epoch_authenticator().unwrap(), carol.group().epoch());
        if let Some(reason) = refusal_of(wrong) {
            let SubmissionBody::Bundle(bundle) = forged.body else { panic!("it is a commit") };
            let blob = forged.blobs.into_iter().next();
            let forged = Incoming { entry: bundle.entry, blob, ..genuine[0].clone() };
            let done = carol.group().process(&[forged]);
            assert_eq!(done.outcomes[0].1, Outcome::NeedsRecovery(reason), "{wrong:?}");
            assert_eq!(carol.group().epoch_authenticator().unwrap(), authenticator, "{wrong:?}: nothing has changed");
        }
        carol.group().process(&genuine);
        carol.save();
        carol.restart();
        assert_eq!(carol.group().epoch(), epoch.next(), "{wrong:?}");
        alice.sync(&world.ds);
        agree(&mut [alice, carol]);
    }
}
