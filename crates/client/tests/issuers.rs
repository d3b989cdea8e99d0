//! An Authentication Service that has a new authority: who has not renewed since judges what it certifies like everybody else.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::time::Duration;

use common::{SharedStore, World, has, noted, texts, user};
use conclave_authentication::CertificateAuthority;
use conclave_client::{Client, ClientEvent, Event, Status, store::ProfileStore as _};
use conclave_engine::{account::Account, writes::Room};
use conclave_names::{GroupUri, Timestamp};

fn quarrel(events: &[ClientEvent]) -> bool {
    has(events, |event| {
        matches!(
            event,
            Event::Stuck { .. }
                | Event::NotApplied { .. }
                | Event::Disputed { .. }
                | Event::Annulled { .. }
                | Event::Refused { .. }
                | Event::InvitationDropped { .. }
        )
    })
}

/// Alice, Bob and Carol, in a group that she has made.
async fn trio(world: &World, stores: &[SharedStore; 2]) -> ([Client; 3], GroupUri) {
    let mut alice = world.person_in(Box::new(stores[0].clone()), "alice").await;
    let mut bob = world.person_in(Box::new(stores[1].clone()), "bob").await;
    let mut carol = world.person("carol").await;
    let club = alice.create_group("The Club").await.unwrap();
    alice.add(&club, &[user("bob"), user("carol")]).await.unwrap();
    bob.sync().await.unwrap();
    carol.sync().await.unwrap();
    ([alice, bob, carol], club)
}

/// Each renews its certificate, as nobody answers for the old one's issuer any more, and they agree.
async fn agree(mut people: [&mut Client; 3], club: &GroupUri) {
    let mut seen = Vec::new();
    for _ in 0..4 {
        for person in &mut people {
            let events = person.sync().await.unwrap();
            assert!(!quarrel(&events), "{events:?}");
        }
    }
    for person in people {
        assert_eq!(*person.group(club).unwrap().status(), Status::Active);
        seen.push(person.group(club).unwrap().epoch_authenticator().unwrap());
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]));
}

fn account(store: &SharedStore) -> Account {
    Account::from_row(&store.get(Room::ACCOUNT, Account::KEY).unwrap().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_under_a_new_issuer_is_disputed_by_nobody() {
    let mut world = World::whole().await;
    let ([mut alice, mut bob, mut carol], club) = Box::pin(trio(&world, &Default::default())).await;
    world.replace_authority().await;
    alice.renew_credential().await.unwrap();
    let events = alice.sync().await.unwrap();
    assert!(!quarrel(&events), "{events:?}");
    alice.send(&club, "with a new certificate").await.unwrap();
    // One reads, the other listens.
    let events = bob.sync().await.unwrap();
    assert!(has(&events, |event| matches!(event, Event::Updated { .. })), "{events:?}");
    assert!(!quarrel(&events), "{events:?}");
    assert_eq!(texts(&bob, &club), ["with a new certificate"]);
    let heard = async {
        let mut listener = carol.listen();
        loop {
            let events = listener.next().await.unwrap();
            assert!(!quarrel(&events), "{events:?}");
            if has(&events, |event| matches!(event, Event::Message { .. })) {
                break;
            }
        }
    };
    Box::pin(tokio::time::timeout(Duration::from_secs(30), heard)).await.unwrap();
    assert!(!quarrel(&alice.sync().await.unwrap()));
    Box::pin(agree([&mut alice, &mut bob, &mut carol], &club)).await;
    // His own certificate, of the former issuer, is good for Alice.
    bob.send(&club, "with an old one").await.unwrap();
    alice.sync().await.unwrap();
    assert_eq!(texts(&alice, &club), ["with a new certificate", "with an old one"]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_listens_when_a_renewal_comes_does_not_dispute_it() {
    let mut world = World::whole().await;
    let ([mut alice, mut bob, mut carol], club) = Box::pin(trio(&world, &Default::default())).await;
    world.replace_authority().await;
    let listens = tokio::sync::Notify::new();
    let listening = async {
        let mut listener = bob.listen();
        loop {
            let events = listener.next().await.unwrap();
            assert!(!quarrel(&events), "{events:?}");
            for happened in events {
                match happened.event {
                    Event::Message { text: Some(text), .. } if text == "hello" => listens.notify_one(),
                    Event::Message { .. } => return,
                    _ => {}
                }
            }
        }
    };
    let renewing = async {
        alice.send(&club, "hello").await.unwrap();
        listens.notified().await;
        alice.renew_credential().await.unwrap();
        alice.sync().await.unwrap();
        alice.send(&club, "with a new certificate").await.unwrap();
    };
    Box::pin(tokio::time::timeout(Duration::from_secs(30), async { tokio::join!(listening, renewing) })).await.unwrap();
    Box::pin(agree([&mut alice, &mut bob, &mut carol], &club)).await;
    assert_eq!(noted(&bob, &club, "stuck"), 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_certified_by_a_new_issuer_is_added_by_and_to_those_who_did_not_know_it() {
    let mut world = World::whole().await;
    let ([mut alice, mut bob, mut carol], club) = Box::pin(trio(&world, &Default::default())).await;
    world.replace_authority().await;
    let dave = world.person("dave").await;
    drop(dave);
    // Her certificate is refused at the directory, as nobody answers for its issuer any more: she gets another.
    let before = alice.certificate_ends();
    alice.add(&club, &[user("dave")]).await.unwrap();
    for person in [&mut bob, &mut carol] {
        let events = person.sync().await.unwrap();
        assert!(has(&events, |event| matches!(event, Event::Added { .. })) && !quarrel(&events), "{events:?}");
    }
    assert!(alice.certificate_ends() >= before);
    Box::pin(agree([&mut alice, &mut bob, &mut carol], &club)).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_authentication_service_does_not_vouch_for_is_not_believed() {
    let world = World::whole().await;
    let mut stores = <[SharedStore; 2]>::default();
    let ([alice, mut bob, mut carol], club) = Box::pin(trio(&world, &stores)).await;
    drop(alice);
    // Alice has a certificate of somebody who calls himself the domain's authority.
    let forged = CertificateAuthority::generate(&common::domain(), now()).unwrap();
    let mut account = account(&stores[0]);
    let key = account.signature_key.verifying_key().to_bytes();
    let until = now().plus_ms(20 * 86_400_000);
    account.certificate =
        forged.issue(&account.client, &key, &account.binding, Timestamp(now().0 - 1000), until, [7; 16]).unwrap();
    account.issuers.push(forged.certificate().to_vec());
    stores[0].apply(&[account.to_write()]).unwrap();
    let mut alice = Client::over(Box::new(stores[0].clone()), &world.services()).unwrap();
    // What she needs of the directory she is refused; her group's channel knows nobody.
    let _ = alice.update(&club).await;
    let events = bob.sync().await.unwrap();
    assert!(has(&events, |event| matches!(event, Event::Stuck { .. })), "{events:?}");
    let events = carol.sync().await.unwrap();
    assert!(has(&events, |event| matches!(event, Event::Stuck { .. } | Event::NotApplied { .. })), "{events:?}");
    drop(bob);
    let believed = self::account(&stores[1]).issuers;
    assert!(!believed.is_empty() && !believed.contains(&forged.certificate().to_vec()));
    world.stop().await;
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(since.as_millis().try_into().unwrap())
}
