//! What is done beside the groups: keys that were used go, and people are told of a clock that is wrong.

use std::time::Duration;

use conclave_engine::{group::Group, outcome::Event};

use super::{Client, ClientError, ClientEvent};

impl Client {
    /// Overwrites in the store what used keys could be derived from, where that is 5 seconds old ([`STATE_MS`](conclave_engine::group::STATE_MS)):
    /// every call about a group does so, and a [`Listener`](crate::Listener), also while the server is away. A program that has neither under way
    /// calls it again after what it gives, if anything is left to be overwritten. It needs no server.
    ///
    /// # Errors
    /// [`ClientError::Store`], [`ClientError::Mls`].
    pub fn tend(&mut self) -> Result<Option<Duration>, ClientError> {
        let now = self.delivery.now();
        // Of a group that was loaded with notes of used keys, time counts from now on.
        self.groups.values_mut().for_each(|group| group.note_time(now));
        let due = |group: &Group| group.state_due(now).filter(|due| *due <= now).map(|_| group.name().clone());
        let due: Vec<_> = self.groups.values().filter_map(due).collect();
        for name in due {
            self.save(&name)?;
        }
        let next = self.groups.values().filter_map(|group| group.state_due(now)).min();
        Ok(next.map(|next| Duration::from_millis(next.0.saturating_sub(now.0))))
    }

    /// The same, and empties the store's journal of what was overwritten.
    pub(super) fn tidy(&mut self) -> Result<(), ClientError> {
        self.tend()?;
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
