//! What was missed, asked for and told by people who break the rules.

use conclave_channel::Entry;
use conclave_mls::gap::{GAP_ANSWER, GAP_REQUEST, GapRequest};
use conclave_names::{Epoch, limits};

use super::*;
use crate::{group::GapAsked, outcome::Outcome};

/// Sends an application message of this media type, whatever is in it. Gives its place.
fn send_raw(world: &mut World, person: &mut Person, media_type: &str, content: &[u8]) -> Seq {
    person.sync(&world.ds);
    let prepared = person.group().prepare_message(media_type, content).unwrap();
    person.save();
    world.ds.put(Entry::parse(&prepared.entry).unwrap())
}

fn request(person: &Person, first: u64, last: u64) -> Vec<u8> {
    let provider = suite(person.group.as_ref().unwrap().mls.cipher_suite()).unwrap();
    let (_, public) = provider.kem_generate().unwrap();
    GapRequest::new(Seq(first), Seq(last), public).to_bytes().unwrap()
}

/// What a member knows that may answer.
fn asked(person: &mut Person) -> GapAsked {
    person.group().gap_requests().next().unwrap()
}

/// An item that passes, but for what is done to it.
fn item(person: &Person, seq: u64, text: &str) -> GapItem {
    let room = person.group.as_ref().unwrap().profile().room.clone();
    let salt = random(&suite(person.group.as_ref().unwrap().mls.cipher_suite()).unwrap()).unwrap();
    let content = Content::text(text, salt).unwrap().to_bytes();
    let sender: ClientUri = "mimi://example.com/d/carol/laptop".parse().unwrap();
    let id = MessageId::of(sender.user(), &room, &content, &salt);
    GapItem { seq: Seq(seq), time: Timestamp(1_750_000_000_000), sender, id, content }
}

fn answer(person: &Person, to: &GapAsked, part: (u16, u16), items: &[GapItem]) -> Vec<u8> {
    let provider = suite(person.group.as_ref().unwrap().mls.cipher_suite()).unwrap();
    let (teller, group_id) = (person.account.client.clone(), person.group.as_ref().unwrap().mls.group_id().to_vec());
    let context = GapContext { group_id: &group_id, teller: &teller, request: to.request };
    let key = to.key.clone().into();
    GapAnswer::seal(&provider, context, &key, part, items).unwrap().to_bytes().unwrap()
}

/// Has Bob read it. Says why he did not believe it, if he did not.
fn read(world: &World, person: &mut Person) -> Option<String> {
    person.sync(&world.ds).events.into_iter().find_map(|event| match event {
        Event::Refused { reason, .. } => Some(reason),
        _ => None,
    })
}

#[test]
fn who_lost_nothing_is_not_heard() {
    let mut world = World::new();
    let mut people = trio(&mut world);
    let [alice, bob, carol] = &mut people;
    alice.say("one");
    alice.drive_now(&mut world);
    let all = request(bob, 1, 100);
    send_raw(&mut world, bob, GAP_REQUEST, &all);
    for member in [alice, carol] {
        let done = member.sync(&world.ds);
        assert!(done.outcomes.iter().all(|(_, outcome)| *outcome == Outcome::Applied), "{done:?}");
        assert!(member.group().gap_requests().next().is_none() && member.group().fill_due().is_none());
        let now = world.ds.now();
        assert!(matches!(fill(member, bob, now), Err(FillError::NotEntitled(_))));
    }
}

