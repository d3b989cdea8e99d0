//! A group whose handshakes the server reads, over a real server that is stopped and started in the middle of it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod common;

use common::{World, domain, user};
use conclave_client::{Client, ClientError, Event, ExternalRequest, Handshakes, Listing, Status, transport::CallError};
use conclave_names::GroupUri;
use conclave_protocol::Code;
use conclave_server::{Config, Server};

async fn visible_group(alice: &mut Client, external_senders: Vec<mls_rs::identity::SigningIdentity>) -> GroupUri {
    alice.create_group_with("The Club", Handshakes::Visible { external_senders }).await.unwrap()
}

/// All agree on the group's state, secrets included.
async fn agree(clients: &mut [&mut Client], group: &GroupUri) {
    let mut views = Vec::new();
    for client in clients {
        client.sync().await.unwrap();
        let group = client.group(group).unwrap();
        assert_eq!(*group.status(), Status::Active);
        views.push((group.epoch(), group.epoch_authenticator().unwrap(), group.context_hash().unwrap()));
    }
    assert!(views.iter().all(|view| *view == views[0]), "{views:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn people_join_talk_and_go_and_the_server_stops_in_the_middle() {
    let mut world = World::whole().await;
    let mut alice = world.person("alice").await;
    let mut bob = world.person("bob").await;
    let mut charlie = world.person("charlie").await;
    let club = visible_group(&mut alice, Vec::new()).await;
    alice.add(&club, &[user("bob")]).await.unwrap();
    alice.send(&club, "hello Bob").await.unwrap();
    bob.sync().await.unwrap();
    bob.send(&club, "hello Alice").await.unwrap();
    bob.add(&club, &[user("charlie")]).await.unwrap();
    agree(&mut [&mut alice, &mut bob, &mut charlie], &club).await;
    // A proposal is ordered; the server stops; somebody commits it when it is back.
    charlie.leave(&club).await.unwrap();

    let running = world.delivery.take().unwrap();
    let config = Config { listen: running.addr(), ..Config::for_tests(world.directories[0].path(), domain()) };
    running.shutdown().await;
    world.delivery = Some(Server::start(config).await.unwrap());

    alice.update(&club).await.unwrap();
    charlie.sync().await.unwrap();
    assert_eq!(*charlie.group(&club).unwrap().status(), Status::Removed);
    agree(&mut [&mut alice, &mut bob], &club).await;
    bob.update(&club).await.unwrap();
    alice.sync().await.unwrap();
    alice.remove(&club, &[user("bob")]).await.unwrap();
    bob.sync().await.unwrap();
    assert_eq!(*bob.group(&club).unwrap().status(), Status::Removed);
    alice.add(&club, &[user("bob"), user("charlie")]).await.unwrap();
    agree(&mut [&mut alice, &mut bob, &mut charlie], &club).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_the_group_lists_proposes_and_a_member_commits() {
    let world = World::whole().await;
    let mut alice = world.person("alice").await;
    let mut bob = world.person("bob").await;
    let mut bot = world.person("bot").await;
    let mut stranger = world.person("stranger").await;
    let club = visible_group(&mut alice, vec![bot.signing_identity()]).await;
    alice.add(&club, &[user("bob")]).await.unwrap();
    bob.sync().await.unwrap();
    let group = alice.group(&club).unwrap();
    assert_eq!(group.external_senders(), [bot.client().clone()]);
    let listing = Listing {
        group: club.clone(),
        channel: group.profile().channel,
        sender: 0,
        cipher_suite: group.cipher_suite(),
    };
    let members = group.members().unwrap();
    let leaf = members.iter().find(|member| member.user == user("bob")).unwrap().index;

    let refused = stranger.propose_externally(&listing, &ExternalRequest::Remove(leaf)).await.unwrap_err();
    assert!(
        matches!(&refused, ClientError::Call(CallError::Refused(refusal)) if refusal.code == Code::AccessRefused),
        "{refused}"
    );
    let refused = bot.propose_externally(&listing, &ExternalRequest::Remove(77)).await.unwrap_err();
    assert!(
        matches!(&refused, ClientError::Call(CallError::Refused(refusal)) if refusal.code == Code::HandshakeRefused),
        "{refused}"
    );
    // The bot need not know the epoch.
    bot.propose_externally(&listing, &ExternalRequest::Remove(leaf)).await.unwrap();
    let events = alice.sync().await.unwrap();
    assert!(events.iter().any(|event| matches!(event.event, Event::ExternalProposal { .. })), "{events:?}");
    alice.update(&club).await.unwrap();
    bob.sync().await.unwrap();
    assert_eq!(*bob.group(&club).unwrap().status(), Status::Removed);
    assert_eq!(alice.group(&club).unwrap().members().unwrap().len(), 1);
    world.stop().await;
}
