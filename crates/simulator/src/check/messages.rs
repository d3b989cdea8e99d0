//! Who read what.

use std::collections::{BTreeMap, BTreeSet};

use conclave_channel::EntryKind;
use conclave_engine::{
    group::{Status, Told},
    outcome::Event,
    writes::StoredMessage,
};
use conclave_mls::content::Content;
use conclave_names::{ClientUri, Seq};

use super::Scene;
use crate::{
    actor::Actor,
    hostile::Lie,
    ledger::{Deed, Misdeed, Said},
    network::Stop,
    world::{Report, World},
};

/// A message as a client has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Read {
    seq: Seq,
    sender: String,
    text: String,
}

/// Nobody has read a message in a group and once more in the one that it goes on in.
pub(super) fn none_twice(world: &World) -> Result<(), Stop> {
    for actor in world.actors.values() {
        let mut had = BTreeMap::new();
        for (slot, known) in world.around.ledger.slots.iter().enumerate() {
            let Some(known) = known else { continue };
            for message in actor.disk.messages(&known.group.to_string()) {
                let text = text_of(message);
                if let Some(before) = had.insert(text.clone(), slot).filter(|before| *before != slot) {
                    let name = actor.name();
                    return Err(Stop::violation(format!("{name} has \"{text}\" in group {before} and in {slot}")));
                }
            }
        }
    }
    Ok(())
}

fn text_of(message: &StoredMessage) -> String {
    Content::parse(&message.body).ok().and_then(|content| content.as_text()).unwrap_or_default()
}

