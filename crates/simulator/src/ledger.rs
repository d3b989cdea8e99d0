//! What the simulation knows and no client does: who said what, who was a member when, who broke the rules, and who
//! noticed.

mod misdeeds;
mod order;

use std::collections::{BTreeMap, BTreeSet};

use conclave_channel::law::DisputePause;
use conclave_engine::outcome::Event;
use conclave_mls::content::MessageId;
use conclave_names::{ChannelId, ClientUri, Epoch, GroupUri, Hash, IdempotencyKey, Seq, Timestamp};

pub(crate) use self::misdeeds::{Alarm, Deed, Misdeed};
use crate::network::Stop;

/// A group of the simulation.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) group: GroupUri,
    pub(crate) channel: ChannelId,
    /// The members of the first epoch.
    pub(crate) founders: BTreeSet<ClientUri>,
    /// Root of the key tree of the first epoch.
    pub(crate) key_root: Hash,
    /// The first epoch.
    pub(crate) epoch: Epoch,
    /// How long a disputed commit waits.
    pub(crate) pause: DisputePause,
    /// The slot of the group that it goes on in.
    pub(crate) successor: Option<usize>,
    /// The entry that names the successor.
    pub(crate) chosen: Option<Seq>,
    /// Only such clients went on here as the server shows another log of the group before.
    pub(crate) orphan: bool,
}

/// Something that was said: its intent became durable.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) actor: usize,
    pub(crate) slot: usize,
    /// Whom it was written for: the members that its writer saw, and whom he had wished to add before.
    pub(crate) readers: BTreeSet<ClientUri>,
    /// What carries it.
    pub(crate) intent: IdempotencyKey,
    /// The place that the service acknowledged.
    pub(crate) acknowledged: Option<Seq>,
    /// The sender was told that it comes to nothing, or that it was removed before.
    pub(crate) excused: bool,
    /// It was said again, after what was said later may have been.
    pub(crate) again: bool,
    /// Its name.
    pub(crate) id: MessageId,
    /// What its author knew of when it said it, by number.
    pub(crate) knew: BTreeSet<usize>,
    /// Its author broke the rules by sending it once more as if it were new.
    pub(crate) repeated: bool,
}

/// What the members say of a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) added: BTreeSet<ClientUri>,
    pub(crate) removed: BTreeSet<ClientUri>,
}

/// How clients found back to their groups.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Recoveries {
    /// By a commit from outside.
    pub(crate) rejoined: usize,
    /// Members that were asked.
    pub(crate) knocks: usize,
    /// By a member.
    pub(crate) readmitted: usize,
    /// Out of another log.
    pub(crate) healed: usize,
    /// Into the successor of a group.
    pub(crate) succeeded: usize,
}

/// Messages that a client had, by place and name.
pub(crate) type Had = BTreeSet<(Seq, [u8; 32])>;

