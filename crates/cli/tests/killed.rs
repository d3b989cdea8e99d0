//! Clients that are killed (`kill -9`) at random points of what they do: real processes, against a server in this process.
//!
//! `CONCLAVE_KILLS` sets how many are killed (200), `CONCLAVE_SEED` repeats the random choices of a run. When the processes
//! run does not depend on the seed alone, so a run is repeated in kind, not to the instruction.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use common::{
    World,
    roster::{Change, client, log, members_of, roster},
};
use serde_json::Value;

/// Random numbers that a seed determines.
struct Dice(u64);

impl Dice {
    fn new(seed: u64, stream: u64) -> Self {
        let mixed = (seed ^ stream.wrapping_mul(0xD1B5_4A32_D192_ED03)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Self(mixed | 1)
    }

    /// Less than `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap()
    }

    fn one_of<'a>(&mut self, all: &'a [String]) -> &'a str {
        &all[self.index(all.len())]
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// The program, for programs.
fn command(world: &World, profile: &str) -> Command {
    let mut command = world.command(profile);
    command.arg("--json").stdout(Stdio::piped());
    command
}

/// A registration, which can be killed and begun again.
fn registration(world: &World, name: &str) -> Command {
    let mut command = command(world, name);
    command.args(["register", &format!("{name}@localhost")]).args(world.server_arguments());
    command
}

