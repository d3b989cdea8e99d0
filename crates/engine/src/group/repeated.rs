//! Messages that say what was said before (RFC 9750, section 8.6).
//!
//! A message's name is a hash of who says what, with a salt (`conclave_mls::content::MessageId`). Who sends the same content again says the
//! same under the same name, and it is shown once; who sends another's content says it under another name, as its own. A name that
//! was seen before is no alarm by itself: what was said in an epoch that was annulled is said again.

use conclave_mls::content::MessageId;
use conclave_names::{Epoch, Seq};

use super::{Group, KIND_MESSAGE};
use crate::{
    outcome::{Event, Outcome},
    writes::Write,
};

/// Whether the history has a message, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// No.
    No,
    /// Yes, in a group that this one goes on from.
    Before,
    /// Yes.
    At {
        /// Its place.
        seq: Seq,
        /// The epoch that it was sent in.
        epoch: Epoch,
    },
}

impl Group {
    /// Leaves out a message that the history has: by what the shell knows, or by what this batch brought.
    pub(super) fn pass_over_known(
        &mut self,
        outcome: &mut Outcome,
        events: &mut Vec<Event>,
        told: usize,
        known: &mut impl FnMut(&MessageId) -> Known,
    ) {
        let found = events.iter().enumerate().skip(told).find_map(|(index, event)| match event {
            Event::Message { id, seq, sender, .. } => Some((index, *id, *seq, sender.clone())),
            _ => None,
        });
        let Some((index, id, seq, sender)) = found else { return };
        // What came before in this batch is not in the store yet.
        let again = !self.heard.insert(id);
        let place = |write: &Write| match write {
            Write::Message(stored) if stored.kind == KIND_MESSAGE && stored.id == *id.as_bytes() => {
                Some(Known::At { seq: Seq(stored.seq), epoch: Epoch(stored.epoch) })
            }
            _ => None,
        };
        let earlier = self.writes.iter().filter(|_| again).find_map(place);
        let earlier = earlier.filter(|place| !matches!(place, Known::At { seq: of, .. } if *of == seq));
        let before = earlier.unwrap_or_else(|| known(&id));
        if !again && before == Known::No {
            return;
        }
        // The newest of its name is the one that was just read.
        if let Some(at) = self.writes.iter().rposition(|write| place(write).is_some()) {
            self.writes.remove(at);
        }
        events.remove(index);
        if *outcome == Outcome::Applied {
            *outcome = Outcome::Duplicate;
            // What was void, or came too late before the group was made anew, is said again by who follows the rules.
            if matches!(before, Known::At { seq, epoch } if !self.was_annulled(seq, epoch)) {
                events.push(Event::Replayed { member: sender, seq, id });
            }
        }
    }
}
