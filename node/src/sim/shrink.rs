//! Shrinks a failing plan: fewer faults (delta debugging, Zeller and Hildebrandt 2002), then fewer
//! clients and nodes and less time, as long as the same check fails.

use super::plan::{MILLI, Plan};
use super::{Failure, run};

/// Greatest number of runs for one shrink.
const RUNS_MAX: usize = 300;

/// The smallest plan found that fails the same check, and its failure.
pub fn shrink(plan: &Plan, failure: &Failure) -> (Plan, Failure) {
    let mut shrinking = Shrinking { best: plan.clone(), failure: failure.clone(), runs: RUNS_MAX };
    // A fault after the failure did not cause the failure.
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
    /// Keeps a plan if it fails the same check.
    fn attempt(&mut self, plan: Plan) -> bool {
        if self.runs == 0 {
            return false;
        }
        self.runs -= 1;
        match run(&plan) {
            Err(failure) if failure.check == self.failure.check => {
                self.best = plan;
                self.failure = failure;
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

    /// Removes faults, at first many at a time.
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
