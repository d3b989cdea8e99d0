//! Members that find no way back by themselves ask others to let them in again (RFC 9750, sections 5.3 and 6.6).

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::*;
use conclave_channel::{Body, Entry, EntryKind, access::ChannelKey, size_class};
use conclave_engine::{
    group::{ANSWER_MS, AskError, KNOCK_MS, KnockRefused, RejoinError, Status},
    intent::Wish,
    key_packages,
    knock::{Knocked, KnockedError},
    outcome::Event,
    writes::Room,
};
use conclave_mls::{
    credential::IdentityBinding,
    crypto,
    knock::{Knock, Names},
};
use conclave_names::{Epoch, GroupUri, Timestamp, limits};
use conclave_protocol::SigningKey;
use mls_rs::MlsMessage;

/// Bob missed entries that are gone, and Erin was removed since: what the DS keeps for him does not open.
struct Cast {
    world: World,
    alice: Person,
    bob: Person,
    carol: Person,
}

fn cast() -> Cast {
    let mut world = World::new();
    let (mut alice, mut bob, mut carol, mut erin) =
        (world.person("alice"), world.person("bob"), world.person("carol"), world.person("erin"));
    group_of(&mut world, &mut [&mut alice, &mut bob, &mut carol, &mut erin]);
    bob.say("said before all that");
    alice.say("nobody will see this");
    alice.drive_now(&mut world);
    let users = vec![erin.user()];
    alice.wish(Wish::Remove { users });
    alice.drive_now(&mut world);
    carol.sync(&world.ds);
    lock_out(&mut bob);
    assert_eq!(bob.begin_rejoin(&world, false), Err(RejoinError::Sealed));
    let mut cast = Cast { world, alice, bob, carol };
    for person in [&mut cast.alice, &mut cast.bob, &mut cast.carol] {
        person.events.clear();
    }
    cast
}

/// What he would read next is gone.
fn lock_out(person: &mut Person) {
    let mut events = Vec::new();
    person.group().position_gone(None, &mut events);
    person.events.extend(events);
    person.save();
    assert!(person.group().wants_rejoin());
}

/// As the DS puts it into an inbox.
fn inbox_knock(knock: Vec<u8>) -> Vec<u8> {
    let body = Body::Inline(size_class::pad(knock, 0));
    Entry::new(EntryKind::Knock, Epoch(0), body).to_bytes().unwrap()
}

impl Cast {
    /// The knock of somebody, as it lies in the inbox of somebody else.
    fn knock(&mut self, from: fn(&mut Self) -> &mut Person, to: fn(&mut Self) -> &mut Person) -> Vec<u8> {
        let package = package_of(self, to);
        let ours = package_of(self, from);
        let member = to(self).account.client.clone();
        let now = self.world.ds.now();
        let post = from(self).group().knock(&member, &package, ours, now).unwrap();
        assert_eq!(post.domain, "example.com");
        inbox_knock(post.knock)
    }

    /// Takes an entry of an inbox, as the client does. Says what came of it.
    fn take(&mut self, who: fn(&mut Self) -> &mut Person, entry: &[u8]) -> Result<(), KnockRefused> {
        let now = self.world.ds.now();
        let person = who(self);
        let knocked = Knocked::open(&person.mls, entry, now).unwrap();
        let answered = person.group().answer(&knocked, now).map(drop);
        person.save();
        let writes = knocked.used(&person.mls, &person.store).unwrap();
        person.store.apply(writes);
        answered
    }

    fn everybody_reads(&mut self) {
        for person in [&mut self.alice, &mut self.bob, &mut self.carol] {
            person.sync(&self.world.ds);
        }
    }
}

fn package_of(cast: &mut Cast, who: fn(&mut Cast) -> &mut Person) -> Vec<u8> {
    let address_key = cast.world.address_key.clone();
    let (person, world) = (who(cast), World { address_key, ..World::new() });
    person.key_package(&world)
}

