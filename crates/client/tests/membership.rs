//! The log of who came and went, where commits were taken back.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use common::{SharedStore, World};
use conclave_client::{Event, Membership, store::ProfileStore as _};
use conclave_engine::{
    group::KIND_EVENT,
    writes::{StoredMessage, Write},
};
use conclave_names::{ClientUri, Epoch, GroupUri, Seq};

/// An event as the engine notes it. Rows of one place come in the order of their names, which says nothing.
fn noted(group: &GroupUri, seq: u64, time_ms: u64, id: u8, event: &Event) -> Write {
    Write::Message(StoredMessage {
        group: group.to_string(),
        seq,
        id: [id; 32],
        sender: String::new(),
        time_ms,
        kind: KIND_EVENT,
        epoch: 5,
        body: serde_json::to_vec(event).unwrap(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_back_is_marked_and_what_came_instead_is_not() {
    let world = World::whole().await;
    let store = SharedStore::default();
    let mut alice = world.person_in(Box::new(store.clone()), "alice").await;
    let group = alice.create_group("The Club").await.unwrap();
    let by: ClientUri = "mimi://example.com/d/bob/laptop".parse().unwrap();
    let removed = |member: &str| Event::Removed {
        by: by.clone(),
        members: vec![format!("mimi://example.com/d/{member}/laptop").parse().unwrap()],
        epoch: Epoch(5),
    };
    let annulled = |seq| Event::Annulled { commit: Seq(seq), epoch: Epoch(4) };
    for (first, second) in [(1, 2), (2, 1)] {
        let mut of_store = store.clone();
        let at = 1000 * u64::from(first);
        of_store
            .apply(&[
                noted(&group, at, 100, 1, &removed("stays")),
                noted(&group, at + 5, 150, 1, &removed("void")),
                noted(&group, at + 6, 160, 1, &removed("voidtoo")),
                // By the entry that brings another commit.
                noted(&group, at + 10, 200, first, &annulled(at + 5)),
                noted(&group, at + 10, 200, second, &removed("instead")),
                // By time alone, when nothing had come after the commit.
                noted(&group, at + 20, 300, first, &removed("voidbytime")),
                noted(&group, at + 20, 999, second, &annulled(at + 20)),
                noted(&group, at + 21, 1000, 1, &removed("later")),
                // By time alone, and too early, as the next entry shows.
                noted(&group, at + 30, 1100, first, &removed("stands")),
                noted(&group, at + 30, 1999, second, &annulled(at + 30)),
                noted(&group, at + 31, 1200, 1, &Event::NotAnnulled { commit: Seq(at + 30) }),
                // And again, for good.
                noted(&group, at + 40, 1300, first, &removed("voidafterall")),
                noted(&group, at + 40, 1999, second, &annulled(at + 40)),
                noted(&group, at + 41, 1400, 1, &Event::NotAnnulled { commit: Seq(at + 40) }),
                noted(&group, at + 42, 1500, 1, &annulled(at + 40)),
            ])
            .unwrap();
        let log = alice.membership_log(&group).unwrap();
        let log = log.iter().filter(|change| change.seq.0 >= at && change.change == Membership::Removed);
        let marks: Vec<_> = log.map(|change| (change.seq.0 - at, change.annulled)).collect();
        assert_eq!(
            marks,
            [(0, false), (5, true), (6, true), (10, false), (20, true), (21, false), (30, false), (40, true)]
        );
    }
    world.stop().await;
}
