//! Keying material at the directory (RFC 9750, section 5.1): refilled, used up, replaced.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::{collections::BTreeSet, path::Path, time::Duration};

use common::{SharedStore, World, user};
use conclave_client::{Client, ClientError, Event, Handshakes, Registration, SuiteStock, store::ProfileStore};
use conclave_engine::{
    account::Account,
    writes::{Room, Write},
};
use conclave_names::GroupUri;

/// What the engine keeps at the directory.
const POOL: u64 = conclave_engine::key_packages::POOL;

/// The same of the suite that is not the default.
const SIDE_POOL: u64 = conclave_engine::key_packages::SIDE_POOL;

/// With the last resorts.
const ALL: u64 = POOL + 1 + SIDE_POOL + 1;

async fn stocks(client: &mut Client) -> [SuiteStock; 2] {
    let stocks: [SuiteStock; 2] = client.key_package_stock().await.unwrap().try_into().unwrap();
    assert_eq!(stocks.map(|stock| stock.cipher_suite), [1, 3]);
    stocks
}

/// Of the default suite.
async fn stock(client: &mut Client) -> SuiteStock {
    stocks(client).await[0]
}

/// The KeyPackages that the directory has on its disk.
fn on_disk(data_dir: &Path) -> BTreeSet<Vec<u8>> {
    let file = data_dir.join("conclave.db");
    let database = rusqlite::Connection::open_with_flags(file, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut rows = database.prepare("SELECT bytes FROM ds_key_packages").unwrap();
    rows.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

async fn groups_with(client: &mut Client, count: u64, other: &str) -> Vec<GroupUri> {
    let mut groups = Vec::new();
    for n in 0..count {
        let group = client.create_group(&format!("Group {n}")).await.unwrap();
        client.add(&group, &[user(other)]).await.unwrap();
        groups.push(group);
    }
    groups
}

#[tokio::test(flavor = "multi_thread")]
async fn after_its_last_resort_was_used_a_client_replaces_it_and_renews_its_leaves() {
    let world = World::whole().await;
    let mut alice = world.person("alice").await;
    let mut bob = world.person("bob").await;
    let full = stock(&mut bob).await;
    assert!(full.available == POOL && full.last_resort && !full.last_resort_used);
    let before = on_disk(world.directories[0].path());

    let groups = groups_with(&mut alice, POOL + 2, "bob").await;
    let empty = stock(&mut bob).await;
    assert!(empty.available == 0 && empty.last_resort_used, "{empty:?}");
    bob.sync().await.unwrap();
    let refilled = stock(&mut bob).await;
    assert!(refilled.available == POOL && refilled.last_resort && !refilled.last_resort_used, "{refilled:?}");
    let after = on_disk(world.directories[0].path());
    let kept = usize::try_from(ALL + SIDE_POOL + 1).unwrap();
    assert_eq!(
        before.intersection(&after).count(),
        kept,
        "all of Bob's of this suite were replaced, the last resort too"
    );

    // Where he joined by the last resort, his leaf has fresh keys already; nowhere else.
    alice.sync().await.unwrap();
    for (n, name) in (0..).zip(&groups) {
        let (hers, his) = (alice.group(name).unwrap(), bob.group(name).unwrap());
        assert_eq!(hers.epoch_authenticator().unwrap(), his.epoch_authenticator().unwrap());
        assert_eq!(his.epoch().0, if n < POOL { 1 } else { 2 }, "group {n}");
    }
    // What is left to read comes with the new keys.
    alice.send(groups.last().unwrap(), "still there?").await.unwrap();
    let events = bob.sync().await.unwrap();
    assert!(events.iter().any(|happened| matches!(happened.event, Event::Message { .. })), "{events:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_suite_has_a_pool_and_a_last_resort_of_its_own() {
    let world = World::whole().await;
    let mut alice = world.person("alice").await;
    let store = SharedStore::default();
    let mut bob = world.person_in(Box::new(store.clone()), "bob").await;
    for (stock, pool) in stocks(&mut bob).await.into_iter().zip([POOL, SIDE_POOL]) {
        assert_eq!((stock.available, stock.last_resort, stock.last_resort_used), (pool, true, false));
    }
    let mut join = async |count: u64| {
        for _ in 0..count {
            let group = alice.create_group_in("A group", Handshakes::Private, 3).await.unwrap();
            alice.add(&group, &[user("bob")]).await.unwrap();
        }
    };
    join(1).await;
    bob.sync().await.unwrap();
    assert_eq!(stocks(&mut bob).await[1].available, SIDE_POOL - 1, "above its low-water mark");
    let before = on_disk(world.directories[0].path());
    join(SIDE_POOL).await;
    let empty = stocks(&mut bob).await;
    assert!(empty[1].available == 0 && empty[1].last_resort_used, "{empty:?}");
    assert!(
        empty[0].available == POOL && !empty[0].last_resort_used,
        "of the other suite nothing was taken: {empty:?}"
    );
    let retired = || {
        let rows = ProfileStore::scan(&store, Room::KEY_PACKAGE, b"package/").unwrap();
        rows.len() as u64
    };
    let had = retired();
    bob.sync().await.unwrap();
    let full = stocks(&mut bob).await;
    assert!(full[1].available == SIDE_POOL && full[1].last_resort && !full[1].last_resort_used, "{full:?}");
    let after = on_disk(world.directories[0].path());
    assert_eq!(
        before.intersection(&after).count() as u64,
        ALL + POOL + 1,
        "hers, and those of the default suite, stayed"
    );
    // Spent ones are gone; the last resort that was replaced waits for Welcomes that are under way.
    assert_eq!(retired(), had - (SIDE_POOL - 1) + SIDE_POOL + 1);
    // Who joined by the last resort has renewed its leaf, as in any suite.
    let epochs: Vec<_> = bob.groups().unwrap().into_iter().map(|group| group.epoch.0).collect();
    assert_eq!(epochs.iter().filter(|epoch| **epoch == 2).count(), 1, "{epochs:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_renews_its_leaf_at_once() {
    let world = World::whole().await;
    let mut alice = world.person("alice").await;
    let mut bob = world.person("bob").await;
    groups_with(&mut alice, POOL, "bob").await;
    let last = alice.create_group("The last").await.unwrap();
    let mut listener = bob.listen();
    // He catches up before he is added by his last resort. Replacing what was used up is held back until then.
    alice.add(&last, &[user("bob")]).await.unwrap();
    loop {
        let events = listener.next().await.unwrap();
        let renewed = |event: &Event| matches!(event, Event::Updated { by, .. } if by.user() == &user("bob"));
        if events.iter().any(|happened| happened.group.as_ref() == Some(&last) && renewed(&happened.event)) {
            break;
        }
    }
    assert_eq!(listener.client().group(&last).unwrap().epoch().0, 2);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pool_is_refilled_at_the_low_water_mark_and_not_before() {
    let world = World::whole().await;
    let mut alice = world.person("alice").await;
    let mut bob = world.person("bob").await;
    let used = POOL - conclave_engine::key_packages::LOW_WATER;
    groups_with(&mut alice, used - 1, "bob").await;
    bob.sync().await.unwrap();
    assert_eq!(stock(&mut bob).await.available, POOL - used + 1);
    groups_with(&mut alice, 1, "bob").await;
    bob.sync().await.unwrap();
    let refilled = stock(&mut bob).await;
    assert!(refilled.available == POOL && refilled.last_resort && !refilled.last_resort_used);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_replaces_all_key_packages_also_after_a_crash_in_between() {
    let mut world = World::split().await;
    let data_dir = world.directories[1].path().to_owned();
    let store = SharedStore::default();
    let registration = Registration { user: "bob".into(), device: "laptop".into(), invite: None };
    let mut bob = Client::register(Box::new(store.clone()), &world.services(), registration).await.unwrap();
    let first = on_disk(&data_dir);
    assert_eq!(first.len() as u64, ALL);
    bob.renew_credential().await.unwrap();
    let second = on_disk(&data_dir);
    assert_eq!((second.len() as u64, first.intersection(&second).count()), (ALL, 0));
    // Without a new certificate nothing is replaced.
    bob.sync().await.unwrap();
    assert_eq!(on_disk(&data_dir), second);

    // The directory is out of reach when the certificate comes, and then the client dies.
    let certificate = || {
        let row = ProfileStore::get(&store, Room::ACCOUNT, Account::KEY).unwrap().unwrap();
        Account::from_row(&row).unwrap().certificate
    };
    let before = certificate();
    bob.set_deadline(Duration::from_millis(100));
    let running = world.delivery.take().unwrap();
    let addr = running.addr();
    running.shutdown().await;
    // On a busy machine the deadline may pass before the certificate comes.
    while certificate() == before {
        let refused = bob.renew_credential().await.unwrap_err();
        assert!(refused.is_transient(), "{refused}");
    }
    drop(bob);
    let issuers = conclave_server::IssuerSource::Url {
        url: format!("https://{}", world.authentication.as_ref().unwrap().addr()),
        ca: Some(world.directories[0].path().join("tls/ca.pem")),
    };
    let config = conclave_server::Config {
        authentication: false,
        issuers: Some(issuers),
        listen: addr,
        ..conclave_server::Config::for_tests(&data_dir, common::domain())
    };
    world.delivery = Some(conclave_server::Server::start(config).await.unwrap());
    let mut bob = Client::over(Box::new(store.clone()), &world.services()).unwrap();
    bob.sync().await.unwrap();
    let third = on_disk(&data_dir);
    assert_eq!((third.len() as u64, second.intersection(&third).count()), (ALL, 0));

    // Who claimed one just before it was replaced can still add the client.
    let mut alice = world.person("alice").await;
    let club = alice.create_group("The Club").await.unwrap();
    alice.add(&club, &[user("bob")]).await.unwrap();
    bob.renew_credential().await.unwrap();
    bob.sync().await.unwrap();
    // His leaf came with the old certificate; it takes the new one unasked.
    assert_eq!(bob.group(&club).unwrap().epoch().0, 2);
    alice.sync().await.unwrap();
    let views = [&mut alice, &mut bob].map(|client| client.group(&club).unwrap().epoch_authenticator().unwrap());
    assert_eq!(views[0], views[1]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn private_parts_go_when_no_welcome_can_come_any_more() {
    use conclave_engine::{Mls, key_packages};
    use conclave_names::{Timestamp, limits};
    let world = World::whole().await;
    let store = SharedStore::default();
    let registration = Registration { user: "bob".into(), device: "laptop".into(), invite: None };
    let mut bob = Client::register(Box::new(store.clone()), &world.services(), registration).await.unwrap();
    let rows = |prefix: &[u8]| ProfileStore::scan(&store, Room::KEY_PACKAGE, prefix).unwrap();
    let packages = rows(b"package/").len();
    assert_eq!((packages as u64, rows(b"channel-key/").len() as u64), (ALL, ALL));
    bob.renew_credential().await.unwrap();
    assert_eq!(rows(b"package/").len(), 2 * packages, "the old ones wait for Welcomes that are under way");

    let account = ProfileStore::get(&store, Room::ACCOUNT, Account::KEY).unwrap().unwrap();
    let shared = Mls::new(&Account::from_row(&account).unwrap());
    struct Rows(SharedStore);
    impl conclave_engine::writes::Rows for Rows {
        type Error = conclave_client::store::StoreError;
        fn get(&self, room: Room, key: &[u8]) -> Result<Option<zeroize::Zeroizing<Vec<u8>>>, Self::Error> {
            ProfileStore::get(&self.0, room, key)
        }
        fn scan(&self, room: Room, prefix: &[u8]) -> Result<Vec<conclave_client::store::Row>, Self::Error> {
            ProfileStore::scan(&self.0, room, prefix)
        }
    }
    let now = u64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis());
    let now = now.unwrap();
    let swept = |at: u64| key_packages::sweep(&shared, &Rows(store.clone()), Timestamp(at)).unwrap().len();
    assert_eq!(swept(now), 0);
    assert_eq!(swept(now + limits::INVITATION_MS - 60_000), 0);
    // Each is a row of its own and one of its channel key.
    assert_eq!(swept(now + limits::INVITATION_MS + 1), 2 * packages);
    let expired = limits::KEY_PACKAGE_LIFETIME * 1000 + limits::INVITATION_MS;
    assert_eq!(swept(now + expired + 1), 4 * packages);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_by_a_key_package_that_is_not_here_has_all_replaced_but_once_a_day() {
    let world = World::whole().await;
    let store = SharedStore::default();
    let mut alice = world.person("alice").await;
    let mut bob = world.person_in(Box::new(store.clone()), "bob").await;
    let of_bob = || -> BTreeSet<Vec<u8>> {
        let database = world.database();
        let mut rows = database.prepare("SELECT bytes FROM ds_key_packages WHERE client LIKE '%/bob/%'").unwrap();
        rows.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let (day, mut doubted) = (86_400_000_u64, store.clone());
    // As if it was an older copy: first the last doubt is none, then of just now, and of a day ago.
    for (n, replaced) in [(0, true), (1, false), (2, true)] {
        drop(bob);
        let key = b"key-packages-doubted".to_vec();
        let last = doubted.get(Room::ACCOUNT, &key).unwrap();
        assert_eq!(last.is_some(), n > 0);
        if let (2, Some(last)) = (n, last) {
            let earlier = u64::from_be_bytes(last.as_slice().try_into().unwrap()) - day;
            let value = earlier.to_be_bytes().to_vec().into();
            doubted.apply(&[Write::Put { room: Room::ACCOUNT, key, value }]).unwrap();
        }
        for (key, _) in doubted.scan(Room::KEY_PACKAGE, b"").unwrap() {
            doubted.apply(&[Write::Delete { room: Room::KEY_PACKAGE, key }]).unwrap();
        }
        bob = Client::over(Box::new(store.clone()), &world.services()).unwrap();
        let group = alice.create_group(&format!("Group {n}")).await.unwrap();
        alice.add(&group, &[user("bob")]).await.unwrap();
        let before = of_bob();
        let events = bob.sync().await.unwrap();
        let dropped = |event: &Event| matches!(event, Event::InvitationDropped { .. });
        assert!(events.iter().any(|happened| dropped(&happened.event)), "{events:?}");
        bob.sync().await.unwrap();
        let after = of_bob();
        if replaced {
            assert_eq!((after.len() as u64, after.intersection(&before).count()), (ALL, 0), "{n}");
        } else {
            assert_eq!(after, before, "a server that shows old invitations has nothing made anew each time");
        }
    }
    let group = alice.create_group("At last").await.unwrap();
    alice.add(&group, &[user("bob")]).await.unwrap();
    bob.sync().await.unwrap();
    assert!(bob.group(&group).is_ok());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_a_client_that_can_join_is_not_added_and_the_reason_is_told() {
    let world = World::whole().await;
    let mut alice = world.person("alice").await;
    let club = alice.create_group("The Club").await.unwrap();
    let refused = alice.add(&club, &[user("nobody")]).await.unwrap_err();
    assert!(matches!(refused, ClientError::Call(_)), "{refused}");
    let bob = world.person("bob").await;
    drop(bob);
    // As a client of another make would have left it: without the extensions that the group requires.
    let file = world.directories[0].path().join("conclave.db");
    let poor = conclave_mls::capabilities::Capabilities::new([1], [0xF0C0], [], [2]).to_bytes().unwrap();
    let changed = rusqlite::Connection::open(file).unwrap();
    changed.execute("UPDATE ds_key_packages SET capabilities = ?1 WHERE client LIKE '%/bob/%'", [poor]).unwrap();
    match alice.add(&club, &[user("bob")]).await.unwrap_err() {
        ClientError::CannotAdd { user: whom, reason } => {
            assert_eq!(whom, user("bob"));
            assert!(reason.contains("channel_key") && reason.contains("app_data_dictionary"), "{reason}");
            assert!(reason.contains("bob/laptop"), "{reason}");
        }
        other => panic!("{other}"),
    }
    assert_eq!(alice.group(&club).unwrap().epoch().0, 0);
    world.stop().await;
}

/// A certificate counts from an hour before it was made: of such a life, two thirds are over in about two seconds.
const SOON: Duration = Duration::from_secs(1803);

/// The same where they are over at once.
const NOW: Duration = Duration::from_secs(1200);

#[tokio::test(flavor = "multi_thread")]
async fn while_the_certificate_is_good_nothing_waits_for_its_renewal() {
    let mut world = World::split_with(|config| config.credential_lifetime = NOW).await;
    let (mut alice, mut bob, club) = world.pair().await;
    world.authentication.take().unwrap().shutdown().await;
    bob.set_deadline(Duration::from_millis(300));
    let ends = bob.certificate_ends().unwrap();
    alice.set_deadline(Duration::from_millis(300));
    alice.send(&club, "nobody can renew now").await.unwrap();
    let events = bob.sync().await.unwrap();
    assert!(events.iter().any(|happened| matches!(happened.event, Event::Message { .. })), "{events:?}");
    assert_eq!(bob.certificate_ends().unwrap(), ends);
    bob.send(&club, "and all goes on").await.unwrap();
    let mut listener = alice.listen();
    let heard = |events: &[conclave_client::ClientEvent]| {
        let said =
            |event: &Event| matches!(event, Event::Message { text: Some(text), .. } if text == "and all goes on");
        events.iter().any(|happened| said(&happened.event))
    };
    let listened = async { while !heard(&listener.next().await.unwrap()) {} };
    tokio::time::timeout(Duration::from_secs(30), listened).await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_listens_for_long_renews_its_certificate() {
    let world = World::split_with(|config| config.credential_lifetime = SOON).await;
    let (mut alice, mut bob, club) = world.pair().await;
    let before = bob.certificate_ends().unwrap();
    let mut listener = bob.listen();
    // Not by a sync, which it begins with: its group's leaf takes the new one while it listens.
    let renewed = async {
        loop {
            let events = listener.next().await.unwrap();
            let own = |event: &Event| matches!(event, Event::Updated { by, .. } if by.user() == &user("bob"));
            if events.iter().any(|happened| own(&happened.event)) {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), renewed).await.unwrap();
    assert!(listener.client().certificate_ends().unwrap() > before);
    alice.sync().await.unwrap();
    assert_eq!(alice.group(&club).unwrap().epoch().0, 2);
    world.stop().await;
}