#[test]
fn what_does_not_decode_is_refused_and_a_flood_is_one_request() {
    let (mut world, mut people) = back();
    let [alice, bob, _] = &mut people;
    let good = request(bob, 1, 100);
    for bad in [&[][..], &[2], &[9; 50], &good[..good.len() - 1], &[0; 2000]] {
        for media_type in [GAP_REQUEST, GAP_ANSWER] {
            send_raw(&mut world, bob, media_type, bad);
        }
    }
    let done = alice.sync(&world.ds);
    assert_eq!(done.outcomes.len(), 10);
    assert!(done.outcomes.iter().all(|(_, outcome)| *outcome == Outcome::Rejected(Rejection::Content)));
    let size = |alice: &Person| alice.store.rows.values().map(Vec::len).max();
    let before = size(alice);
    for _ in 0..50 {
        let one = request(bob, 1, 1000);
        send_raw(&mut world, bob, GAP_REQUEST, &one);
    }
    alice.sync(&world.ds);
    let is_one = |key: &[u8]| key.windows(9).any(|window| window == b"replaced/");
    assert_eq!(alice.store.rows.keys().filter(|(_, key)| is_one(key)).count(), 1);
    assert!(size(alice) <= before.map(|before| before + 2048));
    let all: Vec<_> = alice.group().gap_requests().collect();
    assert_eq!((all.len(), all[0].request), (1, Seq(world.ds.entries.len() as u64)), "the last counts");
    let replaced = alice.group().ledger.settled();
    assert!(all[0].last < all[0].request && replaced < Epoch(100));
    let now = world.ds.now();
    tend(alice, GapFill::Ask, now);
    let one = request(bob, 1, 1000);
    send_raw(&mut world, bob, GAP_REQUEST, &one);
    alice.sync(&world.ds);
    tend(alice, GapFill::Ask, now);
    assert_eq!(requested(alice).len(), 1, "told of once");
    // However much is asked for: nothing of after the return.
    alice.say("after");
    alice.drive_now(&mut world);
    let last = asked(alice).last;
    let given = fill(alice, bob, now).unwrap();
    assert_eq!(given.messages, 4, "with the one that he has: he has asked for it");
    assert!(last < asked_at(bob));
    // And once.
    let one = request(bob, 1, 1000);
    send_raw(&mut world, bob, GAP_REQUEST, &one);
    alice.sync(&world.ds);
    assert!(alice.group().gap_requests().next().is_none());
    assert!(matches!(fill(alice, bob, now), Err(FillError::Answered(_))));
}

fn asked_at(person: &mut Person) -> Seq {
    requests_at(person)[0]
}

#[test]
fn what_a_teller_makes_up_is_held_against_what_is_known() {
    let (mut world, mut people) = back();
    let [alice, bob, _] = &mut people;
    let asked = asked(alice);
    let (first, last) = (asked.first.0, asked.last.0);
    let good = item(alice, first, "good");
    let with = |change: &dyn Fn(&mut GapItem)| {
        let mut changed = good.clone();
        change(&mut changed);
        vec![changed]
    };
    let own = bob.account.client.clone();
    let room = bob.group().profile().room.clone();
    let later = world.ds.now().plus_ms(3_600_000);
    let cases: Vec<(&str, Vec<GapItem>)> = vec![
        ("none that was missed", with(&|item| item.seq = Seq(first - 1))),
        ("none that was missed", with(&|item| item.seq = Seq(last + 1))),
        ("none that was missed", with(&|item| item.seq = Seq(u64::MAX))),
        ("time to come", with(&|item| item.time = later)),
        ("time to come", with(&|item| item.time = Timestamp(u64::MAX))),
        ("another name", with(&|item| item.id = MessageId::new([1; 32]))),
        ("another name", with(&|item| item.sender = "mimi://example.com/d/mallory/laptop".parse().unwrap())),
        (
            "this client's own",
            with(&|item| {
                item.sender = own.clone();
                let content = Content::parse(&item.content).unwrap();
                item.id = MessageId::of(own.user(), &room, &item.content, &content.salt);
            }),
        ),
        ("draft-ietf-mimi-content", with(&|item| item.content = vec![7; 100])),
        ("draft-ietf-mimi-content", with(&|item| item.content.truncate(20))),
        ("in order", vec![item(alice, last, "late"), item(alice, first, "early")]),
        ("in order", vec![item(alice, first, "two at"), item(alice, first, "one place")]),
        ("between one message", Vec::new()),
    ];
    for (why, items) in cases {
        // One that would pass comes with it, and does not count either.
        for with_good in [false, true] {
            let mut items = items.clone();
            if with_good && items.len() == 1 && items[0].seq != Seq(first - 1) {
                items[0].seq = items[0].seq.max(Seq(first + 1));
                items.insert(0, item(alice, first, "rides along"));
            }
            let bytes = answer(alice, &asked, (0, 1), &items);
            send_raw(&mut world, alice, GAP_ANSWER, &bytes);
            let reason = read(&world, bob).unwrap();
            assert!(reason.contains(why), "{why}: {reason}");
            assert!(told(bob).is_empty() && bob.group().gap().is_some());
        }
    }
    // Not sealed to his key, or for another place; cut or changed.
    let elsewhere = GapAsked { key: alice_key(alice), ..asked.clone() };
    let bytes = answer(alice, &elsewhere, (0, 1), std::slice::from_ref(&good));
    send_raw(&mut world, alice, GAP_ANSWER, &bytes);
    assert!(read(&world, bob).unwrap().contains("does not open"));
    let elsewhere = GapAsked { request: Seq(2), ..asked.clone() };
    let bytes = answer(alice, &elsewhere, (0, 1), std::slice::from_ref(&good));
    send_raw(&mut world, alice, GAP_ANSWER, &bytes);
    assert_eq!(read(&world, bob), None, "it is no request of his");
    // A long message is one that no content may be.
    let mut long = good.clone();
    long.content = vec![7; limits::INLINE_BODY - 5000];
    let bytes = answer(alice, &asked, (0, 1), &[long]);
    send_raw(&mut world, alice, GAP_ANSWER, &bytes);
    assert!(read(&world, bob).is_some());
    assert!(told(bob).is_empty() && gap_rows(bob) == 1);
    bob.restart();
    // After all that, the truth is still heard.
    let now = world.ds.now();
    fill(alice, bob, now).unwrap();
    alice.drive_now(&mut world);
    bob.sync(&world.ds);
    assert_eq!(told(bob).len(), 3);
}

