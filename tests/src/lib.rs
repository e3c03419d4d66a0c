//! What the tests share: a random stream from a seed, real clusters of processes, and a checker of
//! histories.

pub mod cluster;
pub mod history;
pub mod rng;
