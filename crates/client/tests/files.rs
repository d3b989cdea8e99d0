//! What somebody finds who takes the files of a client's store, and its key (RFC 9750, section 8.2.2): nothing that was deleted, and no key that
//! was used, as docs/embedding.md says it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use aes::{
    Aes256,
    cipher::{BlockCipherDecrypt as _, KeyInit as _},
};
use common::{Hooked, World, has, texts, user};
use conclave_client::{
    Client, Event, Status,
    profile::{NewKey, NewProfile, Profile},
    store::{MemoryStore, ProfileStore, Row, Store},
};
use conclave_engine::{
    account::Account,
    writes::{Room, Write},
};
use conclave_names::GroupUri;
use conclave_server::set_ahead_for_tests;
use mls_rs::storage_provider::KeyPackageData;
use mls_rs_codec::MlsDecode as _;
use tempfile::TempDir;
use zeroize::Zeroizing;

const MINUTE: u64 = 60_000;

/// Bytes that are looked for at a time.
const PART: usize = 16;

type Part = [u8; PART];

type Values = Vec<Zeroizing<Vec<u8>>>;

/// What was written to a store.
#[derive(Default)]
struct Record {
    /// What it holds.
    now: MemoryStore,
    /// Every value that it held, by row, oldest first.
    ever: BTreeMap<(Room, Vec<u8>), Values>,
}

fn parts(bytes: &[u8]) -> impl Iterator<Item = Part> + '_ {
    bytes.windows(PART).map(|part| part.try_into().unwrap())
}

/// Whether it may be of a key: names stand in many places.
fn is_random(part: &[u8]) -> bool {
    part.iter().collect::<BTreeSet<_>>().len() > PART - 5 && part.iter().filter(|byte| **byte >= 0x80).count() > 2
}

/// Others have hashes, names, times, and what was sealed.
fn may_hold_keys(room: Room, key: &[u8]) -> bool {
    let others = [Room::LOG, Room::LONG, Room::USED, Room::WAITING, Room::SUMMARY];
    if room == Room::ACCOUNT { key == Account::KEY } else { !others.contains(&room) }
}

/// A profile on the disk.
struct Disk {
    directory: TempDir,
    record: Arc<Mutex<Record>>,
}

