//! What becomes of what was said and changed in epochs that are annulled.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::*;
use conclave_channel::{Entry, EntryKind, law::DISPUTE_MS};
use conclave_engine::{
    group::{Access, DONE_BYTES, DONE_MESSAGES, RejoinError, Status},
    intent::Wish,
    outcome::Event,
};
use conclave_names::{IdempotencyKey, limits};

const MINUTE: u64 = 60_000;

/// Somebody disputes the oldest open commit, and nobody answers.
fn annul(world: &mut World, disputants: &[&Access]) {
    for access in disputants {
        dispute(world, access, 0);
    }
    world.ds.ahead += DISPUTE_MS + 10 * MINUTE;
}

/// Until nothing is left to do. What fails ends a round.
fn settle(person: &mut Person, world: &mut World) {
    for _ in 0..4 {
        person.drive_now(world);
    }
}

fn change(person: &mut Person, world: &mut World, wish: Wish) -> IdempotencyKey {
    let id = person.wish(wish);
    person.drive_now(world);
    id
}

/// One asks to leave, and the other commits that.
fn leaves(person: &mut Person, other: &mut Person, world: &mut World) {
    change(person, world, Wish::Leave);
    other.drive(world);
}

fn said(person: &mut Person, world: &mut World, text: &str) {
    person.say(text);
    person.drive_now(world);
}

fn removal(person: &Person) -> Wish {
    Wish::Remove { users: vec![person.user()] }
}

fn failures(person: &Person) -> Vec<(IdempotencyKey, String)> {
    let failed = |event: &Event| match event {
        Event::IntentFailed { intent, reason } => Some((*intent, reason.clone())),
        _ => None,
    };
    person.events.iter().filter_map(failed).collect()
}

/// Messages in the log, copies included.
fn messages(world: &World) -> usize {
    let is_message = |bytes: &[u8]| Entry::parse(bytes).unwrap().kind == EntryKind::Message;
    world.ds.entries.iter().filter(|(_, entry)| is_message(entry)).count()
}

fn replays(person: &Person) -> usize {
    person.events.iter().filter(|event| matches!(event, Event::Replayed { .. })).count()
}

/// Eve is removed behind a commit that she disputes. It needs a second word to dispute a removal, but not that commit.
#[test]
fn a_removal_of_ours_is_done_again_before_what_was_said_after_it() {
    let mut world = World::new();
    let [mut alice, mut bob, mut eve] = trio(&mut world);
    let access = eve.group().access().unwrap();
    let update = change(&mut alice, &mut world, Wish::Update);
    said(&mut alice, &mut world, "Eve is still there");
    let removed = change(&mut alice, &mut world, removal(&eve));
    said(&mut alice, &mut world, "Eve is out, the code is 1234");
    alice.say("and the door is 5");
    annul(&mut world, &[&access]);
    alice.restart();
    alice.sync(&world.ds);
    alice.group().next_submission(world.ds.now(), &mut Vec::new()).unwrap();
    assert!(alice.group().is_pending(removed), "it is under way again");
    alice.save();
    alice.restart();
    assert!(alice.group().is_pending(removed), "also after a crash");
    settle(&mut alice, &mut world);
    for person in [&mut bob, &mut eve] {
        person.sync(&world.ds);
    }
    assert_eq!(bob.texts(), ["Eve is still there", "Eve is out, the code is 1234", "and the door is 5"]);
    assert_eq!(eve.texts(), ["Eve is still there"]);
    assert_eq!(*eve.group().status(), Status::Removed);
    agree(&mut [&mut alice, &mut bob]);
    assert!(!failures(&alice).iter().any(|(id, _)| *id == removed), "{:?} of {update:?}", failures(&alice));
    assert_eq!(alice.group().intents().count(), 0);
}