impl Scene<'_> {
    /// Whether a client has a message in a group that this one goes on from: there it was in an epoch that was annulled.
    fn had_before(&self, actor: &Actor, text: &str) -> bool {
        let line = self.ledger().line_to(self.slot).into_iter().skip(1);
        let groups = line.filter_map(|slot| self.ledger().slot(slot));
        groups
            .into_iter()
            .any(|known| actor.disk.messages(&known.group.to_string()).any(|message| text_of(message) == text))
    }

    /// Whether a client has a message that it had while it lived in another log: what is said again under its name stays where it was read first.
    fn had_apart(&self, actor: &Actor, text: &str) -> bool {
        let lived_apart = self.ledger().apart.contains_key(&(actor.index(), self.slot));
        lived_apart && actor.disk.messages(&self.known.group.to_string()).any(|message| text_of(message) == text)
    }

    /// What a client has of the group's messages, in order.
    fn history(&self, actor: &Actor) -> Vec<Read> {
        let group = self.known.group.to_string();
        let apart = self.ledger().apart.get(&(actor.index(), self.slot));
        let of_another_log =
            |message: &&StoredMessage| apart.is_some_and(|had| had.contains(&(Seq(message.seq), message.id)));
        let mut history: Vec<_> = actor
            .disk
            .messages(&group)
            .filter(|message| !of_another_log(message))
            .map(|message| Read { seq: Seq(message.seq), sender: message.sender.clone(), text: text_of(message) })
            .collect();
        history.sort_by_key(|read| read.seq);
        history
    }

    /// Each message of the channel was read once, in the same words, by everybody who was a member then, and by nobody
    /// else; and everything that was said is there, unless its sender was told otherwise.
    pub(super) fn messages(&self, report: &mut Report) -> Result<(), Stop> {
        let texts = self.texts()?;
        for actor in self.in_the_true_log() {
            report.sums.read += self.one_client(actor, &texts)?;
        }
        report.sums.sent += texts.len();
        self.said(&texts)
    }

    /// Everybody but those whom the server shows another log. Who was left behind has read the true log as far as it could.
    fn in_the_true_log(&self) -> impl Iterator<Item = &Actor> {
        self.world.actors.values().filter(|actor| !self.ledger().is_victim(actor.index(), self.slot))
    }

    /// The log's messages that stand, with what those have read at their places who have read anything.
    fn texts(&self) -> Result<BTreeMap<Seq, Read>, Stop> {
        let mut texts: BTreeMap<Seq, Read> = BTreeMap::new();
        // Somebody else's second copy of a message is at another place.
        let mut by_text: BTreeMap<String, Seq> = BTreeMap::new();
        for actor in self.in_the_true_log() {
            for read in self.history(actor) {
                let row = self.entries.iter().find(|row| row.seq == read.seq);
                if row.is_none_or(|row| row.kind != EntryKind::Message) {
                    return Err(Stop::violation(format!("{} has a message where none was sent", actor.name())));
                }
                if texts.get(&read.seq).is_some_and(|other| *other != read) {
                    return Err(Stop::violation(format!("{} reads something else at {}", actor.name(), read.seq)));
                }
                if !self.truth.void.contains(&read.seq) {
                    let first = *by_text.entry(read.text.clone()).or_insert(read.seq);
                    if first != read.seq && !self.may_be_there_twice(&read.text) {
                        return Err(Stop::violation(format!(
                            "\"{}\" was sent twice, at {first} and {}",
                            read.text, read.seq
                        )));
                    }
                }
                texts.insert(read.seq, read);
            }
        }
        for row in self.entries.iter().filter(|row| row.kind == EntryKind::Message) {
            // What a victim sends may be of an epoch of another log; a heartbeat is no message.
            let known = self.is_no_text(row.seq) || texts.contains_key(&row.seq) || self.truth.void.contains(&row.seq);
            // What was hidden from its sender may have been sent twice: the second is nobody's.
            let copy = self.entries.iter().any(|first| first.seq < row.seq && first.bytes == row.bytes);
            if !known && !copy && !self.ledger().has_victims(self.slot) && !self.ledger().hides_entries(self.slot) {
                return Err(Stop::violation(format!("nobody can read the message at {}", row.seq)));
            }
        }
        Ok(texts)
    }

    /// Whether somebody said something again, because it came back past the place where it had been, or was shown another log in which it was
    /// not: nobody reads it twice.
    fn may_be_there_twice(&self, text: &str) -> bool {
        let mut said = self.ledger().said.iter().filter(|said| said.text == text);
        said.any(|said| said.repeated || self.ledger().was_apart(said.actor, said.slot))
    }

    /// Whether the message at a place is nobody's words: a heartbeat, or what somebody sent who breaks the rules.
    fn is_no_text(&self, seq: Seq) -> bool {
        self.ledger().silent.contains(&(self.slot, seq))
            || self
                .ledger()
                .misdeeds_in(self.slot)
                .any(|misdeed| misdeed.seq == Some(seq) && matches!(misdeed.deed, Deed::Offended(_)))
    }

    fn one_client(&self, actor: &Actor, texts: &BTreeMap<Seq, Read>) -> Result<usize, Stop> {
        let (client, name) = (actor.client(), actor.name());
        let history = self.history(actor);
        let mut had: BTreeSet<&str> = BTreeSet::new();
        let mut last: BTreeMap<&str, usize> = BTreeMap::new();
        for read in &history {
            if self.readers(read.seq)?.is_some_and(|readers| !readers.contains(client)) {
                return Err(Stop::violation(format!("{name} was no member then and has the message at {}", read.seq)));
            }
            if !had.insert(&read.text) {
                return Err(Stop::violation(format!("{name} has \"{}\" twice", read.text)));
            }
            let said = self.ledger().said.iter().position(|said| said.text == read.text);
            let said = said.ok_or_else(|| Stop::violation(format!("\"{}\" was never said", read.text)))?;
            // Said again or not, it is for those who were there when it was written; but its author may repeat it to anybody.
            let written = self.ledger().said.get(said).filter(|said| !said.repeated);
            let written = written.filter(|said| !self.ledger().is_victim(said.actor, said.slot));
            if written.is_some_and(|said| !said.readers.contains(client)) {
                return Err(Stop::violation(format!(
                    "{name} was no member when \"{}\" was written, and has it",
                    read.text
                )));
            }
            // What is said again comes after what was said meanwhile; and what waited in a group that its author could not follow, after what it
            // said in the one that let it in.
            let left = |said: &Said| self.ledger().lived_apart_before(said.actor, said.slot);
            let again = self.ledger().said.get(said).is_some_and(|said| said.again || said.repeated || left(said));
            if !again && last.insert(&read.sender, said).is_some_and(|before| before > said) {
                return Err(Stop::violation(format!("\"{}\" comes after what {} said later", read.text, read.sender)));
            }
        }
        self.told(actor)?;
        self.in_causal_order(&name, &history)?;
        let behind = self.world.is_left_behind(actor, self.slot);
        for (seq, text) in texts.iter().filter(|(seq, _)| !behind && !self.truth.void.contains(seq)) {
            if self.readers(*seq)?.is_some_and(|readers| readers.contains(client))
                && !had.contains(text.text.as_str())
                && !self.had_before(actor, &text.text)
                && !self.had_apart(actor, &text.text)
                && !self.came_late(actor, *seq)
                && !self.was_shown_too_late(actor, *seq)
            {
                return Err(Stop::violation(format!("{name} was a member then and has not the message at {seq}")));
            }
        }
        Ok(history.len())
    }

    /// What members have told to who missed it was said, by whom and where they say, and when it was a member.
    fn told(&self, actor: &Actor) -> Result<(), Stop> {
        let name = actor.name();
        for row in actor.disk.told(&self.known.group.to_string()) {
            let told = Told::parse(&row.body).map_err(Stop::violation)?;
            if self.readers(Seq(row.seq))?.is_some_and(|readers| !readers.contains(actor.client())) {
                return Err(Stop::violation(format!("{name} is told of entry {}, and was no member then", row.seq)));
            }
            let said = |message: &StoredMessage| {
                (message.seq, message.id, message.time_ms) == (row.seq, row.id, row.time_ms)
                    && (&message.sender, &message.body) == (&row.sender, &told.content)
            };
            let group = self.known.group.to_string();
            if !self.world.actors.values().any(|actor| actor.disk.messages(&group).any(said)) {
                return Err(Stop::violation(format!("{name} is told of what was not said at entry {}", row.seq)));
            }
        }
        Ok(())
    }

    /// Everything comes after what its author knew of when it said it.
    fn in_causal_order(&self, name: &str, history: &[Read]) -> Result<(), Stop> {
        let numbers: Vec<_> = history.iter().filter_map(|read| self.ledger().number_of(&read.text)).collect();
        for (place, later) in numbers.iter().enumerate() {
            let mut after = numbers.iter().skip(place + 1);
            if let Some(earlier) = after.find(|earlier| self.ledger().must_follow(*later, **earlier)) {
                return Err(Stop::violation(format!(
                    "{name} has what was said as number {later} before number {earlier}, which its author knew"
                )));
            }
        }
        Ok(())
    }

    /// Whether a client could not take up an invitation, or not follow, when something was said: it was not back by then, and was told of what
    /// it missed, if it had been here before.
    pub(super) fn came_late(&self, actor: &Actor, seq: Seq) -> bool {
        let (client, slot, ledger) = (actor.index(), self.slot, self.ledger());
        let place = (client, slot);
        let away = !actor.is_active(slot);
        if away && ledger.uninvited.contains(&place) {
            return true;
        }
        let epoch = self.entries.iter().find(|row| row.seq == seq).map(|row| row.epoch);
        let before = || ledger.back.get(&place).is_none_or(|back| epoch < Some(*back));
        // Where another log began that the server makes up shows to nobody who sees no other.
        let apart = ledger.healed_at.get(&place).is_some_and(|end| seq <= *end);
        // Who dies as soon as it has joined was told by its history.
        let noted = |event: Event| matches!(event, Event::Missed { from, to } if (from..=to).contains(&seq));
        let in_history = || actor.disk.events(&self.known.group.to_string()).any(|(_, event)| noted(event));
        let in_gap = || ledger.in_gap(client, slot, seq) || in_history();
        let known = || away || apart || in_gap() || ledger.absent.contains(&place);
        // Who cannot follow passes over what it cannot read.
        let unread = |from: &Seq| match actor.group(slot) {
            Some(group) if matches!(group.status(), Status::Stuck { .. }) => seq >= *from,
            group => group.is_none_or(|group| seq > group.position().seq),
        };
        (ledger.missed.contains(&place) && before() && known())
            || (away && ledger.stuck.get(&place).is_some_and(unread))
    }

    /// Whether the server held a message back from a client for longer than keys of past epochs are kept, and it was told of that message.
    fn was_shown_too_late(&self, actor: &Actor, seq: Seq) -> bool {
        let (client, ledger) = (actor.index(), self.ledger());
        let stalled = |misdeed: &Misdeed| misdeed.client == client && misdeed.deed == Deed::Lied(Lie::Stall);
        ledger.unread.contains(&(client, self.slot, seq)) && ledger.misdeeds_in(self.slot).any(stalled)
    }

    /// Whether something that was said may stand at another place than was acknowledged last.
    fn may_stand_elsewhere(&self, said: &Said, place: Seq, acknowledged: Seq) -> bool {
        said.again || said.repeated || (place < acknowledged && self.could_not_see(said.actor))
    }

    /// Whether a client was not shown at some time what it had sent.
    fn could_not_see(&self, client: usize) -> bool {
        let stalled = |misdeed: &Misdeed| misdeed.client == client && misdeed.deed == Deed::Lied(Lie::Stall);
        self.ledger().missed.contains(&(client, self.slot)) || self.ledger().misdeeds_in(self.slot).any(stalled)
    }

    /// Whether all who were members at a place have a message, wherever they read it.
    fn all_have(&self, text: &str, seq: Seq) -> Result<bool, Stop> {
        let Some(readers) = self.readers(seq)? else { return Ok(false) };
        let lacks = |actor: &&Actor| {
            readers.contains(actor.client())
                && !self.came_late(actor, seq)
                && !self.had_apart(actor, text)
                && !self.history(actor).iter().any(|read| read.text == text)
        };
        Ok(!self.world.actors.values().filter(|actor| !self.is_victim(actor)).any(|actor| lacks(&actor)))
    }

    fn readers(&self, seq: Seq) -> Result<Option<BTreeSet<ClientUri>>, Stop> {
        self.truth.readers(self.ledger(), self.slot, seq)
    }

    /// Everything that was said is there, unless its sender was told otherwise.
    fn said(&self, texts: &BTreeMap<Seq, Read>) -> Result<(), Stop> {
        let standing = texts.iter().filter(|(seq, _)| !self.truth.void.contains(seq));
        let places: BTreeMap<_, _> = standing.map(|(seq, read)| (read.text.as_str(), *seq)).collect();
        for said in self.ledger().said.iter().filter(|said| said.slot == self.slot) {
            if self.ledger().is_victim(said.actor, self.slot)
                || self.world.is_alone_with_its_offence(said.actor, self.slot)
                || self.world.is_among_ghosts(said.actor, self.slot)
                || self.world.is_helpless(said.actor, self.slot)
            {
                continue;
            }
            match (places.get(said.text.as_str()), said.acknowledged) {
                // What is said again under its name stays where it was read first.
                // So does what was sent again by who came back and could not read that it was there, or from whom it was hidden for longer than
                // the service remembers what it took.
                (Some(place), Some(acknowledged))
                    if *place != acknowledged && !self.may_stand_elsewhere(said, *place, acknowledged) =>
                {
                    return Err(Stop::violation(format!("\"{}\" is not where it was acknowledged", said.text)));
                }
                // Who was removed since, or was a member in void epochs only, cannot say again what was in one.
                // Everybody may have read it in a void epoch before it was said again.
                (None, Some(seq))
                    if said.again && !self.truth.void.contains(&seq) && self.all_have(&said.text, seq)? => {}
                (None, Some(seq)) if !(said.excused && (said.again || self.truth.void.contains(&seq))) => {
                    return Err(Stop::violation(format!("\"{}\" was acknowledged and lost", said.text)));
                }
                (None, None) if !said.excused => {
                    return Err(Stop::violation(format!("\"{}\" was lost, and its sender not told", said.text)));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
