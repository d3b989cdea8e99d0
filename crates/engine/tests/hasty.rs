//! What a member's clock decided too early: the log that comes later is what counts.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::*;
use conclave_channel::law::{DISPUTE_MS, SETTLED_MS};
use conclave_engine::{
    group::{Handshakes, Status, SubmissionBody},
    intent::Wish,
    outcome::{Event, Outcome},
};
use conclave_names::{Epoch, Seq, Timestamp};

const MINUTE: u64 = 60_000;

fn modes() -> [Handshakes; 2] {
    [Handshakes::Private, Handshakes::Visible { external_senders: Vec::new() }]
}

/// Alice, Bob, Carol and Dave. Alice's last commit is disputed, by Dave's key.
struct Cast {
    world: World,
    alice: Person,
    bob: Person,
    carol: Person,
    commit: Seq,
    before: Epoch,
}

fn cast(handshakes: Handshakes) -> Cast {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol, mut dave] = ["alice", "bob", "carol", "dave"].map(|name| world.person(name));
    alice.handshakes = handshakes;
    group_of(&mut world, &mut [&mut alice, &mut bob, &mut carol, &mut dave]);
    for person in [&mut alice, &mut bob, &mut carol] {
        person.sync(&world.ds);
    }
    let (access, before) = (dave.group().access().unwrap(), dave.group().epoch());
    alice.wish(Wish::Update);
    alice.drive_now(&mut world);
    let commit = Seq(world.ds.entries.len() as u64);
    carol.say("said in time");
    carol.drive_now(&mut world);
    false_nack(&mut world, &access);
    carol.sync(&world.ds);
    alice.sync(&world.ds);
    Cast { world, alice, bob, carol, commit, before }
}

/// A person whose clock is ahead has nothing to read, and is asked what there is to do.
fn decide_by(person: &mut Person, clock: Timestamp) {
    person.group().caught_up(clock).unwrap();
    let mut events = Vec::new();
    let _ = person.group().next_submission(clock, &mut events);
    person.events.append(&mut events);
    person.save();
    person.restart();
}

fn count(person: &Person, of: impl Fn(&Event) -> bool) -> usize {
    person.events.iter().filter(|event| of(event)).count()
}

fn is_stuck(person: &mut Person) -> bool {
    matches!(person.group().status(), Status::Stuck { .. })
}

impl Cast {
    fn clock_ahead(&self) -> Timestamp {
        self.world.ds.now().plus_ms(DISPUTE_MS + 10 * MINUTE)
    }

    fn annulled(&self, person: &Person) -> usize {
        count(person, |event| *event == Event::Annulled { commit: self.commit, epoch: self.before })
    }

    fn taken_back(&self, person: &Person) -> usize {
        count(person, |event| *event == Event::NotAnnulled { commit: self.commit })
    }
}

#[test]
fn who_annulled_a_commit_by_a_clock_that_is_ahead_comes_back_once_it_is_acknowledged_in_time() {
    for (handshakes, own, message_first) in modes()
        .into_iter()
        .flat_map(|mode| [(false, false), (false, true), (true, false)].map(|(own, first)| (mode.clone(), own, first)))
    {
        let mut cast = cast(handshakes);
        let clock = cast.clock_ahead();
        // Carol, who applied it, or Alice, who made it.
        let mut hasty =
            std::mem::replace(if own { &mut cast.alice } else { &mut cast.carol }, cast.world.person("nobody"));
        decide_by(&mut hasty, clock);
        assert_eq!((cast.annulled(&hasty), hasty.group().epoch()), (1, cast.before));
        assert_eq!(*hasty.group().status(), Status::Active);

        if message_first {
            cast.bob.say("of the epoch that began");
            // So early that he does not acknowledge it yet.
            let now = cast.world.ds.now();
            cast.bob.sync(&cast.world.ds);
            let said = cast.bob.group().next_submission(now, &mut Vec::new()).unwrap().unwrap();
            cast.bob.save();
            cast.world.ds.submit(&said).unwrap();
            let done = hasty.sync(&cast.world.ds);
            assert_eq!(done.fault, None);
            assert!(is_stuck(&mut hasty) && !hasty.group().wants_rejoin(), "it may yet be annulled");
            assert_eq!(cast.taken_back(&hasty), 1);
            hasty.restart();
            // By its clock it is, and so it tries to go on; the server knows better.
            let (tried, refusal) = loop {
                let tried = hasty.group().next_submission(clock, &mut Vec::new()).unwrap().unwrap();
                hasty.save();
                match cast.world.ds.submit(&tried) {
                    // What it said is of the epoch before the present one as well.
                    Ok(_) => assert_eq!(hasty.sync(&cast.world.ds).fault, None),
                    Err(refusal) => break (tried, refusal),
                }
            };
            assert!(matches!(tried.body, SubmissionBody::Bundle(_)));
            assert_eq!(hasty.group().refused(tried.intent, &refusal, &mut Vec::new()), Err(refusal));
        }
        cast.bob.drive_now(&mut cast.world);
        assert_eq!(cast.bob.group().settled_epoch(), cast.before.next(), "he acknowledged it");
        let done = hasty.sync(&cast.world.ds);
        assert_eq!(done.fault, None);
        assert!(done.outcomes.iter().any(|(_, outcome)| *outcome == Outcome::Counted), "{:?}", done.outcomes);
        assert_eq!((cast.annulled(&hasty), cast.taken_back(&hasty)), (1, 1));
        hasty.restart();
        assert!(hasty.group().wants_rejoin(), "{:?}", hasty.group());
        assert_eq!(hasty.begin_rejoin(&cast.world, false), Ok(()));
        hasty.drive_now(&mut cast.world);
        assert_eq!(*hasty.group().status(), Status::Active);
        hasty.say("back");
        hasty.drive_now(&mut cast.world);
        let mut third = if own { cast.carol } else { cast.alice };
        for person in [&mut cast.bob, &mut third] {
            person.drive_now(&mut cast.world);
        }
        hasty.sync(&cast.world.ds);
        agree(&mut [&mut hasty, &mut cast.bob, &mut third]);
        // What was said in the epoch that stands was sent again, and is read once.
        let in_time = |person: &Person| person.texts().iter().filter(|text| *text == "said in time").count();
        assert_eq!((in_time(&cast.bob), cast.bob.texts().last().unwrap().as_str()), (1, "back"));
    }
}