fn alice(cast: &mut Cast) -> &mut Person {
    &mut cast.alice
}

fn bob(cast: &mut Cast) -> &mut Person {
    &mut cast.bob
}

fn carol(cast: &mut Cast) -> &mut Person {
    &mut cast.carol
}

fn readmitted(person: &Person) -> usize {
    person.events.iter().filter(|event| matches!(event, Event::Readmitted { .. })).count()
}

#[test]
fn a_member_lets_him_in_and_what_he_wished_to_say_is_said() {
    let mut cast = cast();
    let knock = cast.knock(bob, alice);
    cast.take(alice, &knock).unwrap();
    // A crash between any two steps changes nothing.
    cast.alice.restart();
    cast.alice.drive_now(&mut cast.world);
    cast.bob.restart();
    cast.bob.join(&cast.world);
    assert_eq!(*cast.bob.group().status(), Status::Active);
    cast.bob.restart();
    cast.bob.drive_now(&mut cast.world);
    cast.everybody_reads();
    agree(&mut [&mut cast.alice, &mut cast.bob, &mut cast.carol]);
    for person in [&cast.alice, &cast.carol] {
        assert_eq!(person.texts().last().unwrap(), "said before all that");
        assert_eq!(readmitted(person), 1);
        let others =
            |event: &Event| matches!(event, Event::Added { members, .. } if members.contains(&cast.bob.account.client));
        assert_eq!(person.events.iter().filter(|event| others(event)).count(), 0, "he is nobody new");
    }
    let missed = cast.bob.events.iter().any(|event| matches!(event, Event::Missed { .. }));
    assert!(missed, "{:?}", cast.bob.events);
    assert!(cast.bob.group().knock_due(cast.world.ds.now()).is_none());
    // He is a member like all.
    cast.bob.wish(Wish::Update);
    cast.bob.drive_now(&mut cast.world);
    cast.everybody_reads();
    agree(&mut [&mut cast.alice, &mut cast.bob, &mut cast.carol]);
}

#[test]
fn what_he_wishes_while_he_is_locked_out_is_done_when_he_is_back() {
    let mut cast = cast();
    cast.bob.say("said while he was locked out");
    let mut dave = cast.world.person("dave");
    let package = dave.key_package(&cast.world);
    cast.bob.wish(Wish::Add { key_packages: vec![package] });
    // His leaf is new then.
    cast.bob.wish(Wish::Update);
    let now = cast.world.ds.now();
    assert!(cast.bob.group().next_submission(now, &mut Vec::new()).unwrap().is_none(), "it waits");
    let knock = cast.knock(bob, alice);
    cast.take(alice, &knock).unwrap();
    cast.alice.drive_now(&mut cast.world);
    cast.bob.restart();
    cast.bob.join(&cast.world);
    cast.bob.drive_now(&mut cast.world);
    assert!(cast.bob.group().intents().next().is_none());
    assert!(!cast.bob.events.iter().any(|event| matches!(event, Event::IntentFailed { .. })));
    dave.join(&cast.world);
    cast.everybody_reads();
    dave.sync(&cast.world.ds);
    for person in [&cast.alice, &cast.carol] {
        assert_eq!(person.texts(), ["said before all that", "said while he was locked out"]);
    }
    agree(&mut [&mut cast.alice, &mut cast.bob, &mut cast.carol, &mut dave]);
}

