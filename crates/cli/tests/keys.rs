//! `conclave keys`, as people and programs run it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use common::World;
use serde_json::Value;

/// What a verb says to people.
fn text(world: &World, profile: &str, arguments: &[&str]) -> String {
    let output = world.run(profile, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Begins a verb that shows a code, and has it approved on the first device.
fn approved(world: &World, profile: &str, arguments: &[&str], first: &str) -> Value {
    let mut verb = world.command(profile).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(verb.stdout.take().unwrap()).lines().map(Result::unwrap);
    let shown: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    world.ok(first, &["device", "add", shown["code"].as_str().unwrap(), "--yes"]);
    let done = serde_json::from_str(&lines.next().unwrap()).unwrap();
    assert!(verb.wait().unwrap().success());
    done
}

#[test]
fn a_device_gets_a_new_key_by_itself_and_a_linked_one_by_approval() {
    let world = World::new();
    let server = world.server_arguments();
    let server: Vec<_> = server.iter().map(String::as_str).collect();
    for name in ["alice", "bob"] {
        world.register(name);
    }
    let link = [&["--json", "device", "link", "alice@localhost"], server.as_slice()].concat();
    approved(&world, "alice-phone", &link, "alice");
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
            approved(&world, profile, &["--json", "keys", "rotate"], "alice")
        };
        assert_ne!(rotated["signature_key"], before["signature_key"]);
        assert_eq!((rotated["waiting_groups"].as_array().unwrap().len(), &rotated["problem"]), (0, &Value::Null));
        let after = world.ok(profile, &["keys", "show"]);
        assert_eq!((&after["signature_key"], &after["former_keys"]), (&rotated["signature_key"], &Value::from(1)));
        world.ok(profile, &["send", "The Club", &format!("by the new key of {device}")]);
    }
    let shown = text(&world, "bob", &["read", "The Club"]);
    for device in ["laptop", "phone"] {
        let line = format!("alice/{device} changed its signature key; its identity key is the same as before");
        assert!(shown.contains(&line), "{shown}");
        assert!(shown.contains(&format!("alice: by the new key of {device}")), "{shown}");
    }
    let log = world.ok("bob", &["group", "log", "The Club"]);
    let changes = log["log"].as_array().unwrap().iter().filter(|change| change["change"] == "key_changed");
    assert_eq!(changes.count(), 2);
    assert!(text(&world, "alice", &["keys", "rotate"]).contains("signs with a new key"));
    assert!(text(&world, "alice", &["keys", "show"]).contains("former keys    2"));
}
