//! Commits, and what belongs to them.

use conclave_channel::{Body, CommitHeader, Entry, size_class};
use conclave_mls::{address::DropToken, welcome::InboxWelcome};
use conclave_names::{ChannelId, Epoch, Hash, limits};
use conclave_protocol::{Code, v1};

use super::world::*;

const INBOX: ChannelId = ChannelId::new([7; 16]);
const DROP: [u8; 32] = [3; 32];

/// A group of 1 and 2 in epoch 1, and an inbox of 5.
fn group() -> (World, Session, Session) {
    let mut world = World::new();
    world.create(GROUP, 1).unwrap();
    world.create_inbox(INBOX, 5, DROP).unwrap();
    let alice = world.open(1, 0, &[1]).unwrap();
    world.commit(&alice, &bundle(1, 0, &[1, 2], 0)).unwrap();
    let bob = world.open(2, 1, &[1, 2]).unwrap();
    (world, alice, bob)
}

#[test]
fn the_first_commit_of_an_epoch_wins_and_nothing_of_the_loser_stays() {
    let (mut world, alice, bob) = group();
    let (mine, theirs) = (world.address(INBOX, DROP, 1, 1), world.address(INBOX, DROP, 2, 1));
    let mut winner = bundle(11, 1, &[1, 2, 5], 1);
    winner.welcome = Some(welcome(vec![(mine, vec![0xAA; 80])]));
    let mut loser = bundle(12, 1, &[1, 2, 6], 1);
    loser.welcome = Some(welcome(vec![(theirs, vec![0xBB; 80])]));
    let done = world.commit(&alice, &winner).unwrap();
    assert!(done.outbox && done.wake == [GROUP]);
    let refusal = refused(world.commit(&bob, &loser), Code::EpochConflict);
    assert_eq!((refusal.number("epoch"), refusal.number("winner")), (Some(2), Some(2)));

    assert_eq!(world.deliver(), [INBOX]);
    assert!(world.deliver().is_empty());
    let owner = world.open_inbox(5, INBOX).unwrap();
    let log = world.fetch(&owner, 0).unwrap();
    assert_eq!(log.entries.len(), 1, "the loser's Welcome was never delivered");
    let Body::Inline(body) = Entry::parse(&log.entries[0].entry).unwrap().body else { panic!("not inline") };
    assert_eq!(body.len(), size_class::class(body.len()));
    let inside = InboxWelcome::parse(&size_class::unpad(body).unwrap()).unwrap();
    assert_eq!((inside.cipher_suite, inside.secrets), (1, vec![0xAA; 80]));
    assert_eq!((inside.encrypted_group_info, inside.attachment), (vec![0xE1; 500], vec![0xA7; 100]));

    // GroupInfo and root are the winner's; the loser's token was not used up.
    let info = world.group_info(&alice).unwrap();
    assert_eq!((info.epoch, info.group_info), (2, vec![11; 300]));
    world.open(5, 2, &[1, 2, 5]).unwrap();
    refused(world.open(6, 2, &[1, 2, 6]), Code::AccessRefused);
    let again = v1::SubmitBundleRequest {
        entry: bundle(12, 2, &[1, 2, 6], 2).entry,
        base_seq: 2,
        idempotency_key: vec![13; 16],
        ..loser
    };
    world.commit(&bob, &again).unwrap();
    assert_eq!(world.deliver(), [INBOX]);
}

#[test]
fn a_bundle_sent_again_gets_the_same_answer() {
    let (mut world, alice, bob) = group();
    let mut message = bundle(11, 1, &[1, 2, 5], 1);
    let address = world.address(INBOX, DROP, 1, 1);
    message.welcome = Some(welcome(vec![(address, vec![1; 80])]));
    let first = world.commit(&alice, &message).unwrap().reply;
    world.commit(&bob, &bundle(12, 2, &[1, 2, 5], 2)).unwrap();
    assert_eq!(world.commit(&alice, &message).unwrap().reply, first);
    world.deliver();
    let owner = world.open_inbox(5, INBOX).unwrap();
    assert_eq!(world.seqs(&owner, 0), [1]);
    message.base_seq = 0;
    refused(world.commit(&alice, &message), Code::IdempotencyMismatch);
}

