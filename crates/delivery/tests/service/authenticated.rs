//! Requests that were authenticated ahead of their transaction.

use conclave_channel::EntryKind;
use conclave_names::ChannelId;
use conclave_protocol::{Code, method, v1};

use super::world::*;

#[test]
fn what_was_authenticated_is_good_for_its_call_only_and_once() {
    let mut world = World::new();
    world.create(GROUP, 1).unwrap();
    let alice = world.open(1, 0, &[1]).unwrap();
    let message = submission(1, entry(EntryKind::Message, 0, b"one"));

    // For another call it is a request like any other: its MAC is not for that call.
    let request = alice.request(method::SUBMIT, &message);
    let request = world.service.authenticate(request, method::SUBMIT, world.now).unwrap();
    let other = world.store.write(|tx| world.service.trim(tx, &request, world.now));
    refused(other, Code::SessionUnknown);
    world.store.write(|tx| world.service.submit(tx, &request, world.now)).unwrap();

    // The counter was used when it was authenticated.
    let request = alice.request(method::SUBMIT, &message);
    world.service.authenticate(request.clone(), method::SUBMIT, world.now).unwrap();
    let again = world.service.authenticate(request.clone(), method::SUBMIT, world.now);
    refused(again, Code::RequestReplayed);
    refused(world.store.write(|tx| world.service.submit(tx, &request, world.now)), Code::RequestReplayed);

    // A forged one is none.
    let mut forged = alice.request(method::SUBMIT, &message);
    forged.body.push(0);
    refused(world.service.authenticate(forged, method::SUBMIT, world.now), Code::SessionUnknown);
}

#[test]
fn a_signed_request_is_judged_fresh_in_its_transaction() {
    let mut world = World::new();
    let message = v1::CreateInboxRequest { inbox: vec![9; 16], drop_key: vec![1; 32] };
    let request = world.sign(&key(1), method::CREATE_INBOX, &message);
    let first = world.service.authenticate(request.clone(), method::CREATE_INBOX, world.now).unwrap();
    let second = world.service.authenticate(request.clone(), method::CREATE_INBOX, world.now).unwrap();
    world.store.write(|tx| world.service.create_inbox(tx, &first, world.now)).unwrap();
    let replayed = world.store.write(|tx| world.service.create_inbox(tx, &second, world.now));
    refused(replayed, Code::RequestReplayed);

    let mut forged = world.sign(&key(1), method::CREATE_INBOX, &message);
    forged.signature[5] ^= 1;
    refused(world.service.authenticate(forged, method::CREATE_INBOX, world.now), Code::SignatureInvalid);
    let elsewhere = world.sign(&key(1), method::CREATE_CHANNEL, &message);
    refused(world.service.authenticate(elsewhere, method::CREATE_INBOX, world.now), Code::WrongAudience);
}

#[test]
fn addresses_opened_ahead_change_no_answer() {
    let mut world = World::new();
    let inbox = ChannelId::new([7; 16]);
    world.create(GROUP, 1).unwrap();
    world.create_inbox(inbox, 5, [3; 32]).unwrap();
    let alice = world.open(1, 0, &[1]).unwrap();
    let bundle = |world: &mut World, n: u8, epoch| {
        let address = world.address(inbox, [3; 32], n, 1);
        let welcome = Some(welcome(vec![(address, vec![0xAA; 80])]));
        v1::SubmitBundleRequest { welcome, ..bundle(n, epoch, &[1, 5], 0) }
    };
    let (winner, loser) = (bundle(&mut world, 1, 0), bundle(&mut world, 2, 0));
    let ahead = |world: &mut World, message: &v1::SubmitBundleRequest| {
        let request = alice.request(method::SUBMIT_BUNDLE, &committed_by(message, 1));
        let mut request = world.service.authenticate(request, method::SUBMIT_BUNDLE, world.now).unwrap();
        world.store.read(|read| world.service.open_addresses(read, &mut request, world.now)).unwrap();
        request
    };
    // The address key that opened it may be gone by the time of the transaction: then the address opens no longer.
    let request = ahead(&mut world, &winner);
    let later = world.now.plus_ms(400 * DAY_MS);
    let expired = world.store.write(|tx| world.service.submit_bundle(tx, &request, later));
    refused(expired, Code::AddressInvalid);

    let request = ahead(&mut world, &winner);
    world.store.write(|tx| world.service.submit_bundle(tx, &request, world.now)).unwrap();
    let request = ahead(&mut world, &loser);
    let lost = world.store.write(|tx| world.service.submit_bundle(tx, &request, world.now));
    refused(lost, Code::EpochConflict);
    assert_eq!(world.deliver(), [inbox]);
}
