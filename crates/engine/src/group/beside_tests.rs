//! Somebody is locked out of a group, and invited to another of the same room: it may be what the group has become, or a lure.

use std::collections::BTreeSet;

use conclave_channel::law::Ledger;
use conclave_mls::components::GroupProfile;
use conclave_names::{ChannelId, Epoch, GroupUri, UserUri};
use mls_rs::ExtensionList;

use super::{
    Group, Status,
    access::own_channel_key,
    beside::beside,
    process::audit_tests::common::{Ds, NOW, Person, World, domain, group_of, random},
};
use crate::{Mls, intent::Wish, outcome::Event};

/// The real group, and Bob, who is locked out of it, has something to say, and has asked Carol to let him in.
struct Cast {
    world: World,
    alice: Person,
    bob: Person,
    carol: Person,
    dave: Person,
    erin: Person,
    /// The KeyPackage in his knock.
    asked_with: Vec<u8>,
}

fn cast() -> Cast {
    let mut world = World::new();
    let mut people = ["alice", "bob", "carol", "dave", "erin"].map(|name| world.person(name));
    group_of(&mut world, &mut people.iter_mut().collect::<Vec<_>>());
    let [alice, mut bob, mut carol, dave, erin] = people;
    bob.sync(&world.ds);
    bob.say("for the club only");
    let (mut told, now) = (Vec::new(), world.ds.now());
    bob.group().position_gone(None, &mut told);
    let (theirs, asked_with) = (carol.key_package(&world), bob.key_package(&world));
    bob.group().knock(&carol.account.client, &theirs, asked_with.clone(), now).unwrap();
    bob.group().knocked(vec![carol.account.client.clone()], now, &mut told);
    bob.save();
    Cast { world, alice, bob, carol, dave, erin, asked_with }
}

impl Cast {
    /// Carol makes another group of the same room, as nobody keeps her from doing, and leaves the real one aside.
    fn another_of_the_room(&mut self) {
        let real = self.carol.group.take().unwrap();
        let profile = GroupProfile { channel: ChannelId::new(random()), ..real.profile.clone() };
        let mut extensions: ExtensionList = real.mls.context().extensions.clone();
        let dictionary = profile.to_dictionary().and_then(|dictionary| dictionary.to_extension()).unwrap();
        extensions.set(dictionary);
        let name = GroupUri::new(domain(), "another").unwrap();
        let by = (&self.carol.account, &self.carol.mls);
        let group = Group::create_with(by, name, profile, extensions, real.mls.cipher_suite(), NOW).unwrap();
        self.world.ds = Ds {
            channel: Some(group.profile().channel),
            ledger: Some(Ledger::new(Epoch(0), group.key_root().unwrap(), 1)),
            ..Ds::default()
        };
        self.carol.group = Some(group);
        self.carol.save();
    }

    fn carol_adds(&mut self, key_packages: Vec<Vec<u8>>) {
        self.carol.wish(Wish::Add { key_packages });
        self.carol.drive_now(&mut self.world);
    }

    /// Takes up Carol's invitation, as the client does. Gives the group that Bob is locked out of.
    fn bob_joins(&mut self) -> Group {
        let mut old = self.bob.group.take().unwrap();
        self.bob.join(&self.world);
        let (next, by) = (self.bob.group.as_mut().unwrap(), &self.carol.account.client);
        assert!(old.may_be_continued_by(next, by) && !old.is_continued_by(next, by));
        old.stay_beside(next);
        next.stand_beside(by);
        assert!(!old.is_continued_beside(next));
        self.bob.store.apply(old.take_writes().unwrap());
        self.bob.save();
        old
    }

    /// Everybody else is there and talks, who is so in truth.
    fn says(&mut self, who: fn(&mut Self) -> &mut Person) {
        let mut world = std::mem::replace(&mut self.world, World::new());
        let person = who(self);
        person.sync(&world.ds);
        person.say("hello");
        person.drive_now(&mut world);
        self.world = world;
        self.bob.sync(&self.world.ds);
    }

    fn is_continued(&mut self, old: &Group) -> bool {
        // Also after a restart.
        let before = old.is_continued_beside(self.bob.group());
        let name = self.bob.group().name().clone();
        self.bob.restart();
        assert!(self.bob.group().stands_beside() && beside(&self.bob.store, &name).unwrap().is_some());
        assert_eq!(old.is_continued_beside(self.bob.group()), before);
        before
    }
}

fn joins(cast: &mut Cast, who: fn(&mut Cast) -> &mut Person) {
    let world = std::mem::replace(&mut cast.world, World::new());
    let person = who(cast);
    person.group = None;
    person.join(&world);
    cast.world = world;
}

