//! What was missed and is told, among people who keep to the rules.

use conclave_channel::law::DISPUTE_MS;
use conclave_mls::{
    content::{Content, MessageId},
    gap::{GapAnswer, GapContext, GapItem},
};
use conclave_names::{Seq, Timestamp};

use super::*;
use crate::{
    group::{
        FillError, GAP_TURN_MS, GapFill, GapGiven, KIND_MESSAGE, RejoinError,
        process::audit_tests::common::{Person, Store, World, agree, false_nack, group_of, knock, trio},
    },
    mls_client::random,
    outcome::Event,
};

#[path = "gap_hostile_tests.rs"]
mod hostile;

type Never = std::convert::Infallible;

/// The history as the client's store pages it.
fn page(store: &Store) -> impl FnMut(u64, usize) -> Result<Vec<StoredMessage>, Never> + '_ {
    move |after, limit| {
        let mut rows: Vec<_> = store.messages.iter().filter(|row| row.seq > after).cloned().collect();
        rows.sort_by_key(|row| (row.seq, row.id));
        let last = rows.get(limit.saturating_sub(1)).map_or(u64::MAX, |row| row.seq);
        rows.retain(|row| row.seq <= last);
        Ok(rows)
    }
}

/// As the client's shell does it, before it submits.
fn tend(person: &mut Person, choice: GapFill, now: Timestamp) {
    let (group, store, events) = (person.group.as_mut().unwrap(), &person.store, &mut person.events);
    let Ok(()) = group.tend_gaps(choice, now, page(store), events);
    person.save();
}

fn fill(person: &mut Person, asker: &Person, now: Timestamp) -> Result<GapGiven, FillError<Never>> {
    let (group, store, events) = (person.group.as_mut().unwrap(), &person.store, &mut person.events);
    let given = group.fill_gap(&asker.account.client, now, page(store), events);
    person.save();
    given
}

/// What a history has of messages: place, text, and whose word it is if it was told.
fn history(person: &Person) -> Vec<(u64, String, Option<String>)> {
    let text = |content: &[u8]| Content::parse(content).unwrap().as_text().unwrap();
    let mut all: Vec<_> = person
        .store
        .messages
        .iter()
        .filter_map(|row| match row.kind {
            KIND_MESSAGE => Some((row.seq, text(&row.body), None)),
            KIND_TOLD => {
                let told = Told::parse(&row.body).unwrap();
                Some((row.seq, text(&told.content), Some(told.teller.user().name().to_owned())))
            }
            _ => None,
        })
        .collect();
    all.sort();
    all
}

fn told(person: &Person) -> Vec<(String, String)> {
    history(person).into_iter().filter_map(|(_, text, teller)| Some((text, teller?))).collect()
}

fn requested(person: &Person) -> Vec<u64> {
    let messages = |event: &Event| match event {
        Event::GapRequested { messages, .. } => Some(*messages),
        _ => None,
    };
    person.events.iter().filter_map(messages).collect()
}

fn filled(person: &Person) -> usize {
    person.events.iter().filter(|event| matches!(event, Event::GapFilled { complete: true, .. })).count()
}

fn pair(text: &str, teller: &str) -> (String, String) {
    (text.to_owned(), teller.to_owned())
}

/// What Bob would read next is gone.
fn lock_out(person: &mut Person) {
    person.group().position_gone(None, &mut Vec::new());
    person.save();
    assert!(person.group().wants_rejoin());
}

/// As the client's shell comes back.
fn come_back(world: &mut World, person: &mut Person) {
    for _ in 0..4 {
        match person.begin_rejoin(world, false) {
            Err(RejoinError::ReadOn | RejoinError::Epoch { .. }) => drop(person.sync(&world.ds)),
            other => {
                other.unwrap();
                person.drive_now(world);
                return;
            }
        }
    }
    panic!("it goes round and round: {:?}", person.group());
}

/// Alice, Bob and Carol have talked; Bob has missed three messages and two commits, came back, and has asked.
fn back() -> (World, [Person; 3]) {
    let (mut world, mut people) = missed();
    come_back(&mut world, &mut people[1]);
    for person in &mut people {
        person.sync(&world.ds);
    }
    (world, people)
}