#[test]
fn what_he_said_while_he_was_locked_out_goes_to_nobody_whose_identity_is_another_now() {
    let mut cast = cast();
    cast.bob.say("for Carol as he knew her");
    let mut other = cast.world.person("carol");
    let package = other.key_package(&cast.world);
    let users = vec![other.user()];
    cast.alice.wish(Wish::Remove { users });
    cast.alice.wish(Wish::Add { key_packages: vec![package] });
    cast.alice.drive_now(&mut cast.world);
    other.join(&cast.world);
    let knock = cast.knock(bob, alice);
    cast.take(alice, &knock).unwrap();
    cast.alice.drive_now(&mut cast.world);
    cast.bob.restart();
    cast.bob.join(&cast.world);
    for _ in 0..2 {
        cast.bob.drive_now(&mut cast.world);
    }
    other.sync(&cast.world.ds);
    let failed = |event: &&Event| matches!(event, Event::IntentFailed { .. });
    assert_eq!(
        cast.bob.events.iter().filter(failed).count(),
        2,
        "what he said before all that, too: {:?}",
        cast.bob.events
    );
    assert!(other.texts().is_empty() && cast.bob.group().intents().next().is_none());
}

/// A later version of the program began something, in a row short or long, and this one does not know it.
#[test]
fn what_a_later_version_began_outlives_his_return() {
    let mut cast = cast();
    cast.bob.say("waits");
    let name = cast.bob.group().name().to_string().into_bytes();
    let rows: Vec<_> = cast.bob.store.rows.iter().filter(|((room, _), _)| *room == Room::INTENT).collect();
    // After the version and the name of the intent comes its kind.
    let (key, mut later) = rows.iter().map(|((_, key), row)| (key.clone(), (*row).clone())).next().unwrap();
    assert_eq!(later[17], 1);
    later[17] = 200;
    let order = u64::from_be_bytes(*key.last_chunk().unwrap());
    let key = |order: u64| [name.as_slice(), &[0], &order.to_be_bytes()].concat();
    let (newer, long) = ([9; 40].to_vec(), [vec![2], vec![7; 200_000]].concat());
    for (number, row) in [&later, &newer].into_iter().enumerate() {
        cast.bob.store.rows.insert((Room::INTENT, key(order + 100 + number as u64)), row.clone());
    }
    cast.bob.store.rows.insert((Room::INTENT, key(order + 200)), long.clone());
    cast.bob.restart();
    assert_eq!(cast.bob.group().foreign_intents(), 3);
    let knock = cast.knock(bob, alice);
    cast.take(alice, &knock).unwrap();
    cast.alice.drive_now(&mut cast.world);
    for _ in 0..2 {
        cast.bob.join(&cast.world);
        for _ in 0..2 {
            assert_eq!(cast.bob.group().foreign_intents(), 3);
            assert_eq!(cast.bob.store.rows[&(Room::INTENT, key(order + 100))], later);
            assert_eq!(cast.bob.store.rows[&(Room::INTENT, key(order + 101))], newer);
            // What is wished next takes none of their places.
            let id = cast.bob.wish(Wish::Update);
            assert!(cast.bob.group().is_pending(id));
            cast.bob.drive_now(&mut cast.world);
            cast.bob.restart();
        }
        // And once more: the long row is in pieces by now.
        assert!(!cast.bob.store.rows.contains_key(&(Room::INTENT, key(order + 200))));
        cast.everybody_reads();
        lock_out(&mut cast.bob);
        cast.world.ds.ahead += ANSWER_MS + 1;
        let knock = cast.knock(bob, alice);
        cast.take(alice, &knock).unwrap();
        cast.alice.drive_now(&mut cast.world);
    }
    let pieces = |cast: &Cast| cast.bob.store.rows.keys().filter(|(room, _)| *room == Room::PIECE).count();
    assert!(pieces(&cast) > 0);
}

#[test]
fn what_others_were_about_to_say_is_said_all_the_same() {
    let mut cast = cast();
    let knock = cast.knock(bob, alice);
    cast.carol.say("before Bob was back");
    cast.take(alice, &knock).unwrap();
    cast.alice.drive_now(&mut cast.world);
    cast.carol.drive_now(&mut cast.world);
    assert!(!cast.carol.events.iter().any(|event| matches!(event, Event::IntentFailed { .. })), "he is nobody new");
    cast.bob.join(&cast.world);
    cast.bob.sync(&cast.world.ds);
    assert_eq!(cast.bob.texts().last().unwrap(), "before Bob was back");
}

