//! What must hold when everything is calm.

use std::collections::{BTreeMap, BTreeSet};

use conclave_channel::{EntryKind, chain};
use conclave_delivery::store::{ChannelKind, EntryRow};
use conclave_mls::content::Content;
use conclave_names::{ClientUri, Epoch, Seq};

use crate::{
    actor::Actor,
    ledger::Slot,
    network::Stop,
    world::{Report, World},
};

pub(crate) fn all(world: &mut World) -> Result<Report, Stop> {
    let mut report = Report {
        clients: world.actors.len(),
        epochs: 0,
        members: 0,
        sent: 0,
        read: 0,
        broken: world.around.ledger.broken.len() as u64,
        wishes_failed: world.around.ledger.failures,
        trace: Vec::new(),
    };
    let mut commits = 0;
    for slot in 0..world.around.ledger.slots.len() {
        let Some(known) = world.around.ledger.slot(slot).cloned() else { continue };
        let (row, entries) = world.around.server.log(&known.channel).map_err(Stop::Refused)?;
        chain_recomputes(&known, &entries, row.head, &row.head_hash)?;
        let ChannelKind::Group { ledger } = &row.kind else { continue };
        let epoch = ledger.epoch();
        commits += entries.iter().filter(|entry| entry.kind == EntryKind::Commit).count() as u64;
        report.epochs += epoch.0;
        report.members += members_agree(world, slot, epoch)?;
        service_agrees(world, slot, &known)?;
        messages(world, slot, &known, &entries, &mut report)?;
    }
    // Every commit stands but those that nobody could apply.
    if commits != report.epochs + report.broken {
        return Err(Stop::violation(format!(
            "{commits} commits made {} epochs, but {} were broken",
            report.epochs, report.broken
        )));
    }
    Ok(report)
}

/// The service's running hash is the one of its entries.
fn chain_recomputes(
    slot: &Slot,
    entries: &[EntryRow],
    head: Seq,
    head_hash: &conclave_names::Hash,
) -> Result<(), Stop> {
    let mut hash = chain::start(&slot.channel);
    let (mut seq, mut time) = (Seq(0), None);
    for entry in entries {
        seq = seq.next();
        if entry.seq != seq || time.is_some_and(|time| entry.time < time) {
            return Err(Stop::violation("the service's log has a gap, or its time runs backwards"));
        }
        time = Some(entry.time);
        hash = chain::next(&hash, seq, entry.kind, entry.time, &chain::entry_hash(&entry.bytes));
    }
    if head != seq || hash != *head_hash {
        return Err(Stop::violation("the service's running hash is not that of its entries"));
    }
    Ok(())
}

/// All members agree on the group, they are those whom the changes lead to, and nobody else believes to be one.
fn members_agree(world: &World, slot: usize, epoch: Epoch) -> Result<usize, Stop> {
    let roster = world
        .around
        .ledger
        .roster(slot, epoch)
        .ok_or_else(|| Stop::violation(format!("nobody knows of all changes up to epoch {epoch}")))?;
    let mut seen = None;
    let mut members = 0;
    for actor in &world.actors {
        let client = actor.client();
        let group = actor.group(slot);
        if !actor.is_active(slot) {
            // Who is alone leaves without a word to the service.
            let left = actor.has_ended(slot, &world.around.ledger) && roster.len() == 1;
            if roster.contains(client) && !left {
                let status = group.map(|group| group.status().clone());
                return Err(Stop::violation(format!("{client} is a member of group {slot}, but stands at {status:?}")));
            }
            continue;
        }
        let Some(group) = group else { continue };
        if !roster.contains(client) {
            return Err(Stop::violation(format!("{client} was removed from group {slot} and does not know")));
        }
        members += 1;
        let own: BTreeSet<_> =
            group.members().map_err(Stop::violation)?.into_iter().map(|member| member.client).collect();
        if own != roster {
            return Err(Stop::violation(format!("{client} sees other members than those whom the changes lead to")));
        }
        let view = (
            group.epoch(),
            group.epoch_authenticator().map_err(Stop::violation)?,
            group.key_root().map_err(Stop::violation)?,
            group.position(),
            group.profile().clone(),
        );
        if view.0 != epoch {
            return Err(Stop::violation(format!("{client} is in epoch {}, the group in {epoch}", view.0)));
        }
        if seen.as_ref().is_some_and(|seen| *seen != view) {
            return Err(Stop::violation(format!("{client} disagrees about group {slot}")));
        }
        seen = Some(view);
        if group.intents().count() > 0 {
            return Err(Stop::violation(format!("{client} has an intent that never ends")));
        }
    }
    Ok(members)
}