fn history(world: &World, name: &str, group: &str) -> History {
    let answer = world.ok(name, &["read", group, "--all", "--offline"]);
    let mut history = History::default();
    for item in answer["items"].as_array().unwrap() {
        let seq = item["seq"].as_u64().unwrap();
        match item["kind"].as_str().unwrap() {
            "message" => history.messages.push(Message {
                seq,
                sender: item["sender"].as_str().unwrap().to_owned(),
                text: item["text"].as_str().unwrap().to_owned(),
            }),
            _ => history.changes.push((seq, item["change"].clone())),
        }
    }
    history
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Message {
    seq: u64,
    sender: String,
    text: String,
}

#[derive(Default)]
struct History {
    messages: Vec<Message>,
    changes: Vec<(u64, Value)>,
}

impl History {
    /// Places of the changes of a kind that name a member.
    fn places(&self, kind: &str, member: &str) -> Vec<u64> {
        let named =
            |change: &Value| change["members"].as_array().is_some_and(|all| all.iter().any(|one| one == member));
        self.changes
            .iter()
            .filter(|(_, change)| change["event"] == kind && named(change))
            .map(|(seq, _)| *seq)
            .collect()
    }
}

/// A line for the program.
struct Line {
    text: String,
    kind: &'static str,
    /// The group that it changes or says something in.
    group: String,
    /// What it says.
    says: Option<String>,
}

/// A change that was answered.
#[derive(Debug)]
struct Done {
    kind: &'static str,
    group: String,
    /// The epoch in which the one who made it had seen the group before, and that of the answer.
    between: (u64, u64),
    /// Whom it added or removed.
    members: Vec<String>,
}

/// A `conclave shell` that is killed in the end, whatever happens.
struct Shell(Child);

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One person at a computer that loses power again and again.
struct Person<'a> {
    world: &'a World,
    name: &'static str,
    dice: Dice,
    groups: Vec<String>,
    /// Texts so far, by group.
    said: u64,
    /// Those whose sending was answered: group and text.
    acknowledged: Vec<(String, String)>,
    /// Changes that were answered, in order.
    done: Vec<Done>,
    /// The newest epoch of each group that an answer has named.
    epochs: BTreeMap<String, u64>,
    /// What was killed in the middle of which verb.
    killed: BTreeMap<&'static str, u32>,
    /// Of these, changes of which group: they may have been made or not.
    perhaps: BTreeMap<(&'static str, String), usize>,
    /// What it could not do, and why.
    refused: BTreeMap<String, u32>,
    /// Groups that it made, with the answer to it.
    made: Vec<String>,
    /// How long a line takes, in microseconds, on average.
    pace: u64,
    /// Whether it makes groups anew, and does little else.
    remakes: bool,
}

const PEOPLE: [&str; 4] = ["alice", "bob", "carol", "dave"];

impl<'a> Person<'a> {
    fn new(world: &'a World, name: &'static str, dice: Dice, groups: Vec<String>) -> Self {
        Self {
            world,
            name,
            dice,
            groups,
            said: 0,
            acknowledged: Vec::new(),
            done: Vec::new(),
            epochs: BTreeMap::new(),
            killed: BTreeMap::new(),
            perhaps: BTreeMap::new(),
            refused: BTreeMap::new(),
            made: Vec::new(),
            pace: 30_000,
            remakes: false,
        }
    }

    /// What to do next.
    fn line(&mut self) -> Line {
        let group = self.dice.one_of(&self.groups).to_owned();
        let guest = self.name == "dave";
        let line = |text: String, kind, group: &str| Line { text, kind, group: group.to_owned(), says: None };
        let what = self.dice.below(20);
        if self.remakes && (10..=13).contains(&what) {
            let mode = if what.is_multiple_of(2) { "--visible" } else { "--private" };
            return line(format!("group reinit {group} {mode}"), "reinit", &group);
        }
        match if self.remakes && what > 13 { 19 } else { what } {
            0..=9 => {
                self.said += 1;
                let says = format!("{} {}", self.name, self.said);
                Line { says: Some(says.clone()), ..line(format!("send {group} '{says}'"), "send", &group) }
            }
            10..=12 if !guest => line(format!("update {group}"), "update", &group),
            13..=14 if !guest => line(format!("group add {group} dave"), "add", &group),
            15..=16 if !guest => line(format!("group remove {group} dave"), "remove", &group),
            17 if !guest => {
                self.said += 1;
                line(format!("group create '{}{}'", self.name, self.said), "create", "")
            }
            18 if !self.made.is_empty() => {
                let all = PEOPLE.iter().filter(|name| **name != self.name).copied().collect::<Vec<_>>().join(" ");
                let group = &self.made[self.made.len() - 1];
                line(format!("group add {group} {all}"), "add", group)
            }
            _ => line("sync".to_owned(), "sync", ""),
        }
    }

    /// Starts the program, has it do some things, and kills it at a random moment.
    fn live_and_die(&mut self) {
        let mut lines: Vec<_> = (0..12).map(|_| self.line()).collect();
        // What another sent while this one was away is joined and read in the same life.
        lines.insert(0, Line { text: "sync".to_owned(), kind: "sync", group: String::new(), says: None });
        let mut command = command(self.world, self.name);
        let child = command.arg("shell").stdin(Stdio::piped()).spawn().unwrap();
        let mut shell = Shell(child);
        let mut input = shell.0.stdin.take().unwrap();
        let mut output = BufReader::new(shell.0.stdout.take().unwrap());
        for line in &lines {
            writeln!(input, "{}", line.text).unwrap();
        }
        let wait_for = self.dice.index(6);
        let mut answers = 0;
        let mut last = Instant::now();
        for line in &lines[..wait_for] {
            let Some(answer) = next_answer(&mut output) else { panic!("{} ended by itself", self.name) };
            self.take(answers, &answer, line);
            answers += 1;
            if answers > 1 {
                self.pace = (self.pace * 7 + u64::try_from(last.elapsed().as_micros()).unwrap()) / 8;
            }
            last = Instant::now();
        }
        // Within the line that runs now; the first includes the program's start.
        let span = if answers == 0 { self.pace * 4 } else { self.pace * 2 };
        std::thread::sleep(Duration::from_micros(self.dice.below(span)));
        shell.0.kill().unwrap();
        shell.0.wait().unwrap();
        // What it had said by then counts.
        while let Some(answer) = next_answer(&mut output) {
            self.take(answers, &answer, &lines[answers]);
            answers += 1;
        }
        *self.killed.entry(lines.get(answers).map_or("idle", |line| line.kind)).or_default() += 1;
        if let Some(line) = lines.get(answers) {
            *self.perhaps.entry((line.kind, line.group.clone())).or_default() += 1;
        }
    }

    fn take(&mut self, index: usize, answer: &Value, line: &Line) {
        let result = &answer["result"];
        if answer["ok"] == true {
            self.acknowledged.extend(line.says.clone().map(|text| (line.group.clone(), text)));
            if result["handshakes"].is_string() {
                self.made.push(result["group"].as_str().unwrap().to_owned());
            }
            if ["update", "add", "remove"].contains(&line.kind) {
                self.note(result, line);
            }
            return;
        }
        // Others remove the guest before, or add it; then there is nothing to do. All else is amiss.
        let code = answer["error"]["code"].as_str().unwrap();
        let message = answer["error"]["message"].as_str().unwrap();
        let expected = match code {
            "NOT_A_MEMBER" | "NO_SUCH_GROUP" => self.name == "dave",
            "CLIENT" => message.starts_with("the change could not be made"),
            // It waits until the group goes on.
            "UNCONFIRMED" => self.remakes,
            _ => false,
        };
        assert!(expected, "{}: line {index} failed with {code}: {message}", self.name);
        *self.refused.entry(format!("{} {message}", self.name)).or_default() += 1;
    }

    /// Keeps a change that was answered.
    fn note(&mut self, result: &Value, line: &Line) {
        let epoch = result["epoch"].as_u64().unwrap();
        let before = self.epochs.insert(line.group.clone(), epoch).unwrap_or_default();
        assert!(before <= epoch, "{}: {} went from epoch {before} back to {epoch}", self.name, line.group);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let members = match line.kind {
            "add" => result["added"]["clients"].as_array().unwrap().iter().map(text).collect(),
            "remove" => vec![client("dave")],
            _ => Vec::new(),
        };
        self.done.push(Done { kind: line.kind, group: line.group.clone(), between: (before, epoch), members });
    }
}

/// What a person was told to have done in a group, and what may have been done besides, is in the log: each change once, and no other.
fn check_changes(person: &Person, group: &str, log: &[Change]) {
    let (own, mut answered) = (client(person.name), BTreeMap::<_, usize>::new());
    for done in person.done.iter().filter(|done| done.group == group) {
        let word = match done.kind {
            "update" => "renewed",
            "add" => "added",
            _ => "removed",
        };
        *answered.entry(done.kind).or_default() += 1;
        if done.kind != "update" && done.members.is_empty() {
            // They were members.
            continue;
        }
        // Another may have been faster with the same; keys are one's own.
        let made = |change: &&Change| {
            change.word == word
                && (change.by == own || done.kind != "update")
                && (done.between.0 < change.epoch && change.epoch <= done.between.1)
                && done.members.iter().all(|member| change.members.contains(member))
        };
        assert_eq!(log.iter().filter(made).count().min(1), 1, "{}: {done:?} is not in {log:#?}", person.name);
    }
    for (kind, word) in [("update", "renewed"), ("add", "added"), ("remove", "removed")] {
        let made = log.iter().filter(|change| change.by == own && change.word == word).count();
        let most = answered.get(kind).copied().unwrap_or_default()
            + person.perhaps.get(&(kind, group.to_owned())).copied().unwrap_or_default();
        assert!(made <= most, "{} has {word} {made} times, and was to {most} times at most: {log:#?}", person.name);
        let least = answered.get("update").copied().unwrap_or_default();
        assert!(kind != "update" || made >= least, "{} has {word} {made} times of {least}: {log:#?}", person.name);
    }
}

/// None at the end, and for a line that was cut off by it.
fn next_answer(output: &mut BufReader<std::process::ChildStdout>) -> Option<Value> {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    line.ends_with('\n').then(|| serde_json::from_str(&line).unwrap())
}

/// Kills registrations; the same command goes on each time.
fn register(world: &World, name: &str, dice: &mut Dice, kills: u64) {
    for _ in 0..kills {
        let mut child = Shell(registration(world, name).stderr(Stdio::null()).spawn().unwrap());
        std::thread::sleep(Duration::from_micros(dice.below(120_000)));
        let _ = child.0.kill();
        if child.0.wait().unwrap().success() {
            break;
        }
    }
    let output = registration(world, name).output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    // Unless it was done before.
    assert!(output.status.success() || answer["error"]["code"] == "REGISTRATION", "{name}: {answer}");
    let user = format!("mimi://localhost/u/{name}");
    assert_eq!(world.ok(name, &["status"])["user"], user);
}

/// Syncs until everybody is at the same place with nothing left to do.
fn calm(world: &World, names: &[&str], group: &str) -> Value {
    for _ in 0..20 {
        for name in names {
            world.ok(name, &["sync"]);
        }
        let infos: Vec<_> = names.iter().map(|name| world.ok(name, &["group", "info", group])).collect();
        let same = |key: &str| infos.iter().all(|info| info[key] == infos[0][key]);
        let quiet = infos.iter().all(|info| info["pending"] == 0);
        if quiet && same("group") && same("epoch") && same("position") {
            for key in ["epoch_authenticator", "chain", "members"] {
                assert!(same(key), "{group}: {key} differs: {infos:#?}");
            }
            assert!(infos.iter().all(|info| info["status"] == "active"), "{infos:#?}");
            return infos[0].clone();
        }
    }
    panic!("{group} does not come to rest");
}

fn check_texts(history: &History, sent: &[(String, String)], group: &str, who: &str) {
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for message in &history.messages {
        let (sender, count) = message.text.split_once(' ').unwrap();
        let count: u64 = count.parse().unwrap();
        let last = seen.insert(sender, count).unwrap_or_default();
        assert!(last < count, "{who} has {} after {sender} {last}: doubled, or out of order", message.text);
    }
    for (_, text) in sent.iter().filter(|(of, _)| of == group) {
        let found = history.messages.iter().filter(|message| message.text == *text).count();
        assert_eq!(found, 1, "{who} has {text:?}, which was acknowledged, {found} times");
    }
    for (seq, change) in &history.changes {
        let kind = change["event"].as_str().unwrap();
        let fine = ["added", "removed", "updated", "joined", "removed_from_group", "intent_failed", "acknowledged"];
        assert!(fine.contains(&kind) || ["frozen", "succeeded"].contains(&kind), "{who}, entry {seq}: {change}");
    }
}

fn kills_and_seed() -> (u64, u64) {
    let kills = number("CONCLAVE_KILLS").unwrap_or(200);
    let seed = number("CONCLAVE_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos())
    });
    println!("CONCLAVE_SEED={seed} CONCLAVE_KILLS={kills}");
    (kills, seed)
}

