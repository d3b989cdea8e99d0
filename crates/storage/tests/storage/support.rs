//! What several tests use.

use std::{fs, path::Path};

use conclave_authentication::store::{StoreError, UserRow};
use conclave_delivery::store::KeyPackageRow;
use conclave_mls::capabilities::Capabilities;
use conclave_names::{ClientUri, Hash, Timestamp, UserUri};
use conclave_protocol::Refusal;
use conclave_storage::Database;

pub(crate) fn user(name: &str) -> UserUri {
    format!("mimi://example.com/u/{name}").parse().unwrap()
}

pub(crate) fn client(name: &str) -> ClientUri {
    format!("mimi://example.com/d/{name}").parse().unwrap()
}

pub(crate) fn user_row(name: &str) -> UserRow {
    UserRow { user: user(name), identity_key: [7; 32], registered: Timestamp(1_700_000_000_000) }
}

pub(crate) fn key_package(number: u16) -> KeyPackageRow {
    let mut reference = [0; 32];
    reference[..2].copy_from_slice(&number.to_be_bytes());
    KeyPackageRow {
        reference: Hash::new(reference),
        client: client("alice/laptop"),
        cipher_suite: 1,
        capabilities: Capabilities::default(),
        bytes: number.to_be_bytes().to_vec(),
        last_resort: false,
        used: false,
        expires: Timestamp(1000),
    }
}

pub(crate) async fn register(database: &Database, name: &str) -> Result<(), StoreError> {
    let row = user_row(name);
    database.authentication().write(move |tx| tx.put_user(&row)).await
}

pub(crate) async fn is_registered(database: &Database, name: &str) -> bool {
    let name = user(name);
    database.authentication().read::<_, StoreError, _>(move |tx| tx.user(&name)).await.unwrap().is_some()
}

/// Puts `bytes` of payload into the database.
pub(crate) async fn fill(database: &Database, bytes: usize) -> Result<(), Refusal> {
    use conclave_delivery::store::OutboxKind;
    database
        .delivery()
        .write(move |tx| tx.push_outbox(OutboxKind::Welcome, &vec![1; bytes]).map_err(Refusal::from))
        .await
}

/// Copies a directory as it is on the disk at this moment: what a crash of the process would leave.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        // The index of the WAL is shared memory: it does not outlive a process.
        if !file.file_name().to_string_lossy().ends_with("-shm") {
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
}
