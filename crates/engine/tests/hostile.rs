//! What a server, a member or a stranger may try. Nothing of it leaves a trace: the genuine successor still applies.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod common;

use common::{NOW, Person, World, agree, group_of, inbox_entry};
use conclave_channel::{Body, CommitHeader, Entry, EntryKind, LogFault, access::ChannelKey};
use conclave_engine::{
    group::{Incoming, Status, SubmissionBody},
    intent::Wish,
    invitation::{Invitation, InvitationError, JoinError, load_key_packages},
    key_packages,
    outcome::{Event, Outcome, ProcessError, Rejection},
    writes::Room,
};
use conclave_mls::welcome::InboxWelcome;
use conclave_names::{Epoch, Hash, Seq, Timestamp};

fn pair(world: &mut World) -> [Person; 2] {
    let mut people = ["alice", "bob"].map(|name| world.person(name));
    let [alice, bob] = &mut people;
    group_of(world, &mut [alice, bob]);
    people
}

/// Takes the newest entry from the DS and gives it to a reader changed; then the genuine one.
fn changed_then_genuine(world: &World, reader: &mut Person, change: impl Fn(Entry) -> Entry) -> (Outcome, Outcome) {
    let genuine = world.ds.after(reader.group().position().seq);
    assert_eq!(genuine.len(), 1);
    let mut forged = genuine[0].clone();
    forged.entry = change(Entry::parse(&forged.entry).unwrap()).to_bytes().unwrap();
    let mut outcome = |incoming: &Incoming| {
        // A refused message is part of the log all the same: so the genuine one is judged from where we stood before.
        let before = reader.store.clone();
        let done = reader.group().process(std::slice::from_ref(incoming));
        assert!(done.fault.is_none());
        let outcome = done.outcomes[0].1.clone();
        if outcome == Outcome::Applied {
            reader.events.extend(done.events);
            reader.save();
        } else {
            reader.store = before;
            reader.restart();
        }
        outcome
    };
    (outcome(&forged), outcome(&genuine[0]))
}

fn flip(mut entry: Entry) -> Entry {
    if let Body::Inline(body) = &mut entry.body {
        let last = body.len() - 1;
        body[last] ^= 1;
    }
    entry
}

#[test]
fn a_corrupted_message_is_refused_and_those_after_it_are_read() {
    let mut world = World::new();
    let [mut alice, mut bob] = pair(&mut world);
    alice.say("one");
    alice.drive(&mut world);
    alice.say("two");
    alice.drive(&mut world);
    let mut batch = world.ds.after(bob.group().position().seq);
    let genuine = batch.clone();
    batch[0].entry = flip(Entry::parse(&batch[0].entry).unwrap()).to_bytes().unwrap();
    let done = bob.group().process(&batch);
    assert_eq!(done.outcomes[0].1, Outcome::Rejected(Rejection::Seal));
    assert_eq!(done.outcomes[1].1, Outcome::Applied);
    // Who was shown another entry has another running hash: the next message that crosses tells.
    bob.save();
    assert_ne!(bob.group().position(), alice.group().position());
    bob.say("three");
    bob.group().next_submission(NOW, &mut Vec::new()).unwrap();
    assert_eq!(genuine.len(), 2);
}

#[test]
fn changes_outside_the_seal_are_refused() {
    let mut world = World::new();
    let [mut alice, mut bob] = pair(&mut world);
    alice.say("hello");
    alice.drive(&mut world);
    let (forged, genuine) =
        changed_then_genuine(&world, &mut bob, |entry| Entry::new(EntryKind::Proposal, entry.epoch, entry.body));
    assert_eq!(forged, Outcome::Rejected(Rejection::Seal));
    assert_eq!(genuine, Outcome::Applied);
}

#[test]
fn a_commit_that_says_something_else_than_it_does_is_not_followed() {
    let mut world = World::new();
    let [mut alice, mut bob] = pair(&mut world);
    alice.wish(Wish::Update);
    alice.drive(&mut world);
    let with = |header: fn(CommitHeader) -> CommitHeader| {
        move |entry: Entry| Entry::commit(entry.epoch, header(entry.commit.unwrap()), entry.body)
    };
    let removes = with(|header| CommitHeader { removed: 1, ..header });
    let (forged, genuine) = changed_then_genuine(&world, &mut bob, removes);
    assert_eq!(forged, Outcome::NeedsRecovery(Rejection::Flags));
    assert_eq!(genuine, Outcome::Applied);

    alice.wish(Wish::Update);
    alice.drive(&mut world);
    let root = with(|header| CommitHeader { key_root: Hash::new([0; 32]), ..header });
    let (forged, genuine) = changed_then_genuine(&world, &mut bob, root);
    assert_eq!(forged, Outcome::NeedsRecovery(Rejection::KeyRoot));
    assert_eq!(genuine, Outcome::Applied);

    alice.wish(Wish::Update);
    alice.drive(&mut world);
    let (forged, genuine) = changed_then_genuine(&world, &mut bob, flip);
    assert_eq!(forged, Outcome::NeedsRecovery(Rejection::Seal));
    assert_eq!(genuine, Outcome::Applied);
    agree(&mut [&mut alice, &mut bob]);
}