#[test]
fn clients_that_are_killed_while_groups_are_made_anew_all_go_on_in_the_same() {
    let (kills, seed) = kills_and_seed();
    let (world, mut dice, members) = (World::new(), Dice::new(seed, 98), &PEOPLE[..3]);
    for name in members {
        register(&world, name, &mut dice, 0);
        world.ok(name, &["sync"]);
    }
    let made = world.ok("alice", &["group", "create", "Again"]);
    let group = made["group"].as_str().unwrap().to_owned();
    world.ok("alice", &["group", "add", &group, "bob", "carol"]);
    let (left, world, people) = (AtomicI64::new(i64::try_from(kills / 4).unwrap()), &world, Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for (stream, name) in (0..).zip(members) {
            let (group, left, people) = (group.clone(), &left, &people);
            scope.spawn(move || {
                let mut person = Person::new(world, name, Dice::new(seed, stream), vec![group]);
                person.remakes = true;
                while left.fetch_sub(1, Ordering::Relaxed) > 0 {
                    person.live_and_die();
                }
                people.lock().unwrap().push(person);
            });
        }
    });
    let people = people.into_inner().unwrap();
    let sent: Vec<_> = people.iter().flat_map(|person| person.acknowledged.clone()).collect();
    for (kind, count) in people.iter().flat_map(|person| &person.killed) {
        println!("killed in the middle of {kind}: {count}");
    }
    let info = calm(world, members, &group);
    assert_ne!(info["group"], Value::from(group.clone()), "it was never made anew");
    let everybody: BTreeSet<_> = members.iter().map(|name| client(name)).collect();
    for name in members {
        assert_eq!(members_of(world, name, &group), everybody);
    }
    let histories: Vec<_> = members.iter().map(|name| history(world, name, &group)).collect();
    for (name, history) in members.iter().zip(&histories) {
        assert_eq!(history.messages, histories[0].messages, "{name} and alice");
        check_texts(history, &sent, &group, name);
    }
}

