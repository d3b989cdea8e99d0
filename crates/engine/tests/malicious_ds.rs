//! A Delivery Service that drops, reorders, replays or shows two logs: the next message that crosses tells, and what the
//! server signed proves it (RFC 9750, sections 5.2 and 8.4.2).
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::*;
use conclave_channel::{
    Position, chain,
    law::SETTLED_MS,
    receipt::{Equivocation, Receipt, ReceiptKey},
};
use conclave_engine::{
    group::{Incoming, Processed, Status},
    intent::Wish,
    outcome::{Event, Outcome},
};
use conclave_names::{Hash, Seq, Timestamp};
use conclave_protocol::{Code, Refusal, v1::SubmitResponse};
use mls_rs_codec::MlsDecode;

/// A group, and six messages that Bob has not been shown.
fn scene() -> (World, [Person; 3]) {
    let mut world = World::new();
    let mut people = ["alice", "bob", "carol"].map(|name| world.person(name));
    let [alice, bob, carol] = &mut people;
    group_of(&mut world, &mut [alice, bob, carol]);
    for text in ["one", "two", "three"] {
        people[0].say(text);
        people[0].drive(&mut world);
        people[2].say(text);
        people[2].drive(&mut world);
    }
    people[0].sync(&world.ds);
    (world, people)
}

/// Numbers entries anew, as a server would that wants nobody to notice.
fn renumbered(first: Seq, entries: Vec<Incoming>) -> Vec<Incoming> {
    let time = entries.first().map_or(Timestamp(0), |incoming| incoming.time);
    let place = |(index, incoming): (usize, Incoming)| Incoming {
        seq: Seq(first.0 + index as u64),
        time: time.plus_ms(index as u64),
        ..incoming
    };
    entries.into_iter().enumerate().map(place).collect()
}

fn alarms(done: &Processed) -> Vec<String> {
    let alarm = |event: &Event| match event {
        Event::LogsDiffer { member, .. } => Some(member.user().name().to_owned()),
        _ => None,
    };
    done.events.iter().filter_map(alarm).collect()
}

/// Shows Bob a forged log; then Alice, who saw the true one, says something that reaches him.
fn caught(forge: impl Fn(Vec<Incoming>) -> Vec<Incoming>) -> (Processed, Processed) {
    let (mut world, [mut alice, mut bob, _]) = scene();
    let first = bob.group().position().seq.next();
    let forged = renumbered(first, forge(world.ds.after(bob.group().position().seq)));
    let before = bob.group().process(&forged);
    assert!(before.fault.is_none(), "{:?}", before.fault);
    bob.save();
    alice.say("this crosses");
    alice.drive(&mut world);
    let crossing = world.ds.after(Seq(world.ds.entries.len() as u64 - 1));
    let next = bob.group().position().seq.next();
    let time = Timestamp(bob.group().process(&[]).outcomes.len() as u64 + world.ds.now().0);
    let done = bob.group().process(&[Incoming { seq: next, time, ..crossing[0].clone() }]);
    assert!(done.fault.is_none(), "{:?}", done.fault);
    (before, done)
}

#[test]
fn an_entry_that_was_dropped_is_missed_by_the_next_that_crosses() {
    let (_, done) = caught(|mut entries| {
        entries.remove(1);
        entries
    });
    // Alice stood at a place that her own entry has for Bob, which cannot be.
    assert_eq!(alarms(&done), ["alice"]);
    let (_, later) = caught(|mut entries| {
        entries.remove(1);
        // And fills the gap, so that numbers fit.
        let last = entries.last().unwrap().clone();
        entries.push(last);
        entries
    });
    assert_eq!(alarms(&later), ["alice"]);
}

#[test]
fn entries_that_changed_places_are_noticed() {
    let (before, done) = caught(|mut entries| {
        entries.swap(0, 1);
        entries
    });
    assert!(!alarms(&before).is_empty() || !alarms(&done).is_empty());
    assert_eq!(alarms(&done), ["alice"]);
}

#[test]
fn an_entry_shown_twice_is_refused_and_noticed() {
    let (before, done) = caught(|mut entries| {
        let again = entries[0].clone();
        entries.insert(3, again);
        entries.pop();
        entries
    });
    assert!(matches!(before.outcomes[3].1, Outcome::Rejected(_)), "{:?}", before.outcomes);
    assert_eq!(alarms(&done), ["alice"]);
}

