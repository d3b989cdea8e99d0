//! Programs of random actions: explicit lists, which can be cut. A program is a function of its plan alone: what
//! happens to the clients changes what a step comes to, never which step is next.

mod extras;
mod rotations;

use std::{collections::BTreeSet, fmt};

use crate::{
    dice::Dice,
    hostile::{Lie, Offence, Tamper, WAYS_BACK},
    network::{NetworkFault, Weather},
    plan::{Cut, Plan, Trouble},
};

/// What a client does, or what is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Comes into being, if it is a device that its user gets later.
    Arrive,
    /// Makes the group, if nobody has.
    Create,
    /// Wishes to say something.
    Say,
    /// Claims KeyPackages of the user of a client and wishes to add it.
    Add(usize),
    /// Wishes to remove the user of a client.
    Remove(usize),
    Leave,
    /// Wishes new keys for itself.
    Update,
    /// Changes its signature key, in all groups.
    Rotate,
    /// Wishes to say where it stands.
    Heartbeat,
    /// Wishes that the group be made anew, with the other handshake mode or the same.
    ReInit {
        switch: bool,
    },
    /// Reads the group's channel.
    Read,
    /// Submits one thing, without reading first.
    Submit,
    /// Catches up with everything and carries out what there is to do, as the client's `sync`.
    Sync,
    /// Is brought a part of the group's channel by a stream.
    Stream(Delivery),
    /// Does nothing: the faults of the step may still kill it.
    Nothing,
    /// Is cut off for so many milliseconds.
    Outage(u64),
    /// Is lied to by the server from now on.
    Lie(Lie),
    /// The server keeps one log of the group again, for everybody.
    Unite,
}

/// In which order a stream brings what it brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Straight,
    Backwards,
    /// Each entry twice.
    Twice,
}

/// What a stream brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delivery {
    /// Entries before our place that come once more.
    pub(crate) back: u8,
    /// Entries after our place that do not come.
    pub(crate) skip: u8,
    pub(crate) order: Order,
}

/// One step.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// Its place in the program that nothing was cut from.
    pub(crate) number: u32,
    /// Time that passes before it, in milliseconds.
    pub(crate) pause: u64,
    pub(crate) actor: usize,
    pub(crate) slot: usize,
    pub(crate) action: Action,
    /// Whether the client also carries out at once what it wishes.
    pub(crate) drive: bool,
    /// How the client breaks the rules in this step.
    pub(crate) offence: Option<Offence>,
    pub(crate) weather: Weather,
}

impl Step {
    /// Clients that it is about.
    pub(crate) fn clients(&self) -> impl Iterator<Item = usize> {
        let other = match self.action {
            Action::Add(other) | Action::Remove(other) => Some(other),
            _ => None,
        };
        std::iter::once(self.actor).chain(other)
    }

    fn without(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Death => self.weather.death = None,
            Trouble::Network => self.weather.fault = None,
            Trouble::Crash => self.weather.crash = None,
            Trouble::Server => self.weather.tamper = None,
            Trouble::Members => self.offence = None,
            Trouble::Outage | Trouble::Clock | Trouble::ReInit => {}
        }
    }

    fn is_only(&self, trouble: Trouble) -> bool {
        match self.action {
            Action::Outage(_) => trouble == Trouble::Outage,
            Action::Lie(_) | Action::Unite => trouble == Trouble::Server,
            Action::ReInit { .. } => trouble == Trouble::ReInit,
            _ => false,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, pause, actor, slot, action, drive, offence, weather } = self;
        write!(f, "{number}: +{pause} ms, client {actor} in group {slot}: {action:?}")?;
        if *drive {
            f.write_str(" and drive")?;
        }
        if let Some(offence) = offence {
            write!(f, "; breaks the rules: {offence:?}")?;
        }
        write!(f, "{weather}")
    }
}

/// A client of the program.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientSpec {
    pub(crate) user: usize,
    /// Which of the user's devices it is.
    pub(crate) device: usize,
    /// Whether it is there only from its arrival on.
    pub(crate) late: bool,
    /// How far its clock is off, in milliseconds; negative if it runs behind.
    pub(crate) skew: i64,
}

