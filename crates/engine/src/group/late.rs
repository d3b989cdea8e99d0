//! Keys of messages that are ordered after the commit that ended their epoch.
//!
//! Such a message is decrypted by what mls-rs remembers of the epoch. While the commit is open, the state before it is kept as well
//! (`standing`), and the message's key can be derived from that, too: so it is used up there, in the transaction that shows the
//! message. A kept state is loaded and written once a transaction, however many messages were late.

use conclave_names::Epoch;

use super::{Group, fault, journal::Used, row, standing::Parent};
use crate::{
    mls_client::MlsError,
    writes::{Room, Write},
};

impl Group {
    /// A key of somebody else's message was used, in an epoch that has ended.
    pub(super) fn note_late(&mut self, epoch: Epoch, used: Used) {
        for parent in self.parents.iter_mut().filter(|parent| parent.at == epoch) {
            parent.late.push(used);
        }
    }

    /// Uses up, in the states before open commits, the keys that were used since they were written.
    pub(super) fn spend_late(&mut self) -> Result<(), MlsError> {
        let mut parents = std::mem::take(&mut self.parents);
        let behind = parents.iter_mut().filter(|parent| !parent.late.is_empty());
        let spent = behind.map(|parent| self.spend(parent)).collect::<Result<Vec<_>, _>>();
        self.parents = parents;
        self.writes.extend(spent?);
        Ok(())
    }

    /// The same in one of them: its row.
    fn spend(&self, parent: &mut Parent) -> Result<Write, MlsError> {
        let (apart, mut mls) = self.open_apart(parent)?;
        parent.spend_late(&mut mls)?;
        mls.write_to_storage()?;
        parent.state = apart.groups.state_of(mls.group_id()).ok_or_else(|| fault("the state was not written"))?;
        parent.late.clear();
        let key = row::state_key(&self.name, self.incarnation, parent.at);
        Ok(Write::Put { room: Room::GROUP, key, value: parent.state.clone() })
    }
}
