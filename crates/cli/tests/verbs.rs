//! The program as people and other programs run it, against a server in this process.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::Stdio,
};

use common::World;
use conclave_server::{Config, Server};
use serde_json::Value;

fn texts(answer: &Value) -> Vec<&str> {
    answer["items"].as_array().unwrap().iter().filter_map(|item| item["text"].as_str()).collect()
}

#[test]
fn a_group_with_visible_handshakes_says_so() {
    let world = World::new();
    world.register("alice");
    world.register("bob");
    assert_eq!(world.ok("alice", &["group", "create", "Open", "--visible"])["handshakes"], "visible");
    assert_eq!(world.ok("alice", &["group", "create", "Closed"])["handshakes"], "private");
    world.ok("alice", &["group", "create", "Hasty", "--dispute-pause", "60"]);
    for (title, pause) in [("Hasty", 60), ("Closed", 900)] {
        assert_eq!(world.ok("alice", &["group", "info", title])["dispute_pause_s"], pause);
        let shown = String::from_utf8(world.run("alice", &["group", "info", title]).stdout).unwrap();
        assert!(shown.contains(&format!("dispute pause  {pause} s")), "{shown}");
    }
    for beyond in ["9", "86401"] {
        assert!(!world.run("alice", &["group", "create", "Never", "--dispute-pause", beyond]).status.success());
    }
    for group in ["Open", "Closed"] {
        world.ok("alice", &["group", "add", group, "bob"]);
        world.ok("alice", &["send", group, "hello"]);
    }
    for (group, word) in [("Open", "visible"), ("Closed", "private")] {
        assert_eq!(texts(&world.ok("bob", &["read", group])), ["hello"]);
        let info = world.ok("bob", &["group", "info", group]);
        assert_eq!((&info["handshakes"], &info["external_senders"]), (&Value::from(word), &Value::Array(Vec::new())));
        let shown = String::from_utf8(world.run("bob", &["group", "info", group]).stdout).unwrap();
        assert!(shown.contains(&format!("handshakes     {word}")), "{shown}");
    }
}

#[test]
fn a_wiped_profile_is_restored_and_let_into_its_groups_again() {
    let world = World::new();
    world.register("alice");
    world.register("bob");
    for group in ["The Club", "The Pub"] {
        world.ok("alice", &["group", "create", group]);
        world.ok("alice", &["group", "add", group, "bob"]);
    }
    world.ok("bob", &["sync"]);
    let (file, secret) = (world.path().join("bob.recovery"), world.path().join("secret"));
    let (file, secret) = (file.to_str().unwrap(), secret.to_str().unwrap());
    std::fs::write(secret, "correct horse\n").unwrap();
    let (code, _, message) = world.fails("bob", &["device", "save", file]);
    assert_eq!(code, 2, "nobody is there to ask: {message}");
    assert!(message.contains("CONCLAVE_RECOVERY_PASSPHRASE"), "{message}");
    let saved = world.ok("bob", &["device", "save", file, "--recovery-passphrase-file", secret]);
    assert_eq!(saved["groups"].as_array().unwrap().len(), 2);
    assert_eq!(world.ok("bob", &["device", "list"])["recovery"]["missing"], Value::Array(Vec::new()));
    let again = world.fails("bob", &["device", "save", file, "--recovery-passphrase-file", secret]);
    assert_eq!((again.0, again.1.as_str()), (1, "IO"), "what was saved is not overwritten");
    std::fs::remove_dir_all(world.path().join("bob")).unwrap();

    let server = world.server_arguments();
    let server: Vec<&str> = server.iter().map(String::as_str).collect();
    let restore = ["device", "restore", file, "--recovery-passphrase-file"];
    let wrong = world.path().join("wrong");
    std::fs::write(&wrong, "battery staple").unwrap();
    let (code, _, message) =
        world.fails("bob", &[restore.as_slice(), &[wrong.to_str().unwrap()], server.as_slice()].concat());
    assert!(code == 1 && message.contains("passphrase"), "{message}");
    let restored = world.ok("bob", &[restore.as_slice(), &[secret], server.as_slice()].concat());
    assert_eq!(restored["client"], "mimi://localhost/d/bob/laptop");
    assert_eq!(restored["asked"]["devices"][0], "mimi://localhost/d/alice/laptop");
    assert_eq!(restored["lost"].as_array().unwrap().len(), 2);
    assert!(restored["asking"]["next"].as_u64() > restored["asking"]["since"].as_u64(), "{restored}");
    // What stands is shown without asking anybody.
    for _ in 0..2 {
        let shown = world.ok("bob", &["group", "recover", "--show"]);
        assert_eq!(
            (&shown["asked"], &shown["lost"], &shown["asking"]),
            (&restored["asked"], &restored["lost"], &restored["asking"])
        );
    }
    let shown = String::from_utf8(world.run("bob", &["group", "recover", "--show"]).stdout).unwrap();
    assert!(shown.contains("asked once since") && shown.contains("asks again"), "{shown}");
    let status = world.ok("bob", &["status"]);
    assert_eq!((&status["lost_groups"], &status["asking"]["rounds"]), (&Value::from(2), &Value::from(1)));
    world.ok("alice", &["sync"]);
    world.ok("bob", &["sync"]);
    let status = world.ok("bob", &["status"]);
    assert_eq!((&status["lost_groups"], &status["asking"]), (&Value::from(0), &Value::Null), "all is back");
    assert_eq!(world.ok("bob", &["group", "recover"])["lost"], Value::Array(Vec::new()));
    for group in ["The Club", "The Pub"] {
        world.ok("bob", &["send", group, "here I am"]);
        assert_eq!(texts(&world.ok("alice", &["read", group])), ["here I am"]);
        assert_eq!(world.ok("alice", &["group", "members", group])["members"].as_array().unwrap().len(), 2);
    }
    // Where nothing was lost, nobody is thrown out by asking.
    let shown = String::from_utf8(world.run("bob", &["group", "recover", "alice"]).stdout).unwrap();
    assert!(shown.contains("asked mimi://localhost/d/alice/laptop"), "{shown}");
    assert_eq!(world.ok("bob", &["group", "recover", "--give-up"])["given_up"], Value::Array(Vec::new()));
    assert_eq!(world.ok("bob", &["group", "recover", "--show"])["asking"], Value::Null);
    let linked = world.fails("bob", &["group", "recover", "alice", "--give-up"]);
    assert_eq!(linked.0, 2);
    assert_eq!(world.fails("bob", &["group", "recover", "--show", "--stop"]).0, 2);
}