/// A plan's groups, clients and steps.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) slots: usize,
    pub(crate) clients: Vec<ClientSpec>,
    pub(crate) steps: Vec<Step>,
}

const MINUTE: u64 = 60_000;

impl Program {
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut program = Writer::new(plan).write();
        program.insert_extras(plan);
        program.insert_rotations(plan);
        program.come_late(plan);
        program.cut(&plan.cut);
        program
    }

    /// Clients that any step is about.
    pub(crate) fn mentioned(&self) -> BTreeSet<usize> {
        self.steps.iter().flat_map(Step::clients).collect()
    }

    fn cut(&mut self, cut: &Cut) {
        for trouble in &cut.without {
            self.steps.iter_mut().for_each(|step| step.without(*trouble));
            if *trouble == Trouble::Clock {
                self.clients.iter_mut().for_each(|client| client.skew = 0);
            }
        }
        let kept = |step: &Step| {
            cut.keep.as_ref().is_none_or(|keep| keep.0.contains(&step.number))
                && !cut.without.iter().any(|trouble| step.is_only(*trouble))
        };
        // The time that a step took passes all the same: windows and leases end as they did.
        let mut passed = 0;
        for mut step in std::mem::take(&mut self.steps) {
            if !kept(&step) {
                passed += step.pause;
                continue;
            }
            step.pause += std::mem::take(&mut passed);
            if cut.calm.0.contains(&step.number) {
                step.weather = Weather::default();
                step.offence = None;
            }
            self.steps.push(step);
        }
    }
}

/// One of a list.
fn one_of<T: Copy, const N: usize>(dice: &mut Dice, list: [T; N]) -> Option<T> {
    list.get(dice.index(N)).copied()
}

/// Writes a plan's program.
struct Writer<'a> {
    plan: &'a Plan,
    dice: Dice,
    program: Program,
    /// Some clients are online often, some hardly ever.
    presence: Vec<u64>,
}

impl<'a> Writer<'a> {
    fn new(plan: &'a Plan) -> Self {
        let mut dice = Dice::new(plan.seed);
        let clients = match dice.weighted(&[60, 30, 10]) {
            0 => 2 + dice.index(5),
            1 => 7 + dice.index(6),
            _ => 13 + dice.index(18),
        };
        let slots = 1 + dice.weighted(&[40, 35, 15, 10]);
        let mut specs: Vec<ClientSpec> = Vec::new();
        for index in 0..clients {
            let skew = i64::try_from(dice.below(4 * MINUTE)).unwrap_or(0) - 120_000;
            let owner = (index > 1 && dice.percent(20)).then(|| dice.index(index));
            let spec = match owner.and_then(|owner| specs.get(owner)).map(|owner| owner.user) {
                Some(user) => {
                    let device = specs.iter().filter(|spec| spec.user == user).count();
                    ClientSpec { user, device, late: dice.percent(60), skew }
                }
                None => ClientSpec { user: index, device: 0, late: false, skew },
            };
            specs.push(spec);
        }
        let presence = (0..clients).map(|_| 1 + dice.below(8)).collect();
        Self { plan, dice, program: Program { slots, clients: specs, steps: Vec::new() }, presence }
    }

    fn push(&mut self, pause: u64, actor: usize, slot: usize, action: Action, drive: bool) {
        let number = u32::try_from(self.program.steps.len()).unwrap_or(u32::MAX);
        let (offence, weather) = (None, Weather::default());
        self.program.steps.push(Step { number, pause, actor, slot, action, drive, offence, weather });
    }

