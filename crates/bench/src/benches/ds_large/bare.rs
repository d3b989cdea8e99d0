//! Bare mls-rs: the same version, suite, credentials and validator, private handshakes, the tree out of band, and no
//! path in commits that only add; all in memory.

use std::time::{Duration, Instant};

use conclave_engine::account::Account;
use conclave_names::Timestamp;
use mls_rs::{
    Client, ExtensionList, MlsMessage, storage_provider::in_memory::InMemoryGroupStateStorage, time::MlsTime,
};

use super::{Times, people::People};
use crate::{
    benches::bare_client::{self, InMemory},
    ds::Failure,
};

type Bare = Client<InMemory>;

fn seconds(now: Timestamp) -> MlsTime {
    MlsTime::from_duration_since_epoch(Duration::from_secs(now.as_secs()))
}

fn client(account: &Account) -> Bare {
    bare_client::client(account, InMemoryGroupStateStorage::new(), false)
}

pub(super) fn measure(people: &People, repetitions: usize, times: &mut Times) -> Result<(), Failure> {
    let time = seconds(people.world.now);
    let none = ExtensionList::new;
    let somebody = |name: &str| -> Result<(Bare, MlsMessage), Failure> {
        let client = client(&people.account(name)?);
        let package = client.generate_key_package_message(none(), none(), Some(time))?;
        Ok((client, package))
    };
    let (alice, _) = somebody("alice")?;
    let (bob, bobs_package) = somebody("bob")?;
    let mut group = alice.create_group(none(), none(), Some(time))?;
    // All in one commit, which is the best that MLS can do.
    let start = Instant::now();
    let mut builder = group.commit_builder().commit_time(time);
    for package in &people.key_packages {
        builder = builder.add_member(MlsMessage::from_bytes(package)?)?;
    }
    let output = builder.add_member(bobs_package)?.build()?;
    group.apply_pending_commit()?;
    group.write_to_storage()?;
    times.note("add-all", start);
    let welcome = output.welcome_messages().first().ok_or("no Welcome")?;
    let start = Instant::now();
    let (mut bobs, _) = bob.join_group(output.ratchet_tree().cloned(), welcome, None)?;
    bobs.write_to_storage()?;
    times.note("join", start);

    for repetition in 0..repetitions {
        let start = Instant::now();
        let commit = group.commit_builder().commit_time(time).build()?.commit_message;
        group.apply_pending_commit()?;
        group.write_to_storage()?;
        times.note("commit", start);

        let start = Instant::now();
        bobs.process_incoming_message_with_time(commit, time)?;
        bobs.write_to_storage()?;
        times.note("process", start);

        let (carol, package) = somebody(&format!("carol{repetition}"))?;
        let start = Instant::now();
        let output = group.commit_builder().commit_time(time).add_member(package)?.build()?;
        group.apply_pending_commit()?;
        group.write_to_storage()?;
        times.note("add-one", start);

        let welcome = output.welcome_messages().first().ok_or("no Welcome")?;
        let tree = output.ratchet_tree().cloned();
        let start = Instant::now();
        let (mut joined, _) = carol.join_group(tree, welcome, None)?;
        joined.write_to_storage()?;
        times.note("join", start);
        bobs.process_incoming_message_with_time(output.commit_message, time)?;
    }
    Ok(())
}
