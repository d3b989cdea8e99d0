//! What somebody finds who reads the memory of a running client (RFC 9750, section 8.2.2): no message key that was used, and nothing that it
//! could be derived from, and no secret of an epoch that is over. The client is a process of its own, so what is found there is not this one's
//! copy.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::{
    collections::{BTreeSet, HashSet},
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::FileExt as _,
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use common::World;
use conclave_client::{
    profile::Profile,
    store::{ProfileStore as _, Store},
};
use conclave_engine::writes::Room;
use conclave_server::set_ahead_for_tests;
use hkdf::Hkdf;
use serde_json::Value;
use sha2::Sha256;

/// Bytes that are looked for at a time: as many as a message key of the default cipher suite has.
const PART: usize = 16;

/// A secret of a ratchet.
type Secret = [u8; 32];

/// The MLS states that a profile, which nobody has open, has stored.
fn stored(world: &World, profile: &str) -> Vec<Vec<u8>> {
    let profile = Profile::open(&world.path().join(profile)).unwrap();
    let store = Store::open(&profile, &profile.unlock(None).unwrap()).unwrap();
    let is_state = |room: Room, key: &[u8]| room != Room::GROUP || key.windows(6).any(|word| word == b"\0state");
    let rooms = [Room::GROUP, Room::EPOCH, Room::PIECE].into_iter();
    let rows = rooms.flat_map(|room| store.scan(room, b"").unwrap().into_iter().map(move |row| (room, row)));
    rows.filter(|(room, (key, _))| is_state(*room, key)).map(|(_, (_, value))| value.to_vec()).collect()
}

fn secrets(states: &[Vec<u8>]) -> HashSet<Secret> {
    states.iter().flat_map(|state| state.windows(32)).map(|secret| secret.try_into().unwrap()).collect()
}

/// Whether it may be a secret: names and numbers stand in many places.
fn is_random(bytes: &Secret) -> bool {
    bytes.iter().collect::<BTreeSet<_>>().len() > 24
}

/// What a server knows of a group whose handshakes it reads: its tree, and all that was said about it.
fn known_to_the_server(world: &World) -> HashSet<[u8; PART]> {
    let database = rusqlite::Connection::open(world.path().join("server/conclave.db")).unwrap();
    let query = "SELECT bytes FROM ds_entries UNION ALL SELECT snapshot FROM ds_checkpoints UNION ALL SELECT message FROM ds_followed \
                 UNION ALL SELECT group_info FROM ds_group_infos UNION ALL SELECT data FROM ds_chunks";
    let mut statement = database.prepare(query).unwrap();
    let rows = statement.query_map((), |row| row.get::<_, Vec<u8>>(0)).unwrap();
    let parts = |row: Vec<u8>| row.windows(PART).map(|part| part.try_into().unwrap()).collect::<Vec<_>>();
    rows.flat_map(|row| parts(row.unwrap())).collect()
}

/// `DeriveTreeSecret` (RFC 9420, section 9).
fn derive<const N: usize>(secret: &Secret, label: &str, generation: u32) -> [u8; N] {
    let label = format!("MLS 1.0 {label}");
    let mut info = u16::try_from(N).unwrap().to_be_bytes().to_vec();
    info.push(u8::try_from(label.len()).unwrap());
    info.extend(label.into_bytes());
    info.push(4);
    info.extend(generation.to_be_bytes());
    let mut derived = [0; N];
    Hkdf::<Sha256>::from_prk(secret).unwrap().expand(&info, &mut derived).unwrap();
    derived
}

/// What a ratchet has used between two states, oldest first: the secret of a generation, and the message key.
type Used = Vec<(Secret, [u8; PART])>;

/// The ratchets that stood in an earlier state, of up to eight messages, and were moved on by no more than that.
fn ratchets(before: &HashSet<Secret>, after: &HashSet<Secret>) -> BTreeSet<Used> {
    let mut found = BTreeSet::new();
    for (first, generation) in before.difference(after).flat_map(|secret| (0..8).map(move |of| (*secret, of))) {
        let (mut used, mut secret) = (Vec::new(), first);
        for generation in generation..generation + 8 {
            used.push((secret, derive(&secret, "key", generation)));
            secret = derive(&secret, "secret", generation);
            if after.contains(&secret) {
                found.insert(used);
                break;
            }
        }
    }
    found
}

/// What a process could write to: heap, stacks and data.
struct Memory(Vec<Vec<u8>>);

impl Memory {
    /// Which of these are there.
    fn find(&self, wanted: &HashSet<Secret>) -> HashSet<Secret> {
        // By the first three bytes, most places are passed over.
        let prefix = |at: &[u8]| usize::from(at[0]) << 16 | usize::from(at[1]) << 8 | usize::from(at[2]);
        let mut begins = vec![false; 1 << 24];
        for secret in wanted {
            begins[prefix(secret)] = true;
        }
        let at = self.0.iter().flat_map(|area| area.windows(32)).filter(|at| begins[prefix(at)]);
        at.map(|at| at.try_into().unwrap()).filter(|at| wanted.contains(at)).collect()
    }

    fn has(&self, bytes: &[u8]) -> bool {
        self.0
            .iter()
            .any(|area| area.windows(PART).any(|part| part == &bytes[..PART] || part == &bytes[bytes.len() - PART..]))
    }
}

