use std::{fs, path::Path};

use aes::{
    Aes256,
    cipher::{BlockCipherDecrypt as _, KeyInit as _},
};
use conclave_engine::group::{KIND_EVENT, KIND_MESSAGE};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::profile::{Kdf, NewKey, NewProfile, Profile, ProfileError, StoreKey};

const SECRET: &[u8] = b"a value that nobody else may read, long enough to be found";

struct Fixture {
    temp: TempDir,
    key: StoreKey,
}

impl Fixture {
    fn new() -> (Self, Store) {
        let temp = tempfile::tempdir().unwrap();
        let kdf = Kdf { memory_kib: 1024, passes: 1, lanes: 1 };
        let key = NewKey::Passphrase("correct horse".to_owned().into(), kdf);
        let new = NewProfile::new("https://example.com", "example.com".parse().unwrap(), key);
        let (profile, key) = Profile::create(temp.path(), new).unwrap();
        let store = Store::open(&profile, &key).unwrap();
        (Self { temp, key }, store)
    }

    fn path(&self) -> &Path {
        self.temp.path()
    }

    fn reopen(&self) -> Result<Store, StoreError> {
        Store::open(&Profile::open(self.path()).unwrap(), &self.key)
    }

    /// Damages the database file in a way of the caller's.
    fn edit(&self, change: impl Fn(&mut Vec<u8>)) {
        let path = self.path().join("store.db");
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
    }
}

fn put(room: Room, key: &[u8], value: &[u8]) -> Write {
    Write::Put { room, key: key.to_vec(), value: Zeroizing::new(value.to_vec()) }
}

fn delete(room: Room, key: &[u8]) -> Write {
    Write::Delete { room, key: key.to_vec() }
}

fn message(group: &str, seq: u64, id: u8) -> StoredMessage {
    StoredMessage {
        group: group.into(),
        seq,
        epoch: 3,
        id: [id; 32],
        sender: "mimi://example.com/d/alice/laptop".into(),
        time_ms: 1_700_000_000_000 + seq,
        kind: 1,
        body: SECRET.to_vec(),
    }
}

fn get(store: &impl ProfileStore, room: Room, key: &[u8]) -> Option<Vec<u8>> {
    store.get(room, key).unwrap().map(|value| value.to_vec())
}

#[test]
fn what_was_applied_is_there_after_reopening() {
    let (fixture, mut store) = Fixture::new();
    let big = vec![5; 3 << 20];
    store
        .apply(&[put(Room::GROUP, b"k", &big), put(Room::ACCOUNT, b"", SECRET), Write::Message(message("g", 1, 1))])
        .unwrap();
    drop(store);
    let mut store = fixture.reopen().unwrap();
    assert_eq!(get(&store, Room::GROUP, b"k"), Some(big));
    assert_eq!(get(&store, Room::ACCOUNT, b""), Some(SECRET.to_vec()));
    assert_eq!(store.messages("g", 0, 10).unwrap(), [message("g", 1, 1)]);
    store.apply(&[delete(Room::GROUP, b"k"), put(Room::ACCOUNT, b"", b"new")]).unwrap();
    assert_eq!(get(&store, Room::GROUP, b"k"), None);
    assert_eq!(get(&store, Room::ACCOUNT, b""), Some(b"new".to_vec()));
}

#[test]
fn the_settings_are_in_force() {
    let (_fixture, store) = Fixture::new();
    assert_eq!(store.pragma("journal_mode"), "Text(\"wal\")");
    assert_eq!(store.pragma("synchronous"), "Integer(2)");
    assert_eq!(store.pragma("secure_delete"), "Integer(1)");
    assert_eq!(store.pragma("temp_store"), "Integer(2)");
    assert_eq!(store.pragma("cipher_memory_security"), "Text(\"1\")");
    assert_eq!(store.pragma("cipher_hmac_algorithm"), "Text(\"HMAC_SHA256\")");
    // The statements have it as a literal.
    assert_eq!(KIND_MESSAGE, 1);
}

#[test]
fn no_file_of_the_profile_has_plaintext() {
    let (fixture, mut store) = Fixture::new();
    store
        .apply(&[put(Room::ACCOUNT, SECRET, SECRET), Write::Message(message("mimi://example.com/g/secret", 1, 1))])
        .unwrap();
    let search = || {
        for entry in fs::read_dir(fixture.path()).unwrap() {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            for word in [SECRET, b"SQLite format", b"d/alice/laptop", b"g/secret", b"CREATE TABLE"] {
                let found = bytes.windows(word.len()).any(|window| window == word);
                assert!(!found, "{} in {}", String::from_utf8_lossy(word), path.display());
            }
        }
    };
    // While the write-ahead log is there, and after it was merged.
    assert!(fs::metadata(fixture.path().join("store.db-wal")).unwrap().len() > 0);
    search();
    drop(store);
    search();
}

