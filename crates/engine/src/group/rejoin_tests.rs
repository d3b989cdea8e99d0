//! GroupInfos that somebody who has the group seed sealed well, and that lie all the same.

use conclave_channel::EntryKind;
use conclave_mls::components::HandshakeMode;

use super::{
    super::{
        process::audit_tests::common::{Person, World, group_of},
        standing::{Branch, Lost},
    },
    *,
};

/// Alice, Bob and Carol, after commits of Alice's. Bob has read it all, and cannot follow from here on.
fn cast(world: &mut World) -> [Person; 3] {
    let mut people = ["alice", "bob", "carol"].map(|name| world.person(name));
    let [alice, bob, carol] = &mut people;
    group_of(world, &mut [alice, bob, carol]);
    for person in [&mut *alice, &mut *bob, &mut *carol] {
        person.sync(&world.ds);
    }
    let group = bob.group();
    let place = group.window.position().seq;
    group.lost = Some(Lost::settled(place, Hash::new([0; 32]), "lost".to_owned(), Branch::None));
    group.status = Status::Stuck { reason: "lost".to_owned() };
    for _ in 0..2 {
        alice.wish(Wish::Update);
        alice.drive(world);
    }
    bob.group().status = Status::Stuck { reason: "lost".to_owned() };
    people
}

/// What the newest commit left at the server, as a member opens it.
pub(in crate::group) fn opened(world: &World, group: &Group) -> SealedGroupInfo {
    let provider = suite(group.mls.cipher_suite()).unwrap();
    let (epoch, bytes) = &world.ds.group_info;
    let context = epoch_context(&group.profile.channel, *epoch);
    let seed = group.seed(*epoch).unwrap();
    SealedGroupInfo::parse(&seed.open(&provider, Purpose::GroupInfo, &context, bytes).unwrap()).unwrap()
}

/// Has the DS serve this in place of what the newest commit left.
pub(in crate::group) fn serve(world: &mut World, group: &Group, forged: &SealedGroupInfo) {
    let provider = suite(group.mls.cipher_suite()).unwrap();
    let epoch = world.ds.group_info.0;
    let context = epoch_context(&group.profile.channel, epoch);
    let plain = forged.to_bytes().unwrap().to_vec();
    world.ds.group_info.1 = group.seed(epoch).unwrap().seal(&provider, Purpose::GroupInfo, &context, plain).unwrap();
}

fn contradicts(result: Result<impl std::fmt::Debug, RejoinError>, what: &str) {
    match result {
        Err(RejoinError::Contradicts(reason)) => assert!(reason.contains(what), "{reason}"),
        other => panic!("{other:?}"),
    }
}

/// Lets Bob read the channel's commits in the clear alone, as who cannot apply them.
fn read_on(world: &World, bob: &mut Person) {
    for incoming in world.ds.after(bob.group().position().seq) {
        let entry = Entry::parse(&incoming.entry).unwrap();
        let hash = chain::entry_hash(&incoming.entry);
        let group = bob.group();
        group.ledger.advance(incoming.time);
        group.ledger.admit(&group.profile.channel, incoming.seq, incoming.time, &entry, hash).unwrap();
        group.window.advance_by(incoming.seq, entry.kind, incoming.time, &hash).unwrap();
        assert_eq!(entry.kind, EntryKind::Commit);
    }
}

#[test]
fn a_tree_that_is_not_the_one_of_the_newest_commit_is_refused() {
    let mut world = World::new();
    let [mut alice, mut bob, _] = cast(&mut world);
    read_on(&world, &mut bob);
    // Honestly, he could come back.
    assert_eq!(bob.begin_rejoin(&world, false), Ok(()));
    let order = *bob.group().intents.keys().next().unwrap();
    bob.group().drop_intent(order);
    // The tree that an earlier commit of Alice's left: the server still has it.
    let before = opened(&world, alice.group()).tree;
    alice.wish(Wish::Update);
    alice.drive(&mut world);
    read_on(&world, &mut bob);
    let genuine = world.ds.group_info.clone();
    let mut forged = opened(&world, alice.group());
    forged.tree = before;
    serve(&mut world, alice.group(), &forged);
    contradicts(bob.begin_rejoin(&world, false), "its tree is not the one");
    assert!(bob.group().wants_rejoin(), "nothing has changed");
    world.ds.group_info = genuine;
    assert_eq!(bob.begin_rejoin(&world, false), Ok(()));
}

#[test]
fn members_that_are_missing_or_others_are_refused() {
    let mut world = World::new();
    let [_, mut bob, carol] = cast(&mut world);
    read_on(&world, &mut bob);
    let (epoch, info) = world.ds.group_info.clone();
    let now = world.ds.now();
    let way = bob.group().way_back(epoch, &info, world.ds.end(), now).unwrap();
    let (own, carol) = (bob.account.client.clone(), carol.account.client.clone());
    let read = |group: &Group| members_of(&group.mls.export_tree()).unwrap();
    let group = bob.group();
    let vouched = |group: &Group, change: &dyn Fn(&mut BTreeMap<ClientUri, InTree>)| {
        let mut members = read(group);
        change(&mut members);
        group.vouched(&way, &members, None).map(|(strangers, _)| strangers)
    };
    let other_key = |client: &ClientUri| {
        let client = client.clone();
        move |members: &mut BTreeMap<ClientUri, InTree>| members.get_mut(&client).unwrap().identity_key[0] ^= 1
    };
    assert_eq!(vouched(group, &|_| {}), Ok(false));
    for visible in [false, true] {
        // The server of a visible group lets everybody read the GroupInfo, also after a removal.
        group.profile.mode = if visible { HandshakeMode::Visible } else { HandshakeMode::Private };
        contradicts(vouched(group, &other_key(&carol)), "identity key");
        contradicts(vouched(group, &other_key(&own)), "identity key");
        let gone = |client: &ClientUri| {
            let client = client.clone();
            move |members: &mut BTreeMap<ClientUri, InTree>| {
                members.remove(&client);
            }
        };
        assert_eq!(vouched(group, &gone(&own)), Err(RejoinError::NoMember));
        if visible {
            assert_eq!(vouched(group, &gone(&carol)), Ok(false));
        } else {
            contradicts(vouched(group, &gone(&carol)), "is missing");
        }
        let nobody = vouched(group, &|members| members.values_mut().for_each(|member| member.leaf += 100));
        assert!(matches!(nobody, Err(RejoinError::Damaged(_))), "{nobody:?}");
    }
}

#[test]
fn an_older_copy_of_a_profile_gets_a_newer_certificate_before_it_comes_back() {
    let mut world = World::new();
    let [_alice, mut bob, _carol] = cast(&mut world);
    let certified = |bob: &Person, world: &World, from: Timestamp| {
        let (client, key) = (&bob.account.client, bob.account.signature_key.verifying_key().to_bytes());
        let certificate = world.ca.issue(client, &key, &bob.account.binding, from, world.until, [7; 16]).unwrap();
        crate::account::Account { certificate, ..bob.account.clone() }
    };
    for (from, outcome) in [(world.ds.now().0 - 86_400_000, Err(RejoinError::Outdated)), (world.ds.now().0, Ok(()))] {
        let account = certified(&bob, &world, Timestamp(from));
        bob.group().set_account(account);
        read_on(&world, &mut bob);
        assert_eq!(bob.begin_rejoin(&world, false), outcome);
    }
}
