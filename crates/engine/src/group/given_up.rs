//! The end of a group that this client cannot follow, without the others' doing.
//!
//! Who was removed while it was locked out cannot read that. It would ask members for ever, who do not answer somebody who is no member,
//! and keep its keys of the group for as long. So it ends after [`UNANSWERED_MS`], or at once if its user wants to leave.

use conclave_names::{Timestamp, limits};

use super::Group;
use crate::{intent::Wish, outcome::Event};

/// How long members are asked to let this client in again, in milliseconds: as long as a knock lies in an inbox.
pub const UNANSWERED_MS: u64 = limits::INVITATION_MS;

/// Rounds in which members must have been asked: who is online once in a while only, or whose clock was put forward, asks for longer.
const ROUNDS: u32 = 8;

impl Group {
    /// Whether members were asked for long enough to let us in again, and none has.
    fn is_unanswered(&self, now: Timestamp) -> bool {
        let (rounds, since) = self.knocks();
        self.wants_rejoin() && rounds >= ROUNDS && since.plus_ms(UNANSWERED_MS) <= now
    }

    /// Whether our user wants to leave a group in which we cannot say so.
    fn leaves_unheard(&self) -> bool {
        self.wants_rejoin() && self.intents.values().any(|intent| intent.wish == Wish::Leave)
    }

    /// Ends our part in a group that we cannot follow, if nobody has let us in for long enough or our user wants to leave: its keys go, and
    /// what waits is told of. The others show this client as a member until one of them removes it, if none has. Says whether it ended.
    pub fn end_here(&mut self, now: Timestamp, events: &mut Vec<Event>) -> bool {
        let reason = if self.leaves_unheard() {
            "left here: this client could not follow the group any more, so the others were not told, and show this device as a member until \
             one of them removes it"
        } else if self.is_unanswered(now) {
            "members were asked for 30 days to let this client in again, and none did: most likely it was removed while it could not follow \
             the group, or nobody is left there; its keys of the group are deleted now; to be in it again, be added by a member, who has to remove \
             this device first if the group still shows it"
        } else {
            return false;
        };
        self.tell(Event::GivenUp { reason: reason.to_owned() }, now, events);
        for event in self.end() {
            self.tell(event, now, events);
        }
        self.stop_knocking();
        self.forget_leaves();
        self.frozen = None;
        self.founding = None;
        self.removed_at = None;
        self.drop_continuation();
        // That something was lost stays known: an invitation may be to an epoch that this client's branch had, too (`incarnation`).
        self.forget_all();
        true
    }
}
