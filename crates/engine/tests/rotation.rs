//! Members that change their signature key (RFC 9420, sections 5.3.1 and 7.3; RFC 9750, sections 4 and 8.2.2), whatever comes in between.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::time::SystemTime;

use common::*;
use conclave_channel::{access::ChannelKey, law::DISPUTE_MS};
use conclave_engine::{
    account::Account,
    group::{KnockRefused, REST_MS, Status, Submission},
    intent::Wish,
    key_packages,
    outcome::{Event, Outcome},
    rotation::forget_old_keys,
    writes::Room,
};
use conclave_names::{Timestamp, limits};
use conclave_protocol::{Code, Refusal};
use mls_rs::CipherSuite;

const HOUR: u64 = 3_600_000;

/// What a client has made, and the network keeps for now.
fn on_its_way(person: &mut Person, world: &World) -> Submission {
    let submission = person.group().next_submission(world.ds.now(), &mut Vec::new()).unwrap().unwrap();
    person.save();
    submission
}

fn key_changes(person: &Person) -> Vec<&str> {
    let changed = |event: &Event| matches!(event, Event::KeyChanged { .. });
    let names = person.events.iter().filter(|event| changed(event)).map(|event| match event {
        Event::KeyChanged { member, .. } => member.user().name(),
        _ => unreachable!(),
    });
    names.collect()
}

fn refusals(person: &Person) -> usize {
    person.events.iter().filter(|event| matches!(event, Event::Refused { .. } | Event::Stuck { .. })).count()
}

fn annul(world: &mut World, people: &mut [&mut Person]) {
    world.ds.ahead += DISPUTE_MS + 600_000;
    for person in people {
        person.sync(&world.ds);
        person.group().next_submission(world.ds.now(), &mut Vec::new()).unwrap();
        person.save();
    }
}

#[test]
fn a_new_key_goes_into_the_leaf_by_itself_and_who_it_is_stays() {
    for suite in [1, 3] {
        let mut world = World::new();
        let mut people = ["alice", "bob", "carol"].map(|name| world.person(name));
        for person in &mut people {
            person.suite = CipherSuite::from(suite);
        }
        let [alice, bob, carol] = &mut people;
        group_of(&mut world, &mut [alice, bob, carol]);
        let who = |person: &mut Person| {
            let members = person.group().members().unwrap();
            members.into_iter().find(|member| member.user.name() == "bob").unwrap()
        };
        let before = who(alice);
        assert!(!bob.group().owes_rotation());
        rotate(&mut world, bob);
        assert!(bob.group().owes_rotation());
        // A client that was away while its account changed finds out by itself.
        bob.restart();
        assert!(bob.group().owes_rotation() && bob.group().refresh_due().unwrap() <= world.ds.now());
        bob.drive_now(&mut world);
        assert!(!bob.group().owes_rotation());
        for person in [&mut *alice, &mut *carol] {
            person.sync(&world.ds);
            assert_eq!(key_changes(person), ["bob"]);
            person.say("to the new key");
            person.drive_now(&mut world);
            person.restart();
        }
        let after = who(alice);
        assert_eq!((after.index, after.client, after.identity_key), (before.index, before.client, before.identity_key));
        bob.restart();
        bob.say("by the new key");
        bob.drive_now(&mut world);
        for person in [&mut *alice, &mut *carol] {
            person.sync(&world.ds);
            assert!(person.texts().contains(&"by the new key".to_owned()), "{:?}", person.events);
            assert_eq!(refusals(person), 0);
        }
        // A renewal that changes no key tells of none.
        bob.wish(Wish::Update);
        bob.drive_now(&mut world);
        alice.sync(&world.ds);
        carol.sync(&world.ds);
        assert_eq!(key_changes(alice).len(), 1);
        agree(&mut [alice, bob, carol]);
    }
}

#[test]
fn a_rotation_that_loses_a_race_is_made_again() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    rotate(&mut world, &mut bob);
    let late = on_its_way(&mut bob, &world);
    alice.wish(Wish::Update);
    alice.drive_now(&mut world);
    assert!(world.ds.submit(&late).is_err());
    bob.drive_now(&mut world);
    assert!(!bob.group().owes_rotation());
    alice.sync(&world.ds);
    carol.sync(&world.ds);
    assert_eq!((key_changes(&alice), key_changes(&carol)), (vec!["bob"], vec!["bob"]));
    agree(&mut [&mut alice, &mut bob, &mut carol]);
}