/// The record of one simulation.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) slots: Vec<Option<Slot>>,
    /// Groups that were made, those included that nobody knows.
    pub(crate) made: u128,
    /// Everybody, by number.
    pub(crate) clients: BTreeMap<usize, ClientUri>,
    pub(crate) said: Vec<Said>,
    /// By group and the commit.
    pub(crate) changes: BTreeMap<(usize, Seq), Change>,
    pub(crate) misdeeds: Vec<Misdeed>,
    /// Who noticed what in which group.
    pub(crate) alarms: Vec<(usize, usize, Alarm)>,
    /// What clients were told to be wrong with receipts, by group and place: how many alarms there were before.
    pub(crate) receipts: BTreeMap<(usize, usize, Seq), usize>,
    /// What clients were told to have missed in a group: the first entry and the last.
    pub(crate) gaps: Vec<((usize, usize), Seq, Seq)>,
    /// Clients that live in another log than the others, by group.
    pub(crate) victims: BTreeSet<(usize, usize)>,
    /// Clients that know that they were invited to a group and cannot join.
    pub(crate) uninvited: BTreeSet<(usize, usize)>,
    /// Clients that could not take up an invitation at some time, by group.
    pub(crate) missed: BTreeSet<(usize, usize)>,
    /// In which epoch those have come back who could not.
    pub(crate) back: BTreeMap<(usize, usize), Epoch>,
    /// Clients that could not follow a group at some time, and the first entry that they did not read then.
    pub(crate) stuck: BTreeMap<(usize, usize), Seq>,
    /// Messages that clients had, by group and place, when they left another log for the group's.
    pub(crate) apart: BTreeMap<(usize, usize), Had>,
    /// Entries with a commit that only some can apply, by the hash of their bytes.
    pub(crate) partial: BTreeSet<Hash>,
    /// Commits of which it was said falsely that they can be applied, and that are void all the same, as those before them are.
    pub(crate) taken_back: BTreeSet<(usize, Seq)>,
    /// Where they are, by group.
    pub(crate) partial_commits: BTreeSet<(usize, Seq)>,
    /// How often somebody came back by a commit from outside, asked to be let in again, was let in again, and left a branch that
    /// was not the group.
    pub(crate) recoveries: Recoveries,
    /// Clients that have changed their signature key.
    pub(crate) rotated: BTreeSet<usize>,
    /// Successors that at first only such clients had come to as the server showed another log: what they knew then was not noted.
    pub(crate) found_late: BTreeSet<usize>,
    /// Clients that are shown nothing more of a group's log: since when, and how many alarms there were before.
    pub(crate) stalled: BTreeMap<(usize, usize), (Timestamp, usize)>,
    /// Clients that were told that nobody has shown to have seen what they said: how many alarms there were before.
    pub(crate) unseen: BTreeMap<(usize, usize), usize>,
    /// Clients that a group counted among its members at some time before they first came to it.
    pub(crate) absent: BTreeSet<(usize, usize)>,
    /// Where the log ended when clients left another one for it.
    pub(crate) healed_at: BTreeMap<(usize, usize), Seq>,
    /// The groups that successors go on from to which somebody came who lives in another log.
    pub(crate) branched: BTreeMap<usize, usize>,
    /// What clients were told that they cannot read, by group and place.
    pub(crate) unread: BTreeSet<(usize, usize, Seq)>,
    /// Entries of others' misdeeds that clients have read, by client, group and place.
    pub(crate) to_judge: BTreeSet<(usize, usize, Seq)>,
    /// When first somebody who had read one had done all there was to do, by group and place.
    pub(crate) judged_at: BTreeMap<(usize, Seq), Timestamp>,
    /// What the server has signed for, by client and group.
    pub(crate) signed: BTreeSet<(usize, usize, Seq)>,
    /// What clients were told to be hidden of that.
    pub(crate) withheld: BTreeSet<(usize, usize, Seq)>,
    /// What clients were told of, by number, in a group or what it goes on from.
    pub(crate) told: BTreeMap<(usize, usize), BTreeSet<usize>>,
    /// Messages that say nothing to people, by group.
    pub(crate) silent: BTreeSet<(usize, Seq)>,
    /// What each key of a client encrypted, by the epoch's authenticator and the generation.
    pub(crate) keys: BTreeMap<(ClientUri, Vec<u8>, u32), Vec<u8>>,
    /// Wishes that came to nothing, with the user told.
    pub(crate) failures: usize,
    /// How often clients died, and how often of that late in a step.
    pub(crate) deaths: usize,
    pub(crate) late_deaths: usize,
    /// What happened, without anything that differs between two runs of a seed.
    pub(crate) trace: Vec<String>,
}

/// Reasons for which a wish may come to nothing although everybody follows the rules.
const GOOD_REASONS: &[&str] = &[
    "members joined since this message was written",
    "this client is no member of the group any more",
    "another member has made the group anew meanwhile",
    "the commit that did it was annulled",
    "and the removal was annulled",
];

impl Ledger {
    /// Notes what happens. Names that are made of keys differ each time, and are left out.
    pub(crate) fn tell(&mut self, what: impl AsRef<str>) {
        let random = |word: &&str| word.len() >= 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        let words = what.as_ref().split(' ').map(|word| if random(&word) { "…" } else { word });
        self.trace.push(words.collect::<Vec<_>>().join(" "));
    }

    pub(crate) fn slot(&self, slot: usize) -> Option<&Slot> {
        self.slots.get(slot).and_then(Option::as_ref)
    }

    pub(crate) fn slot_of(&self, group: &GroupUri) -> Option<usize> {
        self.slots.iter().position(|slot| slot.as_ref().is_some_and(|slot| slot.group == *group))
    }

    /// A group of the program and what it goes on in, the newest last.
    pub(crate) fn line(&self, slot: usize) -> Vec<usize> {
        std::iter::successors(Some(slot), |slot| self.slot(*slot)?.successor).collect()
    }

