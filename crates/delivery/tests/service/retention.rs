//! How long channels keep what was ordered, and what readers who come too late are told.

use std::collections::BTreeMap;

use conclave_channel::{Body, Entry, EntryKind, law::SETTLED_MS};
use conclave_delivery::{Config, Retention, StreamEnd, limits::Limits};
use conclave_names::{ChannelId, Epoch, limits};
use conclave_protocol::{Code, Refusal, Retry, method, v1};
use proptest::prelude::*;

use super::world::*;

const INBOX: ChannelId = ChannelId::new([7; 16]);
const DROP: [u8; 32] = [3; 32];

fn keeping(age_days: Option<u64>, bytes: Option<u64>) -> World {
    let retention = Retention { age_ms: age_days.map(|days| days * DAY_MS), bytes };
    let mut world = World::with(&Config { retention, limits: Limits::none(), ..Config::default() });
    world.create(GROUP, 1).unwrap();
    world
}

fn attach(world: &mut World, session: &Session, after: u64) -> Result<conclave_delivery::Attached, Refusal> {
    let request = session.request(method::ATTACH, &v1::AttachRequest { handle: vec![1; 16], after });
    world.store.read(|read| world.service.attach(read, &request, world.now))
}

/// Sends a message of so many bytes.
fn say(world: &mut World, session: &Session, n: u8, epoch: u64, bytes: usize) -> u64 {
    let body = Body::Inline(vec![n; bytes]);
    let entry = Entry::new(EntryKind::Message, Epoch(epoch), body).to_bytes().unwrap();
    world.submit(session, &submission(n, entry)).unwrap().reply.seq
}

#[test]
fn what_is_too_old_goes_and_the_rest_goes_on_as_it_was() {
    let mut world = keeping(Some(10), None);
    for n in 1..=3 {
        let session = world.open(1, 0, &[1]).unwrap();
        say(&mut world, &session, n, 0, 256);
        world.now = world.now.plus_ms(DAY_MS);
    }
    let session = world.open(1, 0, &[1]).unwrap();
    let before = world.fetch(&session, 0).unwrap();
    assert_eq!((before.oldest, before.head), (1, 3));
    world.now = NOW.plus_ms(11 * DAY_MS);
    world.maintain();
    let session = world.open(1, 0, &[1]).unwrap();
    let log = world.fetch(&session, 2).unwrap();
    assert_eq!((log.oldest, log.head, log.entries.len()), (3, 3, 1));
    for after in [0, 1] {
        let refusal = refused(world.fetch(&session, after), Code::PositionGone);
        assert_eq!((refusal.number("oldest"), refusal.retry()), (Some(3), Retry::AfterUpdate));
        assert!(refusal.message.contains("be let in by a member"), "it names the remedy: {refusal}");
        assert_eq!(refused(attach(&mut world, &session, after), Code::PositionGone).number("oldest"), Some(3));
    }
    attach(&mut world, &session, 2).unwrap();
    // Numbers and running hash go on.
    let reply = world.submit(&session, &submission(9, entry(EntryKind::Message, 0, b"on"))).unwrap().reply;
    assert_eq!(reply.seq, 4);
    let mut all = before.entries;
    all.extend(world.fetch(&session, 3).unwrap().entries);
    assert_eq!(chain_of(&GROUP, &all).to_vec(), reply.chain);
    // Also when nothing is left at all.
    world.now = NOW.plus_ms(100 * DAY_MS);
    world.maintain();
    let session = world.open(1, 0, &[1]).unwrap();
    assert_eq!((session.head, world.fetch(&session, 4).unwrap().oldest), (4, 5));
    assert_eq!(refused(world.fetch(&session, 3), Code::PositionGone).number("oldest"), Some(5));
    assert_eq!(world.send(&session, 10, 0).unwrap(), 5);
    assert_eq!(world.seqs(&session, 4), [5]);
}