#[test]
fn one_bad_address_refuses_the_bundle_and_is_named() {
    let (mut world, alice, _) = group();
    let good = world.address(INBOX, DROP, 1, 1);
    let other_inbox = world.address(ChannelId::new([8; 16]), DROP, 2, 1);
    let of_group = world.address(GROUP, DROP, 2, 1);
    let other_key = world.address(INBOX, [4; 32], 3, 1);
    let none = world.address(INBOX, DROP, 4, 0);
    let expired = world.seal(&DropToken::mint(&DROP, INBOX, [5; 16], 1, NOW));
    let mut changed = good.clone();
    *changed.last_mut().unwrap() ^= 1;
    let mut unknown_key = good.clone();
    unknown_key[1] ^= 1;
    let bad =
        [other_inbox, of_group, other_key, none, expired, changed, unknown_key, vec![], vec![2; 99], good.clone()];
    let mut texts = Vec::new();
    for bad in bad {
        let mut message = bundle(11, 1, &[1, 2, 5], 1);
        message.welcome = Some(welcome(vec![(good.clone(), vec![1; 80]), (bad, vec![1; 80])]));
        let refusal = refused(world.commit(&alice, &message), Code::AddressInvalid);
        assert_eq!(refusal.number("index"), Some(1));
        texts.push(refusal.message);
    }
    assert!(texts[..3].iter().all(|text| *text == texts[0]), "whether the inbox exists is not told");
    let mut elsewhere = bundle(11, 1, &[1, 2, 5], 1);
    let mut parts = welcome(vec![(good.clone(), vec![1; 80])]);
    parts.parts[0].domain = "other.org".to_owned();
    elsewhere.welcome = Some(parts);
    assert_eq!(refused(world.commit(&alice, &elsewhere), Code::AddressInvalid).number("index"), Some(0));
    // Nothing was used up or changed by all that.
    assert!(world.deliver().is_empty());
    assert_eq!(world.group_info(&alice).unwrap().epoch, 1);
    let mut message = bundle(11, 1, &[1, 2, 5], 1);
    message.welcome = Some(welcome(vec![(good, vec![1; 80])]));
    world.commit(&alice, &message).unwrap();
}

#[test]
fn a_token_admits_as_many_posts_as_it_says() {
    let (mut world, alice, _) = group();
    let twice = world.address(INBOX, DROP, 1, 2);
    for (n, epoch, good) in [(11, 1, true), (12, 2, true), (13, 3, false)] {
        let mut message = bundle(n, epoch, &[1, 2, 5], 1);
        message.welcome = Some(welcome(vec![(twice.clone(), vec![1; 80])]));
        let result = world.commit(&alice, &message);
        if good {
            result.unwrap();
        } else {
            refused(result, Code::AddressInvalid);
        }
        // Pruning forgets no use while the token is good.
        world.maintain();
    }
}

#[test]
fn addresses_outlive_their_key_being_offered_but_not_its_expiry() {
    let (mut world, _, _) = group();
    let before = world.store.read(|read| world.service.get_server_info(read, world.now)).unwrap();
    let expires = NOW.plus_ms(200 * DAY_MS);
    let address = world.seal(&DropToken::mint(&DROP, INBOX, [1; 16], 5, expires));
    for (days, good) in [(8, true), (90, true), (98, false)] {
        world.now = NOW.plus_ms(days * DAY_MS);
        world.maintain();
        let now = world.store.read(|read| world.service.get_server_info(read, world.now)).unwrap();
        assert_ne!(now.address_key, before.address_key, "the key rotated");
        let epoch = world.epoch();
        let alice = world.open(1, 0, &[1]).unwrap();
        let mut message = bundle(u8::try_from(days).unwrap(), epoch, &[1, 2], 1);
        message.welcome = Some(welcome(vec![(address.clone(), vec![1; 80])]));
        let result = world.commit(&alice, &message);
        if good { drop(result.unwrap()) } else { drop(refused(result, Code::AddressInvalid)) }
    }
}