#[test]
fn what_was_said_after_the_removal_by_somebody_else_goes_to_nobody_who_is_back_and_its_writer_is_told() {
    let mut world = World::new();
    let [mut alice, mut bob, mut eve] = trio(&mut world);
    let access = eve.group().access().unwrap();
    change(&mut bob, &mut world, Wish::Update);
    alice.sync(&world.ds);
    said(&mut alice, &mut world, "Eve is still there");
    bob.sync(&world.ds);
    change(&mut bob, &mut world, removal(&eve));
    alice.sync(&world.ds);
    said(&mut alice, &mut world, "Eve is out, the code is 1234");
    alice.say("and the door is 5");
    alice.group().wish_text_to_all("to whoever is there").unwrap();
    annul(&mut world, &[&access]);
    settle(&mut alice, &mut world);
    settle(&mut alice, &mut world);
    let told = failures(&alice);
    let client = eve.account.client.to_string();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told.iter().all(|(_, reason)| reason.contains(&client) && reason.contains("annulled")), "{told:?}");
    assert_eq!(alice.group().intents().count(), 0);
    eve.sync(&world.ds);
    assert_eq!(*eve.group().status(), Status::Active);
    // Bob's removal is done again as he comes.
    settle(&mut bob, &mut world);
    alice.sync(&world.ds);
    said(&mut alice, &mut world, "later");
    for person in [&mut bob, &mut eve] {
        person.sync(&world.ds);
    }
    assert_eq!(*eve.group().status(), Status::Removed);
    assert_eq!(eve.texts(), ["Eve is still there"]);
    assert_eq!(bob.texts().last().unwrap(), "later");
    agree(&mut [&mut alice, &mut bob]);
}

/// Epochs are counted anew after an annulment.
#[test]
fn what_was_written_in_a_void_epoch_does_not_go_to_who_joins_in_another_of_its_number() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    let access = carol.group().access().unwrap();
    change(&mut bob, &mut world, Wish::Update);
    alice.sync(&world.ds);
    said(&mut alice, &mut world, "sent");
    alice.say("waiting");
    alice.group().wish_text_to_all("to whoever is there").unwrap();
    alice.save();
    annul(&mut world, &[&access]);
    settle(&mut bob, &mut world);
    let mut dave = world.person("dave");
    let package = dave.key_package(&world);
    change(&mut bob, &mut world, Wish::Add { key_packages: vec![package] });
    dave.join(&world);
    settle(&mut alice, &mut world);
    for person in [&mut bob, &mut carol, &mut dave] {
        person.sync(&world.ds);
    }
    assert_eq!(dave.texts(), ["to whoever is there"]);
    let told = failures(&alice);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|(_, reason)| reason.contains("joined")), "{told:?}");
    agree(&mut [&mut alice, &mut bob, &mut carol, &mut dave]);
}

#[test]
fn changes_behind_a_disputed_one_are_done_again_or_told_of() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    let access = carol.group().access().unwrap();
    let update = change(&mut alice, &mut world, Wish::Update);
    let mut dave = world.person("dave");
    let package = dave.key_package(&world);
    let add = change(&mut alice, &mut world, Wish::Add { key_packages: vec![package] });
    said(&mut alice, &mut world, "hello");
    let anew = change(&mut alice, &mut world, Wish::ReInit { cipher_suite: 3, visible: false });
    assert!(alice.group().is_frozen());
    annul(&mut world, &[&access]);
    settle(&mut alice, &mut world);
    let told = failures(&alice);
    assert_eq!(told.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [update, add], "{told:?}");
    assert!(told[0].1.contains("could not apply"), "what was disputed is not tried again: {told:?}");
    assert!(told[1].1.contains(&dave.account.client.to_string()), "a KeyPackage serves once: {told:?}");
    assert!(!alice.group().is_pending(anew) && alice.group().is_frozen(), "it is frozen again");
    for person in [&mut bob, &mut carol] {
        person.sync(&world.ds);
        assert_eq!(person.texts(), ["hello"]);
    }
    agree(&mut [&mut alice, &mut bob, &mut carol]);
    assert_eq!(alice.group().members().unwrap().len(), 3);
}

#[test]
fn what_others_had_done_is_done_by_us_if_theirs_is_annulled() {
    let mut world = World::new();
    let [mut alice, mut bob, mut eve] = trio(&mut world);
    let access = eve.group().access().unwrap();
    change(&mut bob, &mut world, Wish::Update);
    change(&mut bob, &mut world, removal(&eve));
    let removed = change(&mut alice, &mut world, removal(&eve));
    assert!(!alice.group().is_pending(removed), "Bob has done it");
    alice.restart();
    annul(&mut world, &[&access]);
    settle(&mut alice, &mut world);
    eve.sync(&world.ds);
    assert_eq!(*eve.group().status(), Status::Removed);
    assert!(failures(&alice).is_empty());
}