#[test]
fn one_that_was_made_with_the_old_key_is_followed_by_another() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    bob.wish(Wish::Update);
    let old = on_its_way(&mut bob, &world);
    rotate(&mut world, &mut bob);
    world.ds.submit(&old).unwrap();
    bob.sync(&world.ds);
    assert!(bob.group().owes_rotation());
    bob.drive_now(&mut world);
    assert!(!bob.group().owes_rotation());
    for person in [&mut alice, &mut carol] {
        person.sync(&world.ds);
        assert_eq!(key_changes(person), ["bob"]);
    }
    agree(&mut [&mut alice, &mut bob, &mut carol]);
}

#[test]
fn an_annulled_rotation_is_made_again_and_what_was_said_meanwhile_is_said_again() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    let doubter = carol.group().access().unwrap();
    rotate(&mut world, &mut bob);
    let owed = on_its_way(&mut bob, &world);
    world.ds.submit(&owed).unwrap();
    bob.sync(&world.ds);
    assert!(!bob.group().owes_rotation());
    false_nack(&mut world, &doubter);
    annul(&mut world, &mut [&mut alice, &mut bob, &mut carol]);
    assert!(bob.group().owes_rotation(), "his old key is in the leaf again");
    bob.restart();
    // He speaks by the key that the group knows, and gives it the new one.
    bob.say("as before");
    let now = world.ds.now();
    bob.drive_at(&mut world, now);
    assert!(bob.group().owes_rotation(), "what members disputed is not done again at once");
    world.ds.ahead += REST_MS;
    bob.drive_now(&mut world);
    assert!(!bob.group().owes_rotation());
    bob.say("as from now");
    bob.drive_now(&mut world);
    for person in [&mut alice, &mut carol] {
        person.sync(&world.ds);
        assert_eq!(person.texts(), ["as before", "as from now"], "{:?}", person.events);
    }
    agree(&mut [&mut alice, &mut bob, &mut carol]);
}

/// MLS refuses messages of an epoch before that of which their sender has another signature key.
#[test]
fn a_message_that_is_ordered_after_its_senders_rotation_is_said_again() {
    for lives in [true, false] {
        let mut world = World::new();
        let [mut alice, mut bob, mut carol] = trio(&mut world);
        rotate(&mut world, &mut bob);
        // His rotation is on its way while another commit ends the epoch, and that is annulled.
        let update = bob.wish(Wish::Update);
        let rotation = on_its_way(&mut bob, &world);
        let doubter = carol.group().access().unwrap();
        alice.wish(Wish::Update);
        alice.drive_now(&mut world);
        false_nack(&mut world, &doubter);
        bob.sync(&world.ds);
        carol.sync(&world.ds);
        annul(&mut world, &mut [&mut alice, &mut bob, &mut carol]);
        let refusal = Refusal::new(Code::EntryInvalid, "by a server that says so of one of two copies");
        bob.group().refused(update, &refusal, &mut Vec::new()).unwrap();
        bob.say("slow");
        let message = on_its_way(&mut bob, &world);
        world.ds.submit(&rotation).unwrap();
        bob.sync(&world.ds);
        assert!(!bob.group().owes_rotation());
        for person in [&mut alice, &mut carol] {
            person.events.clear();
        }
        if !lives {
            bob.restart();
        }
        world.ds.submit(&message).unwrap();
        let outcome = bob.sync(&world.ds).outcomes.pop().unwrap().1;
        assert_eq!(outcome, Outcome::Stale);
        assert!(bob.texts().is_empty(), "it is not taken for said");
        for person in [&mut alice, &mut carol] {
            person.sync(&world.ds);
            assert!(person.texts().is_empty());
            assert_eq!(refusals(person), 0, "{:?}", person.events);
        }
        bob.drive_now(&mut world);
        for person in [&mut alice, &mut bob, &mut carol] {
            person.sync(&world.ds);
            assert_eq!(person.texts(), ["slow"], "{:?}", person.events);
        }
        assert!(bob.group().intents().next().is_none());
        agree(&mut [&mut alice, &mut bob, &mut carol]);
    }
}

