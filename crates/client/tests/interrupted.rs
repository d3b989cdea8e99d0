//! What breaks off: a call that is dropped half-way, a server that goes back to its backup.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::{future::Future, pin::pin, task::Poll, time::Duration};

use common::{World, has, texts, user};
use conclave_client::{Client, ClientEvent, Event};
use conclave_names::GroupUri;

fn joined(events: &[ClientEvent]) -> usize {
    events.iter().filter(|happened| matches!(happened.event, Event::Joined { .. })).count()
}

/// Polls a future so many times, or as long as something comes, and drops it.
async fn drop_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    let polled = std::future::poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    });
    tokio::time::timeout(Duration::from_millis(100), polled).await.ok().flatten()
}

/// Makes a group anew, and says something in what it has become, while Bob's calls are dropped after so many polls.
async fn follows(alice: &mut Client, bob: &mut Client, group: &GroupUri, suite: u16, polls: usize) -> GroupUri {
    let mut listener = bob.listen();
    // It is attached everywhere.
    let _ = Box::pin(drop_after(200, listener.next())).await;
    alice.reinit(group, suite, false).await.unwrap();
    let text = format!("after {polls}");
    let listens = async {
        let mut heard = Vec::new();
        for _ in 0..6 {
            heard.extend(Box::pin(drop_after(polls, listener.next())).await.into_iter().flat_map(Result::unwrap));
        }
        let said = |happened: &ClientEvent| matches!(&happened.event, Event::Message { text: Some(said), .. } if *said == text);
        while !heard.iter().any(said) {
            heard.extend(listener.next().await.unwrap());
        }
    };
    let speaks = async {
        let mut speaker = alice.listen();
        while speaker.client().current(group).unwrap() == *group {
            speaker.next().await.unwrap();
        }
        let next = speaker.client().current(group).unwrap();
        drop(speaker);
        alice.send(&next, &text).await.unwrap();
        next
    };
    let both = async { tokio::join!(listens, speaks).1 };
    tokio::time::timeout(Duration::from_secs(60), Box::pin(both)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_whose_calls_are_dropped_follows_a_group_that_is_made_anew() {
    let world = World::whole().await;
    let (mut alice, mut bob, mut club) = world.pair().await;
    for (suite, polls) in [3, 1].into_iter().cycle().zip([0, 1, 3, 6, 12]) {
        club = Box::pin(follows(&mut alice, &mut bob, &club, suite, polls)).await;
    }
    assert_eq!(texts(&bob, &club).last().unwrap(), "after 12");
    world.stop().await;
}

/// As many groups with Bob as that, of which he reads nothing yet.
async fn invite(alice: &mut Client, count: usize) {
    for n in 0..count {
        let group = alice.create_group(&format!("Group {n}")).await.unwrap();
        alice.add(&group, &[user("bob")]).await.unwrap();
    }
}

/// Bob has read three invitations that the server then knows nothing of, and there are so many others.
async fn inbox_that_went_back(invitations: usize) {
    let mut world = World::whole().await;
    let (mut alice, mut bob) = (world.person("alice").await, world.person("bob").await);
    invite(&mut alice, 2).await;
    assert_eq!(joined(&bob.sync().await.unwrap()), 2);
    let backup = world.back_up().await;
    invite(&mut alice, 3).await;
    assert_eq!(joined(&bob.sync().await.unwrap()), 3);
    world.restore(&backup).await;
    // The directory has the KeyPackages again that were used.
    bob.renew_credential().await.unwrap();
    let mut carol = world.person("carol").await;
    invite(&mut carol, invitations).await;
    let events = bob.sync().await.unwrap();
    assert_eq!(joined(&events), invitations, "{events:?}");
    assert!(has(&events, |event| matches!(event, Event::InboxWentBack { .. })), "{events:?}");
    let events = bob.sync().await.unwrap();
    assert!(!has(&events, |event| matches!(event, Event::InboxWentBack { .. })), "it is told once: {events:?}");
    invite(&mut carol, 1).await;
    assert_eq!(joined(&bob.sync().await.unwrap()), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inbox_that_went_back_is_read_again() {
    Box::pin(inbox_that_went_back(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_where_as_much_came_since_as_was_lost() {
    Box::pin(inbox_that_went_back(3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_where_more_came() {
    Box::pin(inbox_that_went_back(5)).await;
}
