//! Inboxes.

use conclave_channel::EntryKind;
use conclave_names::ChannelId;
use conclave_protocol::{Code, method, v1};

use super::world::*;

const INBOX: ChannelId = ChannelId::new([7; 16]);
const DROP: [u8; 32] = [3; 32];

fn trim(world: &mut World, session: &Session, up_to: u64) -> Result<(), conclave_protocol::Refusal> {
    let request = session.request(method::TRIM, &v1::TrimRequest { up_to });
    world.store.write(|tx| world.service.trim(tx, &request, world.now)).map(drop)
}

#[test]
fn its_owner_reads_and_trims_and_numbers_go_on() {
    let mut world = World::new();
    world.create_inbox(INBOX, 5, DROP).unwrap();
    world.create(GROUP, 1).unwrap();
    let alice = world.open(1, 0, &[1]).unwrap();
    for n in 0..3 {
        let address = world.address(INBOX, DROP, n, 1);
        let mut message = bundle(n + 1, n.into(), &[1], n.into());
        message.welcome = Some(welcome(vec![(address, vec![n; 80])]));
        world.commit(&alice, &message).unwrap();
    }
    assert_eq!(world.deliver(), [INBOX]);
    let owner = world.open_inbox(5, INBOX).unwrap();
    assert_eq!(owner.head, 3);
    let log = world.fetch(&owner, 0).unwrap();
    chain_of(&INBOX, &log.entries);
    trim(&mut world, &owner, 2).unwrap();
    trim(&mut world, &owner, 2).unwrap();
    trim(&mut world, &owner, 1).unwrap();
    assert_eq!(world.seqs(&owner, 0), [3]);
    refused(trim(&mut world, &owner, 4), Code::Malformed);
    let address = world.address(INBOX, DROP, 9, 1);
    let mut message = bundle(9, 3, &[1], 3);
    message.welcome = Some(welcome(vec![(address, vec![9; 80])]));
    world.commit(&alice, &message).unwrap();
    world.deliver();
    assert_eq!(world.seqs(&owner, 0), [3, 4]);
    refused(trim(&mut world, &alice, 1), Code::AccessRefused);
}

#[test]
fn nobody_writes_into_an_inbox_by_a_session() {
    let mut world = World::new();
    world.create_inbox(INBOX, 5, DROP).unwrap();
    let owner = world.open_inbox(5, INBOX).unwrap();
    refused(world.send(&owner, 1, 0), Code::AccessRefused);
    refused(world.commit(&owner, &bundle(1, 0, &[1], 0)), Code::AccessRefused);
    refused(world.submit(&owner, &submission(1, entry(EntryKind::Welcome, 0, b"w"))), Code::EntryInvalid);
    refused(world.group_info(&owner), Code::AccessRefused);
    let stage = owner.request(method::STAGE_BLOB, &v1::StageBlobRequest::default());
    refused(world.store.write(|tx| world.service.stage_blob(tx, &stage, world.now)), Code::AccessRefused);
    assert_eq!(world.fetch(&owner, 0).unwrap().head, 0);
}