#[test]
fn who_was_away_comes_back_with_the_new_key() {
    let mut world = World::new();
    let other = conclave_authentication::CertificateAuthority::generate(&domain(), NOW).unwrap();
    let mut alice = world.person_of("alice", &world.ca, &[&world.ca, &other]);
    let mut carol = world.person_of("carol", &world.ca, &[&world.ca, &other]);
    let mut bob = world.person("bob");
    let mut dave = world.person_of("dave", &other, &[&world.ca, &other]);
    group_of(&mut world, &mut [&mut alice, &mut bob, &mut carol]);
    // Bob cannot follow what adds Dave, and the others can.
    let package = dave.key_package(&world);
    alice.wish(Wish::Add { key_packages: vec![package] });
    alice.drive_now(&mut world);
    carol.sync(&world.ds);
    bob.drive_now(&mut world);
    assert!(matches!(bob.group().status(), Status::Stuck { .. }));
    rotate(&mut world, &mut bob);
    assert!(bob.group().owes_rotation() && bob.group().refresh_due().is_none(), "he can change nothing now");
    for _ in 0..2 {
        world.ds.ahead += 60_000;
        carol.drive_now(&mut world);
        bob.drive_now(&mut world);
    }
    bob.account.issuers.push(other.certificate().to_vec());
    let account = bob.account.clone();
    bob.restart();
    bob.group().set_account(account);
    bob.begin_rejoin(&world, false).unwrap();
    bob.drive_now(&mut world);
    assert_eq!(*bob.group().status(), Status::Active);
    assert!(!bob.group().owes_rotation());
    // The log of the members is the same for all.
    assert_eq!(key_changes(&bob), ["bob"]);
    for person in [&mut alice, &mut carol] {
        person.sync(&world.ds);
        assert_eq!(key_changes(person), ["bob"], "{:?}", person.events);
    }
    bob.say("back");
    bob.drive_now(&mut world);
    alice.sync(&world.ds);
    carol.sync(&world.ds);
    assert_eq!(alice.texts(), ["back"]);
    agree(&mut [&mut alice, &mut bob, &mut carol]);
}

#[test]
fn who_is_removed_before_its_rotation_owes_none() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    rotate(&mut world, &mut bob);
    let late = on_its_way(&mut bob, &world);
    let users = vec![bob.user()];
    alice.wish(Wish::Remove { users });
    alice.drive_now(&mut world);
    assert!(world.ds.submit(&late).is_err());
    bob.sync(&world.ds);
    assert_eq!(*bob.group().status(), Status::Removed);
    assert!(bob.group().next_submission(world.ds.now(), &mut Vec::new()).unwrap().is_none());
    carol.sync(&world.ds);
    agree(&mut [&mut alice, &mut carol]);
    assert!(key_changes(&carol).is_empty());
}

#[test]
fn an_invitation_by_a_key_package_of_the_old_key_is_taken_up() {
    let mut world = World::new();
    let (mut alice, mut bob) = (world.person("alice"), world.person("bob"));
    let package = bob.key_package(&world);
    group_of(&mut world, &mut [&mut alice]);
    alice.wish(Wish::Add { key_packages: vec![package] });
    rotate(&mut world, &mut bob);
    alice.drive_now(&mut world);
    bob.restart();
    bob.join(&world);
    bob.sync(&world.ds);
    assert!(bob.group().owes_rotation());
    bob.say("by the key that the leaf has");
    bob.drive_now(&mut world);
    assert!(!bob.group().owes_rotation());
    bob.say("by the key that it has now");
    bob.drive_now(&mut world);
    alice.sync(&world.ds);
    assert_eq!(alice.texts(), ["by the key that the leaf has", "by the key that it has now"]);
    agree(&mut [&mut alice, &mut bob]);
}

#[test]
fn a_successor_that_was_made_with_key_packages_of_the_old_key_is_gone_on_in() {
    let mut world = World::new();
    world.until = NOW.plus_ms(4 * 365 * 86_400_000);
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    alice.wish(Wish::ReInit { cipher_suite: 1, visible: true });
    alice.drive_now(&mut world);
    for person in [&mut bob, &mut carol, &mut alice] {
        person.drive_now(&mut world);
    }
    // mls-rs judges their lifetimes by the system's clock.
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let today = Timestamp(u64::try_from(since.as_millis()).unwrap());
    let packages = [&mut bob, &mut carol].map(|person| {
        let (account, key) = (&person.account, &world.address_key);
        let fresh = key_packages::generate(account, &person.mls, person.suite, key, 1, false, today).unwrap();
        person.store.apply(fresh.writes);
        fresh.key_packages.into_iter().next().unwrap()
    });
    rotate(&mut world, &mut bob);
    // Frozen: nothing is renewed there.
    assert!(bob.group().is_frozen() && bob.group().refresh_due().is_none());
    let now = world.ds.now().plus_ms(HOUR);
    alice.group().make_successor(&packages, now).unwrap();
    alice.save();
    alice.drive_at(&mut world, now);
    for person in [&mut bob, &mut carol] {
        person.sync(&world.ds);
    }
    let mut next = Vec::new();
    for person in [&mut alice, &mut bob, &mut carol] {
        person.restart();
        let store = person.store.clone();
        let group = person.group().succeed(&store, now, &mut Vec::new()).unwrap().unwrap();
        person.save();
        next.push(group);
    }
    let views: Vec<_> = next.iter().map(|group| group.epoch_authenticator().unwrap()).collect();
    assert!(views.iter().all(|view| *view == views[0]));
    assert_eq!(next.iter().map(conclave_engine::group::Group::owes_rotation).collect::<Vec<_>>(), [false, true, false]);
    assert!(next[1].refresh_due().is_some());
}

