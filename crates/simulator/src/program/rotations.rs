//! Clients that change their signature key, in most programs.

use crate::{
    dice::Dice,
    network::Weather,
    plan::Plan,
    program::{Action, Program, Step},
};

/// Of a hundred seeds, those in which somebody does.
const SEEDS: u64 = 60;

impl Program {
    /// Puts rotations into a program. Dice of their own throw for that, and the steps are numbered after all others: whatever else
    /// a seed means does not depend on it.
    pub(crate) fn insert_rotations(&mut self, plan: &Plan) {
        let mut dice = Dice::new(plan.seed ^ 0x526F_7461_7465);
        if !dice.percent(SEEDS) {
            return;
        }
        for _ in 0..=dice.index(5) {
            let at = self.steps.len() / 8 + dice.index(self.steps.len() - self.steps.len() / 8);
            let (actor, slot) = (dice.index(self.clients.len()), dice.index(self.slots));
            let number = u32::try_from(self.steps.len()).unwrap_or(u32::MAX);
            let death = dice.percent(plan.fault_percent).then(|| dice.below(24));
            let weather = Weather { death, ..Weather::default() };
            let (pause, drive) = (dice.below(5_000), dice.percent(70));
            let action = Action::Rotate;
            self.steps.insert(at, Step { number, pause, actor, slot, action, drive, offence: None, weather });
        }
    }
}
