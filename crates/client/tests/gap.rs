//! What a member missed while it could not follow the group is told to it by others, over a real server.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::time::Duration;

use common::{SharedStore, World, has, noted, texts, user};
use conclave_client::{Client, ClientError, Event, FillError, GapFill, HistoryEntry, Registration, Status};
use conclave_names::{GroupUri, Seq};

/// What was told, in order: the text, and whose word it is.
fn told(client: &Client, group: &GroupUri) -> Vec<(String, String)> {
    let history = client.history(group, Seq(0), 1000).unwrap();
    let told = history.into_iter().filter_map(|item| match item.entry {
        HistoryEntry::Told { text, teller, .. } => Some((text.unwrap(), teller.user().name().to_owned())),
        _ => None,
    });
    told.collect()
}

/// Bob is away until what he would read next is gone, and comes back by himself.
async fn away() -> (World, Client, Client, SharedStore, GroupUri) {
    let mut world = World::whole().await;
    let (mut alice, mut carol) = (world.person("alice").await, world.person("carol").await);
    let store = SharedStore::default();
    let registration = Registration { user: "bob".into(), device: "laptop".into(), invite: None };
    let mut bob = Client::register(Box::new(store.clone()), &world.services(), registration).await.unwrap();
    let club = alice.create_group("The Club").await.unwrap();
    alice.add(&club, &[user("bob"), user("carol")]).await.unwrap();
    for person in [&mut bob, &mut carol] {
        person.sync().await.unwrap();
    }
    drop(bob);
    for n in 0..20 {
        let who = if n % 2 == 0 { &mut alice } else { &mut carol };
        who.send(&club, &format!("message {n}")).await.unwrap();
    }
    alice.update(&club).await.unwrap();
    carol.sync().await.unwrap();
    world.forget_the_past().await;
    let mut bob = Client::over(Box::new(store.clone()), &world.services()).unwrap();
    let events = bob.sync().await.unwrap();
    assert!(has(&events, |event| matches!(event, Event::Missed { .. })), "{events:?}");
    drop(bob);
    world.restart_delivery(|_| {}).await;
    (world, alice, carol, store, club)
}

fn expected(teller: &str) -> Vec<(String, String)> {
    (0..20).map(|n| (format!("message {n}"), teller.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_is_asked_and_tells_it() {
    Box::pin(asked()).await;
}

async fn asked() {
    let (world, mut alice, mut carol, store, club) = Box::pin(away()).await;
    let mut bob = Client::over(Box::new(store.clone()), &world.services()).unwrap();
    let who = bob.client().clone();
    // Nobody has read the request yet; and nobody else has asked.
    let wrong = alice.fill_gap(&club, &carol.client().clone()).await.unwrap_err();
    assert!(matches!(wrong, ClientError::Fill(FillError::NotEntitled(_))), "{wrong}");
    let events = alice.sync().await.unwrap();
    assert!(has(&events, |event| matches!(event, Event::GapRequested { messages: 20, .. })), "{events:?}");
    assert!(alice.sync().await.unwrap().is_empty());
    assert_eq!(noted(&alice, &club, "gap_requested"), 1);
    let asked = alice.gap_requests(&club).unwrap();
    assert_eq!((asked.len(), &asked[0].member), (1, &who));
    let given = alice.fill_gap(&club, &who).await.unwrap();
    assert_eq!((given.messages, given.left_out), (20, 0));
    let again = alice.fill_gap(&club, &who).await.unwrap_err();
    assert!(matches!(again, ClientError::Fill(FillError::Answered(_))), "{again}");

    let events = bob.sync().await.unwrap();
    let filled =
        |event: &Event| matches!(event, Event::GapFilled { messages: 20, complete: true, by } if by == alice.client());
    assert!(has(&events, filled), "{events:?}");
    assert_eq!(told(&bob, &club), expected("alice"));
    assert!(texts(&bob, &club).is_empty(), "he has not read them himself");
    // In their places: before what he reads since.
    alice.send(&club, "there you are").await.unwrap();
    bob.sync().await.unwrap();
    assert_eq!(texts(&bob, &club), ["there you are"]);
    let last = bob.recent(&club, 1).unwrap();
    assert!(matches!(&last[0].entry, HistoryEntry::Message { text: Some(text), .. } if text == "there you are"));
    drop(bob);
    let bob = Client::over(Box::new(store), &world.services()).unwrap();
    assert_eq!(told(&bob, &club).len(), 20);
    // Carol hears neither of it nor anything in it.
    let events = carol.sync().await.unwrap();
    assert!(!has(&events, |event| matches!(event, Event::GapRequested { .. } | Event::GapFilled { .. })), "{events:?}");
    assert!(told(&carol, &club).is_empty() && noted(&carol, &club, "gap_requested") == 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_listens_tells_it_by_itself() {
    Box::pin(by_itself()).await;
}

async fn by_itself() {
    let (world, mut alice, mut carol, store, club) = Box::pin(away()).await;
    carol.set_gap_fill(GapFill::Never).unwrap();
    alice.set_gap_fill(GapFill::Always).unwrap();
    assert!(!has(&carol.sync().await.unwrap(), |event| matches!(event, Event::GapRequested { .. })));
    assert_eq!(carol.gap_requests(&club).unwrap().len(), 1, "she may do it all the same");
    let answered = async {
        let mut listener = alice.listen();
        while !has(&listener.next().await.unwrap(), |event| matches!(event, Event::GapAnswered { .. })) {}
    };
    tokio::time::timeout(Duration::from_secs(30), answered).await.unwrap();
    alice.sync().await.unwrap();
    let mut bob = Client::over(Box::new(store), &world.services()).unwrap();
    bob.sync().await.unwrap();
    assert_eq!(told(&bob, &club), expected("alice"));
    assert_eq!(*bob.group(&club).unwrap().status(), Status::Active);
    assert!(bob.group(&club).unwrap().gap().is_none());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_setting_is_kept_and_a_later_one_is_not_guessed() {
    use conclave_client::store::ProfileStore as _;
    use conclave_engine::writes::{Room, Write};

    let world = World::whole().await;
    let mut store = SharedStore::default();
    let registration = Registration { user: "bob".into(), device: "laptop".into(), invite: None };
    let mut bob = Client::register(Box::new(store.clone()), &world.services(), registration).await.unwrap();
    assert_eq!(bob.gap_fill().unwrap(), GapFill::Ask);
    for choice in [GapFill::Never, GapFill::Always, GapFill::Ask] {
        bob.set_gap_fill(choice).unwrap();
        drop(bob);
        bob = Client::over(Box::new(store.clone()), &world.services()).unwrap();
        assert_eq!(bob.gap_fill().unwrap(), choice);
    }
    for value in [&[2, 0][..], &[1, 3], &[1], &[]] {
        let value = value.to_vec().into();
        store.apply(&[Write::Put { room: Room::ACCOUNT, key: b"gap-fill".to_vec(), value }]).unwrap();
        assert!(matches!(bob.gap_fill(), Err(ClientError::Record(_))));
    }
    world.stop().await;
}