#[test]
fn what_is_void_twice_is_said_a_third_time() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    let access = carol.group().access().unwrap();
    for round in 1..=2 {
        change(&mut bob, &mut world, Wish::Update);
        alice.sync(&world.ds);
        if round == 1 {
            alice.say("a word");
        }
        alice.drive_now(&mut world);
        assert_eq!(messages(&world), round);
        alice.restart();
        annul(&mut world, &[&access]);
        bob.drive_now(&mut world);
    }
    settle(&mut alice, &mut world);
    assert_eq!(messages(&world), 3, "nobody reads void epochs who could not apply their commits");
    for person in [&mut bob, &mut carol] {
        person.sync(&world.ds);
        assert_eq!(person.texts(), ["a word"]);
        assert_eq!(replays(person), 0, "it is the sender's duty to say it again");
    }
    assert_eq!(alice.texts(), ["a word"]);
    agree(&mut [&mut alice, &mut bob, &mut carol]);
    assert_eq!(alice.group().intents().count(), 0);
}

#[test]
fn what_stands_is_said_once_and_kept_no_longer_than_its_epoch_is_open() {
    let mut world = World::new();
    let [mut alice, mut bob, _] = trio(&mut world);
    change(&mut alice, &mut world, Wish::Update);
    said(&mut alice, &mut world, "a word");
    let kept = |person: &Person| person.store.rows.keys().filter(|(_, key)| contains(key, b"\0done/")).count();
    assert_eq!(kept(&alice), 2);
    // An hour later, Bob acknowledges the commit.
    world.ds.ahead += 3_700_000;
    bob.drive_now(&mut world);
    settle(&mut alice, &mut world);
    assert_eq!((kept(&alice), messages(&world)), (0, 1));
}

fn contains(key: &[u8], part: &[u8]) -> bool {
    key.windows(part.len()).any(|window| window == part)
}

#[test]
fn a_void_message_said_again_is_no_replay_but_one_that_stands_is() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    let access = carol.group().access().unwrap();
    change(&mut alice, &mut world, Wish::Update);
    said(&mut alice, &mut world, "a word");
    bob.sync(&world.ds);
    annul(&mut world, &[&access]);
    settle(&mut alice, &mut world);
    bob.restart();
    bob.sync(&world.ds);
    // Carol reads all of it in one batch.
    carol.sync(&world.ds);
    for person in [&bob, &carol] {
        assert_eq!((person.texts(), replays(person)), (vec!["a word".to_owned()], 0));
    }
    let (_, id) = alice.group().wish_text("once").unwrap();
    let send = alice.group().intents().last().unwrap().wish.clone();
    assert!(matches!(&send, Wish::Send { id: of, .. } if *of == id));
    settle(&mut alice, &mut world);
    change(&mut alice, &mut world, send);
    bob.sync(&world.ds);
    assert_eq!(replays(&bob), 1);
}

/// Who has removed everybody else has nobody to leave; but as long as that may be annulled, it has not. By the law who is left alone is so at
/// once, but Alice has said before, wrongly, that there are three: so her commits stay open.
#[test]
fn who_has_removed_all_others_leaves_once_that_stands() {
    let mut world = World::new();
    let (mut alice, mut bob) = (world.person("alice"), world.person("bob"));
    group_of(&mut world, &mut [&mut alice, &mut bob]);
    let access = bob.group().access().unwrap();
    let before = bob.group().epoch();
    bad_commit(&mut world, &mut alice, |entry| entry.commit.as_mut().unwrap().members = 3);
    alice.sync(&world.ds);
    alice.begin_rejoin(&world, false).unwrap();
    alice.drive_now(&mut world);
    dispute(&mut world, &access, 0);
    change(&mut alice, &mut world, removal(&bob));
    change(&mut alice, &mut world, Wish::Leave);
    settle(&mut alice, &mut world);
    alice.restart();
    assert_eq!(alice.group().members().unwrap().len(), 1);
    assert_eq!(*alice.group().status(), Status::Active);

    world.ds.ahead += DISPUTE_MS + 10 * MINUTE;
    settle(&mut bob, &mut world);
    assert_eq!((bob.group().epoch(), bob.group().status().clone()), (before.next(), Status::Active));
    settle(&mut alice, &mut world);
    let done = |person: &Person| person.events.iter().any(|event| matches!(event, Event::RemovedFromGroup { .. }));
    assert!(done(&alice) && *alice.group().status() == Status::Removed, "{:?}", alice.events);
    // She removed him once more before.
    bob.sync(&world.ds);
    assert!(done(&bob), "{:?}", bob.events);
}

