//! Members that could not apply a commit come back by themselves, over a real server.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::{path::Path, time::Duration};

use common::{SharedStore, World, chatter, has, noted, texts, user};
use conclave_channel::Entry;
use conclave_client::{
    Client, ClientError, Event, Handshakes, Membership, Registration, Status, store::ProfileStore as _,
};
use conclave_engine::{account::Account, writes::Room};
use conclave_names::GroupUri;

/// Listens until something happens, for half a minute at most.
async fn until(client: &mut Client, wanted: impl Fn(&Event) -> bool) {
    let heard = async {
        let mut listener = client.listen();
        while !has(&listener.next().await.unwrap(), &wanted) {}
    };
    tokio::time::timeout(Duration::from_secs(30), heard).await.unwrap();
}

/// Has the account in a store believe no issuers.
fn forget_issuers(store: &mut SharedStore) {
    let row = store.get(Room::ACCOUNT, Account::KEY).unwrap().unwrap();
    let mut account = Account::from_row(&row).unwrap();
    account.issuers.clear();
    store.apply(&[account.to_write()]).unwrap();
}

/// A client that finds no Authentication Service: it learns of no issuer.
fn unlearning(world: &World, store: &SharedStore) -> Client {
    let mut client = Client::over(Box::new(store.clone()), &world.services_unauthenticated()).unwrap();
    client.set_deadline(Duration::from_secs(3));
    client
}