/// Of a group with visible handshakes, the service knows what the members know; of a private one, nothing.
fn service_agrees(world: &mut World, slot: usize, known: &Slot) -> Result<(), Stop> {
    let followed = world.around.server.followed(&known.channel).map_err(Stop::Refused)?;
    for actor in &world.actors {
        let Some(group) = actor.group(slot).filter(|_| actor.is_active(slot)) else { continue };
        let context = group.context_hash().map_err(Stop::violation)?;
        if followed.map(|followed| followed.context) != group.is_visible().then_some(context) {
            return Err(Stop::violation(format!("the service and {} disagree about group {slot}", actor.client())));
        }
    }
    Ok(())
}

/// What a client has of a group's messages, by place.
fn history(actor: &Actor, slot: &Slot) -> Result<BTreeMap<u64, (String, String)>, Stop> {
    let mut history = BTreeMap::new();
    for message in actor.disk.messages(&slot.group.to_string()) {
        let text = Content::parse(&message.body).ok().and_then(|content| content.as_text()).unwrap_or_default();
        if history.insert(message.seq, (message.sender.clone(), text)).is_some() {
            return Err(Stop::violation(format!("{} has two messages at one place", actor.client())));
        }
    }
    Ok(history)
}

/// Each message of the channel was read once, at the same place, in the same words, by everybody who was a member
/// then, and by nobody else; and everything that was said is there, unless its sender was told otherwise.
fn messages(world: &World, slot: usize, known: &Slot, entries: &[EntryRow], report: &mut Report) -> Result<(), Stop> {
    let mut histories = BTreeMap::new();
    for actor in &world.actors {
        histories.insert(actor.client().clone(), history(actor, known)?);
    }
    // By epoch, the commit that ended the membership of those who were removed in it.
    let mut removals: BTreeMap<Epoch, Seq> = BTreeMap::new();
    let mut places: BTreeMap<String, u64> = BTreeMap::new();
    let mut last: BTreeMap<ClientUri, usize> = BTreeMap::new();
    for entry in entries {
        if entry.kind == EntryKind::Commit && !world.around.ledger.broken.contains(&(slot, entry.seq)) {
            removals.insert(entry.epoch.next(), entry.seq);
        }
        if entry.kind != EntryKind::Message {
            if let Some((client, _)) = histories.iter().find(|(_, history)| history.contains_key(&entry.seq.0)) {
                return Err(Stop::violation(format!("{client} has a message where none was sent")));
            }
            continue;
        }
        if world.around.ledger.heartbeats.contains(&entry.bytes) {
            continue;
        }
        report.sent += 1;
        let then = world.around.ledger.roster(slot, entry.epoch).unwrap_or_default();
        let mut words: Option<&(String, String)> = None;
        for (client, history) in &histories {
            // A message may come after the commit that ended its epoch.
            let gone = world.around.ledger.changes.get(&(slot, entry.epoch.next())).is_some_and(|change| {
                change.removed.contains(client) && removals.get(&entry.epoch.next()).is_some_and(|seq| *seq < entry.seq)
            });
            match (history.get(&entry.seq.0), then.contains(client) && !gone) {
                (None, true) => {
                    return Err(Stop::violation(format!(
                        "{client} was a member in epoch {} and has not the message at {}",
                        entry.epoch, entry.seq
                    )));
                }
                (Some(_), false) => {
                    return Err(Stop::violation(format!(
                        "{client} was no member in epoch {} and has the message at {}",
                        entry.epoch, entry.seq
                    )));
                }
                (Some(read), true) => {
                    report.read += 1;
                    if words.is_some_and(|words| words != read) {
                        return Err(Stop::violation(format!("{client} reads something else at {}", entry.seq)));
                    }
                    words = Some(read);
                }
                (None, false) => {}
            }
        }
        let Some((sender, text)) = words else {
            return Err(Stop::violation(format!("nobody can read the message at {}", entry.seq)));
        };
        if let Some(first) = places.insert(text.clone(), entry.seq.0) {
            return Err(Stop::violation(format!("\"{text}\" was sent twice, at {first} and {}", entry.seq)));
        }
        let said = world.around.ledger.said.iter().position(|said| said.text == *text);
        let said = said.ok_or_else(|| Stop::violation(format!("\"{text}\" was never said")))?;
        let sender: ClientUri = sender.parse().map_err(Stop::violation)?;
        if last.insert(sender.clone(), said).is_some_and(|before| before > said) {
            return Err(Stop::violation(format!("\"{text}\" comes after what {sender} said later")));
        }
    }
    for said in world.around.ledger.said.iter().filter(|said| said.slot == slot) {
        match (places.get(&said.text), said.acknowledged) {
            (Some(place), Some(acknowledged)) if *place != acknowledged => {
                return Err(Stop::violation(format!("\"{}\" is not where it was acknowledged", said.text)));
            }
            (None, Some(_)) => return Err(Stop::violation(format!("\"{}\" was acknowledged and lost", said.text))),
            (None, None) if !said.excused => {
                return Err(Stop::violation(format!("\"{}\" was lost, and its sender not told", said.text)));
            }
            _ => {}
        }
    }
    Ok(())
}
