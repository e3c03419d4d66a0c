//! What the tests share: a random stream from a seed.

pub mod rng;