#[test]
fn the_old_key_goes_once_neither_a_group_nor_a_key_package_has_it() {
    let mut world = World::new();
    let (mut alice, mut bob) = (world.person("alice"), world.person("bob"));
    group_of(&mut world, &mut [&mut alice, &mut bob]);
    // One that was at the directory.
    bob.key_package(&world);
    let seed = bob.account.signature_key.to_bytes();
    let public = bob.account.signature_key.verifying_key().to_bytes();
    bob.store.apply(vec![bob.account.to_write()]);
    let holds =
        |person: &Person| person.store.rows.values().filter(|row| row.windows(32).any(|window| window == seed)).count();
    assert!(holds(&bob) >= 2, "the account and the group have it");
    let forget = |person: &mut Person| {
        let store = person.store.clone();
        let uses = person.group.as_ref().unwrap().may_sign_with(&public);
        let write = forget_old_keys(&mut person.account, &store, |_| uses).unwrap();
        person.store.apply(write.into_iter().collect());
        let row = person.store.rows[&(Room::ACCOUNT, Account::KEY.to_vec())].clone();
        assert_eq!(Account::from_row(&row).unwrap().rotation.former.len(), person.account.rotation.former.len());
        person.account.rotation.former.len()
    };
    rotate(&mut world, &mut bob);
    assert_eq!(forget(&mut bob), 1);
    bob.drive_now(&mut world);
    bob.say("done");
    bob.drive_now(&mut world);
    assert_eq!(forget(&mut bob), 1, "the commit may be annulled, and a Welcome may come");
    alice.drive_now(&mut world);
    // Another member has shown that it applied it.
    world.ds.ahead += 2 * HOUR;
    alice.drive_now(&mut world);
    bob.drive_now(&mut world);
    bob.group().note_time(world.ds.now().plus_ms(60_000));
    bob.group().write_state_next();
    bob.save();
    assert_eq!(bob.group().open_commits(), 0);
    assert_eq!(forget(&mut bob), 1, "a Welcome may come");
    let retired = key_packages::retire(&bob.store, key_packages::Unserved::All, world.ds.now()).unwrap();
    bob.store.apply(retired);
    let gone = world.ds.now().plus_ms(limits::INVITATION_MS + 1);
    let swept = key_packages::sweep(&bob.mls, &bob.store, gone).unwrap();
    bob.store.apply(swept);
    assert_eq!(forget(&mut bob), 0);
    assert_eq!(holds(&bob), 0, "no row has it any more");
    bob.restart();
    bob.say("and all goes on");
    bob.drive_now(&mut world);
    alice.sync(&world.ds);
    assert_eq!(alice.texts(), ["done", "and all goes on"]);
}

/// What a thief has who copied a member's store.
fn copy(of: &Person) -> Person {
    let name = of.group.as_ref().unwrap().name().clone();
    let mls = conclave_engine::Mls::new(&of.account);
    let mut thief = Person {
        dispute_pause: of.dispute_pause,
        account: of.account.clone(),
        mls,
        store: of.store.clone(),
        group: None,
        events: Vec::new(),
        handshakes: of.handshakes.clone(),
        suite: of.suite,
    };
    conclave_engine::invitation::load_key_packages(&thief.mls, &thief.store).unwrap();
    thief.group = conclave_engine::group::Group::load(&thief.account, &thief.mls, &thief.store, &name).unwrap();
    thief
}