#[test]
fn he_says_nothing_to_members_whom_he_does_not_know() {
    let mut cast = cast();
    let mut dave = cast.world.person("dave");
    let package = dave.key_package(&cast.world);
    cast.alice.wish(Wish::Add { key_packages: vec![package] });
    cast.alice.drive_now(&mut cast.world);
    let knock = cast.knock(bob, alice);
    cast.take(alice, &knock).unwrap();
    cast.alice.drive_now(&mut cast.world);
    cast.bob.join(&cast.world);
    cast.bob.drive_now(&mut cast.world);
    let failed =
        |event: &Event| matches!(event, Event::IntentFailed { reason, .. } if reason.contains("members joined"));
    assert!(cast.bob.events.iter().any(failed), "{:?}", cast.bob.events);
    cast.everybody_reads();
    assert!(!cast.alice.texts().contains(&"said before all that".to_owned()));
    agree(&mut [&mut cast.alice, &mut cast.bob, &mut cast.carol]);
}

#[test]
fn two_who_answer_at_once_let_him_in_once() {
    let mut cast = cast();
    let (first, second) = (cast.knock(bob, alice), cast.knock(bob, carol));
    cast.take(alice, &first).unwrap();
    cast.take(carol, &second).unwrap();
    cast.alice.drive_now(&mut cast.world);
    cast.carol.drive_now(&mut cast.world);
    cast.everybody_reads();
    assert!(cast.carol.group().intents().next().is_none(), "nothing is left to do");
    cast.bob.join(&cast.world);
    cast.bob.drive_now(&mut cast.world);
    cast.everybody_reads();
    agree(&mut [&mut cast.alice, &mut cast.bob, &mut cast.carol]);
    assert_eq!((readmitted(&cast.alice), readmitted(&cast.carol)), (1, 1));
}

#[test]
fn an_old_knock_does_not_throw_him_out() {
    let mut cast = cast();
    let (first, second) = (cast.knock(bob, alice), cast.knock(bob, carol));
    cast.take(alice, &first).unwrap();
    // A copy opens no more: its KeyPackage was used up.
    let again = Knocked::open(&cast.alice.mls, &first, cast.world.ds.now());
    assert!(matches!(again, Err(KnockedError::NotForUs)), "{again:?}");
    cast.alice.drive_now(&mut cast.world);
    cast.bob.join(&cast.world);
    cast.everybody_reads();
    assert!(matches!(cast.take(carol, &second), Err(KnockRefused::Back)));
    assert!(cast.carol.group().intents().next().is_none());
}

#[test]
fn whose_new_leaf_nobody_has_heard_of_for_an_hour_is_let_in_once_more() {
    let mut cast = cast();
    let before = cast.knock(bob, alice);
    let users = vec![cast.bob.user()];
    cast.carol.wish(Wish::Remove { users });
    cast.carol.drive_now(&mut cast.world);
    let key_packages = vec![package_of(&mut cast, bob)];
    cast.carol.wish(Wish::Add { key_packages });
    cast.carol.drive_now(&mut cast.world);
    // What invites him is lost on its way.
    cast.world.ds.welcomes.clear();
    cast.alice.sync(&cast.world.ds);
    cast.world.ds.ahead += KNOCK_MS - 60_000;
    let soon = cast.knock(bob, carol);
    cast.world.ds.ahead += 60_000;
    assert!(matches!(cast.take(alice, &before), Err(KnockRefused::Back)), "he asked before");
    assert!(matches!(cast.take(carol, &soon), Err(KnockRefused::Back)), "it may be on its way");
    let (late, other) = (cast.knock(bob, alice), cast.knock(bob, carol));
    cast.alice.restart();
    cast.take(alice, &late).unwrap();
    cast.alice.drive_now(&mut cast.world);
    cast.bob.join(&cast.world);
    cast.bob.say("here I am");
    cast.bob.drive_now(&mut cast.world);
    cast.everybody_reads();
    agree(&mut [&mut cast.alice, &mut cast.bob, &mut cast.carol]);
    assert_eq!(cast.alice.texts().last().unwrap(), "here I am");
    assert!(matches!(cast.take(carol, &other), Err(KnockRefused::Back)), "he has shown himself");
}