#[test]
fn a_request_to_leave_whose_commit_is_annulled_is_committed_again() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    let keys = [bob.group().access().unwrap(), carol.group().access().unwrap()];
    leaves(&mut bob, &mut alice, &mut world);
    assert_eq!(alice.group().members().unwrap().len(), 2);
    annul(&mut world, &[&keys[0], &keys[1]]);
    for person in [&mut alice, &mut carol] {
        person.sync(&world.ds);
        let (now, mut events) = (world.ds.now(), Vec::new());
        person.group().next_submission(now, &mut events).unwrap();
        person.save();
        person.restart();
        assert_eq!(person.group().members().unwrap().len(), 3);
        let due = person.group().commit_due().unwrap();
        assert!(due.0 >= now.0 - MINUTE * 60 && due <= now.plus_ms(MINUTE), "{due:?}");
    }
    let dues = [alice.group().commit_due(), carol.group().commit_due()];
    assert_ne!(dues[0], dues[1], "one after the other");
    settle(&mut carol, &mut world);
    settle(&mut bob, &mut world);
    alice.sync(&world.ds);
    assert_eq!(*bob.group().status(), Status::Removed);
    assert_eq!(alice.group().members().unwrap().len(), 2);
    agree(&mut [&mut alice, &mut carol]);
}

#[test]
fn who_asked_to_leave_and_commits_something_else_first_asks_again() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    let keys = [bob.group().access().unwrap(), carol.group().access().unwrap()];
    leaves(&mut bob, &mut alice, &mut world);
    bob.sync(&world.ds);
    assert!(bob.group().may_return());
    annul(&mut world, &[&keys[0], &keys[1]]);
    // Nobody but Bob is there, whose own commit cannot remove him: by that his request is void.
    settle(&mut bob, &mut world);
    assert_eq!(*bob.group().status(), Status::Active);
    bob.restart();
    settle(&mut bob, &mut world);
    assert!(bob.group().is_asked_to_leave(), "{:?}", bob.events);
    settle(&mut carol, &mut world);
    settle(&mut bob, &mut world);
    assert_eq!(*bob.group().status(), Status::Removed);
    alice.sync(&world.ds);
    agree(&mut [&mut alice, &mut carol]);
}

#[test]
fn a_request_to_leave_that_is_void_itself_is_made_again() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    let access = carol.group().access().unwrap();
    change(&mut alice, &mut world, Wish::Update);
    bob.sync(&world.ds);
    leaves(&mut bob, &mut alice, &mut world);
    bob.sync(&world.ds);
    assert!(bob.group().may_return(), "the commit is open");
    bob.restart();
    annul(&mut world, &[&access]);
    settle(&mut alice, &mut world);
    settle(&mut bob, &mut world);
    assert!(bob.group().is_asked_to_leave());
    settle(&mut carol, &mut world);
    settle(&mut bob, &mut world);
    assert_eq!(*bob.group().status(), Status::Removed);
    alice.sync(&world.ds);
    agree(&mut [&mut alice, &mut carol]);
}

/// What we did came to nothing with the invitation.
#[test]
fn who_was_never_a_member_is_told_what_was_not_said() {
    let mut world = World::new();
    let [mut alice, _, mut carol] = trio(&mut world);
    let access = carol.group().access().unwrap();
    let mut dave = world.person("dave");
    let package = dave.key_package(&world);
    change(&mut alice, &mut world, Wish::Add { key_packages: vec![package] });
    dave.join(&world);
    said(&mut dave, &mut world, "hello");
    let update = change(&mut dave, &mut world, Wish::Update);
    dave.restart();
    annul(&mut world, &[&access]);
    // The next entry shows it.
    settle(&mut carol, &mut world);
    change(&mut carol, &mut world, Wish::Update);
    dave.sync(&world.ds);
    assert_eq!(*dave.group().status(), Status::Removed);
    let told = failures(&dave);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].1.contains("was not sent") && told[1].0 == update, "{told:?}");
}

