//! Proposals of external senders: of those whom the group lists, and of nobody else.

use conclave_channel::{Body, Entry, EntryKind};
use conclave_engine::{
    account::Account,
    group::{Handshakes, Status},
    outcome::{Event, ProposedChange},
};
use conclave_mls::{
    crypto,
    external_sender::{Request, Target, propose},
};
use conclave_names::{ChannelId, Epoch};
use conclave_protocol::{Code, Refusal, SigningKey, method, v1};

use crate::{
    person::{Person, account, agree, group_of},
    world::{World, not_ordered, on_both, random, refused},
};

fn entry(key: &SigningKey, target: &Target, request: &Request) -> Vec<u8> {
    let suite = crypto::suite(crypto::DEFAULT_SUITE).unwrap();
    let message = propose(&suite, key, target, request).unwrap();
    Entry::new(EntryKind::Proposal, target.epoch, Body::Inline(message)).to_bytes().unwrap()
}

fn request(channel: ChannelId, entry: Vec<u8>) -> v1::SubmitExternalProposalRequest {
    v1::SubmitExternalProposalRequest { channel: channel.to_vec(), idempotency_key: random::<16>().to_vec(), entry }
}

fn send(
    world: &mut World,
    key: &SigningKey,
    message: &v1::SubmitExternalProposalRequest,
) -> Result<v1::SubmitResponse, Refusal> {
    let request = world.sign(key, method::SUBMIT_EXTERNAL_PROPOSAL, message);
    Ok(world.write(move |service, tx, now| service.submit_external_proposal(tx, &request, now))?.reply)
}

pub(crate) fn target(person: &mut Person, sender: u32) -> Target {
    Target { group: person.group().name().clone(), epoch: person.group().epoch(), sender }
}

/// Proposes by the key of an account.
pub(crate) fn ask(
    world: &mut World,
    channel: ChannelId,
    account: &Account,
    target: &Target,
    wish: &Request,
) -> Result<v1::SubmitResponse, Refusal> {
    let message = request(channel, entry(&account.signature_key, target, wish));
    send(world, &account.signature_key, &message)
}

#[test]
fn whom_the_group_lists_may_propose_and_members_carry_it_out() {
    on_both(|mut world| {
        let [mut alice, mut bob, mut charlie] = ["alice", "bob", "charlie"].map(|name| Person::new(&mut world, name));
        let bot = account(&mut world, "bot");
        let channel = group_of(&mut world, &mut [&mut alice, &mut bob], vec![bot.clone()]);
        assert_eq!(alice.group().external_senders(), std::slice::from_ref(&bot.client));
        assert_eq!(bob.group().external_senders(), std::slice::from_ref(&bot.client));

        let key_package = charlie.key_package(&mut world);
        let to = target(&mut alice, 0);
        ask(&mut world, channel, &bot, &to, &Request::Add(key_package)).unwrap();
        bob.drive(&mut world);
        charlie.join(&mut world);
        agree(&mut world, &mut [&mut alice, &mut bob, &mut charlie]);
        let proposed = Event::ExternalProposal {
            sender: Some(bot.client.clone()),
            proposal: ProposedChange::Add(charlie.account.client.clone()),
        };
        assert!(alice.events.contains(&proposed) && bob.events.contains(&proposed));

        // The service restarts between the next one and its commit.
        let members = alice.group().members().unwrap();
        let leaf = members.iter().find(|member| member.client == bob.account.client).unwrap().index;
        let to = target(&mut alice, 0);
        ask(&mut world, channel, &bot, &to, &Request::Remove(leaf)).unwrap();
        world.restart();
        alice.drive(&mut world);
        bob.sync(&mut world);
        assert_eq!(*bob.group().status(), Status::Removed);
        agree(&mut world, &mut [&mut alice, &mut charlie]);
    });
}

#[test]
fn strangers_learn_nothing_and_the_listed_are_told_the_epoch() {
    on_both(|mut world| {
        let [mut alice, mut bob] = ["alice", "bob"].map(|name| Person::new(&mut world, name));
        let [bot, stranger] = ["bot", "stranger"].map(|name| account(&mut world, name));
        let channel = group_of(&mut world, &mut [&mut alice, &mut bob], vec![bot.clone()]);
        let private = Person::new(&mut world, "charlie").create(&mut world, Handshakes::Private);
        let to = target(&mut alice, 0);
        let wish = Request::Remove(1);
        // A certified client, a member by its signature key, and the bot where it is not listed.
        let answers = [
            ask(&mut world, channel, &stranger, &to, &wish),
            ask(&mut world, channel, &alice.account.clone(), &to, &wish),
            ask(&mut world, private, &bot, &to, &wish),
            ask(&mut world, ChannelId::new([9; 16]), &bot, &to, &wish),
        ]
        .map(|answer| refused(answer, Code::AccessRefused));
        assert!(answers.iter().all(|answer| *answer == answers[0]), "they are told apart: {answers:?}");

        let late = Target { epoch: Epoch(0), ..to.clone() };
        let refusal = refused(ask(&mut world, channel, &bot, &late, &wish), Code::EpochStale);
        assert_eq!(refusal.number("epoch"), Some(1));
        agree(&mut world, &mut [&mut alice, &mut bob]);
    });
}

