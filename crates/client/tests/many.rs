//! One client in many groups, of which several are in trouble of one kind each: all others are read, and said something in, without delay, and each trouble
//! is told once.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use common::{SharedStore, World, user};
use conclave_client::{Client, ClientEvent, Event, store::ProfileStore as _};
use conclave_engine::{
    account::Account,
    writes::{Room, Write},
};
use conclave_names::GroupUri;
use conclave_protocol::Code;

/// Groups in which nothing is wrong.
const WELL: usize = 34;

/// What those take at most that are read together, where each in trouble would take half a minute by itself if it were waited for.
const SOON: Duration = Duration::from_secs(25);

fn heard(events: &[ClientEvent], wanted: &str) -> usize {
    let said = |event: &Event| matches!(event, Event::Message { text: Some(text), .. } if text == wanted);
    events.iter().filter(|happened| said(&happened.event)).count()
}

/// What is told of groups in trouble, by group.
fn troubles(events: &[ClientEvent]) -> BTreeMap<&GroupUri, Vec<&Event>> {
    let mut troubles: BTreeMap<&GroupUri, Vec<&Event>> = BTreeMap::new();
    for ClientEvent { group, event } in events {
        let is_one = matches!(
            event,
            Event::GroupFailed { .. }
                | Event::SuccessorWaits { .. }
                | Event::Stuck { .. }
                | Event::RejoinBlocked { .. }
                | Event::PositionGone { .. }
                | Event::Disputed { .. }
                | Event::LogsDiffer { .. }
        );
        if let Some(group) = group.as_ref().filter(|_| is_one) {
            troubles.entry(group).or_default().push(event);
        }
    }
    troubles
}

