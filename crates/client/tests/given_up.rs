//! A group that a client cannot follow, and into which nobody lets it, ends, over a real server.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::{SharedStore, World, chatter, has, noted, texts, user};
use conclave_client::{Client, ClientError, Event, Leaving, Status, store::ProfileStore};
use conclave_engine::writes::Room;
use conclave_names::{GroupUri, Timestamp};

const DAY: u64 = 86_400_000;

/// Bob is away until what he would read next is gone. Meanwhile Alice removed somebody: him, or Erin.
async fn locked_out(removed: &str) -> (World, Client, Client, SharedStore, GroupUri) {
    let mut world = World::whole().await;
    let store = SharedStore::default();
    let (mut alice, mut erin) = (world.person("alice").await, world.person("erin").await);
    let mut bob = world.person_in(Box::new(store.clone()), "bob").await;
    let club = alice.create_group("The Club").await.unwrap();
    alice.add(&club, &[user("bob"), user("erin")]).await.unwrap();
    bob.sync().await.unwrap();
    erin.sync().await.unwrap();
    chatter(&mut alice, &club).await;
    alice.remove(&club, &[user(removed)]).await.unwrap();
    world.forget_the_past().await;
    (world, alice, bob, store, club)
}

fn given_up(event: &Event) -> bool {
    matches!(event, Event::GivenUp { .. })
}

fn status(client: &Client, group: &GroupUri) -> Status {
    client.groups().unwrap().into_iter().find(|of| of.name == *group).unwrap().status
}

fn shows(client: &mut Client, group: &GroupUri, name: &str) -> bool {
    client.group(group).unwrap().members().unwrap().iter().any(|member| member.user == user(name))
}

/// What opens anything of the group, in the store.
fn keys(store: &SharedStore) -> usize {
    let state = |row: &(Vec<u8>, _)| row.0.windows(6).any(|part| part == b"\0state");
    store.scan(Room::EPOCH, b"").unwrap().len()
        + store.scan(Room::GROUP, b"").unwrap().iter().filter(|row| state(&(row.0.clone(), ()))).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_removed_while_it_was_away_does_not_ask_for_ever() {
    let (world, mut alice, mut bob, store, club) = Box::pin(locked_out("bob")).await;
    let events = bob.sync().await.unwrap();
    assert!(has(&events, |event| matches!(event, Event::Knocked { .. })), "{events:?}");
    assert!(matches!(bob.send(&club, "anybody there?").await.unwrap_err(), ClientError::Unconfirmed));
    let events = alice.sync().await.unwrap();
    assert!(!has(&events, |event| matches!(event, Event::Readmitted { .. })), "{events:?}");

    // As if he had asked each other day for a month, and a day less.
    let now = Timestamp(u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap());
    let asked = |bob: &mut Client, ago: u64| {
        let (at, whom) = (Timestamp(now.0 - ago * DAY), vec![user("alice").client("laptop").unwrap()]);
        bob.group(&club).unwrap().knocked(whom, at, &mut Vec::new());
    };
    for ago in (1..30).rev() {
        asked(&mut bob, ago);
    }
    assert!(!has(&bob.sync().await.unwrap(), given_up));
    assert!(matches!(status(&bob, &club), Status::Stuck { .. }) && keys(&store) > 0);
    asked(&mut bob, 31);
    let events = bob.sync().await.unwrap();
    let reason = events.iter().find_map(|happened| match &happened.event {
        Event::GivenUp { reason } => Some(reason.clone()),
        _ => None,
    });
    assert!(reason.as_ref().is_some_and(|reason| reason.contains("was removed")), "{events:?}");
    assert!(has(&events, |event| matches!(event, Event::IntentFailed { .. })), "what waited: {events:?}");
    assert_eq!((status(&bob, &club), keys(&store), noted(&bob, &club, "given_up")), (Status::Removed, 0, 1));
    assert!(bob.sync().await.unwrap().is_empty(), "it is told once");

    // What nobody can do is said.
    let refused = bob.rejoin(&club).await.unwrap_err().to_string();
    assert!(refused.contains("out of the group"), "{refused}");
    assert!(!bob.send(&club, "hello?").await.unwrap_err().is_transient());
    // And what helps helps.
    alice.add(&club, &[user("bob")]).await.unwrap();
    bob.sync().await.unwrap();
    bob.send(&club, "here I am").await.unwrap();
    alice.sync().await.unwrap();
    assert_eq!(texts(&alice, &club).last().unwrap(), "here I am");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_a_group_that_it_cannot_follow_is_out_and_the_others_are_not_told() {
    let (world, mut alice, mut bob, store, club) = Box::pin(locked_out("erin")).await;
    bob.sync().await.unwrap();
    assert_eq!(bob.leave(&club).await.unwrap(), Leaving::Unheard);
    assert_eq!((status(&bob, &club), keys(&store), noted(&bob, &club, "given_up")), (Status::Removed, 0, 1));
    assert!(bob.leave(&club).await.is_err(), "there is nothing to leave");
    drop(bob);
    let mut bob = Client::over(Box::new(store), &world.services()).unwrap();
    let events = bob.sync().await.unwrap();
    assert!(events.is_empty(), "{events:?}");
    // He had asked to be let in before. Alice does that; he reads it as any invitation, and can leave like anybody.
    alice.sync().await.unwrap();
    assert!(shows(&mut alice, &club, "bob"));
    bob.sync().await.unwrap();
    assert_eq!(bob.leave(&club).await.unwrap(), Leaving::Asked);
    alice.sync().await.unwrap();
    assert!(!shows(&mut alice, &club, "bob"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_a_way_back_leaves_like_anybody() {
    let mut world = World::whole().await;
    let (mut alice, mut bob, club) = world.pair().await;
    chatter(&mut alice, &club).await;
    alice.update(&club).await.unwrap();
    world.forget_the_past().await;
    assert_eq!(bob.leave(&club).await.unwrap(), Leaving::Asked);
    alice.sync().await.unwrap();
    assert!(!shows(&mut alice, &club, "bob"));
    assert!(has(&bob.sync().await.unwrap(), |event| matches!(event, Event::RemovedFromGroup { .. })));
    world.stop().await;
}