fn waits(old: &Group) {
    assert!(matches!(old.status, Status::Stuck { .. }) && old.wants_rejoin());
    assert_eq!(old.intents().count(), 1, "what waits stays here");
    assert!(old.knock_due(NOW).is_some(), "others are asked on");
}

#[test]
fn one_member_lures_nobody_out_of_a_group_by_another_of_its_room() {
    let mut cast = cast();
    cast.another_of_the_room();
    // Everybody is a member, as the directory gives out KeyPackages of all. None of them ever hears of it.
    let world = std::mem::replace(&mut cast.world, World::new());
    let mut packages = vec![cast.asked_with.clone()];
    for person in [&mut cast.alice, &mut cast.dave, &mut cast.erin] {
        packages.push(person.key_package(&world));
    }
    // But somebody who was never in the club, and talks.
    let mut eve = world.person("eve");
    packages.push(eve.key_package(&world));
    cast.world = world;
    cast.carol_adds(packages);
    let old = cast.bob_joins();
    waits(&old);
    // That leaf of his is none that he wants to be replaced.
    let leaf = own_channel_key(&cast.bob.group().mls).unwrap();
    assert!(!old.leaves_to_replace().unwrap().contains(&leaf));
    cast.says(|cast| &mut cast.carol);
    eve.join(&cast.world);
    eve.sync(&cast.world.ds);
    eve.say("hello");
    eve.drive_now(&mut cast.world);
    cast.bob.sync(&cast.world.ds);
    assert!(cast.bob.texts().len() == 2 && !cast.is_continued(&old));
    waits(&old);
    // Nor does it end when it is made anew in turn, under another name.
    let name = cast.bob.group().name().clone();
    let mut anew =
        Group::load(&cast.bob.account, &Mls::new(&cast.bob.account), &cast.bob.store, &name).unwrap().unwrap();
    anew.end_beside();
    anew.descends_from(cast.bob.group());
    assert!(anew.stands_beside());
}

#[test]
fn what_a_group_has_become_is_that_once_another_member_is_seen_there() {
    let mut cast = cast();
    cast.another_of_the_room();
    let world = std::mem::replace(&mut cast.world, World::new());
    let packages = vec![cast.asked_with.clone(), cast.dave.key_package(&world)];
    cast.world = world;
    cast.carol_adds(packages);
    let mut old = cast.bob_joins();
    joins(&mut cast, |cast| &mut cast.dave);
    cast.says(|cast| &mut cast.dave);
    assert!(!cast.is_continued(&old), "but two of four are not most");
    let world = std::mem::replace(&mut cast.world, World::new());
    let packages = vec![cast.alice.key_package(&world)];
    cast.world = world;
    cast.carol.sync(&cast.world.ds);
    cast.carol_adds(packages);
    cast.bob.sync(&cast.world.ds);
    assert!(cast.is_continued(&old));
    let next = cast.bob.group.as_mut().unwrap();
    let mut told = Vec::new();
    old.continued_by(next, NOW, &mut told);
    assert!(told.contains(&Event::Succeeded { group: next.name().clone() }), "{told:?}");
    assert!(!next.stands_beside() && next.intents().count() == 1 && old.intents().count() == 0);
    assert_eq!(old.status, Status::Removed);
    let mut writes = old.take_writes().unwrap();
    writes.extend(next.take_writes().unwrap());
    cast.bob.store.apply(writes);
    let name = next.name().clone();
    assert_eq!(beside(&cast.bob.store, &name).unwrap(), None);
}

#[test]
fn who_has_lost_everything_takes_no_single_word_for_it_either() {
    let mut cast = cast();
    cast.another_of_the_room();
    let world = std::mem::replace(&mut cast.world, World::new());
    let packages = vec![cast.asked_with.clone(), cast.dave.key_package(&world)];
    cast.world = world;
    cast.carol_adds(packages);
    cast.bob_joins();
    let name = cast.bob.group().name().clone();
    let users = |people: &[&Person]| people.iter().map(|person| person.user()).collect::<BTreeSet<UserUri>>();
    let shown = |cast: &Cast, users| beside(&cast.bob.store, &name).unwrap().unwrap().is_shown_by(&users);
    cast.says(|cast| &mut cast.carol);
    assert!(!shown(&cast, users(&[&cast.alice, &cast.carol, &cast.dave])));
    assert!(shown(&cast, users(&[&cast.carol])), "nobody else was in the group that was lost");
    joins(&mut cast, |cast| &mut cast.dave);
    cast.says(|cast| &mut cast.dave);
    assert!(shown(&cast, users(&[&cast.alice, &cast.carol, &cast.dave])));
    assert!(!shown(&cast, users(&[&cast.alice, &cast.carol])), "Dave was not in that one");
}