fn missed() -> (World, [Person; 3]) {
    let mut world = World::new();
    let mut people = trio(&mut world);
    let [alice, bob, carol] = &mut people;
    alice.say("before");
    alice.drive_now(&mut world);
    bob.sync(&world.ds);
    alice.say("one");
    alice.wish(Wish::Update);
    alice.drive_now(&mut world);
    carol.say("two");
    carol.drive_now(&mut world);
    alice.wish(Wish::Update);
    alice.say("three");
    alice.drive_now(&mut world);
    carol.sync(&world.ds);
    lock_out(bob);
    (world, people)
}

/// The private key that Bob has asked with.
fn secret(person: &mut Person) -> Vec<u8> {
    person.group().gaps.own.as_ref().unwrap().key.as_ref().unwrap().secret.to_vec()
}

fn holds(store: &Store, secret: &[u8]) -> bool {
    store.rows.values().any(|value| value.windows(secret.len()).any(|window| window == secret))
}

fn gap_rows(person: &Person) -> usize {
    let is_one = |key: &[u8]| key.windows(4).any(|window| window == b"\0gap");
    person.store.rows.keys().filter(|(_, key)| is_one(key)).count()
}

#[test]
fn what_was_missed_is_told_by_a_member_that_is_asked() {
    let (mut world, mut people) = back();
    let [alice, bob, carol] = &mut people;
    assert_eq!(*bob.group().status(), Status::Active);
    let secret = secret(bob);
    assert!(holds(&bob.store, &secret), "or this test would show nothing");
    let now = world.ds.now();
    assert!(alice.group().due(now).is_some_and(|due| due <= now), "her shell is called");
    tend(alice, GapFill::Ask, now);
    tend(alice, GapFill::Ask, now);
    assert_eq!(requested(alice), [3], "once");
    assert!(alice.group().fill_due().is_none());
    let (first, last) = bob.group().gap().unwrap();
    let asked: Vec<_> = alice.group().gap_requests().collect();
    assert_eq!((asked[0].first, asked[0].last, &asked[0].member), (first, last, &bob.account.client));
    assert!(told(bob).is_empty(), "it is her choice");

    assert_eq!(fill(alice, bob, now).unwrap(), GapGiven { messages: 3, left_out: 0 });
    assert!(alice.group().gap_requests().next().is_none());
    alice.drive_now(&mut world);
    bob.sync(&world.ds);
    let expected = [pair("one", "alice"), pair("two", "alice"), pair("three", "alice")];
    assert_eq!(told(bob), expected);
    // In their places, and with their senders and times.
    let theirs = |person: &Person, kind| -> Vec<_> {
        let rows = person.store.messages.iter().filter(|row| row.kind == kind);
        let mut rows: Vec<_> = rows.map(|row| (row.seq, row.id, row.sender.clone(), row.time_ms)).collect();
        rows.sort();
        rows
    };
    let hers = theirs(alice, KIND_MESSAGE);
    assert!(theirs(bob, KIND_TOLD).iter().all(|row| hers.contains(row)));
    assert_eq!(filled(bob), 1);
    let messages = |event: &Event| matches!(event, Event::GapFilled { messages: 3, complete: true, .. });
    assert!(bob.events.iter().any(messages));
    assert!(!bob.texts().contains(&"one".to_owned()), "they are no messages like others");
    assert!(bob.group().gap().is_none() && !holds(&bob.store, &secret) && gap_rows(bob) == 0);
    // Carol read nothing, was told of nothing, and her history shows nothing.
    carol.sync(&world.ds);
    let shown = carol.store.messages.iter().map(|row| String::from_utf8_lossy(&row.body).into_owned());
    assert!(!shown.into_iter().any(|body| body.contains("gap")));
    assert!(told(carol).is_empty());
    // It is answered once. Bob asks no more.
    assert!(matches!(fill(alice, bob, now), Err(FillError::Answered(_))));
    assert!(bob.group().gap_due().is_none());
    for person in [&mut *alice, &mut *bob, &mut *carol] {
        person.say("and on it goes");
        person.drive_now(&mut world);
    }
    for person in &mut people {
        person.sync(&world.ds);
    }
    let [alice, bob, carol] = &mut people;
    agree(&mut [alice, bob, carol]);
}

