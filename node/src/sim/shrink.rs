//! Makes a failing plan smaller: fewer faults (delta debugging, Zeller and Hildebrandt 2002), then
//! fewer clients and nodes and less time, as long as the same promise breaks.

use super::plan::{MILLI, Plan};
use super::{Failure, run};

/// Runs that shrinking may take.
const RUNS_MAX: usize = 300;

/// The smallest plan found that breaks the same promise, and how.
pub fn shrink(plan: &Plan, failure: &Failure) -> (Plan, Failure) {
    let mut shrinking = Shrinking { best: plan.clone(), failure: failure.clone(), runs: RUNS_MAX };
    // What comes after the failure did not cause it.
    let (at, mut plan) = (failure.at, plan.clone());
    plan.faults.retain(|planned| planned.at <= at);
    plan.horizon = plan.horizon.min(at + MILLI);
    shrinking.attempt(plan);
    shrinking.faults();
    while shrinking.best.clients > 1 && shrinking.with(|plan| plan.clients -= 1) {}
    while shrinking.best.keys > 1 && shrinking.with(|plan| plan.keys -= 1) {}
    while shrinking.best.spares > 0 && shrinking.with(|plan| plan.spares -= 1) {}
    while shrinking.best.nodes > 3 && shrinking.with(|plan| plan.nodes -= 2) {}
    while shrinking.best.horizon > MILLI && shrinking.with(|plan| plan.horizon /= 2) {}
    shrinking.faults();
    (shrinking.best, shrinking.failure)
}

struct Shrinking {
    best: Plan,
    failure: Failure,
    runs: usize,
}

impl Shrinking {
    /// Takes a plan if it breaks the same promise.
    fn attempt(&mut self, plan: Plan) -> bool {
        if self.runs == 0 {
            return false;
        }
        self.runs -= 1;
        match run(&plan) {
            Err(failure) if failure.check == self.failure.check => {
                (self.best, self.failure) = (plan, failure);
                true
            }
            _ => false,
        }
    }

    fn with(&mut self, change: impl FnOnce(&mut Plan)) -> bool {
        let mut plan = self.best.clone();
        change(&mut plan);
        self.attempt(plan)
    }

    /// Leaves out faults, at first many at a time.
    fn faults(&mut self) {
        let mut size = self.best.faults.len();
        while size > 0 {
            let mut from = 0;
            while from < self.best.faults.len() {
                let end = (from + size).min(self.best.faults.len());
                if !self.with(|plan| drop(plan.faults.drain(from..end))) {
                    from += size;
                }
            }
            size /= 2;
        }
    }
}
