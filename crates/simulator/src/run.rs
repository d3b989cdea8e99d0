//! Programs of random actions, and what must hold after them.

use std::collections::BTreeMap;

use conclave_engine::intent::Wish;
use conclave_mls::content::Content;
use conclave_names::Timestamp;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{
    actor::{Actor, Fault},
    server::Server,
};

const START: Timestamp = Timestamp(1_790_000_000_000);

/// Rounds within which everybody must come to rest.
const ROUNDS: usize = 60;

/// What is simulated.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Fixes the schedule.
    pub seed: u64,
    /// Actions.
    pub steps: u32,
    /// Clients, at least 2.
    pub clients: usize,
    /// How likely a step goes wrong, in percent.
    pub fault_percent: u32,
    /// A fault planted into the clients, to see that it is caught.
    pub sabotage: Sabotage,
}

impl Default for Plan {
    fn default() -> Self {
        Self { seed: 0, steps: 60, clients: 5, fault_percent: 30, sabotage: Sabotage::None }
    }
}

/// A fault planted into the clients on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sabotage {
    /// None.
    #[default]
    None,
    /// Nothing that a group changes becomes durable.
    SkipPersist,
    /// An entry of the channel is passed over.
    DropEntry,
}

/// What came of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The epoch in which everybody came to rest.
    pub epoch: u64,
    /// Members then.
    pub members: usize,
    /// Messages that the channel holds.
    pub messages_sent: usize,
    /// Messages that clients read, their own included.
    pub messages_read: usize,
    /// Wishes that came to nothing, with the user told.
    pub wishes_failed: usize,
}

/// Something that must never be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(String);

fn violation(what: impl Into<String>) -> Violation {
    Violation(what.into())
}

/// Runs a program and looks for violations.
///
/// # Errors
/// The first [`Violation`] found.
pub fn simulate(plan: &Plan) -> Result<Outcome, Violation> {
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let mut server = Server::new(START).map_err(|refusal| violation(refusal.to_string()))?;
    let mut actors = Vec::new();
    for index in 0..plan.clients.max(2) {
        actors.push(Actor::new(&mut server, &format!("user{index}"), plan.sabotage).map_err(Violation)?);
    }
    if let Some(first) = actors.first_mut() {
        first.create(&mut server).map_err(Violation)?;
    }
    for step in 0..plan.steps {
        server.now = server.now.plus_ms(rng.random_range(1..5_000));
        act(&mut rng, plan, &mut server, &mut actors, step).map_err(Violation)?;
    }
    rest(&mut server, &mut actors)?;
    check(&actors)
}

fn act(rng: &mut StdRng, plan: &Plan, server: &mut Server, actors: &mut [Actor], step: u32) -> Result<(), String> {
    let who = rng.random_range(0..actors.len());
    let other = rng.random_range(0..actors.len());
    let target = actors.get(other).map(|actor| actor.user().clone());
    let fault = if rng.random_range(0..100) < plan.fault_percent {
        match rng.random_range(0..4) {
            0 => Fault::LostRequest,
            1 => Fault::LostReply,
            2 => Fault::CrashBefore,
            _ => Fault::CrashAfter,
        }
    } else {
        Fault::None
    };
    let action = rng.random_range(0..100);
    let (Some(actor), Some(target)) = (actors.get_mut(who), target) else { return Ok(()) };
    match action {
        0..35 => actor.say(&format!("step {step} by {}", actor.user().name()))?,
        35..50 if actor.is_member() => {
            if let Ok(key_packages) = server.claim(&actor.account, &target.to_string()) {
                actor.wish(Wish::Add { key_packages })?;
            }
        }
        50..56 if other != who => actor.wish(Wish::Remove { users: vec![target] })?,
        56..60 => actor.wish(Wish::Leave)?,
        60..70 => actor.wish(Wish::Update)?,
        70..75 => actor.crash()?,
        75..90 => actor.sync(server)?,
        _ => {}
    }
    if let Some(actor) = actors.get_mut(who) {
        actor.submit(server, fault)?;
    }
    Ok(())
}

/// Nothing goes wrong any more: everybody reads and submits until nothing moves.
fn rest(server: &mut Server, actors: &mut [Actor]) -> Result<(), Violation> {
    for _ in 0..ROUNDS {
        let mut moved = false;
        // Long enough for everybody's turn to commit what others proposed.
        server.now = server.now.plus_ms(60_000);
        for actor in actors.iter_mut() {
            actor.sync(server).map_err(Violation)?;
            moved |= actor.submit(server, Fault::None).map_err(Violation)?;
            actor.sync(server).map_err(Violation)?;
        }
        if !moved {
            return Ok(());
        }
    }
    Err(violation("somebody's wishes never come to an end"))
}

fn check(actors: &[Actor]) -> Result<Outcome, Violation> {
    let engine = |error: conclave_engine::MlsError| violation(error.to_string());
    let mut seen = None;
    let mut members = 0;
    for actor in actors.iter().filter(|actor| actor.is_member()) {
        let Some(group) = &actor.group else { continue };
        members += 1;
        let mut roster: Vec<_> = group.members().map_err(engine)?.into_iter().map(|member| member.client).collect();
        roster.sort();
        let view = (group.epoch(), group.epoch_authenticator().map_err(engine)?, roster, group.position());
        if seen.as_ref().is_some_and(|seen| *seen != view) {
            return Err(violation(format!("{} disagrees about the group", actor.account.client)));
        }
        if group.intents().count() > 0 {
            let under_way: Vec<_> = group.intents().collect();
            return Err(violation(format!("{} has intents that never end: {under_way:?}", actor.account.client)));
        }
        seen = Some(view);
    }
    let epoch = seen.as_ref().map_or(0, |view| view.0.0);
    if seen.as_ref().is_some_and(|view| view.2.len() != members) {
        return Err(violation("the roster names somebody who is no member, or misses one"));
    }

    // One text for each place and name, the same for all; each author's texts once, in order.
    let mut log: BTreeMap<(u64, [u8; 32]), Vec<u8>> = BTreeMap::new();
    let mut read = 0;
    for actor in actors {
        for message in actor.messages() {
            read += 1;
            let body = log.entry((message.seq, message.id)).or_insert_with(|| message.body.clone());
            if *body != message.body {
                return Err(violation("two clients read different messages at one place"));
            }
        }
    }
    let mut said: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for body in log.values() {
        let text = Content::parse(body).ok().and_then(|content| content.as_text()).unwrap_or_default();
        let author = text.rsplit(' ').next().unwrap_or_default().to_owned();
        said.entry(author).or_default().push(text);
    }
    let mut failed = 0;
    for actor in actors {
        failed += actor.failed;
        let said = said.remove(actor.user().name()).unwrap_or_default();
        // What was wished and is not there was told to have failed, or went with a removal.
        let mut wished = actor.wished.iter();
        if !said.iter().all(|text| wished.any(|wish| wish == text)) {
            return Err(violation(format!("{}: messages are doubled or out of order", actor.account.client)));
        }
        if actor.is_member() && actor.failed == 0 && was_always_member(actor) && said.len() != actor.wished.len() {
            return Err(violation(format!("{}: a message was lost", actor.account.client)));
        }
    }
    Ok(Outcome { epoch, members, messages_sent: log.len(), messages_read: read, wishes_failed: failed })
}

/// Whether it never lost its wishes to a removal: the first client, while nobody removed it.
fn was_always_member(actor: &Actor) -> bool {
    actor.group.as_ref().is_some_and(|group| group.joined_in().0 == 0)
}
