//! In which order people are told of messages, and what they are told of the server's silence.

use std::collections::BTreeSet;

use conclave_engine::group::{REFRESH_MS, REFRESH_SPREAD_MS, REST_MS_MOST};
use conclave_names::{Seq, Timestamp};

use super::{Deed, Ledger};
use crate::{hostile::Lie, network::Stop};

/// After how long a client knows of the server's silence whatever others do: it renews its keys by then, which needs an answer.
const STALLED_MS: u64 = REFRESH_MS + REFRESH_SPREAD_MS + REST_MS_MOST;

impl Ledger {
    /// Which of all that was said a text is.
    pub(crate) fn number_of(&self, text: &str) -> Option<usize> {
        let number: usize = text.split(' ').next()?.parse().ok()?;
        self.said.get(number).filter(|said| said.text == text).map(|_| number)
    }

    /// The first group of the line that a group is in.
    pub(crate) fn root_of(&self, slot: usize) -> usize {
        let mut root = slot;
        while let Some(before) = self.before(root) {
            root = before;
        }
        root
    }

    /// The group that a group goes on from.
    fn before(&self, slot: usize) -> Option<usize> {
        self.slots.iter().position(|known| known.as_ref().is_some_and(|known| known.successor == Some(slot)))
    }

    /// A group and those that it goes on from, itself first.
    pub(crate) fn line_to(&self, slot: usize) -> Vec<usize> {
        std::iter::successors(Some(slot), |slot| self.before(*slot)).collect()
    }

    /// Somebody is told of a message, by its text: before everything that was said by people who knew it (RFC 9750 leaves causal order to
    /// applications; here the log's order is one that keeps it).
    pub(super) fn told_of(&mut self, client: usize, slot: usize, text: &str) -> Result<(), Stop> {
        let Some(number) = self.number_of(text) else { return Ok(()) };
        let root = self.root_of(slot);
        let told = self.told.entry((client, root)).or_default();
        if !told.insert(number) {
            return Ok(());
        }
        let told = told.clone();
        if self.was_apart(client, slot) {
            return Ok(());
        }
        match told.into_iter().find(|later| self.must_follow(*later, number)) {
            Some(later) => Err(Stop::violation(format!(
                "client {client} is told \"{}\" before \"{text}\", which its author knew",
                self.said.get(later).map_or("", |said| said.text.as_str())
            ))),
            None => Ok(()),
        }
    }

    /// Whether something that was said is to come after something else for everybody: its author knew that, and neither was said again
    /// since, nor did the server show another log to who said it.
    pub(crate) fn must_follow(&self, later: usize, earlier: usize) -> bool {
        let counts = |number: usize| {
            self.said.get(number).is_some_and(|said| {
                !said.again && !said.repeated && !said.excused && !self.was_apart(said.actor, said.slot)
            })
        };
        self.said.get(later).is_some_and(|said| said.knew.contains(&earlier)) && counts(later) && counts(earlier)
    }

    /// Whether a client lived in another log of a group or of what that goes on from, or came back past a part of it, where what was sent there
    /// was sent again.
    pub(crate) fn was_apart(&self, client: usize, slot: usize) -> bool {
        let in_other_log = self.is_or_was_victim(client, slot) || self.lived_apart_before(client, slot);
        self.missed.contains(&(client, slot)) || in_other_log
    }

    /// Whether a client lived in another log of a group that this one goes on from.
    pub(crate) fn lived_apart_before(&self, client: usize, slot: usize) -> bool {
        self.line_to(slot).into_iter().skip(1).any(|before| self.is_or_was_victim(client, before))
    }

    fn is_or_was_victim(&self, client: usize, slot: usize) -> bool {
        self.victims.contains(&(client, slot)) || self.apart.contains_key(&(client, slot))
    }

    /// What somebody knows who says something: what it had been told of and what it has said.
    pub(crate) fn known_to(&self, client: usize, slot: usize) -> BTreeSet<usize> {
        let root = self.root_of(slot);
        let own = |number: &usize| {
            self.said.get(*number).is_some_and(|said| said.actor == client && self.root_of(said.slot) == root)
        };
        let own = (0..self.said.len()).filter(own);
        own.chain(self.told.get(&(client, root)).into_iter().flatten().copied()).collect()
    }

    /// Whether the server said to somebody that entries are gone, which nobody else may have read.
    pub(crate) fn hides_entries(&self, slot: usize) -> bool {
        self.misdeeds_in(slot).any(|misdeed| misdeed.deed == Deed::Lied(Lie::Gone))
    }

    /// Whether the server shows a client another log than the others, or nothing more of it.
    pub(crate) fn is_lied_to(&self, client: usize, slot: usize) -> bool {
        self.is_victim(client, slot) || self.stalled.contains_key(&(client, slot))
    }

    /// Whether a client was told that it missed the entry at a place.
    pub(crate) fn in_gap(&self, client: usize, slot: usize, seq: Seq) -> bool {
        self.gaps.iter().any(|(of, from, to)| *of == (client, slot) && (*from..=*to).contains(&seq))
    }

    /// A client has done all that is due. If the server has shown it nothing new of a group for so long that its own keys were to be renewed,
    /// it knows: what it did itself must show in the log, and does not, or is refused.
    pub(crate) fn must_know_of_stall(&self, client: usize, slot: usize, now: Timestamp) -> Result<(), Stop> {
        let Some((since, alarms)) = self.stalled.get(&(client, slot)) else { return Ok(()) };
        let mut later = self.alarms.iter().skip(*alarms);
        let knows = later.any(|(of, at, _)| (*of, *at) == (client, slot))
            || self.unseen.get(&(client, slot)).is_some_and(|at| at >= alarms);
        if knows || since.plus_ms(STALLED_MS) > now {
            return Ok(());
        }
        Err(Stop::violation(format!(
            "client {client} is not told that the server shows it nothing new of group {slot} since {since:?}"
        )))
    }

    /// The server has signed for an entry of a client's.
    pub(crate) fn signed_for(&mut self, client: usize, slot: usize, seq: Seq) {
        self.signed.insert((client, slot, seq));
    }

    /// A client may not remember what was signed for: it died.
    pub(crate) fn forget_signatures(&mut self, client: usize) {
        self.signed.retain(|(of, ..)| *of != client);
    }

    /// A client comes to a group anew.
    pub(crate) fn forget_signatures_in(&mut self, client: usize, slot: usize) {
        self.signed.retain(|(of, at, _)| (*of, *at) != (client, slot));
    }

    /// Whether a client was told that the server hides something from this place on that it has signed for.
    pub(crate) fn knows_of_hidden(&self, client: usize, slot: usize, from: Seq) -> bool {
        self.withheld.range((client, slot, from)..=(client, slot, Seq(u64::MAX))).next().is_some()
    }

    /// A client has read all that it is shown, and was told what is missing: of entries that it sends again after it died, by a later one.
    pub(crate) fn must_know_of_silence(&self, client: usize, slot: usize, end: Seq) -> Result<(), Stop> {
        let hidden = self.signed.range((client, slot, end.next())..=(client, slot, Seq(u64::MAX)));
        match hidden.into_iter().find(|(.., seq)| !self.knows_of_hidden(client, slot, *seq)) {
            Some((.., seq)) if !self.is_victim(client, slot) => Err(Stop::violation(format!(
                "client {client} is not told that the server hides entry {seq} of group {slot}, which it has signed for"
            ))),
            _ => Ok(()),
        }
    }
}
