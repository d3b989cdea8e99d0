//! Groups that this client could not follow, and is out of for good.

use conclave_engine::group::Status;
use conclave_names::GroupUri;

use super::{Client, ClientError, ClientEvent};

impl Client {
    /// Ends a group that this client cannot follow, if its user wants to leave it or no member has let it in for long. Says whether it did.
    pub(super) fn give_up(&mut self, name: &GroupUri, events: &mut Vec<ClientEvent>) -> Result<bool, ClientError> {
        let now = self.delivery.now();
        let mut told = Vec::new();
        if !self.group(name)?.end_here(now, &mut told) {
            return Ok(false);
        }
        self.save(name)?;
        self.groups.remove(name);
        self.blocked.remove(name);
        self.sessions.remove(name);
        events.extend(ClientEvent::all_of(name, told));
        Ok(true)
    }

    /// Whether there is anything to come back by.
    ///
    /// # Errors
    /// [`ClientError::Dropped`] if its keys are gone.
    pub(super) fn still_in(&mut self, name: &GroupUri) -> Result<(), ClientError> {
        let out = self.is_over(name)? || {
            let group = self.group(name)?;
            *group.status() == Status::Removed && !group.may_return()
        };
        if !out {
            return Ok(());
        }
        Err(ClientError::Dropped(
            "this device is out of the group, and its keys are deleted: a member can add it, and has to remove it first if the group still \
             shows it"
                .to_owned(),
        ))
    }
}