#[test]
fn who_is_killed_while_it_joins_joins_once_and_reads_everything_since() {
    let (kills, seed) = kills_and_seed();
    let (world, mut dice) = (World::new(), Dice::new(seed, 97));
    for name in &PEOPLE[..2] {
        register(&world, name, &mut dice, 0);
        world.ok(name, &["sync"]);
    }
    let made = world.ok("alice", &["group", "create", "Revolving door"]);
    let group = made["group"].as_str().unwrap();
    let (mut killed, mut joined, mut span) = (0, 0_u64, 200_000);
    let mut expected = Vec::new();
    while killed < kills / 4 {
        world.ok("alice", &["group", "add", group, "bob"]);
        joined += 1;
        expected.push(format!("alice {joined}"));
        world.ok("alice", &["send", group, &format!("alice {joined}")]);
        // Nothing but his invitation and the message waits for him. Each try is killed later, until one is through.
        for try_number in 1.. {
            let mut child = Shell(command(&world, "bob").arg("sync").stdout(Stdio::null()).spawn().unwrap());
            let begun = Instant::now();
            std::thread::sleep(Duration::from_micros(dice.below(span * try_number / 2)));
            let ended = child.0.try_wait().unwrap();
            child.0.kill().unwrap();
            let status = ended.unwrap_or(child.0.wait().unwrap());
            if let Some(code) = status.code() {
                assert_eq!(code, 0);
                span = u64::try_from(begun.elapsed().as_micros()).unwrap().min(span * 2);
                break;
            }
            killed += 1;
        }
        let last = calm(&world, &PEOPLE[..2], group);
        assert_eq!(last["members"], 2);
        let read: Vec<_> = history(&world, "bob", group).messages.into_iter().map(|message| message.text).collect();
        assert_eq!(read, expected, "what was said while he was a member, once each");
        world.ok("alice", &["group", "remove", group, "bob"]);
        world.ok("alice", &["send", group, "not for bob"]);
        world.ok("bob", &["sync"]);
    }
    println!("killed {killed} times in the middle of {joined} joins");
    let changes = log(&world, "alice", group);
    assert_eq!(roster(&changes, "alice"), BTreeSet::from([client("alice")]));
    let count = |log: &[Change], word: &str| log.iter().filter(|change| change.word == word).count() as u64;
    assert_eq!(["added", "removed", "renewed"].map(|word| count(&changes, word)), [joined, joined, 0]);
    // He himself knows each of them, and nothing that he saw twice.
    let seen = log(&world, "bob", group);
    assert_eq!(["joined", "removed_here"].map(|word| count(&seen, word)), [joined, joined], "{seen:#?}");
    assert_eq!(world.ok("bob", &["status"])["pending"], 0);
}