/// Erin is removed meanwhile, so that a member has to let him in.
fn let_in() -> (World, Person, Person, Person) {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol, mut erin] = ["alice", "bob", "carol", "erin"].map(|name| world.person(name));
    group_of(&mut world, &mut [&mut alice, &mut bob, &mut carol, &mut erin]);
    bob.sync(&world.ds);
    alice.say("one");
    alice.drive_now(&mut world);
    alice.wish(Wish::Remove { users: vec![erin.user()] });
    alice.drive_now(&mut world);
    carol.say("two");
    carol.drive_now(&mut world);
    alice.sync(&world.ds);
    lock_out(&mut bob);
    knock(&world, &mut bob, &mut alice).unwrap();
    // Said after he was last heard of, before he is in.
    carol.say("three");
    carol.drive_now(&mut world);
    alice.drive_now(&mut world);
    bob.join(&world);
    (world, alice, bob, carol)
}

#[test]
fn who_was_let_in_by_a_member_is_told_too() {
    let (mut world, mut alice, mut bob, mut carol) = let_in();
    assert!(bob.group().gap().is_none(), "its end is not known yet");
    bob.restart();
    bob.drive_now(&mut world);
    assert!(bob.group().gap().is_some());
    carol.sync(&world.ds);
    let now = world.ds.now();
    tend(&mut carol, GapFill::Ask, now);
    assert_eq!(requested(&carol), [3]);
    fill(&mut carol, &bob, now).unwrap();
    carol.drive_now(&mut world);
    bob.sync(&world.ds);
    assert_eq!(told(&bob), [pair("one", "carol"), pair("two", "carol"), pair("three", "carol")]);
    alice.sync(&world.ds);
    // Alice is told of nothing, as it is done.
    tend(&mut alice, GapFill::Ask, now);
    assert!(requested(&alice).is_empty() && alice.group().fill_due().is_none());
}

#[test]
fn a_crash_between_any_two_steps_changes_nothing() {
    let (mut world, mut people) = missed();
    let [alice, bob, _] = &mut people;
    let step = |person: &mut Person, world: &mut World| {
        person.restart();
        person.sync(&world.ds);
        let now = world.ds.now().plus_ms(60_000);
        let next = person.group().next_submission(now, &mut Vec::new()).unwrap();
        person.save();
        // The reply is lost, and so is what is only in memory.
        person.restart();
        if let Some(submission) = &next {
            world.ds.submit(submission).unwrap();
        }
        next.is_some()
    };
    for _ in 0..4 {
        if !matches!(bob.begin_rejoin(&world, false), Err(RejoinError::ReadOn)) {
            break;
        }
        bob.sync(&world.ds);
    }
    while step(bob, &mut world) {}
    assert!(bob.group().gap().is_some());
    alice.restart();
    alice.sync(&world.ds);
    alice.restart();
    let now = world.ds.now();
    tend(alice, GapFill::Ask, now);
    alice.restart();
    tend(alice, GapFill::Ask, now);
    assert_eq!(requested(alice), [3]);
    fill(alice, bob, now).unwrap();
    while step(alice, &mut world) {}
    bob.restart();
    bob.sync(&world.ds);
    assert_eq!(told(bob).len(), 3);
    bob.restart();
    assert!(bob.group().gap().is_none() && gap_rows(bob) == 0);
    alice.restart();
    assert!(matches!(fill(alice, bob, now), Err(FillError::Answered(_))));
}

#[test]
fn who_never_tells_hears_nothing_and_of_those_who_always_do_only_one_answers() {
    let (mut world, mut people) = back();
    let [alice, bob, carol] = &mut people;
    let now = world.ds.now();
    // Alice does not, and is not bothered; but she may, if she wants to.
    tend(alice, GapFill::Never, now);
    assert!(requested(alice).is_empty() && alice.group().fill_due().is_none());
    assert_eq!(alice.group().gap_requests().count(), 1);
    // Carol always does, in her turn.
    tend(carol, GapFill::Always, now);
    let turn = carol.group().fill_due().unwrap();
    assert_eq!(turn, now.plus_ms(2 * GAP_TURN_MS), "two stand before her");
    assert!(carol.group().due(now).unwrap() <= turn);
    tend(carol, GapFill::Always, now);
    assert!(carol.group().intents().next().is_none());
    carol.restart();
    tend(carol, GapFill::Always, turn);
    carol.drive_now(&mut world);
    bob.sync(&world.ds);
    assert_eq!(told(bob).len(), 3);
    assert!(carol.events.iter().any(|event| matches!(event, Event::GapAnswered { messages: 3, .. })));
    assert!(requested(carol).is_empty() && carol.group().fill_due().is_none());

    // Both always do: who sees the other's answer has nothing left to do.
    let (mut world, mut people) = back();
    let [alice, bob, carol] = &mut people;
    let now = world.ds.now();
    tend(carol, GapFill::Always, now);
    let second = carol.group().fill_due().unwrap();
    // Nobody stands before Alice.
    tend(alice, GapFill::Always, now);
    alice.drive_now(&mut world);
    carol.sync(&world.ds);
    assert!(carol.group().fill_due().is_none());
    tend(carol, GapFill::Always, second);
    let entries = world.ds.entries.len();
    carol.drive_now(&mut world);
    assert_eq!(world.ds.entries.len(), entries);
    bob.sync(&world.ds);
    assert!(told(bob).iter().all(|(_, teller)| teller == "alice"));
    // Whoever has changed his mind in between does not answer either.
    let (_, mut people) = back();
    tend(&mut people[2], GapFill::Always, now);
    let turn = people[2].group().fill_due().unwrap();
    tend(&mut people[2], GapFill::Ask, turn);
    assert!(people[2].group().intents().next().is_none() && people[2].group().fill_due().is_none());
}

