//! Cutting a program that violates something to what is needed for it (delta debugging).

use std::collections::BTreeSet;

use crate::{
    plan::{Numbers, Plan, Trouble},
    program::Program,
    world::{Violation, simulate},
};

/// A program on its way to a smaller one.
struct Shrink {
    best: Box<Violation>,
    tries: u32,
}

/// Cuts the program of a violation: kinds of trouble, clients, steps, and what goes wrong in single steps, as long as
/// something is violated. At most so many programs are tried.
#[must_use]
pub fn shrink(violation: Box<Violation>, tries: u32) -> Box<Violation> {
    let mut shrink = Shrink { best: violation, tries };
    let keep = shrink.steps();
    shrink.best.plan.cut.keep = Some(Numbers(keep));
    loop {
        let before = shrink.size();
        shrink.cut_troubles();
        shrink.cut_clients();
        shrink.cut_steps();
        shrink.calm_steps();
        if shrink.size() == before || shrink.tries == 0 {
            return shrink.best;
        }
    }
}

/// What is violated, without names and numbers.
fn kind(violation: &Violation) -> String {
    let words = violation.what.split(|letter: char| !letter.is_alphabetic());
    words.filter(|word| !word.is_empty()).take(8).collect::<Vec<_>>().join(" ")
}

impl Shrink {
    fn steps(&self) -> BTreeSet<u32> {
        Program::new(&self.best.plan).steps.iter().map(|step| step.number).collect()
    }

    fn size(&self) -> (usize, usize, usize) {
        let cut = &self.best.plan.cut;
        (self.steps().len(), cut.calm.0.len(), cut.without.len())
    }

    /// Whether something is violated also by this plan, which is the best from now on then.
    fn holds(&mut self, plan: Plan) -> bool {
        let Some(left) = self.tries.checked_sub(1) else { return false };
        self.tries = left;
        match simulate(&plan) {
            // Another violation would be another story.
            Err(violation) if kind(&violation) == kind(&self.best) => {
                self.best = violation;
                true
            }
            _ => false,
        }
    }

    fn keeps(&mut self, keep: BTreeSet<u32>) -> bool {
        let mut plan = self.best.plan.clone();
        plan.cut.calm.0.retain(|step| keep.contains(step));
        plan.cut.keep = Some(Numbers(keep));
        self.holds(plan)
    }

    fn cut_troubles(&mut self) {
        for trouble in Trouble::ALL {
            let mut plan = self.best.plan.clone();
            if plan.cut.without.insert(trouble) {
                self.holds(plan);
            }
        }
    }

    fn cut_clients(&mut self) {
        for client in Program::new(&self.best.plan).mentioned().into_iter().rev() {
            let program = Program::new(&self.best.plan);
            let without = |step: &&crate::program::Step| !step.clients().any(|of| of == client);
            let keep: BTreeSet<_> = program.steps.iter().filter(without).map(|step| step.number).collect();
            if keep.len() < program.steps.len() {
                self.keeps(keep);
            }
        }
    }

    /// Leaves out runs of steps, long ones first.
    fn cut_steps(&mut self) {
        let mut run = self.steps().len() / 2;
        while run > 0 && self.tries > 0 {
            // From the end: what comes first is what the rest builds on.
            let mut end = self.steps().len();
            while end > 0 {
                let steps: Vec<_> = self.steps().into_iter().collect();
                end = end.min(steps.len());
                let start = end.saturating_sub(run);
                let keep = steps.iter().enumerate().filter(|(at, _)| !(start..end).contains(at));
                let keep = keep.map(|(_, step)| *step).collect();
                self.keeps(keep);
                end = start;
            }
            run /= 2;
        }
    }

    fn calm_steps(&mut self) {
        for step in self.steps() {
            let mut plan = self.best.plan.clone();
            if plan.cut.calm.0.insert(step) {
                self.holds(plan);
            }
        }
    }
}