#[test]
fn one_client_is_let_in_once_an_hour() {
    let mut cast = cast();
    let knock = cast.knock(bob, alice);
    cast.take(alice, &knock).unwrap();
    let twice = cast.knock(bob, alice);
    assert!(matches!(cast.take(alice, &twice), Err(KnockRefused::TooSoon)), "it is under way");
    cast.alice.drive_now(&mut cast.world);
    cast.bob.join(&cast.world);
    cast.everybody_reads();
    // He is locked out again at once.
    lock_out(&mut cast.bob);
    let soon = cast.knock(bob, alice);
    cast.alice.restart();
    assert!(matches!(cast.take(alice, &soon), Err(KnockRefused::TooSoon)));
    cast.world.ds.ahead += ANSWER_MS + 1;
    let later = cast.knock(bob, alice);
    cast.take(alice, &later).unwrap();
    cast.alice.drive_now(&mut cast.world);
    cast.bob.join(&cast.world);
    cast.everybody_reads();
    agree(&mut [&mut cast.alice, &mut cast.bob, &mut cast.carol]);
}

#[test]
fn a_clock_that_was_ahead_for_a_while_keeps_nobody_out_after_it() {
    const AHEAD: u64 = 10 * 24 * KNOCK_MS;
    let mut cast = cast();
    cast.world.ds.ahead += AHEAD;
    let knock = cast.knock(bob, alice);
    cast.take(alice, &knock).unwrap();
    // What is in the log has the right time.
    cast.world.ds.ahead -= AHEAD;
    cast.alice.drive_now(&mut cast.world);
    cast.bob.join(&cast.world);
    cast.everybody_reads();
    lock_out(&mut cast.bob);
    let wrong = cast.world.ds.now().plus_ms(AHEAD);
    cast.bob.group().knocked(Vec::new(), wrong, &mut Vec::new());
    cast.bob.save();
    for person in [&mut cast.alice, &mut cast.bob] {
        person.restart();
    }
    let now = cast.world.ds.now();
    assert_eq!(cast.bob.group().knock_due(now), Some(now));
    let later = cast.knock(bob, alice);
    cast.take(alice, &later).unwrap();
    cast.alice.drive_now(&mut cast.world);
    cast.bob.join(&cast.world);
    cast.everybody_reads();
    agree(&mut [&mut cast.alice, &mut cast.bob, &mut cast.carol]);
}