#[test]
fn who_lost_its_state_asks_for_nothing() {
    // Bob's store is gone; a member lets him in, and he does not know what he had.
    let (mut world, [mut alice, mut bob, _]) = let_in_without_state();
    bob.drive_now(&mut world);
    assert!(bob.group().gap().is_none() && bob.group().gap_due().is_none());
    alice.sync(&world.ds);
    assert!(alice.group().gap_requests().next().is_none());
    let now = world.ds.now();
    assert!(matches!(fill(&mut alice, &bob, now), Err(FillError::NobodyAsked(_))));
}

fn let_in_without_state() -> (World, [Person; 3]) {
    let mut world = World::new();
    let mut people = trio(&mut world);
    let [alice, bob, carol] = &mut people;
    alice.say("one");
    alice.drive_now(&mut world);
    carol.sync(&world.ds);
    let name = bob.group().name().clone();
    bob.store = Store::default();
    bob.group = None;
    bob.restart();
    let package = bob.key_package(&world);
    // What a knock for all groups leads to.
    let leaf = alice.group().leaf_with_name(&bob.account.client);
    alice.wish(Wish::Readmit { old_leaf: leaf, key_package: package });
    alice.drive_now(&mut world);
    bob.join(&world);
    assert_eq!(*bob.group().name(), name);
    assert!(alice.events.iter().any(|event| matches!(event, Event::Readmitted { .. })));
    (world, people)
}

impl Group {
    fn leaf_with_name(&self, client: &ClientUri) -> conclave_channel::access::ChannelKey {
        let index = self.mls.member_with_identity(client.to_string().as_bytes()).unwrap().index;
        super::super::access::channel_key_at(&self.mls, index).unwrap()
    }
}

#[test]
fn a_member_that_joined_later_gives_nothing_of_before_and_who_joined_late_gets_nothing_of_before() {
    let (mut world, mut people) = missed();
    let [alice, bob, carol] = &mut people;
    let mut dave = world.person("dave");
    let package = dave.key_package(&world);
    alice.wish(Wish::Add { key_packages: vec![package] });
    alice.drive_now(&mut world);
    dave.join(&world);
    dave.sync(&world.ds);
    come_back(&mut world, bob);
    for person in [&mut *alice, &mut *carol, &mut dave] {
        person.sync(&world.ds);
    }
    let now = world.ds.now();
    tend(&mut dave, GapFill::Ask, now);
    assert!(requested(&dave).is_empty(), "he has nothing to give");
    assert!(matches!(fill(&mut dave, bob, now), Err(FillError::Nothing(_))));
    fill(alice, bob, now).unwrap();
    alice.drive_now(&mut world);
    bob.sync(&world.ds);
    assert_eq!(told(bob).len(), 3);

    // Dave loses what comes after; nobody gives him anything of before he came, though his history has a place for it.
    alice.say("four");
    alice.drive_now(&mut world);
    alice.wish(Wish::Update);
    alice.drive_now(&mut world);
    lock_out(&mut dave);
    come_back(&mut world, &mut dave);
    let request = dave.group().gaps.own.clone().unwrap();
    carol.sync(&world.ds);
    let asker = dave.account.client.clone();
    // As if he had asked for everything.
    carol.group().gaps.replaced.ask_for_all(&asker);
    let now = world.ds.now();
    assert_eq!(fill(carol, &dave, now).unwrap().messages, 1);
    carol.drive_now(&mut world);
    dave.sync(&world.ds);
    assert_eq!(told(&dave), [pair("four", "carol")]);
    assert!(request.key.is_some());
}