/// A `conclave shell`, which is killed in the end, whatever happens.
struct Shell {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Shell {
    fn new(world: &World, profile: &str) -> Self {
        let mut command = world.command(profile);
        command.args(["--json", "shell"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    /// Runs a line that must succeed.
    fn ok(&mut self, line: &str) -> Value {
        writeln!(self.input, "{line}").unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["ok"], true, "{line}: {answer}");
        answer["result"].clone()
    }

    /// Its memory while it waits for a line.
    fn memory(&self) -> Memory {
        let directory = format!("/proc/{}", self.child.id());
        let memory = File::open(format!("{directory}/mem")).unwrap();
        let maps = std::fs::read_to_string(format!("{directory}/maps")).unwrap();
        let mut areas = Vec::new();
        for map in maps.lines() {
            let mut fields = map.split_ascii_whitespace();
            let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
            if rights.starts_with("rw") {
                let (from, to) = range.split_once('-').unwrap();
                let [from, to] = [from, to].map(|at| u64::from_str_radix(at, 16).unwrap());
                let mut area = vec![0; usize::try_from(to - from).unwrap()];
                memory.read_exact_at(&mut area, from).unwrap();
                areas.push(area);
            }
        }
        Memory(areas)
    }
}

#[test]
fn no_message_key_that_was_used_is_left_in_memory() {
    set_ahead_for_tests(0);
    let world = World::new();
    world.register("alice");
    world.register("bob");
    let made = world.ok("alice", &["group", "create", "The Club"]);
    let group = made["group"].as_str().unwrap();
    world.ok("alice", &["group", "add", group, "bob"]);
    // Both have ratchets of their own by then.
    world.ok("alice", &["send", group, "one"]);
    world.ok("bob", &["sync"]);
    world.ok("bob", &["send", group, "two"]);
    world.ok("alice", &["sync"]);
    let before = stored(&world, "bob");
    for text in ["three", "four"] {
        world.ok("alice", &["send", group, text]);
    }

    let mut bob = Shell::new(&world, "bob");
    // That loads the group, and reads nothing.
    bob.ok("keys show");
    let loaded = bob.memory();
    let events = bob.ok("sync")["events"].clone();
    assert_eq!(events.as_array().unwrap().iter().filter(|event| event["event"] == "message").count(), 2, "{events}");
    bob.ok(&format!("send {group} five"));
    // After five seconds a call writes the state anew. The client learns of the time by a request that is too old.
    set_ahead_for_tests(600_000);
    bob.ok("key-packages");
    bob.ok("sync");
    let left = bob.memory();
    // Killed: what is stored is what was stored by then.
    drop(bob);
    let ratchets = ratchets(&secrets(&before), &secrets(&stored(&world, "bob")));
    let mut used: Vec<_> = ratchets.iter().map(Vec::len).collect();
    used.sort_unstable();
    assert_eq!(used, [1, 2], "Bob has said one thing, and Alice two");
    for used in &ratchets {
        assert!(loaded.has(&used[0].0), "it is looked for in the right place");
        for (secret, key) in used {
            assert!(!left.has(secret), "the secret that a key was derived from is left");
            assert!(!left.has(key), "a message key is left");
        }
    }
}

#[test]
fn no_secret_of_an_epoch_that_is_over_is_left_in_memory() {
    set_ahead_for_tests(0);
    let world = World::new();
    world.register("alice");
    world.register("bob");
    // What the server knows of it is no secret.
    let made = world.ok("alice", &["group", "create", "The Club", "--visible"]);
    let group = made["group"].as_str().unwrap();
    world.ok("alice", &["group", "add", group, "bob"]);
    world.ok("alice", &["send", group, "one"]);
    world.ok("bob", &["sync"]);
    world.ok("bob", &["send", group, "two"]);
    world.ok("alice", &["sync"]);
    let before = secrets(&stored(&world, "bob"));
    world.ok("alice", &["update", group]);
    world.ok("alice", &["send", group, "three"]);

    let mut bob = Shell::new(&world, "bob");
    bob.ok("keys show");
    let loaded = bob.memory();
    bob.ok("sync");
    bob.ok(&format!("update {group}"));
    bob.ok(&format!("send {group} four"));
    // Commits are confirmed within an hour, and 70 minutes later nobody needs what was before them.
    for hours in 1..=4 {
        set_ahead_for_tests(hours * 3_600_000);
        for line in ["key-packages", "sync"] {
            bob.ok(line);
            world.ok("alice", &[line]);
        }
        bob.ok("sync");
    }
    let left = bob.memory();
    drop(bob);
    let (after, public) = (secrets(&stored(&world, "bob")), known_to_the_server(&world));
    // Where the tree ends in the state, what stands there is known in part.
    let is_known = |secret: &Secret| secret.windows(PART).any(|part| public.contains(part));
    let over = |secret: &Secret| !after.contains(secret) && !is_known(secret) && is_random(secret);
    let over: HashSet<Secret> = before.into_iter().filter(over).collect();
    let (loaded, left) = (loaded.find(&over), left.find(&over));
    // A state of 2.7 KB, of which the tree is no secret.
    assert!(loaded.len() > 300 && loaded.len() == over.len(), "{} of {}", loaded.len(), over.len());
    assert!(left.is_empty(), "{} of {} windows are left", left.len(), over.len());
}