#[test]
fn a_wrong_key_is_told_from_a_damaged_file() {
    let (fixture, store) = Fixture::new();
    drop(store);
    let profile = Profile::open(fixture.path()).unwrap();
    assert_eq!(profile.unlock(Some("wrong")).unwrap_err(), ProfileError::WrongPassphrase);
    let (other, other_store) = Fixture::new();
    drop(other_store);
    assert_eq!(Store::open(&profile, &other.key).unwrap_err(), StoreError::WrongKey);
    drop(profile);
    fixture.edit(|bytes| bytes[100] ^= 1);
    let error = fixture.reopen().unwrap_err();
    assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
    assert!(!error.is_transient());
    fixture.edit(|bytes| bytes.truncate(1000));
    assert!(fixture.reopen().is_err());
}

#[test]
fn a_newer_store_is_refused_and_left_alone() {
    let (fixture, mut store) = Fixture::new();
    store.apply(&[put(Room::ACCOUNT, b"k", b"v")]).unwrap();
    store.set_format(2);
    drop(store);
    let before = fs::read(fixture.path().join("store.db")).unwrap();
    assert_eq!(fixture.reopen().unwrap_err(), StoreError::Newer { found: 2, known: 1 });
    assert_eq!(fs::read(fixture.path().join("store.db")).unwrap(), before);
}

#[test]
fn a_profile_has_one_open_store() {
    let (fixture, store) = Fixture::new();
    drop(store);
    let profile = Profile::open(fixture.path()).unwrap();
    let mut store = Store::open(&profile, &fixture.key).unwrap();
    store.apply(&[put(Room::ACCOUNT, b"k", b"v")]).unwrap();
    let error = Store::open(&profile, &fixture.key).unwrap_err();
    assert_eq!(error, StoreError::Busy);
    assert!(error.is_transient());
}

#[test]
fn a_full_disk_changes_nothing_and_passes() {
    let (fixture, mut store) = Fixture::new();
    store.apply(&[put(Room::ACCOUNT, b"position", b"1")]).unwrap();
    store.limit_pages(20);
    let too_much = vec![1; 1 << 20];
    let error =
        store.apply(&[put(Room::ACCOUNT, b"position", b"2"), put(Room::GROUP, b"state", &too_much)]).unwrap_err();
    assert_eq!(error, StoreError::Full);
    assert!(error.is_transient());
    assert_eq!(get(&store, Room::ACCOUNT, b"position"), Some(b"1".to_vec()));
    // Smaller changes still work, and so does the large one once there is room.
    store.apply(&[put(Room::ACCOUNT, b"position", b"3")]).unwrap();
    store.limit_pages(100_000);
    store.apply(&[put(Room::GROUP, b"state", &too_much)]).unwrap();
    drop(store);
    let store = fixture.reopen().unwrap();
    assert_eq!(get(&store, Room::ACCOUNT, b"position"), Some(b"3".to_vec()));
    assert_eq!(get(&store, Room::GROUP, b"state"), Some(too_much));
}

fn all_or_nothing(store: &mut impl ProfileStore) {
    store.apply(&[put(Room::ACCOUNT, b"k", b"old")]).unwrap();
    let mut beyond = message("g", 1, 1);
    beyond.seq = u64::MAX;
    let writes = [put(Room::ACCOUNT, b"k", b"new"), Write::Message(message("g", 1, 1)), Write::Message(beyond)];
    assert_eq!(store.apply(&writes).unwrap_err(), StoreError::OutOfRange);
    assert_eq!(get(store, Room::ACCOUNT, b"k"), Some(b"old".to_vec()));
    assert_eq!(store.message_count("g").unwrap(), 0);
    store.apply(&[]).unwrap();
}

#[test]
fn a_transaction_is_applied_whole_or_not_at_all() {
    all_or_nothing(&mut Fixture::new().1);
    all_or_nothing(&mut MemoryStore::new());
}

