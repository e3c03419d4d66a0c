//! What the tests share: a random stream from a seed, real clusters of processes, a world of Raft
//! replicas, other implementations of Raft beside ours, and a model of the store.

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

/// The seeds of a test: so many, or as `BEDSTONE_CRASH_SEEDS` says. A soak gives it a large number,
/// and `BEDSTONE_CRASH_FROM` the first.
pub fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse().ok());
    let from = number("BEDSTONE_CRASH_FROM").unwrap_or(0);
    from..from + number("BEDSTONE_CRASH_SEEDS").unwrap_or(default)
}