/// Says all of this in the epochs that are open, and reads it.
fn says_much(person: &mut Person, world: &mut World, texts: &[String]) -> Vec<IdempotencyKey> {
    let ids = texts.iter().map(|text| person.group().wish_text(text).unwrap().0).collect();
    person.save();
    while person.group().intents().next().is_some() {
        let now = world.ds.now();
        let submission = person.group().next_submission(now, &mut Vec::new()).unwrap().unwrap();
        person.save();
        world.ds.submit(&submission).unwrap();
        person.sync(&world.ds);
    }
    ids
}

/// What Alice has in her profile of what she has said already.
fn kept(person: &Person) -> (usize, usize) {
    let rows = person.store.rows.iter().filter(|((_, key), _)| contains(key, b"\0done/"));
    let sizes: Vec<_> = rows.map(|(_, value)| value.len()).collect();
    (sizes.len(), sizes.iter().sum())
}

/// She says `texts` in an open epoch, which is annulled: the first `lost` of them are told of, and the others said again.
fn told_of_the_oldest(texts: &[String], lost: usize) {
    let mut world = World::new();
    let [mut alice, mut bob, mut eve] = trio(&mut world);
    let access = eve.group().access().unwrap();
    change(&mut alice, &mut world, Wish::Update);
    let ids = says_much(&mut alice, &mut world, texts);
    let (_, bytes) = kept(&alice);
    let names = 300 * texts.len();
    assert!(bytes < DONE_BYTES + names + 300 * DONE_MESSAGES, "{bytes} bytes");
    alice.restart();
    annul(&mut world, &[&access]);
    alice.sync(&world.ds);
    let now = world.ds.now();
    let mut events = Vec::new();
    let submission = alice.group().next_submission(now, &mut events).unwrap();
    alice.events.append(&mut events);
    alice.save();
    let told = failures(&alice);
    let told: Vec<_> =
        told.iter().filter(|(_, reason)| reason.contains("is not sent again")).map(|(id, _)| *id).collect();
    assert_eq!(told, ids[..lost]);
    let noted = alice.store.messages.iter().filter(|row| contains(&row.body, b"is not sent again")).count();
    assert_eq!(noted, lost, "who dies now is told all the same");
    world.ds.submit(&submission.unwrap()).unwrap();
    alice.sync(&world.ds);
    while alice.group().intents().next().is_some() {
        let now = world.ds.now();
        let submission = alice.group().next_submission(now, &mut Vec::new()).unwrap().unwrap();
        alice.save();
        world.ds.submit(&submission).unwrap();
        alice.sync(&world.ds);
    }
    bob.sync(&world.ds);
    let again: Vec<_> = bob.texts().into_iter().rev().take(texts.len() - lost).rev().collect();
    assert_eq!(again, texts[lost..]);
}

#[test]
fn of_more_messages_than_are_kept_for_an_annulment_the_oldest_are_told_of() {
    let texts: Vec<_> = (0..DONE_MESSAGES + 3).map(|number| format!("message {number}")).collect();
    told_of_the_oldest(&texts, 3);
}

#[test]
fn of_more_bytes_than_are_kept_for_an_annulment_the_oldest_are_told_of() {
    let fit = DONE_BYTES / limits::TEXT;
    let text = |number: usize| format!("{number} {}", "x".repeat(limits::TEXT - 100));
    let texts: Vec<_> = (0..fit + 3).map(text).collect();
    told_of_the_oldest(&texts, 3);
}