#[test]
fn who_annulled_a_commit_by_a_clock_that_is_ahead_goes_on_if_the_log_annuls_it_too() {
    for handshakes in modes() {
        let mut cast = cast(handshakes);
        let clock = cast.clock_ahead();
        decide_by(&mut cast.carol, clock);
        // An entry in time, of the epoch that is not over.
        let now = cast.world.ds.now();
        cast.alice.say("of the epoch that began");
        let said = cast.alice.group().next_submission(now, &mut Vec::new()).unwrap().unwrap();
        cast.alice.save();
        cast.world.ds.submit(&said).unwrap();
        cast.carol.sync(&cast.world.ds);
        assert!(is_stuck(&mut cast.carol));
        cast.carol.restart();

        cast.world.ds.ahead += DISPUTE_MS + 10 * MINUTE;
        cast.carol.drive_now(&mut cast.world);
        assert_eq!(*cast.carol.group().status(), Status::Active);
        assert_eq!((cast.annulled(&cast.carol), cast.taken_back(&cast.carol)), (2, 1));
        assert_eq!(count(&cast.carol, |event| matches!(event, Event::Rejoined { .. })), 0, "it has the state");
        for person in [&mut cast.alice, &mut cast.bob] {
            person.drive_now(&mut cast.world);
        }
        cast.carol.sync(&cast.world.ds);
        agree(&mut [&mut cast.alice, &mut cast.bob, &mut cast.carol]);
        assert!(cast.bob.texts().contains(&"said in time".to_owned()), "once more, in an epoch that stands");
    }
}

#[test]
fn what_time_annulled_and_the_log_annuls_as_well_is_told_once() {
    for handshakes in modes() {
        let mut cast = cast(handshakes);
        cast.world.ds.ahead += DISPUTE_MS + 10 * MINUTE;
        let now = cast.world.ds.now();
        decide_by(&mut cast.carol, now);
        cast.carol.drive_now(&mut cast.world);
        cast.alice.drive_now(&mut cast.world);
        cast.bob.drive_now(&mut cast.world);
        cast.carol.sync(&cast.world.ds);
        assert_eq!((cast.annulled(&cast.carol), cast.taken_back(&cast.carol)), (1, 0));
        agree(&mut [&mut cast.alice, &mut cast.bob, &mut cast.carol]);
    }
}

