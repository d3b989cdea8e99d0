//! One simulation from its first step to the checks.

use conclave_engine::{
    group::{Group, Status},
    intent::Wish,
};
use conclave_names::Timestamp;

use crate::{
    actor::{Actor, Surroundings},
    check,
    ledger::Ledger,
    network::{Stop, Weather},
    program::{Action, Plan, Program, Step},
    server::Server,
};

const START: Timestamp = Timestamp(1_790_000_000_000);

/// Rounds within which everybody must come to rest.
const ROUNDS: usize = 40;

/// What came of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Clients.
    pub clients: usize,
    /// Epochs of all groups together.
    pub epochs: u64,
    /// Members of all groups at the end.
    pub members: usize,
    /// Messages in the channels.
    pub sent: usize,
    /// Messages that clients have, their own included.
    pub read: usize,
    /// Commits that nobody could apply, and that were annulled.
    pub broken: u64,
    /// Wishes that came to nothing for a good reason, with the user told.
    pub wishes_failed: usize,
    /// What happened, step by step. It is the same each time.
    pub trace: Vec<String>,
}

/// Something that must never be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("seed {}: {what}\nagain: {}", plan.seed, plan.command())]
pub struct Violation {
    /// The program.
    pub plan: Plan,
    /// What is wrong.
    pub what: String,
    /// What happened before.
    pub trace: Vec<String>,
}

/// The clock, the service and the clients.
pub(crate) struct World {
    pub(crate) around: Surroundings,
    pub(crate) actors: Vec<Actor>,
}

/// Runs a program, lets everything calm, and checks what must hold then.
///
/// # Errors
/// The first [`Violation`].
pub fn simulate(plan: &Plan) -> Result<Report, Box<Violation>> {
    let program = Program::new(plan);
    let mut trace = Vec::new();
    run(plan, &program, &mut trace).map_err(|stop| {
        let what = match stop {
            Stop::Violation(what) => what,
            Stop::Refused(refusal) => format!("the service refused what is right: {refusal}"),
            stop @ (Stop::Death | Stop::Unreachable) => format!("the simulation is broken: {stop:?}"),
        };
        Box::new(Violation { plan: *plan, what, trace: std::mem::take(&mut trace) })
    })
}

fn run(plan: &Plan, program: &Program, trace: &mut Vec<String>) -> Result<Report, Stop> {
    let mut world = World::new(plan, program)?;
    let done = world.play(program);
    *trace = std::mem::take(&mut world.around.ledger.trace);
    let mut report = done?;
    report.trace = std::mem::take(trace);
    Ok(report)
}

impl World {
    fn new(plan: &Plan, program: &Program) -> Result<Self, Stop> {
        let mut around = Surroundings {
            server: Server::new(START).map_err(Stop::Refused)?,
            ledger: Ledger { slots: vec![None; program.slots], ..Ledger::default() },
            weather: Weather::default(),
        };
        let mut actors = Vec::new();
        for (index, skew) in program.skews.iter().enumerate() {
            actors.push(Actor::new(&mut around, index, program.slots, *skew, plan.sabotage)?);
        }
        Ok(Self { around, actors })
    }

    fn play(&mut self, program: &Program) -> Result<Report, Stop> {
        for (number, step) in program.steps.iter().enumerate() {
            self.around.server.pass(step.pause).map_err(Stop::Refused)?;
            self.around.ledger.tell(format!("{number}: {step}"));
            self.around.weather = step.weather.clone();
            self.step(step)?;
        }
        self.around.weather = Weather::default();
        self.rest()?;
        check::all(self)
    }

