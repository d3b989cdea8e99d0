//! What members missed while they could not follow a group: told to them, and told to this client (RFC 9750, section 6.6).

use conclave_engine::{
    account::RecordError,
    group::{FillError, GapAsked, GapFill, GapGiven},
    intent::Wish,
    writes::{Room, Write},
};
use conclave_names::{ClientUri, GroupUri};
use zeroize::Zeroizing;

use super::{Client, ClientError, ClientEvent};
use crate::store::StoreError;

/// Key of the row in [`Room::ACCOUNT`] with the setting: a version, which is 1, and a number.
const GAP_FILL: &[u8] = b"gap-fill";

const VERSION: u8 = 1;

impl From<FillError<StoreError>> for ClientError {
    fn from(error: FillError<StoreError>) -> Self {
        match error {
            FillError::Store(error) => Self::Store(error),
            FillError::Mls(error) => Self::Mls(error),
            FillError::Wish(error) => Self::Wish(error),
            error => Self::Fill(error),
        }
    }
}

impl Client {
    /// Whether this client tells members that are back what they missed; it asks its user, unless something else was set.
    ///
    /// # Errors
    /// [`ClientError::Store`], or [`ClientError::Record`] if a later version of the program has set something else.
    pub fn gap_fill(&self) -> Result<GapFill, ClientError> {
        let Some(row) = self.store.get(Room::ACCOUNT, GAP_FILL)? else { return Ok(GapFill::default()) };
        match row.as_slice() {
            [VERSION, 0] => Ok(GapFill::Never),
            [VERSION, 1] => Ok(GapFill::Ask),
            [VERSION, 2] => Ok(GapFill::Always),
            [version, ..] if *version > VERSION => Err(RecordError::Version(*version).into()),
            _ => Err(RecordError::Damaged.into()),
        }
    }

    /// Sets it, for all groups of this client. To tell past messages to who holds a stolen state undoes what its owner's return
    /// heals: with [`GapFill::Always`], nobody looks at who asks. It is about requests that come from now on; of those that came before, the
    /// user may still answer each ([`Client::fill_gap`]).
    ///
    /// # Errors
    /// [`ClientError::Store`].
    pub fn set_gap_fill(&mut self, choice: GapFill) -> Result<(), ClientError> {
        let code = match choice {
            GapFill::Never => 0,
            GapFill::Ask => 1,
            GapFill::Always => 2,
        };
        let value = Zeroizing::new(vec![VERSION, code]);
        Ok(self.store.apply(&[Write::Put { room: Room::ACCOUNT, key: GAP_FILL.to_vec(), value }])?)
    }

    /// Members of a group that are back, have asked for what they missed, and were not answered by this client, for all that it has read.
    ///
    /// # Errors
    /// As [`Client::group`].
    pub fn gap_requests(&mut self, group: &GroupUri) -> Result<Vec<GapAsked>, ClientError> {
        Ok(self.group(group)?.gap_requests().collect())
    }

    /// Tells a member that is back what was said while it could not follow the group: of what it has asked for, the messages that this client
    /// read, from while that member was in the group before. Nobody else can read the answer. Whether who asks is who it was, its
    /// identity key says, or the group's secret; but somebody may have stolen those: that is for the user to judge.
    ///
    /// # Errors
    /// [`ClientError::Fill`] says why there is nothing to tell. With a transient error, or [`ClientError::Unconfirmed`], the answer is
    /// stored, and goes out with the next sync.
    pub async fn fill_gap(&mut self, group: &GroupUri, client: &ClientUri) -> Result<GapGiven, ClientError> {
        let group = &self.current(group)?;
        let read = self.sync_group(group).await?;
        let (now, mut events) = (self.delivery.now(), Vec::new());
        let given = match self.groups.get_mut(group) {
            Some(loaded) => {
                let (name, store) = (group.to_string(), &self.store);
                let page = |after, limit| store.messages(&name, after, limit);
                loaded.fill_gap(client, now, page, &mut events)
            }
            None => return Err(ClientError::NoSuchGroup(group.clone())),
        };
        let given = match given {
            Ok(given) => given,
            Err(error) => return Err(self.keep(read, error.into())),
        };
        self.save(group)?;
        let driven = self.drive(group, None).await;
        self.joined(read, driven)?;
        let answers = |wish: &Wish| matches!(wish, Wish::GapAnswer { asker, .. } if asker == client);
        if self.group(group)?.intents().any(|intent| answers(&intent.wish)) {
            return Err(ClientError::Unconfirmed);
        }
        Ok(given)
    }

    /// Tells of requests, or answers them, as it is set.
    pub(super) fn tend_gaps(&mut self, name: &GroupUri) -> Result<Vec<ClientEvent>, ClientError> {
        if self.group(name)?.gap_requests().next().is_none() {
            return Ok(Vec::new());
        }
        let (choice, now, mut events) = (self.gap_fill()?, self.delivery.now(), Vec::new());
        if let Some(group) = self.groups.get_mut(name) {
            let (text, store) = (name.to_string(), &self.store);
            group.tend_gaps(choice, now, |after, limit| store.messages(&text, after, limit), &mut events)?;
        }
        self.save(name)?;
        Ok(ClientEvent::all_of(name, events).collect())
    }
}