/// A name in an SQL statement.
fn blob(bytes: &[u8]) -> String {
    format!("X'{}'", bytes.iter().map(|byte| format!("{byte:02X}")).collect::<String>())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_in_many_groups_follows_all_that_are_well() {
    let mut world = World::whole().await;
    let (mut store, mut carols) = (SharedStore::default(), SharedStore::default());
    let mut alice = world.person("alice").await;
    let mut bob = world.person_in(Box::new(store.clone()), "bob").await;
    let mut carol = world.person_in(Box::new(carols.clone()), "carol").await;
    let mut dave = world.person("dave").await;
    let kinds = ["damaged", "internal", "internal too", "frozen", "gone", "full", "disputed", "not a log"];
    let mut bad: BTreeMap<&str, GroupUri> = BTreeMap::new();
    let mut well = Vec::new();
    for n in 0..WELL + kinds.len() {
        let group = alice.create_group("A group").await.unwrap();
        let users = match kinds.get(n).copied() {
            Some("full" | "disputed") => vec![user("bob"), user("carol")],
            Some("frozen") => vec![user("bob"), user("dave")],
            _ => vec![user("bob")],
        };
        alice.add(&group, &users).await.unwrap();
        if n % 10 == 9 {
            // He has some KeyPackages at a time.
            bob.sync().await.unwrap();
        }
        match kinds.get(n) {
            Some(kind) => drop(bad.insert(kind, group)),
            None => well.push(group),
        }
    }
    for person in [&mut bob, &mut carol, &mut dave] {
        person.sync().await.unwrap();
    }
    let channels: BTreeMap<_, _> =
        bad.iter().map(|(kind, name)| (*kind, blob(bob.group(name).unwrap().profile().channel.as_bytes()))).collect();

    // Frozen, while nobody has a KeyPackage of Dave.
    alice.reinit(&bad["frozen"], 3, false).await.unwrap();
    world.database().execute("DELETE FROM ds_key_packages WHERE client LIKE '%/dave/%'", ()).unwrap();
    // Carol disputes the commit that adds Dave, as she believes nobody's certificates.
    drop(carol);
    let row = carols.get(Room::ACCOUNT, Account::KEY).unwrap().unwrap();
    let mut account = Account::from_row(&row).unwrap();
    account.issuers = Vec::new();
    carols.apply(&[account.to_write()]).unwrap();
    // His own store has a damaged row.
    drop(bob);
    let meta = [bad["damaged"].to_string().as_bytes(), b"\0meta"].concat();
    store.apply(&[Write::Put { room: Room::GROUP, key: meta, value: vec![1, 0xFF, 0xFF].into() }]).unwrap();
    // Nobody acknowledges commits.
    let refused = loop {
        match alice.update(&bad["full"]).await {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(refused.code(), Some(Code::QuotaExceeded), "{refused:?}");
    // What comes next is no longer kept, or does not follow.
    for kind in ["gone", "not a log"] {
        for text in ["one", "two", "three"] {
            alice.send(&bad[kind], text).await.unwrap();
        }
    }
    let of = |kind: &str| format!("channel = {}", channels[kind]);
    let newest = |kind: &str| format!("(SELECT max(seq) FROM ds_entries WHERE {})", of(kind));
    let server = world.database();
    for statement in [
        format!("DELETE FROM ds_entries WHERE {} AND seq < {}", of("gone"), newest("gone")),
        format!("DELETE FROM ds_entries WHERE {} AND seq = {} - 1", of("not a log"), newest("not a log")),
    ] {
        assert!(server.execute(&statement, ()).unwrap() > 0, "{statement}");
    }
    drop(server);
    // So that the server reads what it has on disk.
    world.restart_delivery(|_| {}).await;
    let damage = format!(
        "UPDATE ds_channels SET ledger = X'FF' WHERE id IN ({}, {})",
        channels["internal"], channels["internal too"]
    );
    assert_eq!(world.database().execute(&damage, ()).unwrap(), 2);
    let _eve = world.person("eve").await;
    alice.add(&bad["disputed"], &[user("eve")]).await.unwrap();
    let mut carol = Client::over(Box::new(carols), &world.services_unauthenticated()).unwrap();
    carol.set_deadline(Duration::from_secs(3));
    carol.sync().await.unwrap();

    let mut bob = Client::over(Box::new(store), &world.services()).unwrap();
    let mut told: HashSet<(GroupUri, std::mem::Discriminant<Event>)> = HashSet::new();
    for round in 0..3 {
        let text = format!("round {round}");
        for group in &well {
            alice.send(group, &text).await.unwrap();
        }
        let begun = Instant::now();
        let events = bob.sync().await.unwrap();
        assert_eq!(heard(&events, &text), WELL, "{events:?}");
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        let troubles = troubles(&events);
        for (group, of) in &troubles {
            let kind = bad.iter().find(|(_, name)| name == group).map(|(kind, _)| *kind);
            assert!(kind.is_some(), "{of:?}");
            for event in of {
                let news = told.insert(((*group).clone(), std::mem::discriminant(*event)));
                assert!(news, "told again in round {round}: {event:?} of what is {kind:?}");
            }
        }
        for group in well.iter().step_by(7) {
            let begun = Instant::now();
            bob.send(group, &format!("Bob in {round}")).await.unwrap();
            assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        }
        // Of the others it is found out when there is something to do.
        for kind in kinds.iter().filter(|kind| !["full", "frozen"].contains(kind)) {
            assert!(told.iter().any(|(group, _)| *group == bad[kind]), "{kind}: {troubles:?}");
        }
    }
    // While listening it is the same.
    let mut listener = bob.listen();
    let mut events = Vec::new();
    let begun = Instant::now();
    for round in ["to a listener", "and once more"] {
        for group in &well {
            alice.send(group, round).await.unwrap();
        }
        let listened = async {
            while heard(&events, round) < WELL {
                events.extend(listener.next().await.unwrap());
            }
        };
        tokio::time::timeout(SOON, listened).await.unwrap();
    }
    assert!(begun.elapsed() < 2 * SOON);
    for (group, of) in troubles(&events) {
        for event in of {
            assert!(told.insert((group.clone(), std::mem::discriminant(event))), "told again to a listener: {event:?}");
        }
    }
    drop(listener);
    world.stop().await;
}
