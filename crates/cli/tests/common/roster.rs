//! Who is in a group, and what the membership log says of it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::World;

/// A change of the members, as a client's log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub epoch: u64,
    pub word: String,
    pub by: String,
    pub members: Vec<String>,
}

/// The membership log. Nothing is annulled, and what somebody did has its epoch.
pub fn log(world: &World, name: &str, group: &str) -> Vec<Change> {
    let answer = world.ok(name, &["group", "log", group]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let read = |change: &Value| {
        assert_eq!(change["annulled"], false, "{name}: {change}");
        Change {
            epoch: change["epoch"].as_u64().unwrap_or_default(),
            word: text(&change["change"]),
            by: text(&change["by"]),
            members: change["members"].as_array().unwrap().iter().map(text).collect(),
        }
    };
    answer["log"].as_array().unwrap().iter().map(read).collect()
}

/// Who is a member for all that a log says from the group's beginning on: nobody is added or removed twice, and each change has an epoch of its own.
pub fn roster(log: &[Change], first: &str) -> BTreeSet<String> {
    let mut roster = BTreeSet::from([client(first)]);
    for (epoch, change) in (1..).zip(log) {
        assert_eq!(change.epoch, epoch, "{change:?} in {log:#?}");
        for member in &change.members {
            let fine = match change.word.as_str() {
                "added" => roster.insert(member.clone()),
                "removed" => roster.remove(member),
                _ => false,
            };
            assert!(fine, "{change:?} in {log:#?}");
        }
        assert!(change.word == "renewed" || !change.members.is_empty(), "{change:?}");
    }
    roster
}

pub fn members_of(world: &World, name: &str, group: &str) -> BTreeSet<String> {
    let answer = world.ok(name, &["group", "members", group]);
    let all = answer["members"].as_array().unwrap();
    let named: BTreeSet<_> = all.iter().map(|member| member["client"].as_str().unwrap().to_owned()).collect();
    assert_eq!(named.len(), all.len(), "{answer}");
    named
}

pub fn client(name: &str) -> String {
    format!("mimi://localhost/d/{name}/laptop")
}