#[test]
fn while_a_channel_is_too_large_its_oldest_go() {
    let mut world = keeping(None, Some(10_000));
    let session = world.open(1, 0, &[1]).unwrap();
    for n in 1..=20 {
        say(&mut world, &session, n, 0, 1000);
    }
    world.maintain();
    let log = world.fetch(&session, 19).unwrap();
    assert_eq!(log.head, 20);
    let kept: usize = world.fetch(&session, log.oldest - 1).unwrap().entries.iter().map(|one| one.entry.len()).sum();
    assert!(kept <= 10_000 && kept + 1100 > 10_000, "{kept}");
    // A blob counts for the channel whose entry names it, and goes with it.
    let blob = vec![9; 9_000];
    let hash = world.stage(&session, &blob);
    let staged = Entry::new(EntryKind::Message, Epoch(0), Body::Staged { hash, size: 9_000 });
    let seq = world.submit(&session, &submission(30, staged.to_bytes().unwrap())).unwrap().reply.seq;
    world.maintain();
    let log = world.fetch(&session, seq - 1).unwrap();
    assert_eq!(log.oldest, seq, "what came before the blob had to go");
    say(&mut world, &session, 31, 0, 2000);
    world.maintain();
    assert_eq!(world.fetch(&session, seq).unwrap().oldest, seq + 1);
    let read = v1::ReadBlobRequest { hash: hash.to_vec(), offset: 0 };
    assert!(world.store.read(|r| world.service.read_blob(r, &read)).is_ok(), "for who is reading it");
    world.now = NOW.plus_ms(DAY_MS);
    world.maintain();
    refused(world.store.read(|r| world.service.read_blob(r, &read)), Code::BlobUnknown);
}

#[test]
fn one_step_deletes_some_and_the_steps_end() {
    let mut world = keeping(Some(1), None);
    let session = world.open(1, 0, &[1]).unwrap();
    for n in 0..1200_u64 {
        let entry = entry(EntryKind::Message, 0, &n.to_be_bytes());
        let key = u128::from(n).to_be_bytes().to_vec();
        world.submit(&session, &v1::SubmitRequest { idempotency_key: key, entry }).unwrap();
    }
    world.now = NOW.plus_ms(DAY_MS);
    let mut counts = Vec::new();
    loop {
        let done = world.store.write(|tx| world.service.maintain(tx, world.now)).unwrap();
        let limit = conclave_delivery::store::RangeLimit { entries: 5000, bytes: usize::MAX };
        counts.push(world.store.read(|r| r.entries(&GROUP, conclave_names::Seq(0), None, limit)).unwrap().len());
        if !done.reply {
            break;
        }
    }
    assert_eq!(counts.last(), Some(&0));
    assert!(counts[0] > 0 && counts.is_sorted_by(|a, b| a >= b), "{counts:?}");
    assert!(counts.windows(2).all(|two| two[0] - two[1] <= 512), "{counts:?}");
}

#[test]
fn every_channel_has_its_turn() {
    let mut world = keeping(Some(1), None);
    let ids: Vec<_> = (0..1300_u16)
        .map(|n| ChannelId::new([n.to_be_bytes(), [9; 2]].concat().repeat(4).try_into().unwrap()))
        .collect();
    let mut sessions = Vec::new();
    for id in &ids {
        world.create(*id, 1).unwrap();
        let session = world.open_with(1, &open_request(*id, 1, 0, &[1])).unwrap();
        world.send(&session, 1, 0).unwrap();
        sessions.push(session);
    }
    world.now = NOW.plus_ms(DAY_MS);
    assert!(world.maintain() >= 3, "not all in one transaction");
    for id in &ids {
        assert_eq!(world.store.read(|read| read.oldest(id)).unwrap(), None);
    }
}

#[test]
fn a_commit_that_is_not_settled_stays_with_what_follows_it() {
    let mut world = keeping(None, Some(500));
    let alice = world.open(1, 0, &[1]).unwrap();
    // Who is alone has nobody to dispute it: settled at once.
    world.commit(&alice, &bundle(1, 0, &[1, 2], 0)).unwrap();
    let bob = world.open(2, 1, &[1, 2]).unwrap();
    say(&mut world, &bob, 2, 1, 400);
    world.commit(&bob, &bundle(3, 1, &[1, 2], 2)).unwrap();
    say(&mut world, &bob, 4, 2, 4000);
    world.maintain();
    assert_eq!(world.fetch(&bob, 3).unwrap().oldest, 3, "the open commit stays, whatever its size");
    // Some time later it can no longer be disputed.
    world.now = NOW.plus_ms(SETTLED_MS + 1);
    world.maintain();
    let bob = world.open(2, 2, &[1, 2]).unwrap();
    assert_eq!(world.fetch(&bob, 4).unwrap().oldest, 5);
    // What comes next finds the group as it was.
    world.commit(&bob, &bundle(5, 2, &[1, 2], 4)).unwrap();
    assert_eq!(world.group_info(&bob).unwrap().epoch, 3);
}