#[test]
fn who_is_removed_before_the_answer_gets_none() {
    let (mut world, mut people) = back();
    let [alice, bob, carol] = &mut people;
    let now = world.ds.now();
    fill(alice, bob, now).unwrap();
    assert!(alice.group().intents().next().is_some());
    carol.wish(Wish::Remove { users: vec![bob.user()] });
    carol.drive_now(&mut world);
    let entries = world.ds.entries.len();
    alice.drive_now(&mut world);
    assert_eq!(world.ds.entries.len(), entries, "nothing was sent");
    assert!(alice.group().intents().next().is_none());
    assert!(matches!(fill(alice, bob, now), Err(FillError::NoMember(_))));
    // Who is added again is not who came back.
    let package = bob.key_package(&world);
    alice.wish(Wish::Add { key_packages: vec![package] });
    alice.drive_now(&mut world);
    bob.sync(&world.ds);
    carol.sync(&world.ds);
    for member in [alice, carol] {
        assert!(member.group().gap_requests().next().is_none());
        assert!(matches!(fill(member, bob, now), Err(FillError::NotEntitled(_))));
    }
    // Of a group that he is no member of, he keeps no key.
    world.ds.ahead += conclave_channel::law::SETTLED_MS;
    let late = world.ds.now();
    let _ = bob.group().next_submission(late, &mut Vec::new()).unwrap();
    bob.save();
    assert_eq!(gap_rows(bob), 0);
}

#[test]
fn after_a_week_nobody_asks_or_answers() {
    let (mut world, mut people) = back();
    let [alice, bob, _] = &mut people;
    let secret = secret(bob);
    let asked = bob.group().gaps.own.as_ref().unwrap().since;
    let last = asked.plus_ms(GAP_MS - 1);
    assert!(bob.group().gap_due().is_some_and(|due| due == asked.plus_ms(GAP_MS)));
    bob.group().forget_old_gaps(last);
    bob.save();
    assert!(holds(&bob.store, &secret));
    // By the time alone.
    let over = bob.group().gap_due().unwrap();
    let _ = bob.group().next_submission(over, &mut Vec::new()).unwrap();
    bob.save();
    assert!(!holds(&bob.store, &secret) && gap_rows(bob) == 0 && bob.group().gap().is_none());
    bob.restart();
    assert!(bob.group().gap_due().is_none());
    world.ds.ahead += 1;
    assert!(matches!(fill(alice, bob, over.plus_ms(60_000)), Err(FillError::NotEntitled(_))));
    alice.group().forget_old_gaps(over.plus_ms(60_000));
    alice.save();
    alice.restart();
    assert!(alice.group().gap_requests().next().is_none());
}

#[test]
fn a_request_of_an_annulled_epoch_is_void_and_made_anew() {
    let (mut world, mut people) = missed();
    let [alice, bob, carol] = &mut people;
    come_back(&mut world, bob);
    alice.sync(&world.ds);
    carol.sync(&world.ds);
    let [first] = requests_at(bob)[..] else { panic!() };
    let key = secret(bob);
    // Disputed, and Bob's return, which came before, is not: he asks in an epoch that is to be void.
    bob.group().gaps.own.as_mut().unwrap().places.clear();
    bob.group().gaps.own.as_mut().unwrap().key = None;
    let access = carol.group().access().unwrap();
    alice.wish(Wish::Update);
    alice.drive_now(&mut world);
    bob.drive_now(&mut world);
    let [second] = requests_at(bob)[..] else { panic!() };
    assert!(second > first);
    alice.sync(&world.ds);
    let now = world.ds.now();
    fill(alice, bob, now).unwrap();
    false_nack(&mut world, &access);
    world.ds.ahead += DISPUTE_MS + 600_000;
    carol.say("as if nothing had been");
    carol.drive_now(&mut world);
    bob.sync(&world.ds);
    assert!(bob.events.iter().any(|event| matches!(event, Event::Annulled { .. })));
    assert!(requests_at(bob).is_empty());
    alice.drive_now(&mut world);
    assert!(alice.group().intents().next().is_none(), "the answer to what is void is of no use");
    assert!(alice.group().gap_requests().next().is_none());
    bob.restart();
    bob.drive_now(&mut world);
    assert!(requests_at(bob)[0] > second && secret(bob) != key);
    alice.sync(&world.ds);
    let now = world.ds.now();
    fill(alice, bob, now).unwrap();
    alice.drive_now(&mut world);
    bob.sync(&world.ds);
    assert!(told(bob).contains(&pair("one", "alice")));
}

