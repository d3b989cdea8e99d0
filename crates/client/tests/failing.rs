//! Groups that fail for good, while the others go on; and calls that fail after something was read.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::time::Duration;

use common::{SharedStore, World, has, noted, texts, user};
use conclave_client::{Client, ClientEvent, Event, HistoryEntry, HistoryItem, Status, store::ProfileStore as _};
use conclave_engine::writes::{Room, Write};
use conclave_names::{GroupUri, Seq};
use conclave_protocol::Code;
use zeroize::Zeroizing;

/// Three groups with both in them, in the order in which they are read.
async fn groups(alice: &mut Client, bob: &mut Client) -> Vec<GroupUri> {
    for title in ["One", "Two", "Three"] {
        let group = alice.create_group(title).await.unwrap();
        alice.add(&group, &[user("bob")]).await.unwrap();
    }
    bob.sync().await.unwrap();
    bob.groups().unwrap().into_iter().map(|group| group.name).collect()
}

fn failed(events: &[ClientEvent]) -> Vec<&GroupUri> {
    let failed = events.iter().filter(|happened| matches!(happened.event, Event::GroupFailed { .. }));
    failed.filter_map(|happened| happened.group.as_ref()).collect()
}

fn heard(events: &[ClientEvent], wanted: &str) -> usize {
    let said = |event: &Event| matches!(event, Event::Message { text: Some(text), .. } if text == wanted);
    events.iter().filter(|happened| said(&happened.event)).count()
}

/// The key of a row of one group, and what is in it.
fn row(store: &SharedStore, room: Room, group: &GroupUri, end: &[u8]) -> (Vec<u8>, Zeroizing<Vec<u8>>) {
    let rows = store.scan(room, group.to_string().as_bytes()).unwrap();
    rows.into_iter().find(|(key, _)| key.ends_with(end)).unwrap()
}