#[test]
fn who_was_removed_reads_no_more_when_the_removal_is_gone() {
    let mut world = keeping(Some(10), None);
    let alice = world.open(1, 0, &[1]).unwrap();
    world.commit(&alice, &bundle(1, 0, &[1, 2, 3], 0)).unwrap();
    let (bob, carol) = (world.open(2, 1, &[1, 2, 3]).unwrap(), world.open(3, 1, &[1, 2, 3]).unwrap());
    say(&mut world, &bob, 2, 1, 256);
    world.commit(&alice, &bundle_of(3, 1, &[1, 2], 2, true)).unwrap();
    world.now = NOW.plus_ms(9 * DAY_MS);
    let alice = world.open(1, 2, &[1, 2]).unwrap();
    say(&mut world, &alice, 4, 2, 256);
    world.now = NOW.plus_ms(11 * DAY_MS);
    let alice = world.open(1, 2, &[1, 2]).unwrap();
    say(&mut world, &alice, 5, 2, 256);
    world.maintain();
    assert_eq!(world.fetch(&alice, 3).unwrap().entries.len(), 2);

    // Carol was removed at 3. She learns that she is late, and nothing of what came after.
    drop((bob, carol));
    let carol = world.open(3, 1, &[1, 2, 3]).unwrap();
    assert_eq!(carol.head, 3);
    let refusal = refused(world.fetch(&carol, 1), Code::PositionGone);
    assert_eq!(refusal.number("oldest"), Some(4), "as if nothing had come after her removal");
    let log = world.fetch(&carol, 3).unwrap();
    assert_eq!((log.entries.len(), log.head, log.oldest), (0, 3, 4));
    refused(world.send(&carol, 6, 2), Code::AccessRefused);
    refused(world.group_info(&carol), Code::AccessRefused);
    // Bob is still a member, but came too late with his old key: he is told so, and reads with his new one.
    let bob = world.open(2, 1, &[1, 2, 3]).unwrap();
    refused(world.fetch(&bob, 2), Code::PositionGone);
    let bob = world.open(2, 2, &[1, 2]).unwrap();
    assert_eq!(world.seqs(&bob, 3), [4, 5]);
}

#[test]
fn a_slow_stream_that_retention_overtakes_is_told() {
    let mut world = keeping(Some(10), None);
    let session = world.open(1, 0, &[1]).unwrap();
    for n in 1..=3 {
        say(&mut world, &session, n, 0, 256);
    }
    let attached = attach(&mut world, &session, 1).unwrap();
    world.now = NOW.plus_ms(10 * DAY_MS);
    let batch = |world: &mut World, after| {
        world.store.read(|read| world.service.stream_batch(read, &attached.subscription, after)).unwrap()
    };
    assert_eq!(batch(&mut world, attached.after).entries.len(), 2);
    world.maintain();
    let late = batch(&mut world, attached.after);
    assert_eq!((late.entries.len(), late.ended, late.more), (0, Some(StreamEnd::PositionGone), false));
    assert_eq!(StreamEnd::PositionGone.as_str(), Code::PositionGone.as_str());
    let through = batch(&mut world, conclave_names::Seq(3));
    assert_eq!((through.entries.len(), through.ended), (0, None));
}

#[test]
fn keys_of_long_spent_epochs_are_strangers() {
    let mut world = keeping(Some(1), None);
    let alice = world.open(1, 0, &[1]).unwrap();
    for epoch in 0..1100_u64 {
        let mut message = bundle(1, epoch, &[1], epoch);
        message.idempotency_key = u128::from(epoch).to_be_bytes().to_vec();
        world.commit(&alice, &message).unwrap();
    }
    world.now = NOW.plus_ms(2 * DAY_MS);
    world.maintain();
    let forgotten = 1099 - limits::SPENT_EPOCHS;
    refused(world.open(1, forgotten - 1, &[1]), Code::AccessRefused);
    for epoch in [forgotten, 1099, 1100] {
        let session = world.open(1, epoch, &[1]).unwrap();
        assert_eq!(world.fetch(&session, 1100).unwrap().entries.len(), 0);
        refused(world.fetch(&session, 0), Code::PositionGone);
        // A loser is still told who won, as long as that is known.
        if epoch < 1100 {
            let refusal = refused(world.commit(&session, &bundle(2, epoch, &[1], 1100)), Code::EpochConflict);
            assert_eq!((refusal.number("epoch"), refusal.number("winner")), (Some(1100), Some(epoch + 1)));
        }
    }
}