    /// Somebody takes an entry for the one that names the successor.
    pub(crate) fn choose(&mut self, slot: usize, seq: Seq) -> Result<(), Stop> {
        let Some(known) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return Ok(()) };
        match *known.chosen.get_or_insert(seq) {
            first if first == seq => Ok(()),
            first => Err(Stop::violation(format!(
                "the successor of group {slot} is at {first} for one, at {seq} for another"
            ))),
        }
    }

    /// Who lives in another log comes to a successor, be it that of all others or not. Gives its slot.
    pub(crate) fn succeed_apart(&mut self, client: usize, slot: usize, made: Slot) -> usize {
        let at = self.place_apart(client, made);
        self.branched.insert(at, slot);
        at
    }

    fn place_apart(&mut self, client: usize, made: Slot) -> usize {
        if let Some(at) = self.slot_of(&made.group) {
            // All successors of a group have one name.
            if self.slot(at).is_some_and(|known| known.key_root != made.key_root) {
                self.victims.insert((client, at));
            }
            return at;
        }
        self.slots.push(Some(Slot { orphan: true, ..made }));
        self.slots.len() - 1
    }

    /// The service has another channel in place of a successor's. Who lives in the true log meets with that only where one that lives in
    /// another came to the service first: then the group that the others went on in never begins.
    pub(crate) fn usurped(&mut self, client: usize, slot: usize) -> Result<(), Stop> {
        if self.is_victim(client, slot) {
            return Ok(());
        }
        let apart = self.line_to(slot).into_iter().skip(1).any(|before| self.has_victims(before));
        let Some(known) = self.slots.get_mut(slot).and_then(Option::as_mut).filter(|_| apart) else {
            return Err(Stop::violation(format!("client {client} finds the channel of group {slot} taken")));
        };
        known.orphan = true;
        Ok(())
    }

    /// Somebody comes to the successor of a group. Gives its slot.
    pub(crate) fn succeed(&mut self, slot: usize, made: Slot) -> Result<usize, Stop> {
        let Some(known) = self.slot(slot).and_then(|old| old.successor) else {
            let first = self.slot_of(&made.group);
            let at = first.unwrap_or(self.slots.len());
            // Whose Welcome was no good is a member that knows nothing of it.
            let ghosts: Vec<_> = self.uninvited.iter().filter(|(_, of)| *of == slot).map(|(index, _)| *index).collect();
            self.uninvited.extend(ghosts.iter().map(|index| (*index, at)));
            self.absent.extend(ghosts.iter().map(|index| (*index, at)));
            self.missed.extend(ghosts.into_iter().map(|index| (index, at)));
            match first.and_then(|at| self.slots.get_mut(at)) {
                Some(place) => {
                    *place = Some(made);
                    self.found_late.insert(at);
                }
                None => self.slots.push(Some(made)),
            }
            if let Some(old) = self.slots.get_mut(slot).and_then(Option::as_mut) {
                old.successor = Some(at);
            }
            return Ok(at);
        };
        let same = self.slot(known).is_some_and(|known| {
            (&known.group, known.channel, &known.founders, known.key_root, known.epoch)
                == (&made.group, made.channel, &made.founders, made.key_root, made.epoch)
        });
        if same { Ok(known) } else { Err(Stop::violation(format!("group {slot} goes on in two successors"))) }
    }

    /// Whether a client lives in another log than the others.
    pub(crate) fn is_victim(&self, client: usize, slot: usize) -> bool {
        self.victims.contains(&(client, slot)) || self.slot(slot).is_some_and(|known| known.orphan)
    }

    /// Whether anybody lives in another log than the others, or did.
    pub(crate) fn has_victims(&self, slot: usize) -> bool {
        self.victims.iter().chain(self.apart.keys()).any(|(_, of)| *of == slot) || self.found_late.contains(&slot)
    }

    /// A client is in the group's log again. What it has read in another is nobody's concern any more.
    pub(crate) fn heal(
        &mut self,
        client: usize,
        slot: usize,
        end: Seq,
        had: impl IntoIterator<Item = (Seq, [u8; 32])>,
    ) {
        self.tell(format!("    client {client} is in the log of group {slot} again"));
        self.victims.remove(&(client, slot));
        self.forget_signatures_in(client, slot);
        self.missed.insert((client, slot));
        self.healed_at.insert((client, slot), end);
        self.recoveries.healed += 1;
        self.apart.entry((client, slot)).or_default().extend(had);
        // What it has said there was told to nobody here; it knows that.
        for said in self.said.iter_mut().filter(|said| said.actor == client && said.slot == slot) {
            (said.acknowledged, said.excused) = (None, true);
        }
    }

    /// Takes what a client noticed. Without a misdeed that explains it, it is a false alarm.
    pub(crate) fn alarm(&mut self, client: usize, slot: usize, alarm: Alarm, what: &str) -> Result<(), Stop> {
        self.tell(format!("    client {client} notices in group {slot}: {what}"));
        let explained = self.misdeeds.iter().any(|misdeed| {
            // Inboxes are no group's.
            // And who goes on in another successor than the others was shown another log of the group before.
            let before = || {
                let another = matches!(misdeed.deed, Deed::Lied(lie) if lie.is_another_log());
                let from = self.branched.get(&slot).copied().unwrap_or(slot);
                another && self.is_victim(client, slot) && self.line_to(from).contains(&misdeed.slot)
            };
            // What somebody's own offence kept from being done waits where the group goes on, too.
            let own = || {
                let offended = matches!(misdeed.deed, Deed::Offended(_)) && misdeed.client == client;
                alarm == Alarm::Wish && offended && self.line_to(slot).contains(&misdeed.slot)
            };
            let here =
                misdeed.slot == slot || (alarm == Alarm::Invitation && misdeed.client == client) || before() || own();
            here && misdeed.deed.explains(alarm)
        });
        if !explained {
            return Err(Stop::violation(format!("client {client} raises a false alarm in group {slot}: {what}")));
        }
        self.alarms.push((client, slot, alarm));
        Ok(())
    }

    /// Takes what an engine tells its user. What no honest world gives rise to is a violation. `commits` are the ones
    /// of the batch by the epochs that they begin.
    pub(crate) fn hear(
        &mut self,
        client: usize,
        slot: usize,
        events: &[Event],
        commits: &BTreeMap<Epoch, Seq>,
    ) -> Result<(), Stop> {
        let mut changes: BTreeMap<Epoch, Change> = BTreeMap::new();
        for event in events {
            let (alarm, what) = match event {
                Event::Message { text, .. } => {
                    self.told_of(client, slot, text.as_deref().unwrap_or_default())?;
                    continue;
                }
                Event::Replayed { seq, id, .. } => {
                    self.replayed(client, slot, *seq, id)?;
                    continue;
                }
                Event::Unseen { .. } => {
                    self.unseen.insert((client, slot), self.alarms.len());
                    continue;
                }
                Event::Missed { from, to } => {
                    self.gaps.push(((client, slot), *from, *to));
                    continue;
                }
                Event::Withheld { seq, .. } => {
                    self.withheld.insert((client, slot, *seq));
                    (Alarm::Withheld, format!("entry {seq} is signed for and not shown"))
                }
                Event::Added { members, epoch, .. } => {
                    changes.entry(*epoch).or_default().added.extend(members.iter().cloned());
                    continue;
                }
                Event::Removed { members, epoch, .. } => {
                    changes.entry(*epoch).or_default().removed.extend(members.iter().cloned());
                    continue;
                }
                Event::Frozen { epoch, .. }
                | Event::Updated { epoch, .. }
                | Event::Rejoined { epoch, .. }
                | Event::Readmitted { epoch, .. } => {
                    changes.entry(*epoch).or_default();
                    continue;
                }
                Event::IntentFailed { reason, .. } => {
                    self.failures += 1;
                    if GOOD_REASONS.iter().any(|good| reason.contains(good)) {
                        self.tell(format!("    client {client} is told: {reason}"));
                        continue;
                    }
                    (Alarm::Wish, format!("a wish failed: {reason}"))
                }
                Event::Refused { seq, reason } => {
                    self.unread.insert((client, slot, *seq));
                    (Alarm::Refused, format!("entry {seq} is refused: {reason}"))
                }
                Event::FalseGroupInfo { epoch, .. } => {
                    (Alarm::GroupInfo, format!("what it left in epoch {epoch} leads nobody back"))
                }
                Event::Stuck { seq, reason } => (Alarm::Stuck, format!("entry {seq} cannot be followed: {reason}")),
                Event::ReceiptInvalid { seq } => (Alarm::Receipt, format!("the receipt of {seq} is invalid")),
                Event::ReceiptBroken { seq, .. } => (Alarm::Receipt, format!("the receipt of {seq} is broken")),
                Event::Equivocation { seq, .. } => (Alarm::Receipt, format!("two receipts of {seq}")),
                Event::PositionGone { reason, .. } => (Alarm::Gone, format!("entries are gone: {reason}")),
                Event::Forked { seq, epoch, .. } => (Alarm::Branch, format!("entry {seq} is of another epoch {epoch}")),
                // No store here goes back; but what a hostile member does passes its own engine by.
                Event::KeysUsedElsewhere { seq } => {
                    if self.misdeeds_in(slot).any(|misdeed| misdeed.client == client) {
                        continue;
                    }
                    return Err(Stop::violation(format!("client {client} takes its own entry {seq} for another's")));
                }
                Event::LogRewritten { seq } => (Alarm::Branch, format!("the log is another from entry {seq} on")),
                Event::LogsDiffer { member, seq } => {
                    (Alarm::LogsDiffer, format!("{} saw another entry {seq}", member.user().name()))
                }
                _ => continue,
            };
            if let (
                Alarm::Receipt,
                Event::ReceiptInvalid { seq } | Event::ReceiptBroken { seq, .. } | Event::Equivocation { seq, .. },
            ) = (alarm, event)
            {
                self.receipts.insert((client, slot, *seq), self.alarms.len());
            }
            let unread = match event {
                Event::Stuck { seq, .. } => Some(*seq),
                Event::PositionGone { after, .. } => Some(after.next()),
                _ => None,
            };
            if let Some(unread) = unread {
                self.stuck.insert((client, slot), unread);
                self.back.remove(&(client, slot));
            }
            self.alarm(client, slot, alarm, &what)?;
        }
        // Who lives in another log knows of other changes.
        if self.is_victim(client, slot) {
            return Ok(());
        }
        for (epoch, change) in changes {
            let Some(seq) = commits.get(&epoch) else {
                return Err(Stop::violation(format!("client {client} was told of epoch {epoch}, which nothing began")));
            };
            let known = self.changes.entry((slot, *seq)).or_insert_with(|| change.clone());
            if *known != change {
                return Err(Stop::violation(format!(
                    "client {client} saw another change by commit {seq} than others: {change:?}, not {known:?}"
                )));
            }
        }
        Ok(())
    }

    /// Somebody takes a message for one that was there before. Only what was sent again is.
    fn replayed(&mut self, client: usize, slot: usize, seq: Seq, id: &MessageId) -> Result<(), Stop> {
        let again = |said: &Said| said.again || said.repeated || self.missed.contains(&(said.actor, slot));
        let known = self.said.iter().find(|said| said.id == *id);
        if self.has_victims(slot) || known.is_none_or(again) {
            self.tell(format!("    client {client} has what entry {seq} says"));
            return Ok(());
        }
        Err(Stop::violation(format!("client {client} takes entry {seq} of group {slot} for a repetition")))
    }

    /// A client encrypted something that is about to leave it. No key does so twice (RFC 9420, section 9.1), whether or not
    /// what it encrypted first ever arrived.
    pub(crate) fn encrypted(
        &mut self,
        client: &ClientUri,
        (epoch, generation): (Vec<u8>, u32),
        entry: &[u8],
    ) -> Result<(), Stop> {
        let first = self.keys.entry((client.clone(), epoch, generation)).or_insert_with(|| entry.to_vec());
        if first == entry {
            return Ok(());
        }
        Err(Stop::violation(format!("{client} encrypted two messages with its key of generation {generation}")))
    }

    /// Whether a client has submitted an encrypted message before.
    pub(crate) fn has_seen(&self, client: &ClientUri, entry: &[u8]) -> bool {
        self.keys.iter().any(|((of, ..), seen)| of == client && seen == entry)
    }

    /// Whether an entry is a message of a client that has changed its key since it joined the simulation.
    pub(crate) fn is_overtaken_by_rotation(&self, client: usize, entry: &[u8]) -> bool {
        let known = self.clients.get(&client).filter(|_| self.rotated.contains(&client));
        known.is_some_and(|client| self.has_seen(client, entry))
    }

    /// What was acknowledged at a place is read by nobody: its sender says it again.
    pub(crate) fn say_once_more(&mut self, slot: usize, seq: Seq) {
        self.silent.insert((slot, seq));
        for said in self.said.iter_mut().filter(|said| said.slot == slot && said.acknowledged == Some(seq)) {
            said.acknowledged = None;
        }
        self.tell(format!("    entry {seq} of group {slot} came after its sender's rotation"));
    }

    /// The service acknowledged an intent.
    pub(crate) fn acknowledged(&mut self, intent: IdempotencyKey, seq: Seq) {
        for said in self.said.iter_mut().filter(|said| said.intent == intent) {
            said.acknowledged = Some(seq);
        }
    }

    /// What was in a void epoch is said again.
    pub(crate) fn said_again(&mut self, text: &str) {
        for said in self.said.iter_mut().filter(|said| said.text == text) {
            said.acknowledged = None;
            said.again = true;
        }
    }

    /// An intent is not under way any more, and its user was told why.
    pub(crate) fn excuse(&mut self, which: impl Fn(&Said) -> bool) {
        self.said.iter_mut().filter(|said| which(said)).for_each(|said| said.excused = true);
    }
}