fn put(store: &mut SharedStore, room: Room, key: &[u8], value: &[u8]) {
    store.apply(&[Write::Put { room, key: key.to_vec(), value: value.to_vec().into() }]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_row_of_one_group_stops_no_other_and_is_told_once() {
    let world = World::whole().await;
    let mut store = SharedStore::default();
    let mut alice = world.person("alice").await;
    let mut bob = world.person_in(Box::new(store.clone()), "bob").await;
    let groups = groups(&mut alice, &mut bob).await;
    let broken = &groups[0];
    drop(bob);
    let (key, whole) = row(&store, Room::GROUP, broken, b"\0meta");
    put(&mut store, Room::GROUP, &key, &[1, 0xFF, 0xFF]);
    for (round, text) in ["first", "second"].into_iter().enumerate() {
        for group in &groups {
            alice.send(group, text).await.unwrap();
        }
        // Opened anew each time, as the program is for each command.
        let mut bob = Client::over(Box::new(store.clone()), &world.services()).unwrap();
        let events = bob.sync().await.unwrap();
        assert_eq!(failed(&events), if round == 0 { vec![broken] } else { Vec::new() }, "{events:?}");
        assert_eq!(heard(&events, text), 2, "{events:?}");
        assert_eq!(noted(&bob, broken, "group_failed"), 1);
        // A listener goes on, too: with what comes, and in a group that it joins.
        let new = alice.create_group("New").await.unwrap();
        alice.add(&new, &[user("bob")]).await.unwrap();
        let mut listener = bob.listen();
        let mut events = listener.next().await.unwrap();
        for group in [&groups[1], &new] {
            alice.send(group, "to a listener").await.unwrap();
        }
        let listened = async {
            while heard(&events, "to a listener") < 2 {
                events.extend(listener.next().await.unwrap());
            }
        };
        tokio::time::timeout(Duration::from_secs(30), listened).await.unwrap();
        assert!(failed(&events).is_empty(), "{events:?}");
    }
    // It is as it was: nothing was lost; and if it fails again, that is told again.
    put(&mut store, Room::GROUP, &key, &whole);
    let mut bob = Client::over(Box::new(store.clone()), &world.services()).unwrap();
    let events = bob.sync().await.unwrap();
    assert!(failed(&events).is_empty(), "{events:?}");
    assert_eq!(texts(&bob, broken), ["first", "second"]);
    drop(bob);
    put(&mut store, Room::GROUP, &key, &[1, 0xFF, 0xFF]);
    let mut bob = Client::over(Box::new(store.clone()), &world.services()).unwrap();
    let events = bob.sync().await.unwrap();
    assert_eq!(failed(&events), [broken], "{events:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_row_of_the_list_of_groups_hides_one_group_and_heals() {
    let world = World::whole().await;
    let mut store = SharedStore::default();
    let mut alice = world.person("alice").await;
    let mut bob = world.person_in(Box::new(store.clone()), "bob").await;
    let groups = groups(&mut alice, &mut bob).await;
    drop(bob);
    let (key, _) = row(&store, Room::SUMMARY, &groups[1], b"\0");
    put(&mut store, Room::SUMMARY, &key, &[1, 0xFF]);
    let mut bob = Client::over(Box::new(store.clone()), &world.services()).unwrap();
    assert_eq!(bob.groups().unwrap().len(), 2);
    for group in &groups {
        alice.send(group, "hello").await.unwrap();
    }
    let events = bob.sync().await.unwrap();
    assert_eq!((failed(&events), heard(&events, "hello")), (vec![&groups[1]], 3), "{events:?}");
    assert_eq!(bob.groups().unwrap().len(), 3, "it was written anew with what was read");
    let events = bob.sync().await.unwrap();
    assert!(events.is_empty(), "{events:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_none_stops_no_other_group_and_what_came_before_it_is_told() {
    let world = World::whole().await;
    let mut alice = world.person("alice").await;
    let (mut bob, mut carol) = (world.person("bob").await, world.person("carol").await);
    let groups = groups(&mut alice, &mut bob).await;
    let broken = &groups[0];
    alice.add(broken, &[user("carol")]).await.unwrap();
    carol.sync().await.unwrap();
    for text in ["before", "withheld", "after"] {
        alice.send(broken, text).await.unwrap();
        if text == "withheld" {
            // The server loses it.
            let lose = "DELETE FROM ds_entries WHERE id = (SELECT max(id) FROM ds_entries)";
            assert_eq!(world.database().execute(lose, ()).unwrap(), 1);
        }
    }
    alice.send(&groups[2], "hello").await.unwrap();
    let events = bob.sync().await.unwrap();
    assert_eq!((heard(&events, "before"), heard(&events, "hello")), (1, 1), "{events:?}");
    assert_eq!((heard(&events, "after"), failed(&events)), (0, vec![broken]), "{events:?}");
    let events = bob.sync().await.unwrap();
    assert!(events.is_empty(), "{events:?}");
    // While listening it is the same, and nothing is tried all the time.
    alice.send(broken, "once more").await.unwrap();
    world.database().execute("DELETE FROM ds_key_packages WHERE client LIKE '%/carol/%'", ()).unwrap();
    let mut listener = carol.listen();
    let mut events = listener.next().await.unwrap();
    assert_eq!((heard(&events, "before"), failed(&events)), (1, vec![broken]), "{events:?}");
    let new = alice.create_group("New").await.unwrap();
    alice.add(&new, &[user("carol")]).await.unwrap();
    alice.send(&new, "hello").await.unwrap();
    let listened = async {
        while heard(&events, "hello") == 0 {
            events.extend(listener.next().await.unwrap());
        }
    };
    tokio::time::timeout(Duration::from_secs(30), listened).await.unwrap();
    assert_eq!(failed(&events), [broken]);
    let stock = listener.client().key_package_stock().await.unwrap();
    assert!(stock[0].available > 0, "pools are filled up all the same");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_before_a_sync_failed_is_told_by_the_next() {
    let world = World::whole().await;
    let (mut alice, mut bob) = (world.person("alice").await, world.person("bob").await);
    let groups = groups(&mut alice, &mut bob).await;
    for group in &groups {
        alice.send(group, "hello").await.unwrap();
    }
    // The groups can be read, and then the directory fails.
    world.database().execute_batch("ALTER TABLE ds_key_packages RENAME TO hidden").unwrap();
    bob.set_deadline(Duration::from_millis(200));
    assert!(bob.sync().await.unwrap_err().is_transient());
    assert!(bob.sync().await.unwrap_err().is_transient());
    world.database().execute_batch("ALTER TABLE hidden RENAME TO ds_key_packages").unwrap();
    bob.set_deadline(Duration::from_secs(30));
    alice.send(&groups[0], "and more").await.unwrap();
    let events = bob.sync().await.unwrap();
    assert_eq!((heard(&events, "hello"), heard(&events, "and more"), events.len()), (3, 1, 4), "{events:?}");
    assert!(bob.sync().await.unwrap().is_empty(), "it is told once");
    assert!(bob.take_untold().is_empty());
    world.stop().await;
}

/// Makes a group anew as far as somebody goes on in the successor.
async fn made_anew(first: &mut Client, second: &mut Client, group: &GroupUri) -> GroupUri {
    let suite = first.group(group).unwrap().cipher_suite();
    first.reinit(group, suite, true).await.unwrap();
    let made = async {
        loop {
            second.sync().await.unwrap();
            first.sync().await.unwrap();
            let now = first.current(group).unwrap();
            if now != *group {
                return now;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), made).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_of_a_history_lead_through_all_that_the_group_was() {
    let world = World::whole().await;
    let (mut alice, mut bob, mut club) = world.pair().await;
    let mut said = Vec::new();
    for round in 0..3 {
        for n in 0..4 {
            let text = format!("{round}.{n}");
            alice.send(&club, &text).await.unwrap();
            said.push(text);
        }
        if round < 2 {
            club = made_anew(&mut alice, &mut bob, &club).await;
        }
    }
    let whole = alice.history(&club, Seq(0), usize::MAX).unwrap();
    for limit in [1, 3, 1000] {
        let (mut items, mut cursor) = (Vec::new(), None);
        loop {
            let page = alice.history_page(&club, cursor.as_ref(), limit).unwrap();
            items.extend(page.items);
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(items, whole, "{limit}");
        let text = |item: &HistoryItem| match &item.entry {
            HistoryEntry::Message { text, .. } => text.clone(),
            _ => None,
        };
        assert_eq!(items.iter().filter_map(text).collect::<Vec<_>>(), said);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_left_out_of_a_successor_is_told_reads_its_other_groups_and_is_let_in() {
    let world = World::whole().await;
    let mut store = SharedStore::default();
    let (mut alice, mut carol) = (world.person("alice").await, world.person("carol").await);
    let mut bob = world.person_in(Box::new(store.clone()), "bob").await;
    let groups = groups(&mut alice, &mut bob).await;
    let club = &alice.create_group("The Club").await.unwrap();
    alice.add(club, &[user("bob"), user("carol")]).await.unwrap();
    carol.sync().await.unwrap();
    bob.sync().await.unwrap();
    drop(bob);
    // The KeyPackage by which Bob is let in is one that he has nothing of.
    for (key, _) in store.scan(Room::KEY_PACKAGE, b"").unwrap() {
        store.apply(&[Write::Delete { room: Room::KEY_PACKAGE, key }]).unwrap();
    }
    let new = made_anew(&mut alice, &mut carol, club).await;
    for group in [&new, &groups[0], &groups[2]] {
        alice.send(group, "hello").await.unwrap();
    }
    world.database().execute("DELETE FROM ds_key_packages WHERE client LIKE '%/bob/%'", ()).unwrap();
    let mut bob = Client::over(Box::new(store.clone()), &world.services()).unwrap();
    let mut events = bob.sync().await.unwrap();
    events.extend(bob.sync().await.unwrap());
    let left_out =
        |event: &Event| matches!(event, Event::Stuck { reason, .. } if reason.contains("without this client"));
    let told = events.iter().filter(|happened| left_out(&happened.event)).count();
    assert_eq!((told, heard(&events, "hello")), (1, 2), "{events:?}");
    assert!(failed(&events).is_empty(), "{events:?}");
    assert_eq!(noted(&bob, club, "stuck"), 1);
    let summary = bob.groups().unwrap().into_iter().find(|group| group.name == *club).unwrap();
    assert!(matches!(summary.status, Status::Stuck { .. }), "he is a member still: {summary:?}");
    // He has asked to be let in, without anybody's doing.
    assert!(has(&events, |event| matches!(event, Event::Knocked { .. })), "{events:?}");
    alice.sync().await.unwrap();
    alice.send(&new, "there you are").await.unwrap();
    let mut events = bob.sync().await.unwrap();
    events.extend(bob.sync().await.unwrap());
    assert_eq!(heard(&events, "there you are"), 1, "{events:?}");
    assert_eq!(bob.current(club).unwrap(), new);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_goes_on_in_a_group_that_is_made_anew() {
    let world = World::whole().await;
    let (mut alice, mut carol) = (world.person("alice").await, world.person("carol").await);
    let mut bob = world.person("bob").await;
    let groups = groups(&mut alice, &mut bob).await;
    let club = groups[1].clone();
    alice.add(&club, &[user("carol")]).await.unwrap();
    carol.sync().await.unwrap();
    let listening = async {
        let mut events = Vec::new();
        let mut listener = bob.listen();
        while heard(&events, "after") == 0 {
            events.extend(listener.next().await.unwrap());
        }
        events
    };
    let talking = async {
        let new = made_anew(&mut alice, &mut carol, &club).await;
        alice.send(&new, "after").await.unwrap();
        new
    };
    let both = Box::pin(async { tokio::join!(listening, talking) });
    let (events, new) = tokio::time::timeout(Duration::from_secs(60), both).await.unwrap();
    assert!(has(&events, |event| matches!(event, Event::Succeeded { group } if *group == new)), "{events:?}");
    assert!(failed(&events).is_empty(), "{events:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_which_the_server_takes_nothing_more_for_now_stops_no_other() {
    let world = World::whole().await;
    let (mut alice, mut bob) = (world.person("alice").await, world.person("bob").await);
    let mut carol = world.person("carol").await;
    let full = alice.create_group("Full").await.unwrap();
    alice.add(&full, &[user("carol")]).await.unwrap();
    // On both sides of it in the order of names.
    let mut groups = Vec::new();
    while !(groups.iter().any(|name| *name < full) && groups.iter().any(|name| *name > full)) {
        let group = alice.create_group("Other").await.unwrap();
        alice.add(&group, &[user("bob")]).await.unwrap();
        groups.push(group);
    }
    bob.sync().await.unwrap();
    // Nobody but Carol, who is away, could acknowledge these.
    let refused = loop {
        match alice.update(&full).await {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(refused.code(), Some(Code::QuotaExceeded), "{refused:?}");
    assert!(refused.is_transient());
    for (round, text) in ["first", "second"].into_iter().enumerate() {
        for group in &groups {
            bob.send(group, text).await.unwrap();
        }
        let events = alice.sync().await.unwrap();
        assert_eq!(heard(&events, text), groups.len(), "{events:?}");
        assert_eq!(failed(&events), if round == 0 { vec![&full] } else { Vec::new() }, "{events:?}");
    }
    let mut listener = alice.listen();
    let mut events = Vec::new();
    for group in &groups {
        bob.send(group, "third").await.unwrap();
    }
    let listened = async {
        while heard(&events, "third") < groups.len() {
            events.extend(listener.next().await.unwrap());
        }
    };
    tokio::time::timeout(Duration::from_secs(30), listened).await.unwrap();
    drop(listener);
    // Once somebody has acknowledged them, it goes on by itself. Members wait for one another with that.
    let before = alice.group(&full).unwrap().epoch();
    let goes_on = async {
        let mut listener = alice.listen();
        while listener.client().group(&full).unwrap().epoch() == before {
            let events = listener.next().await.unwrap();
            assert!(failed(&events).is_empty(), "{events:?}");
        }
    };
    let acknowledges = async {
        let mut listener = carol.listen();
        loop {
            listener.next().await.unwrap();
        }
    };
    let both = Box::pin(async {
        tokio::select! {
            () = goes_on => {}
            () = acknowledges => {}
        }
    });
    tokio::time::timeout(Duration::from_secs(60), both).await.unwrap();
    assert_eq!(alice.group(&full).unwrap().epoch(), before.next());
    alice.send(&full, "there is room again").await.unwrap();
    carol.sync().await.unwrap();
    assert_eq!(texts(&carol, &full), ["there is room again"]);
    world.stop().await;
}