#[test]
fn two_halves_that_were_shown_two_logs_learn_of_it_by_one_message() {
    let (world, [mut alice, mut bob, mut carol]) = scene();
    // From here on Bob and Carol are in two worlds.
    bob.sync(&world.ds);
    carol.sync(&world.ds);
    let (mut left, mut right) = (Split::of(&world), Split::of(&world));
    bob.say("left");
    left.submit(&mut bob);
    carol.say("right");
    right.submit(&mut carol);
    // Alice lives in the right one, and her next message is shown in both.
    right.show(&mut alice);
    alice.say("both");
    let both = alice.group().next_submission(NOW, &mut Vec::new()).unwrap().unwrap();
    alice.save();
    left.0.ds.submit(&both).unwrap();
    let done = left.show(&mut bob);
    assert_eq!(alarms(&done), ["alice"]);
    assert!(bob.texts().contains(&"both".to_owned()), "what was said is read all the same");
    // And the other way: Bob's word reaches Alice.
    bob.say("back");
    let back = bob.group().next_submission(NOW, &mut Vec::new()).unwrap().unwrap();
    bob.save();
    right.0.ds.submit(&both).unwrap();
    right.0.ds.submit(&back).unwrap();
    assert_eq!(alarms(&right.show(&mut alice)), ["bob"]);
}

/// One of the logs of a server that shows two.
struct Split(World);

impl Split {
    fn of(world: &World) -> Self {
        let mut split = World::new();
        split.ds.channel = world.ds.channel;
        split.ds.ledger.clone_from(&world.ds.ledger);
        split.ds.entries.clone_from(&world.ds.entries);
        split.ds.blobs.clone_from(&world.ds.blobs);
        Self(split)
    }

    fn submit(&mut self, person: &mut Person) {
        person.drive(&mut self.0);
    }

    fn show(&mut self, person: &mut Person) -> Processed {
        person.sync(&self.0.ds)
    }
}

#[test]
fn where_nobody_talks_a_heartbeat_tells() {
    let (world, [mut alice, mut bob, _]) = scene();
    let (mut left, mut right) = (Split::of(&world), Split::of(&world));
    bob.say("left");
    left.submit(&mut bob);
    alice.wish(Wish::Heartbeat);
    right.submit(&mut alice);
    alice.wish(Wish::Heartbeat);
    let beat = alice.group().next_submission(NOW, &mut Vec::new()).unwrap().unwrap();
    alice.save();
    left.0.ds.submit(&beat).unwrap();
    let texts = bob.texts();
    assert_eq!(alarms(&left.show(&mut bob)), ["alice"]);
    assert_eq!(bob.texts(), texts, "people see nothing of it");
}

#[test]
fn honest_haste_raises_no_alarm() {
    let (mut world, mut people) = scene();
    // Everybody speaks before having read the others, and late entries are read in one go.
    for round in 0..5 {
        for person in &mut people {
            person.say(&format!("round {round}"));
            let submission = person.group().next_submission(NOW, &mut Vec::new()).unwrap().unwrap();
            person.save();
            world.ds.submit(&submission).unwrap();
        }
    }
    for person in &mut people {
        let done = person.sync(&world.ds);
        assert!(done.fault.is_none() && alarms(&done).is_empty(), "{:?}", done.events);
    }
    // Who joins starts from the committer's place, and believes nothing about what came before.
    let mut dave = world.person("dave");
    let package = dave.key_package(&world);
    people[0].wish(Wish::Add { key_packages: vec![package] });
    people[0].drive(&mut world);
    dave.join(&world);
    assert!(alarms(&dave.sync(&world.ds)).is_empty());
}

fn reply(seq: u64, hash: Hash, channel: conclave_names::ChannelId) -> SubmitResponse {
    let position = Position { seq: Seq(seq), hash };
    let receipt = Receipt::sign(&receipt_signer(), channel, position);
    SubmitResponse { seq, time_ms: 0, chain: hash.to_vec(), receipt: receipt.signature.0.to_vec() }
}

fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn a_receipt_binds_the_server_to_what_it_shows() {
    let (world, [_, mut bob, _]) = scene();
    let channel = world.ds.channel.unwrap();
    let position = bob.group().position();
    let next = &world.ds.after(position.seq)[0];
    let kind = conclave_channel::Entry::parse(&next.entry).unwrap().kind;
    let honest = chain::next(&position.hash, next.seq, kind, next.time, &chain::entry_hash(&next.entry));

    assert!(bob.group().accepted(&reply(next.seq.0, honest, channel)).is_empty());
    // Unsigned, or signed by somebody else.
    let mut unsigned = reply(next.seq.0, honest, channel);
    unsigned.receipt.clear();
    assert!(matches!(bob.group().accepted(&unsigned)[..], [Event::ReceiptInvalid { .. }]));
    let elsewhere = reply(next.seq.0, honest, conclave_names::ChannelId::new([9; 16]));
    assert!(matches!(bob.group().accepted(&elsewhere)[..], [Event::ReceiptInvalid { .. }]));

    // Two for one place: the proof is for anybody.
    let events = bob.group().accepted(&reply(next.seq.0, Hash::new([1; 32]), channel));
    let [Event::Equivocation { proof, .. }] = &events[..] else { panic!("{events:?}") };
    let proof = Equivocation::mls_decode(&mut from_hex(proof).as_slice()).unwrap();
    let public = ReceiptKey(receipt_signer().verifying_key().to_bytes());
    assert_eq!(proof.verify(&public), Ok(()));
    assert_eq!(bob.group().profile().receipt_key, public, "all members know the key by the GroupContext");
    bob.save();
    bob.restart();

    // What is shown is not what was signed last.
    let done = bob.sync(&world.ds);
    let broken = done.events.iter().filter(|event| matches!(event, Event::ReceiptBroken { .. })).count();
    assert_eq!(broken, 1, "{:?}", done.events);
    assert_eq!(bob.group().receipts().count(), 1);
    // And of a place that was read before.
    let late = bob.group().accepted(&reply(position.seq.0, Hash::new([2; 32]), channel));
    assert!(matches!(late[..], [Event::ReceiptBroken { .. }]));
}

/// Bob's log differs from the others' in what nobody can read any more: the server signs for theirs.
#[test]
fn what_the_server_signs_for_again_and_again_is_the_log() {
    let (mut world, [_, mut bob, _]) = scene();
    let channel = world.ds.channel.unwrap();
    bob.sync(&world.ds);
    let mut say = |bob: &mut Person, honest: bool| {
        bob.say("something");
        let submission = bob.group().next_submission(world.ds.now(), &mut Vec::new()).unwrap().unwrap();
        let seq = world.ds.submit(&submission).unwrap();
        let entry = world.ds.after(Seq(seq.0 - 1)).remove(0);
        let hash = chain::entry_hash(&entry.entry);
        let hash =
            chain::next(&bob.group().position().hash, seq, conclave_channel::EntryKind::Message, entry.time, &hash);
        let signed = if honest { hash } else { Hash::new([7; 32]) };
        bob.group().accepted(&reply(seq.0, signed, channel));
        bob.sync(&world.ds)
    };
    for honest in [false, false, true, false, false] {
        say(&mut bob, honest);
        assert_eq!(*bob.group().status(), Status::Active);
    }
    let done = say(&mut bob, false);
    assert!(done.events.iter().any(|event| matches!(event, Event::LogRewritten { .. })), "{:?}", done.events);
    assert!(bob.group().wants_rejoin());
}

