//! `conclave keys`, as people and programs run it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use conclave_server::{Config, Running, Server};
use serde_json::Value;
use tempfile::TempDir;

struct World {
    directory: TempDir,
    runtime: tokio::runtime::Runtime,
    server: Option<Running>,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let config = Config::for_tests(&directory.path().join("server"), "localhost".parse().unwrap());
        let server = runtime.block_on(Server::start(config)).unwrap();
        Self { directory, runtime, server: Some(server) }
    }

    fn command(&self, profile: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_conclave"));
        command
            .env("CONCLAVE_HOME", self.directory.path())
            .env_remove("CONCLAVE_PROFILE")
            .env_remove("CONCLAVE_PASSPHRASE")
            .args(["--profile", profile])
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    fn text(&self, profile: &str, arguments: &[&str]) -> String {
        let output = self.command(profile, arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn ok(&self, profile: &str, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.text(profile, &[&["--json"], arguments].concat())).unwrap()
    }

    /// Begins a verb that shows a code, and has it approved on the first device.
    fn approved(&self, profile: &str, arguments: &[&str], first: &str) -> Value {
        let mut verb = self.command(profile, arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(verb.stdout.take().unwrap()).lines().map(Result::unwrap);
        let shown: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
        self.ok(first, &["device", "add", shown["code"].as_str().unwrap(), "--yes"]);
        let done = serde_json::from_str(&lines.next().unwrap()).unwrap();
        assert!(verb.wait().unwrap().success());
        done
    }

    fn server(&self) -> [String; 4] {
        let running = self.server.as_ref().unwrap();
        let ca = self.directory.path().join("server/tls/ca.pem").to_str().unwrap().to_owned();
        ["--server".into(), format!("https://{}", running.addr()), "--ca".into(), ca]
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.shutdown());
        }
    }
}

#[test]
fn a_device_gets_a_new_key_by_itself_and_a_linked_one_by_approval() {
    let world = World::new();
    let server = world.server();
    let server: Vec<_> = server.iter().map(String::as_str).collect();
    for name in ["alice", "bob"] {
        world.ok(name, &[&["register", &format!("{name}@localhost")], server.as_slice()].concat());
    }
    let link = [&["--json", "device", "link", "alice@localhost"], server.as_slice()].concat();
    world.approved("alice-phone", &link, "alice");
    world.ok("bob", &["group", "create", "The Club"]);
    world.ok("bob", &["group", "add", "The Club", "alice"]);
    world.ok("alice", &["sync"]);
    world.ok("alice-phone", &["sync"]);

    for (profile, device) in [("alice", "laptop"), ("alice-phone", "phone")] {
        let before = world.ok(profile, &["keys", "show"]);
        assert_eq!((&before["former_keys"], before["waiting_groups"].as_array().unwrap().len()), (&Value::from(0), 0));
        let rotated = if profile == "alice" {
            world.ok(profile, &["keys", "rotate"])
        } else {
            world.approved(profile, &["--json", "keys", "rotate"], "alice")
        };
        assert_ne!(rotated["signature_key"], before["signature_key"]);
        assert_eq!((rotated["waiting_groups"].as_array().unwrap().len(), &rotated["problem"]), (0, &Value::Null));
        let after = world.ok(profile, &["keys", "show"]);
        assert_eq!((&after["signature_key"], &after["former_keys"]), (&rotated["signature_key"], &Value::from(1)));
        world.ok(profile, &["send", "The Club", &format!("by the new key of {device}")]);
    }
    let shown = world.text("bob", &["read", "The Club"]);
    for device in ["laptop", "phone"] {
        let line = format!("alice/{device} changed its signature key; its identity key is the same as before");
        assert!(shown.contains(&line), "{shown}");
        assert!(shown.contains(&format!("alice: by the new key of {device}")), "{shown}");
    }
    let log = world.ok("bob", &["group", "log", "The Club"]);
    let changes = log["log"].as_array().unwrap().iter().filter(|change| change["change"] == "key_changed");
    assert_eq!(changes.count(), 2);
    assert!(world.text("alice", &["keys", "rotate"]).contains("signs with a new key"));
    assert!(world.text("alice", &["keys", "show"]).contains("former keys    2"));
}