impl World {
    fn epoch(&mut self) -> u64 {
        let session = self.open(1, 0, &[1]).unwrap();
        self.group_info(&session).unwrap().epoch
    }
}

/// A bundle with a tree: its chunks that are new, and those that are gone.
fn with_tree(n: u8, epoch: u64, added: &[Hash], dropped: &[Hash], whole: bool) -> v1::SubmitBundleRequest {
    let mut message = bundle(n, epoch, &[1, 2], 1);
    message.tree = added[0].to_vec();
    message.tree_added = added.iter().map(Hash::to_vec).collect();
    message.tree_dropped = dropped.iter().map(Hash::to_vec).collect();
    message.tree_whole = whole;
    message
}

fn is_there(world: &mut World, hash: &Hash) -> bool {
    let read = v1::ReadBlobRequest { hash: hash.to_vec(), offset: 0 };
    world.store.read(|r| world.service.read_blob(r, &read)).is_ok()
}

#[test]
fn a_tree_must_be_staged_and_named_and_of_the_epoch_before() {
    let (mut world, alice, _) = group();
    let [top, leaf, other] = [b"top".as_slice(), b"leaf", b"other"].map(|chunk| world.stage(&alice, chunk));
    let mut unstaged = with_tree(11, 1, &[Hash::new([9; 32])], &[], true);
    refused(world.commit(&alice, &unstaged), Code::BlobUnknown);
    unstaged.tree = vec![9; 31];
    refused(world.commit(&alice, &unstaged), Code::Malformed);
    let mut nameless = with_tree(11, 1, &[top, leaf], &[], true);
    nameless.tree = other.to_vec();
    refused(world.commit(&alice, &nameless), Code::Malformed);
    nameless.tree.clear();
    refused(world.commit(&alice, &nameless), Code::Malformed);
    // There is no tree of the epoch that ends.
    refused(world.commit(&alice, &with_tree(11, 1, &[top, leaf], &[], false)), Code::TreeIncomplete);
    world.commit(&alice, &with_tree(11, 1, &[top, leaf], &[], true)).unwrap();
    assert_eq!(world.group_info(&alice).unwrap().tree, top.to_vec());
    world.commit(&alice, &bundle(12, 2, &[1, 2], 1)).unwrap();
    assert_eq!(world.group_info(&alice).unwrap().tree, Vec::<u8>::new());
    refused(world.commit(&alice, &with_tree(13, 3, &[other], &[], false)), Code::TreeIncomplete);
}

#[test]
fn chunks_stay_as_long_as_the_tree_has_them_and_an_invitation_lasts_longer() {
    let (mut world, alice, _) = group();
    let [top, leaf, other] = [b"top".as_slice(), b"leaf", b"other"].map(|chunk| world.stage(&alice, chunk));
    world.commit(&alice, &with_tree(11, 1, &[top, leaf], &[], true)).unwrap();
    // What is dropped twice, or was never there, changes nothing.
    world.commit(&alice, &with_tree(12, 2, &[other], &[top, top, Hash::new([7; 32])], false)).unwrap();
    world.now = NOW.plus_ms(limits::INVITATION_MS - 1);
    world.maintain();
    assert!(is_there(&mut world, &top), "who was invited with it may still come");
    world.now = NOW.plus_ms(limits::INVITATION_MS);
    world.maintain();
    assert!(!is_there(&mut world, &top));
    assert!(is_there(&mut world, &leaf) && is_there(&mut world, &other));
    let alice = world.open(1, 0, &[1]).unwrap();
    world.commit(&alice, &with_tree(13, 3, &[other, leaf], &[], true)).unwrap();
    world.now = NOW.plus_ms(5 * limits::INVITATION_MS);
    world.maintain();
    assert!(is_there(&mut world, &leaf) && is_there(&mut world, &other), "taken over by the whole tree");
}