/// RFC 9750, section 8.2.2: once the member has renewed its keys, who stole its state reads nothing that is said from then on.
#[test]
fn a_stolen_state_reads_nothing_after_the_members_next_commit() {
    // By a plain renewal, by a rotation, and by a commit that does something else.
    for way in 0..3 {
        let mut world = World::new();
        let [mut alice, mut bob, mut carol] = trio(&mut world);
        alice.say("before the theft");
        alice.drive_now(&mut world);
        bob.sync(&world.ds);
        let mut thief = copy(&bob);
        alice.say("after the theft");
        alice.drive_now(&mut world);
        thief.sync(&world.ds);
        assert_eq!(thief.texts(), ["after the theft"], "until then it reads everything");
        carol.sync(&world.ds);
        match way {
            0 => drop(bob.wish(Wish::Update)),
            1 => rotate(&mut world, &mut bob),
            _ => {
                let users = vec![carol.user()];
                bob.wish(Wish::Remove { users });
            }
        }
        bob.drive_now(&mut world);
        alice.sync(&world.ds);
        for person in [&mut alice, &mut bob] {
            person.say("after the cure");
            person.drive_now(&mut world);
        }
        alice.wish(Wish::Update);
        alice.drive_now(&mut world);
        bob.drive_now(&mut world);
        bob.say("an epoch later");
        bob.drive_now(&mut world);
        alice.sync(&world.ds);
        assert!(alice.texts().contains(&"an epoch later".to_owned()));
        thief.events.clear();
        for _ in 0..2 {
            thief.sync(&world.ds);
            thief.restart();
        }
        assert!(thief.texts().is_empty(), "{:?}", thief.texts());
        assert!(thief.group().epoch() < bob.group().epoch());
        // Nor has it a key of the new epoch's tree, by which it could open a session there.
        let stolen = thief.group().access().unwrap();
        let root = bob.group().key_root().unwrap();
        assert!(stolen.path.verify(&ChannelKey(stolen.key.verifying_key().to_bytes()), &root).is_err());
        agree(&mut [&mut alice, &mut bob]);
    }
}

/// A state alone can be used to come back, as its owner would: that ends where the owner has put another signature key into its leaf.
#[test]
fn after_a_rotation_a_stolen_signature_key_takes_no_place() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    let mut thief = copy(&bob);
    rotate(&mut world, &mut bob);
    bob.drive_now(&mut world);
    alice.sync(&world.ds);
    carol.sync(&world.ds);
    thief.sync(&world.ds);
    thief.sync(&world.ds);
    // It says to be who cannot follow the group, by the leaf that Bob had. That it cannot come from outside is in `outside`.
    let asked = knock(&world, &mut thief, &mut alice);
    assert!(matches!(asked, Err(KnockRefused::Outdated)), "{asked:?}");
    // Nor as who lost everything, but the certificate and its key.
    let asked = knock_for_all(&world, &thief, &mut alice);
    assert!(matches!(asked, Err(KnockRefused::Outdated)), "{asked:?}");
    // Its owner, which did lose everything, is let in.
    let mut anew = copy(&bob);
    rotate(&mut world, &mut anew);
    knock_for_all(&world, &anew, &mut alice).unwrap();
}

/// Who has changed its key asks for groups that it lost: where it is still a member by its old key, nothing is changed.
#[test]
fn a_leaf_that_has_yet_to_get_the_new_key_is_not_taken_for_lost() {
    let mut world = World::new();
    let [mut alice, mut bob, _carol] = trio(&mut world);
    let before = bob.account.signature_key.verifying_key().to_bytes();
    rotate(&mut world, &mut bob);
    let name = bob.group().name().clone();
    let asked = knock_for_all_but(&world, &bob, &mut alice, &[name]);
    assert!(matches!(asked, Err(KnockRefused::Back)), "{asked:?}");
    assert!(bob.group().may_sign_with(&before));
}

#[test]
fn a_crash_at_any_moment_of_a_rotation_changes_nothing_of_that() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = trio(&mut world);
    rotate(&mut world, &mut bob);
    let mut rounds = 0;
    while bob.group().owes_rotation() {
        bob.restart();
        bob.sync(&world.ds);
        bob.restart();
        if let Some(submission) = bob.group().next_submission(world.ds.now(), &mut Vec::new()).unwrap() {
            // What was not stored never left.
            if rounds % 2 == 0 {
                bob.restart();
            } else {
                bob.save();
                bob.restart();
                world.ds.submit(&submission).unwrap();
                bob.restart();
            }
        }
        rounds += 1;
        assert!(rounds < 10);
    }
    bob.restart();
    bob.drive_now(&mut world);
    for person in [&mut alice, &mut carol] {
        person.sync(&world.ds);
        assert_eq!(key_changes(person), ["bob"]);
    }
    agree(&mut [&mut alice, &mut bob, &mut carol]);
}