impl Disk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let new = NewProfile::new("https://example.com", common::domain(), NewKey::File(None));
        Profile::create(directory.path(), new).unwrap();
        Self { directory, record: Arc::default() }
    }

    /// Its store, of which what is written is recorded.
    fn open(&self) -> Hooked<Store> {
        let profile = Profile::open(self.directory.path()).unwrap();
        let key = profile.unlock(None).unwrap();
        let record = Arc::clone(&self.record);
        let on_writes = move |writes: &[Write]| {
            let mut record = record.lock().unwrap();
            for write in writes {
                if let Write::Put { room, key, value } = write {
                    record.ever.entry((*room, key.clone())).or_default().push(value.clone());
                }
            }
            record.now.apply(writes)
        };
        let store = Store::open(&profile, &key).unwrap();
        Hooked { store, on_writes: Box::new(on_writes), on_read: Box::new(|_| ()) }
    }

    /// All pages of the files, also those that are free or were written over, deciphered by hand (SQLCipher 4: AES-256-CBC, the IV
    /// at the end of each page).
    fn plain(&self) -> Vec<u8> {
        const PAGE: usize = 4096;
        /// IV and HMAC.
        const RESERVE: usize = 48;
        let key: [u8; 32] = std::fs::read(self.directory.path().join("store.key")).unwrap().try_into().unwrap();
        let cipher = Aes256::new(&key.into());
        let mut plain = Vec::new();
        for entry in std::fs::read_dir(self.directory.path()).unwrap().map(Result::unwrap) {
            let (head, frame) = match entry.file_name().to_str().unwrap() {
                "store.db" => (0, 0),
                "store.db-wal" => (32, 24),
                // The lock has nothing in it, and the index of the log is in memory: there is no other file.
                "store.key" | "profile.toml" | "lock" => continue,
                other => panic!("what is {other}?"),
            };
            let bytes = std::fs::read(entry.path()).unwrap();
            let pages = bytes.get(head..).unwrap_or_default().chunks_exact(frame + PAGE);
            assert_eq!(pages.remainder(), b"");
            for page in pages.map(|page| &page[frame..]) {
                let (text, reserve) = page.split_at(PAGE - RESERVE);
                let mut before = &reserve[..16];
                for block in text.chunks_exact(16) {
                    let mut out = block.try_into().unwrap();
                    cipher.decrypt_block(&mut out);
                    plain.extend(out.iter().zip(before).map(|(a, b)| a ^ b));
                    before = block;
                }
            }
        }
        plain
    }

    fn held(&self, room: Room) -> Vec<Row> {
        self.record.lock().unwrap().now.scan(room, b"").unwrap()
    }

    /// Looks through the files. Nothing that was deleted is there of rows that may have keys in them.
    fn audit(&self, when: &str) -> Audit {
        let plain = self.plain();
        let found: HashSet<Part> = parts(&plain).filter(|part| is_random(part)).collect();
        let mut held: HashSet<Part> = HashSet::new();
        for room in (0..=u8::MAX).map(Room::new) {
            for (key, value) in self.held(room) {
                held.extend(parts(&value).chain(parts(&key)).filter(|part| is_random(part)));
            }
        }
        let groups = self.held(Room::SUMMARY);
        let record = self.record.lock().unwrap();
        let messages: HashSet<Part> = groups
            .iter()
            .flat_map(|(key, _)| {
                record.now.last_messages(std::str::from_utf8(key).unwrap().trim_end_matches('\0'), usize::MAX).unwrap()
            })
            .flat_map(|message| {
                parts(&message.body)
                    .chain(parts(&message.id))
                    .chain(parts(message.sender.as_bytes()))
                    .collect::<Vec<_>>()
            })
            .collect();
        // What is there can be found, or this would show nothing.
        let seen = held.iter().filter(|part| found.contains(*part)).count();
        assert!(seen * 10 > held.len() * 9, "{when}: {seen} of {}", held.len());
        let mut looked_for = 0;
        for ((room, key), values) in record.ever.iter().filter(|((room, key), _)| may_hold_keys(*room, key)) {
            // What was prepared is sealed, but for commits, which are long.
            let shortest = if *room == Room::INTENT { 1024 } else { 0 };
            for value in values.iter().filter(|value| value.len() >= shortest) {
                for part in value.windows(PART).step_by(PART / 2).filter(|part| is_random(part)) {
                    let part: Part = part.try_into().unwrap();
                    looked_for += usize::from(!held.contains(&part));
                    let left = found.contains(&part) && !held.contains(&part) && !messages.contains(&part);
                    assert!(!left, "{when}: {} of {room:?} {}", part.escape_ascii(), key.escape_ascii());
                }
            }
        }
        Audit { found, looked_for }
    }

    /// Secrets of states of one epoch that a later state of it does not have: they were used. By how the row's key ends.
    fn used_in_epochs(&self) -> HashSet<Part> {
        let record = self.record.lock().unwrap();
        let mut used = HashSet::new();
        let states = record
            .ever
            .iter()
            .filter(|((room, key), _)| *room == Room::GROUP && key.windows(6).any(|part| part == b"\0state"));
        for (_, values) in states {
            for pair in values.windows(2) {
                let later: HashSet<Part> = parts(&pair[1]).collect();
                used.extend(parts(&pair[0]).filter(|part| is_random(part) && !later.contains(part)));
            }
        }
        used
    }

    /// The init keys of KeyPackages that are held no more.
    fn init_keys_gone(&self) -> Vec<Part> {
        let record = self.record.lock().unwrap();
        let packages =
            record.ever.iter().filter(|((room, key), _)| *room == Room::KEY_PACKAGE && key.starts_with(b"package/"));
        let gone = packages.filter(|((room, key), _)| record.now.get(*room, key).unwrap().is_none());
        let init_key = |values: &Vec<Zeroizing<Vec<u8>>>| {
            // Behind the version, the sort, the suite, "not retired", and the channel key.
            let data = KeyPackageData::mls_decode(&mut &values[0][5 + 32..]).unwrap();
            <Part>::try_from(&data.init_key[..PART]).unwrap()
        };
        gone.map(|(_, values)| init_key(values)).collect()
    }

    /// Rows of a group in which keys may be.
    fn rows_of(&self, group: &GroupUri) -> BTreeSet<(Room, Vec<u8>)> {
        let rooms = [Room::GROUP, Room::EPOCH, Room::INTENT, Room::BLOB, Room::LONG, Room::PIECE, Room::USED];
        let name = group.to_string().into_bytes();
        let mut rows = BTreeSet::new();
        for room in rooms {
            let of_group = |key: &Vec<u8>| key.windows(name.len()).any(|part| part == name);
            rows.extend(self.held(room).into_iter().map(|(key, _)| (room, key)).filter(|(_, key)| of_group(key)));
        }
        rows
    }
}