    fn write(mut self) -> Program {
        let clients = self.program.clients.len();
        for slot in 0..self.program.slots {
            let on_time: Vec<_> = (0..clients).filter(|client| !self.is_late(*client)).collect();
            let founder = on_time.get(self.dice.index(on_time.len())).copied().unwrap_or(0);
            self.push(1, founder, slot, Action::Create, false);
            // The group begins with some of the others: in large ones with many, so that there is time for the rest.
            let others = self.dice.index(clients.min(13));
            for place in 1..=others {
                let other = (founder + place) % clients;
                for (actor, action) in [(founder, Action::Add(other)), (other, Action::Sync)] {
                    let pause = self.dice.below(5_000);
                    self.push(pause, actor, slot, action, true);
                    self.trouble(self.plan.fault_percent / 2);
                }
            }
        }
        while self.program.steps.len() < self.plan.steps as usize {
            self.step(clients);
        }
        self.program
    }

    fn is_late(&self, client: usize) -> bool {
        self.program.clients.get(client).is_some_and(|client| client.late)
    }

    fn step(&mut self, clients: usize) {
        let dice = &mut self.dice;
        let actor = dice.weighted(&self.presence);
        let other = (actor + 1 + dice.index(clients - 1)) % clients;
        let action = match dice.weighted(&[26, 16, 7, 3, 8, 6, 10, 20, 3, 1, 2, 2, 2]) {
            0 => Action::Say,
            1 => Action::Add(other),
            2 => Action::Remove(other),
            3 => Action::Leave,
            4 => Action::Update,
            5 => Action::Read,
            6 => Action::Submit,
            7 => Action::Sync,
            8 => Action::Nothing,
            9 => Action::Create,
            10 => Action::Heartbeat,
            11 => Action::Arrive,
            _ => Action::Outage(dice.below(2 * 60 * MINUTE)),
        };
        // A new device is added by somebody soon.
        let pause = match dice.weighted(&[90, 7, 3]) {
            0 => 1 + dice.below(5_000),
            1 => dice.below(30 * MINUTE),
            _ => dice.below(30 * 60 * MINUTE),
        };
        let slot = dice.index(self.program.slots);
        let drive = dice.percent(50);
        self.push(pause, actor, slot, action, drive);
        self.trouble(self.plan.fault_percent);
        self.lie(actor, slot);
    }

    /// The server begins to lie to a client, or ends the lie that there are two logs.
    fn lie(&mut self, actor: usize, slot: usize) {
        if !self.plan.hostile.server() {
            return;
        }
        let pause = self.dice.below(5_000);
        if self.dice.percent(3) {
            let lie = one_of(&mut self.dice, Lie::ALL).unwrap_or(Lie::Omit);
            self.push(pause, actor, slot, Action::Lie(lie), false);
            // Who has to come back finds that barred at times.
            let bars = matches!(lie, Lie::Fork | Lie::Gone) && self.dice.percent(40);
            if let Some(bar) = one_of(&mut self.dice, WAYS_BACK).filter(|_| bars) {
                self.push(1, actor, slot, Action::Lie(bar), false);
            }
            return;
        }
        if self.dice.percent(3) {
            self.push(pause, actor, slot, Action::Unite, false);
            return;
        }
        if self.plan.hostile.members()
            && self.dice.percent(2)
            && let Some(bar) = one_of(&mut self.dice, WAYS_BACK)
        {
            self.push(pause, actor, slot, Action::Lie(bar), false);
        }
    }

    /// Something goes wrong in the step that was written last.
    fn trouble(&mut self, fault_percent: u64) {
        let (dice, hostile) = (&mut self.dice, self.plan.hostile);
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
        let crash = dice.percent(fault_percent / 3).then(|| dice.below(16));
        let tamper = (hostile.server() && dice.percent(fault_percent / 2)).then(|| {
            let tamper = one_of(dice, Tamper::ALL).unwrap_or(Tamper::Gap);
            (dice.below(3), tamper)
        });
        let offence =
            (hostile.members() && dice.percent(fault_percent / 2)).then(|| one_of(dice, Offence::ALL)).flatten();
        let Some(step) = self.program.steps.last_mut() else { return };
        step.weather = Weather { death, fault, crash, tamper, ..Weather::default() };
        step.offence = offence;
        if offence.is_some_and(Offence::is_commit) && !matches!(step.action, Action::Add(_)) {
            // There is to be a commit that is not what it should be.
            (step.action, step.drive) = (Action::Update, true);
        }
    }
}