#[test]
fn who_is_no_member_or_not_who_it_says_is_not_let_in() {
    let mut cast = cast();
    let now = cast.world.ds.now();
    let name = cast.alice.group().name().clone();
    let suite = crypto::suite(crypto::DEFAULT_SUITE).unwrap();
    let old = own_key(&mut cast.bob);
    let mut stranger = cast.world.person("mallory");
    // Bob's name, certified anew for another identity key.
    let mut impostor = cast.world.person("bob");
    let knock = |cast: &mut Cast, person: &mut Person, group: &GroupUri, old: Option<ChannelKey>, time: Timestamp| {
        let to = package_of(cast, alice);
        let message = MlsMessage::from_bytes(&to).unwrap();
        let package = message.as_key_package().unwrap();
        let reference = package.to_reference(&suite).unwrap();
        let ours = person.key_package(&cast.world);
        let knock = {
            let names = Names { group: Some(group), old_leaves: old.into_iter().collect(), ..Names::default() };
            Knock::sign(&person.account.signature_key, &reference, names, ours, time)
        }
        .unwrap();
        inbox_knock(knock.seal(&suite, &reference, &package.hpke_init_key).unwrap().to_bytes().unwrap())
    };
    let told = knock(&mut cast, &mut stranger, &name, Some(old), now);
    assert!(matches!(cast.take(alice, &told), Err(KnockRefused::NoMember)));
    let told = knock(&mut cast, &mut impostor, &name, Some(old), now);
    assert!(matches!(cast.take(alice, &told), Err(KnockRefused::IdentityKey)));
    let account = cast.bob.account.clone();
    let mut twin = Person { account: account.clone(), ..cast.world.person("bob") };
    let told = knock(&mut cast, &mut twin, &name, Some(ChannelKey([9; 32])), now);
    assert!(matches!(cast.take(alice, &told), Err(KnockRefused::Back)), "not that leaf");
    let told = knock(&mut cast, &mut twin, &name, None, now);
    assert!(matches!(cast.take(alice, &told), Err(KnockRefused::Back)), "who has its signature key has its leaf");
    let late = Timestamp(now.0 - limits::INVITATION_MS - 1);
    let told = knock(&mut cast, &mut twin, &name, Some(old), late);
    assert!(matches!(cast.take(alice, &told), Err(KnockRefused::Late)));
    // Who signs with another key than that of the KeyPackage.
    twin.account.signature_key = SigningKey::from_bytes(&[1; 32]);
    let to = package_of(&mut cast, alice);
    let message = MlsMessage::from_bytes(&to).unwrap();
    let reference = message.as_key_package().unwrap().to_reference(&suite).unwrap();
    let ours = package_of(&mut cast, bob);
    let forged = Knock::sign(
        &twin.account.signature_key,
        &reference,
        Names { group: Some(&name), old_leaves: vec![old], ..Names::default() },
        ours,
        now,
    )
    .unwrap();
    let forged = forged.seal(&suite, &reference, &message.as_key_package().unwrap().hpke_init_key).unwrap();
    let opened = Knocked::open(&cast.alice.mls, &inbox_knock(forged.to_bytes().unwrap()), now);
    assert!(matches!(opened, Err(KnockedError::Signature)), "{opened:?}");
    // One that was for somebody else.
    let elsewhere = cast.knock(bob, carol);
    let opened = Knocked::open(&cast.alice.mls, &elsewhere, now);
    assert!(matches!(opened, Err(KnockedError::NotForUs)), "{opened:?}");
    // Who is locked out itself lets nobody in.
    let mut again = Person { account, ..cast.world.person("bob") };
    let told = knock(&mut cast, &mut again, &name, Some(old), now);
    lock_out(&mut cast.alice);
    assert!(matches!(cast.take(alice, &told), Err(KnockRefused::NotActive)));
    cast.carol.drive_now(&mut cast.world);
    assert!(cast.carol.group().members().unwrap().iter().any(|member| member.client == cast.bob.account.client));
}

#[test]
fn a_removed_member_stays_out() {
    let mut cast = cast();
    let knock = cast.knock(bob, alice);
    let users = vec![cast.bob.user()];
    cast.carol.wish(Wish::Remove { users });
    cast.carol.drive_now(&mut cast.world);
    cast.alice.sync(&cast.world.ds);
    assert!(matches!(cast.take(alice, &knock), Err(KnockRefused::NoMember)));
    // The same if he is removed while the answer is under way.
    let mut cast = self::cast();
    let knock = cast.knock(bob, alice);
    cast.take(alice, &knock).unwrap();
    let users = vec![cast.bob.user()];
    cast.carol.wish(Wish::Remove { users });
    cast.carol.drive_now(&mut cast.world);
    cast.alice.drive_now(&mut cast.world);
    cast.carol.sync(&cast.world.ds);
    assert!(cast.alice.group().intents().next().is_none());
    assert_eq!(cast.carol.group().members().unwrap().len(), 2);
}

