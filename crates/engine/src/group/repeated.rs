//! Messages that say what was said before (RFC 9750, section 8.6).
//!
//! A message's name is a hash of who says what, with a salt (`conclave_mls::content::MessageId`). Who sends the same content again says the
//! same under the same name, and it is shown once; who sends another's content says it under another name, as its own. A name that
//! was seen before is no alarm by itself: what was said in an epoch that was annulled is said again.

use conclave_mls::content::MessageId;

use super::{Group, KIND_MESSAGE};
use crate::{
    outcome::{Event, Outcome},
    writes::Write,
};

impl Group {
    /// Leaves out a message that the history has: by what the shell knows, or by what this batch brought.
    pub(super) fn pass_over_known(
        &mut self,
        outcome: &mut Outcome,
        events: &mut Vec<Event>,
        told: usize,
        known: &mut impl FnMut(&MessageId) -> bool,
    ) {
        let found = events.iter().enumerate().skip(told).find_map(|(index, event)| match event {
            Event::Message { id, seq, sender, .. } => Some((index, *id, *seq, sender.clone())),
            _ => None,
        });
        let Some((index, id, seq, sender)) = found else { return };
        // What came before in this batch is not in the store yet.
        let again = !self.heard.insert(id);
        if !again && !known(&id) {
            return;
        }
        // The newest of its name is the one that was just read.
        let is_it = |write: &Write| matches!(write, Write::Message(stored) if stored.kind == KIND_MESSAGE && stored.id == *id.as_bytes());
        if let Some(at) = self.writes.iter().rposition(is_it) {
            self.writes.remove(at);
        }
        events.remove(index);
        if *outcome == Outcome::Applied {
            *outcome = Outcome::Duplicate;
            events.push(Event::Replayed { member: sender, seq, id });
        }
    }
}