#[test]
fn an_invitation_waits_thirty_days_and_the_inbox_goes_on() {
    let mut world = keeping(None, None);
    world.create_inbox(INBOX, 5, DROP).unwrap();
    let alice = world.open(1, 0, &[1]).unwrap();
    let invite = |world: &mut World, alice: &Session, n: u8| {
        let address = world.address(INBOX, DROP, n, 1);
        let mut message = bundle(n + 1, n.into(), &[1], n.into());
        message.welcome = Some(welcome(vec![(address, vec![n; 80])]));
        world.commit(alice, &message).unwrap();
        world.deliver();
    };
    invite(&mut world, &alice, 0);
    world.now = NOW.plus_ms(DAY_MS);
    let alice = world.open(1, 1, &[1]).unwrap();
    invite(&mut world, &alice, 1);
    world.now = NOW.plus_ms(limits::INVITATION_MS);
    world.maintain();
    let owner = world.open_inbox(5, INBOX).unwrap();
    let log = world.fetch(&owner, 0).unwrap();
    assert_eq!((log.entries.len(), log.oldest, log.head), (1, 2, 2), "no error: an inbox is no log to be read whole");
    attach(&mut world, &owner, 0).unwrap();
    let request = owner.request(method::TRIM, &v1::TrimRequest { up_to: 2 });
    world.store.write(|tx| world.service.trim(tx, &request, world.now)).unwrap();
    assert_eq!(world.fetch(&owner, 0).unwrap().oldest, 3);
    assert_eq!(world.store.read(|read| read.channel(&INBOX)).unwrap().unwrap().bytes, 0);
    // The group's channel keeps everything, as it was told to.
    let alice = world.open(1, 1, &[1]).unwrap();
    assert_eq!(world.seqs(&alice, 0), [1, 2]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever is sent and kept: readers get what follows their place without a gap, or are told that they are late.
    #[test]
    fn no_reader_is_skipped_in_silence(
        age in prop::option::of(1..20_u64),
        bytes in prop::option::of(500..20_000_u64),
        steps in prop::collection::vec((0..4_u8, 0..2000_usize, 0..5_u64), 1..60),
    ) {
        let mut world = keeping(age, bytes);
        let mut session = world.open(1, 0, &[1]).unwrap();
        let mut epoch = 0;
        let mut sent = BTreeMap::new();
        let mut head = 0;
        for (n, (what, size, days)) in (1..=u8::MAX).zip(steps) {
            match what {
                0 | 1 => head = say(&mut world, &session, n, epoch, size),
                2 => {
                    let base = head;
                    head = world.commit(&session, &bundle_of(n, epoch, &[1], base, size % 2 == 0)).unwrap().reply.seq;
                    epoch += 1;
                }
                _ => {
                    world.maintain();
                }
            }
            world.now = world.now.plus_ms(days * DAY_MS);
            session = world.open(1, epoch, &[1]).unwrap();
            let base = world.store.read(|read| read.epoch(&GROUP, Epoch(epoch))).unwrap().unwrap().base.0;
            for after in 0..=head {
                match world.fetch(&session, after) {
                    Ok(page) => {
                        let start = after.max(base);
                        let seqs: Vec<_> = page.entries.iter().map(|one| one.seq).collect();
                        prop_assert_eq!(&seqs, &(start + 1..=head).collect::<Vec<_>>());
                        prop_assert!(start + 1 >= page.oldest);
                        for one in page.entries {
                            prop_assert_eq!(sent.entry(one.seq).or_insert_with(|| one.entry.clone()), &one.entry);
                        }
                    }
                    Err(refusal) => {
                        prop_assert_eq!(refusal.code, Code::PositionGone);
                        prop_assert!(refusal.number("oldest").unwrap() > after.max(base) + 1);
                    }
                }
            }
            let row = world.store.read(|read| read.channel(&GROUP)).unwrap().unwrap();
            let limit = conclave_delivery::store::RangeLimit { entries: 1000, bytes: usize::MAX };
            let kept = world.store.read(|r| r.entries(&GROUP, conclave_names::Seq(0), None, limit)).unwrap();
            prop_assert_eq!(row.bytes, kept.iter().map(|one| one.bytes.len() as u64).sum::<u64>());
            if what == 3 {
                prop_assert!(bytes.is_none_or(|most| row.bytes <= most));
            }
        }
    }
}