#[test]
fn clients_that_are_killed_at_any_point_lose_nothing_and_double_nothing() {
    let (kills, seed) = kills_and_seed();
    let world = World::new();
    let mut dice = Dice::new(seed, 99);
    for name in PEOPLE {
        register(&world, name, &mut dice, kills.min(40) / 8);
        world.ok(name, &["sync"]);
    }
    let make = |title: &str, more: &[&str]| {
        let made = world.ok("alice", &[&["group", "create", title], more].concat());
        let group = made["group"].as_str().unwrap().to_owned();
        world.ok("alice", &["group", "add", &group, "bob", "carol", "dave"]);
        group
    };
    let groups = vec![make("Private", &[]), make("Visible", &["--visible"])];
    for name in PEOPLE {
        world.ok(name, &["sync"]);
    }

    let left = AtomicI64::new(i64::try_from(kills).unwrap());
    let (world, people) = (&world, Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for (stream, name) in (0..).zip(PEOPLE) {
            let (groups, left, people) = (groups.clone(), &left, &people);
            scope.spawn(move || {
                let mut person = Person::new(world, name, Dice::new(seed, stream), groups);
                while left.fetch_sub(1, Ordering::Relaxed) > 0 {
                    person.live_and_die();
                }
                people.lock().unwrap().push(person);
            });
        }
    });
    let people = people.into_inner().unwrap();
    let sent: Vec<_> = people.iter().flat_map(|person| person.acknowledged.clone()).collect();
    let mut killed = BTreeMap::new();
    for (kind, count) in people.iter().flat_map(|person| &person.killed) {
        *killed.entry(kind).or_insert(0) += count;
    }
    for refused in people.iter().flat_map(|person| &person.refused) {
        println!("{refused:?}");
    }
    println!("killed in the middle of {killed:?}; {} messages were acknowledged", sent.len());

    // Groups go on, and everybody has the same.
    let members = &PEOPLE[..3];
    for group in &groups {
        let info = calm(world, members, group);
        let changes = log(world, "alice", group);
        let (epoch, roster) = (u64::try_from(changes.len()).unwrap(), roster(&changes, "alice"));
        assert_eq!(info["epoch"], epoch, "{changes:#?}");
        for person in &people {
            check_changes(person, group, &changes);
        }
        for name in members {
            assert_eq!(members_of(world, name, group), roster, "{name}: {changes:#?}");
            // All joined with the first.
            assert_eq!(log(world, name, group)[1..], changes[1..], "{name}");
        }
        // Proposals that are left, if there are any, are committed with it.
        world.ok("alice", &["update", group]);
        for (index, name) in (1..).zip(members) {
            world.ok(name, &["send", group, &format!("{name} {}", u32::MAX - index)]);
        }
        world.ok("dave", &["sync"]);
        calm(world, members, group);
        let histories: Vec<_> = members.iter().map(|name| history(world, name, group)).collect();
        for (name, history) in members.iter().zip(&histories) {
            assert_eq!(history.messages, histories[0].messages, "{name} and alice");
            check_texts(history, &sent, group, name);
        }
        for (index, name) in (1..).zip(members) {
            let text = format!("{name} {}", u32::MAX - index);
            assert_eq!(histories[0].messages.iter().filter(|message| message.text == text).count(), 1);
        }
        check_guest(world, group, &histories[0]);
    }
    // So do those that were made in between.
    for person in &people {
        for group in &person.made {
            world.ok(person.name, &["send", group, "made 1"]);
            let changes = log(world, person.name, group);
            let clients = members_of(world, person.name, group);
            check_changes(person, group, &changes);
            assert_eq!(clients, roster(&changes, person.name), "{group}");
            let names: Vec<_> = clients.iter().map(|client| client.split('/').nth(4).unwrap()).collect();
            calm(world, &names, group);
            for name in &names {
                let history = history(world, name, group);
                let found = history.messages.iter().filter(|message| message.text == "made 1").count();
                assert_eq!(found, 1, "{name} in {group}");
            }
        }
    }
    for name in PEOPLE {
        let status = world.ok(name, &["status"]);
        assert_eq!(
            (&status["pending"], status["stuck_groups"].as_array().unwrap().len()),
            (&Value::from(0), 0),
            "{name}"
        );
    }
    let many = |kinds: &[&str]| kinds.iter().filter_map(|kind| killed.get(kind)).sum::<u32>() >= 10;
    let done: usize = people.iter().map(|person| person.done.len()).sum();
    println!("{done} changes were answered");
    assert!(kills < 200 || done >= 50, "{done} changes were answered");
    let each = many(&["send"]) && many(&["update", "add", "remove"]) && many(&["sync"]);
    assert!(kills < 200 || each, "all were killed in the middle of {killed:?}");
}