#[test]
fn a_group_that_cannot_be_followed_says_so_and_goes_on_once_it_can() {
    let mut world = World::new();
    let [mut alice, mut bob] = pair(&mut world);
    alice.wish(Wish::Update);
    alice.drive(&mut world);
    let mut batch = world.ds.after(bob.group().position().seq);
    batch[0].entry = flip(Entry::parse(&batch[0].entry).unwrap()).to_bytes().unwrap();
    let before = bob.group().position();
    bob.group().process(&batch);
    bob.save();
    assert!(matches!(bob.group().status(), Status::Stuck { .. }));
    assert_eq!(bob.group().position(), before, "the entry will be looked at again");
    bob.say("anybody?");
    bob.restart();
    assert!(matches!(bob.group().status(), Status::Stuck { .. }));
    bob.sync(&world.ds);
    assert_eq!(*bob.group().status(), Status::Active);
    bob.drive(&mut world);
    alice.sync(&world.ds);
    assert_eq!(alice.texts(), ["anybody?"], "what was said meanwhile waited");
    agree(&mut [&mut alice, &mut bob]);
}

#[test]
fn a_log_with_gaps_repeats_or_garbage_is_a_fault_and_changes_nothing() {
    let mut world = World::new();
    let [mut alice, mut bob] = pair(&mut world);
    alice.say("one");
    alice.drive(&mut world);
    alice.say("two");
    alice.drive(&mut world);
    let batch = world.ds.after(bob.group().position().seq);
    let place = bob.group().position();
    let fault = |bob: &mut Person, batch: &[Incoming]| bob.group().process(batch).fault.unwrap();
    assert!(matches!(fault(&mut bob, &batch[1..]), ProcessError::Log(LogFault::Gap { .. })));
    let mut early = batch[0].clone();
    early.time = Timestamp(0);
    // A joiner knows no time before its first entry.
    bob.sync(&world.ds);
    assert!(matches!(fault(&mut bob, &[early]), ProcessError::Log(LogFault::Gap { .. })));
    assert!(matches!(fault(&mut bob, &batch), ProcessError::Log(LogFault::Gap { .. })), "a replay");
    let garbage =
        Incoming { seq: bob.group().position().seq.next(), time: NOW.plus_ms(99), entry: vec![9; 9], blob: None };
    assert!(matches!(fault(&mut bob, &[garbage]), ProcessError::Entry(_)));
    assert_eq!(bob.group().position(), alice.group().position());
    assert_ne!(bob.group().position(), place);
    assert_eq!(bob.texts(), ["one", "two"]);
}

#[test]
fn a_server_that_shows_two_logs_is_caught_by_the_next_message() {
    let mut world = World::new();
    let [mut alice, mut bob] = pair(&mut world);
    bob.say("lost");
    bob.drive(&mut world);
    // Alice is shown the log without Bob's message, and something else in its place.
    world.ds.entries.pop();
    alice.say("instead");
    alice.drive(&mut world);
    alice.say("this carries what Alice saw");
    alice.drive(&mut world);
    // Bob goes on from his own view of the log.
    let batch = world.ds.after(bob.group().position().seq);
    let done = bob.group().process(&batch);
    assert!(done.events.iter().any(|event| matches!(event, Event::LogsDiffer { .. })), "{:?}", done.events);
}