/// Time alone settles a commit that nobody has disputed in a week, and the state before it goes.
#[test]
fn a_dispute_in_time_of_what_a_clock_that_is_ahead_has_settled_counts() {
    for acknowledged in [true, false] {
        let mut world = World::new();
        let [mut alice, mut bob, mut carol] = trio(&mut world);
        let (access, before) = (bob.group().access().unwrap(), bob.group().epoch());
        alice.wish(Wish::Update);
        alice.drive_now(&mut world);
        carol.sync(&world.ds);
        world.ds.ahead += SETTLED_MS - MINUTE;
        let clock = world.ds.now().plus_ms(20 * MINUTE);
        decide_by(&mut carol, clock);
        assert_eq!(carol.group().open_commits(), 0);
        false_nack(&mut world, &access);
        let done = carol.sync(&world.ds);
        assert_eq!(done.fault, None);
        assert_eq!(carol.group().open_commits(), 1, "it is open, and disputed");
        carol.restart();
        if acknowledged {
            bob.drive_now(&mut world);
            bob.say("it stands");
            bob.drive_now(&mut world);
            carol.sync(&world.ds);
            alice.sync(&world.ds);
            assert_eq!(*carol.group().status(), Status::Active);
        } else {
            world.ds.ahead += DISPUTE_MS + 10 * MINUTE;
            alice.say("it is void");
            alice.drive_now(&mut world);
            let done = carol.sync(&world.ds);
            assert_eq!(done.fault, None);
            assert!(is_stuck(&mut carol) && carol.group().wants_rejoin(), "the state before it is gone");
            carol.restart();
            alice.wish(Wish::Update);
            alice.drive_now(&mut world);
            carol.sync(&world.ds);
            assert_eq!(carol.begin_rejoin(&world, false), Ok(()));
            carol.drive_now(&mut world);
            assert_eq!(*carol.group().status(), Status::Active);
            carol.say("back");
            carol.drive_now(&mut world);
            bob.sync(&world.ds);
            alice.sync(&world.ds);
        }
        assert!(alice.group().settled_epoch() >= before);
        agree(&mut [&mut alice, &mut bob, &mut carol]);
    }
}

/// Else she would find a fault in the log as soon as it says otherwise.
#[test]
fn who_is_invited_by_somebody_whose_clock_is_ahead_learns_what_the_log_has_decided() {
    for handshakes in modes() {
        let mut world = World::new();
        let [mut alice, mut bob, mut carol, mut dave] =
            ["alice", "bob", "carol", "dave"].map(|name| world.person(name));
        alice.handshakes = handshakes;
        group_of(&mut world, &mut [&mut alice, &mut bob, &mut carol]);
        bob.sync(&world.ds);
        let access = bob.group().access().unwrap();
        alice.wish(Wish::Update);
        alice.drive_now(&mut world);
        carol.sync(&world.ds);
        world.ds.ahead += SETTLED_MS - MINUTE;
        let clock = world.ds.now().plus_ms(20 * MINUTE);
        carol.wish(Wish::Add { key_packages: vec![dave.key_package(&world)] });
        decide_by(&mut carol, clock);
        assert_eq!(carol.group().open_commits(), 0);
        let invites = carol.group().next_submission(clock, &mut Vec::new()).unwrap().unwrap();
        carol.save();
        world.ds.submit(&invites).unwrap();
        dave.join(&world);
        dispute(&mut world, &access, 0);
        for person in [&mut alice, &mut bob, &mut carol, &mut dave] {
            assert_eq!(person.sync(&world.ds).fault, None, "{}", person.account.client);
        }
        assert_eq!((dave.group().open_commits(), carol.group().open_commits()), (2, 2));
        for _ in 0..2 {
            bob.drive_now(&mut world);
        }
        for person in [&mut alice, &mut bob, &mut carol, &mut dave] {
            assert_eq!(person.sync(&world.ds).fault, None);
        }
        agree(&mut [&mut alice, &mut bob, &mut carol, &mut dave]);
    }
}

/// What invited Dave is disputed. If his clock ended his membership, the group would have a member that has thrown its keys away.
#[test]
fn no_clock_ends_a_membership() {
    for handshakes in modes() {
        let mut world = World::new();
        let [mut alice, mut bob, mut dave] = ["alice", "bob", "dave"].map(|name| world.person(name));
        alice.handshakes = handshakes;
        group_of(&mut world, &mut [&mut alice, &mut bob]);
        bob.sync(&world.ds);
        let access = bob.group().access().unwrap();
        alice.wish(Wish::Add { key_packages: vec![dave.key_package(&world)] });
        alice.drive_now(&mut world);
        dave.join(&world);
        false_nack(&mut world, &access);
        dave.sync(&world.ds);
        let clock = world.ds.now().plus_ms(DISPUTE_MS + 10 * MINUTE);
        decide_by(&mut dave, clock);
        assert_eq!(*dave.group().status(), Status::Active);
        assert!(dave.group().due(clock).is_none_or(|due| due > clock), "or the shell would come back to it for ever");
        bob.drive_now(&mut world);
        let done = dave.sync(&world.ds);
        assert_eq!((done.fault, dave.group().open_commits()), (None, 0));
        dave.say("here");
        dave.drive_now(&mut world);
        bob.sync(&world.ds);
        alice.sync(&world.ds);
        assert_eq!(bob.texts(), ["here"]);
        agree(&mut [&mut alice, &mut bob, &mut dave]);
    }
}