fn alice_key(alice: &mut Person) -> Vec<u8> {
    suite(alice.group().mls.cipher_suite()).unwrap().kem_generate().unwrap().1.to_vec()
}

#[test]
fn of_two_tellers_the_first_word_counts_and_each_has_one_at_a_place() {
    let (mut world, mut people) = back();
    let [alice, bob, carol] = &mut people;
    let asked = asked(alice);
    let (first, last) = (asked.first.0, asked.last.0);
    let same = item(alice, first, "as both have it");
    let (hers, theirs) = (item(alice, last, "as Alice has it"), item(alice, last, "as Carol has it"));
    // Alice has more to say: her answer is not complete.
    let part = answer(alice, &asked, (0, 2), &[same.clone(), hers.clone()]);
    send_raw(&mut world, alice, GAP_ANSWER, &part);
    assert_eq!(read(&world, bob), None);
    bob.restart();
    // The same part again says nothing, and neither does Alice's word from Carol's mouth, or another split.
    let again = answer(alice, &asked, (0, 2), &[item(alice, first, "something else")]);
    send_raw(&mut world, alice, GAP_ANSWER, &again);
    assert_eq!(read(&world, bob), None);
    send_raw(&mut world, carol, GAP_ANSWER, &part);
    assert!(read(&world, bob).unwrap().contains("does not open"));
    let other = answer(alice, &asked, (1, 3), &[item(alice, first + 1, "of three")]);
    send_raw(&mut world, alice, GAP_ANSWER, &other);
    assert!(read(&world, bob).unwrap().contains("two answers"));
    let twice = answer(alice, &asked, (1, 2), &[item(alice, last, "at the same place")]);
    send_raw(&mut world, alice, GAP_ANSWER, &twice);
    assert!(read(&world, bob).unwrap().contains("the same places"));
    let expected = vec![pair("as both have it", "alice"), pair("as Alice has it", "alice")];
    assert_eq!(told(bob), expected);
    // Carol's is complete: what Alice said stays hers, and what Carol says otherwise is there, too.
    let complete = answer(carol, &asked, (0, 1), &[same, theirs]);
    send_raw(&mut world, carol, GAP_ANSWER, &complete);
    assert_eq!(read(&world, bob), None);
    let mut all = told(bob);
    all.sort();
    let mut both = [expected, vec![pair("as Carol has it", "carol")]].concat();
    both.sort();
    assert_eq!(all, both);
    let news = |event: &Event| matches!(event, Event::GapFilled { messages: 1, complete: true, .. });
    assert!(bob.events.iter().any(news));
    // What comes later is not opened.
    let late = answer(alice, &asked, (1, 2), &[item(alice, first + 1, "too late")]);
    send_raw(&mut world, alice, GAP_ANSWER, &late);
    assert_eq!(read(&world, bob), None);
    assert_eq!(told(bob).len(), 3);
    assert_eq!(gap_rows(bob), 0);
}

