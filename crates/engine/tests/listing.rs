//! Lists of groups: what they show, and what they do not read.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::cell::RefCell;

use common::*;
use conclave_engine::{
    group::{GroupSummary, LoadError, Status, list},
    intent::Wish,
    writes::{Room, Rows},
};
use conclave_names::Epoch;
use zeroize::Zeroizing;

/// A store that notes which rooms are read.
struct Watched<'a>(&'a Store, RefCell<Vec<Room>>);

impl Rows for Watched<'_> {
    type Error = <Store as Rows>::Error;

    fn get(&self, room: Room, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, Self::Error> {
        self.1.borrow_mut().push(room);
        self.0.get(room, key)
    }

    fn scan(&self, room: Room, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Zeroizing<Vec<u8>>)>, Self::Error> {
        self.1.borrow_mut().push(room);
        self.0.scan(room, prefix)
    }
}

fn listed(person: &Person) -> GroupSummary {
    let store = Watched(&person.store, RefCell::default());
    let [summary] = list(&store).unwrap().try_into().unwrap();
    assert_eq!(store.1.take(), [Room::SUMMARY]);
    summary
}

#[test]
fn a_list_shows_each_group_as_it_is_and_reads_nothing_else() {
    let mut world = World::new();
    let [mut alice, mut bob, mut carol] = ["alice", "bob", "carol"].map(|name| world.person(name));
    group_of(&mut world, &mut [&mut alice, &mut bob, &mut carol]);
    for person in [&mut alice, &mut bob, &mut carol] {
        let summary = listed(person);
        let group = person.group();
        assert_eq!((&summary.name, &summary.title), (group.name(), &group.profile().title));
        assert_eq!((&summary.room, &summary.hub), (&group.profile().room, &group.profile().hub));
        assert_eq!((summary.epoch, summary.members), (group.epoch(), 3));
        assert_eq!((summary.status, summary.may_return), (Status::Active, false));
    }

    // What is said changes nothing of it, and does not write it again.
    let before = (listed(&alice), listed(&bob));
    alice.store.rows.retain(|(room, _), _| *room != Room::SUMMARY);
    alice.say("hello");
    alice.drive(&mut world);
    bob.drive(&mut world);
    assert!(list(&alice.store).unwrap().is_empty(), "the row was not written again");
    assert_eq!(listed(&bob), before.1);
    // It is after the group was opened anew.
    alice.restart();
    alice.say("hello again");
    assert_eq!(listed(&alice), before.0);

    let removed = carol.account.client.user().clone();
    alice.wish(Wish::Remove { users: vec![removed] });
    alice.drive(&mut world);
    for person in [&mut bob, &mut carol] {
        person.sync(&world.ds);
    }
    assert_eq!((listed(&alice).members, listed(&bob).members), (2, 2));
    assert_eq!(listed(&bob).epoch, Epoch(before.1.epoch.0 + 1));
    let gone = listed(&carol);
    assert_eq!((gone.status, gone.may_return), (Status::Removed, true), "the removal may be annulled");
    assert_eq!((gone.title, gone.name), (before.1.title, before.1.name));
}

#[test]
fn a_damaged_row_is_told_and_not_left_out() {
    let mut world = World::new();
    let [mut alice, mut bob] = ["alice", "bob"].map(|name| world.person(name));
    group_of(&mut world, &mut [&mut alice, &mut bob]);
    let key = alice.store.rows.keys().find(|(room, _)| *room == Room::SUMMARY).unwrap().clone();
    for value in [vec![], vec![2], vec![1, 0], [alice.store.rows[&key].clone(), vec![0]].concat()] {
        alice.store.rows.insert(key.clone(), value);
        assert!(matches!(list(&alice.store), Err(LoadError::Record(_))));
    }
}
