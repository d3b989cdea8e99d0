//! Members whose cryptography is of different libraries, in one group.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use common::{Person, World, agree};
use conclave_engine::{group::Status, intent::Wish};
use conclave_mls::crypto::{self, Library, SUITES, with_library};
use mls_rs::CipherSuite;

/// Everything that a person does is done with one library: what it opens, and what it makes.
struct With {
    library: Library,
    person: Person,
}

impl With {
    fn does<T>(&mut self, work: impl FnOnce(&mut Person) -> T) -> T {
        with_library(self.library, || {
            assert_eq!(crypto::suite(self.person.suite).unwrap().library(), self.library);
            work(&mut self.person)
        })
    }
}

fn with(world: &World, name: &str, library: Library, suite: CipherSuite) -> With {
    let mut person = with_library(library, || world.person(name));
    person.suite = suite;
    With { library, person }
}

fn add(world: &mut World, committer: &mut With, joiner: &mut With) {
    let package = joiner.does(|person| person.key_package(world));
    committer.does(|person| {
        person.wish(Wish::Add { key_packages: vec![package] });
        person.drive(world);
    });
    joiner.does(|person| {
        // What was stored when the KeyPackage was made is read again.
        person.restart();
        person.join(world);
        person.sync(&world.ds);
    });
}

#[test]
fn members_of_both_libraries_understand_one_another() {
    for suite in SUITES {
        for (first, second) in [(Library::AwsLc, Library::RustCrypto), (Library::RustCrypto, Library::AwsLc)] {
            converse(suite, first, second);
        }
    }
}

fn converse(suite: CipherSuite, first: Library, second: Library) {
    let mut world = World::new();
    let mut alice = with(&world, "alice", first, suite);
    let mut bob = with(&world, "bob", second, suite);
    let mut carol = with(&world, "carol", first, suite);
    alice.does(|person| person.create(&mut world, "Both"));
    add(&mut world, &mut alice, &mut bob);
    // Whoever is of the other library commits too, and adds somebody by a Welcome of its own.
    add(&mut world, &mut bob, &mut carol);
    alice.does(|person| person.sync(&world.ds));
    agree(&mut [&mut alice.person, &mut bob.person, &mut carol.person]);

    for (round, wish) in [Wish::Heartbeat, Wish::Update, Wish::Update].into_iter().enumerate() {
        for speaker in [&mut alice, &mut bob, &mut carol] {
            speaker.does(|person| {
                person.sync(&world.ds);
                person.wish(wish.clone());
                let name = person.account.client.to_string();
                person.say(&format!("{name} {round}"));
                person.drive(&mut world);
                person.restart();
            });
        }
    }
    for person in [&mut alice, &mut bob, &mut carol] {
        person.does(|person| person.sync(&world.ds));
    }
    agree(&mut [&mut alice.person, &mut bob.person, &mut carol.person]);
    let heard = alice.person.texts();
    assert_eq!(heard.len(), 9);
    assert_eq!((bob.person.texts(), carol.person.texts()), (heard.clone(), heard));

    // Leaving is a proposal of one, a commit of another.
    carol.does(|person| {
        person.wish(Wish::Leave);
        person.drive(&mut world);
    });
    for person in [&mut bob, &mut alice, &mut carol] {
        person.does(|person| person.drive(&mut world));
    }
    bob.does(|person| person.sync(&world.ds));
    agree(&mut [&mut alice.person, &mut bob.person]);
    assert_eq!(alice.person.group().members().unwrap().len(), 2);
    assert_eq!(*carol.person.group().status(), Status::Removed);
}