#[test]
fn a_welcome_for_somebody_else_or_with_a_changed_part_joins_nobody() {
    let mut world = World::new();
    let [mut alice, _bob] = pair(&mut world);
    let mut charlie = world.person("charlie");
    let mut mallory = world.person("mallory");
    let package = charlie.key_package(&world);
    alice.wish(Wish::Add { key_packages: vec![package] });
    alice.drive(&mut world);
    let welcome = world.ds.welcomes.last().unwrap().clone();
    fn open(person: &mut Person, welcome: &InboxWelcome) -> Result<Invitation, InvitationError> {
        load_key_packages(&person.mls, &person.store).unwrap();
        Invitation::open(&person.account, &person.mls, &inbox_entry(welcome))
    }
    assert!(matches!(open(&mut mallory, &welcome), Err(InvitationError::NotForUs)));
    for change in [
        |w: &mut InboxWelcome| w.secrets.truncate(10),
        |w: &mut InboxWelcome| *w.secrets.last_mut().unwrap() ^= 1,
        |w: &mut InboxWelcome| w.encrypted_group_info[0] ^= 1,
        |w: &mut InboxWelcome| *w.attachment.last_mut().unwrap() ^= 1,
        |w: &mut InboxWelcome| w.cipher_suite = 2,
    ] {
        let mut changed = welcome.clone();
        change(&mut changed);
        assert!(open(&mut charlie, &changed).is_err());
    }
    assert!(Invitation::open(&charlie.account, &charlie.mls, b"garbage").is_err());
    let message = Entry::new(EntryKind::Message, Epoch(0), Body::Inline(vec![0x80])).to_bytes().unwrap();
    assert!(Invitation::open(&charlie.account, &charlie.mls, &message).is_err());

    let invitation = open(&mut charlie, &welcome).unwrap();
    let mut tree = invitation.tree().unwrap();
    let mut chunk = world.ds.blobs[&tree.wanted()[0]].clone();
    chunk[30] ^= 1;
    assert!(tree.give(&chunk).is_err());
    let joined = invitation.join(&charlie.account, &charlie.mls, &charlie.store, &tree, NOW, &mut Vec::new());
    assert!(matches!(joined, Err(JoinError::Tree)));
    // The genuine one still works, once.
    charlie.join(&world);
    charlie.sync(&world.ds);
    alice.sync(&world.ds);
    agree(&mut [&mut alice, &mut charlie]);
    let again = open(&mut charlie, &welcome);
    assert!(matches!(again, Err(InvitationError::NotForUs)), "the KeyPackage is used up: {again:?}");
}

/// Whose private part stays: so the server may hand out the same Welcome again, or the program have died before it
/// noted that the inbox's entry was done with.
#[test]
fn an_invitation_by_a_last_resort_leads_no_way_back_after_a_removal() {
    let mut world = World::new();
    let [mut alice, mut bob] = ["alice", "bob"].map(|name| world.person(name));
    let suite = conclave_mls::crypto::DEFAULT_SUITE;
    let fresh = key_packages::generate(&bob.account, &bob.mls, suite, &world.address_key, 0, true, NOW).unwrap();
    bob.store.apply(fresh.writes);
    let last_resort = fresh.last_resort.unwrap();
    alice.create(&mut world, "Test");
    alice.wish(Wish::Add { key_packages: vec![last_resort.clone()] });
    alice.drive(&mut world);
    bob.join(&world);
    bob.say("hello");
    bob.drive(&mut world);
    let old = world.ds.welcomes.last().unwrap().clone();
    alice.sync(&world.ds);
    let users = vec![bob.user()];
    alice.wish(Wish::Remove { users });
    alice.drive(&mut world);
    bob.sync(&world.ds);
    assert_eq!(*bob.group().status(), Status::Removed);

    let replayed = Invitation::open(&bob.account, &bob.mls, &inbox_entry(&old)).unwrap();
    let tree = world.tree(&replayed);
    let joined = replayed.join(&bob.account, &bob.mls, &bob.store, &tree, NOW, &mut Vec::new());
    assert!(matches!(joined, Err(JoinError::Old)), "{joined:?}");

    // A new one by the same last resort is good.
    alice.wish(Wish::Add { key_packages: vec![last_resort] });
    alice.drive(&mut world);
    bob.join(&world);
    bob.sync(&world.ds);
    agree(&mut [&mut alice, &mut bob]);
}

#[test]
fn the_private_part_of_a_used_key_package_is_gone() {
    let mut world = World::new();
    let mut bob = world.person("bob");
    let mut alice = world.person("alice");
    let package = bob.key_package(&world);
    let packages = |person: &Person| {
        let keys: Vec<_> = person
            .store
            .rows
            .keys()
            .filter(|(room, key)| *room == Room::KEY_PACKAGE && key.starts_with(b"package/"))
            .cloned()
            .collect();
        keys
    };
    let before = packages(&bob);
    assert_eq!(before.len(), 1);
    let secret = bob.store.rows[&before[0]].clone();
    alice.create(&mut world, "Test");
    alice.wish(Wish::Add { key_packages: vec![package] });
    alice.drive(&mut world);
    bob.join(&world);
    assert!(packages(&bob).is_empty(), "R49: the init key is gone after the Welcome");
    // The init key is the second field of the row, after the KeyPackage: it is nowhere in the store.
    let init_key = &secret[secret.len() - 74..secret.len() - 42];
    assert!(bob.store.rows.values().all(|row| !row.windows(32).any(|window| window == init_key)));
}

