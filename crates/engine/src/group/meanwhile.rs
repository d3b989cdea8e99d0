//! Who came and went while this client could not follow the group (RFC 9750, section 8.4.3.1).
//!
//! The log of a group's members is what this client saw of its commits. Those of a gap it never sees: whoever came and went by them is
//! found by comparing the members that it knew with those whom it finds when it is back, and is told of without a name of who did it.

use std::collections::{BTreeMap, BTreeSet};

use conclave_names::{ClientUri, Epoch, Hash};

use super::Group;
use crate::outcome::Event;

/// Members with their users' identity keys: another key is another member.
pub(super) type Roster = BTreeSet<(ClientUri, Hash)>;

/// The members in a tree.
pub(super) fn roster(members: BTreeMap<ClientUri, [u8; 32]>) -> Roster {
    members.into_iter().map(|(client, identity_key)| (client, Hash::new(identity_key))).collect()
}

/// What is to be told of who is back in an epoch.
pub(super) fn came_and_went(before: &Roster, now: &Roster, epoch: Epoch) -> Vec<Event> {
    let names = |of: BTreeSet<&(ClientUri, Hash)>| of.into_iter().map(|(client, _)| client.clone()).collect::<Vec<_>>();
    let went = names(before.difference(now).collect());
    let came = names(now.difference(before).collect());
    let mut events = Vec::new();
    if !went.is_empty() {
        events.push(Event::WentMeanwhile { members: went, epoch });
    }
    if !came.is_empty() {
        events.push(Event::CameMeanwhile { members: came, epoch });
    }
    events
}

impl Group {
    /// The members; none if their credentials do not read.
    pub(super) fn roster(&self) -> Roster {
        let members = self.members().unwrap_or_default().into_iter();
        members.map(|member| (member.client, member.identity_key)).collect()
    }

    /// We were let in again: tells who came and went since we could not follow the group.
    pub(super) fn tell_meanwhile(&self, before: &Roster) -> Vec<Event> {
        let now = self.roster();
        // Of an incarnation that left nothing, nobody is known.
        if before.is_empty() || now.is_empty() { Vec::new() } else { came_and_went(before, &now, self.epoch()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_identity_key_is_another_member() {
        let member = |name: &str, key| {
            (format!("mimi://example.com/d/{name}/laptop").parse::<ClientUri>().unwrap(), Hash::new([key; 32]))
        };
        let before = Roster::from([member("alice", 1), member("bob", 2), member("carol", 3)]);
        let now = Roster::from([member("alice", 1), member("bob", 9), member("dave", 4)]);
        let events = came_and_went(&before, &now, Epoch(7));
        let names = |names: [&str; 2]| names.map(|name| member(name, 0).0).to_vec();
        let expected = [
            Event::WentMeanwhile { members: names(["bob", "carol"]), epoch: Epoch(7) },
            Event::CameMeanwhile { members: names(["bob", "dave"]), epoch: Epoch(7) },
        ];
        assert_eq!(events, expected);
        assert!(came_and_went(&now, &now, Epoch(8)).is_empty());
    }
}
