//! Alice and Bob with engines, and a member that sends what it likes.

use conclave_engine::{group::Handshakes, intent::Wish};

use crate::{
    person::{Person, agree, group_of},
    raw::Raw,
    world::{Session, World},
};

pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) alice: Person,
    pub(crate) bob: Person,
    pub(crate) mallory: Raw,
    /// Mallory's.
    pub(crate) session: Session,
}

impl Stage {
    /// In a group with visible handshakes. `encrypts`: whether Mallory encrypts hers all the same.
    pub(crate) fn visible(encrypts: bool) -> Self {
        let mut stage = Self::with(encrypts, |world, alice, bob| {
            group_of(world, &mut [alice, bob], Vec::new());
        });
        agree(&mut stage.world, &mut [&mut stage.alice, &mut stage.bob]);
        stage
    }

    /// In a private group.
    pub(crate) fn private() -> Self {
        Self::with(true, |world, alice, bob| {
            alice.create(world, Handshakes::Private);
            alice.add(world, &mut [bob]);
        })
    }

    fn with(encrypts: bool, founded: impl FnOnce(&mut World, &mut Person, &mut Person)) -> Self {
        let mut world = World::memory();
        let [mut alice, mut bob] = ["alice", "bob"].map(|name| Person::new(&mut world, name));
        let mut mallory = Raw::new(&mut world, "mallory", encrypts);
        founded(&mut world, &mut alice, &mut bob);
        let key_packages = vec![mallory.key_package(&mut world)];
        alice.wish(Wish::Add { key_packages });
        alice.drive(&mut world);
        mallory.join(&mut world);
        bob.sync(&mut world);
        let session = world.open(&mallory.access()).unwrap();
        Self { world, alice, bob, mallory, session }
    }
}
