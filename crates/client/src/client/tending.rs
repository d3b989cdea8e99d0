//! What is done beside the groups: keys that were used go, and people are told of a clock that is wrong.

use conclave_engine::outcome::Event;
use conclave_names::GroupUri;

use super::{Client, ClientError, ClientEvent};

impl Client {
    /// Overwrites keys that were used some seconds ago: writes the MLS states from which they could be derived, and empties the store's journal. Needs
    /// no server.
    ///
    /// # Errors
    /// [`ClientError::Store`].
    pub(super) fn tend(&mut self) -> Result<(), ClientError> {
        let now = self.delivery.now();
        let overdue = |(name, group): (&GroupUri, &conclave_engine::group::Group)| {
            group.state_is_overdue(now).then(|| name.clone())
        };
        let overdue: Vec<_> = self.groups.iter().filter_map(overdue).collect();
        for name in overdue {
            self.save(&name)?;
        }
        Ok(self.store.tidy()?)
    }

    /// Tells once that the server's clock and this machine's are far from each other.
    pub(super) fn tell_clocks(&mut self) -> Option<ClientEvent> {
        let apart = self.delivery.clocks_differ().or_else(|| self.authentication.clocks_differ());
        let before = std::mem::replace(&mut self.clocks_told, apart.is_some());
        let event = |ahead_ms| ClientEvent { group: None, event: Event::ClocksDiffer { ahead_ms } };
        apart.filter(|_| !before).map(event)
    }
}
