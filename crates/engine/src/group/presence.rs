//! Who has seen what: members acknowledge what they read by where they say they stand.
//!
//! All that a member sends names its place in the channel inside the encryption. So who talks acknowledges what it has read; who
//! only reads says so after a while by a heartbeat, and a DS that withholds the newest entries from some, or a member's from
//! all, is noticed by their silence (RFC 9750, sections 5.2, 8.1.4 and 8.4.2). Silence has innocent causes, too: the event says what is
//! known and no more.

use conclave_names::{Seq, Timestamp};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};

use super::{Group, Status, refresh::spread};
use crate::{
    intent::Wish,
    outcome::{Event, Outcome},
};

/// How long a reader waits at least before it acknowledges by a heartbeat, in milliseconds: an hour.
pub const HEARTBEAT_MS: u64 = 3_600_000;

/// And for each member as long again as makes one heartbeat a minute in the whole group, in milliseconds.
pub const HEARTBEAT_MS_A_MEMBER: u64 = 60_000;

/// How long a member waits for others to show that they saw what it said, beyond the time that a heartbeat takes, in milliseconds: a
/// day.
pub const UNSEEN_MS: u64 = 86_400_000;

/// What we said that nobody has shown to have seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
struct Unseen {
    first: Seq,
    last: Seq,
    since: Timestamp,
    told: bool,
}

/// What is still to be acknowledged, by us and to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, MlsSize, MlsEncode, MlsDecode)]
pub(super) struct Presence {
    /// The oldest message or commit of somebody else that we have not acknowledged, and its time.
    owed: Option<(Seq, Timestamp)>,
    unseen: Option<Unseen>,
}

impl Presence {
    /// Who joined says so after a while, so that the others know that its Welcome arrived (RFC 9750, section 3.7).
    pub(super) fn of_joiner(commit: Seq, now: Timestamp) -> Self {
        Self { owed: Some((commit, now)), unseen: None }
    }
}

/// How long a reader waits in a group of so many, in milliseconds.
fn patience(members: u32) -> u64 {
    HEARTBEAT_MS.max(u64::from(members).saturating_mul(HEARTBEAT_MS_A_MEMBER))
}

impl Group {
    /// Notes what became of an entry.
    pub(super) fn note_presence(&mut self, seq: Seq, time: Timestamp, outcome: &Outcome, wants_answer: bool) {
        match outcome {
            Outcome::Applied if wants_answer => {
                self.presence.owed.get_or_insert((seq, time));
            }
            // Alone, there is nobody to see it.
            Outcome::Confirmed if wants_answer && self.ledger.members() > 1 => {
                let unseen =
                    self.presence.unseen.get_or_insert(Unseen { first: seq, last: seq, since: time, told: false });
                unseen.last = seq;
            }
            _ => {}
        }
    }

    /// Something of ours was made that says where we stand.
    pub(super) fn acknowledged_by_us(&mut self) {
        let position = self.window.position().seq;
        self.presence.owed = self.presence.owed.filter(|(seq, _)| *seq > position);
    }

    /// Another member stands there.
    pub(super) fn seen_by_others(&mut self, place: Seq, time: Timestamp) {
        if let Some(unseen) = &mut self.presence.unseen {
            if place >= unseen.last {
                self.presence.unseen = None;
            } else if place >= unseen.first {
                *unseen = Unseen { first: place.next(), since: time, told: false, ..*unseen };
            }
        }
    }

    /// The newest entry of ours that no other member has shown to have seen, and since when we wait.
    #[must_use]
    pub fn unseen(&self) -> Option<(Seq, Timestamp)> {
        self.presence.unseen.map(|unseen| (unseen.last, unseen.since))
    }

    /// When we are to acknowledge what we read, if we say nothing until then.
    pub(super) fn heartbeat_due(&self) -> Option<Timestamp> {
        let (_, since) = self.presence.owed.filter(|_| self.status == Status::Active && self.frozen.is_none())?;
        if self.mls.commit_required() || !self.intents.is_empty() {
            return None;
        }
        // Turns, so that the first heartbeat of a small group is heard before the others follow.
        let patience = patience(self.ledger.members());
        let due = since.plus_ms(patience.saturating_add(spread(&self.name, &self.account.client, patience)));
        Some(self.rests.after(&Wish::Heartbeat, due))
    }

    pub(super) fn heartbeat_wish(&self, now: Timestamp) -> Option<Wish> {
        self.heartbeat_due().filter(|due| *due <= now).map(|_| Wish::Heartbeat)
    }

    /// When silence becomes remarkable.
    pub(super) fn silence_due(&self) -> Option<Timestamp> {
        let unseen = self.presence.unseen.filter(|unseen| !unseen.told && self.status == Status::Active)?;
        let patience = patience(self.ledger.members()).saturating_mul(2);
        Some(unseen.since.plus_ms(patience.saturating_add(UNSEEN_MS)))
    }

    /// Tells of silence, once.
    pub(super) fn tell_silence(&mut self, now: Timestamp, events: &mut Vec<Event>) {
        if self.presence.unseen.is_some_and(|unseen| unseen.told) && self.status == Status::Active {
            self.suspect_silence(now);
            return;
        }
        if self.silence_due().is_none_or(|due| due > now) {
            return;
        }
        if let Some(mut unseen) = self.presence.unseen {
            unseen.told = true;
            self.presence.unseen = Some(unseen);
            self.tell(Event::Unseen { seq: unseen.last, since: unseen.since }, now, events);
            self.suspect_silence(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_group_has_more_than_one_heartbeat_a_minute() {
        assert_eq!((patience(2), patience(60), patience(61)), (HEARTBEAT_MS, HEARTBEAT_MS, 61 * 60_000));
        assert_eq!(patience(10_000), 10_000 * 60_000);
    }
}