fn pages(store: &mut impl ProfileStore) {
    let all: Vec<_> = [(1, 1), (2, 2), (2, 3), (2, 4), (3, 5)].map(|(seq, id)| message("g", seq, id)).into();
    store.apply(&all.iter().cloned().map(Write::Message).collect::<Vec<_>>()).unwrap();
    store.apply(&[Write::Message(message("h", 9, 9)), Write::Message(message("g", 2, 3))]).unwrap();
    assert_eq!(store.message_count("g").unwrap(), 5);
    // Messages of one place are not torn apart.
    assert_eq!(store.messages("g", 0, 2).unwrap(), all[..4]);
    assert_eq!(store.messages("g", 2, 2).unwrap(), all[4..]);
    assert_eq!(store.messages("g", 0, 0).unwrap(), []);
    assert_eq!(store.messages("g", u64::MAX, 1).unwrap(), []);
    assert_eq!(store.last_messages("g", 2).unwrap(), all[3..]);
    assert_eq!(store.last_messages("nobody's", 2).unwrap(), []);
}

fn once(store: &mut impl ProfileStore) {
    let change = StoredMessage { kind: KIND_EVENT, ..message("g", 1, 7) };
    store.apply(&[Write::Message(message("g", 1, 8)), Write::Message(change.clone())]).unwrap();
    assert!(store.has_message("g", &message("g", 1, 8).id).unwrap());
    assert!(!store.has_message("g", &change.id).unwrap(), "a change is no message");
    assert!(!store.has_message("h", &message("g", 1, 8).id).unwrap());
    // The same message at another place is the one that is there; changes may be alike.
    store.apply(&[Write::Message(message("g", 5, 8)), Write::Message(StoredMessage { seq: 5, ..change })]).unwrap();
    let kept: Vec<_> = store.messages("g", 0, 9).unwrap().iter().map(|kept| (kept.seq, kept.kind)).collect();
    assert_eq!(kept, [(1, KIND_EVENT), (1, KIND_MESSAGE), (5, KIND_EVENT)]);
}

#[test]
fn a_message_that_comes_again_is_kept_once() {
    once(&mut Fixture::new().1);
    once(&mut MemoryStore::new());
}

#[test]
fn messages_come_in_pages() {
    pages(&mut Fixture::new().1);
    pages(&mut MemoryStore::new());
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    // Few bytes, and the last of all, so that prefixes meet.
    prop::collection::vec(prop::sample::select(vec![0, 1, 0xFE, 0xFF]), 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn disk_and_memory_agree(
        batches in prop::collection::vec(
            prop::collection::vec((0..3u8, key(), prop::option::of(any::<[u8; 3]>())), 0..6), 0..6),
        prefix in key(),
    ) {
        let (_fixture, mut disk) = Fixture::new();
        let mut memory = MemoryStore::new();
        for batch in batches {
            let writes: Vec<_> = batch
                .into_iter()
                .map(|(room, key, value)| match value {
                    Some(value) => put(Room::new(room), &key, &value),
                    None => delete(Room::new(room), &key),
                })
                .collect();
            disk.apply(&writes).unwrap();
            memory.apply(&writes).unwrap();
        }
        for room in (0..3).map(Room::new) {
            for prefix in [&prefix[..], &[], &[0xFF], &[0xFF, 0xFF]] {
                prop_assert_eq!(disk.scan(room, prefix).unwrap(), memory.scan(room, prefix).unwrap());
            }
            prop_assert_eq!(disk.get(room, &prefix).unwrap(), memory.get(room, &prefix).unwrap());
        }
    }
}

/// The pages of a file, deciphered by hand (SQLCipher 4: AES-256-CBC, the IV at the end of each page): also those that are
/// free, and those of the write-ahead log.
fn deciphered(fixture: &Fixture, name: &str) -> Vec<u8> {
    const PAGE: usize = 4096;
    /// IV and HMAC.
    const RESERVE: usize = 48;
    let pragma = fixture.key.pragma();
    let hex = pragma.split('\'').nth(1).unwrap();
    let key: [u8; 32] = data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap().try_into().unwrap();
    let cipher = Aes256::new(&key.into());
    let bytes = fs::read(fixture.path().join(name)).unwrap_or_default();
    let (head, frame) = if name.ends_with("-wal") { (32, 24) } else { (0, 0) };
    let mut plain = Vec::new();
    for page in bytes.get(head..).unwrap_or_default().chunks_exact(frame + PAGE).map(|page| &page[frame..]) {
        // The salt begins the first page.
        let start = if page.starts_with(&bytes[..16]) && head == 0 { 16 } else { 0 };
        let (text, reserve) = page.split_at(PAGE - RESERVE);
        let mut before = &reserve[..16];
        for block in text[start..].chunks_exact(16) {
            let mut out = block.try_into().unwrap();
            cipher.decrypt_block(&mut out);
            plain.extend(out.iter().zip(before).map(|(a, b)| a ^ b));
            before = block;
        }
    }
    plain
}

#[test]
fn what_was_deleted_is_nowhere_in_the_files() {
    let (fixture, mut store) = Fixture::new();
    let secret = |n: u32| [b"a secret that was used: ".as_slice(), &n.to_be_bytes().repeat(8), SECRET].concat();
    let long = |n: u32| secret(n).repeat(200);
    let found = |n: u32, name: &str| {
        let secret = secret(n);
        deciphered(&fixture, name).windows(secret.len()).filter(|window| *window == secret).count()
    };
    for n in 0..40_u32 {
        store
            .apply(&[put(Room::GROUP, &n.to_be_bytes(), &secret(n)), put(Room::EPOCH, &n.to_be_bytes(), &long(n))])
            .unwrap();
    }
    store.apply(&[put(Room::ACCOUNT, b"stays", &secret(1000))]).unwrap();
    assert!((0..40).all(|n| found(n, "store.db") + found(n, "store.db-wal") > 0), "the test can see");
    store.tidy().unwrap();
    assert!((0..40).all(|n| found(n, "store.db") > 100) && found(1000, "store.db") == 1);
    for n in 0..40_u32 {
        let room =
            if n % 2 == 0 { put(Room::GROUP, &n.to_be_bytes(), b"new") } else { delete(Room::GROUP, &n.to_be_bytes()) };
        store.apply(&[room, delete(Room::EPOCH, &n.to_be_bytes())]).unwrap();
    }
    assert!((0..40).any(|n| found(n, "store.db") > 0), "the file itself is behind its log");
    store.tidy().unwrap();
    for n in 0..40 {
        assert_eq!((found(n, "store.db"), found(n, "store.db-wal")), (0, 0), "{n}");
    }
    assert_eq!(found(1000, "store.db"), 1);
    // The log goes with the connection as well.
    store.apply(&[put(Room::GROUP, b"k", &secret(50))]).unwrap();
    store.apply(&[delete(Room::GROUP, b"k")]).unwrap();
    assert!(found(50, "store.db-wal") > 0);
    drop(store);
    assert_eq!((found(50, "store.db"), found(50, "store.db-wal")), (0, 0));
}

/// Random numbers that a seed determines.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn bytes(&mut self, length: u64) -> Vec<u8> {
        (0..length).map(|_| u8::try_from(self.below(256)).unwrap()).collect()
    }
}

