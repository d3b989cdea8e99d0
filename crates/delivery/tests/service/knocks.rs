//! Knocks: what a stranger may post into an inbox, and how often.

use conclave_channel::{Body, Entry, EntryKind, size_class};
use conclave_mls::{address::DropToken, knock::KNOCK_MAX};
use conclave_names::ChannelId;
use conclave_protocol::{Code, Refusal, method, v1};

use super::world::*;

const INBOX: ChannelId = ChannelId::new([7; 16]);
const DROP: [u8; 32] = [3; 32];

fn request(n: u8, address: Vec<u8>, knock: Vec<u8>) -> v1::KnockRequest {
    v1::KnockRequest { idempotency_key: vec![n; 16], domain: "example.com".to_owned(), address, knock }
}

/// Signed by a key that nobody knows.
fn knock(world: &mut World, signer: u8, message: &v1::KnockRequest) -> Result<Vec<ChannelId>, Refusal> {
    let request = world.sign(&key(signer), method::KNOCK, message);
    Ok(world.store.write(|tx| world.service.knock(tx, &request, world.now))?.wake)
}

fn inbox() -> World {
    let mut world = World::new();
    world.create_inbox(INBOX, 5, DROP).unwrap();
    world
}

fn posted(world: &mut World) -> Vec<Vec<u8>> {
    let owner = world.open_inbox(5, INBOX).unwrap();
    let entries = world.fetch(&owner, 0).unwrap().entries.into_iter();
    entries
        .map(|logged| {
            let entry = Entry::parse(&logged.entry).unwrap();
            assert_eq!(entry.kind, EntryKind::Knock);
            let Body::Inline(padded) = entry.body else { panic!("inline") };
            assert_eq!(size_class::class(padded.len()), padded.len(), "padded to a class");
            size_class::unpad(padded).unwrap()
        })
        .collect()
}

#[test]
fn an_address_admits_as_many_as_it_says_whoever_signs() {
    let mut world = inbox();
    let address = world.address(INBOX, DROP, 1, 2);
    let first = request(1, address.clone(), b"let me in".to_vec());
    assert_eq!(knock(&mut world, 50, &first).unwrap(), [INBOX], "its owner's streams wake");
    // The reply was lost: the same again takes effect once.
    assert_eq!(knock(&mut world, 50, &first).unwrap(), [], "nothing new");
    let other = request(1, address.clone(), b"and now".to_vec());
    refused(knock(&mut world, 50, &other), Code::IdempotencyMismatch);
    knock(&mut world, 51, &other).unwrap();
    refused(knock(&mut world, 52, &request(2, address, b"again".to_vec())), Code::AddressInvalid);
    assert_eq!(posted(&mut world), [b"let me in".to_vec(), b"and now".to_vec()]);
}

#[test]
fn a_stranger_learns_nothing_and_posts_nothing() {
    let mut world = inbox();
    let good = world.address(INBOX, DROP, 1, 1);
    let absent = world.address(ChannelId::new([8; 16]), DROP, 1, 1);
    let forged = world.address(INBOX, [4; 32], 1, 1);
    let answer = |refusal: Refusal| refusal.message;
    let nobody = answer(refused(knock(&mut world, 50, &request(1, absent, vec![1])), Code::AddressInvalid));
    let minted = answer(refused(knock(&mut world, 50, &request(2, forged, vec![1])), Code::AddressInvalid));
    let noise = answer(refused(knock(&mut world, 50, &request(3, vec![1; 90], vec![1])), Code::AddressInvalid));
    assert!(nobody == minted && minted == noise, "whether there is such an inbox is not told");
    let expired = world.seal(&DropToken::mint(&DROP, INBOX, [9; 16], 1, world.now));
    refused(knock(&mut world, 50, &request(4, expired, vec![1])), Code::AddressInvalid);
    let elsewhere = v1::KnockRequest { domain: "example.org".into(), ..request(5, good.clone(), vec![1]) };
    refused(knock(&mut world, 50, &elsewhere), Code::AddressInvalid);
    let long = request(6, good.clone(), vec![1; KNOCK_MAX + 1]);
    refused(knock(&mut world, 50, &long), Code::TooLarge);
    refused(knock(&mut world, 50, &v1::KnockRequest { idempotency_key: vec![1], ..long }), Code::Malformed);
    assert!(posted(&mut world).is_empty());
    // None of that used the address up.
    knock(&mut world, 50, &request(7, good, vec![1; KNOCK_MAX])).unwrap();
    assert_eq!(posted(&mut world), [vec![1; KNOCK_MAX]]);
}

#[test]
fn no_group_takes_one() {
    let mut world = World::new();
    world.create(GROUP, 1).unwrap();
    let alice = world.open(1, 0, &[1]).unwrap();
    refused(world.submit(&alice, &submission(1, entry(EntryKind::Knock, 0, b"k"))), Code::EntryInvalid);
    assert!(world.seqs(&alice, 0).is_empty());
}