/// Everything that a server's disk has of channels, with the table. KeyPackages, which name their clients, are the directory's, and
/// so are the answers to claims, which are remembered for an hour.
fn channels_on_disk(data_dir: &Path) -> Vec<(String, Vec<u8>)> {
    let file = data_dir.join("conclave.db");
    let database = rusqlite::Connection::open_with_flags(file, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut tables = database.prepare("SELECT name FROM sqlite_master WHERE type = 'table'").unwrap();
    let tables: Vec<String> = tables.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let mut found = Vec::new();
    let of_the_directory = ["ds_key_packages", "ds_idempotency"];
    for table in tables.iter().filter(|table| table.starts_with("ds_") && !of_the_directory.contains(&table.as_str())) {
        let mut rows = database.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = rows.column_count();
        let mut rows = rows.query(()).unwrap();
        while let Some(row) = rows.next().unwrap() {
            for column in 0..columns {
                match row.get_ref(column).unwrap() {
                    rusqlite::types::ValueRef::Text(bytes) | rusqlite::types::ValueRef::Blob(bytes) => {
                        found.push((table.clone(), bytes.to_vec()));
                    }
                    _ => {}
                }
            }
        }
    }
    assert!(found.len() > 20, "there is something to look through");
    found
}

/// A server, Alice, Carol and Dave, Bob's store, in which no issuer is believed, and their group. Bob cannot apply its newest commit, which stands.
async fn victim(handshakes: Handshakes) -> (World, [Client; 3], SharedStore, GroupUri) {
    let world = World::whole().await;
    let (mut alice, mut carol) = (world.person("alice").await, world.person("carol").await);
    let mut store = SharedStore::default();
    let registration = Registration { user: "bob".into(), device: "laptop".into(), invite: None };
    let mut bob = Client::register(Box::new(store.clone()), &world.services(), registration).await.unwrap();
    let club = alice.create_group_with("The Club", handshakes).await.unwrap();
    alice.add(&club, &[user("bob"), user("carol")]).await.unwrap();
    for person in [&mut bob, &mut carol] {
        person.sync().await.unwrap();
    }
    drop(bob);
    forget_issuers(&mut store);

    // As he believes nobody's certificates, he cannot apply a commit that adds somebody. Carol can, and says so.
    let dave = world.person("dave").await;
    alice.add(&club, &[user("dave")]).await.unwrap();
    let mut bob = unlearning(&world, &store);
    assert!(has(&bob.sync().await.unwrap(), |event| matches!(event, Event::Stuck { .. })));
    until(&mut carol, |event| matches!(event, Event::Acknowledged { .. })).await;
    alice.sync().await.unwrap();
    drop(bob);
    (world, [alice, carol, dave], store, club)
}

/// Who came and went by nobody is known whom, as the membership log has it.
fn meanwhile(client: &Client, group: &GroupUri) -> Vec<(Membership, Vec<String>)> {
    let log = client.membership_log(group).unwrap().into_iter();
    let unseen = log.filter(|of| matches!(of.change, Membership::CameMeanwhile | Membership::WentMeanwhile));
    unseen
        .map(|of| {
            assert!(of.by.is_none() && !of.annulled && of.epoch.is_some(), "{of:?}");
            (of.change, of.members.iter().map(|member| member.user().name().to_owned()).collect())
        })
        .collect()
}

async fn comes_back(handshakes: Handshakes) {
    let private = matches!(handshakes, Handshakes::Private);
    let (world, [mut alice, mut carol, _dave], store, club) = Box::pin(victim(handshakes)).await;
    alice.send(&club, "Bob does not hear this").await.unwrap();
    let mut bob = unlearning(&world, &store);
    let events = bob.sync().await.unwrap();
    assert!(has(&events, |event| matches!(event, Event::RejoinBlocked { doubtful: false, .. })), "{events:?}");
    assert!(matches!(bob.group(&club).unwrap().status(), Status::Stuck { .. }));
    drop(bob);
    // Each process finds out anew; the history tells of it once.
    let mut bob = unlearning(&world, &store);
    let events = bob.sync().await.unwrap();
    assert!(has(&events, |event| matches!(event, Event::RejoinBlocked { .. })), "{events:?}");
    assert_eq!(noted(&bob, &club, "rejoin_blocked"), 1);
    let old_key = bob.group(&club).unwrap().access().unwrap().key.verifying_key().to_bytes();
    drop(bob);

    // Where there is somebody to ask for issuers, he needs nobody's help, nor another certificate of his own.
    let mut bob = Client::over(Box::new(store.clone()), &world.services()).unwrap();
    // He has known Dave, who came while he was away, by another identity key.
    bob.accept_identity(&user("dave"), &[9; 32], true).unwrap();
    let events = bob.sync().await.unwrap();
    let changed = |event: &Event| matches!(event, Event::IdentityChanged { user: of } if *of == user("dave"));
    assert!(has(&events, changed), "{events:?}");
    assert_eq!(meanwhile(&bob, &club), [(Membership::CameMeanwhile, vec!["dave".to_owned()])]);
    assert!(has(&events, |event| matches!(event, Event::Missed { .. })), "{events:?}");
    assert_eq!(*bob.group(&club).unwrap().status(), Status::Active);
    bob.send(&club, "here I am").await.unwrap();
    for person in [&mut alice, &mut carol] {
        let events = person.sync().await.unwrap();
        assert!(has(&events, |event| matches!(event, Event::Rejoined { .. })), "{events:?}");
        assert_eq!(texts(person, &club).last().unwrap(), "here I am");
        let log = person.membership_log(&club).unwrap();
        assert_eq!(
            (log.last().unwrap().change, log.last().unwrap().by.as_ref()),
            (Membership::Rejoined, Some(bob.client()))
        );
    }
    alice.send(&club, "there you are").await.unwrap();
    bob.sync().await.unwrap();
    assert_eq!(texts(&bob, &club), ["here I am", "there you are"]);
    let authenticator = alice.group(&club).unwrap().epoch_authenticator().unwrap();
    for person in [&mut bob, &mut carol] {
        person.sync().await.unwrap();
        assert_eq!(person.group(&club).unwrap().epoch_authenticator().unwrap(), authenticator);
        assert_eq!(person.group(&club).unwrap().members().unwrap().len(), 4);
    }
    if private {
        let name = bob.client().to_string();
        for (table, bytes) in channels_on_disk(world.directories[0].path()) {
            // His word that he could not apply the commit he gave under that key. Nothing ties his return to it.
            let verdict = Entry::parse(&bytes).is_ok_and(|entry| entry.kind.is_verdict());
            let shows = |secret: &[u8]| bytes.windows(secret.len()).any(|window| window == secret);
            assert!(!shows(name.as_bytes()), "{table} names who came back");
            assert!(verdict || !shows(&old_key), "{table} has the old key of who came back");
        }
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_could_not_apply_a_commit_comes_back_and_the_disk_does_not_tell_who() {
    Box::pin(comes_back(Handshakes::Private)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_where_the_server_reads_the_handshakes() {
    Box::pin(comes_back(Handshakes::Visible { external_senders: Vec::new() })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_somebody_was_removed_since_a_listener_asks_a_member_who_listens() {
    let (world, [mut alice, ..], store, club) = Box::pin(victim(Handshakes::Private)).await;
    alice.remove(&club, &[user("carol")]).await.unwrap();
    let mut bob = Client::over(Box::new(store), &world.services()).unwrap();
    tokio::join!(
        until(&mut alice, |event| matches!(event, Event::Readmitted { .. })),
        until(&mut bob, |event| matches!(event, Event::Joined { .. })),
    );
    bob.send(&club, "here I am").await.unwrap();
    until(&mut alice, |event| matches!(event, Event::Message { .. })).await;
    assert_eq!(texts(&alice, &club).last().unwrap(), "here I am");
    let mut unseen = meanwhile(&bob, &club);
    unseen.sort_by_key(|(_, who)| who.clone());
    let who = |name: &str| vec![name.to_owned()];
    assert_eq!(unseen, [(Membership::WentMeanwhile, who("carol")), (Membership::CameMeanwhile, who("dave"))]);
    assert!(meanwhile(&alice, &club).is_empty(), "she has seen it all");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_for_too_long_comes_back_by_the_newest_group_info() {
    Box::pin(comes_back_over_a_gap(Handshakes::Private)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_server_reads_the_handshakes_a_member_lets_it_in() {
    Box::pin(comes_back_over_a_gap(Handshakes::Visible { external_senders: Vec::new() })).await;
}

async fn comes_back_over_a_gap(handshakes: Handshakes) {
    let private = matches!(handshakes, Handshakes::Private);
    let mut world = World::whole().await;
    let (mut alice, mut bob) = (world.person("alice").await, world.person("bob").await);
    let club = alice.create_group_with("The Club", handshakes).await.unwrap();
    alice.add(&club, &[user("bob")]).await.unwrap();
    bob.sync().await.unwrap();
    chatter(&mut alice, &club).await;
    // Nobody is removed; the newest commit's place is still there.
    alice.update(&club).await.unwrap();
    world.forget_the_past().await;
    let mut events = bob.sync().await.unwrap();
    assert!(has(&events, |event| matches!(event, Event::PositionGone { .. })), "{events:?}");
    // What the server of a visible group serves does not tell from where to read on: a member is asked.
    assert_eq!(has(&events, |event| matches!(event, Event::Knocked { .. })), !private, "{events:?}");
    if !private {
        let answered = alice.sync().await.unwrap();
        assert!(has(&answered, |event| matches!(event, Event::Readmitted { .. })), "{answered:?}");
        events.extend(bob.sync().await.unwrap());
    }
    assert!(has(&events, |event| matches!(event, Event::Missed { .. })), "{events:?}");
    assert!(!has(&events, |event| matches!(event, Event::LogsDiffer { .. })), "{events:?}");
    assert_eq!(*bob.group(&club).unwrap().status(), Status::Active);
    bob.send(&club, "here I am").await.unwrap();
    alice.sync().await.unwrap();
    assert_eq!(texts(&alice, &club).last().unwrap(), "here I am");
    world.stop().await;
}

/// What the user believes is one member's word, not that of whoever turns up when it is taken.
#[tokio::test(flavor = "multi_thread")]
async fn whom_this_client_never_knew_is_believed_by_name_only() {
    let (world, [mut alice, mut carol, mut dave], store, club) = Box::pin(victim(Handshakes::Private)).await;
    dave.sync().await.unwrap();
    dave.update(&club).await.unwrap();
    let mut bob = Client::over(Box::new(store.clone()), &world.services()).unwrap();
    let events = bob.sync().await.unwrap();
    let dave_asks = |event: &Event| matches!(event, Event::RejoinBlocked { doubtful: true, signer: Some(signer), .. } if signer == dave.client());
    assert!(has(&events, dave_asks), "{events:?}");
    let doubtful = |error: ClientError, who: &Client| {
        assert!(matches!(&error, ClientError::Doubtful(signer) if signer == who.client()), "{error}");
        assert!(error.to_string().contains("--trust"), "{error}");
    };
    doubtful(bob.rejoin(&club).await.unwrap_err(), &dave);
    doubtful(bob.rejoin_trusting(&club, alice.client()).await.unwrap_err(), &dave);
    // While the user thinks about Dave, it comes to be the word of somebody else.
    let mut erin = world.person("erin").await;
    dave.add(&club, &[user("erin")]).await.unwrap();
    erin.sync().await.unwrap();
    erin.update(&club).await.unwrap();
    doubtful(bob.rejoin_trusting(&club, dave.client()).await.unwrap_err(), &erin);
    assert!(matches!(bob.group(&club).unwrap().status(), Status::Stuck { .. }));
    let events = bob.rejoin_trusting(&club, erin.client()).await.unwrap();
    assert!(has(&events, |event| matches!(event, Event::Rejoined { .. })), "{events:?}");
    bob.send(&club, "here I am").await.unwrap();
    for person in [&mut alice, &mut carol, &mut dave, &mut erin] {
        person.sync().await.unwrap();
        assert_eq!(texts(person, &club).last().unwrap(), "here I am");
    }
    world.stop().await;
}

/// Of each commit somebody says that it stands, and who does so looks at what is served for who has to come back.
#[tokio::test(flavor = "multi_thread")]
async fn what_leads_nobody_back_is_found_by_who_acknowledges_commits_and_mended() {
    let world = World::whole().await;
    let (mut alice, mut carol) = (world.person("alice").await, world.person("carol").await);
    let club = alice.create_group("The Club").await.unwrap();
    alice.add(&club, &[user("carol")]).await.unwrap();
    carol.sync().await.unwrap();
    // So many that they are acknowledged at once.
    for _ in 0..8 {
        alice.update(&club).await.unwrap();
    }
    let served = || {
        let sql = "SELECT epoch, length(group_info) FROM ds_group_infos";
        world.database().query_row(sql, (), |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))).unwrap()
    };
    let (epoch, _) = served();
    assert_eq!(world.database().execute("UPDATE ds_group_infos SET group_info = zeroblob(7)", ()).unwrap(), 1);
    let found = |event: &Event| matches!(event, Event::FalseGroupInfo { by: None, epoch: of } if i64::try_from(of.0) == Ok(epoch));
    until(&mut carol, found).await;
    carol.sync().await.unwrap();
    let (mended, length) = served();
    assert!(mended > epoch && length > 7, "{mended} {length}");
    assert_eq!(noted(&carol, &club, "false_group_info"), 1);
    alice.sync().await.unwrap();
    assert_eq!(alice.group(&club).unwrap().epoch(), carol.group(&club).unwrap().epoch());
    world.stop().await;
}
