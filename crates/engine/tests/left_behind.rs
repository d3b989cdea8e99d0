//! What becomes of what waits in the store for a succession.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "common/anew.rs"]
mod anew;
mod common;

use anew::*;
use common::{Person, World};
use conclave_engine::writes::Room;
use conclave_names::GroupUri;

/// Keys of the rows of a group.
fn rows_of(person: &Person, group: &GroupUri) -> Vec<(Room, String)> {
    let name = group.to_string();
    let of = |key: &[u8]| key.windows(name.len()).any(|window| window == name.as_bytes());
    let rows = person.store.rows.keys().filter(|(_, key)| of(key));
    rows.map(|(room, key)| (*room, String::from_utf8_lossy(key).into_owned())).collect()
}

/// What is long is stored in pieces.
#[test]
fn nothing_that_waited_for_a_succession_stays_in_the_store_after_a_crash() {
    let mut world = World::new();
    world.until = common::NOW.plus_ms(4 * 365 * 86_400_000);
    let mut people: Vec<_> = (0..100).map(|number| world.person(&format!("member{number}"))).collect();
    common::group_of(&mut world, &mut people.iter_mut().collect::<Vec<_>>());
    let old = people[0].group().name().clone();
    let mut others = people.split_off(2);
    freeze(&mut world, &mut people, reinit());
    people.append(&mut others);
    make(&world, 0, &mut people);
    people[0].drive(&mut world);
    people[1].sync(&world.ds);
    for person in &mut people[..2] {
        let waits = rows_of(person, &old);
        assert!(waits.iter().any(|(room, key)| *room == Room::LONG && key.ends_with("continuation")));
        // It dies between the two transactions.
        person.restart();
        go_on(person, &world);
        let mut left = rows_of(person, &old);
        left.retain(|(room, _)| [Room::BLOB, Room::LONG, Room::PIECE].contains(room));
        assert!(left.is_empty(), "{left:?}");
    }
    assert_eq!(people[0].group().epoch_authenticator().unwrap(), people[1].group().epoch_authenticator().unwrap());
}
