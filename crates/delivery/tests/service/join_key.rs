//! Commits from outside: what an epoch's join key opens, and to whom it stays shut (R113, R115).

use conclave_channel::{Body, CommitHeader, Entry, EntryKind, access::KeyTree};
use conclave_names::Epoch;
use conclave_protocol::{Code, method, v1};

use super::world::*;

/// Number of the join key of the epoch that a commit begins.
const JOIN: u8 = 90;

fn with_join_key(mut message: v1::SubmitBundleRequest, n: u8) -> v1::SubmitBundleRequest {
    message.join_key = key(n).verifying_key().to_bytes().to_vec();
    message
}

/// A group of 1, 2 and 3 in epoch 1, which has a join key.
fn group() -> (World, Session, Session) {
    let mut world = World::new();
    world.create(GROUP, 1).unwrap();
    let alice = world.open(1, 0, &[1]).unwrap();
    world.commit(&alice, &with_join_key(bundle(1, 0, &[1, 2, 3], 0), JOIN)).unwrap();
    let bob = world.open(2, 1, &[1, 2, 3]).unwrap();
    (world, alice, bob)
}

fn join(world: &mut World, n: u8, epoch: u64) -> Result<Session, conclave_protocol::Refusal> {
    world.open_with(n, &v1::OpenSessionRequest { channel: GROUP.to_vec(), epoch, path: None })
}

/// Member 3 comes back with key 4.
fn back(n: u8, epoch: u64, removed: u32) -> v1::SubmitBundleRequest {
    let keys = [1, 2, 4].map(|n| channel_key(&key(n)));
    let tree = KeyTree::new(keys).unwrap();
    let committer = channel_key(&key(4));
    let header = CommitHeader { committer, removed, members: 3, key_root: tree.root() };
    let entry = Entry::commit(Epoch(epoch), header, Body::Inline(vec![n; 256])).to_bytes().unwrap();
    with_join_key(v1::SubmitBundleRequest { entry, ..bundle(n, epoch, &[1, 2, 4], 1) }, JOIN + 1)
}

#[test]
fn who_has_the_join_key_commits_once_and_is_a_member_then() {
    let (mut world, alice, bob) = group();
    let joiner = join(&mut world, JOIN, 1).unwrap();
    let blob = world.stage(&joiner, &[7; 1000]);
    assert_ne!(blob, conclave_names::Hash::new([0; 32]));
    world.commit_as(&joiner, &back(20, 1, 0), 4).unwrap();
    let returned = world.open(4, 2, &[1, 2, 4]).unwrap();
    world.send(&returned, 21, 2).unwrap();
    for member in [&alice, &bob] {
        assert_eq!(world.seqs(member, 1), [2, 3], "nobody was removed");
    }
    // The old leaf's key reads on, until somebody is removed; it writes nothing in epochs that it is not in.
    let old = world.open(3, 1, &[1, 2, 3]).unwrap();
    assert_eq!(world.seqs(&old, 1), [2, 3]);

    // The key was that epoch's.
    refused(world.commit_as(&joiner, &back(22, 2, 0), 4), Code::AccessRefused);
    refused(join(&mut world, JOIN, 1), Code::AccessRefused);
    refused(join(&mut world, JOIN, 2), Code::AccessRefused);
    join(&mut world, JOIN + 1, 2).unwrap();
}

#[test]
fn strangers_and_old_keys_are_refused_alike() {
    let (mut world, alice, _) = group();
    let missing = v1::OpenSessionRequest { channel: vec![9; 16], epoch: 1, path: None };
    let nobody = refused(world.open_with(JOIN, &missing), Code::AccessRefused);
    for (n, epoch) in [(JOIN + 5, 1), (JOIN, 0), (JOIN, 2), (0, 1)] {
        assert_eq!(refused(join(&mut world, n, epoch), Code::AccessRefused).message, nobody.message);
    }
    // With the next commit of anybody the key opens nothing any more, nor a session that it opened.
    let joiner = join(&mut world, JOIN, 1).unwrap();
    world.commit(&alice, &with_join_key(bundle(2, 1, &[1, 2, 3], 1), JOIN + 1)).unwrap();
    refused(join(&mut world, JOIN, 1), Code::AccessRefused);
    refused(world.commit_as(&joiner, &back(20, 1, 0), 4), Code::AccessRefused);
    let request = joiner.request(method::STAGE_BLOB, &v1::StageBlobRequest::default());
    refused(call!((&mut world), stage_blob, STAGE_BLOB, request), Code::AccessRefused);
}

#[test]
fn a_join_key_opens_nothing_else() {
    let (mut world, alice, _) = group();
    world.send(&alice, 5, 1).unwrap();
    let joiner = join(&mut world, JOIN, 1).unwrap();
    refused(world.fetch(&joiner, 0), Code::AccessRefused);
    refused(world.group_info(&joiner), Code::AccessRefused);
    refused(world.send(&joiner, 6, 1), Code::AccessRefused);
    let proposal = submission(7, entry(EntryKind::Proposal, 1, b"?"));
    refused(world.submit(&joiner, &proposal), Code::AccessRefused);
    let request = joiner.request(method::TRIM, &v1::TrimRequest { up_to: 1 });
    refused(call!((&mut world), trim, TRIM, request), Code::AccessRefused);
    // It brings one back, and nobody else.
    refused(world.commit_as(&joiner, &back(20, 1, 1), 4), Code::EntryInvalid);
    let invites = v1::SubmitBundleRequest { welcome: Some(welcome(vec![])), ..back(20, 1, 0) };
    refused(world.commit_as(&joiner, &invites, 4), Code::EntryInvalid);
    assert_eq!(world.seqs(&alice, 0), [1, 2]);
    // Members still commit in their own name only.
    let theirs = back(20, 1, 0);
    refused(world.commit_as(&alice, &theirs, 4), Code::EntryInvalid);
    world.commit_as(&joiner, &theirs, 4).unwrap();
}
