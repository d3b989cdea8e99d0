//! What is put into a program beside what it was written with. Each kind has dice of its own, and its steps are numbered after all others:
//! whatever else a seed means does not depend on it.

use super::{Action, Delivery, Order, Program, Step, one_of};
use crate::{
    dice::Dice,
    hostile::{Lie, Offence, Tamper},
    network::{NetworkFault, Weather},
    plan::Plan,
    world::REINIT_UNTIL_MS,
};

const MINUTE: u64 = 60_000;

/// Of a hundred seeds, those in which groups are made anew.
const REINIT_SEEDS: u64 = 40;

/// The same where the server lies.
const REINIT_SEEDS_OF_LIARS: u64 = 15;

/// Of a hundred seeds, those in which somebody does not look for days after a reply was lost.
const FORGETFUL_SEEDS: u64 = 50;

/// Of a hundred times that something dies or a request is lost, those in which that comes late in its step.
const LATE: u64 = 35;

/// Effects of the longest steps but a few.
const EFFECTS: u64 = 400;

/// Requests of such a step.
const REQUESTS: u64 = 150;

/// Replies of such a step that a lie could be about.
const PAGES: u64 = 24;

/// Of a hundred commits that nobody can apply, those of which somebody says at once that it could.
const FALSE_WORDS: u64 = 20;

/// Of a hundred seeds in which the server lies, those in which it shows somebody nothing more for more than a week.
const LONG_STALLS: u64 = 25;

/// Steps for each of which a stream brings something once.
const STEPS_PER_STREAM: usize = 6;

impl Program {
    pub(super) fn insert_extras(&mut self, plan: &Plan) {
        self.insert_reinits(plan);
        self.insert_streams(plan);
        self.insert_forgetful(plan);
        self.insert_stalls(plan);
        self.insert_repetitions(plan);
        self.insert_false_words(plan);
        self.insert_long_stalls(plan);
    }

    /// Has some of what goes wrong in a step go wrong late in it: most steps are short, but who catches up, comes back and submits what waited
    /// has hundreds of effects. Which steps those are shows only when they are played, so the numbers are spread evenly over their orders
    /// of magnitude; what a step never comes to, does not happen.
    pub(super) fn come_late(&mut self, plan: &Plan) {
        let mut dice = Dice::new(plan.seed ^ 0x4C61_7465_4C79);
        let mut late = |first: &mut u64, most: u64| {
            if dice.percent(LATE) {
                let most = most >> dice.below(5);
                *first += dice.below(most);
            }
        };
        for step in &mut self.steps {
            let Weather { death, fault, crash, tamper, .. } = &mut step.weather;
            for after in death.iter_mut().chain(crash) {
                late(after, EFFECTS);
            }
            if let Some((after, _)) = fault {
                late(after, REQUESTS);
            }
            if let Some((after, _)) = tamper {
                late(after, PAGES);
            }
        }
    }

    /// Puts a step before the one at a place.
    fn insert(&mut self, at: usize, pause: u64, (actor, slot): (usize, usize), action: Action) -> Option<&mut Step> {
        let number = u32::try_from(self.steps.len()).unwrap_or(u32::MAX);
        let (drive, offence, weather) = (false, None, Weather::default());
        self.steps.insert(at, Step { number, pause, actor, slot, action, drive, offence, weather });
        self.steps.get_mut(at)
    }

    /// A place in the later part of the program, a client and a group.
    fn somewhere(&self, dice: &mut Dice, part: usize) -> (usize, (usize, usize)) {
        let from = self.steps.len() / part;
        let at = from + dice.index(self.steps.len() - from);
        (at, (dice.index(self.clients.len()), dice.index(self.slots)))
    }

    /// In some seeds, groups are made anew at times.
    fn insert_reinits(&mut self, plan: &Plan) {
        let mut dice = Dice::new(plan.seed ^ 0x5265_496E_6974);
        // Whom a lying server keeps apart then is left behind, and what else it meets with is seen less.
        let seeds = if plan.hostile.server() { REINIT_SEEDS_OF_LIARS } else { REINIT_SEEDS };
        if !dice.percent(seeds) {
            return;
        }
        for _ in 0..=dice.index(3) {
            let (at, who) = self.somewhere(&mut dice, 4);
            let action = Action::ReInit { switch: dice.percent(50) };
            let death = dice.percent(plan.fault_percent).then(|| dice.below(24));
            let (pause, drive) = (dice.below(5_000), dice.percent(70));
            let passed: u64 = self.steps.iter().take(at).map(|step| step.pause).sum();
            if passed > REINIT_UNTIL_MS {
                continue;
            }
            if let Some(step) = self.insert(at, pause, who, action) {
                (step.drive, step.weather.death) = (drive, death);
            }
        }
    }