#[test]
fn what_the_listed_may_not_propose() {
    let mut world = World::memory();
    let [mut alice, mut bob] = ["alice", "bob"].map(|name| Person::new(&mut world, name));
    let [bot, other] = ["bot", "other"].map(|name| account(&mut world, name));
    let channel = group_of(&mut world, &mut [&mut alice, &mut bob], vec![bot.clone(), other.clone()]);
    let to = target(&mut alice, 0);
    let remove = Request::Remove(1);
    // In another's place, or at none.
    for sender in [1, 7] {
        let wrong = Target { sender, ..to.clone() };
        not_ordered(ask(&mut world, channel, &bot, &wrong, &remove), "sender");
    }
    // By another's key, or changed.
    let forged = request(channel, entry(&other.signature_key, &to, &remove));
    not_ordered(send(&mut world, &bot.signature_key, &forged), "signature");
    // Who is no member.
    not_ordered(ask(&mut world, channel, &bot, &to, &Request::Remove(9)), "mls");
    // What is no proposal.
    let message = Entry::new(EntryKind::Message, to.epoch, Body::Inline(vec![1; 256])).to_bytes().unwrap();
    refused(send(&mut world, &bot.signature_key, &request(channel, message)), Code::EntryInvalid);
    let garbage = Entry::new(EntryKind::Proposal, to.epoch, Body::Inline(vec![1; 256])).to_bytes().unwrap();
    not_ordered(send(&mut world, &bot.signature_key, &request(channel, garbage)), "format");
    // Through a member's session.
    let relayed = entry(&bot.signature_key, &to, &remove);
    let session = alice.session(&mut world);
    let message = v1::SubmitRequest { idempotency_key: random::<16>().to_vec(), entry: relayed };
    not_ordered(world.submit(&session, &message), "sender");
    // Of another group.
    let elsewhere = Target { group: "mimi://example.com/g/other".parse().unwrap(), ..to.clone() };
    not_ordered(ask(&mut world, channel, &bot, &elsewhere, &remove), "format");

    // The genuine one goes in, once, however often it comes.
    let genuine = request(channel, entry(&bot.signature_key, &to, &remove));
    let first = send(&mut world, &bot.signature_key, &genuine).unwrap();
    let again = send(&mut world, &bot.signature_key, &genuine).unwrap();
    assert_eq!(first, again);
    alice.drive(&mut world);
    bob.sync(&mut world);
    assert_eq!(*bob.group().status(), Status::Removed);
    agree(&mut world, &mut [&mut alice]);
}

#[test]
fn the_channel_has_the_pause_that_the_group_context_names() {
    let mut world = World::memory();
    let alice = Person::new(&mut world, "alice");
    let new = conclave_engine::group::NewGroup {
        hub: crate::world::domain(),
        receipt_key: conclave_channel::receipt::ReceiptKey([0; 32]),
        title: "Test".into(),
        cipher_suite: crypto::DEFAULT_SUITE,
        handshakes: Handshakes::Visible { external_senders: Vec::new() },
        dispute_pause: conclave_channel::law::DisputePause::MIN,
    };
    let group = conclave_engine::group::Group::create(&alice.account, &alice.mls, new, world.now).unwrap();
    let access = group.access().unwrap();
    let mut create = |dispute_ms| {
        let message = v1::CreateChannelRequest {
            channel: access.channel.to_vec(),
            key_root: group.key_root().unwrap().to_vec(),
            group_info: group.first_group_info().unwrap().unwrap(),
            dispute_ms,
            ..Default::default()
        };
        world.create_channel(&access.key, &message)
    };
    for other in [0, 10_001, 900_000] {
        let refusal = create(other).unwrap_err();
        assert!(refusal.to_string().contains("pause"), "{refusal}");
    }
    create(10_000).unwrap();
}

#[test]
fn who_is_not_certified_is_not_listed() {
    let mut world = World::memory();
    let mut alice = Person::new(&mut world, "alice");
    let mut bot = account(&mut world, "bot");
    bot.certificate = alice.account.certificate.clone();
    let new = conclave_engine::group::NewGroup {
        hub: crate::world::domain(),
        receipt_key: conclave_channel::receipt::ReceiptKey([0; 32]),
        title: "Test".into(),
        cipher_suite: crypto::DEFAULT_SUITE,
        handshakes: Handshakes::Visible { external_senders: vec![bot.signing_identity()] },
        dispute_pause: conclave_channel::law::DisputePause::DEFAULT,
    };
    let made = conclave_engine::group::Group::create(&alice.account, &alice.mls, new, world.now);
    assert!(made.unwrap_err().to_string().contains("signature key"));
    alice.create(&mut world, Handshakes::Private);
}
