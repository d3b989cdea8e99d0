//! The commit that the MLS state in the store does not know.
//!
//! mls-rs gives out a group's state whole, 7 MB at 10,000 members, and of one's own commit once more that much before it is
//! submitted. So where the store has the state before a commit exactly, the commit itself is kept beside it, and the state after it
//! is written a little later, as for messages (`journal`): at the next commit or proposal, after [`super::STATE_MS`], or when the
//! client closes. After a crash the commit is applied again. One of ours is in the row of its intent, which stays till then: MLS gives
//! nobody a commit of its own to read.
//!
//! A state that was written before a commit stays in the store while the commit is open in any case (`standing`).
//!
//! Row of somebody else's, `step` under the group's prefix: `struct { Timestamp time; opaque message<V>; }`, the time by which it
//! was judged and the `MLSMessage`.

use std::sync::Arc;

use conclave_names::Timestamp;
use mls_rs::{
    MlsMessage,
    group::{CommitSecrets, ReceivedMessage},
};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};
use zeroize::Zeroizing;

use super::{
    Group, fault,
    row::{self, LoadError},
};
use crate::{
    intent::Prepared,
    mls_client::{MlsError, MlsGroup, mls_time},
    record::{self, RecordError},
    writes::{Room, Write},
};

/// Key of the row, after the group's prefix.
pub(super) const STEP: &[u8] = b"step";

/// Longest message that is kept so, in bytes: of one that is longer, the changes of the state are less to write.
const LONGEST: usize = 16 * 1024 * 1024;

/// A commit.
pub(super) enum Step {
    /// Ours: place of its intent.
    Own(u64, Arc<Prepared>),
    /// Somebody else's, and the time by which it was judged.
    Read(Vec<u8>, Timestamp),
}

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self, Self::Own(..)) { "Own(..)" } else { "Read(..)" })
    }
}

/// What the group's own row says of it: the place of the intent, if it is ours.
#[derive(Clone, Copy, MlsSize, MlsEncode, MlsDecode)]
pub(super) struct StepRow {
    own: Option<u64>,
}

#[derive(MlsSize, MlsEncode, MlsDecode)]
struct ReadRow {
    time: Timestamp,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    message: Vec<u8>,
}

impl Step {
    /// Applies it once more, to the state before it. It was judged when it came.
    pub(super) fn apply(&self, mls: &mut MlsGroup) -> Result<(), MlsError> {
        match self {
            Self::Own(_, prepared) => {
                mls.apply_detached_commit(CommitSecrets::from_bytes(&prepared.secrets)?)?;
                Ok(())
            }
            Self::Read(message, time) => {
                let message = MlsMessage::from_bytes(message)?;
                match mls.process_incoming_message_with_time(message, mls_time(*time))? {
                    ReceivedMessage::Commit(_) => Ok(()),
                    _ => Err(fault("what began the epoch is no commit")),
                }
            }
        }
    }
}

impl Group {
    /// Whether the store has the state before the commit that began the present epoch, and the commit.
    pub(super) fn has_step(&self) -> bool {
        self.journal.step.is_some()
    }

    /// A commit was applied to the state that the store has: that after it need not be written at once.
    pub(super) fn take_step(&mut self, step: Step) {
        match &step {
            // Its row stays.
            Step::Own(..) => {}
            Step::Read(message, _) if message.len() > LONGEST => return,
            Step::Read(message, time) => {
                let value = record::encode(&ReadRow { time: *time, message: message.clone() });
                self.writes.push(Write::Put { room: Room::GROUP, key: row::key(&self.name, STEP), value });
            }
        }
        self.journal.step = Some(step);
        self.dirty = false;
        self.touched = true;
    }

    /// Forgets it: the store has the state after it, or it is void.
    pub(super) fn drop_step(&mut self) {
        match self.journal.step.take() {
            Some(Step::Own(order, _)) => self.drop_intent(order),
            Some(Step::Read(..)) => {
                self.writes.push(Write::Delete { room: Room::GROUP, key: row::key(&self.name, STEP) });
            }
            None => {}
        }
    }

    /// Place of its intent, which no other gets.
    pub(super) fn step_order(&self) -> Option<u64> {
        self.step_row().and_then(|step| step.own)
    }

    pub(super) fn step_row(&self) -> Option<StepRow> {
        self.journal.step.as_ref().map(|step| match step {
            Step::Own(order, _) => StepRow { own: Some(*order) },
            Step::Read(..) => StepRow { own: None },
        })
    }

    /// Applies the step of a group that is being loaded: its state is the one before.
    pub(super) fn load_step<E>(&mut self, step: StepRow, read: Option<Zeroizing<Vec<u8>>>) -> Result<(), LoadError<E>> {
        let step = if let Some(order) = step.own {
            let prepared = self.intents.remove(&order).and_then(|intent| intent.prepared);
            Step::Own(order, prepared.ok_or(RecordError::Damaged)?)
        } else {
            let ReadRow { time, message } = record::decode(&read.ok_or(RecordError::Damaged)?)?;
            Step::Read(message, time)
        };
        step.apply(&mut self.mls)?;
        self.journal.step = Some(step);
        Ok(())
    }
}