#[test]
fn what_he_has_is_not_told_twice() {
    let (mut world, mut people) = back();
    let [alice, bob, _] = &mut people;
    let asked = asked(alice);
    // What he read before has a name that he knows, wherever it is said to stand.
    let known = bob.store.messages.iter().find(|row| row.kind == KIND_MESSAGE).unwrap().clone();
    let sender = known.sender.parse().unwrap();
    let id = MessageId::new(known.id);
    let item = GapItem { seq: asked.first, time: Timestamp(known.time_ms), sender, id, content: known.body };
    let bytes = answer(alice, &asked, (0, 1), &[item]);
    send_raw(&mut world, alice, GAP_ANSWER, &bytes);
    assert_eq!(read(&world, bob), None);
    assert!(told(bob).is_empty());
    assert!(bob.events.iter().any(|event| matches!(event, Event::GapFilled { messages: 0, complete: true, .. })));
}

/// Two stretches are asked for as one: what is told of the places between them is passed over, true or not.
#[test]
fn nothing_is_told_of_what_he_could_read() {
    let (mut world, mut people) = back();
    let [alice, bob, _] = &mut people;
    let places: Vec<_> = history(alice).into_iter().filter(|(_, text, _)| text != "before").collect();
    let one = |text: &str| Seq(places.iter().find(|(_, of, _)| of == text).unwrap().0);
    let span = |seq: Seq| Span { first: seq, last: Some(seq) };
    bob.group().gaps.own.as_mut().unwrap().spans = vec![span(one("one")), span(one("three"))];
    bob.group().save_gap();
    bob.save();
    bob.restart();
    let (now, asked) = (world.ds.now(), asked(alice));
    assert!(asked.first <= one("one") && asked.last >= one("three"));
    fill(alice, bob, now).unwrap();
    alice.drive_now(&mut world);
    assert_eq!(read(&world, bob), None);
    assert_eq!(told(bob), [pair("one", "alice"), pair("three", "alice")]);
    assert!(bob.group().gap().is_none());
}

#[test]
fn a_teller_fills_many_parts_and_leaves_out_the_oldest() {
    let (mut world, mut people) = back();
    let [alice, bob, _] = &mut people;
    let (first, last) = {
        let asked = asked(alice);
        (asked.first, asked.last)
    };
    // Her history has far more than an answer may have, at places that Bob has asked for.
    let name = alice.group().name().to_string();
    bob.group().gaps.own.as_mut().unwrap().spans = vec![Span { first, last: Some(Seq(100_000)) }];
    alice.group().gaps.replaced.widen(&bob.account.client, Seq(100_000));
    alice.store.messages.retain(|row| row.seq < first.0 || row.seq > last.0);
    let text = "x".repeat(1000);
    for seq in 0..2500 {
        let made = item(alice, 1000 + seq, &format!("{seq} {text}"));
        alice.store.messages.push(StoredMessage {
            group: name.clone(),
            seq: made.seq.0,
            epoch: 2,
            id: *made.id.as_bytes(),
            sender: made.sender.to_string(),
            time_ms: made.time.0,
            kind: KIND_MESSAGE,
            body: made.content,
        });
    }
    let now = world.ds.now();
    let given = fill(alice, bob, now).unwrap();
    assert!(given.messages > 1500 && given.messages + given.left_out == 2500, "{given:?}");
    let parts = alice.group().intents().count();
    assert!(parts > 20 && parts <= usize::from(GAP_PARTS));
    alice.drive_now(&mut world);
    // Each is an entry without a blob.
    assert!(world.ds.after(Seq(0)).iter().all(|incoming| incoming.entry.len() <= limits::INLINE_BODY + 64));
    // He dies in the middle of it.
    let half = Seq(world.ds.entries.len() as u64 - 10);
    let batch: Vec<_> = world.ds.after(bob.group().position().seq).into_iter().filter(|one| one.seq <= half).collect();
    bob.group().process(&batch);
    bob.save();
    bob.restart();
    assert!(bob.group().gap().is_some());
    bob.sync(&world.ds);
    let all = told(bob);
    assert_eq!(all.len() as u64, given.messages);
    assert!(all[0].0.starts_with(&given.left_out.to_string()), "the oldest are left out");
    assert!(bob.group().gap().is_none() && gap_rows(bob) == 0);
}
