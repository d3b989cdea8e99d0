//! Programs of random actions. A program is a function of its plan alone: what happens to the clients changes what a
//! step comes to, never which step is next.

use std::fmt;

use crate::{
    dice::Dice,
    network::{NetworkFault, Weather},
    sabotage::Sabotage,
};

/// What is simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Fixes the program.
    pub seed: u64,
    /// Steps before everything calms.
    pub steps: u32,
    /// How likely the network fails, and a client dies, in a step; in percent each.
    pub fault_percent: u64,
    /// A fault planted into the clients, to see that it is caught.
    pub sabotage: Sabotage,
}

impl Plan {
    /// A seed's program in its usual length and weather.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, steps: 100, fault_percent: 20, sabotage: Sabotage::None }
    }

    /// The command that runs it again.
    #[must_use]
    pub fn command(&self) -> String {
        let Self { seed, steps, fault_percent, sabotage } = self;
        let planted = match sabotage {
            Sabotage::None => String::new(),
            planted => format!(" --sabotage {planted}"),
        };
        format!(
            "cargo run -p conclave-simulator -- --seed {seed} --steps {steps} --faults {fault_percent}{planted} \
             --verbose"
        )
    }
}

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Makes the group, if nobody has.
    Create,
    /// Wishes to say something.
    Say,
    /// Claims KeyPackages of a user and wishes to add it.
    Add(usize),
    /// Wishes to remove a user.
    Remove(usize),
    Leave,
    /// Wishes new keys for itself.
    Update,
    /// Reads the group's channel.
    Read,
    /// Submits one thing, without reading first.
    Submit,
    /// Catches up with everything and carries out what there is to do, as the client's `sync`.
    Sync,
    /// Does nothing: the faults of the step may still kill it.
    Nothing,
}

/// One step.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// Time that passes before it, in milliseconds.
    pub(crate) pause: u64,
    pub(crate) actor: usize,
    pub(crate) slot: usize,
    pub(crate) action: Action,
    /// Whether the client also carries out at once what it wishes.
    pub(crate) drive: bool,
    pub(crate) weather: Weather,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pause, actor, slot, action, drive, weather } = self;
        write!(f, "+{pause} ms, user{actor} in group {slot}: {action:?}")?;
        if *drive {
            f.write_str(" and drive")?;
        }
        write!(f, "{weather}")
    }
}

/// A plan's groups, actors and steps.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) slots: usize,
    /// How far each actor's clock is off, in milliseconds; negative if it runs behind.
    pub(crate) skews: Vec<i64>,
    pub(crate) steps: Vec<Step>,
}

const MINUTE: u64 = 60_000;

impl Program {
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut dice = Dice::new(plan.seed);
        let actors = 2 + dice.index(5);
        let slots = 1 + dice.index(2);
        let skew = |dice: &mut Dice| i64::try_from(dice.below(4 * MINUTE)).unwrap_or(0) - 120_000;
        let skews = (0..actors).map(|_| skew(&mut dice)).collect();
        // Some are online often, some hardly ever.
        let presence: Vec<u64> = (0..actors).map(|_| 1 + dice.below(8)).collect();
        let mut steps = Vec::new();
        for slot in 0..slots {
            let (actor, weather) = (dice.index(actors), Weather::default());
            steps.push(Step { pause: 1, actor, slot, action: Action::Create, drive: false, weather });
            // The group begins with some of the others.
            for place in 1..=dice.index(actors) {
                let other = (actor + place) % actors;
                for (actor, action) in [(actor, Action::Add(other)), (other, Action::Sync)] {
                    let (pause, weather) = (dice.below(5_000), Self::weather(&mut dice, plan.fault_percent / 2));
                    steps.push(Step { pause, actor, slot, action, drive: true, weather });
                }
            }
        }
        while steps.len() < plan.steps as usize {
            let actor = dice.weighted(&presence);
            let other = (actor + 1 + dice.index(actors - 1)) % actors;
            let action = match dice.weighted(&[26, 16, 7, 3, 8, 6, 10, 20, 3, 1]) {
                0 => Action::Say,
                1 => Action::Add(other),
                2 => Action::Remove(other),
                3 => Action::Leave,
                4 => Action::Update,
                5 => Action::Read,
                6 => Action::Submit,
                7 => Action::Sync,
                8 => Action::Nothing,
                _ => Action::Create,
            };
            let pause = match dice.weighted(&[90, 7, 3]) {
                0 => 1 + dice.below(5_000),
                1 => dice.below(30 * MINUTE),
                _ => dice.below(30 * 60 * MINUTE),
            };
            let slot = dice.index(slots);
            let drive = dice.percent(50);
            let weather = Self::weather(&mut dice, plan.fault_percent);
            steps.push(Step { pause, actor, slot, action, drive, weather });
        }
        Self { slots, skews, steps }
    }

    fn weather(dice: &mut Dice, fault_percent: u64) -> Weather {
        let death = dice.percent(fault_percent).then(|| dice.below(16));
        let fault = dice.percent(fault_percent).then(|| {
            let fault = match dice.index(4) {
                0 => NetworkFault::RequestLost,
                1 => NetworkFault::ReplyLost,
                2 => NetworkFault::Delayed,
                _ => NetworkFault::Doubled,
            };
            (dice.below(8), fault)
        });
        Weather::new(death, fault, dice.percent(fault_percent / 10))
    }
}
