//! `conclave group fill` and `conclave settings`, as people and programs run them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use common::World;
use conclave_server::{Config, Server};
use serde_json::Value;

/// What a verb says to people.
fn text(world: &World, profile: &str, arguments: &[&str]) -> String {
    let output = world.run(profile, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The server keeps little of what it has from then on.
fn forgetful(world: &mut World) {
    let running = world.server.take().unwrap();
    let listen = running.addr();
    world.runtime.block_on(running.shutdown());
    let mut config = Config::for_tests(&world.path().join("server"), "localhost".parse().unwrap());
    config.listen = listen;
    config.retention.bytes = Some(4000);
    world.server = Some(world.runtime.block_on(Server::start(config)).unwrap());
}

#[test]
fn a_device_that_was_away_is_told_what_it_missed() {
    let mut world = World::new();
    for name in ["alice", "bob"] {
        world.register(name);
    }
    world.ok("alice", &["group", "create", "The Club"]);
    world.ok("alice", &["group", "add", "The Club", "bob"]);
    world.ok("bob", &["sync"]);
    for n in 0..20 {
        world.ok("alice", &["send", "The Club", &format!("message {n}")]);
    }
    world.ok("alice", &["update", "The Club"]);
    assert_eq!(world.ok("alice", &["settings"])["gap_fill"], "ask");
    let (code, error, message) = world.fails("alice", &["group", "fill", "The Club", "bob"]);
    assert_eq!((code, error.as_str()), (1, "NOBODY_ASKED"), "{message}");
    let (code, error, _) = world.fails("alice", &["group", "fill", "The Club", "bob/laptop"]);
    assert_eq!((code, error.as_str()), (1, "NOT_ENTITLED"));
    let (code, error, _) = world.fails("alice", &["group", "fill", "The Club", "nobody/laptop"]);
    assert_eq!((code, error.as_str()), (1, "NOT_A_MEMBER"));
    assert!(text(&world, "alice", &["group", "fill", "The Club"]).contains("nobody asks"));

    forgetful(&mut world);
    let missed = text(&world, "bob", &["sync"]);
    assert!(missed.contains("cannot be read here"), "{missed}");
    let asked = text(&world, "alice", &["sync"]);
    assert!(asked.contains("bob/laptop is back and asks for 20 messages"), "{asked}");
    assert!(asked.contains("`conclave group fill GROUP bob/laptop`"), "{asked}");
    let who = world.ok("alice", &["group", "fill", "The Club"]);
    assert_eq!(who["asked"][0]["client"], "mimi://localhost/d/bob/laptop");
    let given = world.ok("alice", &["group", "fill", "The Club", "bob"]);
    assert_eq!((&given["messages"], &given["left_out"]), (&Value::from(20), &Value::from(0)));
    let (_, error, _) = world.fails("alice", &["group", "fill", "The Club", "bob/laptop"]);
    assert_eq!(error, "ANSWERED_ALREADY");

    let news = text(&world, "bob", &["sync"]);
    assert!(news.contains("alice/laptop told you 20 messages"), "{news}");
    let shown = text(&world, "bob", &["read", "The Club"]);
    assert!(shown.contains("alice: message 7 (as alice/laptop tells it)"), "{shown}");
    let items = world.ok("bob", &["read", "The Club", "--all"]);
    let told: Vec<_> = items["items"].as_array().unwrap().iter().filter(|item| item["kind"] == "told").collect();
    assert_eq!(told.len(), 20);
    assert_eq!(told[7]["teller"], "mimi://localhost/d/alice/laptop");
    assert_eq!(told[7]["text"], "message 7");
}

#[test]
fn the_setting_is_shown_and_set() {
    let world = World::new();
    world.register("alice");
    for choice in ["never", "always", "ask"] {
        assert_eq!(world.ok("alice", &["settings", "--gap-fill", choice])["gap_fill"], choice);
        assert_eq!(world.ok("alice", &["settings"])["gap_fill"], choice);
        assert!(text(&world, "alice", &["settings"]).contains(&format!("gap-fill  {choice}: this device")));
    }
    let (code, ..) = world.fails("alice", &["settings", "--gap-fill", "perhaps"]);
    assert_eq!(code, 2);
}
