//! A program that embeds the client has it in a task of its own, on a runtime with many threads.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use common::{World, texts};
use conclave_client::{
    Client, ClientError, ClientEvent, Event, ExternalRequest, Handshakes, LinkCode, LinkRequest, Listing, PendingLink,
    PendingRotation, RecoveryFile, Registration, Services, store::ProfileStore,
};
use conclave_names::{ClientUri, GroupUri, UserUri};
use tokio::sync::mpsc::{self, UnboundedSender};

/// Follows the groups until somebody says the last word, and hands the client back.
async fn follow(mut client: Client, told: UnboundedSender<ClientEvent>) -> Result<Client, ClientError> {
    let mut listener = client.listen();
    loop {
        for event in listener.next().await? {
            let last = matches!(&event.event, Event::Message { text: Some(text), .. } if text == "bye");
            told.send(event).unwrap();
            if last {
                drop(listener);
                return Ok(client);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_lives_in_a_task_that_others_talk_to() {
    let world = World::whole().await;
    let (mut alice, bob, club) = world.pair().await;
    let (told, mut events) = mpsc::unbounded_channel();
    let bob = tokio::spawn(follow(bob, told));
    let sender = tokio::spawn({
        let club = club.clone();
        async move {
            for text in ["hello", "bye"] {
                alice.send(&club, text).await.unwrap();
            }
            alice
        }
    });
    let mut bob = bob.await.unwrap().unwrap();
    let mut heard = Vec::new();
    while let Some(event) = events.recv().await {
        assert_eq!(event.group.as_ref(), Some(&club));
        if let Event::Message { text, .. } = event.event {
            heard.push(text.unwrap());
        }
    }
    assert_eq!(heard, ["hello", "bye"]);
    let mut alice = sender.await.unwrap();
    bob.send(&club, "was it all?").await.unwrap();
    alice.sync().await.unwrap();
    assert_eq!(texts(&alice, &club), ["hello", "bye", "was it all?"]);
}

fn may_be_spawned<T: Send>(_: T) {}

/// Compiles only while every call may go from thread to thread: a closure of a borrow, or a shared borrow of the client that is held
/// while a call waits, would bind it to one.
#[expect(dead_code, reason = "it is to compile")]
fn every_call_may_be_spawned(client: &mut Client, group: &GroupUri, users: &[UserUri]) {
    may_be_spawned(client.create_group_with("", Handshakes::Private));
    may_be_spawned(client.add(group, users));
    may_be_spawned(client.remove(group, users));
    may_be_spawned(client.leave(group));
    may_be_spawned(client.update(group));
    may_be_spawned(client.send(group, ""));
    may_be_spawned(client.send_to_all(group, ""));
    may_be_spawned(client.heartbeat(group));
    may_be_spawned(client.reinit(group, 3, false));
    may_be_spawned(client.go_on_without(group));
    may_be_spawned(client.rejoin(group));
    may_be_spawned(client.sync());
    may_be_spawned(client.sync_group(group));
    may_be_spawned(client.rotate_keys());
    may_be_spawned(client.ask_to_rotate());
    may_be_spawned(client.renew_credential());
    may_be_spawned(client.refill_key_packages());
    may_be_spawned(client.key_package_stock());
    may_be_spawned(client.ask_for_groups(users));
    may_be_spawned(client.listen().next());
}

/// The same for those that need what only other calls give.
#[expect(dead_code, reason = "it is to compile")]
fn and_who_is_back(client: &mut Client, group: &GroupUri, whom: &ClientUri) {
    may_be_spawned(client.fill_gap(group, whom));
}

#[expect(dead_code, reason = "it is to compile")]
fn so_may_these(client: &mut Client, code: &LinkCode, link: &LinkRequest, rotation: &PendingRotation, user: &UserUri) {
    may_be_spawned(client.link_request(code));
    may_be_spawned(client.approve_link(link));
    may_be_spawned(client.rotate_if_approved(rotation));
    may_be_spawned(client.user_record(user));
}

/// And from outside, or before there is a client.
#[expect(dead_code, reason = "it is to compile")]
fn and_those(client: &mut Client, listing: &Listing, request: &ExternalRequest, pending: PendingLink) {
    may_be_spawned(client.propose_externally(listing, request));
    may_be_spawned(pending.poll());
}

#[expect(dead_code, reason = "it is to compile")]
fn and_how_clients_begin(
    stores: [Box<dyn ProfileStore>; 3],
    services: &Services,
    file: &RecoveryFile,
    new: Registration,
) {
    let [first, second, third] = stores;
    may_be_spawned(Client::register(first, services, new));
    may_be_spawned(Client::restore(second, services, file));
    may_be_spawned(Client::start_link(third, services, "alice", "phone"));
}