#[test]
fn a_key_package_of_a_stranger_authority_or_with_a_changed_byte_is_not_added() {
    let mut world = World::new();
    let [mut alice, mut bob] = pair(&mut world);
    let mut stranger = World::new().person("charlie");
    let package = stranger.key_package(&world);
    alice.wish(Wish::Add { key_packages: vec![package] });
    alice.drive(&mut world);
    assert!(alice.events.iter().any(|event| matches!(event, Event::IntentFailed { .. })));
    let mut dora = world.person("dora");
    let mut package = dora.key_package(&world);
    let last = package.len() - 1;
    package[last] ^= 1;
    alice.wish(Wish::Add { key_packages: vec![package] });
    alice.drive(&mut world);
    assert_eq!(alice.group().members().unwrap().len(), 2);
    // The group is none the worse.
    alice.say("still fine");
    alice.drive(&mut world);
    bob.sync(&world.ds);
    assert_eq!(bob.texts(), ["still fine"]);
}

#[test]
fn nobody_reads_what_was_sealed_after_its_removal() {
    let mut world = World::new();
    let mut people = ["alice", "bob", "charlie"].map(|name| world.person(name));
    let [alice, bob, charlie] = &mut people;
    group_of(&mut world, &mut [&mut *alice, &mut *bob, &mut *charlie]);
    // A thief keeps Charlie's state of before the removal.
    let stolen = charlie.store.clone();
    alice.wish(Wish::Remove { users: vec![charlie.user()] });
    alice.drive(&mut world);
    alice.say("secret");
    alice.drive(&mut world);
    charlie.store = stolen;
    charlie.restart();
    let done = charlie.sync(&world.ds);
    assert!(!charlie.texts().contains(&"secret".to_owned()));
    assert!(done.outcomes.len() < world.ds.entries.len());
    // Even the entry's seal is another: the group seed was renewed.
    let batch = world.ds.after(Seq(world.ds.entries.len() as u64 - 1));
    let entry = Entry::parse(&batch[0].entry).unwrap();
    let mut events = Vec::new();
    let submission = alice.group().next_submission(NOW, &mut events).unwrap();
    assert!(submission.is_none_or(|submission| matches!(submission.body, SubmissionBody::Entry(_))));
    assert_eq!(entry.epoch, alice.group().epoch());
}

/// What a refused commit did to the state in memory is gone, whether that state was in the store or not.
#[test]
fn a_refused_commit_leaves_no_trace_in_the_group_that_goes_on() {
    let mut world = World::new();
    let [mut alice, mut bob] = pair(&mut world);
    for unsaved in [false, true] {
        if unsaved {
            alice.say("read, and not yet stored");
            alice.drive(&mut world);
        }
        alice.wish(Wish::Update);
        alice.drive(&mut world);
        let genuine = world.ds.after(bob.group().position().seq);
        // MLS finds nothing wrong with these: what is refused has been applied before.
        let lies: [fn(CommitHeader) -> CommitHeader; 3] = [
            |header| CommitHeader { key_root: Hash::new([0; 32]), ..header },
            |header| CommitHeader { members: header.members + 1, ..header },
            |header| CommitHeader { committer: ChannelKey([9; 32]), ..header },
        ];
        for lie in lies {
            let rest = world.ds.after(bob.group().position().seq);
            let mut forged = rest.clone();
            let last = forged.last_mut().unwrap();
            let entry = Entry::parse(&last.entry).unwrap();
            last.entry = Entry::commit(entry.epoch, lie(entry.commit.unwrap()), entry.body).to_bytes().unwrap();
            let epoch = bob.group().epoch();
            let done = bob.group().process(&forged);
            assert!(matches!(done.outcomes.last().unwrap().1, Outcome::NeedsRecovery(_)), "{:?}", done.outcomes);
            assert_eq!(bob.group().epoch(), epoch);
            bob.events.extend(done.events);
        }
        let rest = world.ds.after(bob.group().position().seq);
        let done = bob.group().process(&rest);
        assert_eq!(done.outcomes.last().unwrap().1, Outcome::Applied, "{} entries before", genuine.len() - 1);
        bob.save();
        agree(&mut [&mut alice, &mut bob]);
        bob.restart();
        alice.sync(&world.ds);
        alice.say("hello");
        alice.drive(&mut world);
        bob.sync(&world.ds);
        assert_eq!(bob.texts().last().unwrap(), "hello");
        bob.say("hello yourself");
        bob.drive(&mut world);
        alice.sync(&world.ds);
        assert_eq!(alice.texts().last().unwrap(), "hello yourself");
    }
}