#[test]
fn oversized_and_impossible_bundles_are_refused() {
    let (mut world, alice, bob) = group();
    let good = || bundle(11, 1, &[1, 2], 1);
    let with = |change: &dyn Fn(&mut v1::SubmitBundleRequest)| {
        let mut message = good();
        change(&mut message);
        message
    };
    let address = world.address(INBOX, DROP, 1, 1);
    let big = Entry::commit(
        Epoch(1),
        CommitHeader { committer: channel_key(&key(1)), removed: 0, members: 1, key_root: tree(&[1]).root() },
        Body::Inline(vec![0; 10]),
    );
    let mut big = big.to_bytes().unwrap();
    big.resize(limits::INLINE_BODY + 2000, 0);
    for (message, code) in [
        (with(&|m| m.group_info = vec![0; limits::GROUP_INFO + 1]), Code::TooLarge),
        (with(&|m| m.join_key = vec![0; 31]), Code::Malformed),
        (with(&|m| m.joiners = vec![0; 31]), Code::Malformed),
        (with(&|m| m.joiners = vec![0; 32]), Code::Malformed),
        (
            with(&|m| {
                m.welcome = Some(welcome(vec![(address.clone(), vec![])]));
                m.joiners = vec![0; 32];
            }),
            Code::BlobUnknown,
        ),
        (with(&|m| m.base_seq = 2), Code::EntryInvalid),
        (with(&|m| m.entry.clone_from(&big)), Code::TooLarge),
        (with(&|m| m.idempotency_key = vec![0; 15]), Code::Malformed),
        (with(&|m| m.welcome = Some(welcome(vec![(vec![], vec![]); limits::WELCOMES_PER_BUNDLE + 1]))), Code::TooLarge),
        (
            with(&|m| {
                let mut bundle = welcome(vec![(address.clone(), vec![])]);
                bundle.encrypted_group_info = vec![0; limits::INLINE_BODY];
                m.welcome = Some(bundle);
            }),
            Code::TooLarge,
        ),
        (
            with(&|m| {
                let mut bundle = welcome(vec![]);
                bundle.cipher_suite = 65_536;
                m.welcome = Some(bundle);
            }),
            Code::Malformed,
        ),
    ] {
        refused(world.commit(&alice, &message), code);
    }
    // Bob may not open to others what he may not read himself.
    world.commit(&alice, &bundle(12, 1, &[1, 2], 1)).unwrap();
    let late = world.open(2, 2, &[1, 2]).unwrap();
    refused(world.commit(&late, &bundle(13, 2, &[1, 2], 0)), Code::EntryInvalid);
    world.commit(&bob, &bundle(13, 2, &[1, 2], 0)).unwrap();
}

#[test]
fn epoch_0_has_no_group_info() {
    let mut world = World::new();
    world.create(GROUP, 1).unwrap();
    let alice = world.open(1, 0, &[1]).unwrap();
    let served = world.group_info(&alice).unwrap();
    assert!(served.epoch == 0 && served.group_info.is_empty() && served.tree.is_empty());
}

#[test]
fn no_stored_row_names_both_a_client_or_its_inbox_and_a_group() {
    let (mut world, alice, _) = group();
    let address = world.address(INBOX, DROP, 1, 1);
    let mut message = bundle(11, 1, &[1, 2, 5], 1);
    message.welcome = Some(welcome(vec![(address, vec![1; 80])]));
    world.commit(&alice, &message).unwrap();
    let rows = world.store.read(|read| read.outbox(10).unwrap());
    assert_eq!(rows.len(), 1);
    let names = |bytes: &[u8], id: &ChannelId| bytes.windows(16).any(|window| window == id.as_bytes());
    assert!(names(&rows[0].payload, &INBOX) && !names(&rows[0].payload, &GROUP));
    // What a submission leaves for its repetition names neither the channel nor the key that submitted.
    let everything = format!("{:?}", world.store);
    let remembered = everything.split("idempotency:").nth(1).unwrap().split("blobs:").next().unwrap();
    assert!(remembered.contains("reply"));
    for name in [GROUP.to_vec(), key(1).verifying_key().to_bytes().to_vec()] {
        let hex = ChannelId::try_from(&name[..16]).unwrap().to_string();
        assert!(!remembered.contains(&format!("{name:?}")) && !remembered.contains(&hex));
    }
    let secret = world.store.read(|read| read.server_secret()).unwrap().unwrap();
    for secret in [DROP, secret] {
        assert!(!everything.contains(&format!("{secret:?}")), "Debug shows no secret");
    }
}