    fn step(&mut self, step: &Step) -> Result<(), Stop> {
        let target = match step.action {
            Action::Add(other) | Action::Remove(other) => self.actors.get(other),
            _ => None,
        };
        let target = target.map(|actor| actor.client().user().clone());
        let (around, slot) = (&mut self.around, step.slot);
        let Some(actor) = self.actors.get_mut(step.actor) else { return Ok(()) };
        let act = || {
            match (step.action, target) {
                (Action::Create, _) => actor.create(around, slot)?,
                (Action::Say, _) => actor.say(around, slot)?,
                (Action::Add(_), Some(user)) => actor.add(around, slot, &user)?,
                (Action::Remove(_), Some(user)) => actor.wish(around, slot, Wish::Remove { users: vec![user] })?,
                (Action::Leave, _) => actor.wish(around, slot, Wish::Leave)?,
                (Action::Update, _) => actor.wish(around, slot, Wish::Update)?,
                (Action::Read, _) => actor.read_group(around, slot)?,
                (Action::Submit, _) => actor.submit(around, slot).map(drop)?,
                (Action::Sync, _) => actor.sync(around)?,
                _ => {}
            }
            if step.drive { actor.drive(around, slot) } else { Ok(()) }
        };
        match act() {
            Err(Stop::Death) => {
                around.ledger.tell(format!("    {} dies", actor.name()));
                actor.die(&around.ledger)
            }
            Err(Stop::Unreachable) => {
                around.ledger.tell(format!("    {} gets no reply", actor.name()));
                Ok(())
            }
            // A program that goes on after such a refusal would hide it.
            done => {
                if step.action == Action::Nothing && around.weather.dies() {
                    around.ledger.tell(format!("    {} dies", actor.name()));
                    actor.die(&around.ledger)?;
                }
                done
            }
        }
    }

    /// Nothing goes wrong any more: everybody catches up until nothing moves.
    fn rest(&mut self) -> Result<(), Stop> {
        let mut before = None;
        for _ in 0..ROUNDS {
            // Long enough for everybody's turn to commit what others proposed.
            self.around.server.pass(60_000).map_err(Stop::Refused)?;
            for actor in &mut self.actors {
                actor.sync(&mut self.around)?;
            }
            let heads = self.heads()?;
            let pending = |actor: &Actor| {
                (0..heads.len()).any(|slot| actor.group(slot).is_some_and(|group| group.intents().count() > 0))
            };
            let stuck = |actor: &Actor| {
                let stuck = |group: &Group| matches!(group.status(), Status::Stuck { .. });
                (0..heads.len()).any(|slot| actor.group(slot).is_some_and(stuck))
            };
            if before.as_ref() == Some(&heads) && !self.actors.iter().any(|actor| pending(actor) || stuck(actor)) {
                return Ok(());
            }
            before = Some(heads);
        }
        let mut open = Vec::new();
        for actor in &self.actors {
            for slot in 0..self.around.ledger.slots.len() {
                if let Some(group) = actor.group(slot) {
                    open.extend(
                        group.intents().map(|intent| format!("{} of {}", intent_name(&intent.wish), actor.name())),
                    );
                }
            }
        }
        for actor in &self.actors {
            for slot in 0..self.around.ledger.slots.len() {
                if let Some(group) = actor.group(slot) {
                    open.push(format!(
                        "{} at epoch {} of group {slot}: {:?}, settled {}, {} open",
                        actor.name(),
                        group.epoch(),
                        group.status(),
                        group.settled_epoch(),
                        group.open_commits()
                    ));
                }
            }
        }
        Err(Stop::violation(format!("somebody's wishes never come to an end: {}", open.join(", "))))
    }

    fn heads(&mut self) -> Result<Vec<u64>, Stop> {
        let channels: Vec<_> =
            self.around.ledger.slots.iter().map(|slot| slot.as_ref().map(|slot| slot.channel)).collect();
        let mut heads = Vec::new();
        for channel in channels {
            heads.push(match channel {
                Some(channel) => self.around.server.log(&channel).map_err(Stop::Refused)?.0.head.0,
                None => 0,
            });
        }
        Ok(heads)
    }
}

fn intent_name(wish: &Wish) -> &'static str {
    match wish {
        Wish::Send { .. } => "a message",
        Wish::Add { .. } => "an addition",
        Wish::Remove { .. } => "a removal",
        Wish::Update => "an update",
        Wish::Leave => "a leaving",
        Wish::CommitProposals => "a commit of proposals",
        _ => "a wish",
    }
}