#[test]
fn who_is_in_other_groups_than_the_recovery_file_names_is_told_so() {
    let world = World::new();
    world.register("alice");
    world.register("bob");
    world.ok("bob", &["group", "create", "The Club"]);
    let shown = |profile: &str, verb: &[&str]| {
        let output = world.run(profile, verb);
        let (out, notes) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success(), "{out}{notes}");
        (out, notes)
    };
    let status = || world.ok("bob", &["status"])["recovery"].clone();
    assert_eq!((&status()["saved"], status()["missing"].as_array().unwrap().len()), (&Value::Null, 1));
    assert!(shown("bob", &["status"]).0.contains("recovery file  none"));
    let secret = world.path().join("secret");
    std::fs::write(&secret, "correct horse\n").unwrap();
    let secret = secret.to_str().unwrap();
    let save = |name: &str| {
        let file = world.path().join(name);
        world.ok("bob", &["device", "save", file.to_str().unwrap(), "--recovery-passphrase-file", secret])
    };
    save("first");
    assert!(status()["saved"].is_u64() && status()["missing"] == Value::Array(Vec::new()), "{}", status());
    assert!(!shown("bob", &["sync"]).1.contains("recovery file"));

    // A group that he is invited to, and one that he makes himself.
    world.ok("alice", &["group", "create", "The Pub"]);
    world.ok("alice", &["group", "add", "The Pub", "bob"]);
    let (_, notes) = shown("bob", &["sync"]);
    assert!(notes.contains("does not bring back 1 group (\"The Pub\")"), "{notes}");
    assert!(!shown("bob", &["sync"]).1.contains("recovery file"), "once, when he joins");
    let (_, notes) = shown("bob", &["group", "create", "Diary"]);
    assert!(notes.contains("2 groups (") && notes.contains("device save"), "{notes}");
    for verb in [&["status"][..], &["device", "list"]] {
        let (out, _) = shown("bob", verb);
        assert!(out.contains("OUT OF DATE") && out.contains("\"Diary\"") && !out.contains("Club"), "{out}");
        assert_eq!(world.ok("bob", verb)["recovery"]["missing"].as_array().unwrap().len(), 2);
    }
    assert_eq!(world.ok("alice", &["status"])["recovery"]["saved"], Value::Null);
    save("second");
    assert_eq!(status()["missing"], Value::Array(Vec::new()));
    assert!(!shown("bob", &["status"]).0.contains("OUT OF DATE"));
}

