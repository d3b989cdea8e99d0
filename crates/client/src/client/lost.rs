//! A client that has lost everything: back into its groups by its identity key, or by its own other device's word
//! (RFC 9750, section 6.6).
//!
//! It does not know its groups any more, so it knocks at all of them at once, at its user's other devices and at users whom it is told of.
//! Each device that finds the note lets it into every group that both are members of: the old place goes, a new one comes.

use conclave_engine::{
    group::{Group, Status},
    key_packages,
    writes::{Room, Write},
};
use conclave_mls::crypto;
use conclave_names::{ClientUri, GroupUri, UserUri};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Client, ClientError, register::random};

/// Key of the row in [`Room::ACCOUNT`] with the groups that a recovery file named, in JSON.
const LOST: &[u8] = b"lost-groups";

/// Users that are remembered of a group, so that they can be asked.
const USERS: usize = 16;

/// Users that are asked in one call, at most.
const ASKED: usize = 32;

/// A group that a client was a member of before it lost everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostGroup {
    /// The group.
    pub group: GroupUri,
    /// What people call it.
    pub title: String,
    /// Users who were members, at most 16.
    pub users: Vec<UserUri>,
}

/// Who was asked to let this client into its groups again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Asked {
    /// Devices in whose inboxes the note lies.
    pub devices: Vec<ClientUri>,
    /// Who could not be asked.
    pub unable: Vec<Unasked>,
}

/// Somebody who could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unasked {
    /// A user or a device.
    pub who: String,
    /// Why not, for people.
    pub reason: String,
}

pub(super) fn row(groups: &[LostGroup]) -> Write {
    let value = Zeroizing::new(serde_json::to_vec(groups).unwrap_or_default());
    Write::Put { room: Room::ACCOUNT, key: LOST.to_vec(), value }
}

impl Client {
    /// The groups that the recovery file named and that this client is not back in. Those that nobody has let it into yet, and those that
    /// it was removed from, look the same from here.
    ///
    /// # Errors
    /// [`ClientError::Store`].
    pub fn lost_groups(&self) -> Result<Vec<LostGroup>, ClientError> {
        let Some(value) = self.store.get(Room::ACCOUNT, LOST)? else { return Ok(Vec::new()) };
        let mut lost: Vec<LostGroup> =
            serde_json::from_slice(&value).map_err(|_| conclave_engine::account::RecordError::Damaged)?;
        let groups = self.groups()?;
        let back = |name: &GroupUri| groups.iter().any(|group| group.name == *name && group.status == Status::Active);
        lost.retain(|group| !back(&group.group));
        Ok(lost)
    }

    /// Gives up on groups that are not coming back: [`Client::lost_groups`] names none any more.
    ///
    /// # Errors
    /// [`ClientError::Store`].
    pub fn forget_lost_groups(&mut self) -> Result<(), ClientError> {
        Ok(self.store.apply(&[Write::Delete { room: Room::ACCOUNT, key: LOST.to_vec() }])?)
    }

    /// The groups as they are now, as a recovery file names them.
    pub(super) fn groups_to_lose(&mut self) -> Result<Vec<LostGroup>, ClientError> {
        let own = self.user().clone();
        let mut groups = Vec::new();
        for summary in self.groups()?.into_iter().filter(|group| group.status != Status::Removed) {
            let mut users: Vec<UserUri> = Vec::new();
            for member in self.group(&summary.name)?.members()? {
                if users.len() == USERS {
                    break;
                }
                if member.user != own && !users.contains(&member.user) {
                    users.push(member.user);
                }
            }
            groups.push(LostGroup { group: summary.name, title: summary.title, users });
        }
        Ok(groups)
    }

    /// On a client that has lost everything (it was restored, or linked again under its old name): asks this user's other devices, these
    /// users, and three users of each lost group to let it into all groups that they share with it. Each does so when it is next
    /// online, and the groups come with the next [`Client::sync`], or while listening. Who was removed for good is not let in.
    ///
    /// # Errors
    /// Transient ones: call it again. That somebody cannot be asked is told in the answer.
    pub async fn ask_for_groups(&mut self, users: &[UserUri]) -> Result<Asked, ClientError> {
        let mut all = vec![self.user().clone()];
        for user in users {
            if !all.contains(user) {
                all.push(user.clone());
            }
        }
        for mut lost in self.lost_groups()? {
            // Each time others.
            let turn = u64::from_be_bytes(random()?) % (lost.users.len().max(1) as u64);
            lost.users.rotate_left(usize::try_from(turn).unwrap_or_default());
            let mut known = lost.users.iter().filter(|user| all.contains(user)).count();
            for user in lost.users {
                if known < Group::knocks_at_a_time() && !all.contains(&user) {
                    all.push(user);
                    known += 1;
                }
            }
        }
        all.truncate(ASKED.max(users.len() + 1));
        let address_key = self.address_key().await?;
        let (suite, now) = (crypto::DEFAULT_SUITE, self.delivery.now());
        let fresh = key_packages::generate(&self.account, &self.mls, suite, &address_key, 1, false, now)?;
        self.store.apply(&fresh.writes)?;
        let ours = fresh.key_packages.into_iter().next().unwrap_or_default();
        let mut asked = Asked::default();
        for user in &all {
            self.ask_user(user, &ours, &mut asked).await?;
        }
        Ok(asked)
    }
}