    /// Streams bring parts of channels: before their turn, once more, in another order.
    fn insert_streams(&mut self, plan: &Plan) {
        let mut dice = Dice::new(plan.seed ^ 0x5374_7265_616D);
        for _ in 0..self.steps.len() / STEPS_PER_STREAM {
            let (at, who) = self.somewhere(&mut dice, 8);
            let count = |dice: &mut Dice, most: u64| u8::try_from(dice.below(most)).unwrap_or(0);
            let order = one_of(&mut dice, [Order::Straight, Order::Straight, Order::Backwards, Order::Twice]);
            let (back, skip) = (count(&mut dice, 6), count(&mut dice, 4));
            let delivery = Delivery { back, skip, order: order.unwrap_or(Order::Straight) };
            let death = dice.percent(plan.fault_percent / 2).then(|| dice.below(12));
            let lost = dice.percent(plan.fault_percent / 2).then(|| (dice.below(4), NetworkFault::ReplyLost));
            let lies = plan.hostile.server() && dice.percent(plan.fault_percent / 2);
            let pause = dice.below(5_000);
            if let Some(step) = self.insert(at, pause, who, Action::Stream(delivery)) {
                let tamper = lies.then_some((0, Tamper::Rewritten));
                step.weather = Weather { death, fault: lost, tamper, ..Weather::default() };
            }
        }
    }

    /// In some seeds, the reply to what somebody says is lost, and it does not look for longer than the service remembers what it took.
    fn insert_forgetful(&mut self, plan: &Plan) {
        let mut dice = Dice::new(plan.seed ^ 0x466F_7267_6574);
        if !dice.percent(FORGETFUL_SEEDS) {
            return;
        }
        let (at, (_, slot)) = self.somewhere(&mut dice, 4);
        // Who made the group is a member for long.
        let made = |step: &&Step| step.slot == slot && step.action == Action::Create;
        let Some(actor) = self.steps.iter().find(made).map(|step| step.actor) else { return };
        let days = (25 + dice.below(20)) * 60 * MINUTE;
        let who = (actor, slot);
        // From the last to the first.
        self.insert(at, days, who, Action::Submit);
        if let Some(step) = self.insert(at, 1_000, who, Action::Say) {
            (step.drive, step.weather.fault) = (true, Some((0, NetworkFault::ReplyLost)));
        }
        if let Some(step) = self.insert(at, 1_000, who, Action::Sync) {
            step.drive = true;
        }
    }

    /// The server shows somebody nothing more for a while, who says something then.
    fn insert_stalls(&mut self, plan: &Plan) {
        let mut dice = Dice::new(plan.seed ^ 0x5374_616C_6C21);
        if !plan.hostile.server() {
            return;
        }
        for _ in 0..dice.index(3) {
            let (at, who) = self.somewhere(&mut dice, 4);
            let end = (at + 1 + dice.index(40)).min(self.steps.len());
            let (says, reads) = (dice.percent(70), dice.percent(50));
            self.insert(end, 1, who, Action::Unite);
            if reads {
                self.insert(at, dice.below(5_000), who, Action::Sync);
            }
            if says && let Some(step) = self.insert(at, dice.below(5_000), who, Action::Say) {
                step.drive = true;
            }
            self.insert(at, dice.below(5_000), who, Action::Lie(Lie::Stall));
            self.insert(at, dice.below(5_000), who, Action::Sync);
        }
    }

    /// Members say again what they said, as if it were new.
    fn insert_repetitions(&mut self, plan: &Plan) {
        let mut dice = Dice::new(plan.seed ^ 0x5265_7065_6174);
        if !plan.hostile.members() {
            return;
        }
        for _ in 0..=dice.index(4) {
            let (at, who) = self.somewhere(&mut dice, 4);
            let pause = dice.below(5_000);
            if let Some(step) = self.insert(at, pause, who, Action::Read) {
                step.offence = Some(Offence::Repeat);
            }
        }
    }

    /// Of commits that nobody can apply, members say at times that they could, while that counts.
    fn insert_false_words(&mut self, plan: &Plan) {
        let mut dice = Dice::new(plan.seed ^ 0x4661_6C73_6541);
        if !plan.hostile.members() {
            return;
        }
        let bad = |step: &Step| step.offence.is_some_and(Offence::is_void);
        let mut at = 0;
        while let Some(next) = self.steps.iter().skip(at).position(bad) {
            at += next + 1;
            let Some(slot) = self.steps.get(at - 1).map(|step| step.slot) else { return };
            let (says_so, actor, pause) =
                (dice.percent(FALSE_WORDS), dice.index(self.clients.len()), dice.below(5_000));
            if says_so && let Some(step) = self.insert(at, pause, (actor, slot), Action::Read) {
                step.offence = Some(Offence::FalseAck);
            }
        }
    }

    /// In some seeds, the server shows somebody nothing more for longer than its keys stay as they are, while another one speaks.
    fn insert_long_stalls(&mut self, plan: &Plan) {
        let mut dice = Dice::new(plan.seed ^ 0x4C6F_6E67_5374);
        if !plan.hostile.server() || !dice.percent(LONG_STALLS) {
            return;
        }
        let (at, who) = self.somewhere(&mut dice, 4);
        let other = ((who.0 + 1 + dice.index(self.clients.len() - 1)) % self.clients.len(), who.1);
        let days = (10 * 24 * 60 + dice.below(3 * 24 * 60)) * MINUTE;
        let (speaks, pause) = (dice.percent(80), dice.below(5_000));
        // From the last to the first.
        self.insert(at, 1, who, Action::Unite);
        self.insert(at, pause, who, Action::Sync);
        self.insert(at, days, who, Action::Sync);
        if speaks && let Some(step) = self.insert(at, pause, other, Action::Say) {
            step.drive = true;
        }
        self.insert(at, pause, who, Action::Lie(Lie::Stall));
        self.insert(at, pause, who, Action::Sync);
    }
}
