//! Bare mls-rs: the same suite, credentials and validation, the tree out of band, storage in memory.

use std::{error::Error, time::Duration};

use conclave_engine::account::Account;
use indicatif::ProgressBar;
use mls_rs::{
    Client, ExtensionList, MlsMessage, group::ReceivedMessage, storage_provider::in_memory::InMemoryGroupStateStorage,
    time::MlsTime,
};

use super::{
    Times,
    world::{NOW, World},
};
use crate::benches::bare_client::{self, InMemory};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

pub(crate) type Bare = Client<InMemory>;

pub(crate) fn time() -> MlsTime {
    MlsTime::from_duration_since_epoch(Duration::from_millis(NOW.0))
}

pub(crate) fn client(account: &Account) -> Bare {
    bare_client::client(account, InMemoryGroupStateStorage::new(), true)
}

fn key_package(client: &Bare) -> Result<MlsMessage> {
    let none = ExtensionList::new;
    Ok(client.generate_key_package_message(none(), none(), Some(time()))?)
}

pub(super) fn measure(world: &World, repetitions: usize, times: &mut Times, progress: &ProgressBar) -> Result<()> {
    let alice = client(&world.account("alice")?);
    let bob = client(&world.account("bob")?);
    let none = ExtensionList::new;
    for _ in 0..repetitions {
        times.take("create", || -> Result<()> {
            alice.create_group(none(), none(), Some(time()))?.write_to_storage()?;
            Ok(())
        })?;
    }
    let mut group = alice.create_group(none(), none(), Some(time()))?;
    let mut builder = group.commit_builder().commit_time(time()).add_member(key_package(&bob)?)?;
    for index in 2..world.members {
        builder = builder.add_member(key_package(&client(&world.account(&format!("m{index}"))?))?)?;
    }
    let output = builder.build()?;
    group.apply_pending_commit()?;
    group.write_to_storage()?;
    let welcome = output.welcome_messages().first().ok_or("no Welcome")?;
    let (mut bobs, _) = bob.join_group(output.ratchet_tree().cloned(), welcome, None)?;
    bobs.write_to_storage()?;

    for repetition in 0..repetitions {
        progress.inc(1);
        let commit = times.take("commit", || -> Result<_> {
            let output = group.commit_builder().commit_time(time()).build()?;
            group.apply_pending_commit()?;
            group.write_to_storage()?;
            Ok(output.commit_message)
        })?;
        times.take("process", || -> Result<()> {
            bobs.process_incoming_message_with_time(commit, time())?;
            bobs.write_to_storage()?;
            Ok(())
        })?;
        let message = times.take("send", || -> Result<_> {
            let text = b"hello, this is a message of an ordinary length";
            let message = group.encrypt_application_message(text, Vec::new())?;
            group.write_to_storage()?;
            Ok(message)
        })?;
        times.take("receive", || -> Result<()> {
            let received = bobs.process_incoming_message_with_time(message, time())?;
            bobs.write_to_storage()?;
            match received {
                ReceivedMessage::ApplicationMessage(_) => Ok(()),
                _ => Err("not a message".into()),
            }
        })?;
        let carol = client(&world.account(&format!("carol{repetition}"))?);
        let package = key_package(&carol)?;
        let output = times.take("add", || -> Result<_> {
            let output = group.commit_builder().commit_time(time()).add_member(package)?.build()?;
            group.apply_pending_commit()?;
            group.write_to_storage()?;
            Ok(output)
        })?;
        let welcome = output.welcome_messages().first().ok_or("no Welcome")?;
        times.take("join", || -> Result<()> {
            let (mut joined, _) = carol.join_group(output.ratchet_tree().cloned(), welcome, None)?;
            joined.write_to_storage()?;
            Ok(())
        })?;
        bobs.process_incoming_message_with_time(output.commit_message, time())?;
        let last = group.roster().members_iter().map(|member| member.index).max().ok_or("no members")?;
        let carols = group
            .roster()
            .members_iter()
            .find(|member| member.signing_identity == *carol_identity(&carol))
            .map_or(last, |member| member.index);
        let removed = group.commit_builder().commit_time(time()).remove_member(carols)?.build()?;
        group.apply_pending_commit()?;
        bobs.process_incoming_message_with_time(removed.commit_message, time())?;
    }
    Ok(())
}

/// The signing identity that a client was made with.
fn carol_identity(client: &Bare) -> &mls_rs::identity::SigningIdentity {
    match client.signing_identity() {
        Ok((identity, _)) => identity,
        Err(_) => unreachable!("the client was made with an identity"),
    }
}