/// SQLite moves cells between pages when one is too full or too empty, and leaves their bytes in the space that this frees, where deleting them later does not
/// find them (`rebuildPage`): what is secret must not lie in cells that are moved.
#[test]
fn rows_of_all_sizes_that_come_and_go_leave_nothing_in_the_files() {
    for seed in [1, 3_u64] {
        let (fixture, mut store) = Fixture::new();
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let rooms = [Room::KEY_PACKAGE, Room::GROUP, Room::EPOCH, Room::INTENT, Room::PIECE, Room::BLOB];
        let mut live = std::collections::BTreeMap::new();
        let mut dead = Vec::new();
        for _ in 0..4 {
            for _ in 0..600 {
                let (room, n) = (rooms[usize::try_from(dice.below(6)).unwrap()], dice.below(20));
                let key = [vec![b'k'; usize::try_from(8 + 6 * n).unwrap()], n.to_be_bytes().to_vec()].concat();
                let name = (room, key.clone());
                let before = if dice.below(3) == 0 {
                    store.apply(&[delete(room, &key)]).unwrap();
                    live.remove(&name)
                } else {
                    let bound = [64, 600, 3_000, 9_000][usize::try_from(dice.below(4)).unwrap()];
                    let length = 16 + dice.below(bound);
                    let value = dice.bytes(length);
                    store.apply(&[put(room, &key, &value)]).unwrap();
                    live.insert(name, value)
                };
                dead.extend(before);
            }
            store.tidy().unwrap();
            for ((room, key), value) in &live {
                assert_eq!(get(&store, *room, key).as_ref(), Some(value));
            }
            let plain: std::collections::HashSet<_> =
                deciphered(&fixture, "store.db").windows(16).map(<[u8; 16]>::try_from).map(Result::unwrap).collect();
            // What is there is found, of a value of which a page has 16 bytes in a row.
            assert!(live.values().all(|value| value.chunks_exact(16).any(|part| plain.contains(part))));
            let left = |value: &Vec<u8>| value.chunks_exact(16).filter(|part| plain.contains(*part)).count();
            assert_eq!(dead.iter().map(left).sum::<usize>(), 0, "seed {seed}: parts of values that were deleted");
            assert_eq!(deciphered(&fixture, "store.db-wal"), b"");
        }
        assert!(dead.len() > 50 && live.len() > 20);
    }
}