#[test]
fn a_conversation_by_verbs() {
    let world = World::new();
    world.register("alice");
    world.register("bob");
    world.ok("alice", &["group", "create", "The Club"]);
    let added = world.ok("alice", &["group", "add", "The Club", "bob"]);
    assert_eq!(added["added"]["clients"][0], "mimi://localhost/d/bob/laptop");
    world.ok("alice", &["send", "The Club", "hello \u{1b}[2J Bob"]);
    assert_eq!(texts(&world.ok("bob", &["read", "The Club"])), ["hello \u{1b}[2J Bob"]);
    // For people, nothing that others wrote steers the terminal.
    let shown = String::from_utf8(world.run("bob", &["read", "The Club"]).stdout).unwrap();
    assert!(shown.contains("alice: hello") && !shown.contains('\u{1b}'), "{shown}");

    world.ok("bob", &["update", "The Club"]);
    let of = |name| {
        let info = world.ok(name, &["group", "info", "The Club"]);
        (info["epoch"].as_u64().unwrap(), info["epoch_authenticator"].as_str().unwrap().to_owned())
    };
    assert_eq!(of("alice"), of("bob"));
    assert_eq!(of("alice").0, 2);
    assert_eq!(world.ok("bob", &["group", "members", "The Club"])["members"].as_array().unwrap().len(), 2);
    let log = |name| {
        let log = world.ok(name, &["group", "log", "The Club"]);
        let change =
            |change: &Value| (change["change"].as_str().unwrap().to_owned(), change["epoch"].as_u64().unwrap());
        assert!(log["log"].as_array().unwrap().iter().all(|change| change["annulled"] == false));
        log["log"].as_array().unwrap().iter().map(change).collect::<Vec<_>>()
    };
    assert_eq!(log("alice"), [("added".into(), 1), ("renewed".into(), 2)]);
    assert_eq!(log("bob"), [("joined".into(), 1), ("renewed".into(), 2)]);
    let shown = String::from_utf8(world.run("alice", &["group", "log", "The Club"]).stdout).unwrap();
    assert!(shown.contains("alice/laptop added mimi://localhost/d/bob/laptop"), "{shown}");
    world.ok("bob", &["group", "heartbeat", "The Club"]);
    assert_eq!(world.ok("bob", &["group", "rejoin", "The Club"])["epoch"], 2);
    assert_eq!(world.ok("bob", &["group", "list"])["groups"][0]["title"], "The Club");
    let stock = world.ok("alice", &["key-packages"]);
    let suites = stock["suites"].as_array().unwrap().iter();
    let figures: Vec<_> =
        suites.map(|suite| [&suite["cipher_suite"], &suite["available"]].map(|n| n.as_u64().unwrap())).collect();
    assert_eq!(figures, [[1, 20], [3, 3]]);
    let status = world.ok("alice", &["status"]);
    assert_eq!((&status["server_reachable"], &status["pending"]), (&Value::Bool(true), &Value::from(0)));

    let file = world.path().join("history.jsonl");
    let exported = world.ok("bob", &["export", "The Club", "--output", file.to_str().unwrap()]);
    let lines = std::fs::read_to_string(&file).unwrap();
    assert_eq!(lines.lines().count() as u64, exported["items"].as_u64().unwrap());
    assert!(lines.contains("\"joined\"") && lines.contains("hello"));

    assert_eq!(world.ok("bob", &["group", "leave", "The Club"])["left"], false);
    world.ok("alice", &["sync"]);
    let (exit, code, message) = world.fails("bob", &["send", "The Club", "still here?"]);
    // Bob has not read of his removal yet, or has: either way he cannot write.
    assert_eq!((exit, code.as_str()), (1, "NOT_A_MEMBER"), "{message}");
}

#[test]
fn safety_numbers_agree_and_are_remembered() {
    let world = World::new();
    world.register("alice");
    world.register("bob");
    let (to_bob, to_alice) = (world.ok("alice", &["verify", "bob"]), world.ok("bob", &["verify", "alice"]));
    assert_eq!(to_bob["safety_number"], to_alice["safety_number"]);
    assert_eq!(to_bob["compared"], false);
    let digits = to_bob["safety_number"].as_str().unwrap().chars().filter(char::is_ascii_digit).count();
    assert_eq!(digits, 60);
    let scanned = to_alice["qr"].as_str().unwrap();
    assert_eq!(world.ok("alice", &["verify", "bob", "--scan", scanned])["compared"], true);
    assert_eq!(world.ok("alice", &["verify", "bob"])["compared"], true);
    assert_eq!(world.fails("alice", &["verify", "bob", "--scan", "conclave-verify:1:wrong"]).0, 1);
    assert_eq!(world.fails("alice", &["verify", "alice"]).0, 2);
}

