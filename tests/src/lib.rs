//! Code that the tests share: a random number generator with a seed, clusters of real processes, a
//! simulated world of Raft replicas, other Raft implementations for comparison, and a model of the
//! store.

pub mod cluster;
pub mod disks;
pub mod load;
pub mod namespaces;
pub mod raft_differential;
pub mod raft_exhaustive;
pub mod raft_log;
pub mod raft_script;
pub mod raft_trace;
pub mod raft_world;
pub mod store_model;

pub use bedstone_node::sim::{history, rng};

/// The seeds of a test: `default` seeds from 0 on, unless `BEDSTONE_CRASH_FROM` sets the first seed
/// and `BEDSTONE_CRASH_SEEDS` the number of seeds. A soak run sets a large number.
pub fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse().ok());
    let from = number("BEDSTONE_CRASH_FROM").unwrap_or(0);
    from..from + number("BEDSTONE_CRASH_SEEDS").unwrap_or(default)
}
