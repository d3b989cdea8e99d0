//! A client that has lost everything: back into its groups by its identity key, or by its own other device's word
//! (RFC 9750, section 6.6).
//!
//! It does not know its groups any more, so it knocks at all of them at once, at its user's other devices and at users whom it is told of.
//! Each device that finds the note lets it into every group that both are members of: the old place goes, a new one comes.

use conclave_engine::{
    account::RecordError,
    group::{Group, Status, beside},
    key_packages,
    writes::{Room, Write},
};
use conclave_mls::crypto;
use conclave_names::{ClientUri, GroupUri, RoomUri, UserUri};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Client, ClientError, asking::Asking, rows::StoreRows};

/// Key of the row in [`Room::ACCOUNT`] with the groups that a recovery file named, in JSON.
const LOST: &[u8] = b"lost-groups";

/// Users that are remembered of a group, so that they can be asked.
const USERS: usize = 16;

/// A group that a client was a member of before it lost everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostGroup {
    /// The group.
    pub group: GroupUri,
    /// Its room, which stays when the group is made anew under another name.
    pub room: RoomUri,
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
        let groups = self.groups()?;
        let mut lost = Vec::new();
        for named in self.named_groups()? {
            let current = self.current(&named.group)?;
            let mut back = false;
            for group in groups.iter().filter(|group| group.status == Status::Active && group.room == named.room) {
                back |= group.name == current || self.is_what_became_of(&named, &group.name)?;
            }
            if !back {
                lost.push(named);
            }
        }
        Ok(lost)
    }

    /// Whether a group of its room, in which this client is under another name, is one that it has lost: whoever made it can name any room,
    /// so another who was in the lost one than the user who has invited us must have done something in it.
    fn is_what_became_of(&self, lost: &LostGroup, group: &GroupUri) -> Result<bool, ClientError> {
        let users = lost.users.iter().cloned().collect();
        Ok(beside(&StoreRows(&*self.store), group)?.is_none_or(|beside| beside.is_shown_by(&users)))
    }

    /// Whether a group may be one that was lost, which has another name now.
    pub(super) fn knows_as_lost(&self, next: &Group) -> Result<bool, ClientError> {
        let named = self.named_groups()?;
        Ok(named.iter().any(|lost| lost.room == next.profile().room && lost.group != *next.name()))
    }

    /// Whether a recovery file named groups, so that those in which there is something to be asked for are known.
    pub(super) fn knows_what_it_lost(&self) -> Result<bool, ClientError> {
        Ok(self.named_groups()?.iter().any(|group| !group.users.is_empty()))
    }

    /// The groups that a recovery file named.
    fn named_groups(&self) -> Result<Vec<LostGroup>, ClientError> {
        let Some(value) = self.store.get(Room::ACCOUNT, LOST)? else { return Ok(Vec::new()) };
        Ok(serde_json::from_slice(&value).map_err(|_| RecordError::Damaged)?)
    }

    /// Gives up on groups that are not coming back: [`Client::lost_groups`] names none any more, and nobody is asked again.
    ///
    /// # Errors
    /// [`ClientError::Store`].
    pub fn forget_lost_groups(&mut self) -> Result<(), ClientError> {
        self.store.apply(&[Write::Delete { room: Room::ACCOUNT, key: LOST.to_vec() }, Asking::end()])?;
        self.asking = None;
        Ok(())
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
            groups.push(LostGroup { group: summary.name, room: summary.room, title: summary.title, users });
        }
        Ok(groups)
    }

    /// Asks users in this order. Gives how many of them were asked, or could not be: the server may have no time for the rest.
    ///
    /// # Errors
    /// [`ClientError::Store`], and transient ones if the server is not reached.
    pub(super) async fn ask_users(&mut self, users: &[UserUri]) -> Result<(Asked, usize), ClientError> {
        let address_key = self.address_key().await?;
        let (suite, now) = (crypto::DEFAULT_SUITE, self.delivery.now());
        // It says who knocks, and adds us nowhere: of which suite it is, is the same.
        let fresh = key_packages::generate(&self.account, &self.mls, suite, &address_key, 1, false, now)?;
        self.store.apply(&fresh.writes)?;
        let note = self.note_to_all(fresh.key_packages.into_iter().next().unwrap_or_default())?;
        let mut asked = Asked::default();
        for (place, user) in users.iter().enumerate() {
            match self.ask_user(user, &note, &mut asked).await {
                Ok(()) => {}
                Err(error) if error.is_transient() && error.code().is_some() => {
                    tracing::info!(%error, "the server has no time to have more users asked");
                    let late = users.iter().skip(place);
                    asked.unable.extend(late.map(|user| Unasked { who: user.to_string(), reason: error.to_string() }));
                    return Ok((asked, place));
                }
                Err(error) => return Err(error),
            }
        }
        Ok((asked, users.len()))
    }
}