#[test]
fn a_device_is_linked_by_its_code() {
    let world = World::new();
    world.register("alice");
    world.register("bob");
    let server = world.server_arguments();
    let mut link = world
        .command("alice-phone")
        .args(["--json", "device", "link", "alice@localhost"])
        .args(server)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(link.stdout.take().unwrap()).lines();
    let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    let code = first["code"].as_str().unwrap();
    // Somebody else with the code is refused by the server, and a wrong code by the device.
    assert_ne!(world.fails("bob", &["device", "add", code, "--yes"]).0, 0);
    assert_eq!(world.fails("alice", &["device", "add", "no-code", "--yes"]).0, 2);
    assert_eq!(world.fails("alice", &["device", "add", code]).0, 2, "nobody is there to ask");
    let approved = world.ok("alice", &["device", "add", code, "--yes"]);
    assert_eq!(approved["approved"], "mimi://localhost/d/alice/phone");
    let linked: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(linked["client"], "mimi://localhost/d/alice/phone");
    assert!(link.wait().unwrap().success());

    assert_eq!(world.ok("alice", &["device", "list"])["devices"].as_array().unwrap().len(), 2);
    // Both devices come into a group together.
    world.ok("bob", &["group", "create", "Devices"]);
    let added = world.ok("bob", &["group", "add", "Devices", "alice"]);
    assert_eq!(added["added"]["clients"].as_array().unwrap().len(), 2);
    world.ok("bob", &["send", "Devices", "to both"]);
    for profile in ["alice", "alice-phone"] {
        assert_eq!(texts(&world.ok(profile, &["read", "Devices"])), ["to both"]);
    }
    // A linked device cannot approve others.
    let mut another = world
        .command("alice-tablet")
        .args(["--json", "device", "link", "alice@localhost", "--device", "tablet"])
        .args(world.server_arguments())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(another.stdout.take().unwrap()).lines();
    let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    let (exit, _, message) = world.fails("alice-phone", &["device", "add", first["code"].as_str().unwrap(), "--yes"]);
    assert!(exit == 1 && message.contains("identity key"), "{message}");
    another.kill().unwrap();
    another.wait().unwrap();
}

