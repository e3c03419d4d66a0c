//! A cluster of whole nodes in one thread. The engines, worker loops, shards and wire formats are
//! the product's; the disks, the network and the clocks are simulated. One seed determines a whole
//! run. A seed draws a [`Plan`]: nodes, clients, sizes, and faults of a few kinds. The checks run
//! after every turn of every node. At the horizon of the plan all faults end. Within a bound the
//! cluster must then have one leader, accept a write at each member and hold the same data on every
//! member. The history that the clients saw must be linearizable.
//!
//! A seed gives the same run on any machine: [`Ran::trace`] is a digest of the run.

pub mod build;
mod checks;
mod clients;
mod faults;
pub mod history;
mod host;
mod network;
mod outcome;
pub mod plan;
mod replicas;
pub mod rng;
pub mod sabotage;
pub mod scenario;
pub mod shrink;
mod world;

pub use outcome::{Failure, Ran};
pub use plan::Plan;
pub use replicas::HostId;
pub use sabotage::Sabotage;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a plan.
///
/// # Errors
/// The first check that failed. A panic of a node counts as a failed check.
pub fn run(plan: &Plan) -> Result<Ran, Failure> {
    let outcome = catch_unwind(AssertUnwindSafe(|| world::World::new(plan).run()));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
        Err(Failure::new("no-panic", text.unwrap_or_default()))
    })
}