/// Who was in and out has what was said while it was in. What others wrote before they knew of it, and the DS ordered
/// after it was added, is not for it to read: the first of each sender, before the next commit.
fn check_guest(world: &World, group: &str, all: &History) {
    let (member, history) = ("mimi://localhost/d/dave/laptop", history(world, "dave", group));
    let mut out = all.places("removed", member);
    out.push(u64::MAX);
    let mut read = 0;
    for joined in all.places("added", member) {
        let end = *out.iter().find(|place| **place > joined).unwrap();
        let commits = ["added", "removed", "updated"].map(Value::from);
        let next = all.changes.iter().find(|(seq, change)| *seq > joined && commits.contains(&change["event"]));
        let next = next.map_or(u64::MAX, |(seq, _)| *seq);
        let mut heard: Vec<&str> = Vec::new();
        for message in all.messages.iter().filter(|message| joined < message.seq && message.seq < end) {
            if history.messages.contains(message) {
                heard.push(&message.sender);
                read += 1;
            } else {
                let early = message.seq < next && !heard.contains(&message.sender.as_str());
                assert!(early && message.sender != member, "dave was added at {joined} and lacks {message:?}");
            }
        }
    }
    assert_eq!(read, history.messages.len(), "dave has what was said while it was no member, or has it twice");
    assert!(read > 0);
}
