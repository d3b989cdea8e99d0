//! What was done wrong was noticed, or did no harm.

use std::collections::{BTreeMap, BTreeSet};

use conclave_engine::group::Group;
use conclave_names::{ClientUri, Hash, Seq};

use crate::{
    actor::Actor,
    hostile::{Lie, Tamper},
    ledger::{Alarm, Deed, Misdeed},
    network::Stop,
    world::World,
};

/// Each misdeed that must be noticed was: by the client that it was done to, or by any other of the group.
pub(super) fn misdeeds(world: &World, heads: &BTreeMap<usize, (Hash, BTreeSet<ClientUri>)>) -> Result<(), Stop> {
    let ledger = &world.around.ledger;
    for misdeed in ledger.misdeeds.iter().filter(|misdeed| !misdeed.unseen) {
        let Misdeed { deed, slot, client, seq, alarms, .. } = *misdeed;
        let since = ledger.alarms.get(alarms..).unwrap_or_default();
        let by_client = |wanted: Alarm| since.contains(&(client, slot, wanted));
        let noticed = match deed {
            Deed::Tampered(tamper) if tamper.is_about_receipts() => seq.is_none_or(|seq| {
                let told = ledger.receipts.get(&(client, slot, seq)).is_some_and(|at| *at >= alarms);
                let withheld = ledger.withheld.contains(&(client, slot, seq));
                // Or it took the log for none before it came there.
                let place = world.actors.get(&client).and_then(|actor| actor.group(slot)).map(Group::position);
                let stopped = by_client(Alarm::Fault) && place.is_some_and(|place| place.seq < seq);
                let never = || stopped || never_came_by(world, client, slot, seq);
                told || withheld || (tamper == Tamper::FalseReceipt && never())
            }),
            Deed::Tampered(Tamper::NoBlob) => by_client(Alarm::Invitation),
            Deed::Tampered(Tamper::Rewritten) => by_client(Alarm::Branch),
            // Who was given twice what comes behind its place takes what invited it for void.
            Deed::Tampered(Tamper::Gap) => by_client(Alarm::Fault) || by_client(Alarm::Invitation),
            Deed::Tampered(tamper) if tamper.is_about_pages() => by_client(Alarm::Fault),
            Deed::Lied(lie) if lie.is_another_log() => {
                // Who saw nothing of it, or is no member any more, or is alone, was not harmed.
                let actor = world.actors.get(&client).filter(|actor| actor.is_active(slot));
                let place = actor.and_then(|actor| actor.group(slot)).map(Group::position);
                let position = place.map(|place| place.hash);
                // It was told before that the server hides what it has signed for, and nothing of that has shown since.
                let hidden = place.is_some_and(|place| ledger.knows_of_hidden(client, slot, place.seq.next()));
                let apart = heads.get(&slot).is_some_and(|(head, members)| {
                    let member = actor.is_some_and(|actor| members.contains(actor.client()));
                    member && members.len() > 1 && position.is_some_and(|position| position != *head)
                });
                // Nobody speaks while it waits for somebody to commit what was proposed, or for a successor.
                let waits = |group: &Group| group.waits_for_commit() || group.is_frozen();
                let waits = |actor: &Actor| actor.group(slot).is_some_and(waits);
                let silent = world.actors.values().any(|actor| actor.is_active(slot) && waits(actor));
                !apart || silent || hidden || since.iter().any(|(_, at, _)| *at == slot)
            }
            Deed::Lied(Lie::Gone) => {
                by_client(Alarm::Gone) || seq.is_some_and(|seq| never_came_by(world, client, slot, seq))
            }
            // What was made up leads into no group.
            Deed::Lied(Lie::ForgedWelcome) => {
                since.iter().any(|(of, _, alarm)| *of == client && *alarm == Alarm::Invitation)
            }
            // Of the others it was checked that they did no harm.
            _ => true,
        };
        if !noticed {
            return Err(Stop::violation(format!(
                "nobody noticed in group {slot} that {deed:?} was done to or by client {client} ({seq:?})"
            )));
        }
    }
    Ok(())
}

/// Whether a client never read the entry at a place, so that it had nothing to hold a receipt against: it ended or stopped before, or came
/// back behind it.
fn never_came_by(world: &World, client: usize, slot: usize, seq: Seq) -> bool {
    let missed = world.around.ledger.in_gap(client, slot, seq);
    let Some(actor) = world.actors.get(&client) else { return true };
    let place = actor.group(slot).map(|group| group.position().seq);
    missed || (!actor.is_active(slot) && place.is_none_or(|place| place < seq))
}
