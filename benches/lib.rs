//! Criterion benchmarks, and what they share; see `docs/BENCHMARKS.md` for how to read them.

pub mod raft_cluster;