#[test]
fn who_lost_everything_is_known_by_its_identity_key() {
    let mut cast = cast();
    // The same device of the same user, set up anew: its identity key came from elsewhere, its signature key is new.
    let (client, identity) = (cast.bob.account.client.clone(), cast.bob.account.identity_secret.clone().unwrap());
    let mut anew = cast.world.person("bob");
    let key = anew.account.signature_key.verifying_key().to_bytes();
    let end = NOW.plus_ms(86_400_000 * 30);
    anew.account.binding = IdentityBinding::sign(&identity, &client, &key, end);
    anew.account.certificate = cast.world.ca.issue(&client, &key, &anew.account.binding, NOW, end, random()).unwrap();
    anew.account.identity_secret = Some(identity);
    let suite = crypto::suite(crypto::DEFAULT_SUITE).unwrap();
    let to = package_of(&mut cast, alice);
    let message = MlsMessage::from_bytes(&to).unwrap();
    let package = message.as_key_package().unwrap();
    let reference = package.to_reference(&suite).unwrap();
    let ours = anew.key_package(&cast.world);
    let (name, now) = (cast.alice.group().name().clone(), cast.world.ds.now());
    let knock = Knock::sign(
        &anew.account.signature_key,
        &reference,
        Names { group: Some(&name), ..Names::default() },
        ours,
        now,
    )
    .unwrap();
    let knock = inbox_knock(knock.seal(&suite, &reference, &package.hpke_init_key).unwrap().to_bytes().unwrap());
    cast.take(alice, &knock).unwrap();
    cast.alice.drive_now(&mut cast.world);
    anew.join(&cast.world);
    anew.say("everything is new but me");
    anew.drive_now(&mut cast.world);
    cast.everybody_reads();
    assert_eq!(cast.alice.texts().last().unwrap(), "everything is new but me");
    agree(&mut [&mut cast.alice, &mut anew, &mut cast.carol]);
}

#[test]
fn who_knocks_asks_others_each_time_and_waits_longer() {
    let mut cast = cast();
    let now = cast.world.ds.now();
    assert_eq!(cast.bob.group().knock_due(now), Some(Timestamp(0)));
    let known = cast.bob.group().whom_to_ask().unwrap();
    assert_eq!(known.len(), 3, "all whom he knew, himself excepted");
    let mut events = Vec::new();
    cast.bob.group().knocked(vec![known[0].clone()], now, &mut events);
    assert!(matches!(&events[..], [Event::Knocked { again, .. }] if *again == now.plus_ms(KNOCK_MS)));
    cast.bob.save();
    cast.bob.restart();
    assert_eq!(cast.bob.group().knock_due(now), Some(now.plus_ms(KNOCK_MS)));
    cast.bob.group().knocked(Vec::new(), now, &mut events);
    assert_eq!(cast.bob.group().knock_due(now), Some(now.plus_ms(2 * KNOCK_MS)));
    for _ in 0..100 {
        cast.bob.group().knocked(Vec::new(), now, &mut events);
    }
    assert_eq!(cast.bob.group().knock_due(now), Some(now.plus_ms(24 * KNOCK_MS)));
    assert_eq!(events.len(), 1, "nobody was asked");
    // What the directory gives out for a member is that member's, or nobody's.
    let (theirs, ours) = (package_of(&mut cast, carol), package_of(&mut cast, bob));
    let member = cast.alice.account.client.clone();
    let refused = cast.bob.group().knock(&member, &theirs, ours.clone(), now);
    assert!(matches!(refused, Err(AskError::KeyPackage(_))), "{refused:?}");
    let impostor = cast.world.person("alice");
    let fresh = key_packages::generate(
        &impostor.account,
        &impostor.mls,
        impostor.suite,
        &cast.world.address_key,
        1,
        false,
        NOW,
    );
    let theirs = fresh.unwrap().key_packages.remove(0);
    let refused = cast.bob.group().knock(&member, &theirs, ours, now);
    assert!(matches!(refused, Err(AskError::KeyPackage(_))), "{refused:?}");
}