#[test]
fn an_entry_of_ours_that_was_signed_for_and_is_not_shown_is_told_of_once() {
    let (mut world, [mut alice, mut bob, _]) = scene();
    let channel = world.ds.channel.unwrap();
    bob.sync(&world.ds);
    bob.say("withheld");
    let submission = bob.group().next_submission(world.ds.now(), &mut Vec::new()).unwrap().unwrap();
    bob.save();
    // The server takes it, and signs for where it will stand: nobody is shown that.
    let seq = bob.group().position().seq.next();
    assert!(bob.group().accepted(&reply(seq.0, Hash::new([3; 32]), channel)).is_empty());
    bob.sync(&world.ds);
    let events = bob.group().withheld();
    let [Event::Withheld { seq: at, receipt }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(*at, seq);
    let receipt = Receipt::mls_decode(&mut from_hex(receipt).as_slice()).unwrap();
    assert_eq!(receipt.verify(&bob.group().profile().receipt_key.clone()), Ok(()), "it can be shown to others");
    assert!(bob.group().withheld().is_empty(), "it is told once");
    let noted = |write: &conclave_engine::writes::StoredMessage| {
        String::from_utf8_lossy(&write.body).contains("withheld") && write.kind == conclave_engine::group::KIND_EVENT
    };
    bob.save();
    assert_eq!(bob.store.messages.iter().filter(|message| noted(message)).count(), 1, "and kept in the history");
    assert!(bob.group().intents().next().is_some(), "it is not taken for said");
    // What is shown in time is no cause for alarm.
    assert!(bob.group().receipts().count() == 1 && alice.group().withheld().is_empty());
    world.ds.submit(&submission).unwrap();
    let done = bob.sync(&world.ds);
    assert!(done.events.iter().any(|event| matches!(event, Event::ReceiptBroken { .. })), "it signed for another log");
    assert!(bob.group().withheld().is_empty());
    assert!(bob.group().intents().next().is_none());
}

#[test]
fn each_entry_that_is_withheld_is_told_once_whatever_comes_between() {
    let (world, [_, mut bob, _]) = scene();
    let channel = world.ds.channel.unwrap();
    let end = bob.group().position().seq.0;
    let told = |person: &mut Person| -> Vec<u64> {
        let events = person.group().withheld();
        person.save();
        let seq = |event: &Event| if let Event::Withheld { seq, .. } = event { Some(seq.0) } else { None };
        events.iter().filter_map(seq).collect()
    };
    let signed = |person: &mut Person, seq: u64| {
        assert!(person.group().accepted(&reply(seq, Hash::new([1; 32]), channel)).is_empty());
        person.save();
    };
    signed(&mut bob, end + 3);
    assert_eq!(told(&mut bob), [end + 3]);
    bob.restart();
    assert!(told(&mut bob).is_empty(), "it is told once");
    // The answer to what was said before comes later, and then nothing for a while.
    signed(&mut bob, end + 2);
    bob.restart();
    assert_eq!(told(&mut bob), [end + 2]);
    bob.restart();
    assert!(told(&mut bob).is_empty());
    // What was not made durable was not told.
    signed(&mut bob, end + 4);
    signed(&mut bob, end + 1);
    assert_eq!(bob.group().withheld().len(), 2);
    bob.restart();
    assert_eq!(told(&mut bob), [end + 1, end + 4]);
    bob.restart();
    assert!(told(&mut bob).is_empty());
    // Of more than are kept, the newest.
    for seq in end + 5..end + 105 {
        signed(&mut bob, seq);
    }
    bob.restart();
    assert_eq!(told(&mut bob), (end + 41..end + 105).collect::<Vec<_>>());
    bob.restart();
    assert!(told(&mut bob).is_empty());
}

/// Bob is not shown for more than a week what was said about Alice's commit, so time alone settles it for him; then the server shows it.
#[test]
fn what_was_hidden_until_time_had_decided_without_it_wedges_nobody() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    let before = carol.group().access().unwrap();
    alice.wish(Wish::Update);
    alice.drive_now(&mut world);
    bob.sync(&world.ds);
    assert!(bob.group().open_commits() > 0);
    false_nack(&mut world, &before);
    carol.drive_now(&mut world);
    assert_eq!(carol.group().open_commits(), 0, "she has acknowledged it, as it is disputed");

    let later = world.ds.now().plus_ms(SETTLED_MS + 3_600_000);
    bob.group().caught_up(later).unwrap();
    bob.group().next_submission(later, &mut Vec::new()).unwrap();
    assert_eq!(bob.group().open_commits(), 0, "as far as he is shown");
    bob.save();
    bob.restart();

    // It was acknowledged meanwhile: he had settled by time what the log settles, too.
    let done = bob.sync(&world.ds);
    assert!(done.fault.is_none(), "{done:?}");
    assert!(done.events.iter().any(|event| matches!(event, Event::Acknowledged { .. })), "{done:?}");
    assert_eq!(*bob.group().status(), Status::Active);
    alice.drive_now(&mut world);
    carol.drive_now(&mut world);
    bob.sync(&world.ds);
    agree(&mut [&mut alice, &mut bob, &mut carol]);
}

#[test]
fn who_is_refused_what_is_valid_reads_the_log_once_more_and_finds_that_it_was_cut() {
    for is_cut in [false, true] {
        let mut world = World::new();
        let [mut alice, _, _] = trio(&mut world);
        alice.say("soon forgotten");
        alice.drive_now(&mut world);
        let now = world.ds.now();
        alice.wish(Wish::Update);
        let update = alice.group().next_submission(now, &mut Vec::new()).unwrap().unwrap();
        alice.save();
        let end = alice.group().position().seq;
        let refusal = Refusal::new(Code::EntryInvalid, "`base_seq` lies outside of what the committer may have read");
        alice.group().refused(update.intent, &refusal, &mut Vec::new()).unwrap();
        let mut events = Vec::new();
        while let Some(after) = alice.group().wants_audit() {
            let batch = world.ds.after(after);
            let shown: Vec<_> = batch.into_iter().filter(|incoming| !is_cut || incoming.seq < end).collect();
            alice.group().audit(&shown, &mut events).unwrap();
        }
        assert_eq!(alice.group().wants_rejoin(), is_cut, "{events:?}");
        assert_eq!(events.iter().any(|event| matches!(event, Event::LogRewritten { seq } if *seq == end)), is_cut);
    }
}