/// Its epoch is void, so it is given again; who has read it all the same has it once.
#[test]
fn an_answer_of_an_annulled_epoch_is_given_again() {
    let (mut world, mut people) = back();
    let [alice, bob, carol] = &mut people;
    let access = carol.group().access().unwrap();
    alice.wish(Wish::Update);
    alice.drive_now(&mut world);
    let now = world.ds.now();
    fill(alice, bob, now).unwrap();
    alice.drive_now(&mut world);
    assert!(alice.group().intents().next().is_none(), "it was sent");
    false_nack(&mut world, &access);
    world.ds.ahead += DISPUTE_MS + 600_000;
    carol.say("as if nothing had been");
    carol.drive_now(&mut world);
    alice.restart();
    let before = world.ds.entries.len();
    alice.drive_now(&mut world);
    assert_eq!(world.ds.entries.len(), before + 1);
    assert!(alice.events.iter().any(|event| matches!(event, Event::Annulled { .. })));
    bob.sync(&world.ds);
    bob.drive_now(&mut world);
    let expected = [pair("one", "alice"), pair("two", "alice"), pair("three", "alice")];
    assert_eq!(told(bob), expected);
    assert_eq!(filled(bob), 1);
    for person in [&mut *alice, &mut *carol] {
        person.sync(&world.ds);
    }
    agree(&mut [alice, bob, carol]);
}

fn requests_at(person: &mut Person) -> Vec<Seq> {
    person.group().gaps.own.as_ref().unwrap().places.clone()
}

/// Bob's return itself is annulled: when he is back again, he asks for what he missed before the first time, too.
#[test]
fn who_is_thrown_out_again_asks_for_all_of_it_later() {
    let (mut world, mut alice, mut bob, mut carol) = let_in_twice();
    bob.drive_now(&mut world);
    for member in [&mut alice, &mut carol] {
        member.sync(&world.ds);
    }
    let now = world.ds.now();
    tend(&mut carol, GapFill::Ask, now);
    let asked: Vec<_> = carol.group().gap_requests().collect();
    assert_eq!(Some((asked[0].first, asked[0].last)), bob.group().gap());
    fill(&mut carol, &bob, now).unwrap();
    carol.drive_now(&mut world);
    bob.sync(&world.ds);
    let told: Vec<_> = told(&bob).into_iter().map(|(text, _)| text).collect();
    assert!(told.contains(&"one".to_owned()), "{told:?}");
    assert!(bob.group().gap().is_none());
}

fn let_in_twice() -> (World, Person, Person, Person) {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol, mut dave] = ["alice", "bob", "carol", "dave"].map(|name| world.person(name));
    group_of(&mut world, &mut [&mut alice, &mut bob, &mut carol, &mut dave]);
    bob.sync(&world.ds);
    alice.say("one");
    alice.drive_now(&mut world);
    for person in [&mut carol, &mut dave] {
        person.sync(&world.ds);
    }
    lock_out(&mut bob);
    let accesses = [&mut carol, &mut dave].map(|person| person.group().access().unwrap());
    knock(&world, &mut bob, &mut alice).unwrap();
    alice.drive_now(&mut world);
    bob.join(&world);
    // He asks, in an epoch that is to be void.
    bob.drive_now(&mut world);
    assert_eq!(requests_at(&mut bob).len(), 1);
    for access in &accesses {
        false_nack(&mut world, access);
    }
    world.ds.ahead += DISPUTE_MS + 600_000;
    carol.say("as if nothing had been");
    carol.drive_now(&mut world);
    alice.sync(&world.ds);
    bob.sync(&world.ds);
    assert!(bob.group().wants_rejoin(), "{:?}", bob.group().status());
    assert!(alice.group().gap_requests().next().is_none(), "neither replacement nor request is left");
    knock(&world, &mut bob, &mut alice).unwrap();
    alice.drive_now(&mut world);
    bob.join(&world);
    (world, alice, bob, carol)
}
