//! The same operations on the Authentication Service's store in memory and on SQLite answer the same.

use conclave_authentication::{
    memory::MemoryStore,
    store::{ClientRow, InviteRow, LinkApproval, LinkRow, StoreError, Tx, UserRow},
};
use conclave_mls::credential::IdentityBinding;
use conclave_names::{ClientUri, Timestamp, UserUri};
use conclave_protocol::SigningKey;
use conclave_storage::{Database, Options};
use proptest::{prelude::*, sample::select};

use crate::support::{client, user};

/// One use of the store. Names are drawn from a few, so that uses meet.
#[derive(Debug, Clone)]
enum Op {
    PutUser(UserRow),
    PutClient(ClientRow),
    PutInvite(InviteRow),
    PutLink(LinkRow),
    PutFormerKey(ClientUri, [u8; 32]),
    NoteNonce(u8, u8, Timestamp),
    DropOldestLink(UserUri, Timestamp),
    Prune(Timestamp),
}

fn apply(tx: &mut dyn Tx, op: &Op) -> Result<bool, StoreError> {
    match op {
        Op::PutUser(row) => tx.put_user(row)?,
        // As the service does: clients and links are those of users.
        Op::PutClient(row) if tx.user(row.client.user())?.is_none() => return Ok(false),
        Op::PutLink(row) if tx.user(row.client.user())?.is_none() => return Ok(false),
        Op::PutClient(row) => tx.put_client(row)?,
        Op::PutFormerKey(client, _) if tx.client(client)?.is_none() => return Ok(false),
        Op::PutFormerKey(client, key) => tx.put_former_key(client, key)?,
        Op::PutLink(row) => tx.put_link(row)?,
        Op::PutInvite(row) => tx.put_invite(row)?,
        Op::NoteNonce(key, nonce, expires) => return tx.note_nonce(&[*key; 32], &[*nonce; 16], *expires),
        Op::DropOldestLink(user, now) => return tx.drop_oldest_link(user, *now),
        Op::Prune(now) => tx.prune(*now)?,
    }
    Ok(true)
}

/// Everything that can be read. Debug output would leave token hashes out, so rows stay rows.
#[derive(Debug, PartialEq, Default)]
struct Dump {
    users: Vec<Option<UserRow>>,
    clients: Vec<Option<ClientRow>>,
    clients_of: Vec<Vec<ClientRow>>,
    counts: Vec<u64>,
    former_keys: Vec<bool>,
    invites: Vec<Option<InviteRow>>,
    links: Vec<Option<LinkRow>>,
}

fn dump(tx: &mut dyn Tx) -> Result<Dump, StoreError> {
    let mut all = Dump::default();
    for name in USERS {
        let user = user(name);
        all.users.push(tx.user(&user)?);
        all.clients_of.push(tx.clients_of(&user)?);
        all.counts.push(tx.count_clients(&user)?);
        for now in [0, 5, 10, u64::MAX].map(Timestamp) {
            all.counts.push(tx.count_links(&user, now)?);
        }
        for device in DEVICES {
            let client = user.client(device).unwrap();
            all.clients.push(tx.client(&client)?);
            for key in 0..NAMES {
                all.former_keys.push(tx.is_former_key(&client, &[key; 32])?);
            }
        }
    }
    for n in 0..NAMES {
        all.invites.push(tx.invite(&[n; 32])?);
        all.links.push(tx.link(&[n; 16])?);
    }
    Ok(all)
}

const NAMES: u8 = 3;
const USERS: [&str; 3] = ["alice", "alice2", "al"];
const DEVICES: [&str; 4] = ["0", "laptop", "laptop.2", "z_z"];

fn any_time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![9 => (0..12_u64).prop_map(Timestamp), 1 => Just(Timestamp(u64::MAX))]
}

fn any_key() -> impl Strategy<Value = [u8; 32]> {
    any::<u8>().prop_map(|n| [n; 32])
}

fn any_user() -> impl Strategy<Value = UserUri> {
    select(&USERS[..]).prop_map(user)
}

fn any_client() -> impl Strategy<Value = ClientUri> {
    (any_user(), select(&DEVICES[..])).prop_map(|(user, device)| user.client(device).unwrap())
}

fn any_approval() -> impl Strategy<Value = LinkApproval> {
    (any_key(), any_time(), any_key()).prop_map(|(identity, until, mac)| {
        let identity = SigningKey::from_bytes(&identity);
        LinkApproval { binding: IdentityBinding::sign(&identity, &client("alice/laptop"), &[2; 32], until), mac }
    })
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (any_user(), any_key(), any_time())
            .prop_map(|(user, identity_key, registered)| Op::PutUser(UserRow { user, identity_key, registered })),
        5 => (any_client(), any_key(), any_time(), any_time()).prop_map(|(client, signature_key, not_after, registered)| {
            Op::PutClient(ClientRow { client, signature_key, not_after_secs: not_after.0, registered })
        }),
        2 => (0..NAMES, 0..3_u32, any_time())
            .prop_map(|(n, uses_left, expires)| Op::PutInvite(InviteRow { token_hash: [n; 32], uses_left, expires })),
        4 => (0..NAMES, any_client(), any_key(), any_key(), prop::option::of(any_approval()), any_time()).prop_map(
            |(n, client, signature_key, mac, approval, expires)| {
                Op::PutLink(LinkRow { link_id: [n; 16], client, signature_key, mac, approval, expires })
            },
        ),
        2 => (any_client(), 0..NAMES).prop_map(|(client, key)| Op::PutFormerKey(client, [key; 32])),
        3 => (0..NAMES, 0..NAMES, any_time()).prop_map(|(key, nonce, expires)| Op::NoteNonce(key, nonce, expires)),
        2 => (any_user(), any_time()).prop_map(|(user, now)| Op::DropOldestLink(user, now)),
        1 => any_time().prop_map(Op::Prune),
    ]
}

/// How a transaction ended: the service kept or refused (after these answers), or the store failed.
#[derive(Debug, PartialEq)]
enum Refused {
    Service(Vec<bool>),
    Store(StoreError),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn run(tx: &mut dyn Tx, ops: &[Op], keep: bool) -> Result<Vec<bool>, Refused> {
    let answers = ops.iter().map(|op| apply(tx, op)).collect::<Result<Vec<_>, _>>()?;
    if keep { Ok(answers) } else { Err(Refused::Service(answers)) }
}

/// Operations, and whether the service then keeps them.
fn any_transactions() -> impl Strategy<Value = Vec<(Vec<Op>, bool)>> {
    prop::collection::vec((prop::collection::vec(any_op(), 1..12), prop::bool::weighted(0.85)), 1..10)
}

fn compare(database: &Database, transactions: Vec<(Vec<Op>, bool)>) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let memory = MemoryStore::default();
    for (ops, keep) in transactions {
        let expected = memory.transaction(|tx| run(tx, &ops, keep));
        let found = runtime.block_on(database.authentication().write(move |tx| run(tx, &ops, keep)));
        prop_assert_eq!(expected, found);
        let expected = memory.transaction(dump).unwrap();
        let found = runtime.block_on(database.authentication().read(dump)).unwrap();
        prop_assert_eq!(expected, found);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_in_memory_answers_as_the_memory_store_does(transactions in any_transactions()) {
        compare(&Database::in_memory().unwrap(), transactions)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_on_disk_answers_as_the_memory_store_does(transactions in any_transactions()) {
        let directory = tempfile::tempdir().unwrap();
        compare(&Database::open(directory.path(), Options::default()).unwrap(), transactions)?;
    }
}
