//! Random sequences of operations, against what must always hold.

use std::collections::BTreeMap;

use conclave_channel::{Entry, EntryKind};
use conclave_protocol::Code;
use proptest::prelude::*;

use super::world::*;

#[derive(Debug, Clone)]
enum Operation {
    Message { member: u8, behind: u64 },
    Proposal { member: u8, behind: u64 },
    Commit { member: u8, behind: u64, removes: bool },
    Again,
    Wait { ms: u64, back: bool },
    Maintain,
    Full,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (1..4u8, 0..3u64).prop_map(|(member, behind)| Operation::Message { member, behind }),
        2 => (1..4u8, 0..2u64).prop_map(|(member, behind)| Operation::Proposal { member, behind }),
        4 => (1..4u8, 0..2u64, any::<bool>())
            .prop_map(|(member, behind, removes)| Operation::Commit { member, behind, removes }),
        1 => Just(Operation::Again),
        1 => (0..500_000u64, any::<bool>()).prop_map(|(ms, back)| Operation::Wait { ms, back }),
        1 => Just(Operation::Maintain),
        1 => Just(Operation::Full),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_log_is_whole_and_each_epoch_ends_once(operations in prop::collection::vec(operation(), 1..60)) {
        let mut world = World::new();
        world.create(GROUP, 1).unwrap();
        let first = world.open(1, 0, &[1]).unwrap();
        world.commit(&first, &bundle(255, 0, &[1, 2, 3], 0)).unwrap();
        // All commits keep the members 1, 2, 3; "removes" ends the access of older keys all the same.
        let (mut epoch, mut head, mut last) = (1_u64, 1_u64, None);
        let mut ended_by = BTreeMap::from([(0, 1)]);
        let mut chain = None;
        for (n, operation) in operations.into_iter().enumerate() {
            let n = u8::try_from(n).unwrap();
            match operation {
                Operation::Message { member, behind } | Operation::Proposal { member, behind } => {
                    let kind = match operation {
                        Operation::Message { .. } => EntryKind::Message,
                        _ => EntryKind::Proposal,
                    };
                    let session = world.open(member, epoch, &[1, 2, 3]).unwrap();
                    let of = epoch.saturating_sub(behind);
                    let good = of == epoch || (kind == EntryKind::Message && of + 1 == epoch);
                    let message = submission(n, entry(kind, of, &[n]));
                    match world.submit(&session, &message) {
                        Ok(done) => {
                            prop_assert!(good);
                            head += 1;
                            prop_assert_eq!(done.reply.seq, head);
                            chain = Some(done.reply.chain.clone());
                            last = Some((member, message, done.reply));
                        }
                        Err(refusal) => prop_assert!(!good && refusal.code == Code::EpochStale),
                    }
                }
                Operation::Commit { member, behind, removes } => {
                    let session = world.open(member, epoch, &[1, 2, 3]).unwrap();
                    let of = epoch.saturating_sub(behind);
                    match world.commit(&session, &bundle_of(n, of, &[1, 2, 3], head, removes)) {
                        Ok(done) => {
                            prop_assert_eq!(of, epoch);
                            head += 1;
                            prop_assert_eq!(done.reply.seq, head);
                            prop_assert!(ended_by.insert(of, head).is_none());
                            chain = Some(done.reply.chain);
                            epoch += 1;
                        }
                        Err(refusal) => {
                            prop_assert_eq!(refusal.code, Code::EpochConflict);
                            prop_assert_eq!(refusal.number("epoch"), Some(epoch));
                            prop_assert_eq!(refusal.number("winner"), ended_by.get(&of).copied());
                        }
                    }
                }
                Operation::Again => {
                    if let Some((member, message, reply)) = &last {
                        let session = world.open(*member, epoch, &[1, 2, 3]).unwrap();
                        prop_assert_eq!(&world.submit(&session, message).unwrap().reply, reply);
                    }
                }
                Operation::Wait { ms, back: false } => world.now = world.now.plus_ms(ms),
                Operation::Wait { ms, back: true } => world.now.0 -= ms,
                Operation::Maintain => {
                    world.maintain();
                }
                Operation::Full => {
                    let session = world.open(1, epoch, &[1, 2, 3]).unwrap();
                    world.store.set_full(true);
                    refused(world.send(&session, n, epoch), Code::StorageFull);
                    refused(world.commit(&session, &bundle(n, epoch, &[1], head)), Code::StorageFull);
                    world.store.set_full(false);
                }
            }
        }
        // What every reader finds, whatever it was.
        let session = world.open(1, 0, &[1]).unwrap();
        let all = world.fetch(&session, 0).unwrap();
        let mut log = all.entries;
        if all.head < head {
            prop_assert!(Entry::parse(&log.last().unwrap().entry).unwrap().removes());
            let now = world.store.read(|read| {
                let limit = conclave_delivery::store::RangeLimit { entries: 1000, bytes: usize::MAX };
                read.entries(&GROUP, conclave_names::Seq(all.head), None, limit).unwrap()
            });
            log.extend(now.into_iter().map(|row| conclave_protocol::v1::LoggedEntry {
                seq: row.seq.0, time_ms: row.time.0, entry: row.bytes,
            }));
        }
        prop_assert_eq!(log.len() as u64, head);
        prop_assert!(log.is_sorted_by_key(|entry| entry.time_ms));
        if let Some(chain) = chain {
            prop_assert_eq!(chain_of(&GROUP, &log).to_vec(), chain);
        }
        let mut commits = log.iter().map(|logged| (Entry::parse(&logged.entry).unwrap(), logged.seq))
            .filter(|(entry, _)| entry.kind == EntryKind::Commit)
            .map(|(entry, seq)| (entry.epoch.0, seq));
        prop_assert!(commits.by_ref().eq(ended_by));
    }
}