struct Audit {
    found: HashSet<Part>,
    /// Parts that were deleted.
    looked_for: usize,
}

impl Audit {
    fn has_any<'a>(&self, parts: impl IntoIterator<Item = &'a Part>) -> usize {
        parts.into_iter().filter(|part| self.found.contains(*part)).count()
    }
}

/// Time passes. Clients find it out with their next signed request.
async fn pass(ahead: &mut u64, ms: u64, people: &mut [&mut Client]) {
    *ahead += ms;
    set_ahead_for_tests(*ahead);
    for person in people {
        person.key_package_stock().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_file_has_a_key_that_was_used() {
    let mut ahead = 0;
    set_ahead_for_tests(ahead);
    let world = World::whole().await;
    let disk = Disk::new();
    let (mut alice, mut carol) = (world.person("alice").await, world.person("carol").await);
    let mut bob = world.person_in(Box::new(disk.open()), "bob").await;
    // KeyPackages are made now: MLS judges them by this machine's clock when a group is made anew.
    let mut dave = world.person("dave").await;
    let club = alice.create_group("The Club").await.unwrap();
    alice.add(&club, &[user("bob"), user("carol")]).await.unwrap();
    carol.sync().await.unwrap();
    bob.sync().await.unwrap();

    // He joined: the KeyPackage's init key is of no use any more.
    let audit = disk.audit("after the join");
    let init_keys = disk.init_keys_gone();
    assert_eq!((init_keys.len(), audit.has_any(&init_keys)), (1, 0));

    // Messages, of others and his own: 5 seconds later, and after the next sync, their keys are gone.
    for round in 0..3 {
        for text in ["one", "two", "three"] {
            alice.send(&club, text).await.unwrap();
            bob.sync().await.unwrap();
            bob.send(&club, &format!("{text} {round}")).await.unwrap();
        }
        pass(&mut ahead, 6 * MINUTE, &mut [&mut alice, &mut bob, &mut carol]).await;
        bob.sync().await.unwrap();
        let used = disk.used_in_epochs();
        assert!(!used.is_empty(), "or this test would show nothing");
        assert_eq!(disk.audit("after messages").has_any(&used), 0);
    }
    // Also where he closes at once.
    alice.send(&club, "and good bye").await.unwrap();
    bob.sync().await.unwrap();
    let before = disk.used_in_epochs().len();
    drop(bob);
    let used = disk.used_in_epochs();
    assert!(used.len() > before, "the state was written");
    assert_eq!(disk.audit("after it was closed").has_any(&used), 0);

    // Commits of all, with messages that come late in between, and one who cannot apply one.
    let mut bob = Client::over(Box::new(disk.open()), &world.services()).unwrap();
    for _ in 0..2 {
        for n in 0..3 {
            let committer = [&mut alice, &mut bob, &mut carol].into_iter().nth(n).unwrap();
            committer.sync().await.unwrap();
            committer.update(&club).await.unwrap();
            bob.sync().await.unwrap();
            bob.send(&club, "said in between").await.unwrap();
            bob.sync().await.unwrap();
            disk.audit("after a commit");
        }
    }
    let states =
        || disk.rows_of(&club).into_iter().filter(|(_, key)| key.windows(6).any(|part| part == b"\0state")).count();
    assert!(states() > 1 && !disk.held(Room::EPOCH).is_empty(), "what is kept for the time being");
    // The epochs ended 70 minutes ago, and somebody has acknowledged the commits.
    pass(&mut ahead, 75 * MINUTE, &mut [&mut alice, &mut bob, &mut carol]).await;
    let settled = async {
        while states() > 1 {
            for person in [&mut alice, &mut carol, &mut bob] {
                person.sync().await.unwrap();
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), settled).await.unwrap();
    pass(&mut ahead, 75 * MINUTE, &mut [&mut alice, &mut bob, &mut carol]).await;
    bob.sync().await.unwrap();
    assert_eq!((states(), disk.held(Room::EPOCH)), (1, Vec::new()));
    let used = disk.used_in_epochs();
    assert_eq!(disk.audit("after the ends of epochs").has_any(&used), 0);

    // He cannot apply a commit, as he believes nobody's certificates, and comes back from outside.
    drop(bob);
    let believe = |issuers: Vec<Vec<u8>>| {
        let mut store = disk.open();
        let row = store.get(Room::ACCOUNT, Account::KEY).unwrap().unwrap();
        let mut account = Account::from_row(&row).unwrap();
        let before = std::mem::replace(&mut account.issuers, issuers);
        store.apply(&[account.to_write()]).unwrap();
        before
    };
    let issuers = believe(Vec::new());
    alice.add(&club, &[user("dave")]).await.unwrap();
    // Nor does he find a service that names issuers.
    let mut bob = Client::over(Box::new(disk.open()), &world.services_unauthenticated()).unwrap();
    bob.set_deadline(Duration::from_secs(3));
    assert!(has(&bob.sync().await.unwrap(), |event| matches!(event, Event::Stuck { .. })));
    disk.audit("while he is stuck");
    drop(bob);
    believe(issuers);
    let acknowledged = async {
        let mut listener = carol.listen();
        while !has(&listener.next().await.unwrap(), |event| matches!(event, Event::Acknowledged { .. })) {}
    };
    tokio::time::timeout(Duration::from_secs(60), acknowledged).await.unwrap();
    let mut bob = Client::over(Box::new(disk.open()), &world.services()).unwrap();
    bob.sync().await.unwrap();
    assert_eq!(*bob.group(&club).unwrap().status(), Status::Active);
    alice.sync().await.unwrap();
    alice.send(&club, "you are back").await.unwrap();
    bob.sync().await.unwrap();
    assert_eq!(texts(&bob, &club).last().unwrap(), "you are back");
    dave.sync().await.unwrap();
    disk.audit("after he came back");

    // The group is made anew, by him, who claims KeyPackages for that, or by another.
    for by_bob in [true, false] {
        let old = bob.current(&club).unwrap();
        let rows = disk.rows_of(&old);
        assert!(rows.len() > 2);
        let suite = if by_bob { 3 } else { 1 };
        alice.sync().await.unwrap();
        let maker = if by_bob { &mut bob } else { &mut alice };
        maker.reinit(&old, suite, false).await.unwrap();
        let gone_on = async {
            while bob.current(&old).unwrap() == old || alice.current(&old).unwrap() == old {
                for person in [&mut alice, &mut carol, &mut bob] {
                    person.sync().await.unwrap();
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), gone_on).await.unwrap();
        bob.sync().await.unwrap();
        let audit = disk.audit("after it was made anew");
        let left: Vec<_> = disk
            .rows_of(&old)
            .into_iter()
            .map(|(room, key)| (room, String::from_utf8_lossy(&key).into_owned()))
            .collect();
        assert!(left.len() <= 3, "{left:?}");
        assert_eq!(audit.has_any(&disk.init_keys_gone()), 0);
        assert!(!disk.held(Room::ACCOUNT).iter().any(|(key, _)| key.starts_with(b"successor/")));
        let used = disk.used_in_epochs();
        assert_eq!(audit.has_any(&used), 0);
        assert!(audit.looked_for > 10_000, "{}", audit.looked_for);
    }
    world.stop().await;
}
