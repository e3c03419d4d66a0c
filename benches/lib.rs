//! Criterion benchmarks and their shared code; `docs/BENCHMARKS.md` explains how to read them.

pub mod raft_cluster;