#[test]
fn a_shell_answers_each_line_and_keeps_the_profile_to_itself() {
    let world = World::new();
    let mut shell =
        world.command("alice").args(["--json", "shell"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = shell.stdin.take().unwrap();
    let mut lines = BufReader::new(shell.stdout.take().unwrap()).lines();
    let mut ask = |line: &str| -> Value {
        writeln!(input, "{line}").unwrap();
        serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap()
    };
    assert_eq!(ask("group list")["ok"], false, "there is no profile yet");
    let [server, url, ca, file] = world.server_arguments();
    assert_eq!(ask(&format!("register alice {server} {url} --domain localhost {ca} '{file}'"))["ok"], true);
    assert_eq!(ask("group create \"Two words\"")["result"]["title"], "Two words");
    assert_eq!(ask("no such verb")["error"]["code"], "USAGE");
    assert_eq!(ask("send \"Two words\" 'unclosed")["error"]["code"], "USAGE");
    assert_eq!(ask("send Nobody hi")["error"]["code"], "NO_SUCH_GROUP");
    assert_eq!(ask("group list")["result"]["groups"].as_array().unwrap().len(), 1);
    let (exit, code, message) = world.fails("alice", &["group", "list"]);
    assert_eq!((exit, code.as_str()), (1, "PROFILE_IN_USE"), "{message}");
    drop(input);
    assert!(shell.wait().unwrap().success());
    world.ok("alice", &["group", "list"]);
}

#[test]
fn failures_say_what_to_do() {
    let world = World::new();
    let (exit, code, message) = world.fails("nobody", &["group", "list"]);
    assert_eq!((exit, code.as_str()), (1, "PROFILE"));
    assert!(message.contains("register") || message.contains("profile"), "{message}");
    assert_eq!(world.fails("alice", &["register", "alice@localhost"]).0, 2, "which server?");
    world.register("alice");
    // The name is taken, and the second profile can go on with another.
    let server = world.server_arguments();
    let mut arguments = vec!["register", "alice@localhost"];
    arguments.extend(server.iter().map(String::as_str));
    assert_eq!(world.fails("thief", &arguments).1, "NAME_TAKEN");
    assert_eq!(world.fails("alice", &arguments).1, "REGISTRATION");
    world.ok("alice", &["group", "create", "Alone"]);
    assert_eq!(world.fails("alice", &["group", "add", "Alone", "nobody"]).1, "USER_UNKNOWN");
    assert_eq!(world.fails("alice", &["group", "add", "Alone", "Not A Name"]).0, 2);
    assert_eq!(world.fails("alice", &["group", "remove", "Alone", "nobody"]).0, 1);
    let output = world.run("alice", &["frobnicate"]);
    assert_eq!(output.status.code(), Some(2));
    let help = String::from_utf8(world.run("alice", &["--help"]).stdout).unwrap();
    assert!(help.contains("register") && help.contains("GROUP is"));
    assert!(String::from_utf8(world.run("alice", &["completions", "bash"]).stdout).unwrap().contains("conclave"));
    assert!(String::from_utf8(world.run("alice", &["man"]).stdout).unwrap().contains(".TH"));
}

#[test]
fn a_passphrase_protects_a_profile() {
    let world = World::new();
    let server = world.server_arguments();
    let registered = world
        .command("alice")
        .env("CONCLAVE_PASSPHRASE", "correct horse")
        .args(["--json", "register", "alice@localhost", "--passphrase"])
        .args(&server)
        .output()
        .unwrap();
    assert!(registered.status.success(), "{}", String::from_utf8_lossy(&registered.stdout));
    assert!(!world.path().join("alice/store.key").exists());
    let with = |passphrase: &str| {
        let output =
            world.command("alice").env("CONCLAVE_PASSPHRASE", passphrase).args(["group", "list"]).output().unwrap();
        output.status.code().unwrap()
    };
    assert_eq!(with("correct horse"), 0);
    assert_eq!(with("wrong horse"), 1);
    assert_eq!(world.fails("alice", &["group", "list"]).0, 2, "no terminal to ask on");
}

#[test]
fn what_was_wished_offline_is_sent_later() {
    let mut world = World::new();
    world.register("alice");
    world.ok("alice", &["group", "create", "Later"]);
    let address = world.server.as_ref().unwrap().addr();
    let server = world.server.take().unwrap();
    world.runtime.block_on(server.shutdown());
    let read = world.ok("alice", &["read", "Later", "--offline"]);
    assert!(texts(&read).is_empty());
    let (exit, code, _) = world.fails("alice", &["--timeout", "1", "send", "Later", "patience"]);
    assert_eq!((exit, code.as_str()), (3, "UNREACHABLE"));
    // Each command is a process of its own, and finds that something waits already.
    for later in [["send", "Later", "and more"].as_slice(), &["update", "Later"], &["group", "heartbeat", "Later"]] {
        let (exit, code, _) = world.fails("alice", &[["--timeout", "1"].as_slice(), later].concat());
        assert_eq!((exit, code.as_str()), (3, "UNREACHABLE"), "{later:?}");
    }
    let (exit, code, _) = world.fails("alice", &["--timeout", "1", "group", "remove", "Later", "nobody"]);
    assert_eq!((exit, code.as_str()), (1, "CLIENT"), "there is nothing to carry out later");
    let mut config = Config::for_tests(&world.path().join("server"), "localhost".parse().unwrap());
    config.listen = address;
    world.server = Some(world.runtime.block_on(Server::start(config)).unwrap());
    world.ok("alice", &["sync"]);
    assert_eq!(texts(&world.ok("alice", &["read", "Later"])), ["patience", "and more"]);
    let info = world.ok("alice", &["group", "info", "Later"]);
    assert_eq!((&info["epoch"], &info["pending"]), (&Value::from(1), &Value::from(0)));
}

#[test]
fn groups_of_another_cipher_suite() {
    let world = World::new();
    world.register("alice");
    world.register("bob");
    let made = world.ok("alice", &["group", "create", "The Club", "--suite", "3"]);
    assert_eq!(made["cipher_suite"], 3);
    world.ok("alice", &["group", "add", "The Club", "bob"]);
    world.ok("bob", &["sync"]);
    world.ok("bob", &["send", "The Club", "hello"]);
    assert_eq!(texts(&world.ok("alice", &["read", "The Club"])), ["hello"]);
    assert_eq!(world.ok("bob", &["group", "info", "The Club"])["cipher_suite"], 3);
    for verb in ["create", "reinit"] {
        let (exit, code, message) = world.fails("alice", &["group", verb, "The Club", "--suite", "2"]);
        assert_eq!((exit, code.as_str()), (1, "CIPHER_SUITE_UNSUPPORTED"));
        assert!(message.contains("Ed25519"), "{message}");
    }
    assert_eq!(world.ok("alice", &["group", "reinit", "The Club", "--suite", "1"])["made_anew"], false);
    // Bob confirms it a second later, as Alice is the first in the group.
    let new = loop {
        world.ok("bob", &["sync"]);
        world.ok("alice", &["sync"]);
        let info = world.ok("alice", &["group", "info", "The Club"]);
        if info["cipher_suite"] == 1 {
            break info["group"].clone();
        }
    };
    world.ok("bob", &["sync"]);
    world.ok("bob", &["send", "The Club", "in the default suite again"]);
    assert_eq!(world.ok("bob", &["group", "info", "The Club"])["group"], new);
    assert_eq!(texts(&world.ok("alice", &["read", "The Club"])), ["hello", "in the default suite again"]);
}

#[test]
fn a_group_is_made_anew_and_goes_on_with_its_history() {
    let world = World::new();
    for name in ["alice", "bob", "carol"] {
        world.register(name);
    }
    let old = world.ok("alice", &["group", "create", "The Club"])["group"].as_str().unwrap().to_owned();
    world.ok("alice", &["group", "add", "The Club", "bob", "carol"]);
    world.ok("alice", &["send", "The Club", "before"]);
    for name in ["bob", "carol"] {
        world.ok(name, &["sync"]);
    }
    // Nobody else is there to acknowledge it: the group is frozen, and what is said waits.
    let frozen = world.ok("alice", &["group", "reinit", "The Club", "--visible"]);
    assert_eq!((&frozen["made_anew"], &frozen["group"]), (&Value::Bool(false), &Value::from(old.clone())));
    let (exit, code, _) = world.fails("alice", &["send", "The Club", "while it was frozen"]);
    assert_eq!((exit, code.as_str()), (3, "UNCONFIRMED"));
    // Who comes acknowledges, and whoever is there goes on: nobody has to wait for Alice.
    let new = loop {
        world.ok("bob", &["sync"]);
        world.ok("carol", &["sync"]);
        let listed = world.ok("carol", &["group", "list"]);
        let name = listed["groups"][0]["group"].as_str().unwrap().to_owned();
        assert_eq!(listed["groups"].as_array().unwrap().len(), 1);
        if name != old {
            break name;
        }
    };
    world.ok("alice", &["sync"]);
    world.ok("bob", &["sync"]);
    world.ok("bob", &["send", "The Club", "after"]);
    let all = ["before", "while it was frozen", "after"];
    for name in ["alice", "bob", "carol"] {
        let info = world.ok(name, &["group", "info", "The Club"]);
        assert_eq!((&info["group"], &info["handshakes"]), (&Value::from(new.clone()), &Value::from("visible")));
        assert_eq!((&info["status"], &info["members"]), (&Value::from("active"), &Value::from(3)));
        let read = world.ok(name, &["read", "The Club", "--all"]);
        let said: Vec<_> = texts(&read);
        let mine: Vec<_> = all.into_iter().filter(|text| name == "alice" || said.contains(text)).collect();
        assert_eq!(said, mine);
        assert_eq!(texts(&world.ok(name, &["read", &old, "--limit", "2"])), all[1..]);
    }
    assert_eq!(texts(&world.ok("carol", &["read", "The Club"])), all);
    // Who came and went before is in its log, for both names.
    for (name, first) in [("alice", "added"), ("carol", "joined")] {
        for group in [&old, &new] {
            let log = world.ok(name, &["group", "log", group]);
            let changes: Vec<_> = log["log"].as_array().unwrap().iter().map(|change| &change["change"]).collect();
            assert_eq!(changes[0], first, "{log}");
            assert!(changes.contains(&&Value::from("made_anew")), "{log}");
            assert_eq!(log["log"][0]["group"], Value::from(old.clone()));
        }
    }
    // A group like any other, also for the old name.
    world.ok("carol", &["update", &old]);
    world.ok("alice", &["group", "remove", "The Club", "bob"]);
    assert_eq!(world.ok("carol", &["group", "members", "The Club"])["members"].as_array().unwrap().len(), 2);
    let back = world.ok("carol", &["group", "reinit", "The Club", "--private"]);
    assert_eq!(back["made_anew"], false);
}
