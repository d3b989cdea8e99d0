//! RFC 9750, sections 3.1 to 3.5, played over sockets by a server and three clients, each a process of its own.

// Indexing a JSON value by a name that is not there gives null.
#![allow(clippy::indexing_slicing)]

mod observer;
mod person;
mod server;

use std::process::ExitCode;

use observer::Observer;
use person::Person;
use server::ServerProcess;

/// What went differently than it should, and where.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Deviation(String);

impl Deviation {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

pub(crate) type Played<T> = Result<T, Deviation>;

fn chapter(title: &str) {
    println!("\n== {title}");
}

fn says(who: &str, what: &str) {
    println!("   {who:<8} {what}");
}

fn expect(holds: bool, what: &str) -> Played<()> {
    if holds { Ok(()) } else { Err(Deviation::new(what)) }
}

/// Plays the demonstration. 0: all went as it should; 1: it says where not.
pub(crate) fn main() -> ExitCode {
    match play() {
        Ok(()) => ExitCode::SUCCESS,
        Err(deviation) => {
            eprintln!("\nconclave demo: FAILED: {deviation}");
            ExitCode::FAILURE
        }
    }
}

const SECRETS: [&str; 5] = [
    "The Clubhouse",
    "hello Bob, it is just us two",
    "hello Alice, nobody else hears us",
    "hi all, thanks for having me",
    "Charlie must not read this",
];

fn play() -> Played<()> {
    let directory = tempfile::tempdir().map_err(|error| Deviation::new(format!("no temporary directory: {error}")))?;
    println!("Conclave demonstration: RFC 9750, section 3, over real sockets.");

    chapter("A server starts (Authentication Service and Delivery Service in one process)");
    let server = ServerProcess::start(&directory.path().join("server"))?;
    says("server", &format!("process {}, https://{}, data in a temporary directory", server.id(), server.address()));

    let mut people = Vec::new();
    for name in ["alice", "bob", "charlie"] {
        people.push(Person::start(name, directory.path())?);
    }
    let [alice, bob, charlie] = people.as_mut_slice() else { return Err(Deviation::new("three people")) };
    for person in [&*alice, &*bob, &*charlie] {
        says(person.name(), &format!("is a client process of its own: {}", person.id()));
    }

    chapter("3.1  Accounts: each client makes its keys; the Authentication Service certifies them");
    for person in [&mut *alice, &mut *bob, &mut *charlie] {
        let answer = person.register(&server)?;
        says(person.name(), &format!("-> AS   public identity key, proof of possession; <- certificate for {answer}"));
    }

    chapter("3.2  Keying material: KeyPackages go to the Delivery Service's directory");
    for person in [&mut *alice, &mut *bob, &mut *charlie] {
        let stock = person.ask("key-packages")?;
        let suite = &stock["suites"][0];
        expect(suite["available"].as_u64() >= Some(20), "the directory does not have the KeyPackages")?;
        expect(suite["last_resort"] == true, "the directory has no last resort")?;
        says(person.name(), &format!("-> DS   {} KeyPackages for one use each, and a last resort", suite["available"]));
    }

    chapter("3.3  Alice makes a group and adds Bob");
    alice.ask(&format!("group create \"{}\"", SECRETS[0]))?;
    says("alice", "-> DS   a channel with a random name, and the hash of one key: not who she is");
    alice.ask("group add \"The Clubhouse\" bob")?;
    says("alice", "<- DS   one KeyPackage of Bob's, whose certificate and identity signature she checks");
    says("alice", "-> DS   Commit, sealed tree and GroupInfo, and a Welcome to Bob's sealed address, in one step");
    let joined = bob.ask("sync")?;
    expect(joined["events"][0]["event"] == "joined", "Bob did not join")?;
    says("bob", "<- DS   the Welcome, from his inbox; he joins, and deletes the key it was for");
    agree(&mut [alice, bob], 1)?;

    alice.say(SECRETS[1])?;
    bob.hears(&[SECRETS[1]])?;
    bob.say(SECRETS[2])?;
    alice.hears(&[SECRETS[1], SECRETS[2]])?;

    chapter("3.4  Bob adds Charlie, and everyone talks");
    bob.ask("group add \"The Clubhouse\" charlie")?;
    says("bob", "-> DS   Commit with a Welcome for Charlie");
    charlie.ask("sync")?;
    alice.ask("sync")?;
    agree(&mut [alice, bob, charlie], 2)?;
    charlie.hears(&[])?;
    says("charlie", "reads nothing of what was said before: no key of his opens it");
    charlie.say(SECRETS[3])?;
    alice.hears(&[SECRETS[1], SECRETS[2], SECRETS[3]])?;
    bob.hears(&[SECRETS[1], SECRETS[2], SECRETS[3]])?;

    chapter("3.5  Bob renews his keys");
    bob.ask("update \"The Clubhouse\"")?;
    says("bob", "-> DS   an empty Commit: new leaf and channel keys; who had stolen the old ones is out");
    alice.ask("sync")?;
    charlie.ask("sync")?;
    agree(&mut [alice, bob, charlie], 3)?;

    chapter("3.5  Alice removes Charlie");
    alice.ask("group remove \"The Clubhouse\" charlie")?;
    says("alice", "-> DS   Commit without Charlie; the group seed is new, too");
    alice.say(SECRETS[4])?;
    bob.hears(&[SECRETS[1], SECRETS[2], SECRETS[3], SECRETS[4]])?;
    charlie.hears(&[SECRETS[3]])?;
    charlie.is_refused("send \"The Clubhouse\" \"still here?\"", "NOT_A_MEMBER")?;
    says("charlie", "learns that he was removed; he reads nothing more, and cannot write");
    agree(&mut [alice, bob], 4)?;

    chapter("3.5  Bob leaves: he asks, and Alice commits it");
    let asked = bob.ask("group leave \"The Clubhouse\"")?;
    expect(asked["left"] == false, "nobody can commit his own removal")?;
    says("bob", "-> DS   a Remove proposal for himself");
    alice.ask("sync")?;
    says("alice", "<- DS   the proposal; -> DS  the Commit that carries it out");
    bob.ask("sync")?;
    bob.is_refused("send \"The Clubhouse\" \"bye\"", "NOT_A_MEMBER")?;
    let members = alice.ask("group members \"The Clubhouse\"")?;
    expect(members["members"].as_array().map(Vec::len) == Some(1), "Alice is not alone")?;
    says("alice", "is the only member left");

    chapter("What the server could see");
    for person in people {
        person.stop()?;
    }
    let data = server.stop()?;
    Observer::open(&data)?.report(&SECRETS)?;

    println!("\nEverything went as it should.");
    println!(
        "\nYour own server and two people, in two terminals:\n\n    \
         cargo run --release -- server --data-dir /tmp/conclave\n\n    \
         cargo run --release -- client --profile alice register alice@localhost \\\n        \
         --server https://localhost:7443 --ca /tmp/conclave/tls/ca.pem\n    \
         cargo run --release -- client --profile alice group create \"The Club\"\n\n\
         README.md goes on from there."
    );
    Ok(())
}

/// All see the same epoch and the same authenticator, and so the same members and history (RFC 9420, section 8.7).
fn agree(people: &mut [&mut Person], epoch: u64) -> Played<()> {
    let mut seen: Option<String> = None;
    let mut names = Vec::new();
    for person in people.iter_mut() {
        let info = person.ask("group info \"The Clubhouse\"")?;
        let authenticator = info["epoch_authenticator"].as_str().unwrap_or_default().to_owned();
        let name = person.name().to_owned();
        expect(info["epoch"] == epoch, &format!("{name} is in epoch {}, not {epoch}", info["epoch"]))?;
        expect(
            seen.as_ref().is_none_or(|seen| *seen == authenticator) && !authenticator.is_empty(),
            &format!("{name} has another epoch_authenticator than the others"),
        )?;
        seen = Some(authenticator);
        names.push(name);
    }
    let authenticator = seen.unwrap_or_default();
    let short = authenticator.get(..16).unwrap_or(&authenticator);
    says("agreed", &format!("{} are in epoch {epoch} with epoch_authenticator {short}...", names.join(", ")));
    Ok(())
}