/// Bob has seen that Dave was added after what he said, or has added him himself. Both was annulled, where he could not read it, and Dave is
/// there again by another commit.
#[test]
fn what_is_void_is_not_said_again_to_who_was_added_after_it() {
    for by_himself in [false, true] {
        let mut world = World::new();
        let [mut alice, mut bob, mut carol] = trio(&mut world);
        let mut dave = world.person("dave");
        let access = carol.group().access().unwrap();
        change(&mut alice, &mut world, Wish::Update);
        let text = "not for Dave";
        said(&mut bob, &mut world, text);
        let package = dave.key_package(&world);
        let adds = if by_himself { &mut bob } else { &mut alice };
        change(adds, &mut world, Wish::Add { key_packages: vec![package] });
        bob.sync(&world.ds);
        assert_eq!(bob.group().members().unwrap().len(), 4);
        annul(&mut world, &[&access]);
        let package = dave.key_package(&world);
        change(&mut carol, &mut world, Wish::Add { key_packages: vec![package] });
        alice.sync(&world.ds);
        dave.join(&world);
        bob.group().position_gone(None, &mut Vec::new());
        bob.save();
        knock(&world, &mut bob, &mut alice).unwrap();
        alice.drive_now(&mut world);
        bob.join(&world);
        bob.restart();
        settle(&mut bob, &mut world);
        let why = if by_himself { "were not in the group" } else { "members joined since" };
        assert!(failures(&bob).iter().any(|(_, reason)| reason.contains(why)), "{:?}", bob.events);
        dave.sync(&world.ds);
        assert!(!dave.texts().iter().any(|heard| heard == text), "{:?}", dave.texts());
        agree(&mut [&mut bob, &mut dave]);
    }
}

/// Bob says something in the epoch that Alice's commit began, which is annulled or not; then entries are gone that he has not read.
fn said_before_what_is_gone(world: &mut World, is_annulled: bool) -> [Person; 3] {
    let mut people = trio(world);
    let [alice, bob, carol] = &mut people;
    let access = carol.group().access().unwrap();
    change(alice, world, Wish::Update);
    said(bob, world, "what Bob said");
    alice.sync(&world.ds);
    if is_annulled {
        annul(world, &[&access]);
        // The law's word, in an entry.
        change(carol, world, Wish::Update);
        alice.sync(&world.ds);
    }
    bob.group().position_gone(None, &mut Vec::new());
    bob.save();
    people
}

#[test]
fn what_was_annulled_where_its_writer_could_not_read_is_said_again_by_who_is_let_in() {
    for is_annulled in [true, false] {
        let mut world = World::new();
        let [mut alice, mut bob, mut carol] = said_before_what_is_gone(&mut world, is_annulled);
        knock(&world, &mut bob, &mut alice).unwrap();
        alice.drive_now(&mut world);
        bob.join(&world);
        bob.restart();
        settle(&mut bob, &mut world);
        for person in [&mut alice, &mut carol] {
            settle(person, &mut world);
            assert_eq!(person.texts().last().unwrap(), "what Bob said");
            assert_eq!(replays(person), 0, "Bob does what he has to");
        }
        // Where he missed something, he asks for it as well.
        assert_eq!(messages(&world), 1 + 2 * usize::from(is_annulled));
        let told = bob.events.iter().any(|event| matches!(event, Event::Annulled { .. }));
        assert_eq!(told, is_annulled, "his record of changes says so, too");
        assert!(failures(&bob).is_empty(), "{:?}", failures(&bob));
    }
}

#[test]
fn so_it_is_by_who_comes_back_from_outside() {
    for is_annulled in [true, false] {
        let mut world = World::new();
        let [mut alice, mut bob, mut carol] = said_before_what_is_gone(&mut world, is_annulled);
        // There is something that he has not read, and the committer of the GroupInfo had.
        carol.sync(&world.ds);
        change(&mut carol, &mut world, Wish::Update);
        alice.sync(&world.ds);
        said(&mut alice, &mut world, "meanwhile");
        change(&mut carol, &mut world, Wish::Update);
        let begun = bob.begin_rejoin(&world, false);
        assert_eq!(begun, Err(RejoinError::ReadOn), "from where the GroupInfo's committer stood");
        bob.restart();
        bob.sync(&world.ds);
        bob.begin_rejoin(&world, false).unwrap();
        settle(&mut bob, &mut world);
        assert_eq!(*bob.group().status(), Status::Active);
        for person in [&mut alice, &mut carol] {
            settle(person, &mut world);
            assert!(person.texts().iter().any(|text| text == "what Bob said"), "{:?}", person.texts());
            assert_eq!(replays(person), 0);
        }
        // With his request for what he missed.
        assert_eq!(messages(&world), 3 + usize::from(is_annulled));
    }
}