fn own_key(person: &mut Person) -> ChannelKey {
    ChannelKey(person.group().access().unwrap().key.verifying_key().to_bytes())
}

/// Signs and certifies the same keys of a person anew, two seconds later, where its identity key vouches for them until then.
fn vouch(world: &mut World, person: &Person, identity: &SigningKey, until: Timestamp) -> Person {
    world.ds.ahead += 2_000;
    let mut account = person.account.clone();
    let public = account.signature_key.verifying_key().to_bytes();
    account.binding = IdentityBinding::sign(identity, &account.client, &public, until);
    let (from, to) = (world.ds.now(), world.ds.now().plus_ms(3_600_000));
    account.certificate = world.ca.issue(&account.client, &public, &account.binding, from, to, random()).unwrap();
    let mut same = world.person("somebody");
    same.mls = conclave_engine::Mls::new(&account);
    same.account = account;
    same
}

/// A device whose profile is an older copy knows nothing of a group that it joined later. It has its keys, and so has whoever stole that copy.
#[test]
fn an_older_copy_of_a_profile_is_let_in_by_its_identity_key_and_not_by_a_copy_of_its_signature_key() {
    let mut world = World::new();
    let [mut alice, bob, mut carol] = trio(&mut world);
    let club = alice.group().name().clone();
    let identity = bob.account.identity_secret.clone().unwrap();
    let until = Timestamp::from_secs(bob.account.binding.not_after_secs);
    let later = until.plus_ms(1_000);
    let mut refuse = |world: &World, knocker: &Person, kept: &[GroupUri]| {
        knock_for_all_but(world, knocker, &mut alice, kept).unwrap_err()
    };

    // A thief who has all of an old copy but the identity key, which a linked device never has: nothing is to be had by it.
    assert!(matches!(refuse(&world, &bob, &[]), KnockRefused::Back));
    // Nor by a fresh certificate, which the AS gives for the word that is there, or by an older word.
    for end in [until, Timestamp(until.0 - 1_000)] {
        let thief = vouch(&mut world, &bob, &identity, end);
        assert!(matches!(refuse(&world, &thief, &[]), KnockRefused::Back));
    }
    // Nor by the word of another identity key; or as another member, by Bob's keys.
    let thief = vouch(&mut world, &bob, &SigningKey::from_bytes(&random()), later);
    assert!(matches!(refuse(&world, &thief, &[]), KnockRefused::IdentityKey));
    let mut thief = vouch(&mut world, &bob, &identity, later);
    thief.account.client = carol.account.client.clone();
    let thief = vouch(&mut world, &thief, &identity, later);
    assert!(matches!(refuse(&world, &thief, &[]), KnockRefused::IdentityKey));

    // Who follows the group says so, among others; whatever word it has, its leaf stays.
    let owner = vouch(&mut world, &bob, &identity, later);
    let other: GroupUri = "mimi://example.com/g/other".parse().unwrap();
    assert!(matches!(refuse(&world, &owner, &[other.clone(), club.clone()]), KnockRefused::Back));
    // Who does not is let in, once.
    knock_for_all_but(&world, &owner, &mut alice, std::slice::from_ref(&other)).unwrap();
    alice.drive_now(&mut world);
    carol.sync(&world.ds);
    let again = knock_for_all_but(&world, &owner, &mut carol, &[]).unwrap_err();
    assert!(matches!(again, KnockRefused::Back), "Carol finds the note later: {again}");
    // And who has the copy only is too late now.
    let asked = knock_for_all_but(&world, &bob, &mut carol, &[]).unwrap_err();
    assert!(matches!(asked, KnockRefused::Outdated), "{asked}");
}
